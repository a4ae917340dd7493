"""The audio language model: one trunk, a text branch and an audio branch (report §2.2, SPEC §3).

    llm = AudioLLM(KimiAudioConfig.from_dict(config))
    output = llm(audio_ids, text_ids, continuous_mask_BT=mask, features=[features_1TF])
    output.text_logits, output.audio_logits                 # (B, T, vocab_size) each

Every position carries an audio-stream id and a text-stream id, whose embeddings are added; where speech is heard
also a continuous Whisper feature through the adaptor. The audio branch forks from the trunk's layer
`kimia_mimo_transformer_from_layer_index`. Parameter names are those of the official checkpoints. A model with
`kimia_mimo_layers` 0 only listens: it has no audio branch, and its audio logits are None.
"""

import math
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.kv_cache import KVCache
from kimi_audio.llm.config import KimiAudioConfig, RopeScaling


class LLMOutput(NamedTuple):
    """Logits (B, T, vocab_size); None for a stream that was not asked for, or without an audio branch."""

    text_logits: Tensor | None
    audio_logits: Tensor | None


@cache
def rotary_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None, device: torch.device) -> Tensor:
    """Radians a position of each pair of dimensions: float32 (head_dim / 2,)."""
    with torch.inference_mode(False):  # what is remembered serves training as well
        plain = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
        if scaling is None:
            return plain
        turns = plain * scaling.original_max_position_embeddings / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return plain * (kept + (1 - kept) / scaling.factor)


def rotary_tables(position_ids_BT: Tensor, config: KimiAudioConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, 1, T, head_dim) of rotary position embedding, halves convention."""
    device = position_ids_BT.device
    frequencies = rotary_frequencies(config.head_dim, config.rope_theta, config.rope_scaling, device)
    angles = position_ids_BT[:, None, :, None].float() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x_BHTd: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Apply rotary position embedding to queries or keys."""
    cos, sin = tables
    low, high = x_BHTd.chunk(2, dim=-1)
    return x_BHTd * cos + torch.cat([-high, low], dim=-1) * sin


class Attention(nn.Module):
    """Grouped-query attention with biases on q, k and v."""

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__()
        d, heads, kv_heads, head_dim = (config.hidden_size, config.num_attention_heads,
                                        config.num_key_value_heads, config.head_dim)  # fmt: skip
        self.head_dim = head_dim
        self.q_proj = nn.Linear(d, heads * head_dim)
        self.k_proj = nn.Linear(d, kv_heads * head_dim)
        self.v_proj = nn.Linear(d, kv_heads * head_dim)
        self.o_proj = nn.Linear(heads * head_dim, d, bias=False)

    def forward(
        self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, index: int
    ) -> Tensor:
        q, k, v = (
            project(x_BTD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, tables), rotate(k, tables)
        if cache is not None:
            k, v = cache.write(index, k, v)
        causal = mask is None and q.shape[2] > 1
        out_BHTd = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
        return self.o_proj(out_BHTd.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class DecoderLayer(nn.Module):
    """Pre-norm transformer layer of Qwen2."""

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, index: int
    ) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), tables, mask, cache, index)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Adaptor(nn.Module):
    """Whisper features to the hidden size; list positions 1 and 2 hold what has no parameters, as in checkpoints."""

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([
            nn.Linear(config.kimia_adaptor_input_dim, config.hidden_size),
            nn.SiLU(),
            nn.Identity(),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.LayerNorm(config.hidden_size, config.rms_norm_eps),
        ])  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = layer(features)
        return features


class Backbone(nn.Module):
    """What the checkpoints keep under `model.`: embedding, adaptor, trunk with text branch, audio branch."""

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        if config.use_whisper_feature:
            self.vq_adaptor = Adaptor(config)
        if config.kimia_mimo_layers:
            self.mimo_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.kimia_mimo_layers))
            self.mimo_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.fork = config.kimia_mimo_transformer_from_layer_index

    @property
    def below_fork(self) -> Iterator[nn.Module]:
        """The layers that both branches share."""
        return islice(self.layers, self.fork + 1)


