"""Scores: hand-counted cases, and properties that hold for any text."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.evaluation.metrics import is_digit, named_label, word_errors, words_per_minute

LABELS = json.loads((Path(__file__).parents[2] / "recipes" / "tiny" / "evaluation" / "labels.json").read_text())
WORDS = st.lists(st.sampled_from(["red", "green", "blue", "grey"]), min_size=1, max_size=8).map(" ".join)


def test_errors_are_counted_over_all_pairs() -> None:
    errors = word_errors(["the cat sat down", "hello"], ["the cat sat", "well hello there"])
    assert (errors.substitutions, errors.deletions, errors.insertions, errors.words) == (0, 1, 2, 5)
    assert errors.rate == pytest.approx(3 / 5)


def test_spelling_case_and_numbers_do_not_count() -> None:
    assert word_errors(["MR BROWN HAS TWENTY TWO COLOURS"], ["Mr. Brown has 22 colors."]).rate == 0


def test_pairs_without_reference_words_are_left_out() -> None:
    assert word_errors(["", "yes"], ["invented", "yes"]).rate == 0


@given(WORDS, WORDS)
def test_the_rate_is_zero_only_for_equal_words_and_bounded_by_lengths(reference: str, hypothesis: str) -> None:
    errors = word_errors([reference], [hypothesis])
    assert (errors.rate == 0) == (reference == hypothesis)
    longest = max(len(reference.split()), len(hypothesis.split()))
    assert errors.rate * errors.words <= longest


@pytest.mark.parametrize(("text", "digit"), [("Seven.", 7), ("7", 7), ("oh", 0), ("Zero!", 0), ("Too", 2), ("for", 4)])
def test_a_digit_is_recognised_however_it_is_written(text: str, digit: int) -> None:
    assert [other for other in range(10) if is_digit(text, other)] == [digit]


@pytest.mark.parametrize("text", ["", "thank you", "seven seven", "77", "eleven"])
def test_what_is_not_one_digit_is_none(text: str) -> None:
    assert not any(is_digit(text, digit) for digit in range(10))


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("I hear a dog barking.", "dog"),
        ("An alarm clock is ringing", "clock alarm"),
        ("a clock ticking", "clock tick"),
        ("someone knocking on a wooden door", "door knock"),
        ("a creaking wooden door", "door - wood creaks"),
        ("dripping water", "water drops"),
        ("water being poured", "pouring water"),
        ("a crackling fire", "crackling fire"),
        ("fireworks", "fireworks"),
        ("a dog and a cat", None),
        ("a category of dogma", None),
        ("", None),
    ],
)
def test_a_free_answer_names_one_sound_or_none(answer: str, label: str | None) -> None:
    assert named_label(answer, LABELS["sound"]) == label


@pytest.mark.parametrize("kind", ["sound", "emotion"])
def test_every_label_is_named_by_its_own_words_and_by_no_other(kind: str) -> None:
    for label in LABELS[kind]:
        assert named_label(f"This is {label}.", LABELS[kind]) == label


def test_words_per_minute() -> None:
    assert words_per_minute(["", "you and me", "..."], seconds=90) == pytest.approx(2.0)
