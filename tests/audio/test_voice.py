"""The detector hears voices, however its frames are grouped."""

import json

import numpy as np
import pytest

from kimi_audio.audio import load_audio
from kimi_audio.audio.voice import FRAME, VoiceDetector


def test_grouping_changes_nothing():
    frames = np.random.default_rng(0).standard_normal((50, FRAME)).astype(np.float32) * 0.1
    detector = VoiceDetector()
    whole = detector(frames)
    detector.reset()
    pieces = np.concatenate([detector(group) for group in np.split(frames, [1, 2, 20, 49])])
    assert np.allclose(pieces, whole, atol=1e-5)
    assert whole.shape == (50,) and (whole >= 0).all() and (whole <= 1).all()


@pytest.mark.parametrize("level", [0, 1e-4, 0.1])
def test_silence_and_noise_are_no_voice(level):
    frames = level * np.random.default_rng(1).standard_normal((500, FRAME)).astype(np.float32)
    assert VoiceDetector()(frames).max() < 0.2


def test_speech_is(shared):
    folder = shared / "data/en_librispeech_mini"
    for line in (folder / "manifest.jsonl").read_text().splitlines()[:3]:
        samples = load_audio(folder / json.loads(line)["audio"])
        frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
        assert np.median(VoiceDetector()(frames)) > 0.9
