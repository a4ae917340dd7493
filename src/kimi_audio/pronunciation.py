"""Text as it is pronounced: a letter for each phoneme, for models that learned to speak from those.

    lexicon = Lexicon.from_file("models/tiny/pronunciations.txt")
    lexicon.pronounce("Author of the danger trail.")        # "cTR xv Dx denJR trel."

English spelling takes a hundred hours of speech to learn; a dictionary knows it. The letters are those of one-letter
ARPABET, with Q for its @ (the vowel of "cat"). A word that is not in the dictionary is put together from words and
endings that are, or else sounded out by rules.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from kimi_audio.errors import CheckpointError

ARPABET = {
    "aa": "a", "ae": "Q", "ah": "A", "ao": "c", "aw": "W", "ax": "x", "ay": "Y", "eh": "E", "er": "R", "ey": "e",
    "ih": "I", "iy": "i", "ow": "o", "oy": "O", "uh": "U", "uw": "u", "b": "b", "ch": "C", "d": "d", "dh": "D",
    "f": "f", "g": "g", "hh": "h", "jh": "J", "k": "k", "l": "l", "m": "m", "n": "n", "ng": "G", "p": "p", "r": "r",
    "s": "s", "sh": "S", "t": "t", "th": "T", "v": "v", "w": "w", "y": "y", "z": "z", "zh": "Z",
}  # fmt: skip
"""Phonemes by their two-letter names, without stress; `ax` is an unstressed `ah`."""
PHONEMES = frozenset(ARPABET.values())
VOWELS = frozenset("aQAcWxYEReIioOUu")
VOICELESS, HISSING = frozenset("ptkfTsSC"), frozenset("szSZCJ")
SIGNS = {"%": " percent ", "&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "°": " degrees "}
CURRENCIES = {"$": "dollars", "£": "pounds", "€": "euros"}
NEVER_MET = 0.05
"""What a word counts that was never met."""
LONGEST_NUMBER = 30
"""Characters of a number that has a name; of a longer one the digits are said."""
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:st|nd|rd|th)?"
MARKS = ",.?!"
TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|[,.?!]")
NAMES = {
    "a": "e", "b": "bi", "c": "si", "d": "di", "e": "i", "f": "Ef", "g": "Ji", "h": "eC", "i": "Y", "j": "Je",
    "k": "ke", "l": "El", "m": "Em", "n": "En", "o": "o", "p": "pi", "q": "kyu", "r": "ar", "s": "Es",
    "t": "ti", "u": "yu", "v": "vi", "w": "dAbxlyu", "x": "Eks", "y": "wY", "z": "zi",
}  # fmt: skip
"""How the letters are called."""

ENDINGS = {"ing": "IG", "ly": "li", "er": "R", "est": "xst", "ness": "nxs", "less": "lxs", "ful": "fxl", "man": "mxn",
           "men": "mxn", "y": "i", "ish": "IS", "able": "xbxl"}  # fmt: skip
SOUNDS = {
    "tion": "Sxn", "sion": "Zxn", "ough": "o", "augh": "c", "eigh": "e", "igh": "Y", "tch": "C", "dge": "J", "sch": "S",
    "eau": "o", "ch": "C", "sh": "S", "th": "T", "ph": "f", "wh": "w", "ck": "k", "ng": "G", "qu": "kw", "gh": "g",
    "ee": "i", "ea": "i", "oo": "u", "ou": "W", "ow": "o", "oa": "o", "oi": "O", "oy": "O", "ai": "e", "ay": "e",
    "au": "c", "aw": "c", "ei": "e", "ey": "i", "ie": "i", "ew": "u", "ue": "u", "er": "R", "ir": "R", "ur": "R",
    "or": "cr", "ce": "sE", "ci": "sI", "cy": "si", "a": "Q", "b": "b", "c": "k", "d": "d", "e": "E", "f": "f",
    "g": "g", "h": "h", "i": "I", "j": "J", "k": "k", "l": "l", "m": "m", "n": "n", "o": "a", "p": "p", "q": "k",
    "r": "r", "s": "s", "t": "t", "u": "A", "v": "v", "w": "w", "x": "ks", "y": "i", "z": "z",
}  # fmt: skip
"""Letters of a word that nobody knows; the longest that fit come first."""
_SOUNDS = re.compile("|".join(sorted(SOUNDS, key=len, reverse=True)))
_AT_START = {"kn": "n", "wr": "r", "ps": "s", "x": "z", "y": "y"}
_AT_END = {"a": "x", "e": "", "i": "i", "o": "o", "u": "u"}
_LONG = {"a": "e", "e": "i", "i": "Y", "o": "o", "u": "u", "y": "Y"}


class Lexicon:
    """A pronouncing dictionary.

    Args:
        words: lower-case word → its phonemes.
        counts: word → how often it was met in some texts.
    """

    def __init__(self, words: Mapping[str, str], counts: Mapping[str, int] | None = None):
        self.words = dict(words)
        self.counts = {word: count for word, count in (counts or {}).items() if word in self.words}
        self._met = sum(self.counts.values()) + NEVER_MET * len(self.words)

    @classmethod
    def from_file(cls, path: str | Path) -> "Lexicon":
        """Read a file with a word, its phonemes and perhaps its count on each line; `#` begins a comment.

        Raises:
            CheckpointError: when the file can't be read or a line is something else.
        """
        path = Path(path)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: can't read the pronunciations ({error}).") from None
        words, counts = {}, {}
        for number, line in enumerate(lines, 1):
            if line.startswith("#"):
                continue
            word, _, rest = line.partition(" ")
            phonemes, _, count = rest.partition(" ")
            if not word or not phonemes or not PHONEMES.issuperset(phonemes) or not (count.isdecimal() or not count):
                raise CheckpointError(f"{path}: line {number} is not a word and its phonemes.")
            words[word] = phonemes
            if count:
                counts[word] = int(count)
        return cls(words, counts)

    def save(self, path: str | Path) -> None:
        """Write the words, in alphabetical order."""
        lines = (
            f"{word} {phonemes} {self.counts[word]}\n" if word in self.counts else f"{word} {phonemes}\n"
            for word, phonemes in sorted(self.words.items())
        )
        Path(path).write_text("".join(lines), encoding="utf-8")

    def log_frequencies(self, words: Iterable[str]) -> list[float]:
        """Log-probabilities of words of the dictionary among the texts that were counted."""
        return [math.log((self.counts.get(word, 0) + NEVER_MET) / self._met) for word in words]

    def pronounce(self, text: str) -> str:
        """The phonemes of a text's words, with spaces between them; of the punctuation, pauses and ends remain."""
        said, tokens = "", TOKEN.findall(in_words(text))
        for token, following in zip(tokens, [*tokens[1:], "."], strict=False):
            if token in MARKS:
                said += token if said and said[-1] not in MARKS else ""
            elif phonemes := NAMES["a"] if token == "A" and following in MARKS else self._word(token):
                said += f" {phonemes}"
        return said.strip()

    def _word(self, word: str) -> str:
        known = self._known(word.lower())
        if known is None and ((word.isupper() and len(word) <= 5) or not set("aeiouy") & set(word.lower())):
            return " ".join(NAMES.get(letter, "") for letter in word.lower()).strip()
        return sound_out(word.lower()) if known is None else known

    def _known(self, word: str) -> str | None:
        """A word of the dictionary, one with an ending, or two in one."""
        if (phonemes := self.words.get(word)) is not None:
            return phonemes
        if word.endswith("s") and (stem := self._stem(word[:-1].removesuffix("'"))):
            return stem + ("xz" if stem[-1] in HISSING else "s" if stem[-1] in VOICELESS else "z")
        if word.endswith(("ed", "'d")) and (stem := self._stem(word[:-2])):
            return stem + ("xd" if stem[-1] in "td" else "t" if stem[-1] in VOICELESS else "d")
        for ending, phonemes in ENDINGS.items():
            if word.endswith(ending) and (stem := self._stem(word.removesuffix(ending))):
                return stem + phonemes
        for cut in range(len(word) - 3, 2, -1):
            first, second = self.words.get(word[:cut]), self.words.get(word[cut:])
            if first and second:
                return first + second
        return None

    def _stem(self, stem: str) -> str | None:
        """What an ending was added to: as it is, without its last e, or with its last consonant once."""
        if len(stem) < 3:
            return None
        once = stem[:-1] if stem[-1] == stem[-2] else stem
        return self.words.get(stem) or self.words.get(stem + "e") or self.words.get(once)


