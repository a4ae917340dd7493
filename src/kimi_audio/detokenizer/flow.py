"""Flow matching: audio codes in, log-mels out, by a diffusion transformer (SPEC §7).

    flow = FlowTransformer(FlowConfig.from_dict(config))
    velocity_BTM = flow(noisy_BTM, codes_BN, times_B)            # T = r · N frames, r frames a code
    mel_BTM = solve(flow, noise_BTM, codes_BN, euler(29))        # one chunk

A frame sees all frames of its chunk and everything in the cache. What depends on the code and the time alone (adaptive
layer norms, a third of the work if done for every frame) is computed once a code.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.attention import attend
from kimi_audio.kv_cache import KVCache

TIME_SCALE = 1000
"""Times 0…1 reach the network as whole numbers 0…1000, cut off, not rounded."""

CACHE_TIME = 0.999
"""The time at which finished frames are run once more, to be remembered."""


SIZES = ("input_size", "semantic_vocab_size", "hidden_size", "depth", "num_heads")
FIXED = {"ffn_type": "vanilla_mlp", "use_rope": True, "position_embedding_type": "skip"}
"""The one kind of transformer that is known, in the words of the official `config.yaml`."""


@dataclass(frozen=True)
class FlowConfig:
    """`audio_detokenizer/config.yaml`: sizes, and how mels are normalised."""

    input_size: int
    semantic_vocab_size: int
    hidden_size: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    rope_base: float = 10000.0
    rope_interpolation_factor: float = 1.0
    max_seq_len: int = 4096
    mel_mean: float = 0.0
    mel_std: float = 1.0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "FlowConfig":
        """Read the official structure. Raises KeyError for a missing field, ValueError for an unknown kind of model."""
        sizes = config["model"]["dit"]
        for name, accepted in FIXED.items():
            if sizes.get(name) != accepted:
                raise ValueError(f"{name} is {sizes.get(name)!r}; accepted is {accepted!r}")
        rope = sizes.get("rope_params", {})
        mel = {name: config[name] for name in ("mel_mean", "mel_std")} if config.get("normalize_mel") else {}
        return cls(
            **{name: sizes[name] for name in SIZES},
            mlp_ratio=sizes.get("mlp_ratio", 4.0),
            rope_base=rope.get("rope_base", 10000.0),
            rope_interpolation_factor=rope.get("rope_interpolation_factor", 1.0),
            max_seq_len=sizes.get("max_seq_len", 4096),
            **mel,
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of the official `config.yaml`."""
        rope = {"max_position_embeddings": self.max_seq_len, "rope_base": self.rope_base,
                "rope_interpolation_factor": self.rope_interpolation_factor}  # fmt: skip
        sizes = {name: getattr(self, name) for name in (*SIZES, "mlp_ratio", "max_seq_len")}
        mel = {"normalize_mel": True, "mel_mean": self.mel_mean, "mel_std": self.mel_std}
        return {**mel, "model": {"dit": {**sizes, **FIXED, "rope_params": rope}}}

    @property
    def no_code(self) -> int:
        """The code that stands for no condition, for classifier-free guidance."""
        return self.semantic_vocab_size


