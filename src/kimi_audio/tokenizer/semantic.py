"""The semantic tokenizer: 12.5 Hz discrete codes of what is said (report §2.1, SPEC §6).

    tokenizer = SemanticTokenizer(SemanticTokenizerConfig.from_dict(config))
    codes = tokenizer.encode([samples])[0]                  # int64 (T,), T = ceil(L / 1280)

It is the lower half of a Whisper-style encoder (causal convolutions, block-causal attention), pooled to 12.5 Hz and
quantised to the nearest of `quantize_vocab_size` codes; parameter names are those of `THUDM/glm-4-voice-tokenizer`.
Block-causal: a frame attends to every earlier one and to its own block, so codes can be made while the speaker talks.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.audio.log_mel import HOP, whisper_log_mel
from kimi_audio.errors import ConfigError
from kimi_audio.tokenizer.acoustic import SEGMENT_SAMPLES, TOKEN_SAMPLES
from kimi_audio.tokenizer.whisper import WhisperEncoderConfig, WhisperLayer

CONV_STRIDE = 2
FRAMES = TOKEN_SAMPLES // HOP
"""Of log-mel, for a code."""


@dataclass(frozen=True)
class SemanticTokenizerConfig(WhisperEncoderConfig):
    """The fields of the tokenizer's `config.json` that shape its encoder half."""

    pooling_kernel_size: int = 4
    pooling_position: int = 16
    quantize_position: int = 16
    quantize_vocab_size: int = 16384
    quantize_causal_block_size: int | None = 200
    quantize_commit_coefficient: float = 0.25
    quantize_loss_scale: float = 10.0
    quantize_ema_decay: float = 0.99
    quantize_restart_interval: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        last = self.quantize_position
        if not 0 < self.pooling_position <= last:
            raise ConfigError(f"pooling_position is {self.pooling_position}; 1 to {last} are possible")
        for name in ("pooling_kernel_size", "quantize_vocab_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        block = self.quantize_causal_block_size
        if block is not None and (block < 1 or block % self.pooling_kernel_size):
            raise ConfigError(f"quantize_causal_block_size is {block}; a multiple of pooling_kernel_size is needed")

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "SemanticTokenizerConfig":
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` content, with the fixed options that the official code also reads."""
        fixed = {
            "architectures": ["WhisperVQEncoder"], "model_type": "whisper", "activation_function": "gelu",
            "encoder_causal_convolution": True, "encoder_causal_attention": False, "quantize_causal_encoder": False,
            "quantize_encoder_only": True, "pooling_type": "avg", "scale_embedding": False,
        }  # fmt: skip
        return {**fixed, **asdict(self)}


class CausalConv1d(nn.Conv1d):
    """A convolution that sees only the past: all padding on the left."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (self.kernel_size[0] - 1, 0)))


def block_causal_mask(valid_BT: Tensor, block: int | None) -> Tensor:
    """Attention mask (B, 1, T, T), True where a frame may look: earlier, or in its own block, and not padding.

    Args:
        valid_BT: bool (B, T), False for padding.
        block: frames of a block; None lets every frame look everywhere.
    """
    if block is None:
        return valid_BT[:, None, None, :]
    index = torch.arange(valid_BT.shape[1], device=valid_BT.device) // block
    return (index[:, None] >= index[None, :])[None, None] & valid_BT[:, None, None, :]


class SemanticTokenizer(nn.Module):
    """Whisper layers below the quantiser, pooling and codebook."""

    def __init__(self, config: SemanticTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        d_model = config.d_model
        self.conv1 = CausalConv1d(config.num_mel_bins, d_model, 3)
        self.conv2 = CausalConv1d(d_model, d_model, 3, stride=CONV_STRIDE)
        self.embed_positions = nn.Embedding(config.max_source_positions, d_model)
        self.layers = nn.ModuleList(WhisperLayer(config) for _ in range(config.quantize_position))
        self.codebook = nn.Embedding(config.quantize_vocab_size, d_model)

    def hidden(self, log_mel_BMT: Tensor, valid_BT: Tensor) -> Tensor:
        """States that are quantised: (B, T / 8, d_model).

        Args:
            log_mel_BMT: (B, n_mels, T), T a multiple of 8.
            valid_BT: bool (B, T), False for padding frames.
        """
        config = self.config
        x_BTD = F.gelu(self.conv2(F.gelu(self.conv1(log_mel_BMT)))).transpose(1, 2)
        x_BTD = x_BTD + self.embed_positions.weight[: x_BTD.shape[1]]
        valid_BT, block = valid_BT[:, ::CONV_STRIDE], config.quantize_causal_block_size
        mask = block_causal_mask(valid_BT, block)
        for position, layer in enumerate(self.layers, start=1):
            x_BTD = layer(x_BTD, mask)
            if position == config.pooling_position:
                x_BTD = F.avg_pool1d(x_BTD.transpose(1, 2), config.pooling_kernel_size).transpose(1, 2)
                valid_BT = valid_BT[:, :: config.pooling_kernel_size]
                block = block and block // config.pooling_kernel_size
                mask = block_causal_mask(valid_BT, block)
        return x_BTD

    def quantise(self, hidden_BTD: Tensor) -> Tensor:
        """Nearest code by squared distance: int64 (B, T)."""
        codebook = self.codebook.weight
        flat = hidden_BTD.flatten(0, 1)
        norms = flat.square().sum(1, keepdim=True) + codebook.square().sum(1)
        distance = torch.addmm(norms, flat, codebook.T, alpha=-2.0)
        return distance.argmin(1).view(hidden_BTD.shape[:2])

    def code_vectors(self, width: int) -> Tensor:
        """The codebook in another number of dimensions, float32 (codes, width), of mean 0 and spread 1.

        Embedding tables of codes start from it, so that what is learnt about one code is known of similar ones. Its
        main directions are kept, and turned at random (always the same way), so that all dimensions are alike.
        """
        centred_CD = self.codebook.weight.detach().float() - self.codebook.weight.detach().float().mean(0)
        rows, values, _ = torch.linalg.svd(centred_CD, full_matrices=False)
        kept = min(width, len(values))
        turn = torch.linalg.qr(torch.randn(width, kept, generator=torch.Generator().manual_seed(0))).Q.T
        vectors_CW = (rows[:, :kept] * values[:kept]) @ turn.to(rows)
        return vectors_CW / vectors_CW.std()

    def neighbours(self, count: int) -> Tensor:
        """The other codes whose vectors are nearest to each code's: int64 (codes, count), nearest first."""
        vectors_CD = self.codebook.weight.detach().float()
        return torch.cdist(vectors_CD, vectors_CD).topk(count + 1, largest=False).indices[:, 1:]

    def log_mel(self, samples_L: Tensor) -> tuple[Tensor, Tensor]:
        """One segment of at most 30 s, padded to whole tokens: log-mel (n_mels, T) and bool (T,) false for padding."""
        length = samples_L.shape[0]
        padded = F.pad(samples_L, (0, -length % TOKEN_SAMPLES))
        log_mel = whisper_log_mel(padded, self.config.num_mel_bins)
        return log_mel, torch.arange(log_mel.shape[1], device=log_mel.device) * HOP < length

    @torch.inference_mode()
    def encode_segment(self, samples_L: Tensor) -> Tensor:
        """Codes of one segment of at most 30 s: int64 (T,)."""
        log_mel, valid = self.log_mel(samples_L)
        return self.quantise(self.hidden(log_mel[None].to(self.codebook.weight.dtype), valid[None]))[0]

    @torch.inference_mode()
    def encode_together(self, log_mels: Sequence[tuple[Tensor, Tensor]], multiple: int = 8) -> list[Tensor]:
        """Codes of segments as one batch, padded to a multiple of mel frames: int64 (T,) each, on the CPU.

        Args:
            log_mels: from `log_mel`.
        """
        frames = -(-max(len(valid_T) for _, valid_T in log_mels) // multiple) * multiple
        frames = min(frames, CONV_STRIDE * self.config.max_source_positions)
        padded = [[F.pad(part, (0, frames - part.shape[-1])) for part in parts] for parts in log_mels]
        weight = self.codebook.weight
        log_mel_BMT, valid_BT = (torch.stack(parts).to(weight.device) for parts in zip(*padded, strict=True))
        codes_BT = self.quantise(self.hidden(log_mel_BMT.to(weight.dtype), valid_BT)).cpu()
        return [codes_T[: len(valid_T) // FRAMES] for codes_T, (_, valid_T) in zip(codes_BT, log_mels, strict=True)]

    def encode(self, utterances: list[np.ndarray] | list[Tensor]) -> list[Tensor]:
        """Codes of 16 kHz mono utterances of any length ≥ 1, each cut into 30 s segments: int64 (T,) each."""
        device = self.codebook.weight.device
        wholes = [torch.as_tensor(samples, dtype=torch.float32, device=device) for samples in utterances]
        return [torch.cat([self.encode_segment(part) for part in whole.split(SEGMENT_SAMPLES)]) for whole in wholes]
