"""Pieces are in order, apart and short enough, whatever the stream; real speech is kept and silence is not."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_audio.audio import Segment, load_audio, speech_segments
from kimi_audio.audio.segments import FRAME, LONG_PAUSE, PADDING, RATE, _Cutter
from kimi_audio.errors import ConfigError

SECOND = RATE / FRAME  # frames


def cut(voiced: list[bool], max_frames: int, target_frames: int) -> tuple[list[Segment], np.ndarray]:
    """The pieces of a stream whose frames hold their own number, in samples that are louder where voiced."""
    cutter = _Cutter(max_frames, target_frames)
    numbers = np.repeat(np.arange(1, len(voiced) + 1), FRAME) * 1e-5
    stream = (numbers + np.repeat(voiced, FRAME)).astype(np.float32)
    found = [cutter.push(frame, float(v)) for frame, v in zip(np.split(stream, len(voiced)), voiced, strict=True)]
    return [segment for segment in [*found, cutter.flush()] if segment], stream


runs = st.lists(st.tuples(st.integers(0, 150), st.integers(0, 90)), min_size=1, max_size=6).map(
    lambda pairs: [flag for speech, pause in pairs for flag in [True] * speech + [False] * pause] or [False]
)


@settings(max_examples=60)
@given(runs, st.integers(62, 200), st.floats(0.3, 1))
def test_pieces_hold_all_speech_once_and_are_bounded(voiced, max_frames, share):
    segments, stream = cut(voiced, max_frames, int(max_frames * share))
    covered = np.zeros(len(voiced), bool)
    for segment in segments:
        first, last = round(segment.start * SECOND), round(segment.end * SECOND)
        assert 0 < last - first <= max_frames
        assert np.array_equal(segment.samples, stream[first * FRAME : last * FRAME])
        assert not covered[first:last].any()
        covered[first:last] = True
    assert [s.start for s in segments] == sorted(s.start for s in segments)
    for flag, group in itertools.groupby(range(len(voiced)), key=lambda i: voiced[i]):
        frames = list(group)
        if flag:
            assert covered[frames].all()
        if not flag and len(frames) >= LONG_PAUSE:
            assert not covered[frames[PADDING:-PADDING]].any()


def test_neighbours_are_merged_up_to_the_target():
    phrases = ([True] * 60 + [False] * 20) * 12  # 2 s of speech, 0.6 s of pause
    segments, _ = cut(phrases, 937, 468)
    assert [round(s.end - s.start, 1) for s in segments] == [15.0, 15.4]


def test_speech_without_a_pause_is_cut_where_it_is_quietest():
    cutter = _Cutter(200, 100)
    found = []
    for i in range(300):
        frame = np.full(FRAME, 0.01 if 140 <= i < 150 else 0.5, np.float32)
        found.append(cutter.push(frame, 1.0))
    first = next(segment for segment in found if segment)
    assert 140 <= first.end * SECOND <= 150
    rest = cutter.flush()
    assert rest is not None and rest.start == first.end and rest.end * SECOND == 300


def test_memory_is_bounded():
    cutter = _Cutter(200, 100)
    for i in range(3_000):
        cutter.push(np.zeros(FRAME, np.float32), float(i % 1000 < 700))
        assert len(cutter.frames) < 200


@pytest.mark.parametrize("level", [0, 1e-4, 3e-3])
def test_silence_and_room_noise_yield_nothing(level):
    noise = level * np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    hum = level * np.sin(2 * np.pi * 50 * np.arange(20 * RATE) / RATE).astype(np.float32)
    assert list(speech_segments([noise + hum])) == []
    assert list(speech_segments([])) == []


@pytest.mark.parametrize("lengths", [dict(max_seconds=1), dict(max_seconds=10), dict(target_seconds=0.5)])
def test_lengths_that_cannot_be_met(lengths):
    with pytest.raises(ConfigError, match="2 <= target <= max is accepted"):
        list(speech_segments([], **lengths))


@pytest.fixture(scope="module")
def clips(shared) -> list[np.ndarray]:
    folder = shared / "data/en_librispeech_mini"
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [load_audio(folder / line["audio"]) for line in lines if line["split"] == "dev"][:3]


def test_real_speech_between_silences_is_found_where_it_is(clips):
    silence = np.zeros(4 * RATE, np.float32)
    stream = np.concatenate([part for clip in clips for part in (silence, clip)])
    starts = np.cumsum([0] + [len(silence) + len(clip) for clip in clips])[:-1] / RATE + 4
    segments, margin = list(speech_segments([stream])), PADDING * FRAME / RATE
    for start, clip in zip(starts, clips, strict=True):
        end = start + len(clip) / RATE
        inside = [s for s in segments if s.start >= start - margin - 0.1 and s.end <= end + margin + 0.3]
        assert sum(s.end - s.start for s in inside) > 0.75 * len(clip) / RATE
    assert sum(s.end - s.start for s in segments) < sum(map(len, clips)) / RATE + 2 * margin * len(segments)


@settings(max_examples=5)
@given(cuts=st.lists(st.integers(0, 12 * RATE), max_size=20).map(sorted), longest=st.floats(3, 30))
def test_streaming_equals_one_shot(clips, cuts, longest):
    stream = np.concatenate(clips)[: 12 * RATE]
    options = dict(max_seconds=longest, target_seconds=min(longest, 8))
    whole = list(speech_segments([stream], **options))
    pieces = list(speech_segments(np.split(stream, cuts), **options))
    assert whole and [(s.start, s.end) for s in pieces] == [(s.start, s.end) for s in whole]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(whole, pieces, strict=True))
    assert all(s.end - s.start <= longest for s in whole)


def test_another_sample_rate_gives_the_same_times(clips):
    stream = np.concatenate(clips[:2])[: 10 * RATE]
    slow = [(s.start, s.end) for s in speech_segments([stream])]
    fast = [(s.start, s.end) for s in speech_segments([np.repeat(stream, 3)], 48000)]
    assert np.allclose(fast, slow, atol=0.1)
