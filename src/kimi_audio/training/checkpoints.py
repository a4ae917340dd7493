"""Training checkpoints: one folder per step, complete or absent, without pickles.

    RUN/checkpoints/step-00001200/
        weights.safetensors      trainable parameters and buffers (what never changes is not written)
        optimizer.safetensors    optimiser state, `PARAMETER.exp_avg` and so on
        state.json               step, seconds trained, configuration

A checkpoint is written into a temporary folder, flushed to disk and renamed, so that a process killed
at any moment leaves either the old checkpoints or the new one.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from kimi_audio.errors import CheckpointError


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: Optimizer | None, state: dict[str, Any], keep: int = 2
) -> Path:
    """Write `folder/step-N` atomically and delete all but the `keep` newest; `optimizer=None` leaves its state out."""
    final = folder / f"step-{step:08d}"
    if (final / "state.json").exists():
        return final
    temporary = folder / f".writing-{step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_changing_tensors(model), temporary / "weights.safetensors")
    if optimizer is not None:
        save_file(_optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": step, **state}, indent=1))
    for path in [*temporary.iterdir(), temporary]:
        _flush(path)
    os.replace(temporary, final)
    _flush(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints under `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").exists())


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Restore `model` and `optimizer` in place from `path`; returns the state. Raises CheckpointError if it differs."""
    try:
        state = json.loads((path / "state.json").read_text())
        weights = load_file(path / "weights.safetensors")
        has_moments = (path / "optimizer.safetensors").exists()
        moments = load_file(path / "optimizer.safetensors") if has_moments else {}
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: this training checkpoint cannot be read ({error}).") from error
    ours = _changing_tensors(model)
    for name in ours.keys() ^ weights.keys():
        where = "only in the checkpoint" if name in weights else "missing from the checkpoint"
        raise CheckpointError(f"{path}: tensor {name} is {where}; resume with the recipe the run was started with.")
    with torch.no_grad():
        for name, tensor in ours.items():
            if tensor.shape != weights[name].shape:
                raise CheckpointError(
                    f"{path}: tensor {name} has shape {tuple(weights[name].shape)}, the model {tuple(tensor.shape)}."
                )
            tensor.copy_(weights.pop(name))
    _restore_optimizer(model, optimizer, moments)
    return state


def _changing_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters and persistent buffers, each shared (tied) tensor once."""
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    tensors, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in frozen and id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach().contiguous()
    return tensors


def _optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}.{key}": value.contiguous()
        for parameter, entries in optimizer.state.items()
        for key, value in entries.items()
    }


def _restore_optimizer(model: nn.Module, optimizer: Optimizer, moments: dict[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for full_name, value in moments.items():
        name, key = full_name.rsplit(".", 1)
        parameter = parameters[name]
        # `step` is a scalar that PyTorch keeps where the optimiser wants it; moments follow the parameter.
        optimizer.state[parameter][key] = value if value.ndim == 0 else value.to(parameter.device)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
