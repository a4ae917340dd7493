"""The table of an evaluation: one row per task, one column per system."""

from collections.abc import Mapping, Sequence

from kimi_audio.evaluation.runner import Task

Results = Mapping[str, Mapping[str, float]]
"""task name -> system name -> figure; a system that cannot do a task has none."""


def markdown(tasks: Sequence[Task], systems: Sequence[str], results: Results) -> str:
    """A Markdown table of `results`; "–" where a system cannot do a task."""
    rows = [["task", "items", *systems], ["---", "--:", *["--:"] * len(systems)]]
    for task in tasks:
        figures = [_figure(results.get(task.name, {}).get(system), task.unit) for system in systems]
        rows.append([task.title, str(len(task.items)), *figures])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.1f}"
