"""Asking and scoring: kept, resumed, failures counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluation.echo import BENCHMARK, ROWS, write_manifest

from kimi_audio.errors import DataError
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.evaluate import can_do, predict, score
from kimi_audio.evaluation.samples import ItemScore, Output, Sample
from kimi_audio.evaluation.session import Session, spread
from kimi_audio.evaluation.store import PredictionLog, model_folder, read_results, write_result
from kimi_audio.evaluation.tables import by_benchmark, markdown

WORDS = replace(BENCHMARK, name="words", metric="wer")


class Same:
    name, unit, lower_is_better = "same", "%", False

    def score(self, sample, prediction) -> ItemScore:
        return ItemScore(sample.id, float(prediction.text == sample.reference), detail={"expected": sample.reference})


class Echo:
    """Answers with the reference, or with a sound, or fails, as the id says."""

    name, fingerprint, takes_instructions, speaks = "echo", "f00d", True, True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        self.asked.append(sample.id)
        if sample.id == "fails":
            raise RuntimeError("out of\nmemory")
        if sample.id == "speaks":
            return Output(sample.reference, np.zeros(2400, np.float32), first_sound=0.25)
        return Output(sample.reference)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    write_manifest(tmp_path, ROWS)
    return BENCHMARK.samples(tmp_path)[0]


def evaluated(model: Echo, samples: list[Sample], folder: Path):
    log = PredictionLog(folder)
    answers = {prediction.id: prediction for prediction in predict(model, BENCHMARK, samples, log)}
    return score(BENCHMARK, Same(), samples, answers, model="echo", fingerprint="f00d")


def test_a_failure_is_counted_and_the_rest_goes_on(samples, tmp_path) -> None:
    result, items = evaluated(Echo(), samples, tmp_path / "log")
    assert (result.value, result.items, result.failed) == (0.75, 4, 1)
    assert [item.error for item in items] == [None, "RuntimeError: out of memory", None, None]
    assert result.first_sound == 0.25 and result.seconds == pytest.approx(0.4)
    assert result.recipe["instruction"] == "Say {text}." and "python" in result.versions
    assert samples[0].instruction == "Say word first."


@pytest.mark.parametrize("metric", ["invented-words", "rtf"])
def test_what_cannot_be_scored_is_told_with_the_failures(metric, samples, tmp_path) -> None:
    benchmark = replace(BENCHMARK, kind="quiet", metric=metric)
    log = PredictionLog(tmp_path / "log")
    answers = {prediction.id: prediction for prediction in predict(Echo(), benchmark, samples, log)}
    counted = ("first", "speaks", "last") if metric == "invented-words" else ("speaks",)
    made = Session(tmp_path, tmp_path).metric(benchmark)
    result, items = score(benchmark, made, samples, answers, model="echo", fingerprint="f00d")
    assert {item.score.id for item in items if item.error is None and item.score.denominator} == set(counted)
    assert result.failed == len(items) - len(counted)
    note = f"echo on Echo: {result.failed} of 4 answers could not be scored and are in no figure"
    assert note in markdown(by_benchmark([(result, items)]))


def test_what_was_asked_once_is_not_asked_again(samples, tmp_path) -> None:
    model = Echo()
    before, _ = evaluated(model, samples, tmp_path / "log")
    path = tmp_path / "log" / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # a kill in the middle of the last line
    after, _ = evaluated(model, samples, tmp_path / "log")
    assert model.asked == ["first", "fails", "speaks", "last", "last"]
    assert (after.value, after.failed) == (before.value, before.failed)


def test_failures_alone_can_be_asked_again(samples, tmp_path) -> None:
    model = Echo()
    evaluated(model, samples, tmp_path / "log")
    PredictionLog(tmp_path / "log").forget(errors_only=True)
    evaluated(model, samples, tmp_path / "log")
    assert model.asked[4:] == ["fails"]
    PredictionLog(tmp_path / "log").forget()
    evaluated(model, samples, tmp_path / "log")
    assert len(model.asked) == 9


def test_no_sound_is_written_over_another(samples, tmp_path) -> None:
    """Those that speak, each in a pitch of its own, keep their sounds whatever is asked again."""

    class Talker(Echo):
        broken = True

        def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
            if self.broken and sample.id in ("first", "speaks"):
                raise RuntimeError("out of breath")
            level = 0.1 * (1 + ["first", "fails", "speaks", "last"].index(sample.id))
            return Output(sample.id, np.full(240, level, np.float32))

    model = Talker()
    evaluated(model, samples, tmp_path / "log")
    PredictionLog(tmp_path / "log").forget(errors_only=True)
    model.broken = False
    _, items = evaluated(model, samples, tmp_path / "log")
    levels = [soundfile.read(str(item.audio))[0][0] for item in items]
    assert levels == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-3)
    PredictionLog(tmp_path / "log").forget()
    assert list((tmp_path / "log" / "audio").iterdir()) == []


def test_an_answer_may_hold_any_character(samples, tmp_path) -> None:
    log = PredictionLog(tmp_path / "log")
    log.add(samples[0], Output("one\u2028two\x85three\nfour"))
    log.add(samples[1], Output("", error="out of memory"))
    log.forget(errors_only=True)
    assert PredictionLog(tmp_path / "log").known["first"].text == "one\u2028two\x85three\nfour"
    result, items = score(BENCHMARK, Same(), samples, log.known, model="echo", fingerprint="f00d")
    write_result(tmp_path / "results" / "echo" / "echo", result, items)
    assert read_results(tmp_path / "results")[0][1][0].text == items[0].text


@pytest.mark.parametrize(
    ("changed", "seed", "difference"),
    [
        ({}, 1, "seed 0, not 1"),
        ({"instruction": "Sing {text}."}, 0, "instruction 'Say {text}.', not 'Sing {text}.'"),
        ({"sampling": {"text_temperature": 0.7}}, 0, "sampling {}, not {'text_temperature': 0.7}"),
        ({"language": "zh"}, 0, "language 'en', not 'zh'"),
    ],
)
def test_answers_to_another_question_are_not_taken(changed, seed, difference, tmp_path) -> None:
    write_manifest(tmp_path, ROWS)
    Session(tmp_path, tmp_path / "results").evaluate(Echo(), WORDS)
    other, session = replace(WORDS, **changed), Session(tmp_path, tmp_path / "results", seed=seed)
    for ask in ("missing", "errors", "nothing"):
        with pytest.raises(DataError) as told:
            session.evaluate(Echo(), other, ask=ask)
        assert str(told.value).endswith(f"were asked for with {difference}; --again asks anew")
    model = Echo()
    result = session.evaluate(model, other, ask="everything")
    assert result is not None and len(model.asked) == 4
    assert (result.seed, result.recipe["instruction"]) == (seed, other.instruction)


def test_answers_of_which_nobody_knows_how_they_were_asked_for_are_not_taken(tmp_path) -> None:
    write_manifest(tmp_path, ROWS)
    session = Session(tmp_path, tmp_path / "results")
    session.evaluate(Echo(), WORDS)
    next((tmp_path / "results").rglob("asked.json")).unlink()
    with pytest.raises(DataError, match="it isn't known how these answers were asked for; --again asks anew"):
        session.evaluate(Echo(), WORDS)
    assert session.evaluate(Echo(), WORDS, ask="everything") is not None


def test_results_tell_what_was_true_when_the_model_was_asked(tmp_path, monkeypatch) -> None:
    class Tuned(Echo):
        warmth = 0.5

        def recipe(self, benchmark: Benchmark) -> dict:
            return {"warmth": self.warmth, "layers": (1, 2)}

    write_manifest(tmp_path, ROWS)
    session = Session(tmp_path, tmp_path / "results", limit=3)
    monkeypatch.setattr("kimi_audio.evaluation.evaluate.versions", lambda: {"torch": "1", "jiwer": "3"})
    before = session.evaluate(Tuned(), WORDS)
    monkeypatch.setattr("kimi_audio.evaluation.evaluate.versions", lambda: {"torch": "2", "jiwer": "3"})
    after = session.evaluate(Tuned(), WORDS)
    assert before is not None and after is not None
    assert before.versions == after.versions == {"torch": "1", "jiwer": "3"}
    assert (before.scored_with, after.scored_with) == ({}, {"torch": "2"})
    assert after.recipe["adapter"] == {"warmth": 0.5, "layers": [1, 2]}
    assert after.recipe.items() >= {"limit": 3, "language": "en", "labels": None, "reference": "text"}.items()
    model = Tuned()
    model.warmth = 0.9
    with pytest.raises(DataError, match=r"asked for with warmth 0\.5, not 0\.9; --again"):
        session.evaluate(model, WORDS)


def test_what_was_not_asked_yet_is_counted(samples, tmp_path) -> None:
    log = PredictionLog(tmp_path / "log")
    log.add(samples[0], Output("word first"))
    result, items = score(BENCHMARK, Same(), samples, log.known, model="echo", fingerprint="f00d")
    assert (result.items, result.unanswered) == (1, 3)
    note = "echo on Echo: 3 samples were not asked yet and are in no figure"
    assert note in markdown(by_benchmark([(result, items)]))


def test_a_metric_that_breaks_is_told_with_the_failures(samples, tmp_path) -> None:
    class Fragile(Same):
        def score(self, sample, prediction) -> ItemScore:
            return ItemScore(sample.id, 1 / (sample.id != "last"))

    answers = {sample.id: PredictionLog(tmp_path / "log").add(sample, Output("x")) for sample in samples}
    result, items = score(BENCHMARK, Fragile(), samples, answers, model="echo", fingerprint="f00d")
    assert (result.failed, result.value) == (1, 1.0)
    assert items[-1].error == "ZeroDivisionError: division by zero"


def test_benchmarks_that_share_answers_ask_once(tmp_path) -> None:
    write_manifest(tmp_path, ROWS)
    shared = [replace(WORDS, name=name, answers="words") for name in ("characters", "others")]
    session = Session(tmp_path, tmp_path / "results")
    model = Echo()
    session.evaluate(model, WORDS)
    for ask, asked in (("everything", ["first", "fails", "speaks", "last"]), ("errors", ["fails"])):
        model.asked, session = [], Session(tmp_path, tmp_path / "results")
        for benchmark in (WORDS, *shared):
            session.evaluate(model, benchmark, ask=ask)
        assert model.asked == asked


def test_the_same_answers_are_scored_by_another_normaliser(tmp_path) -> None:
    write_manifest(tmp_path, [{**ROWS[0], "text": "It costs $20."}])

    class Cheap(Echo):
        def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
            self.asked.append(sample.id)
            return Output("It costs 20.")

    model, session = Cheap(), Session(tmp_path, tmp_path / "results")
    benchmark = replace(WORDS, normaliser="whisper-english")
    figures = [session.evaluate(model, each) for each in (benchmark, benchmark.scored_by("qwen2-audio"))]
    assert [result and result.value for result in figures] == [pytest.approx(1 / 3), 0.0]
    assert model.asked == ["first"]
    assert {result.title for result, _ in read_results(tmp_path / "results")} == {"Echo", "Echo by qwen2-audio"}
    assert BENCHMARK.scored_by("qwen2-audio") is BENCHMARK


def test_sounds_are_found_wherever_data_and_results_are(tmp_path, monkeypatch) -> None:
    write_manifest(tmp_path / "here" / "data", ROWS)
    monkeypatch.chdir(tmp_path / "here")
    Session(Path("data"), Path("results")).evaluate(Echo(), WORDS)
    (lines,) = [path.read_text() for path in Path("results").rglob("items.jsonl")]
    assert str(tmp_path) not in lines and '"sounds": ["echo/a.wav"]' in lines and '"words/audio/00000.wav"' in lines
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    [(_, items)] = read_results(tmp_path / "there" / "results", tmp_path / "there" / "data")
    assert all(Path(sound).is_file() for item in items for sound in item.sounds)
    assert [bool(item.audio and Path(item.audio).is_file()) for item in items] == [False, False, True, False]


def test_results_of_before_can_be_read() -> None:
    for result, items in read_results(Path(__file__).parents[2] / "results"):
        assert result.unanswered == 0 and len(items) == result.items


def test_results_are_read_back(samples, tmp_path) -> None:
    folder = model_folder(tmp_path / "results", "An echo/1", "f00d") / "echo"
    result, items = evaluated(Echo(), samples, folder)
    write_result(folder, result, items)
    assert folder.parent.name == "An-echo-1-f00d"
    [(again, rows)] = read_results(tmp_path / "results")
    assert again == result and rows == items
    assert soundfile.info(str(rows[2].audio)).duration == pytest.approx(0.1)
    (folder / "scores.json").write_text("{}")
    with pytest.raises(DataError, match=r"scores\.json: not a result"):
        read_results(tmp_path / "results")


def test_a_log_that_is_none_is_named(tmp_path) -> None:
    (tmp_path / "predictions.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(DataError, match=r"predictions.jsonl:1: not a prediction"):
        PredictionLog(tmp_path)


def test_recognisers_are_not_asked_questions() -> None:
    class Recogniser(Echo):
        takes_instructions = speaks = False

    transcription = Benchmark(name="t", title="T", kind="recognition", folder="t", metric="wer")
    spoken = Benchmark(name="s", title="S", kind="speech", folder="s", metric="rtf", speaks=True)
    assert [can_do(Recogniser(), b) for b in (BENCHMARK, transcription, spoken)] == [False, True, False]
    assert all(can_do(Echo(), b) for b in (BENCHMARK, transcription, spoken))


def test_a_limit_spreads_over_all(samples) -> None:
    assert [sample.id for sample in spread(samples, 2)] == ["first", "speaks"]
    assert spread(samples, 9) == samples == spread(samples, None)
