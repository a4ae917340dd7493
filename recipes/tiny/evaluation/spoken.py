"""What the user says in the evaluations' own questions, for a synthesiser.

    python recipes/tiny/evaluation/spoken.py questions > $WORK/eval_questions.tsv
    python recipes/tiny/evaluation/spoken.py range > $WORK/eval_range.tsv

A line is `name <TAB> voice <TAB> speed <TAB> text`. The voices are the two that training never hears: both ask each of
the 100 `questions`, and they take turns with the 200 requests of the `range`. Most of those are a `question`; the last
28 have `turns` instead, a question, its answer, and the question that is judged.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from questions import evaluation_questions, user_turns

VOICES = ("flite:awb", "kokoro:jf_tebukuro")


def recording_names(row: dict) -> list[str]:
    """Names of the recordings of a row of the range, one for each turn of the user: `r000-1`."""
    return [f"{row['id']}-{number}" for number, _ in enumerate(user_turns(row), start=1)]


def questions() -> Iterator[tuple[str, str, float, str]]:
    for row in evaluation_questions("questions"):
        for voice in VOICES:
            yield f"{row['id']}_{voice.replace(':', '-')}", voice, 1.0, row["question"]


def requests() -> Iterator[tuple[str, str, float, str]]:
    for number, row in enumerate(evaluation_questions("range")):
        for name, text in zip(recording_names(row), user_turns(row), strict=True):
            yield name, VOICES[number % len(VOICES)], 1.0, text


if __name__ == "__main__":
    for line in {"questions": questions, "range": requests}[sys.argv[1]]():
        print(*line, sep="\t")
