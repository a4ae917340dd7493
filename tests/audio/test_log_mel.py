"""Whisper's log-mel: its filters against a hand-made one, lengths, floor, and silence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_audio.audio.log_mel import HOP, mel_filters, whisper_log_mel


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_triangles_of_slaney_area(n_mels):
    filters = mel_filters(n_mels)
    assert filters.shape == (n_mels, 201) and filters.min() == 0
    peaks = filters.argmax(1)
    assert (peaks.diff() >= 0).all()
    # A tall enough triangle of Slaney's normalisation has area 1 over frequency in Hz; bins are 40 Hz apart.
    areas = filters[n_mels // 2 :].sum(1) * 40
    torch.testing.assert_close(areas, torch.ones_like(areas), atol=0.1, rtol=0)


def test_a_tone_is_where_it_should_be():
    time = torch.arange(16_000) / 16_000
    log_mel = whisper_log_mel(torch.sin(2 * torch.pi * 1000 * time), 80)
    loudest = log_mel.mean(1).argmax()
    assert mel_filters(80)[loudest, 25] > 0  # bin 25 is 1000 Hz


@settings(max_examples=20, deadline=None)
@given(length=st.integers(201, 5000), gain=st.floats(1e-4, 1))
def test_length_and_range(length, gain):
    log_mel = whisper_log_mel(torch.randn(length) * gain, 80)
    assert log_mel.shape == (80, length // HOP) and log_mel.isfinite().all()
    assert log_mel.max() - log_mel.min() <= 8 / 4 + 1e-5


def test_silence_is_flat():
    log_mel = whisper_log_mel(torch.zeros(2, 3200), 80)
    assert torch.equal(log_mel, torch.full_like(log_mel, (-10 + 4) / 4))
