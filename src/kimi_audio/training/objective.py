"""What the trainer needs to know about a task: an objective is a model, its data and its loss.

    class Denoise(Objective):
        def __init__(self): self.model = torch.nn.Linear(8, 8)
        def batches(self, start, stride=1): return (noise(seed=i) for i in itertools.count(start, stride))
        def loss(self, batch): return (self.model(batch) - batch).square().mean(), {}

The law that makes a killed run resume to the same losses: batch `i` depends on `i` and the objective's
seed alone, never on what was drawn before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kimi_audio.errors import ConfigError


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate: `scale` times the schedule's, from the fraction `start` of the run on."""

    name: str
    parameters: list[nn.Parameter]
    scale: float = 1.0
    start: float = 0.0


class Objective(ABC):
    """A model, its data and its loss. Parameters with `requires_grad` are trained, all others stay."""

    model: nn.Module

    @abstractmethod
    def batches(self, start: int, stride: int = 1) -> Iterator[Any]:
        """Micro-batches number `start`, `start + stride`, ...: endless, each a function of number, stride and seed.

        Worker processes take every `stride`-th each.
        """

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """Scalar loss to minimise, and scalars to log. `tokens`, if among them, is summed up to a rate."""

    def save(self, folder: Path) -> None:
        """Export the trained model for use. Default: the state dict as `model.safetensors`."""
        from safetensors.torch import save_model

        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(folder / "model.safetensors"))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Which parts learn at which speed. Default: all trainable parameters alike."""
        return [ParameterGroup("all", [p for p in self.model.parameters() if p.requires_grad])]

    def evaluate(self) -> Mapping[str, float]:
        """Metrics on the dev split, logged as `dev/NAME`. Called with the model in eval mode, without gradients."""
        return {}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def groups_by_prefix(
    model: nn.Module, rates: Mapping[str, float], frozen_until: Mapping[str, float] | None = None
) -> list[ParameterGroup]:
    """Group parameters by the longest prefix of their name that is a key of either mapping; `*` stands for anything.

    Args:
        rates: prefix → learning-rate scale, 1 if not there; 0 freezes the parameters for good.
        frozen_until: prefix → fraction of the run at which the parameters start to learn, 0 if not there.

    Raises:
        ConfigError: when a prefix matches no parameter.
    """
    starts = frozen_until or {}
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in ("", *rates, *starts)}
    for name, parameter in model.named_parameters():
        prefix = max((prefix for prefix in groups if fnmatchcase(name, f"{prefix}*")), key=len)
        parameter.requires_grad_(rates.get(prefix, 1.0) > 0)
        groups[prefix].append(parameter)
    for prefix in {*rates, *starts}:
        if not groups[prefix]:
            raise ConfigError(f"no parameter's name starts with {prefix!r}, for which a learning rate is set.")
    return [
        ParameterGroup(prefix, parameters, rates.get(prefix, 1.0), starts.get(prefix, 0.0))
        for prefix, parameters in groups.items()
        if rates.get(prefix, 1.0) > 0
    ]
