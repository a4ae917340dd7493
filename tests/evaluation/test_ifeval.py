"""IFEval's 25 rules: each with an answer that follows it and one that doesn't."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.errors import DataError
from kimi_audio.evaluation.ifeval import INSTRUCTIONS, check, follows, loose_variants, sentences

# (instruction, arguments, an answer that follows it, one that does not)
CASES = [
    ("keywords:existence", {"keywords": ["cat", "C++"]}, "The CAT writes c++.", "The cat writes C."),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}, "Cat, cat", "One cat"),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "less than"}, "One cat", "Cat, cat"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "A category", "A Cat."),
    (
        "keywords:letter_frequency",
        {"letter": "A", "let_frequency": 3, "let_relation": "at least"},
        "A banana",
        "A bat",
    ),
    (
        "language:response_language",
        {"language": "de"},
        "Der Hund läuft über die Straße und bellt.",
        "The dog is running across the street.",
    ),
    ("language:response_language", {"language": "zh"}, "今天天气很好，我们去公园散步。", "We walk in the park."),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        "One is here. Two!",
        "Mr. J. Smith is here.",
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        "One\n***\nTwo\n***",
        "One\n\nTwo",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One *** Two", "One *** *** Two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "two words", "these are three"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        "First.\n\n'then', it ends.",
        "Then.\n\nAnd then.",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "one"},
        "One.\n\nTwo.",
        "One.\n\nTwo.\n\nThree.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [place]", "[name] of place"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\np. s. More.", "Bye. PS more"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S. More.", "Bye.\nP.S. More"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "So:\n* one\n- two", "* one\n* two\n* three"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "* one", "**one**"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and ** **"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "SECTION 1\na\nSection 2\nb",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<A title>>\nText", "<< >>\nText"),
    ("combination:two_responses", {}, "One\n******\nTwo", "One\n******\nOne"),
    ("combination:two_responses", {}, "******\nOne\n******\nTwo", "One\n******\nTwo\n******\nThree"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. It.", "Well: say it. It."),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, 'That is "all. any questions?"', "Any questions? No"),
    ("startend:quotation", {}, '"All\nof it."', '"All" of it'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "A WELL-KNOWN cat",
        "A Well-KNOWN cat",
    ),
    (
        "change_case:english_capital",
        {},
        "THE DOG IS RUNNING ACROSS THE STREET.",
        "THE DOG IS RUNNING across the street.",
    ),
    ("change_case:english_capital", {}, "THE DOG RUNS IN THE STREET.", "DER HUND LÄUFT ÜBER DIE STRASSE UND BELLT."),
    ("change_case:english_lowercase", {}, "the dog is running across the street.", "The dog is running."),
    ("punctuation:no_comma", {}, "No; none.", "Yes, one."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "following", "failing"), CASES)
def test_a_rule_tells_what_follows_it(name: str, arguments: dict, following: str, failing: str) -> None:
    assert follows(name, arguments, "", following)
    assert not follows(name, arguments, "", failing)
    assert not follows(name, arguments, "", " \n")


def test_all_rules_are_tested() -> None:
    assert {name for name, *_ in CASES} == set(INSTRUCTIONS)
    assert len(INSTRUCTIONS) == 25


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("No end", 1),
        ("One. Two! Three?", 3),
        ("He said: “Go.” She went...", 2),
        ("It is 3.5 m, e.g. here, etc. and there.", 1),
        ("Dr. A. B. Smith of the U.S. is here.", 1),
        ("1. One thing\n2. Another thing.", 1),
        ("So do I. The answer is no. Good.", 3),
        ("你好。今天怎么样？", 2),
    ],
)
def test_sentences_are_counted_by_the_rule(text: str, count: int) -> None:
    assert sentences(text) == count


def test_an_introduction_and_bold_letters_fail_only_strictly() -> None:
    rules = ["startend:quotation", "punctuation:no_comma", "detectable_format:json_format"]
    checked = check(rules, [{}] * 3, "", 'Sure, here it is:\n"**So** be it"')
    assert checked.strict == [False, False, False]
    assert checked.loose == [True, True, True]


@given(st.text(st.sampled_from('a*,\n" ['), max_size=30))
def test_what_follows_strictly_follows_loosely(response: str) -> None:
    assert response in loose_variants(response) and len(loose_variants(response)) == 8
    rules = ["startend:quotation", "punctuation:no_comma", "detectable_format:title"]
    checked = check(rules, [{}] * 3, "", response)
    assert all(loose or not strict for strict, loose in zip(checked.strict, checked.loose, strict=True))


def test_the_prompt_is_repeated_where_no_other_text_is_given() -> None:
    assert follows("combination:repeat_prompt", {"prompt_to_repeat": None}, "What now?", "What now? Nothing.")
    assert not follows("combination:repeat_prompt", {}, "What now?", "Nothing.")


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("keywords:colour", {}, r"'keywords:colour' is none of IFEval's: keywords:existence, "),
        ("keywords:existence", {"keywords": None}, r"'keywords:existence' needs the argument 'keywords'"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "exactly"}, r"relation is 'exactly'"),
    ],
)  # fmt: skip
def test_what_ifeval_does_not_have_is_a_mistake(name: str, arguments: dict, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        follows(name, arguments, "", "An answer.")


def test_arguments_belong_to_instructions() -> None:
    with pytest.raises(DataError, match="2 instructions, but arguments for 1"):
        check(["punctuation:no_comma"] * 2, [{}], "", "An answer.")
