"""Read tensors into a module, in the wanted precision, holding hardly more than the final weights.

The module is built without storage; every tensor is read into its dtype and device and put in its place. Quantised
tensors (see `quantise`) are dequantised, or kept for the quantised layers of `kernels`, as the precision says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from kimi_audio.checkpoint.files import Entry, TensorFiles, read_tensor
from kimi_audio.checkpoint.kernels import QuantEmbedding, QuantLinear, install, is_fused, quantisable
from kimi_audio.checkpoint.quantise import SCALE_SUFFIX, Bits, Quantised, quantise, quantise_blocks
from kimi_audio.errors import CheckpointError, ConfigError

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Precision:
    """Dtype of weights and activations; `bits` of quantised weights, if there are to be any."""

    dtype: torch.dtype
    bits: Bits | None = None


PRECISIONS = {
    "float32": Precision(torch.float32),
    "bfloat16": Precision(torch.bfloat16),
    "float16": Precision(torch.float16),
    "int8": Precision(torch.float32, 8),
    "int4": Precision(torch.float32, 4),
}


def precision(dtype: str | torch.dtype) -> Precision:
    """The precision called `dtype`, by name or as a torch dtype. Raises ConfigError for any other."""
    name = str(dtype).removeprefix("torch.")
    if name not in PRECISIONS:
        raise ConfigError(f"dtype is {name!r}; accepted are {', '.join(PRECISIONS)} and auto.")
    return PRECISIONS[name]


def load_module(
    build: Callable[[], M],
    files: TensorFiles,
    rename: Callable[[str], str | None],
    wanted: Precision,
    device: torch.device | str,
    computed: Mapping[str, Tensor] | None = None,
) -> M:
    """Build a module and read its tensors.

    Args:
        rename: gives a stored tensor's name in the module, None to skip it.
        computed: what tensors that need not be stored are where they are not.

    Raises:
        CheckpointError: a tensor is missing, has no place, or has another shape or kind of dtype than the module's.
    """
    module = build_empty(build, files.folder)
    stored = {ours: name for name in files if (ours := rename(name)) is not None}
    slots = tensor_slots(module)
    places = {name for names in slots for name in names}
    for name in stored:
        if name not in places and name.removesuffix(SCALE_SUFFIX) not in places:
            raise CheckpointError(f"{files.folder}: tensor {stored[name]} has no place in this model.")
    can_quantise = set(quantisable(module)) if wanted.bits else set()
    quantised: dict[str, Quantised] = {}
    # Biases, then the largest matrices: packing one takes it twice, so that is done while little else is held.
    for names, slot in sorted(slots.items(), key=lambda item: (item[1].ndim > 1, -item[1].numel())):
        if names[0] not in stored and computed and names[0] in computed:
            place(module, names, computed[names[0]].to(device, wanted.dtype))
            continue
        if names[0] not in stored:
            raise CheckpointError(f"{files.folder}: tensor {names[0]} is missing.")
        matrix = _read_quantised(files, stored[names[0]], slot, device)
        if matrix is None:
            _check(files[stored[names[0]]], stored[names[0]], slot)
        if wanted.bits and names[0] in can_quantise:
            is_embedding = isinstance(module.get_submodule(names[0].removesuffix(".weight")), nn.Embedding)
            bits = 8 if is_embedding else wanted.bits
            if matrix is None:
                matrix = _quantised_rows(files[stored[names[0]]], stored[names[0]], bits, device)
            elif matrix.bits != bits:
                matrix = quantise(matrix.dequantise(), bits)
            quantised.update(dict.fromkeys(names, matrix))
            del matrix
            if not is_fused(names[0]):
                install(module, {name: quantised.pop(name) for name in names}, wanted.dtype)
        elif matrix is not None:
            place(module, names, matrix.dequantise(wanted.dtype))
        else:
            place(module, names, files.read(stored[names[0]], wanted.dtype, device))
    install(module, quantised, wanted.dtype)
    return module.eval()


def load_state(
    build: Callable[[], M], state: Mapping[str, Tensor], path: Path, dtype: torch.dtype, device: torch.device | str
) -> M:
    """Build a module and give it the tensors of a `.pt` file, by their names in the module.

    Raises:
        CheckpointError: a tensor is missing, has no place, or has another shape or kind of dtype than the module's.
    """
    module = build_empty(build, path)
    slots = tensor_slots(module)
    if extra := sorted(state.keys() - {name for names in slots for name in names}):
        raise CheckpointError(f"{path}: tensor {extra[0]} has no place in this model.")
    for names, slot in slots.items():
        if names[0] not in state:
            raise CheckpointError(f"{path}: tensor {names[0]} is missing.")
        tensor = state[names[0]]
        if tensor.shape != slot.shape:
            raise CheckpointError(
                f"{path}: tensor {names[0]} has shape {list(tensor.shape)}; the configuration asks for "
                f"{list(slot.shape)}."
            )
        _check_kind(path, names[0], tensor.dtype)
        place(module, names, tensor.to(device=device, dtype=dtype))
    return module.eval()


def _check(entry: Entry, name: str, slot: Tensor) -> None:
    if entry.shape != tuple(slot.shape):
        raise CheckpointError(
            f"{entry.file}: tensor {name} has shape {list(entry.shape)}; config.json asks for {list(slot.shape)}."
        )
    _check_kind(entry.file, name, entry.dtype)


def _check_kind(path: Path, name: str, dtype: torch.dtype) -> None:
    if not dtype.is_floating_point:
        raise CheckpointError(f"{path}: tensor {name} has dtype {dtype}; a floating point one is expected.")


def build_empty(build: Callable[[], M], source: Path) -> M:
    """A module without storage. Raises CheckpointError for sizes that are none."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{source}: a model of the configured sizes can't be built ({reason}).") from error


