"""How far a judge can be trusted: its verdicts on two small sets of answers that people have labelled.

    judge = make_judge("local:models/judge")
    agreement, ratings = judge_check(judge), rating_check(judge)
    agreement.accuracy, agreement.kappa, ratings.correlation
    print(agreement, ratings, sep="\n")         # the figures, and a small table of what it got wrong

The set for yes and no (`judge_check.jsonl`) is small and mean: paraphrases and figures in words are right; other units,
hedging, the opposite, what is off the point and nothing at all are wrong. The answers of the set for 1 to 5
(`judge_check_1_5.jsonl`) are labelled by the words of the judge's prompt.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kimi_audio.errors import KimiAudioError
from kimi_audio.evaluation.samples import Sample
from kimi_audio.evaluation.scoring import Judge
from kimi_audio.evaluation.statistics import rank_correlation

NO_VERDICT = "none"


@dataclass(frozen=True)
class Checked:
    """An answer of the set: `kind` says what is mean about it; `right` and `judged` are `yes` or `no`.

    `judged` is `none` where the judge failed; `reason` then says why.
    """

    kind: str
    question: str
    reference: str
    answer: str
    right: str
    judged: str
    reason: str


@dataclass(frozen=True)
class Agreement:
    """All verdicts of a judge on the set."""

    rows: tuple[Checked, ...]

    @property
    def accuracy(self) -> float:
        """Share of verdicts that are right; none at all is a wrong one."""
        return 1 - len(self.disagreements) / len(self.rows)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: 1 for full agreement, 0 for what guessing with the same shares would give."""
        rows = len(self.rows)
        right, judged = Counter(row.right for row in self.rows), Counter(row.judged for row in self.rows)
        chance = sum(right[verdict] * judged[verdict] for verdict in right) / rows**2
        return (self.accuracy - chance) / (1 - chance)

    @property
    def disagreements(self) -> list[Checked]:
        return [row for row in self.rows if row.judged != row.right]

    @property
    def failed(self) -> int:
        """Rows without a verdict."""
        return sum(row.judged == NO_VERDICT for row in self.rows)

    def __str__(self) -> str:
        """A table: the figures, and the answers on which the judge is wrong."""
        title = (f"{len(self.rows)} answers: {self.accuracy:.0%} judged right, kappa {self.kappa:.2f}, "
                 f"{self.failed} without a verdict")  # fmt: skip
        wrong = [(row.kind, row.question, row.reference, row.answer, row.right, row.judged)
                 for row in self.disagreements]  # fmt: skip
        return _table(title, ("kind", "question", "reference", "answer", "right", "judged"), wrong)


@dataclass(frozen=True)
class Rated:
    """An answer with the `score`, 1 to 5, that people give it, and the judge's: None where it failed."""

    question: str
    reference: str
    answer: str
    score: int
    judged: float | None


@dataclass(frozen=True)
class Ratings:
    """All ratings of a judge on the set for 1 to 5."""

    rows: tuple[Rated, ...]

    @property
    def given(self) -> list[tuple[float, float]]:
        """People's score and the judge's, where it gave one."""
        return [(row.score, row.judged) for row in self.rows if row.judged is not None]

    @property
    def correlation(self) -> float:
        """Spearman's rank correlation with people's scores; NaN if the judge gives one score to all."""
        return rank_correlation([right for right, _ in self.given], [judged for _, judged in self.given])

    @property
    def bias(self) -> float:
        """By how much the judge is too kind on average; NaN if it rates nothing."""
        return sum(judged - right for right, judged in self.given) / len(self.given) if self.given else float("nan")

    def __str__(self) -> str:
        """A table: the figures, and the answers that the judge rates two points or more off."""
        figures = f"rank correlation {self.correlation:.2f}, {self.bias:+.1f} on average, " if self.given else ""
        title = (f"{len(self.rows)} answers rated 1-5: {figures}"
                 f"{len(self.rows) - len(self.given)} without a rating")  # fmt: skip
        far = [(row.question, row.reference, row.answer, str(row.score), f"{row.judged or '-'}")
               for row in self.rows if row.judged is None or abs(row.judged - row.score) >= 2]  # fmt: skip
        return _table(title, ("question", "reference", "answer", "right", "judged"), far)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(file=StringIO(), width=120)
    with console.capture() as printed:
        console.print(table)
    return printed.get().rstrip()


def judge_check(judge: Judge) -> Agreement:
    """Ask a judge for a verdict, yes or no, on every answer of the set."""
    return Agreement(tuple(_checked(judge, row) for row in _rows("judge_check.jsonl")))


def rating_check(judge: Judge) -> Ratings:
    """Ask a judge for a rating, 1 to 5, of every answer of the set."""
    return Ratings(tuple(_rated(judge, row) for row in _rows("judge_check_1_5.jsonl")))


def _rows(name: str) -> list[dict[str, Any]]:
    lines = (files("kimi_audio.evaluation") / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _checked(judge: Judge, row: dict[str, str]) -> Checked:
    try:
        verdict = judge.verdict("yes-no", _asked(row), row["answer"])
    except KimiAudioError as error:
        return Checked(**row, judged=NO_VERDICT, reason=str(error))
    return Checked(**row, judged="yes" if verdict.score else "no", reason=verdict.reason)


def _rated(judge: Judge, row: dict[str, Any]) -> Rated:
    try:
        return Rated(**row, judged=judge.verdict("answer-1-5", _asked(row), row["answer"]).score)
    except KimiAudioError:
        return Rated(**row, judged=None)


def _asked(row: dict[str, Any]) -> Sample:
    return Sample(row["answer"], (), row["question"], row["reference"])
