"""An int8 LLM on the CPU whose decoder layers are a compiled function.

    compile_layers(llm)

A decoding step is some forty operations a layer, and PyTorch takes more time between them than in them. For a few rows
all layers are therefore one call, which several threads work on where that is worth it. For many rows PyTorch is
faster: it multiplies by weights that are converted once for all rows. `benchmarks/llm.py` measures it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kimi_audio.checkpoint import compiled
from kimi_audio.checkpoint.kernels import MANY_ROWS, FusedPart, Int8Weight, QuantLinear, threads_for, together
from kimi_audio.checkpoint.quantise import Quantised
from kimi_audio.kv_cache import KVCache
from kimi_audio.llm.model import AudioLLM, DecoderLayer

NO_MASK = np.empty((0, 0, 0), dtype=bool)
SHARES = 4
"""Of each step for every thread, so that little is left for others to wait for when one is late."""


class CompiledLayers:
    """`AudioLLM.run` of a model whose layers have int8 weights."""

    def __init__(self, llm: AudioLLM, projections: Sequence[Sequence[QuantLinear]]) -> None:
        """`projections`: of each layer, those of `_projections`."""
        self.plain = llm.run
        values, scales = zip(*map(_stacked, zip(*projections, strict=True)), strict=True)
        self.weights = (
            np.stack([[norm.weight.detach().float().numpy() for norm in _norms(layer)] for layer in llm.layers]),
            np.float32(llm.config.rms_norm_eps),
            np.stack([_bias(qkv) for qkv, *_ in projections]),
            values,
            scales,
        )
        self.size = sum(values_LNK[0].size for values_LNK in values)
        (_, qkv, _), (_, out, attended), (_, gate_up, _), (_, _, gated) = (values_LNK.shape for values_LNK in values)
        self.widths = (qkv, attended, out, gate_up, gated)

    def __call__(
        self, layers: range, x_BTD: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        sequences, steps, width = x_BTD.shape
        rows = sequences * steps
        if cache is None or rows >= MANY_ROWS:
            return self.plain(layers, x_BTD, tables, mask, cache)
        # Not by PyTorch: its threads would keep the processor for a while after a copy, waiting for more.
        x_MD = x_BTD.numpy().reshape(rows, width).copy()
        angles = tables[0][:, 0].numpy(), tables[1][:, 0].numpy()
        seen_BTS = NO_MASK if mask is None else np.ascontiguousarray(mask[:, 0].numpy())
        keys, values = cache.room(steps)
        memory = (keys.numpy(), values.numpy(), sequences, cache.length)
        buffers = tuple(np.empty((rows, size), dtype=np.float32) for size in self.widths)
        counts = np.zeros(2 * compiled.STEPS * len(layers), dtype=np.int64)
        threads = threads_for(rows * self.size)
        together(threads, compiled.layers, x_MD, layers.start, layers.stop, self.weights, angles, memory, seen_BTS,
                 buffers, counts, SHARES * threads)  # fmt: skip
        return torch.from_numpy(x_MD).view_as(x_BTD)


def compile_layers(llm: AudioLLM) -> None:
    """Have the layers run by compiled code, if all their weights are `Int8Weight`."""
    projections = [[linear for part in _projections(layer) if (linear := _int8(part))] for layer in llm.layers]
    if all(len(linears) == 4 for linears in projections):
        llm.run = CompiledLayers(llm, projections)


def _projections(layer: nn.Module) -> tuple[nn.Module, ...]:
    """To q, k and v together, out of attention, to gate and up together, and down."""
    assert isinstance(layer, DecoderLayer)
    attention, mlp = layer.self_attn, layer.mlp
    return attention.q_proj, attention.o_proj, mlp.gate_proj, mlp.down_proj


def _norms(layer: nn.Module) -> tuple[nn.RMSNorm, nn.RMSNorm]:
    assert isinstance(layer, DecoderLayer)
    return layer.input_layernorm, layer.post_attention_layernorm


def _bias(linear: QuantLinear) -> np.ndarray:
    assert linear.bias_N is not None
    return linear.bias_N.float().numpy()


def _int8(part: nn.Module) -> QuantLinear | None:
    linear = part.fused.linear if isinstance(part, FusedPart) else part
    return linear if isinstance(linear, QuantLinear) and isinstance(linear.weight_NK, Int8Weight) else None


def _stacked(linears: Sequence[QuantLinear]) -> tuple[np.ndarray, np.ndarray]:
    """Values (layers, N, K) and scales (layers, N) of one projection of all layers, whose values then lie there."""
    values_LNK = torch.empty(len(linears), linears[0].out_features, linears[0].in_features, dtype=torch.int8)
    scales = []
    for values_NK, linear in zip(values_LNK, linears, strict=True):
        assert isinstance(linear.weight_NK, Int8Weight)
        quantised = linear.weight_NK.quantised
        scales.append(quantised.scale)
        linear.weight_NK.quantised = Quantised(values_NK.copy_(quantised.values), quantised.scale)
    return values_LNK.numpy(), torch.stack(scales).numpy()
