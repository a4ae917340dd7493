"""Linear layers and embeddings that compute with quantised weights.

    install(model, {"lm_head.weight": quantise(weight, 8), ...})

**int8** (`Int8Weight`) is the fast one: for few rows, loops that numba compiles for the CPU at hand convert weights,
exactly, where they are multiplied. An LLM's layers go further (`layers`); `benchmarks/llm.py` measures them.

**4-bit** (`Int4Weight`) needs half the memory: PyTorch's bfloat16 kernel, 1.5–2 × float32 for a row, 0.5 × in prefill.

Other devices multiply by the weights converted on the fly.
"""

import os
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from llvmlite.binding import get_host_cpu_features
from torch import Tensor, nn

from kimi_audio.checkpoint.compiled import multiply
from kimi_audio.checkpoint.quantise import GROUP, Bits, Quantised, quantise

WORTH_A_THREAD = 2**20
"""Products of numbers for which another thread is woken."""

MANY_ROWS = 32
"""From so many rows on PyTorch is faster than compiled loops, although it has the weights converted first."""

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that read the same input: one GEMM computes them."""


class Weight(Protocol):
    """Multiplies float32 rows: `[M, K]` to `[M, N]`."""

    def __call__(self, x_MK: Tensor) -> Tensor: ...


class Int4Weight:
    """4-bit weights in the packing of PyTorch's bfloat16 kernel, which wants a multiple of 64 rows."""

    def __init__(self, quantised: Quantised) -> None:
        self.rows = quantised.shape[0]
        padding = (0, 0, 0, -self.rows % 64)
        numbers = F.pad(quantised.numbers().int(), padding) + 8
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1)
        scale_GN = F.pad(quantised.scale, padding).T.bfloat16()
        self.scale_and_zero = torch.stack([scale_GN, torch.zeros_like(scale_GN)], -1).contiguous()

    def __call__(self, x_MK: Tensor) -> Tensor:
        x_MK = x_MK.bfloat16().contiguous()
        y_MN = torch.ops.aten._weight_int4pack_mm_for_cpu(x_MK, self.packed, GROUP, self.scale_and_zero)
        return y_MN[:, : self.rows].float()


class AnyWeight:
    """Quantised weights on any device, converted whenever they are used."""

    def __init__(self, quantised: Quantised) -> None:
        self.quantised = quantised

    def __call__(self, x_MK: Tensor) -> Tensor:
        if self.quantised.bits == 8:
            return F.linear(x_MK, self.quantised.values.to(x_MK.dtype)) * self.quantised.scale.to(x_MK.dtype)
        return F.linear(x_MK, self.quantised.dequantise(x_MK.dtype))


class Int8Weight:
    """int8 weights on the CPU; few rows are multiplied by a compiled loop, many by PyTorch in `quickest_float`."""

    def __init__(self, quantised: Quantised) -> None:
        self.quantised = Quantised(quantised.values.contiguous(), quantised.scale.float())

    def __call__(self, x_MK: Tensor) -> Tensor:
        if len(x_MK) >= MANY_ROWS:
            values_NK = self.quantised.values.to(quickest_float())
            return F.linear(x_MK.to(values_NK.dtype), values_NK).float().mul_(self.quantised.scale)
        values_NK, scale_N = self.quantised.values.numpy(), self.quantised.scale.numpy()
        y_MN = np.empty((len(x_MK), len(scale_N)), dtype=np.float32)
        threads = threads_for(len(x_MK) * values_NK.size)
        counts = np.zeros(2, dtype=np.int64)
        together(threads, multiply, values_NK, scale_N, x_MK.contiguous().numpy(), y_MN, counts, threads)
        return torch.from_numpy(y_MN)


@cache
def quickest_float() -> torch.dtype:
    """bfloat16 on a CPU that multiplies it (AMX, or AVX-512 from Zen 4 on) and is twice as fast so; else float32."""
    features = get_host_cpu_features()
    return torch.bfloat16 if features.get("amx-bf16") or features.get("avx512bf16") else torch.float32


