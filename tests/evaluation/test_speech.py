"""Measures of speech: known answers for made sounds, exact figures of the published networks, plain sense on voices."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_audio.audio.decode import load_audio
from kimi_audio.errors import DataError
from kimi_audio.evaluation.mos import MosPredictor
from kimi_audio.evaluation.speaker import SpeakerEncoder
from kimi_audio.evaluation.speech import (
    find_pauses,
    leading_silence,
    speaking_rate,
    spectral_jumps,
    voiced_frames,
)

RATE = 16_000
SPEECH = Path(__file__).parents[2] / "examples" / "kathleen.flac"
needs_speaker_weights = pytest.mark.skipif(not find_spec("resemblyzer"), reason="resemblyzer is not installed")
needs_mos_network = pytest.mark.skipif(
    not (find_spec("speechmos") and find_spec("onnxruntime")), reason="speechmos or onnxruntime is not installed"
)


def buzz(seconds: float, rate: int = RATE) -> np.ndarray:
    """A gliding tone with overtones that swells and fades, somewhat like a voice."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time)) / rate
    tone = np.sum([np.sin(k * phase) / k for k in range(1, 20)], axis=0)
    return (tone * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)) * 0.1).astype(np.float32)


def breathy(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate)).astype(np.float32)
    return buzz(seconds, rate) + 0.003 * noise


