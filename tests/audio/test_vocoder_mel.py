"""The vocoder's log-mel; its figures are in the golden cases."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.audio.vocoder_mel import vocoder_log_mel

SETTINGS = dict(n_fft=1024, hop=480, window=1024, n_mels=80, rate=24000)


@given(frames=st.integers(2, 30), rest=st.integers(0, 479))
def test_a_frame_for_every_hop(frames, rest):
    assert vocoder_log_mel(torch.randn(2, 480 * frames + rest), **SETTINGS).shape == (2, frames, 80)


def test_a_tone_is_where_it_sounds_and_silence_is_at_the_floor():
    time = torch.arange(24000) / 24000
    tones = [torch.sin(2 * torch.pi * hertz * time)[None] for hertz in (300, 3000)]
    peaks = [vocoder_log_mel(tone, **SETTINGS)[0, 20].argmax() for tone in tones]
    assert peaks[0] < peaks[1]
    assert vocoder_log_mel(torch.zeros(1, 4800), **SETTINGS).max() < -7
