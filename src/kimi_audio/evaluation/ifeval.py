"""Whether an answer keeps to rules that a program can check: IFEval (Zhou et al. 2023, arXiv 2311.07911; report §6).

    follows("length_constraints:number_words", {"relation": "less than", "num_words": 5}, prompt, "Four words, no more")
    check(["punctuation:no_comma"], [{}], prompt, response).strict        # [True]

All 25 types of instruction, under the names and with the arguments of the published prompts. Three differences from the
published program: keywords are plain texts, not regular expressions; sentences and words are found by the rules of
`sentences` and `_WORD` instead of NLTK's; a missing argument is a mistake, where that program draws one at random.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kimi_audio.errors import DataError

_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_SENTENCE_END = re.compile(r"""(?:[.!?]+["'”’)\]*_]*(?=\s|$)|[。！？]+["”’」』）]*)""")
_ABBREVIATION = r"\b(?:mr|mrs|ms|dr|prof|st|sr|jr|vs|etc|fig|gen|col|rev|(?!i\.$)[a-z](?:\.[a-z])*)"
_NO_SENTENCE_END = re.compile(rf"(?:{_ABBREVIATION}|\n\s*\d+)\.$", re.IGNORECASE)


@dataclass(frozen=True)
class Checked:
    """For each instruction whether it was followed; `loose` also accepts what follows it without its first or last
    line or without asterisks, so that an introduction ("Sure, here it is:") or bold letters don't count."""

    strict: list[bool]
    loose: list[bool]


def check(
    instruction_ids: Sequence[str], arguments: Sequence[Mapping[str, Any]], prompt: str, response: str
) -> Checked:
    """All instructions of one prompt. Raises DataError for instructions or arguments that IFEval doesn't have."""
    if len(instruction_ids) != len(arguments):
        raise DataError(f"there are {len(instruction_ids)} instructions, but arguments for {len(arguments)}")
    pairs = list(zip(instruction_ids, arguments, strict=True))
    variants = loose_variants(response)
    return Checked(
        strict=[follows(name, given, prompt, response) for name, given in pairs],
        loose=[any(follows(name, given, prompt, variant) for variant in variants) for name, given in pairs],
    )


def follows(instruction_id: str, arguments: Mapping[str, Any], prompt: str, response: str) -> bool:
    """Whether `response` follows one instruction; an empty one follows none.

    Arguments that are None count as absent. `prompt` is what `combination:repeat_prompt` wants repeated unless its
    argument says so.
    """
    if not isinstance(instruction_id, str) or instruction_id not in _CHECKS:
        raise DataError(f"instruction {instruction_id!r} is none of IFEval's: {', '.join(_CHECKS)}")
    if not isinstance(arguments, Mapping):
        raise DataError(f"instruction {instruction_id!r}: its arguments are {arguments!r}; a mapping is expected")
    checked = _CHECKS[instruction_id]
    given = {"prompt_to_repeat": prompt} | {name: value for name, value in arguments.items() if value is not None}
    wanted = list(inspect.signature(checked).parameters)[1:]
    if missing := [name for name in wanted if name not in given]:
        raise DataError(f"instruction {instruction_id!r} needs the argument {missing[0]!r}")
    chosen = {name: given[name] for name in wanted}
    try:
        return bool(response.strip()) and checked(response, **chosen)
    except (TypeError, AttributeError, ValueError) as error:
        problem = error if isinstance(error, DataError) else f"its arguments {chosen} are of a wrong type"
        raise DataError(f"instruction {instruction_id!r}: {problem}") from None


def loose_variants(response: str) -> list[str]:
    """The paper's eight: with and without first line, last line and asterisks."""
    lines = response.split("\n")
    cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return cut + [text.replace("*", "") for text in cut]


def sentences(text: str) -> int:
    """How many sentences: what ends in `.`, `!` or `?`, with closing quotes or brackets, before a space or the end.

    The full stop of a usual abbreviation (Mr., e.g.), of an initial (J.) or of a number that begins a line (1.) ends
    none. What stands after the last end counts as one.
    """
    text = f"\n{text}"
    ends = [
        match.end()
        for match in _SENTENCE_END.finditer(text)
        if not _NO_SENTENCE_END.search(text[max(0, match.start() - 20) : match.end()])
    ]
    rest = text[ends[-1] :] if ends else text
    return len(ends) + bool(re.search(r"\w", rest))


