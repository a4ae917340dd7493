"""Streams mean the same however they are cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_audio.audio.blocks import reblock, resample

noise = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
cuts = st.lists(st.integers(0, len(noise)), max_size=12).map(sorted)


@given(cuts, st.integers(10, 10_000))
def test_reblock_keeps_every_sample_in_blocks_of_one_size(cuts, size):
    blocks = list(reblock(np.split(noise, cuts), size))
    assert np.array_equal(np.concatenate(blocks), noise)
    assert all(len(block) == size for block in blocks[:-1]) and 0 < len(blocks[-1]) <= size


@settings(max_examples=30)
@given(cuts, st.sampled_from([1000, 8000, 11025, 44100, 48000, 768_000]))
def test_resampling_in_pieces_equals_resampling_at_once(cuts, rate):
    whole = np.concatenate(list(resample([noise], rate, 16000)))
    pieces = np.concatenate(list(resample(np.split(noise, cuts), rate, 16000)))
    assert np.array_equal(pieces, whole)
    assert len(whole) == pytest.approx(len(noise) * 16000 / rate, abs=1)


def test_a_tone_keeps_its_pitch_and_level():
    tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    resampled = np.concatenate(list(resample(np.array_split(tone, 7), 44100, 16000)))
    assert np.abs(resampled - expected)[500:-500].max() < 1e-4
