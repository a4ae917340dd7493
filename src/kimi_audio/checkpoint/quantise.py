"""Weight-only quantisation: int8 per output channel, 4-bit per group of 32 inputs; on disk and as numbers.

    quantised = quantise(weight, bits=4)
    quantised.dequantise(torch.float32)
    for loss in quality_loss(weights, bits=4): print(loss)

A quantised `NAME.weight` is stored as int8 `[N, K]`, or as uint8 `[N, K/2]` with two 4-bit numbers a byte (the
even input in the low half, 8 standing for 0), next to `NAME.weight_scale` in float16, `[N]` or `[N, K/32]`:
weight = number · scale. Nothing else distinguishes such a checkpoint. The fast modules are in `kernels`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kimi_audio.errors import CheckpointError

Bits = Literal[4, 8]
GROUP = 32
SCALE_SUFFIX = "_scale"
_CLIPS = [*torch.linspace(0.7, 1.1, 17).tolist(), 8 / 7]
"""Group scales tried, as shares of the one that just holds the largest weight. With 1 and 8/7 among them, weights that
were quantised before come out as they went in."""


@dataclass(frozen=True)
class Quantised:
    """A weight matrix `[N, K]` in few bits: `values` int8 `[N, K]` or packed uint8 `[N, K/2]`, `scale` float16."""

    values: Tensor
    scale: Tensor

    @property
    def bits(self) -> Bits:
        return 8 if self.values.dtype == torch.int8 else 4

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.values.shape
        return rows, columns * 8 // self.bits

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes

    def numbers(self) -> Tensor:
        """The integers, int8 `[N, K]`."""
        if self.bits == 8:
            return self.values
        return torch.stack([self.values & 15, self.values >> 4], -1).flatten(1).to(torch.int8) - 8

    def dequantise(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight matrix, `[N, K]`."""
        out = torch.empty(self.shape, dtype=dtype, device=self.values.device)
        rows = block_rows(self.shape[1])
        for block, values, scale in zip(out.split(rows), self.values.split(rows), self.scale.split(rows), strict=True):
            numbers = Quantised(values, scale).numbers().float()
            groups = scale.float().reshape(len(scale), -1, 1)
            block.copy_((numbers.unflatten(1, (groups.shape[1], -1)) * groups).flatten(1))
        return out

    def checked(self, name: str) -> "Quantised":
        """This, if its dtypes and shapes fit together; else CheckpointError."""
        if self.values.ndim != 2:
            raise CheckpointError(f"tensor {name}: shape {list(self.values.shape)}; a quantised weight is a matrix.")
        rows = self.values.shape[0]
        expected = (rows,) if self.bits == 8 else (rows, self.shape[1] // GROUP)
        if self.values.dtype not in (torch.int8, torch.uint8) or not self.scale.dtype.is_floating_point:
            raise CheckpointError(f"tensor {name}: quantised weights are int8 or uint8 with floating point scales.")
        if tuple(self.scale.shape) != expected:
            raise CheckpointError(
                f"tensor {name}{SCALE_SUFFIX}: shape {list(self.scale.shape)}, expected {list(expected)}."
            )
        return self


def quantise(weight_NK: Tensor, bits: Bits) -> Quantised:
    """Quantise a matrix. A matrix whose K is no multiple of 32 gets 8 bits in any case."""
    return quantise_blocks(lambda first, last: weight_NK.detach()[first:last], tuple(weight_NK.shape), bits)


def quantise_blocks(read: Callable[[int, int], Tensor], shape: tuple[int, ...], bits: Bits) -> Quantised:
    """Quantise a matrix `[N, K]` that is never there as a whole: `read` gives the rows from `first` up to `last`."""
    rows, columns = shape
    whole, block = bits == 8 or columns % GROUP, block_rows(columns)
    values = scale = None
    for first in range(0, rows, block):
        last = min(first + block, rows)
        part, part_scale = (_quantise8 if whole else _quantise4)(read(first, last).float())
        if values is None or scale is None:
            values, scale = part.new_empty(rows, *part.shape[1:]), part_scale.new_empty(rows, *part_scale.shape[1:])
        values[first:last], scale[first:last] = part, part_scale
    assert values is not None and scale is not None, "a matrix has rows"
    return Quantised(values, scale)


def block_rows(columns: int) -> int:
    """Rows that are worked on at a time: few enough for their float32 copies to stay small and in the cache."""
    return max(1, 2**18 // columns)


def _quantise8(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    scale = (weight_NK.abs().amax(1) / 127).half()
    return _rounded(weight_NK, scale[:, None], -127, 127), scale


def _quantise4(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    groups = weight_NK.unflatten(1, (-1, GROUP))
    scale = _best_scale(groups)
    numbers = (_rounded(groups, scale[..., None], -8, 7).flatten(1) + 8).to(torch.uint8)
    return numbers[:, ::2] | numbers[:, 1::2] << 4, scale


def _best_scale(groups: Tensor) -> Tensor:
    """The float16 scale of each group with the least squared error; negative where that uses the range −8…7 better."""
    farthest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0]
    best, least = torch.zeros_like(farthest).half(), torch.full_like(farthest, torch.inf)
    for clip in _CLIPS:
        scale = (farthest * (clip / -8)).half()
        error = (_rounded(groups, scale[..., None], -8, 7) * scale[..., None].float() - groups).square().sum(-1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def _rounded(weight: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    divisor = torch.where(scale == 0, torch.ones_like(scale), scale).float()
    return (weight / divisor).round().clamp(low, high).to(torch.int8)


def quantise_tensors(tensors: Mapping[str, Tensor], bits_of: Mapping[str, Bits]) -> dict[str, Tensor]:
    """The tensors to store when those named in `bits_of` are quantised."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in bits_of:
            quantised = quantise(tensor, bits_of[name])
            stored[name], stored[name + SCALE_SUFFIX] = quantised.values, quantised.scale
        else:
            stored[name] = tensor
    return stored


@dataclass(frozen=True)
class Loss:
    """What quantisation costs one tensor, or all: `error` is ‖w − q‖ / ‖w‖, `nbytes` the stored size."""

    name: str
    bits: float
    error: float
    nbytes: int

    def __str__(self) -> str:
        return f"{self.name}: {self.bits:.3g} bits, relative error {self.error:.2%}, {self.nbytes / 2**20:.2f} MiB"


def quality_loss(tensors: Iterable[tuple[str, Tensor]], bits_of: Mapping[str, Bits]) -> Iterator[Loss]:
    """The loss of each tensor in `bits_of`, and last that of all of them together, named `total`."""
    wrong = whole = 0.0
    size = count = 0
    for name, tensor in tensors:
        if name not in bits_of:
            continue
        quantised = quantise(tensor, bits_of[name])
        off = (quantised.dequantise() - tensor.float()).square().sum().item()
        of = tensor.float().square().sum().item()
        yield Loss(name, 8 * quantised.nbytes / tensor.numel(), (off / max(of, 1e-30)) ** 0.5, quantised.nbytes)
        wrong, whole, size, count = wrong + off, whole + of, size + quantised.nbytes, count + tensor.numel()
    yield Loss("total", 8 * size / max(count, 1), (wrong / max(whole, 1e-30)) ** 0.5, size)
