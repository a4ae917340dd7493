"""What the user says in `range.jsonl`, 200 requests of the kinds that the small model is made for, for a synthesiser.

    python recipes/tiny/evaluation/spoken_range.py > $WORK/eval_range.tsv

A line is `name <TAB> voice <TAB> speed <TAB> text`. Rows take turns between the two voices that training never hears.
Most rows are a `question`; the last 28 have `turns` instead, a question, its answer, and the question that is judged.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from questions import evaluation_questions, user_turns

VOICES = ("flite:awb", "kokoro:jf_tebukuro")


def recording_names(row: dict) -> list[str]:
    """Names of the recordings of a row, one for each turn of the user: `r000-1`."""
    return [f"{row['id']}-{number}" for number, _ in enumerate(user_turns(row), start=1)]


def lines() -> Iterator[tuple[str, str, float, str]]:
    for number, row in enumerate(evaluation_questions("range")):
        for name, text in zip(recording_names(row), user_turns(row), strict=True):
            yield name, VOICES[number % len(VOICES)], 1.0, text


if __name__ == "__main__":
    for line in lines():
        print(*line, sep="\t")