@pytest.fixture(scope="module")
def recordings(shared: Path) -> Callable[[str, str], list[np.ndarray]]:
    def load(folder: str, speaker: str, count: int = 6) -> list[np.ndarray]:
        lines = (shared / "data" / folder / "manifest.jsonl").read_text("utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if row["speaker"] == speaker and row["duration"] > 1.2]
        chosen = rows[:: max(1, len(rows) // count)][:count]
        return [load_audio(shared / "data" / folder / row["audio"]) for row in chosen]

    return load


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return SpeakerEncoder()


# --- chunk joins


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_joins_that_are_none_are_like_all_other_places(rate: int) -> None:
    sound = breathy(20, rate)
    joins = np.random.default_rng(1).integers(rate, 19 * rate, 60).tolist()
    assert 0.8 < np.nanmean(spectral_jumps(sound, rate, joins)) < 1.2


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("shift", [0, 37, 119])
def test_a_click_at_a_join_is_a_jump(rate: int, shift: int) -> None:
    sound = breathy(10, rate)
    joins = [round(second * rate) + shift for second in (1.2, 3.4, 5.6, 8.9)]
    sound[joins] += 0.3
    ratios = spectral_jumps(sound, rate, joins)
    assert (ratios > 1.5).all()
    assert np.nanmean(spectral_jumps(sound, rate, [join + rate // 2 for join in joins])) < 1.2


def test_a_break_in_phase_and_in_pitch_is_a_jump() -> None:
    first, second = breathy(2, 24_000, 1), breathy(5, 24_000, 2)
    broken = np.concatenate([first[: 24_000 + 77], -second[80_011:]])
    whole = spectral_jumps(breathy(5, 24_000), 24_000, [24_000 + 77])
    assert spectral_jumps(broken, 24_000, [24_000 + 77]) > 1.2 > whole


def test_the_ratio_does_not_hang_on_loudness() -> None:
    sound, joins = breathy(5, 24_000), [30_000, 60_000]
    sound[joins] += 0.2
    assert spectral_jumps(sound, 24_000, joins) == pytest.approx(spectral_jumps(0.1 * sound, 24_000, joins), rel=1e-3)


def test_a_cut_in_a_real_voice_is_a_jump(recordings) -> None:
    at_cuts, inside = [], []
    voices = recordings("en_kathleen", "kathleen", 10)
    for one, other in pairwise(voices):
        loud = [int(np.flatnonzero(np.abs(voice) > 0.3 * np.abs(voice).max())[9]) for voice in (one, other)]
        joined = np.concatenate([one[: loud[0]], other[loud[1] :]])
        at_cuts.append(spectral_jumps(joined, RATE, [loud[0]])[0])
        inside.extend(spectral_jumps(one, RATE, range(8000, len(one) - 8000, 3333)))
    assert np.nanmean(at_cuts) > 1.2
    assert 0.8 < np.nanmean(inside) < 1.2


def test_joins_in_silence_and_at_the_ends_are_not_judged() -> None:
    sound = np.concatenate([np.zeros(RATE, np.float32), breathy(2, RATE)])
    assert np.isnan(spectral_jumps(sound, RATE, [8000, 0, len(sound), -5])).all()
    assert np.isfinite(spectral_jumps(sound, RATE, [2 * RATE])).all()
    assert np.isnan(spectral_jumps(np.zeros(100, np.float32), RATE, [50])).all()
    assert len(spectral_jumps(sound, RATE, [])) == 0


# --- pace


def test_an_inserted_pause_is_found_where_it_is() -> None:
    voice = load_audio(SPEECH)
    voiced = np.flatnonzero(voiced_frames(voice, RATE)) * 512
    core = voice[voiced[0] : voiced[-1]]
    before, quiet = find_pauses(core, RATE), np.zeros(RATE, np.float32)
    after = find_pauses(np.concatenate([quiet, core, quiet, core, quiet]), RATE)
    assert after.count == 2 * before.count + 1 and after.longest == pytest.approx(1, abs=0.2)
    assert after.total == pytest.approx(2 * before.total + 1, abs=0.2)
    assert after.span == pytest.approx(2 * len(core) / RATE + 1, abs=0.2)
    assert leading_silence(np.concatenate([quiet, core]), RATE) == pytest.approx(1, abs=0.1)


def test_times_do_not_hang_on_the_sample_rate() -> None:
    one, other = (find_pauses(load_audio(SPEECH, rate), rate) for rate in (RATE, 24_000))
    assert one.span == pytest.approx(other.span, abs=0.1) and one.total == pytest.approx(other.total, abs=0.1)


@pytest.mark.parametrize("sound", [np.zeros(2 * RATE, np.float32), np.zeros(0, np.float32), np.zeros(5, np.float32)])
def test_where_nobody_speaks_there_are_no_pauses(sound: np.ndarray) -> None:
    pauses = find_pauses(sound, RATE)
    assert (pauses.total, pauses.longest, pauses.count, pauses.span) == (0, 0, 0, 0)
    assert leading_silence(sound, RATE) == len(sound) / RATE


def test_words_a_second() -> None:
    assert speaking_rate(9, 3.0) == 3
    assert np.isnan(speaking_rate(0, 0.0))


# --- quality: what the package `speechmos` gives for the same sounds


@needs_mos_network
@pytest.mark.parametrize(
    ("seconds", "published"),
    [(1.5, (2.4013, 2.9654, 3.2571)), (11.7, (2.6236, 3.1569, 3.5320))],
)
def test_predicted_quality_is_that_of_the_published_program(seconds: float, published: tuple[float, ...]) -> None:
    assert MosPredictor()(buzz(seconds)) == pytest.approx(published, abs=2e-3)


@needs_mos_network
def test_noise_lowers_the_predicted_quality() -> None:
    predict = MosPredictor()
    voice = np.resize(load_audio(SPEECH), 10 * RATE)
    noisy = voice + 0.1 * np.random.default_rng(0).standard_normal(len(voice)).astype(np.float32)
    assert predict(voice).overall > predict(noisy).overall + 0.5


# --- voices: what the package `resemblyzer` gives for the same sounds


@needs_speaker_weights
@pytest.mark.parametrize(
    ("seconds", "published"),
    [
        (1.0, {243: 0.30337, 20: 0.21044, 246: 0.21011, 182: 0.1682, 0: 0.16346}),
        (4.3, {246: 0.24349, 243: 0.22756, 218: 0.20825, 113: 0.2077, 120: 0.19993}),
    ],
)
def test_an_embedding_is_that_of_the_published_program(
    seconds: float, published: dict[int, float], encoder: SpeakerEncoder
) -> None:
    embedded = encoder.embed_prepared(buzz(seconds))
    assert embedded[list(published)] == pytest.approx(list(published.values()), abs=1e-4)
    assert set(np.argsort(-embedded)[:5]) == set(published)
    assert np.linalg.norm(embedded) == pytest.approx(1, abs=1e-5)


@needs_speaker_weights
def test_a_voice_is_nearer_to_itself_than_to_others(encoder: SpeakerEncoder, recordings) -> None:
    hers = [encoder.embed(voice) for voice in recordings("en_kathleen", "kathleen", 12)]
    mean = np.mean(hers[:6], axis=0)
    mean /= np.linalg.norm(mean)
    same = [float(voice @ mean) for voice in hers[6:]]
    assert np.mean(same) > 0.8
    for other in ("ljspeech", "pm-dctts", "rhasspy-en", "sb-spk1"):
        assert max(float(encoder.embed(voice) @ mean) for voice in recordings("en_misc", other, 4)) < min(same)


@needs_speaker_weights
def test_level_and_long_silences_do_not_change_a_voice(encoder: SpeakerEncoder) -> None:
    voice = load_audio(SPEECH)
    padded = 0.02 * np.concatenate([np.zeros(3 * RATE, np.float32), voice, np.zeros(3 * RATE, np.float32)])
    assert float(encoder.embed(voice) @ encoder.embed(padded)) > 0.9


@needs_speaker_weights
def test_no_voice_no_embedding(encoder: SpeakerEncoder) -> None:
    assert encoder.embed(np.zeros(RATE, np.float32)) is None
    with pytest.raises(DataError, match="given: no recording at all"):
        encoder.voice([])


@needs_speaker_weights
@settings(max_examples=15)
@given(length=st.integers(1, 5 * RATE))
def test_any_length_can_be_embedded(encoder: SpeakerEncoder, length: int) -> None:
    embedded = encoder.embed_prepared(torch.rand(length, generator=torch.Generator().manual_seed(0)).numpy())
    assert embedded.shape == (256,) and np.isfinite(embedded).all()
