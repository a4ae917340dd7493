"""Asking and scoring: kept, resumed, failures counted, bad manifests told row by row."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation.benchmarks import Benchmark, find_benchmarks, read_benchmark
from kimi_audio.evaluation.evaluate import can_do, predict, score
from kimi_audio.evaluation.samples import ItemScore, Output, Sample
from kimi_audio.evaluation.session import Session, spread
from kimi_audio.evaluation.store import PredictionLog, model_folder, read_results, write_result
from kimi_audio.evaluation.tables import by_benchmark, markdown

BENCHMARK = Benchmark(name="echo", title="Echo", kind="answer", folder="echo", metric="same", instruction="Say {text}.")


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


def write_manifest(data: Path, rows: list) -> None:
    (data / "echo").mkdir(parents=True, exist_ok=True)
    soundfile.write(data / "echo" / "a.wav", np.zeros(1600), 16000)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (data / "echo" / "manifest.jsonl").write_text("".join(line + "\n" for line in lines))


ROWS = [
    {"id": name, "audio": "a.wav", "text": f"word {name}", "split": "test", "duration": 0.1}
    for name in ("first", "fails", "speaks", "last")
]


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


def test_rows_that_cannot_be_used_are_told_one_by_one(tmp_path) -> None:
    bad = [
        "{",
        "[]",
        {**ROWS[0], "id": "missing", "audio": "b.wav"},
        {**ROWS[0], "id": "empty", "text": ""},
        {"id": "none", "audio": "a.wav"},
        ROWS[0],
        {**ROWS[0], "split": "train"},
    ]
    write_manifest(tmp_path, [ROWS[0], *bad])
    samples, faults = BENCHMARK.samples(tmp_path)
    assert [sample.id for sample in samples] == ["first"]
    told = [fault.split(": ", 1) for fault in faults]
    assert [place.rsplit(":", 1)[1] for place, _ in told] == ["2", "3", "4", "5", "6", "7"]
    for (_, sentence), expected in zip(
        told,
        ["not valid JSON", "not a JSON object", "b.wav does not exist", "'text'", "'text'", "'first' is there twice"],
        strict=True,
    ):
        assert expected in sentence


def test_without_data_it_says_where_to_get_them(tmp_path) -> None:
    with pytest.raises(DataError, match="the data of echo are not there; see eval --list"):
        BENCHMARK.samples(tmp_path)
    write_manifest(tmp_path, ["{"])
    with pytest.raises(DataError, match="no row of it can be used; the first"):
        BENCHMARK.samples(tmp_path)


def test_a_benchmark_file_of_ones_own(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("{name: mine, title: Mine, kind: answer, folder: mine, metric: wer}\n")
    assert find_benchmarks([str(path)])[0].name == "mine"
    path.write_text("{name: mine, title: Mine, kind: dance, folder: mine, metric: wer}\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:1: kind is 'dance'; accepted are recognition"):
        read_benchmark(path)
    with pytest.raises(ConfigError, match="there is no benchmark 'nonsense'"):
        find_benchmarks(["nonsense"])


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
