"""What a run tells: `metrics.jsonl`, TensorBoard events, a loss curve and the progress line.

RUN/metrics.jsonl     a line per step {"step", "loss", "learning_rate", ...} and per evaluation {"step", "dev/..."}
RUN/tensorboard/      the same for TensorBoard
RUN/loss.png          loss and dev figures over steps
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class MetricLog:
    """Appends scalars to `metrics.jsonl` and TensorBoard; on resume, forgets what lies beyond `step`."""

    def __init__(self, run_dir: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.path = run_dir / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        shorter = self.path.with_suffix(".tmp")
        shorter.write_text("".join(json.dumps(line) + "\n" for line in kept))
        shorter.replace(self.path)  # at once: a kill leaves the old log or the new one
        self._file = self.path.open("a")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`; a line cut short by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def plot_losses(metrics_path: Path, picture: Path) -> None:
    """Draw every loss of the log over steps: training losses smoothed over about 2 % of the run, dev ones as points."""
    from matplotlib.figure import Figure

    lines = read_metrics(metrics_path)
    names = [name for name in dict.fromkeys(key for line in lines for key in line) if "loss" in name]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in names:
        points = [(line["step"], line[name]) for line in lines if name in line and math.isfinite(line[name])]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        if name.startswith("dev/"):
            axes.plot(steps, values, "o-", markersize=4, label=name)
        else:
            axes.plot(steps, _smooth(values), linewidth=1.2, label=name)
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    if names:
        axes.legend()
    figure.savefig(picture, dpi=120)


def _smooth(values: tuple[float, ...]) -> list[float]:
    keep, mean, result = 1 - 1 / max(1, len(values) // 50), values[0], []
    for value in values:
        mean = keep * mean + (1 - keep) * value
        result.append(mean)
    return result


class ProgressLine(Protocol):
    def update(self, step: int, fraction: float, note: str) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


def progress_line(steps: int) -> ProgressLine:
    """A live bar on a terminal, a plain line every 15 seconds anywhere else."""
    return _Bar(steps) if sys.stderr.isatty() else _PlainLines(steps)


class _Bar:
    def __init__(self, steps: int):
        from rich.console import Console

        self.steps = steps
        columns = (BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn(compact=True))
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task = self.progress.add_task("train", total=1.0, note="")
        self.progress.start()

    def update(self, step: int, fraction: float, note: str) -> None:
        self.progress.update(self.task, completed=fraction, note=f"{step}/{self.steps}  {note}")

    def say(self, text: str) -> None:
        self.progress.console.print(text)

    def close(self) -> None:
        self.progress.stop()


class _PlainLines:
    interval_seconds = 15.0

    def __init__(self, steps: int):
        self.steps = steps
        self.first: tuple[float, float] | None = None
        self.last = -math.inf

    def update(self, step: int, fraction: float, note: str) -> None:
        now = time.monotonic()
        self.first = self.first or (now, fraction)
        if now - self.last < self.interval_seconds and fraction < 1:
            return
        self.last = now
        done = fraction - self.first[1]
        left = f"{(now - self.first[0]) / done * (1 - fraction) / 60:.1f} min left" if done > 0 else ""
        self.say(f"step {step}/{self.steps}  {note}  {left}".rstrip())

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass
