"""The report as one HTML file: figures, paired differences, every answer with its sound, confusions, speed (report §6).

    groups = by_benchmark(read_results(Path("results")))
    write_page(groups, Path("results/report.html"))

The file needs no network and no server: style, script and data are in it, and the sounds too while they are small
together; otherwise they lie in a folder beside it. `page_assets/` holds what does not depend on results.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from kimi_audio.evaluation import tables
from kimi_audio.evaluation.page_sounds import PageSounds
from kimi_audio.evaluation.statistics import Difference
from kimi_audio.evaluation.store import Item, Result

EMBEDDED = 25 * 2**20  # bytes of sound that go into the page itself
BINS = 32
NONE_NAMED = "(none)"
KINDS = {"recognition": "Speech recognition", "classification": "Classification", "choice": "Multiple choice",
         "answer": "Open answers", "chat": "Chat", "speech": "Generated speech", "quiet": "Silence"}  # fmt: skip
TOLD_APART = ("reference", "hypothesis", "expected", "predicted", "reason", "alignment")  # shown in their own ways


def write_page(
    groups: Sequence[tables.Group], out: Path, title: str = "Evaluation", embedded: int = EMBEDDED
) -> None:
    """Write the page.

    Sounds of more than `embedded` bytes together are copied to the folder `<out's name>_sounds`; keep it with the page.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    sounds = PageSounds()
    data = page_data(groups, sounds)
    data["sounds"] = sounds.links(out.with_name(f"{out.stem}_sounds"), embedded)
    # "<" is escaped so that no text in the data can close the element or open a comment.
    text = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"), default=str).replace("<", "\\u003c")
    parts = {name: _asset(f"page.{name}") for name in ("css", "js")}
    page = Template(_asset("template.html")).substitute(parts, title=escape(title), data=text)
    out.write_text(page, encoding="utf-8")


def page_data(groups: Sequence[tables.Group], sounds: PageSounds) -> dict[str, Any]:
    """What the script shows: models, benchmarks with a cell per model, and the distributions of times."""
    names = tables.model_names(groups)
    numbers = {key: number for number, key in enumerate(names)}
    everything = [scored for group in groups for scored in group.results]
    return {
        "models": [{"name": name, "fingerprint": mark} for (_, mark), name in names.items()],
        "benchmarks": [_benchmark(group, numbers, sounds) for group in groups],
        "speed": [
            plot
            for title, scored in [("All benchmarks", everything), *((g.first.title, g.results) for g in groups)]
            for plot in _speed(title, scored, numbers)
        ],
    }


def _benchmark(group: tables.Group, numbers: dict[tuple[str, str], int], sounds: PageSounds) -> dict[str, Any]:
    first, winner = group.first, group.best
    cells: list[Any] = [None] * len(numbers)
    for result, items in group.results:
        cells[numbers[tables.key(result)]] = _cell(result, items, sounds) | {"best": result is winner}
    return {
        "title": first.title,
        "kind": KINDS.get(first.kind, first.kind),
        "metric": str(first.recipe.get("metric") or ""),
        "arrow": tables.arrow(first),
        "lower": first.lower_is_better,
        "cells": cells,
        "pairs": [
            _pair(numbers[tables.key(a)], numbers[tables.key(b)], difference, a.unit)
            | {"unlike": tables.unlike_recipes(a, b)}
            for one, other, d in group.differences
            for a, b, difference in ((one, other, d), (other, one, Difference(-d.value, -d.high, -d.low, d.p, d.items)))
        ],
    }


def _pair(first: int, second: int, difference: Difference, unit: str) -> dict[str, Any]:
    return {
        "first": first,
        "second": second,
        "value": difference.value,
        "low": difference.low,
        "high": difference.high,
        "items": difference.items,
        "text": tables.shown_difference(difference, unit) + (" points" if unit == "%" else ""),
        "p": tables.shown_p(difference.p),
        "certain": difference.p < tables.SIGNIFICANT,
    }


def _cell(result: Result, items: Sequence[Item], sounds: PageSounds) -> dict[str, Any]:
    """One figure with all that it depends on, and its answers from the worst on."""
    rows = [_row(result, item, sounds) for item in items]
    return {
        "figure": tables.shown(result.value, result.unit),
        "interval": tables.shown_interval(result),
        "value": result.value, "low": result.low, "high": result.high,
        "items": result.items, "failed": result.failed, "unanswered": result.unanswered,
        "faults": result.faults,
        "recipe": {
            "model": result.model, "fingerprint": result.fingerprint, **result.recipe, "seed": result.seed,
            "versions": result.versions, "scored with": result.scored_with, "machine": result.machine,
            "seconds of work": round(result.took, 1), "seconds of sound": round(result.seconds, 1),
        },
        "confusion": _confusion(items) if result.kind == "classification" else None,
        "rows": sorted(rows, key=lambda row: (row["error"] is None, -row["badness"])),
    }  # fmt: skip