class AudioLLM(nn.Module):
    """Ids, continuous features and a cache in; text and audio logits out."""

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        if config.kimia_mimo_layers:
            ids = config.vocab_size - config.kimia_mimo_output_first
            self.mimo_output = nn.Linear(config.hidden_size, ids, bias=False)

    @property
    def layers(self) -> list[nn.Module]:
        """As a cache counts them: the trunk with the text branch, then the audio branch if there is one."""
        return [*self.model.layers, *(self.model.mimo_layers if self.config.kimia_mimo_layers else [])]

    def new_cache(self, batch: int = 1, capacity: int = 256) -> KVCache:
        """An empty cache for `batch` rows, in the model's activation dtype and device."""
        config, norm = self.config, self.model.norm.weight
        layers = config.num_hidden_layers + config.kimia_mimo_layers
        return KVCache(layers, batch, config.num_key_value_heads, config.head_dim,
                       capacity=capacity, dtype=norm.dtype, device=norm.device)  # fmt: skip

    def embed(
        self,
        audio_ids_BT: Tensor,
        text_ids_BT: Tensor,
        continuous_mask_BT: Tensor | None = None,
        features: list[Tensor] | None = None,
    ) -> Tensor:
        """Input vectors (B, T, D).

        Args:
            audio_ids_BT, text_ids_BT: int64 (B, T).
            continuous_mask_BT: bool (B, T), True where a continuous feature is added.
            features: one (1, t, F) or (t, F) tensor per run of True in the mask, in row-major order; cut to the run's
                length if longer, zero-filled if shorter.
        """
        x_BTD = self.model.embed_tokens(audio_ids_BT)
        if features is not None and continuous_mask_BT is not None and self.config.use_whisper_feature:
            heard = self.model.vq_adaptor(self._aligned_features(continuous_mask_BT, features).to(x_BTD.dtype))
            x_BTD = x_BTD.index_put(
                continuous_mask_BT.nonzero(as_tuple=True), (x_BTD[continuous_mask_BT] + heard) * math.sqrt(2.0)
            )
        # The official code leaves the text embedding out when all text ids are 0; here per row, to keep rows apart.
        written_B = text_ids_BT.any(dim=1)
        return x_BTD + self.model.embed_tokens(text_ids_BT) * written_B[:, None, None]

    def _aligned_features(self, mask_BT: Tensor, features: list[Tensor]) -> Tensor:
        """Features of the N masked positions in row-major order: (N, F)."""
        padded = F.pad(mask_BT, (1, 0))
        starts = mask_BT & ~padded[:, :-1]
        run_of_position = starts.flatten().cumsum(0)[mask_BT.flatten()] - 1
        lengths = run_of_position.bincount(minlength=len(features)).tolist()
        if len(lengths) != len(features):
            raise ValueError(f"{len(features)} feature tensors were given for {len(lengths)} audio segments.")
        rows = []
        for length, feature in zip(lengths, features, strict=True):
            feature_tF = feature.reshape(-1, feature.shape[-1])[:length]
            missing = length - feature_tF.shape[0]
            rows.append(F.pad(feature_tF, (0, 0, 0, missing)) if missing else feature_tF)
        return torch.cat(rows)

    def hidden(
        self,
        x_BTD: Tensor,
        *,
        position_ids_BT: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
        want_text: bool = True,
        want_audio: bool = True,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Run the layers over input vectors.

        Args:
            x_BTD: from `embed`.
            position_ids_BT: int64 (B or 1, T); None counts on from the cache's length.
            attention_mask: bool, broadcastable to (B, heads, T, cached + T), True attends; None is causal and needs an
                empty cache or T = 1.
            cache: extended by T positions.
            want_text: False skips the trunk above the fork. No later position of this cache may want text.
            want_audio: False skips the audio branch.

        Returns:
            Normed states of the text branch and of the audio branch (or None), each (B, T, D), ready for the heads.
        """
        config, model = self.config, self.model
        start = cache.length if cache is not None else 0
        steps = x_BTD.shape[1]
        assert attention_mask is not None or start == 0 or steps == 1, "several positions after a cache need a mask"
        if position_ids_BT is None:
            position_ids_BT = torch.arange(start, start + steps, device=x_BTD.device)[None]
        rest = (rotary_tables(position_ids_BT, config, x_BTD.dtype), attention_mask, cache)
        trunk, speaks = range(config.num_hidden_layers), want_audio and config.kimia_mimo_layers > 0
        if speaks or not want_text:
            shared, trunk = trunk[: model.fork + 1], trunk[model.fork + 1 :]
            x_BTD = self.run(shared, x_BTD, *rest)
        text_BTD = audio_BTD = None
        if want_text:
            text_BTD = model.norm(self.run(trunk, x_BTD, *rest))
        if speaks:
            audio_BTD = model.mimo_norm(self.run(range(config.num_hidden_layers, len(self.layers)), x_BTD, *rest))
        if cache is not None:
            cache.advance(steps)
        return text_BTD, audio_BTD

    def run(
        self, layers: range, x_BTD: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """Some of the layers, one after the other. What runs them faster may take this method's place."""
        for index in layers:
            x_BTD = self.layers[index](x_BTD, tables, mask, cache, index)
        return x_BTD

    def forward(
        self,
        audio_ids_BT: Tensor,
        text_ids_BT: Tensor,
        *,
        continuous_mask_BT: Tensor | None = None,
        features: list[Tensor] | None = None,
        position_ids_BT: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
        last_only: bool = False,
        want_text: bool = True,
        want_audio: bool = True,
    ) -> LLMOutput:
        """Logits of both streams; arguments as in `embed` and `hidden`. `last_only`: those of the last position."""
        x_BTD = self.embed(audio_ids_BT, text_ids_BT, continuous_mask_BT, features)
        text_BTD, audio_BTD = self.hidden(x_BTD, position_ids_BT=position_ids_BT, attention_mask=attention_mask,
                                          cache=cache, want_text=want_text, want_audio=want_audio)  # fmt: skip
        chosen = slice(-1 if last_only else 0, None)
        return LLMOutput(
            self.lm_head(text_BTD[:, chosen]) if text_BTD is not None else None,
            self.audio_logits(audio_BTD[:, chosen]) if audio_BTD is not None else None,
        )

    def audio_logits(self, audio_BTD: Tensor) -> Tensor:
        """Logits (B, T, vocab_size) of the audio stream; minus infinity for ids that its head cannot write."""
        return F.pad(self.mimo_output(audio_BTD), (self.config.kimia_mimo_output_first, 0), value=-math.inf)
