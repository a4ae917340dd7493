"""Put the items of a task to a system and keep its answers, so that an interrupted evaluation goes on where it stopped.

    answers = run(system, task, Path("predictions"))
    task.score(task.items, answers)

Answers are JSON lines in `PREDICTIONS/<system>-<fingerprint of its weights>/<task>.jsonl`; an answer is used again
only for the same weights, item and instruction.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from kimi_audio.evaluation.systems import Sound, System


@dataclass(frozen=True)
class Item:
    """One question: a sound (or none, for written questions), an instruction (None: transcribe) and what is right."""

    key: str
    audio: Sound | None
    reference: str
    instruction: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Task:
    """A set of items and how to score the answers: `score(items, answers)` is one figure, in `unit`."""

    name: str
    title: str
    unit: str
    items: Sequence[Item]
    score: Callable[[Sequence[Item], Sequence[str]], float]

    def suits(self, system: System) -> bool:
        """Whether `system` can do this at all: those that only transcribe take no instructions."""
        return system.instructable or all(item.instruction is None for item in self.items)


def run(system: System, task: Task, predictions: Path) -> list[str]:
    """Answers of `system` to all items of `task`, in order; those already in `predictions` are not asked again."""
    path = predictions / f"{system.name.replace(' ', '-')}-{system.fingerprint}" / f"{task.name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = _read(path)
    with path.open("a", encoding="utf-8") as file, Progress(transient=True) as progress:
        bar = progress.add_task(f"{system.name}: {task.title}", total=len(task.items))
        for item in task.items:
            if (item.key, item.instruction) not in known:
                started = time.perf_counter()
                text = system.answer(item.audio, item.instruction)
                took = time.perf_counter() - started
                known[item.key, item.instruction] = text
                row = {"key": item.key, "instruction": item.instruction, "text": text, "took": round(took, 3)}
                file.write(json.dumps({**row, "seconds": item.seconds, "reference": item.reference}) + "\n")
                file.flush()
            progress.advance(bar)
    return [known[item.key, item.instruction] for item in task.items]


def _read(path: Path) -> dict[tuple[str, str | None], str]:
    """Answers kept in `path`; a last line cut short by a kill is dropped from the file."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), encoding="utf-8")
        lines.pop()
    return {(row["key"], row["instruction"]): row["text"] for row in map(json.loads, lines)}