def _compared(count: int, relation: str, threshold: float) -> bool:
    if relation not in ("less than", "at least"):
        raise DataError(f"relation is {relation!r}; accepted are 'less than' and 'at least'")
    return count < threshold if relation == "less than" else count >= threshold


def _language(text: str) -> str | None:
    """ISO 639-1 code; None where no language can be told."""
    import langdetect

    langdetect.DetectorFactory.seed = 0  # else the answer is another each time
    try:
        return langdetect.detect(text).split("-")[0]
    except langdetect.LangDetectException:
        return None


def _occurrences(text: str, keyword: str) -> int:
    return len(re.findall(re.escape(keyword.strip()), text, re.IGNORECASE))


def _divided(text: str, divider: str) -> list[str]:
    """The parts, none if there is an empty one; before the first and after the last divider there may be nothing."""
    parts = [part.strip() for part in re.split(divider, text)]
    return [part for part in parts if part] if all(parts[1:-1]) else []


def _existence(response: str, keywords: Sequence[str]) -> bool:
    return all(_occurrences(response, keyword) for keyword in keywords)


def _frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compared(_occurrences(response, keyword), relation, frequency)


def _forbidden_words(response: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) for word in forbidden_words)


def _letter_frequency(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compared(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _response_language(response: str, language: str) -> bool:
    return _language(response) in (language.split("-")[0], None)


def _number_sentences(response: str, num_sentences: int, relation: str) -> bool:
    return _compared(sentences(response), relation, num_sentences)


def _number_words(response: str, num_words: int, relation: str) -> bool:
    return _compared(len(re.findall(r"\w+", response)), relation, num_words)


def _number_paragraphs(response: str, num_paragraphs: int) -> bool:
    return len(_divided(response, r"\s?\*\*\*\s?")) == num_paragraphs


def _nth_paragraph_first_word(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Divided by empty lines."""
    paragraphs = response.split("\n\n")
    if sum(bool(paragraph.strip()) for paragraph in paragraphs) != num_paragraphs or nth_paragraph > num_paragraphs:
        return False
    words = paragraphs[nth_paragraph - 1].split()
    return bool(words) and re.split("[.,?!'\"]", words[0].lstrip("'\""))[0].lower() == first_word.lower()


def _number_placeholders(response: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


def _postscript(response: str, postscript_marker: str) -> bool:
    spelled = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    marker = postscript_marker.strip()
    return bool(re.search(spelled.get(marker, re.escape(marker.lower())), response.lower()))


def _number_bullet_lists(response: str, num_bullets: int) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*\n]|-)", response, re.MULTILINE)) == num_bullets


def _constrained_response(response: str) -> bool:
    return any(f"My answer is {word}." in response for word in ("yes", "no", "maybe"))


def _number_highlighted_sections(response: str, num_highlights: int) -> bool:
    """*so* or **so**."""
    single = [found for found in re.findall(r"\*([^\n*]*)\*", response) if found.strip()]
    double = [found for found in re.findall(r"\*\*([^\n*]*)\*\*", response) if found.strip()]
    return len(single) + len(double) >= num_highlights


def _multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", response)) >= num_sections


def _json_format(response: str) -> bool:
    text = re.sub(r"\A```(?:json)?|```\Z", "", response.strip(), flags=re.IGNORECASE)
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _title(response: str) -> bool:
    return any(title.strip("<> ") for title in re.findall(r"<<[^\n]+>>", response))


def _two_responses(response: str) -> bool:
    answers = _divided(response, r"\*{6}")
    return len(answers) == 2 and answers[0] != answers[1]


def _repeat_prompt(response: str, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end_checker(response: str, end_phrase: str) -> bool:
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(response: str) -> bool:
    return bool(re.fullmatch(r'".*"', response.strip(), re.DOTALL))


def _capital_word_frequency(response: str, capital_frequency: int, capital_relation: str) -> bool:
    return _compared(sum(word.isupper() for word in _WORD.findall(response)), capital_relation, capital_frequency)


def _english_capital(response: str) -> bool:
    return response.isupper() and _language(response) in ("en", None)


def _english_lowercase(response: str) -> bool:
    return response.islower() and _language(response) in ("en", None)


def _no_comma(response: str) -> bool:
    return "," not in response


_CHECKS: dict[str, Callable[..., bool]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": _number_words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end_checker,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "punctuation:no_comma": _no_comma,
}
INSTRUCTIONS = tuple(_CHECKS)
