"""One trainer for every objective: AdamW, cosine with warm-up, checkpoints that resume to the same losses.

    Trainer(objective, TrainConfig(steps=2000, learning_rate=2e-4), Path("runs/first")).fit()
    Trainer(objective, config, Path("runs/first")).fit(resume=True)      # after a kill, a crash or Ctrl-C

Plain PyTorch: what is parallel is decided outside, by wrapping `objective.model` before it comes here.
All randomness of a step (data, dropout, augmentation) follows from the seed and the step number, so nothing
of it needs saving. Settings of the report: SPEC §8.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from kimi_audio.errors import ConfigError
from kimi_audio.training.checkpoints import checkpoints, load_checkpoint, save_checkpoint
from kimi_audio.training.logs import MetricLog, plot_losses, progress_line
from kimi_audio.training.objective import Objective
from kimi_audio.training.prefetch import prefetched

PATIENCE_WITH_NAN = 20
"""Updates in a row that may be left out for a gradient that is not finite, before the run is given up."""


@dataclass(frozen=True)
class TrainConfig:
    """How to optimise. Rates are for AdamW; `warmup` is a fraction of the run.

    With `minutes` the run ends after that much training time or `steps`, whichever is first, and the schedule
    follows whichever is further on; such a run follows the clock, so only without `minutes` is it repeatable.
    `workers` processes prepare the batches (0: the trainer itself, between two steps); their number is part of what
    decides the batches.
    """

    steps: int
    learning_rate: float = 2e-4
    final_learning_rate: float = 1e-5
    warmup: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    accumulate: int = 1
    minutes: float | None = None
    workers: int = 0
    seed: int = 0
    device: str = "cpu"
    autocast_bf16: bool = False
    checkpoint_steps: int | None = None
    checkpoint_minutes: float = 10.0
    checkpoint_optimizer: bool = True
    keep_checkpoints: int = 2
    evaluate_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup is {self.warmup}; it is a fraction of the run, from 0 to below 1.")


@dataclass(frozen=True)
class TrainResult:
    """Where `fit` ended; `finished` is False after an interruption, `loss` is of the last step."""

    step: int
    finished: bool
    loss: float
    seconds: float
    dev: Mapping[str, float]


class Trainer:
    """Runs `objective` in `run_dir` (checkpoints, logs, loss.png, and at the end the exported `model`)."""

    def __init__(self, objective: Objective, config: TrainConfig, run_dir: Path):
        self.objective, self.config, self.run_dir = objective, config, Path(run_dir)
        objective.model.to(config.device)
        self.optimizer = _make_optimizer(objective, config)
        self.step = 0
        self.seconds = 0.0
        self.dev: dict[str, float] = {}
        self._unusable = 0

    def fit(self, resume: bool = False) -> TrainResult:
        """Train to the end, an interruption (SIGINT, SIGTERM: a checkpoint is written first) or a fault.

        `resume` goes on from the newest checkpoint, or starts if there is none. Without it a run folder that
        holds checkpoints is refused (ConfigError).
        """
        folder = self.run_dir / "checkpoints"
        found = checkpoints(folder)
        if found and not resume:
            raise ConfigError(f"{self.run_dir} holds a training run already; resume it or choose another folder.")
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if found:
            state = load_checkpoint(found[-1], self.objective.model, self.optimizer)
            self.step, self.seconds, self.dev = state["step"], state["seconds"], state["dev"]
        log, progress = MetricLog(self.run_dir, self.step), progress_line(self.config.steps)
        try:
            with _signals() as stop:
                loss = self._run(log, progress, stop)
            finished = self._fraction() >= 1
            if finished:
                self.objective.save(self.run_dir / "model")
            state = "finished" if finished else "stopped"
            progress.say(f"{state} at step {self.step} after {self.seconds / 60:.1f} min")
        finally:
            log.close()
            progress.close()
        plot_losses(log.path, self.run_dir / "loss.png")
        return TrainResult(self.step, finished, loss, self.seconds, self.dev)

    def _run(self, log: MetricLog, progress: Any, stop: threading.Event) -> float:
        config, loss = self.config, math.nan
        batches = prefetched(self.objective, self.step * config.accumulate, config.workers)
        last_saved, clock = time.monotonic(), time.monotonic()
        self.objective.model.train()
        while self._fraction() < 1 and not stop.is_set():
            metrics = self._update(batches)
            now = time.monotonic()
            duration = now - clock
            self.seconds += duration
            self.step += 1
            loss = metrics["loss"]
            log.write(self.step, {**metrics, "seconds": duration})
            progress.update(self.step, min(1.0, self._fraction()), _note(metrics, duration))
            if config.evaluate_steps and (self.step % config.evaluate_steps == 0 or self._fraction() >= 1):
                self._evaluate(log, progress)
            due = config.checkpoint_steps is not None and self.step % config.checkpoint_steps == 0
            if due or now - last_saved >= config.checkpoint_minutes * 60:
                self._checkpoint(log)
                last_saved = time.monotonic()
            clock = time.monotonic()  # evaluation and checkpoints are not training time
        self._checkpoint(log)
        return loss

    def _update(self, batches: Iterator[Any]) -> dict[str, float]:
        """One optimiser step over `accumulate` micro-batches; returns their mean metrics (`tokens` summed)."""
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        rate = config.learning_rate * self._schedule()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"] if self._fraction() >= group["start"] else 0.0
        parts = []
        for _ in range(config.accumulate):
            batch = next(batches)
            with self._precision():
                loss, metrics = self.objective.loss(batch)
            (loss / config.accumulate).backward()
            parts.append({"loss": loss.detach(), **metrics})
        norm = self._clip_gradients()
        if math.isfinite(norm):
            self.optimizer.step()
            self._unusable = 0
        else:
            self._unusable += 1
            if self._unusable >= PATIENCE_WITH_NAN:
                raise FloatingPointError(f"{self._unusable} gradients in a row were not finite, at step {self.step}.")
        self.optimizer.zero_grad(set_to_none=True)
        return {**_merge(parts), "learning_rate": rate, "gradient_norm": norm}

    def _clip_gradients(self) -> float:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if norm > self.config.clip:
            clip_grads_with_norm_(parameters, self.config.clip, norm)
        return float(norm)

    def _precision(self):
        device = torch.device(self.config.device).type
        return torch.autocast(device, torch.bfloat16) if self.config.autocast_bf16 else nullcontext()

    def _fraction(self) -> float:
        """How much of the run is done, by steps or by the clock, whichever is further."""
        by_clock = self.seconds / (self.config.minutes * 60) if self.config.minutes else 0.0
        return max(self.step / self.config.steps, by_clock)

    def _schedule(self) -> float:
        """Learning rate as a fraction of its peak: linear warm-up, then half a cosine to the final rate."""
        fraction, warmup = min(1.0, self._fraction()), self.config.warmup
        if fraction < warmup:
            return (fraction + 1 / self.config.steps) / (warmup + 1 / self.config.steps)
        floor = self.config.final_learning_rate / self.config.learning_rate
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (fraction - warmup) / (1 - warmup)))

    def _evaluate(self, log: MetricLog, progress: Any) -> None:
        self.objective.model.eval()
        with torch.no_grad(), self._precision():
            self.dev = {name: float(value) for name, value in self.objective.evaluate().items()}
        self.objective.model.train()
        if self.dev:
            log.write(self.step, {f"dev/{name}": value for name, value in self.dev.items()})
            progress.say(f"step {self.step}  dev  " + "  ".join(f"{k} {v:.4g}" for k, v in self.dev.items()))

    def _checkpoint(self, log: MetricLog) -> None:
        optimizer = self.optimizer if self.config.checkpoint_optimizer else None
        state = {"seconds": self.seconds, "dev": self.dev, "config": asdict(self.config)}
        keep = self.config.keep_checkpoints
        save_checkpoint(self.run_dir / "checkpoints", self.step, self.objective.model, optimizer, state, keep)
        plot_losses(log.path, self.run_dir / "loss.png")


def _make_optimizer(objective: Objective, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the objective's groups; vectors (norms, biases) are not decayed."""
    groups = []
    for group in objective.parameter_groups():
        matrices = [p for p in group.parameters if p.ndim >= 2]
        vectors = [p for p in group.parameters if p.ndim < 2]
        for parameters, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if parameters:
                groups.append({"params": parameters, "scale": group.scale, "start": group.start, "weight_decay": decay})
    if not groups:
        raise ConfigError("nothing to train: every parameter of the model is frozen.")
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def _merge(parts: list[dict[str, float | Tensor]]) -> dict[str, float]:
    """Mean of each metric over the micro-batches that have it; `tokens` is summed."""
    merged = {}
    for name in dict.fromkeys(key for part in parts for key in part):
        values = [float(part[name]) for part in parts if name in part]
        merged[name] = sum(values) if name == "tokens" else sum(values) / len(values)
    return merged


def _note(metrics: Mapping[str, float], duration: float) -> str:
    rate = f"{metrics['tokens'] / duration:.0f} tokens/s" if "tokens" in metrics else f"{1 / duration:.2f} steps/s"
    return f"loss {metrics['loss']:.4f}  {rate}"


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets (a second one interrupts at once); only the main thread may listen."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
