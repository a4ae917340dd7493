"""Results as Markdown: the figures of all models, and how each two of them differ (report §6).

    groups = by_benchmark(read_results(Path("results")))
    print(markdown(groups))         # a row per benchmark, a column per model
    print(compared(groups))         # a row per benchmark and pair of models

The best model of a row is bold only if the paired test tells it from the second best.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations, groupby

from kimi_audio.evaluation.benchmarks import KINDS
from kimi_audio.evaluation.statistics import Difference, compare
from kimi_audio.evaluation.store import Item, Result

SIGNIFICANT = 0.05
NOT_RUN = "–"

Scored = tuple[Result, list[Item]]


@dataclass(frozen=True)
class Group:
    """What all models achieved on one benchmark, and how each two of them differ."""

    results: list[Scored]
    differences: list[tuple[Result, Result, Difference]]

    @property
    def first(self) -> Result:
        """One for all where they agree: title, kind, unit, which way is better."""
        return self.results[0][0]

    @property
    def best(self) -> Result | None:
        """The model that is better than all others, if chance does not explain its lead."""
        known = [result for result, _ in self.results if math.isfinite(result.value)]
        top = sorted(known, key=lambda result: result.value, reverse=not self.first.lower_is_better)[:2]
        lead = [difference for *pair, difference in self.differences if all(result in top for result in pair)]
        return top[0] if lead and lead[0].p < SIGNIFICANT else None


def by_benchmark(results: Sequence[Scored]) -> list[Group]:
    """The results of each benchmark together, kind by kind, compared two by two."""
    ordered = sorted(results, key=lambda scored: (KINDS.index(scored[0].kind), scored[0].benchmark, key(scored[0])))
    groups = [list(group) for _, group in groupby(ordered, key=lambda scored: scored[0].benchmark)]
    return [Group(group, [_difference(*pair) for pair in combinations(group, 2)]) for group in groups]


def _difference(first: Scored, second: Scored) -> tuple[Result, Result, Difference]:
    (ours, our_items), (theirs, their_items) = first, second
    return ours, theirs, compare([item.score for item in our_items], [item.score for item in their_items])


def markdown(groups: Sequence[Group]) -> str:
    """The table of figures with their 95 % intervals; failures and unusable rows are footnotes."""
    names = {model: _text(name) for model, name in model_names(groups).items()}
    rows = [["benchmark", "items", *names.values()], ["---", "--:", *["--:"] * len(names)]]
    notes: list[str] = []
    for group in groups:
        first, winner = group.first, group.best
        cells = dict.fromkeys(names, NOT_RUN)
        for result, items in group.results:
            figure = f"{shown(result.value, result.unit)} ({shown_interval(result)})"
            figure = f"**{figure}**" if result is winner else figure
            if note := _note(result, items):
                notes.append(f"{names[key(result)]} on {_text(result.title)}: {note}")
                figure += f" <sup>{len(notes)}</sup>"
            cells[key(result)] = figure
        counts = sorted({result.items for result, _ in group.results})
        rows.append(
            [f"{_text(first.title)} {arrow(first)}", "–".join(map(str, counts[:1] + counts[1:][-1:])), *cells.values()]
        )
    legend = (
        f"↓ lower is better, ↑ higher is better; bold: better than the second best (paired test, p < {SIGNIFICANT})."
    )
    return "\n\n".join([_table(rows), legend, *_footnotes(notes)])


def compared(groups: Sequence[Group]) -> str:
    """The paired differences, first model minus second, on the items that both answered; footnotes: unlike recipes."""
    names = {model: _text(name) for model, name in model_names(groups).items()}
    rows = [["benchmark", "first", "second", "difference (95 %)", "p", "items"],
            ["---", "---", "---", "--:", "--:", "--:"]]  # fmt: skip
    notes: list[str] = []
    for group in groups:
        for first, second, difference in group.differences:
            p, value = shown_p(difference.p), shown_difference(difference, first.unit)
            if unlike := unlike_recipes(first, second):
                notes.append(f"not the same {_text(unlike)}")
                value += f" <sup>{len(notes)}</sup>"
            rows.append([f"{_text(first.title)} {arrow(first)}", names[key(first)], names[key(second)], value,
                         f"**{p}**" if difference.p < SIGNIFICANT else p, str(difference.items)])  # fmt: skip
    return "\n\n".join([_table(rows), *_footnotes(notes)])


def unlike_recipes(first: Result, second: Result) -> str:
    """In what two results of one benchmark were asked or scored otherwise: `limit, normaliser`; "" if in nothing known.

    What a model's adapter adds is the model's own, and not compared.
    """
    known = first.recipe.keys() & second.recipe.keys() - {"adapter"}
    unlike = [name for name in known if first.recipe[name] != second.recipe[name]]
    return ", ".join(sorted(unlike + (["seed"] if first.seed != second.seed else [])))


def key(result: Result) -> tuple[str, str]:
    """What tells models apart: the same name with other weights is another model."""
    return result.model, result.fingerprint


def model_names(groups: Sequence[Group]) -> dict[tuple[str, str], str]:
    """A name for each model, in the order of columns; the fingerprint is told where a name is there twice."""
    keys = sorted({key(result) for group in groups for result, _ in group.results})
    count = Counter(name for name, _ in keys)
    return {(name, mark): name if count[name] == 1 else f"{name} ({mark})" for name, mark in keys}


def shown(value: float, unit: str) -> str:
    """A figure with its unit: `12.1 %`, `0.84 s`, `3.92`."""
    number = _number(value, unit)
    return number if number == NOT_RUN or unit not in ("%", "s") else f"{number} {unit}"


def shown_interval(result: Result) -> str:
    """`10.3–14.0`, in the unit of the figure."""
    return f"{_number(result.low, result.unit)}–{_number(result.high, result.unit)}"


def shown_difference(difference: Difference, unit: str) -> str:
    """`−1.8 (−2.5 to −1.1)`; of shares in percentage points."""
    value, low, high = (_number(x, unit, "+") for x in (difference.value, difference.low, difference.high))
    return f"{value} ({low} to {high})" if difference.items else NOT_RUN


def shown_p(p: float) -> str:
    """`0.031`, `< 0.001`."""
    return NOT_RUN if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def arrow(result: Result) -> str:
    """Which way is better."""
    return "↓" if result.lower_is_better else "↑"


def _number(value: float, unit: str, sign: str = "") -> str:
    if not math.isfinite(value):
        return NOT_RUN
    if unit == "%":
        text = f"{100 * value:{sign}.1f}"
    else:
        text = f"{value:{sign}.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"
    return text.replace("-", "−")


def _note(result: Result, items: Sequence[Item]) -> str:
    uncounted = sum(item.error is not None and not item.score.denominator for item in items)
    wrong = result.failed - uncounted
    notes = [f"{wrong} of {result.items} answers failed and count as wrong"] if wrong else []
    notes += [f"{uncounted} of {result.items} answers could not be scored and are in no figure"] if uncounted else []
    notes += [f"{result.unanswered} samples were not asked yet and are in no figure"] if result.unanswered else []
    notes += [f"rows of the manifest that could not be used: {len(result.faults)}"] if result.faults else []
    return "; ".join(notes)


def _footnotes(notes: Sequence[str]) -> list[str]:
    """A paragraph of numbered notes, if there are any."""
    return ["\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1))] if notes else []


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _text(name: str) -> str:
    """A name as Markdown shows it letter by letter, in one cell of one row."""
    escaped = escape(" ".join(name.split()), quote=False)
    return re.sub(r"[|\\`*_\[\]]", lambda match: f"&#{ord(match[0])};", escaped)