def in_words(text: str) -> str:
    """A text whose numbers and signs are words, and whose pauses are commas."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text.replace("’", "'")) if not unicodedata.combining(c))
    for sign, name in CURRENCIES.items():
        text = re.sub(rf"\{sign}\s?({NUMBER})", rf"\1 {name}", text)
    for sign, name in SIGNS.items():
        text = text.replace(sign, name)
    text = re.sub(NUMBER, lambda found: f" {_number(found.group())} ", text)
    return re.sub(r"[;:()–—]|\s-\s", ",", text)


def _number(digits: str) -> str:
    import inflect  # takes a while, and most texts need none

    if len(digits) > LONGEST_NUMBER:
        return " ".join(_number(digit) for digit in digits if digit.isdigit())
    return str(inflect.engine().number_to_words(digits, comma="", decimal="point")).replace("-", " ")  # type: ignore[arg-type]


def sound_out(word: str) -> str:
    """Phonemes of a word that is in no dictionary, by rules: a guess."""
    letters = re.sub(r"[^a-z]", "", word)
    letters = re.sub(r"([^aeiou])\1", r"\1", letters)
    said, at = "", 0
    while at < len(letters):
        rest = letters[at:]
        start = next((spelled for spelled in _AT_START if at == 0 and rest.startswith(spelled)), "")
        if start:
            said, at = _AT_START[start], len(start)
        elif len(rest) == 1 and rest in _AT_END and VOWELS & set(said):
            return said + _AT_END[rest]
        elif re.fullmatch(r"[aeiouy][^aeiouwxy]e", rest):
            return said + _LONG[rest[0]] + ("s" if rest[1] == "c" else SOUNDS[rest[1]])
        else:
            spelled = _SOUNDS.match(rest).group()  # type: ignore[union-attr]
            said, at = said + SOUNDS[spelled], at + len(spelled)
    return said
