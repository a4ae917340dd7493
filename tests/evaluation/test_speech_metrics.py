"""Scores of spoken answers: what is counted, what a missing answer costs, and real speech through the real networks."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from kimi_audio.audio.decode import load_audio
from kimi_audio.errors import ConfigError, DataError, KimiAudioError
from kimi_audio.evaluation.samples import ItemScore, Metric, Prediction, Sample
from kimi_audio.evaluation.speech_metrics import SPEECH_METRICS, SpeechTools
from kimi_audio.evaluation.statistics import figure
from kimi_audio.evaluation.store import write_wav

RATE = 16_000
SPEECH = Path(__file__).parents[2] / "examples" / "kathleen.flac"
OF_WORDS = ("speech-wer", "speech-agreement", "speech-mentions", "speaking-rate")
WORDLESS = [name for name in SPEECH_METRICS if name not in OF_WORDS]
PACKAGES = {"speaker-similarity": "resemblyzer", "mos": "speechmos"}


class Notes:
    """A recogniser that reads what is said from a text file beside the sound."""

    def transcribe(self, path: Path) -> str:
        return path.with_suffix(".txt").read_text()


@pytest.fixture
def tools() -> SpeechTools:
    tools = SpeechTools()
    tools.recogniser = Notes()
    return tools


@pytest.fixture(scope="module")
def her(shared: Path) -> list[dict]:
    folder = shared / "data" / "en_kathleen"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    return [row | {"audio": folder / row["audio"]} for row in rows[::200]]


def said(folder: Path, words: str, sound: np.ndarray | None = None, **known) -> Prediction:
    path = folder / f"{len(list(folder.iterdir()))}.wav"
    write_wav(path, np.full(RATE, 0.01, np.float32) if sound is None else sound, RATE)
    path.with_suffix(".txt").write_text(words)
    return Prediction(path.stem, known.pop("text", words), path, **known)


def asked(reference: str = "red green blue gold", **fields) -> Sample:
    return Sample("s", (), "Say it.", reference, fields=fields)


def pair(score: ItemScore) -> tuple[float, float]:
    return score.numerator, score.denominator


def metric(name: str, tools: SpeechTools) -> Metric:
    package = PACKAGES.get(name)
    if package and not find_spec(package):
        pytest.skip(f"{package} is not installed")
    return SPEECH_METRICS[name](tools)


# --- words


def test_what_the_recogniser_hears_in_a_loop_was_said_once(tools: SpeechTools, tmp_path: Path) -> None:
    loop = "Red, green," + " blue, gold," * 40
    assert pair(metric("speech-wer", tools).score(asked(), said(tmp_path, loop))) == (0, 4)
    twice = said(tmp_path, "red green blue gold red green blue gold")
    assert pair(metric("speech-wer", tools).score(asked(), twice)) == (4, 4)


def test_spoken_words_are_compared_as_words(tools: SpeechTools, tmp_path: Path) -> None:
    wer = metric("speech-wer", tools)
    assert pair(wer.score(asked(), said(tmp_path, "Red, green, blue, gold!"))) == (0, 4)
    score = wer.score(asked("The cat sat down."), said(tmp_path, "a cat sat there"))
    assert pair(score) == (2, 4)
    assert (score.detail["reference"], score.detail["hypothesis"]) == ("the cat sat down", "a cat sat there")
    assert [kind for kind, _, _ in score.detail["alignment"]] == ["substitute", "equal", "substitute"]


def test_agreement_is_with_the_written_answer(tools: SpeechTools, tmp_path: Path) -> None:
    spoken = said(tmp_path, "it is blue", text="It is green.")
    assert pair(metric("speech-agreement", tools).score(asked("It is blue."), spoken)) == (1, 3)
    assert pair(metric("speech-wer", tools).score(asked("It is blue."), spoken)) == (0, 3)


@pytest.mark.parametrize(("heard", "wrong"), [("2, 3, 14.", 0), ("2, 4, 14.", 1), ("Two, fourteen.", 1)])
def test_numbers_agree_figure_by_figure(tools: SpeechTools, tmp_path: Path, heard: str, wrong: int) -> None:
    prediction = said(tmp_path, heard, text="Two, three, fourteen.")
    assert pair(metric("speech-agreement", tools).score(asked(), prediction)) == (wrong, 4)


def test_what_is_heard_is_right_or_wrong_whatever_was_written(tools: SpeechTools, tmp_path: Path) -> None:
    mentions, question = metric("speech-mentions", tools), asked('["fifty six|56"]')
    assert pair(mentions.score(question, said(tmp_path, "It is 56.", text="It is ten."))) == (1, 1)
    assert pair(mentions.score(question, said(tmp_path, "It is sixty five.", text="It is fifty six."))) == (0, 1)
    assert pair(mentions.score(question, Prediction("s", "fifty six", error="it crashed"))) == (0, 1)


def test_speech_without_a_written_answer_is_too_much(tools: SpeechTools, tmp_path: Path) -> None:
    score = metric("speech-agreement", tools).score(asked(), said(tmp_path, "hello there", text=""))
    assert pair(score) == (2, 0)


def test_silence_has_every_word_wrong(tools: SpeechTools, tmp_path: Path) -> None:
    empty = said(tmp_path, "never read", np.zeros(0, np.float32), text="red green blue")
    for prediction in (empty, Prediction("s", "red green blue"), Prediction("s", "red green blue", error="it crashed")):
        assert pair(metric("speech-wer", tools).score(asked(), prediction)) == (4, 4)
        assert pair(metric("speech-agreement", tools).score(asked(), prediction)) == (3, 3)
    assert pair(metric("speech-agreement", tools).score(asked(), Prediction("s", "", error="it crashed"))) == (1, 1)


def test_characters_are_counted_in_mandarin(tmp_path: Path) -> None:
    tools = SpeechTools(normaliser="mandarin")
    tools.recogniser = Notes()
    assert pair(metric("speech-wer", tools).score(asked("今天很好。"), said(tmp_path, "今天不好"))) == (1, 4)


def test_a_real_recogniser_listens_once() -> None:
    if not (whisper := os.environ.get("KIMI_AUDIO_TEST_WHISPER")):
        pytest.skip("KIMI_AUDIO_TEST_WHISPER names no Whisper folder")
    recogniser = SpeechTools(whisper=Path(whisper)).recogniser
    text = recogniser.transcribe(SPEECH)
    assert text == "There was pride and strength, the ring of triumph in his voice."
    assert recogniser.transcribe(SPEECH) is text


# --- time


def test_times_are_those_of_the_answer(tools: SpeechTools, tmp_path: Path) -> None:
    answers = [
        said(tmp_path, "", np.zeros(seconds * RATE, np.float32), took=took, first_sound=first)
        for seconds, took, first in ((2, 1.0, 0.25), (6, 5.0, None))
    ]
    factors = [metric("rtf", tools).score(asked(), answer) for answer in answers]
    assert figure(factors) == (1 + 5) / (2 + 6)
    first = [metric("first-sound", tools).score(asked(), answer) for answer in answers]
    assert [score.numerator for score in first] == [0.25, 5.0]
    assert first[0].detail == {"silence": 2.0}


@pytest.mark.parametrize("name", ["speaking-rate", "pauses", "first-sound", "rtf"])
def test_without_speech_there_is_no_time_to_measure(name: str, tools: SpeechTools) -> None:
    with pytest.raises(DataError, match="no speech to measure"):
        metric(name, tools).score(asked(), Prediction("s", "", error="it crashed"))


@pytest.mark.parametrize("name", ["speaking-rate", "pauses"])
def test_hum_is_no_speech(name: str, tools: SpeechTools, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no speech to measure"):
        metric(name, tools).score(asked(), said(tmp_path, "never said"))


# --- voice and quality


def test_without_speech_likeness_and_quality_are_the_lowest(tools: SpeechTools, her: list[dict]) -> None:
    tools.voice = [her[0]["audio"]]
    nothing = Prediction("s", "", error="it crashed")
    assert pair(metric("speaker-similarity", tools).score(asked(), nothing)) == (0, 1)
    assert pair(metric("mos", tools).score(asked(), nothing)) == (1, 1)


def test_the_reference_voice_is_the_samples_own_or_the_tools(tools: SpeechTools, her: list[dict], shared: Path) -> None:
    tools.voice = [row["audio"] for row in her[:4]]
    similarity = metric("speaker-similarity", tools)
    answer = Prediction("s", "", her[5]["audio"])
    other = sorted((shared / "data" / "en_misc" / "lj").glob("*.opus"))[:3]
    own, others = asked(), asked(voice=[str(path) for path in other])
    assert similarity.score(own, answer).numerator > 0.75 > similarity.score(others, answer).numerator
    with pytest.raises(DataError, match=r"s: the recording of the voice gone\.wav does not exist"):
        similarity.score(asked(voice="gone.wav"), answer)


def test_a_voice_nobody_named_is_a_mistake(tools: SpeechTools) -> None:
    with pytest.raises(DataError, match="needs recordings of the voice"):
        metric("speaker-similarity", tools).score(asked(), Prediction("s", ""))


def test_real_speech_has_a_natural_pace(tools: SpeechTools, tmp_path: Path) -> None:
    answer = said(tmp_path, "There was pride and strength, the ring of triumph in his voice.", load_audio(SPEECH))
    rate = metric("speaking-rate", tools).score(asked(), answer)
    assert rate.numerator == 12 and 1.5 < figure([rate]) < 4.5
    assert 0 <= figure([metric("pauses", tools).score(asked(), answer)]) < 20


def test_real_speech_sounds_good(tools: SpeechTools, tmp_path: Path) -> None:
    answer = said(tmp_path, "", np.resize(load_audio(SPEECH), 10 * RATE))
    quality = metric("mos", tools).score(asked(), answer)
    assert 2.5 < quality.numerator < 4.5 and set(quality.detail) == {"signal", "background"}


# --- tools


@pytest.mark.parametrize("name", SPEECH_METRICS)
def test_names_and_directions(name: str, tools: SpeechTools) -> None:
    made = metric(name, tools)
    assert made.name == name
    assert made.lower_is_better == (name not in ("speaker-similarity", "mos", "speaking-rate", "speech-mentions"))


@pytest.mark.parametrize("name", WORDLESS)
def test_metrics_without_words_need_no_recogniser(name: str) -> None:
    metric(name, SpeechTools())


def test_words_need_a_recogniser(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give the folder of a Whisper model"):
        SPEECH_METRICS["speech-wer"](SpeechTools())
    with pytest.raises(KimiAudioError, match=str(tmp_path)):
        SPEECH_METRICS["speech-wer"](SpeechTools(whisper=tmp_path))


def test_an_answer_that_was_deleted_is_named(tools: SpeechTools, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.wav: the spoken answer is not there any more"):
        metric("rtf", tools).score(asked(), Prediction("s", "", tmp_path / "gone.wav"))
