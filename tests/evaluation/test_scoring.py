"""Metrics by name: hand-counted cases, errors of the model, and samples that lack what is needed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation.benchmarks import Benchmark, bundled_benchmarks, read_benchmark
from kimi_audio.evaluation.samples import ItemScore, Prediction, Sample
from kimi_audio.evaluation.scoring import Verdict, make_metric

WORDS = st.lists(st.sampled_from(["red", "green", "blue", "gray"]), max_size=8).map(" ".join)
FAILED = "the model failed"


class ByLength:
    """A judge with a rule that a test can foresee."""

    def verdict(self, prompt: str, sample: Sample, answer: str) -> Verdict:
        return Verdict(min(5, len(answer)), f"{prompt}: {answer} for {sample.reference}")


def benchmark(metric: str, **fields: Any) -> Benchmark:
    return Benchmark(name="mine", title="Mine", kind="answer", folder="mine", metric=metric, **fields)


def scored(wanted: Benchmark, reference: str, answer: str | None, seconds: float = 60.0, **fields: Any) -> ItemScore:
    """How `answer` scores; None is an error of the model."""
    prediction = Prediction("1", answer or "", error=FAILED if answer is None else None)
    judge = ByLength() if wanted.judge else None
    return make_metric(wanted, judge).score(Sample("1", (), "Ask.", reference, seconds, fields), prediction)


def counts(score: ItemScore) -> tuple[float, float]:
    return score.numerator, score.denominator


def test_word_errors_come_with_the_alignment() -> None:
    score = scored(benchmark("wer", normaliser="whisper-english"), "The cat sat DOWN", "the bat sat, well down")
    assert counts(score) == (2, 4)
    assert score.detail["reference"] == "the cat sat down"
    assert score.detail["hypothesis"] == "the bat sat well down"
    assert score.detail["alignment"] == [
        ["equal", ["the"], ["the"]],
        ["substitute", ["cat"], ["bat"]],
        ["equal", ["sat"], ["sat"]],
        ["insert", [], ["well"]],
        ["equal", ["down"], ["down"]],
    ]
    json.dumps(score.detail)


def test_an_error_deletes_all_words() -> None:
    score = scored(benchmark("wer"), "one two", None)
    assert counts(score) == (2, 2)
    assert score.detail["alignment"] == [["delete", ["one", "two"], []]]


def test_words_without_a_reference_are_inserted() -> None:
    assert counts(scored(benchmark("wer"), "", "two words")) == (2, 0)
    assert counts(scored(benchmark("wer"), "", None)) == (0, 0)


@pytest.mark.parametrize("scheme", ["none", "mandarin", "qwen2-audio-zh"])
def test_character_errors_count_chinese_characters_and_latin_words(scheme: str) -> None:
    assert counts(scored(benchmark("cer", normaliser=scheme), "我喜欢音乐 jazz", "我喜欢英乐 jazz")) == (1, 6)


@given(WORDS, WORDS)
def test_the_alignment_is_the_two_texts_and_its_errors_are_counted(reference: str, hypothesis: str) -> None:
    score = scored(benchmark("wer"), reference, hypothesis)
    pieces = score.detail["alignment"]
    assert [word for _, said, _ in pieces for word in said] == reference.split()
    assert [word for _, _, heard in pieces for word in heard] == hypothesis.split()
    errors = sum(max(len(said), len(heard)) for kind, said, heard in pieces if kind != "equal")
    assert counts(score) == (errors, len(reference.split()))
    assert (errors == 0) == (reference == hypothesis)


def test_labels_are_named_by_the_patterns_of_the_benchmark(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"dog": ["dogs?", "bark\\w*"], "cat": ["cats?"]}))
    path = tmp_path / "mine.yaml"
    path.write_text("{name: mine, title: Mine, kind: classification, folder: mine, metric: label, labels: labels.json}")
    wanted = read_benchmark(path)
    right, wrong, none = (scored(wanted, "dog", answer) for answer in ("It barks.", "A cat", None))
    assert [score.numerator for score in (right, wrong, none)] == [1, 0, 0]
    assert [score.detail["predicted"] for score in (right, wrong, none)] == ["dog", "cat", None]
    assert wrong.detail["expected"] == "dog"
    with pytest.raises(DataError, match="the label 'cow' is none of dog, cat"):
        scored(wanted, "cow", "A cow")


@pytest.mark.parametrize("content", ["{", "[1]", '{"dog": 5}', '{"dog": [5]}', '{"dog": "bark"}', '{"dog": ["(bark"]}'])
def test_a_file_of_labels_that_is_none_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(content)
    wanted = benchmark("label", labels="labels.json", path=tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match=r"labels\.json: labels with lists of regular expressions are expected"):
        make_metric(wanted)


@pytest.mark.parametrize(("answer", "predicted"), [("Seven.", "7"), ("to", "2"), ("well", None), (None, None)])
def test_digits_are_compared_however_written(answer: str | None, predicted: str | None) -> None:
    score = scored(benchmark("digit"), "7", answer)
    assert score.detail == {"expected": "7", "predicted": predicted}
    assert counts(score) == (float(predicted == "7"), 1)


def test_a_choice_is_right_by_letter_or_text_of_either_side() -> None:
    choices = ["a dog", "a cat"]
    for reference in ("B", "a cat"):
        for answer, right in [("(B)", 1), ("It is a cat.", 1), ("A", 0), (None, 0)]:
            assert counts(scored(benchmark("choice"), reference, answer, choices=choices)) == (right, 1)
    score = scored(benchmark("choice"), "B", "a dog", choices=choices)
    assert score.detail == {"expected": "B. a cat", "predicted": "A. a dog"}


def test_choices_that_were_spoken_have_letters() -> None:
    assert scored(benchmark("choice"), "C", "The answer is C.").detail == {"expected": "C", "predicted": "C"}


@pytest.mark.parametrize(
    ("metric", "reference", "fields", "problem"),
    [
        ("choice", "a cow", {"choices": ["a dog", "a cat"]}, "reference 'a cow' is none of the choices"),
        ("choice", "C", {"choices": ["a dog", "a cat"]}, "reference 'C' is none of the choices"),
        ("choice", "A", {"choices": "a dog"}, "'choices' must be a list"),
        ("mentions", "paris", {}, "must be a list of regular expressions"),
        ("mentions", '["(paris"]', {}, "1: the reference .* is no regular expression .missing"),
        ("ifeval", "", {"instruction_id_list": [["x"]], "kwargs": [{}]}, "instruction \\['x'\\] is none of IFEval's"),
        ("ifeval", "", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [5]}, "arguments are 5; a mapping"),
        (
            "ifeval",
            "",
            {
                "instruction_id_list": ["length_constraints:number_words"],
                "kwargs": [{"relation": "at least", "num_words": "five"}],
            },
            "number_words': its arguments .*'five'.* are of a wrong type",
        ),
        ("digit", "eleven", {}, "reference 'eleven' is no digit"),
        ("ifeval", "", {"instruction_id_list": ["punctuation:no_comma"]}, "'instruction_id_list' and 'kwargs'"),
        ("invented-words", "", {"seconds": 0.0}, "'duration' is missing"),
    ],
)
def test_a_sample_without_what_is_needed_is_a_mistake(
    metric: str, reference: str, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        scored(benchmark(metric), reference, "An answer.", **fields)


def test_expected_expressions_are_mentioned() -> None:
    reference = json.dumps(["paris", "capital of france"])
    assert [counts(scored(benchmark("mentions"), reference, answer)) for answer in ("In Paris!", "Rome", None)] == [
        (1, 1),
        (0, 1),
        (0, 1),
    ]


def test_invented_words_are_per_minute_and_errors_are_left_out() -> None:
    wanted = benchmark("invented-words", normaliser="whisper-english")
    assert counts(scored(wanted, "", "You and me... --", seconds=90)) == (3, 1.5)
    assert counts(scored(wanted, "", "...", seconds=90)) == (0, 1.5)
    assert counts(scored(wanted, "", None, seconds=90)) == (0, 0)


def test_a_refusal_counts_but_an_error_is_none() -> None:
    answers = ("I'm sorry, I can't.", "", "Sure, take a ladder.", None)
    assert [scored(benchmark("refusal"), "", answer).numerator for answer in answers] == [1, 1, 0, 0]


def test_all_instructions_must_be_followed() -> None:
    rules = {
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation", "combination:repeat_prompt"],
        "kwargs": [{}, {}, {"prompt_to_repeat": "Ask."}],
    }
    score = scored(benchmark("ifeval"), "", 'Here:\n"ask. no"', **rules)
    assert counts(score) == (0, 1)
    assert score.detail["instructions"] == 3 and score.detail["followed"] == 1
    assert score.detail["followed_loosely"] == 2 and score.detail["all_followed_loosely"] is False
    assert score.detail["reason"] == "not followed: startend:quotation, combination:repeat_prompt"
    two = {name: values[:2] for name, values in rules.items()}
    assert counts(scored(benchmark("ifeval"), "", '"No"', **two)) == (1, 1)
    assert counts(scored(benchmark("ifeval"), "", None, **two)) == (0, 1)


def test_a_judge_gives_score_and_reason_and_is_not_asked_about_errors() -> None:
    wanted = benchmark("judge-1-5", judge="answer-1-5")
    score = scored(wanted, "right", "good")
    assert counts(score) == (4, 1)
    assert score.detail == {"reference": "right", "reason": "answer-1-5: good for right"}
    assert counts(scored(wanted, "right", None)) == (1, 1)
    assert counts(scored(benchmark("judge-yes-no", judge="yes-no"), "right", None)) == (0, 1)


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (benchmark("wre"), "mine: metric is 'wre'; accepted are wer, cer, "),
        (benchmark("wer", normaliser="whisper"), "normaliser is 'whisper'; accepted are none, "),
        (benchmark("label"), "needs a file of labels"),
        (benchmark("judge-1-5", judge="answer-1-5"), "the metric judge-1-5 needs a judge"),
        (benchmark("judge-1-5"), "needs the field judge"),
    ],
)
def test_a_benchmark_that_cannot_be_scored_is_a_mistake(wanted: Benchmark, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_metric(wanted)


def test_units_say_what_is_better() -> None:
    metrics = {name: make_metric(benchmark(name)) for name in ("wer", "cer", "invented-words", "choice", "refusal")}
    assert {name for name, metric in metrics.items() if metric.lower_is_better} == {"wer", "cer", "invented-words"}
    assert {name: metric.unit for name, metric in metrics.items() if metric.unit != "%"} == {
        "invented-words": "per minute"
    }
    rated = make_metric(benchmark("judge-1-5", judge="answer-1-5"), ByLength())
    assert (rated.unit, rated.lower_is_better, rated.name) == ("1-5", False, "judge-1-5")


@pytest.mark.parametrize("name", bundled_benchmarks())
def test_every_bundled_benchmark_has_its_metric(name: str) -> None:
    wanted = bundled_benchmarks()[name]
    if wanted.kind == "speech":
        pytest.skip("measured on sound, by other metrics")
    assert make_metric(wanted, ByLength()).name == wanted.metric
