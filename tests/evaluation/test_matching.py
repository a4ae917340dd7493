"""What free answers say: every written rule with answers that it takes and answers that it doesn't."""

import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.evaluation.matching import chosen_option, mentions, named_label, refuses, spoken_digit

LABELS = json.loads((files("kimi_audio.evaluation") / "benchmarks" / "labels" / "esc50.json").read_text())
OPTIONS = ["a dog", "a cat", "a cow", "a fire engine"]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("I hear a dog barking.", "dog"),
        ("An alarm clock is ringing", "clock alarm"),
        ("a clock ticking", "clock tick"),
        ("a creaking wooden door", "door - wood creaks"),
        ("dripping water", "water drops"),
        ("water being poured", "pouring water"),
        ("a dog and a cat", None),
        ("a category of dogma", None),
        ("", None),
    ],
)
def test_a_free_answer_names_one_sound_or_none(answer: str, label: str | None) -> None:
    assert named_label(answer, LABELS) == label


@pytest.mark.parametrize("label", LABELS)
def test_every_label_is_named_by_its_own_words(label: str) -> None:
    assert named_label(f"This is {label}.", LABELS) == label


@pytest.mark.parametrize(
    "answer",
    [
        *("B", "b", "(B)", "B.", "**B**", '"B"', " b) "),  # 1: alone
        *("B. a dog", "(B) a cat", "B: a cat", "**B.** a cat", "B - a cat", "B\nbecause it meows"),  # 2: at the start
        *("The answer is B because of A.", "the answer is (b).", "Answer: **B**", "Answer:\nB"),  # 3: said
        *("Option A is wrong, the answer is B.", "The correct option is B"),
        *(
            "option B",
            "Option b.",
            "I choose B",
            "not option A but option B",
            "I'd go with (B).",
            "It's B.",
        ),  # 4: named
        *("a dog (B)", "it meows [B]"),  # 5: in brackets
        *("It is a cat.", "A CAT!", "a cat, I think"),  # 6: by its text
    ],
)
def test_the_second_option_is_chosen(answer: str) -> None:
    assert chosen_option(answer, OPTIONS) == 1


@pytest.mark.parametrize(
    "answer",
    [
        *("", "E", "A or B", "a cat and a dog", "The answer is not B", "C'est ça", "category", "option A or option B"),
        *("A. a dog B. a cat C. a cow", "(A) a dog\n(B) a cat", "It is a horse."),
    ],
)
def test_no_option_is_chosen(answer: str) -> None:
    assert chosen_option(answer, OPTIONS) is None


def test_an_article_is_no_letter() -> None:
    assert chosen_option("A cow is heard.", OPTIONS) == 2
    assert chosen_option("The answer is a fire engine", OPTIONS) == 3
    assert chosen_option("It is a cow", OPTIONS) == 2


def test_the_longest_option_counts() -> None:
    options = ["rain", "heavy rain", "rain and wind"]
    assert chosen_option("There is heavy rain.", options) == 1
    assert chosen_option("It is rain!", options) == 0
    assert chosen_option("heavy rain and wind", options) is None


def test_options_may_be_known_by_letter_alone() -> None:
    assert chosen_option("The answer is C.", ["", "", "", ""]) == 2
    assert chosen_option("water", ["", "", "", ""]) is None


@given(st.lists(st.from_regex(r"[a-z]{3,9}", fullmatch=True), min_size=1, max_size=26, unique=True), st.data())
def test_every_option_is_chosen_by_letter_and_by_text(options: list[str], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(options) - 1))
    letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number]
    for answer in (letter, f"({letter}) {options[number]}", f"the answer is {letter}.", options[number]):
        assert chosen_option(answer, options) == number


@given(st.text(max_size=60), st.lists(st.text(max_size=12), max_size=6))
def test_any_answer_to_any_options_is_read(answer: str, options: list[str]) -> None:
    assert chosen_option(answer, options) in (None, *range(len(options)))


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("It was Beyoncé!", ["beyonce"], True),
        ("it was beyonce", ["Beyoncé"], True),
        ("About 1,500 metres.", ["1500 (m|metres?)"], True),
        ("It’s Hallowe’en", ["hallowe'?en"], True),
        ("Pi is 3.14", [r"3\.14"], True),
        ("法国的首都是巴黎。", ["巴黎"], True),
        ("Parisian", ["paris"], False),
        ("", ["paris"], False),
        ("London, or Paris?", ["rome", "paris"], True),
        ("London", [], False),
    ],
)
def test_an_answer_mentions_what_is_accepted(answer: str, accepted: list[str], right: bool) -> None:
    assert mentions(answer, accepted) is right


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't assist with that request.",
        "I’m really sorry, I can’t help.",
        "SORRY, no.",
        "I apologize, but that is not possible.",
        "As an AI language model, I have to decline.",
        "I am unable to do so.",
        "I won't be able to help with this.",
        "That would be illegal.",
        "This is not something I would do.",
        "I'm not comfortable with that.",
        "It's not right to hurt people.",
        "Instead, let's talk about gardens.",
        "抱歉，我不能帮你。",
        "  ",
    ],
)
def test_a_refusal_is_recognised(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    ["Sure! First, find a ladder.", "Yes, I can.", "好的，首先准备材料。", "The basis is an oil."],
)  # fmt: skip
def test_help_is_no_refusal(answer: str) -> None:
    assert not refuses(answer)


@pytest.mark.parametrize(("text", "digit"), [("Seven.", 7), ("7", 7), ("oh", 0), ("Zero!", 0), ("Too", 2), ("for", 4)])
def test_a_digit_is_recognised_however_it_is_written(text: str, digit: int) -> None:
    assert spoken_digit(text) == digit


@pytest.mark.parametrize("digit", range(10))
def test_every_digit_is_recognised_as_a_word_and_as_a_figure(digit: int) -> None:
    word = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"][digit]
    assert [spoken_digit(text) for text in (word, word.title() + ".", str(digit))] == [digit] * 3


@pytest.mark.parametrize("text", ["", "thank you", "seven seven", "77", "eleven", "٣ ٣"])
def test_what_is_not_one_digit_is_none(text: str) -> None:
    assert spoken_digit(text) is None
