"""The tiny recipe's questions: training and evaluation share none, and half of the evaluation's items are new."""

import re
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "recipes" / "tiny"
sys.path.insert(0, str(TINY))

from numbers_in_words import in_words  # noqa: E402
from questions import Pair, draw, evaluation_questions, pairs, rows  # noqa: E402

from kimi_audio.evaluation.matching import mentions  # noqa: E402


def normalise(text: str) -> str:
    """Lower case, letters and digits only: "Washington, D.C." -> "washington d c"."""
    return " ".join(re.sub(r"[^a-z0-9]+", " ", text.lower().replace("'", "")).split())


@pytest.fixture(scope="module")
def training() -> list[Pair]:
    return pairs()


def test_there_are_enough_pairs_and_answers_are_short(training):
    assert len({(pair.question, pair.answer) for pair in training}) == len(training) >= 4000
    assert len(rows("definitions")) >= 250
    assert sum(len(pair.answer.split()) <= 15 for pair in training) > 0.99 * len(training)


def test_training_and_evaluation_share_no_question(training):
    asked = {normalise(row["question"]) for row in evaluation_questions()}
    assert len(asked) == 100
    assert not asked & {normalise(pair.question) for pair in training}


def test_unseen_items_are_unseen(training):
    questions = [normalise(pair.question) for pair in training]
    items = {pair.item for pair in training}
    prompts = [normalise(" ".join(row)) for row in rows("prompts")]
    for row in evaluation_questions():
        if row["unseen"]:
            assert row["item"] not in items
        if row["unseen"] and row["kind"] == "definition":
            word = re.compile(rf"\b{row['item']}\b")
            assert not any(word.search(text) for text in (*questions, *prompts)), row["item"]
        if row["unseen"] and row["item"].startswith(("capital of", "continent of", "language of")):
            country = normalise(row["item"].split(" of ")[1])
            assert not any(re.search(rf"\b{country}\b", question) for question in questions), country


def test_half_of_the_facts_and_definitions_are_unseen():
    for kind, count in (("fact", 40), ("arithmetic", 30), ("definition", 30)):
        chosen = [row for row in evaluation_questions() if row["kind"] == kind]
        assert len(chosen) == count
        assert sum(row["unseen"] for row in chosen) >= count / 2


def test_a_question_repeated_is_no_answer():
    """Saying the question back must not count as knowing."""
    assert not [row["question"] for row in evaluation_questions() if mentions(row["question"], row["patterns"])]


def test_training_answers_are_judged_right(training):
    """Where evaluation and training ask for the same, the answer that we teach is one that the judge accepts."""
    taught = {pair.item: pair.answer for pair in training}
    seen = [row for row in evaluation_questions() if not row["unseen"] and row["kind"] == "fact"]
    whole_items = [row for row in seen if row["item"] in taught and " " in row["item"]]  # "cat" has several pairs
    assert len(whole_items) >= 15
    assert all(mentions(taught[row["item"]], row["patterns"]) for row in whole_items)


@pytest.mark.parametrize(
    ("answer", "pattern", "right"),
    [
        ("It is Ottawa!", "ottawa", True),
        ("Ottawan", "ottawa", False),
        ("There are 7,982,100 kilometers.", "7|seven", False),
        ("That makes 1,000.", "1000", True),
        ("twenty five", "(?<!ty )five", False),
        ("Five.", "(?<!ty )five", True),
        ("", "five", False),
    ],
)
def test_judge(answer, pattern, right):
    assert mentions(answer, [pattern]) is right


def test_drawn_utterances_follow_the_shares(training):
    lines = list(draw(training, {"piper:joe": 5, "flite:slt": 7}, seed=1))
    assert [voice for _, voice, _, _ in lines] == ["piper:joe"] * 5 + ["flite:slt"] * 7
    assert len({name for name, *_ in lines}) == 12
    assert lines == list(draw(training, {"piper:joe": 5, "flite:slt": 7}, seed=1))


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "zero"), (17, "seventeen"), (40, "forty"), (99, "ninety nine"), (132, "one hundred and thirty two"),
     (9000, "nine thousand"), (-4, "minus four")],
)  # fmt: skip
def test_in_words(number, words):
    assert in_words(number) == words