def _read_quantised(files: TensorFiles, name: str, slot: Tensor, device: torch.device | str) -> Quantised | None:
    """The quantised matrix stored as `name`, None if it is stored in floating point."""
    if name + SCALE_SUFFIX not in files:
        return None
    matrix = Quantised(files.read(name, device=device), files.read(name + SCALE_SUFFIX, device=device)).checked(name)
    if matrix.shape != tuple(slot.shape):
        raise CheckpointError(
            f"{files[name].file}: tensor {name} holds shape {list(matrix.shape)}; "
            f"config.json asks for {list(slot.shape)}."
        )
    return matrix


def _quantised_rows(entry: Entry, name: str, bits: Bits, device: torch.device | str) -> Quantised:
    """Quantise a matrix while it is read, a block of rows after the other."""

    def read(first: int, last: int) -> Tensor:
        return read_tensor(name, entry.rows(first, last), device=device)

    return quantise_blocks(read, entry.shape, bits)


def tensor_slots(module: nn.Module) -> dict[tuple[str, ...], Tensor]:
    """Parameters and persistent buffers by their names; a tied tensor appears once, under all its names."""
    by_id: dict[int, list[str]] = {}
    state = module.state_dict(keep_vars=True)
    for name, tensor in state.items():
        by_id.setdefault(id(tensor), []).append(name)
    return {tuple(names): state[names[0]] for names in by_id.values()}


def place(module: nn.Module, names: tuple[str, ...], tensor: Tensor) -> None:
    """Put a tensor where a parameter or buffer is, under each of its names."""
    value: Tensor | None = None
    for name in names:
        parent, _, leaf = name.rpartition(".")
        owner = module.get_submodule(parent)
        if leaf in owner._buffers:
            owner._buffers[leaf] = tensor
        else:
            value = nn.Parameter(tensor, requires_grad=False) if value is None else value
            owner._parameters[leaf] = value


def tensors_of(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """What is stored of a module: its parameters and persistent buffers, tied ones once, in a steady order."""
    if any(isinstance(layer, QuantLinear | QuantEmbedding) for layer in module.modules()):
        raise CheckpointError("a model that was loaded quantised cannot be saved; load it in float32 for that.")
    return {prefix + names[0]: tensor.detach() for names, tensor in tensor_slots(module).items()}