def threads_for(products: int) -> int:
    """As many threads as PyTorch has, if so many products of numbers are worth it."""
    return max(1, min(torch.get_num_threads(), products // WORTH_A_THREAD))


def together(threads: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function that shares its work (`compiled`) in several threads, of which this is one."""
    others = [_threads().submit(function, *arguments) for _ in range(1, threads)]
    function(*arguments)
    for other in others:
        other.cancel()  # it has not come in time, and nothing is left


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="int8")


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads stay behind


def weight_for(quantised: Quantised) -> Weight:
    """The fastest kind of weight for where it is."""
    if quantised.values.device.type != "cpu":
        return AnyWeight(quantised)
    if quantised.bits == 8:
        return Int8Weight(quantised)
    on_x86 = "fbgemm" in torch.backends.quantized.supported_engines
    return Int4Weight(quantised) if on_x86 else AnyWeight(quantised)


class QuantLinear(nn.Module):
    """`nn.Linear` with a quantised weight; the input's dtype comes out."""

    def __init__(self, quantised: Quantised, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = quantised.shape
        self.weight_NK, self.bias_N = weight_for(quantised), None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        y_MN = self.weight_NK(x.reshape(-1, self.in_features).float())
        if self.bias_N is not None:
            y_MN = y_MN.add_(self.bias_N)
        return y_MN.to(x.dtype).view(*x.shape[:-1], self.out_features)


class FusedLinear:
    """Several layers of one input: the first that is asked computes all, the last one drops the results."""

    def __init__(self, quantised: Sequence[Quantised], biases: Sequence[Tensor | None]) -> None:
        self.sizes = [matrix.shape[0] for matrix in quantised]
        values, scale = (torch.cat([getattr(matrix, part) for matrix in quantised]) for part in ("values", "scale"))
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat([values.new_zeros(n, dtype=torch.float32) if b is None else b.detach()
                              for n, b in zip(self.sizes, biases, strict=True)])  # fmt: skip
        self.linear = QuantLinear(Quantised(values, scale), bias)
        self.last: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def __call__(self, x: Tensor, part: int) -> Tensor:
        last = self.last  # read once: another thread may replace it
        outputs = last[1] if last is not None and last[0] is x else self.linear(x).split(self.sizes, -1)
        self.last = (x, outputs) if part < len(self.sizes) - 1 else None
        return outputs[part]


class FusedPart(nn.Module):
    """One of the layers of a `FusedLinear`."""

    def __init__(self, fused: FusedLinear, part: int) -> None:
        super().__init__()
        self.fused, self.part = fused, part

    def forward(self, x: Tensor) -> Tensor:
        return self.fused(x, self.part)


class QuantEmbedding(nn.Module):
    """`nn.Embedding` with int8 rows, each with its scale; vectors come out in `dtype`."""

    def __init__(self, quantised: Quantised, dtype: torch.dtype) -> None:
        super().__init__()
        self.values_VD, self.scale_V, self.dtype = quantised.values, quantised.scale.to(dtype), dtype

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.values_VD).to(self.dtype) * F.embedding(ids, self.scale_V[:, None])


def is_fused(weight: str) -> bool:
    """Whether the layer of a weight may be computed together with others."""
    return any(weight.endswith(f"{sibling}.weight") for siblings in FUSED for sibling in siblings)


def quantisable(module: nn.Module) -> Iterator[str]:
    """Names of the weights that can be quantised: those of linear layers and of the token embedding."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Embedding) and name.endswith("embed_tokens")):
            yield f"{name}.weight"


def install(module: nn.Module, quantised: MutableMapping[str, Quantised], dtype: torch.dtype = torch.float32) -> None:
    """Replace layers by quantised ones; empties `quantised` as it goes, so that little is held twice.

    Args:
        module: with its biases in place; weights of replaced layers may be without storage.
        quantised: weight name → matrix; a tied weight under both names.
        dtype: of embedded vectors.
    """
    for owner_name, owner in list(module.named_modules()):
        prefix = f"{owner_name}." if owner_name else ""
        for siblings in FUSED:
            names = [f"{prefix}{sibling}.weight" for sibling in siblings]
            if all(name in quantised for name in names) and len({quantised[name].bits for name in names}) == 1:
                biases = [_bias(owner.get_submodule(sibling)) for sibling in siblings]
                fused = FusedLinear([quantised.pop(name) for name in names], biases)
                for part, sibling in enumerate(siblings):
                    setattr(owner, sibling, FusedPart(fused, part))
    for name in list(quantised):
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        owner, matrix = module.get_submodule(parent), quantised.pop(name)
        layer = owner.get_submodule(leaf)
        is_embedding = isinstance(layer, nn.Embedding)
        setattr(owner, leaf, QuantEmbedding(matrix, dtype) if is_embedding else QuantLinear(matrix, _bias(layer)))


def _bias(layer: nn.Module) -> Tensor | None:
    assert isinstance(layer, nn.Linear)
    return layer.bias


def quantise_module(module: nn.Module, bits: Bits) -> None:
    """Quantise the linear layers (and a token embedding, to 8 bits) of a module that is in memory, in place."""
    weights: dict[int, Quantised] = {}
    quantised: dict[str, Quantised] = {}
    for name in quantisable(module):
        weight = module.get_parameter(name)
        if id(weight) not in weights:
            is_embedding = isinstance(module.get_submodule(name.removesuffix(".weight")), nn.Embedding)
            weights[id(weight)] = quantise(weight, 8 if is_embedding else bits)
        quantised[name] = weights[id(weight)]
    install(module, quantised)
