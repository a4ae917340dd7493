"""An int8 LLM on the CPU whose decoder layers are compiled functions.

    compile_layers(llm)

A decoding step is some forty operations a layer, and PyTorch takes more time between them than in them. For a few rows
of a small model the whole layer is therefore one call; where several threads are worth it, its parts are, with the rows
or the columns of the weights divided among them. `benchmarks/llm.py` measures it.
"""

import numpy as np
import torch
from torch import Tensor, nn

from kimi_audio.checkpoint import compiled
from kimi_audio.checkpoint.compiled import MANY_ROWS
from kimi_audio.checkpoint.kernels import FusedPart, Int8Weight, QuantLinear, in_threads, product
from kimi_audio.kv_cache import KVCache
from kimi_audio.llm.model import AudioLLM, DecoderLayer

NO_MASK = np.empty((0, 0, 0), dtype=bool)
SMALL = 2**23
"""Products of numbers in a layer up to which a second thread is not worth waking for each of its parts."""

Arrays = tuple[np.ndarray, np.ndarray]


class CompiledLayer(nn.Module):
    """A decoder layer with int8 weights, compiled for when there is a cache, and `layer` for when there is none."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        self.layer = layer
        projections = _projections(layer)
        qkv, out, gate_up, down = map(_arrays, projections)
        assert projections[0] is not None and projections[0].bias_N is not None
        self.weights = (
            layer.input_layernorm.weight.detach().float().numpy(),
            layer.post_attention_layernorm.weight.detach().float().numpy(),
            np.float32(layer.input_layernorm.eps),
            *(qkv, projections[0].bias_N.float().numpy(), out, gate_up, down),
        )
        self.size = sum(values_NK.size for values_NK, _ in (qkv, out, gate_up, down))

    def forward(
        self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, index: int
    ) -> Tensor:
        """As of `DecoderLayer`."""
        if cache is None:
            return self.layer(x_BTD, tables, mask, cache, index)
        rows, steps = x_BTD.shape[0] * x_BTD.shape[1], x_BTD.shape[1]
        # Not by PyTorch: its threads would keep the processor for a while after a copy, waiting for more.
        x_MD = x_BTD.numpy().reshape(rows, -1).copy()
        angles = tables[0][:, 0].numpy(), tables[1][:, 0].numpy()
        seen_BTS = NO_MASK if mask is None else np.ascontiguousarray(mask[:, 0].numpy())
        keys, values = (memory.numpy() for memory in cache.room(index, steps))
        memory = (keys, values, cache.length)
        if rows < MANY_ROWS and (rows * self.size < SMALL or torch.get_num_threads() == 1):
            compiled.layer(x_MD, self.weights, angles, memory, seen_BTS)
        else:
            self._in_threads(x_MD, angles, memory, seen_BTS)
        return torch.from_numpy(x_MD).view_as(x_BTD)

    def _in_threads(self, x_MD: np.ndarray, angles: Arrays, memory: tuple, seen_BTS: np.ndarray) -> None:
        norm_D, second_norm_D, eps, qkv, bias_N, out, gate_up, down = self.weights
        rows = len(x_MD)
        threads = torch.get_num_threads() if rows >= MANY_ROWS else 1
        qkv_MN = product(compiled.normed(x_MD, norm_D, eps), qkv)
        q_MN, attended_MN = np.empty((2, rows, out[0].shape[1]), dtype=np.float32)
        compiled.into_cache(qkv_MN, bias_N, angles, memory, q_MN)
        in_threads(threads, rows, compiled.attend, q_MN, memory, seen_BTS, attended_MN)
        x_MD += product(attended_MN, out)
        gate_up_MN = product(compiled.normed(x_MD, second_norm_D, eps), gate_up)
        gated_MN = np.empty((rows, down[0].shape[1]), dtype=np.float32)
        in_threads(threads, rows, compiled.gated, gate_up_MN, gated_MN)
        x_MD += product(gated_MN, down)


def compile_layers(llm: AudioLLM) -> None:
    """Replace the layers whose weights are all `Int8Weight`."""
    for stack in llm.stacks:
        for index, layer in enumerate(stack):
            assert isinstance(layer, DecoderLayer)
            if all(linear is not None and isinstance(linear.weight_NK, Int8Weight) for linear in _projections(layer)):
                stack[index] = CompiledLayer(layer)


def _projections(layer: DecoderLayer) -> list[QuantLinear | None]:
    """Those to q, k and v together, out of attention, to gate and up together, and down."""
    attention, mlp = layer.self_attn, layer.mlp
    return [_quantised(part) for part in (attention.q_proj, attention.o_proj, mlp.gate_proj, mlp.down_proj)]


def _quantised(part: nn.Module) -> QuantLinear | None:
    if isinstance(part, FusedPart):
        return part.fused.linear
    return part if isinstance(part, QuantLinear) else None


def _arrays(linear: QuantLinear | None) -> Arrays:
    assert linear is not None and isinstance(linear.weight_NK, Int8Weight)
    return linear.weight_NK.values_NK, linear.weight_NK.scale_N
