"""Streams of speech: pieces joined equal the whole, streams do not hear each other, nothing is left behind."""

from itertools import pairwise

import pytest
import torch
from detokenizer.small import FLOW, VOCODER, make_detokenizer, seeded_noise
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE, StreamConfig

CODES = st.lists(st.integers(0, FLOW.semantic_vocab_size - 1), max_size=24)
SAMPLES_PER_CODE = FRAMES_PER_CODE * VOCODER.hop_size


@settings(max_examples=30, deadline=None)
@given(codes=CODES, cuts=st.lists(st.integers(0, 24), max_size=5), look_ahead=st.sampled_from([0, 2]))
def test_pieces_joined_equal_the_whole(codes, cuts, look_ahead):
    detokenizer = make_detokenizer(look_ahead_codes=look_ahead)
    whole = detokenizer(codes, seeded_noise(3))
    stream = detokenizer.stream(seeded_noise(3))
    places = [0, *sorted(min(cut, len(codes)) for cut in cuts), len(codes)]
    pieces = [stream.push(codes[start:end]) for start, end in pairwise(places)]
    assert torch.equal(torch.cat([*pieces, stream.flush()]), whole)
    assert len(whole) == SAMPLES_PER_CODE * len(codes)


def test_a_chunk_comes_as_soon_as_a_code_follows_it():
    stream = make_detokenizer().stream()
    assert len(stream.push([1, 2, 3, 4, 5])) == 0
    assert len(stream.push([6])) == SAMPLES_PER_CODE * (5 - 2) // 2


def test_streams_are_independent_and_as_new_after_a_flush():
    detokenizer, codes = make_detokenizer(), list(range(17))
    alone = detokenizer(codes, seeded_noise(1))
    one, other = detokenizer.stream(seeded_noise(1)), detokenizer.stream(seeded_noise(2))
    parts = []
    for code in codes:
        parts.append(one.push([code]))
        other.push([19 - code])
    assert torch.equal(torch.cat([*parts, one.flush()]), alone)
    other.reset()
    again = detokenizer.stream(seeded_noise(1))
    again.push([3] * 7)
    again.reset()
    assert len(again.flush()) == 0


def test_long_speech_forgets_what_is_far_back():
    """Positions start over and the cache stays bounded, and both change the sound."""
    codes = [n % 20 for n in range(40)]
    usual = make_detokenizer()(codes, seeded_noise(1))
    for settings_ in ({"positions": 60}, {"remembered_frames": 8}):
        other = make_detokenizer(**settings_)(codes, seeded_noise(1))
        assert other.shape == usual.shape and not torch.allclose(other, usual, atol=1e-4)


def test_look_ahead_must_fit_a_chunk():
    with pytest.raises(ValueError, match="look_ahead_codes is 5; 0 to 4 are possible"):
        StreamConfig(chunk_codes=5, look_ahead_codes=5)
