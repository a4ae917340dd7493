"""How far a judge can be trusted: its verdicts on a small set of answers whose verdicts are known.

    agreement = judge_check(make_judge("local:models/judge"))
    agreement.accuracy, agreement.kappa
    print(agreement)                            # a small table of what it got wrong

The set (`judge_check.jsonl`) is small and mean: paraphrases and figures in words are right; other units, hedging, the
opposite, what is off the point and nothing at all are wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kimi_audio.errors import KimiAudioError
from kimi_audio.evaluation.samples import Sample
from kimi_audio.evaluation.scoring import Judge

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
        table = Table("kind", "question", "reference", "answer", "right", "judged", title=title)
        for row in self.disagreements:
            table.add_row(*map(escape, (row.kind, row.question, row.reference, row.answer, row.right, row.judged)))
        console = Console(file=StringIO(), width=120)
        with console.capture() as printed:
            console.print(table)
        return printed.get().rstrip()


def judge_check(judge: Judge) -> Agreement:
    """Ask a judge for a verdict on every answer of the set."""
    lines = (files("kimi_audio.evaluation") / "judge_check.jsonl").read_text(encoding="utf-8").splitlines()
    return Agreement(tuple(_checked(judge, number, json.loads(line)) for number, line in enumerate(lines)))


def _checked(judge: Judge, number: int, row: dict[str, str]) -> Checked:
    try:
        verdict = judge.verdict("yes-no", Sample(str(number), (), row["question"], row["reference"]), row["answer"])
    except KimiAudioError as error:
        return Checked(**row, judged=NO_VERDICT, reason=str(error))
    return Checked(**row, judged="yes" if verdict.score else "no", reason=verdict.reason)