def _row(result: Result, item: Item, sounds: PageSounds) -> dict[str, Any]:
    detail, score = item.score.detail, item.score
    share = score.numerator / (score.denominator or 1)
    counted = bool(score.denominator or score.numerator)
    right = share <= 0 if result.lower_is_better else share >= 1
    return {
        "id": score.id,
        "badness": share if result.lower_is_better else -share,
        "right": right if result.unit == "%" and counted else None,
        "score": _score(result, item, right) if counted else "not counted",
        "counted": counted,
        "instruction": item.instruction,
        "text": item.text,
        "sounds": [sounds.number(Path(name)) for name in item.sounds],
        "audio": sounds.number(Path(item.audio)) if item.audio else None,
        "error": item.error,
        "took": item.took, "first": item.first_sound, "seconds": item.seconds,
        "alignment": _alignment(detail.get("alignment")),
        **{name: detail[name] for name in TOLD_APART[:-1] if detail.get(name) not in (None, "")},
        "more": {name: value for name, value in detail.items() if name not in TOLD_APART},
    }  # fmt: skip


def _score(result: Result, item: Item, right: bool) -> str:
    numerator, denominator = item.score.numerator, item.score.denominator
    if result.unit == "%" and result.lower_is_better and denominator != 1:
        return f"{numerator:g} of {denominator:g} wrong"
    if result.unit == "%" and numerator in (0, denominator):
        return "right" if right else "wrong"
    return tables.shown(numerator / (denominator or 1), result.unit)


def _alignment(pieces: Any) -> list[list[str]] | None:
    """`[type, reference words, hypothesis words]` with the words joined; None if there is nothing of that form."""
    try:
        return [[kind, _joined(ours), _joined(theirs)] for kind, ours, theirs in pieces] or None
    except (TypeError, ValueError):
        return None


def _joined(words: str | Sequence[str]) -> str:
    if isinstance(words, str):
        return words
    between = "" if all(len(word) == 1 and word > "\u2e80" for word in words) else " "  # Chinese has no spaces
    return between.join(words)


def _confusion(items: Sequence[Item]) -> dict[str, Any] | None:
    """How often each label (row) was taken for each (column)."""
    pairs = Counter(
        (str(item.score.detail["expected"]), str(item.score.detail.get("predicted") or NONE_NAMED))
        for item in items
        if item.score.detail.get("expected")
    )
    if not pairs:
        return None
    rows = sorted({expected for expected, _ in pairs})
    others = {predicted for _, predicted in pairs} - set(rows)
    columns = rows + sorted(others, key=lambda label: (label == NONE_NAMED, label))
    return {"rows": rows, "columns": columns, "counts": [[pairs[row, column] for column in columns] for row in rows]}


def _speed(title: str, results: Sequence[tables.Scored], numbers: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    """Histograms over a logarithmic axis, one per measure that there is, of the answers that did not fail."""
    heard, read = _answered(results, numbers, False), _answered(results, numbers, True)
    measures = {
        "Real-time factor": [(model, item.took / item.seconds) for model, item in heard if item.seconds > 0],
        "Time against a person’s reading": [(model, item.took / item.seconds) for model, item in read if item.seconds],
        "Seconds to first sound": [(model, item.first_sound) for model, item in heard + read if item.first_sound],
    }
    plots = []
    for measure, pairs in measures.items():
        table_N2 = np.array([(model, value) for model, value in pairs if value and value > 0], float).reshape(-1, 2)
        if not len(table_N2):
            continue
        logs_N = np.log10(table_N2[:, 1])
        low, high = float(logs_N.min()) - 0.1, float(logs_N.max()) + 0.1
        models = []
        for model in sorted(set(table_N2[:, 0].astype(int))):
            ours = logs_N[table_N2[:, 0] == model]
            counts, _ = np.histogram(ours, BINS, (low, high))
            median, slow = (10 ** np.percentile(ours, share) for share in (50, 95))
            models.append({"model": int(model), "counts": counts.tolist(), "items": len(ours), "median": float(median),
                           "slow": float(slow)})  # fmt: skip
        plots.append({"measure": measure, "benchmark": title, "low": low, "high": high, "models": models})
    return plots


def _answered(
    results: Sequence[tables.Scored], numbers: dict[tuple[str, str], int], reads_aloud: bool
) -> list[tuple[int, Item]]:
    """Models and their answers where texts are read aloud, or where they aren't; answers that benchmarks share once."""
    answers = {
        (numbers[tables.key(result)], item.score.id, item.text, item.took): item
        for result, items in results
        if bool(result.recipe.get("reads_aloud")) == reads_aloud
        for item in items
        if not item.error
    }
    return [(model, item) for (model, *_), item in answers.items()]


def _asset(name: str) -> str:
    return (files("kimi_audio.evaluation") / "page_assets" / name).read_text(encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null instead."""
    if isinstance(value, dict):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