class TimeEmbedding(nn.Module):
    """Sinusoids of the time through a small network."""

    def __init__(self, hidden_size: int, frequencies: int = 128) -> None:
        super().__init__()
        self.frequencies = frequencies
        first, second = nn.Linear(2 * frequencies, hidden_size), nn.Linear(hidden_size, hidden_size)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, times: Tensor) -> Tensor:
        """Times of any shape to vectors (..., hidden_size)."""
        exponents = torch.arange(self.frequencies, device=times.device) / self.frequencies
        angles = times[..., None].float() * torch.exp(-math.log(10000.0) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], -1)
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor, rotary_Td: Tensor, mask: Tensor | None,
                cache: KVCache | None, index: int) -> Tensor:
        q, k, v = self.qkv(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate_pairs(q, rotary_Td), rotate_pairs(k, rotary_Td)
        if cache is not None:
            k, v = cache.write(index, k, v)
        return self.proj(attend(q, k, v, mask).transpose(1, 2).flatten(2))


def rotary(positions_T: Tensor, head_dim: int, base: float, interpolation: float) -> Tensor:
    """Unit complex numbers (T, head_dim / 2)."""
    exponents = torch.arange(0, head_dim, 2, device=positions_T.device).float() / head_dim
    angles = torch.outer(positions_T.float() / interpolation, 1.0 / base**exponents)
    return torch.polar(torch.ones_like(angles), angles)


def rotate_pairs(x_BHTd: Tensor, rotary_Td: Tensor) -> Tensor:
    """Rotary position embedding over adjacent pairs."""
    pairs = torch.view_as_complex(x_BHTd.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotary_Td).flatten(-2).to(x_BHTd.dtype)


def modulated(x_BNrD: Tensor, shift_BND: Tensor, scale_BND: Tensor) -> Tensor:
    """Layer norm with shift and scale of each code, over its r frames."""
    normed = F.layer_norm(x_BNrD, x_BNrD.shape[-1:], eps=1e-6)
    return normed * (1 + scale_BND.unsqueeze(2)) + shift_BND.unsqueeze(2)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        # What the approximation leaves out is less than bfloat16 does, and on a CPU it takes five times as long.
        return self.fc2(F.gelu(hidden, approximate="none" if hidden.dtype == torch.bfloat16 else "tanh"))


class Block(nn.Module):
    """A DiT block: attention and MLP, both modulated and gated by time and code (adaLN-Zero)."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.attn, self.mlp = SelfAttention(dim, config.num_heads), Mlp(dim, int(dim * config.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x_BNrD: Tensor, c_BND: Tensor, rotary_Td: Tensor, mask: Tensor | None,
                cache: KVCache | None, index: int) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(c_BND).chunk(6, -1)
        attended_BTD = self.attn(modulated(x_BNrD, shift, scale).flatten(1, 2), rotary_Td, mask, cache, index)
        x_BNrD = x_BNrD + gate.unsqueeze(2) * attended_BTD.view_as(x_BNrD)
        return x_BNrD + gate_mlp.unsqueeze(2) * self.mlp(modulated(x_BNrD, shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, config.input_size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.hidden_size, 2 * config.hidden_size))

    def forward(self, x_BNrD: Tensor, c_BND: Tensor) -> Tensor:
        return self.linear(modulated(x_BNrD, *self.adaLN_modulation(c_BND).chunk(2, -1)))


class FlowTransformer(nn.Module):
    """Predicts the velocity from noise to mel."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.t_embedder = TimeEmbedding(config.hidden_size)
        self.semantic_token_embedding = nn.Embedding(config.semantic_vocab_size + 1, config.hidden_size)
        self.input_linear = nn.Linear(config.input_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config)

    def new_cache(self, batch: int = 1, capacity: int = 256) -> KVCache:
        """An empty cache in the model's dtype and device."""
        config, weight = self.config, self.input_linear.weight
        return KVCache(config.depth, batch, config.num_heads, config.hidden_size // config.num_heads,
                       capacity=capacity, dtype=weight.dtype, device=weight.device)  # fmt: skip

    def forward(self, x_BTM: Tensor, codes_BN: Tensor, times: Tensor, *, start: int = 0,
                positions_T: Tensor | None = None, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Velocity (B, T, M).

        Args:
            x_BTM: normalised mels on their way from noise, in any dtype; the velocity has that of the weights.
            codes_BN: int64, T = r · N; frame t belongs to code t // r.
            times: whole numbers, 0…1000, of the rows (B,) or of each code (B, N).
            start: position of the first frame; the others follow.
            positions_T: positions of all frames instead.
            mask: bool, broadcastable to (B, heads, T, cached + T); True attends. None: every frame sees all.
            cache: frames seen before; it is written, but not advanced.
        """
        config, frames = self.config, x_BTM.shape[1]
        c_BND = self.t_embedder(times if times.ndim == 2 else times[:, None]) + self.semantic_token_embedding(codes_BN)
        if positions_T is None:
            positions_T = torch.arange(start, start + frames, device=x_BTM.device)
        rotary_Td = rotary(positions_T, config.hidden_size // config.num_heads, config.rope_base,
                           config.rope_interpolation_factor)  # fmt: skip
        x_BNrD = self.input_linear(x_BTM.to(self.input_linear.weight.dtype)).unflatten(1, (codes_BN.shape[1], -1))
        for index, block in enumerate(self.blocks):
            x_BNrD = block(x_BNrD, c_BND, rotary_Td, mask, cache, index)
        return self.final_layer(x_BNrD, c_BND).flatten(1, 2)


def whole_time(time: Tensor, batch: int) -> Tensor:
    """A time in 0…1 as the network takes it, for each of `batch` rows."""
    return (time * TIME_SCALE).long().expand(batch)


Schedule = list[tuple[Tensor, Tensor]]
"""Time and width of every solver step."""


def euler(steps: int, sway: float = 0.0) -> Schedule:
    """`steps` steps from 0 to 1, with the float32 rounding of the official solver, whose default is 29 equal ones.

    A negative `sway`, down to -1, makes the early ones smaller and the late ones larger (F5-TTS, arXiv 2410.06885).
    """
    span = torch.linspace(0, 1, steps + 1)
    if sway:
        span = (span + sway * (torch.cos(torch.pi / 2 * span) - 1 + span)).clamp(0, 1)
    schedule, time = [], span[0]
    for end in span[1:]:
        schedule.append((time, end - time))
        time = time + schedule[-1][1]
    return schedule


def naive_euler(steps: int) -> Schedule:
    """The official alternative: `steps` steps that end a little before 1, the last one taken at time 1."""
    return [(time, torch.tensor((1 - 1e-4) / steps)) for time in torch.linspace(0, 1, steps)]


def velocity(flow: FlowTransformer, x_BTM: Tensor, codes_BN: Tensor, times_B: Tensor, start: int = 0,
             cache: KVCache | None = None, guidance: float = 0.0) -> Tensor:
    """Velocity (B, T, M) with classifier-free guidance; rows without codes then follow those with, in `cache` too."""
    if not guidance:
        return flow(x_BTM, codes_BN, times_B, start=start, cache=cache)
    codes_2BN = torch.cat([codes_BN, torch.full_like(codes_BN, flow.config.no_code)])
    both = flow(x_BTM.repeat(2, 1, 1), codes_2BN, times_B.repeat(2), start=start, cache=cache)
    with_codes, without = both.chunk(2)
    return with_codes + guidance * (with_codes - without)


@torch.inference_mode()
def solve(flow: FlowTransformer, noise_BTM: Tensor, codes_BN: Tensor, schedule: Schedule, *, start: int = 0,
          cache: KVCache | None = None, guidance: float = 0.0, guidance_from: float = 0.0) -> Tensor:
    """Normalised mels (B, T, M) from noise; see `velocity` and `FlowTransformer.forward` for the arguments.

    Steps before the time `guidance_from` are made without guidance (Kynkäänniemi et al. 2024, arXiv 2404.07724). The
    steps are summed in the dtype of the noise: float32 noise gives float32 mels, whatever the weights are.
    """
    x_BTM = noise_BTM
    for time, width in schedule:
        times_B = whole_time(time, len(x_BTM)).to(x_BTM.device)
        weight = guidance if time >= guidance_from else 0.0
        x_BTM = x_BTM + width.to(x_BTM) * velocity(flow, x_BTM, codes_BN, times_B, start, cache, weight)
    return x_BTM
