"""Streams of speech: pieces joined equal the whole, streams do not hear each other, nothing is left behind."""

from itertools import pairwise

import pytest
import torch
from detokenizer.small import FLOW, VOCODER, make_detokenizer, make_flow, seeded_noise
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE, MelStream, StreamConfig
from kimi_audio.errors import ConfigError

CODES = st.lists(st.integers(0, FLOW.semantic_vocab_size - 1), max_size=24)
SAMPLES_PER_CODE = FRAMES_PER_CODE * VOCODER.hop_size


@settings(max_examples=30, deadline=None)
@given(
    codes=CODES,
    cuts=st.lists(st.integers(0, 24), max_size=5),
    manner=st.sampled_from(
        [
            {},
            {"look_ahead_codes": 0},
            {"first_chunk_codes": 3},
            {"guidance": 1.0},
            {"guidance": 1.0, "guidance_from": 0.5},
            {"stitching": "official"},
            {"context_frames": 0},
        ]
    ),
)
def test_pieces_joined_equal_the_whole(codes, cuts, manner):
    detokenizer = make_detokenizer(**manner)
    whole = detokenizer(codes, seeded_noise(3))
    stream = detokenizer.stream(seeded_noise(3))
    places = [0, *sorted(min(cut, len(codes)) for cut in cuts), len(codes)]
    pieces = [stream.push(codes[start:end]) for start, end in pairwise(places)]
    assert torch.equal(torch.cat([*pieces, stream.flush()]), whole)
    assert len(whole) == SAMPLES_PER_CODE * len(codes)


def test_a_chunk_comes_as_soon_as_a_code_follows_it():
    stream = make_detokenizer(stitching="official").stream()
    assert len(stream.push([1, 2, 3, 4, 5])) == 0
    assert len(stream.push([6])) == SAMPLES_PER_CODE * (5 - 2) // 2
    stream = make_detokenizer(first_chunk_codes=3, context_frames=2).stream()
    assert len(stream.push([1, 2, 3])) == 0
    assert len(stream.push([6])) == SAMPLES_PER_CODE - 2 * VOCODER.hop_size


def test_a_chunk_sounds_before_it_is_remembered():
    flow, passes = make_flow(), []
    flow.register_forward_hook(lambda *_: passes.append(1))
    mels = MelStream(flow, StreamConfig(chunk_codes=4, look_ahead_codes=1).with_steps(3), seeded_noise(1))
    mels.push([1, 2, 3, 4])
    assert len(passes) == 3
    mels.push([5, 6, 7, 0])
    assert len(passes) == 3 + 1 + 3
    mels.flush([1])
    assert len(passes) == 3 + 2 * (1 + 3)


def test_overlapping_chunks_sound_as_the_whole_mel():
    """With all that the vocoder can see around it a seam is no seam; the official fade leaves one."""
    context = VOCODER.receptive_frames
    codes = [n % 20 for n in range(60)]
    detokenizer = make_detokenizer(chunk_codes=15, context_frames=context)
    mels = MelStream(detokenizer.flow, detokenizer.config, seeded_noise(4))
    parts = [*(mels.push(codes[at : at + 15]) for at in range(0, 45, 15)), mels.flush(codes[45:])]
    with torch.inference_mode():
        whole = detokenizer.vocoder(torch.cat(parts)[None])[0]
    assert torch.allclose(detokenizer(codes, seeded_noise(4)), whole, atol=1e-6)
    faded = make_detokenizer(chunk_codes=15, stitching="official")(codes, seeded_noise(4))
    assert not torch.allclose(faded, whole, atol=1e-6)


def test_guidance_moves_away_from_what_no_code_sounds_like():
    codes = list(range(12))
    plain, guided = (make_detokenizer(guidance=weight)(codes, seeded_noise(1)) for weight in (0.0, 2.0))
    assert plain.shape == guided.shape and not torch.allclose(plain, guided, atol=1e-4)


def test_guidance_may_begin_later():
    """Steps before that time are those without guidance, for less work; the remembered rows do not suffer."""
    rows, codes = [], list(range(14))
    for guidance_from in (0.0, 0.5):
        flow = make_flow()
        flow.register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[0])))
        config = StreamConfig(8, None, 2, guidance=2.0, guidance_from=guidance_from).with_steps(4)
        mels = MelStream(flow, config, seeded_noise(1))
        made = torch.cat([mels.push(codes[:8]), mels.flush(codes[8:])])
        assert made.isfinite().all()
    assert rows == [2] * 9 + [1, 1, 2, 2, 2, 1, 1, 2, 2]


def test_guidance_from_the_end_on_is_none():
    codes = list(range(14))
    late, none = (make_detokenizer(**settings_)(codes, seeded_noise(1))
                  for settings_ in ({"guidance": 2.0, "guidance_from": 1.0}, {"guidance": 0.0}))  # fmt: skip
    assert torch.allclose(late, none, atol=1e-4)


def test_streams_are_independent_and_as_new_after_a_flush():
    detokenizer = make_detokenizer()
    spoken = [list(range(17)), [19 - code for code in range(14)]]
    alone = [detokenizer(codes, seeded_noise(number)) for number, codes in enumerate(spoken)]
    streams, parts = [detokenizer.stream(seeded_noise(number)) for number in range(2)], [[], []]
    for at in range(17):
        for stream, codes, heard in zip(streams, spoken, parts, strict=True):
            heard.append(stream.push(codes[at : at + 1]))
    for stream, heard, whole in zip(streams, parts, alone, strict=True):
        assert torch.equal(torch.cat([*heard, stream.flush()]), whole)
        assert len(stream.flush()) == 0


def test_a_stream_forgets_everything_in_the_middle_of_a_sound():
    detokenizer, codes = make_detokenizer(first_chunk_codes=3), list(range(17))
    noises = iter([seeded_noise(2), seeded_noise(1)])
    noise = next(noises)
    stream = detokenizer.stream(lambda frames, bins: noise(frames, bins))
    stream.push([3] * 8)
    stream.reset()
    assert len(stream.flush()) == 0
    noise = next(noises)
    again = torch.cat([stream.push(codes), stream.flush()])
    assert torch.equal(again, detokenizer(codes, seeded_noise(1)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_flow_of_half_precision_makes_nearly_the_same_mels(dtype):
    codes = list(range(12))
    exact = MelStream(make_flow(), StreamConfig(), seeded_noise(1)).flush(codes)
    rounded = MelStream(make_flow().to(dtype), StreamConfig(), seeded_noise(1)).flush(codes)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().mean() < 0.01 * exact.std()


def test_long_speech_forgets_what_is_far_back():
    """Positions start over and the cache stays bounded, and both change the sound."""
    codes = [n % 20 for n in range(40)]
    usual = make_detokenizer()(codes, seeded_noise(1))
    for settings_ in ({"positions": 60}, {"remembered_frames": 8}):
        other = make_detokenizer(**settings_)(codes, seeded_noise(1))
        assert other.shape == usual.shape and not torch.allclose(other, usual, atol=1e-4)


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"chunk_codes": 5, "look_ahead_codes": 5}, "look_ahead_codes is 5; 0 to 4 are possible"),
        ({"first_chunk_codes": 10}, "look_ahead_codes is 12; 0 to 9 are possible"),
        ({"schedule": []}, "at least one step"),
        ({"sway": -2.0}, "-1 to 1 are possible"),
        ({"guidance": -1.0}, "can't be below 0"),
        ({"guidance_from": 1.5}, "0 to 1 are possible"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings_, sentence):
    with pytest.raises(ConfigError, match=sentence):
        StreamConfig(**settings_)
