"""Text to be spoken, cut into pieces that a model says in one breath.

for piece in spoken_pieces(open("book.txt").read(), longest=200):
    ...                                             # a sentence or a few short ones
"""

import re
from collections.abc import Iterator

from kimi_audio.errors import DataError

SENTENCE = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\n\s*\n|(?<=[。！？])")
SPELLED = re.compile(r"[\s:]*\b([A-Z](?:,\s+[A-Z]\b){2,})")
CLAUSE = re.compile(r"(?<=[,;:，、；：])\s*|\s+[–—-]\s+")


def is_pronounceable(text: str) -> bool:
    """Whether there is a letter or a digit in it."""
    return any(character.isalnum() for character in text)


def spoken_pieces(text: str, longest: int, join_sentences: bool = True) -> Iterator[str]:
    """Cut at the ends of sentences, else of clauses, else between words; short neighbours stay together.

    Pieces have at most `longest` characters: 200 are about 15 s of speech. Without `join_sentences` none holds more
    than one sentence, nor more than one of the letters of a word that is spelled.

    Raises:
        DataError: when nothing in the text can be pronounced.
    """
    if not is_pronounceable(text):
        raise DataError("the text holds nothing to say: no letter and no digit.")
    waiting, shortest = "", longest // 3 if join_sentences else 0
    if not join_sentences:
        text = SPELLED.sub(lambda letters: f". {letters[1].replace(',', '.')}", text)
    for sentence in SENTENCE.split(text):
        for part in _fitting(" ".join(sentence.split()), longest):
            if waiting and len(waiting) + 1 + len(part) > longest:
                yield waiting
                waiting = ""
            waiting = f"{waiting} {part}".strip()
            if any(mark in part[-2:] for mark in ".!?") and len(waiting) > shortest:
                yield waiting
                waiting = ""
    if waiting:
        yield waiting


def _fitting(sentence: str, longest: int) -> Iterator[str]:
    """A sentence that has something to say, as it is or in parts of at most `longest` characters."""
    if not is_pronounceable(sentence):
        return
    if len(sentence) <= longest:
        yield sentence
        return
    line = ""
    for clause in CLAUSE.split(sentence):
        for word in [clause] if len(clause) <= longest else _words(clause, longest):
            if line and len(line) + 1 + len(word) > longest:
                yield line
                line = ""
            line = f"{line} {word}".strip()
    if line:
        yield line


def _words(clause: str, longest: int) -> list[str]:
    """The words of a clause; those longer than a piece, cut."""
    return [word[at : at + longest] for word in clause.split() for at in range(0, len(word), longest)]
