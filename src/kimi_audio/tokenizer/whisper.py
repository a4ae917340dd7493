"""The Whisper encoder, shared by the acoustic encoder and the semantic tokenizer (SPEC §6).

Parameter names are those of Hugging Face's Whisper checkpoints (`conv1`, `layers.N.self_attn.q_proj`, …), so ordinary
Whisper folders and the official Kimi-Audio ones load unchanged.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.attention import attend
from kimi_audio.errors import ConfigError


@dataclass(frozen=True)
class WhisperEncoderConfig:
    """The encoder's fields of a Whisper `config.json`. Raises ConfigError for sizes that contradict each other."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    num_mel_bins: int = 80
    max_source_positions: int = 1500

    def __post_init__(self) -> None:
        sizes = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins",
                 "max_source_positions")  # fmt: skip
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        heads = self.encoder_attention_heads
        if self.d_model % heads:
            raise ConfigError(f"d_model is {self.d_model}; a multiple of the {heads} heads is needed")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "WhisperEncoderConfig":
        """Take the known fields; others (decoder, dropout, …) are not the encoder's business."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__ if name in config})


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's positions (length, channels): sines, then cosines, of wavelengths from 2π to 10 000 · 2π."""
    rates = torch.exp(torch.arange(channels // 2) * (-math.log(10_000) / (channels // 2 - 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class WhisperAttention(nn.Module):
    """Multi-head self-attention; only the keys have no bias."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x_BTD: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            project(x_BTD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(q, k, v, mask).transpose(1, 2).flatten(2))


class WhisperLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: WhisperEncoderConfig) -> None:
        super().__init__()
        self.self_attn = WhisperAttention(config.d_model, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, x_BTD: Tensor, mask: Tensor | None = None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.self_attn_layer_norm(x_BTD), mask)
        return x_BTD + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x_BTD))))


class WhisperEncoder(nn.Module):
    """Log-mel frames at 100 Hz in, hidden states at 50 Hz out."""

    def __init__(self, config: WhisperEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, 3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, config.d_model)
        self.layers = nn.ModuleList(WhisperLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, log_mel_BMT: Tensor, num_frames: int | None = None, mask: Tensor | None = None) -> Tensor:
        """Encode.

        Args:
            log_mel_BMT: (B, n_mels, T) with T ≤ 2 · max_source_positions.
            num_frames: keep only this many frames after the convolutions; None keeps all T / 2.
            mask: attention mask over the frames, broadcastable to (B, heads, frames, frames); True attends. None: all
                frames attend to all, the official behaviour.

        Returns:
            (B, frames, d_model), after the final layer norm.
        """
        x_BDT = F.gelu(self.conv2(F.gelu(self.conv1(log_mel_BMT))))[:, :, :num_frames]
        x_BTD = x_BDT.transpose(1, 2) + self.embed_positions.weight[: x_BDT.shape[2]].to(x_BDT.dtype)
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask)
        return self.layer_norm(x_BTD)

    @property
    def dtype(self) -> torch.dtype:
        return self.embed_positions.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.embed_positions.weight.device
