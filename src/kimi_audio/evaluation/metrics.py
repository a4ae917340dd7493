"""Scores of texts: word error rate, accuracy of labels named in plain words, words invented where nobody speaks.

    word_errors(["the cat sat"], ["a cat sat"]).rate      # 1/3
    named_label("I hear a dog barking.", {"dog": ["dog", "bark(s|ing)?"], "cat": ["cat"]})      # "dog"

Texts are compared after Whisper's English normaliser (lower case, no punctuation, numbers as digits, one spelling; its
report's appendix C). The Kimi-Audio report, §6, does the like with Qwen2-Audio's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

# How speech recognisers write a digit that is heard alone, after the normaliser.
_SAME_SOUND = {0: {"oh", "o"}, 1: {"won"}, 2: {"to", "too"}, 4: {"for", "fore"}, 8: {"ate"}}


@dataclass(frozen=True)
class WordErrors:
    """Counts over a whole set; `words` is the number of reference words."""

    substitutions: int
    deletions: int
    insertions: int
    words: int

    @property
    def rate(self) -> float:
        """Word error rate: all errors over all reference words (may exceed 1)."""
        return (self.substitutions + self.deletions + self.insertions) / self.words


@cache
def _normaliser():
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def normalise(text: str) -> str:
    """`text` as Whisper's English normaliser leaves it: "Mr. Brown has two." -> "mister brown has 2"."""
    return _normaliser()(text).strip()


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> WordErrors:
    """Errors of `hypotheses` against `references`, pair by pair; pairs whose reference is empty are left out."""
    import jiwer

    pairs = [(normalise(ref), normalise(hyp)) for ref, hyp in zip(references, hypotheses, strict=True)]
    pairs = [(ref, hyp) for ref, hyp in pairs if ref]
    assert pairs, "word_errors needs at least one reference with a word in it"
    counts = jiwer.process_words([ref for ref, _ in pairs], [hyp for _, hyp in pairs])
    words = counts.hits + counts.substitutions + counts.deletions
    return WordErrors(counts.substitutions, counts.deletions, counts.insertions, words)


def is_digit(text: str, digit: int) -> bool:
    """Whether `text` is the spoken `digit` (0–9) alone: as a figure, a word or one that sounds the same."""
    heard = normalise(text)
    return heard == str(digit) or heard in _SAME_SOUND.get(digit, ())


def named_label(answer: str, names: Mapping[str, Sequence[str]]) -> str | None:
    """The one label that a free answer names, or None if it names none or several.

    `names` maps each label to regular expressions of what it is called; they match whole words, regardless of case.
    Where names overlap ("clock" in "alarm clock") the longest counts.
    """
    plain = " ".join(re.findall(r"[a-z0-9']+", answer.lower()))
    found = [
        (match.start(), match.end(), label)
        for label, patterns in names.items()
        for pattern in patterns
        for match in re.finditer(rf"\b(?:{pattern})\b", plain)
    ]
    inside_another = {
        (start, end, label)
        for start, end, label in found
        if any(s <= start and end <= e and (e - s) > (end - start) for s, e, _ in found)
    }
    labels = {label for start, end, label in found if (start, end, label) not in inside_another}
    return labels.pop() if len(labels) == 1 else None


def words_per_minute(texts: Sequence[str], seconds: float) -> float:
    """Words in `texts`, said of `seconds` of sound, per minute; dots and dashes are no words."""
    words = [word for text in texts for word in normalise(text).split() if any(map(str.isalnum, word))]
    return len(words) / (seconds / 60)
