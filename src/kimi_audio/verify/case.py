"""The files of a golden case, and the comparison of computed tensors with its expected ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kimi_audio.checkpoint.files import read_header, read_json, read_tensor
from kimi_audio.errors import CheckpointError

TOLERANCE = 1e-4

Results = Iterable[tuple[str, Any]]
"""Named results: tensors to compare with the expected one of that name, or (computed, expected[, tolerance])."""


@dataclass(frozen=True)
class Check:
    """One comparison. `error` is the largest absolute difference; infinite if shapes differ or nothing was computed."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Case:
    """A golden case; tensors are empty where a file is absent."""

    folder: Path
    config: dict[str, Any]
    params: dict[str, Any]
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> "Case":
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; a golden case is a folder.")

        def tensors(name: str) -> dict[str, Tensor]:
            return read_file(folder / name) if (folder / name).exists() else {}

        params = folder / "params.json"
        return cls(
            folder,
            read_json(folder / "config.json"),
            read_json(params) if params.exists() else {},
            tensors("inputs.safetensors"),
            tensors("expected.safetensors"),
        )

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The case's model."""
        return read_file(self.folder / "weights.safetensors")

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def load(self, module: torch.nn.Module, prefix: str = "", without: str | tuple[str, ...] | None = None) -> None:
        """Fill `module` with the weights under `prefix` but not under `without`, and set it to evaluation mode."""
        named = {name: tensor for name, tensor in self.weights.items() if not (without and name.startswith(without))}
        chosen = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
        try:
            module.load_state_dict(chosen)
        except RuntimeError as error:
            raise CheckpointError(f"{self.folder}: the weights do not fit the configuration ({error}).") from error
        module.eval()

    def compare(self, results: Results) -> Iterator[Check]:
        """Check results, and that every expected tensor is among them; results that nobody expects are left out."""
        missing = set(self.expected)
        for name, value in results:
            if isinstance(value, tuple):
                yield check(name, *value)
            elif name in missing:
                yield check(name, value, self.expected[name])
            missing.discard(name)
        yield from (Check(name, torch.inf, 0.0) for name in sorted(missing))


def check(name: str, computed: Any, expected: Any, tolerance: float = TOLERANCE) -> Check:
    """Compare tensors, or lists and numbers as tensors; integers and booleans must be equal."""
    ours, theirs = torch.as_tensor(computed), torch.as_tensor(expected)
    if not theirs.is_floating_point():
        tolerance = 0.0
    if ours.shape != theirs.shape:
        return Check(name, torch.inf, tolerance)
    difference = (ours.double() - theirs.double()).abs().nan_to_num(nan=torch.inf)
    return Check(name, difference.max().item() if difference.numel() else 0.0, tolerance)


def read_file(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file."""
    return {name: read_tensor(name, entry) for name, entry in read_header(path).items()}
