"""Whisper's text decoder, for training only: it teaches the semantic tokenizer what words are (SPEC §6).

    decoder = WhisperDecoder(WhisperDecoderConfig.from_dict(config))
    logits_nV = decoder.logits(decoder(token_ids_BT, memory_BSD, memory_valid_BS)[wanted])

Parameter names are those of Hugging Face's Whisper checkpoints under `model.decoder.`; the head is tied to the token
embedding, as there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.errors import CheckpointError
from kimi_audio.tokenizer.whisper import WhisperAttention

ENGLISH_ONLY_END = 50256
"""Id of the end of text in Whispers that know neither a language nor a task; it is one higher in all others."""


@dataclass(frozen=True)
class WhisperDecoderConfig:
    """The decoder's fields of a Whisper `config.json`."""

    d_model: int
    decoder_layers: int
    decoder_attention_heads: int
    decoder_ffn_dim: int
    vocab_size: int
    max_target_positions: int = 448

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> WhisperDecoderConfig:
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})


class Attention(WhisperAttention):
    """Attention to the past of the text (`memory` None) or to the encoder's states."""

    def forward(self, x_BTD: Tensor, mask: Tensor | None = None, memory_BSD: Tensor | None = None) -> Tensor:
        source = x_BTD if memory_BSD is None else memory_BSD
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q_proj(x_BTD), self.k_proj(source), self.v_proj(source))
        )
        out_BHTd = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=memory_BSD is None)
        return self.out_proj(out_BHTd.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Pre-norm layer: text so far, then the sound, then the feed-forward."""

    def __init__(self, config: WhisperDecoderConfig) -> None:
        super().__init__()
        d_model, heads = config.d_model, config.decoder_attention_heads
        self.self_attn = Attention(d_model, heads)
        self.self_attn_layer_norm = nn.LayerNorm(d_model)
        self.encoder_attn = Attention(d_model, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(d_model)
        self.fc1 = nn.Linear(d_model, config.decoder_ffn_dim)
        self.fc2 = nn.Linear(config.decoder_ffn_dim, d_model)
        self.final_layer_norm = nn.LayerNorm(d_model)

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, memory_mask: Tensor) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.self_attn_layer_norm(x_BTD))
        x_BTD = x_BTD + self.encoder_attn(self.encoder_attn_layer_norm(x_BTD), memory_mask, memory_BSD)
        return x_BTD + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x_BTD))))


class WhisperDecoder(nn.Module):
    """Token ids and encoder states in, states out; always over whole sequences, as training wants it."""

    def __init__(self, config: WhisperDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_positions = nn.Embedding(config.max_target_positions, config.d_model)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, token_ids_BT: Tensor, memory_BSD: Tensor, memory_valid_BS: Tensor) -> Tensor:
        """States (B, T, d_model), of which `logits` makes logits.

        Args:
            token_ids_BT: int64, at most `max_target_positions` each; padding may stand at the end.
            memory_BSD: encoder states.
            memory_valid_BS: bool, False for states of padding.
        """
        x_BTD = self.embed_tokens(token_ids_BT) + self.embed_positions.weight[: token_ids_BT.shape[1]]
        for layer in self.layers:
            x_BTD = layer(x_BTD, memory_BSD, memory_valid_BS[:, None, None, :])
        return self.layer_norm(x_BTD)

    def logits(self, x: Tensor) -> Tensor:
        """(..., d_model) to (..., vocab_size)."""
        return F.linear(x, self.embed_tokens.weight)


class WhisperText:
    """Whisper's own text tokenizer: transcript → ids between the start and end marks of its decoder.

    Raises:
        CheckpointError: when `tokenizer.json` is missing or not Whisper's.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.exists():
            raise CheckpointError(f"{path} is missing; the recognition loss needs Whisper's tokenizer.")
        self._tokenizer = Tokenizer.from_file(str(path))
        self.end = self._id("<|endoftext|>")
        english_only = self.end == ENGLISH_ONLY_END
        task = [] if english_only else ["<|en|>", "<|transcribe|>"]
        self.start = [self._id(mark) for mark in ("<|startoftranscript|>", *task, "<|notimestamps|>")]

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise CheckpointError(f"the tokenizer has no token {token}; a Whisper tokenizer is needed.")
        return number

    def encode(self, text: str) -> list[int]:
        """Start marks, the text, end of text."""
        return [*self.start, *self._tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids, self.end]
