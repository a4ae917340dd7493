"""Recipes of the objectives that train the detokenizer: `flow` and `vocoder` (report §4.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kimi_audio.checkpoint.layout import ModelParts, load_parts, save_parts
from kimi_audio.checkpoint.speaking import load_vocoder
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.detokenizer.flow import FlowConfig, FlowTransformer
from kimi_audio.detokenizer.streaming import Detokenizer
from kimi_audio.detokenizer.vocoder import BigVGAN, VocoderConfig
from kimi_audio.errors import ConfigError
from kimi_audio.tokenizer.semantic import SemanticTokenizer
from kimi_audio.training.discriminators import COUNT
from kimi_audio.training.objectives.flow import FlowObjective
from kimi_audio.training.objectives.vocoder import VocoderObjective
from kimi_audio.training.recipes.ears import Listening, codes_of
from kimi_audio.training.trainer import TrainConfig

MEL_MEAN, MEL_STD = -4.479605, 3.4584913
"""Of the official mels."""

NEIGHBOURS = 4
"""Codes that may stand in for one."""


@dataclass(frozen=True)
class FreshDetokenizer:
    """Sizes of a detokenizer that starts from nothing; the defaults are those of the small model.

    Attributes:
        hidden_size, depth, num_heads: of the flow; officially 2304, 16, 18.
        channels: of the vocoder's first layer; officially 2048.
        upsample_rates: of the vocoder; their product, with `istft_hop` if that is set, is 480.
        kernels, dilations: of its residual blocks; officially 3, 5, 7, 11 and 1, 3, 5.
        vocoder: folder of a trained one, to take instead.
    """

    hidden_size: int = 320
    depth: int = 8
    num_heads: int = 5
    channels: int = 128
    upsample_rates: tuple[int, ...] = (8, 5, 4, 3)
    kernels: tuple[int, ...] = (3, 7)
    dilations: tuple[int, ...] = (1, 3)
    istft_hop: int = 0
    vocoder: Path | None = None

    def build(self, semantic: SemanticTokenizer) -> Detokenizer:
        """A detokenizer for a tokenizer's codes; random but for their vectors, and for a vocoder that is given."""
        codes = semantic.config.quantize_vocab_size
        flow = FlowTransformer(
            FlowConfig(80, codes, self.hidden_size, self.depth, self.num_heads, mel_mean=MEL_MEAN, mel_std=MEL_STD)
        )
        flow.semantic_token_embedding.weight.data[:codes] = semantic.code_vectors(self.hidden_size)
        if self.vocoder is not None:
            return Detokenizer(flow, load_vocoder(self.vocoder))
        vocoder = VocoderConfig(
            upsample_rates=self.upsample_rates,
            upsample_kernel_sizes=tuple(2 * rate if rate % 2 == 0 else 2 * rate - 1 for rate in self.upsample_rates),
            upsample_initial_channel=self.channels,
            resblock_kernel_sizes=self.kernels,
            resblock_dilation_sizes=(self.dilations,) * len(self.kernels),
            use_tanh_at_final=False,
            use_bias_at_final=self.istft_hop > 0,
            istft_hop=self.istft_hop,
        )
        return Detokenizer(flow, BigVGAN(vocoder))


@dataclass(frozen=True, kw_only=True)
class DetokenizerRecipe:
    """What `flow` and `vocoder` have in common.

    Attributes:
        model: folder in the official layout; its detokenizer goes on learning.
        fresh: sizes of a new one, for a model that has none.
        recordings: manifests, decoded once into `cache`. One speaker's are the report's third stage.
        dev: manifest for the metric on unseen recordings.
        rates: parameter-name prefix → learning-rate scale; 0 freezes.
    """

    model: Path
    run: Path
    recordings: list[Path]
    cache: Path
    train: TrainConfig
    dev: Path | None = None
    fresh: FreshDetokenizer | None = None
    rates: dict[str, float] = field(default_factory=dict)

    def load(self) -> tuple[ModelParts, Detokenizer]:
        """The model with a detokenizer, new or its own."""
        parts = load_parts(self.model)
        if (parts.detokenizer is None) == (self.fresh is None):
            has = "has a detokenizer; leave out fresh" if self.fresh else "has no detokenizer; set fresh for a new one"
            raise ConfigError(f"{self.model}: the model {has}.")
        if self.fresh is not None:
            parts.detokenizer = self.fresh.build(parts.semantic)
        assert parts.detokenizer is not None
        return parts, parts.detokenizer

    def store(self, manifests: list[Path], rate: int) -> WaveformStore:
        """Decoded recordings, kept in a folder of the cache that bears their names and rate."""
        name = "+".join(path.stem for path in manifests)
        return WaveformStore.build(manifests, self.cache / f"waveforms-{rate}" / name, rate)


@dataclass(frozen=True, kw_only=True)
class FlowRecipe(DetokenizerRecipe):
    """`objective: flow`: codes to mels.

    A row of a manifest may have `codes` of another voice that says the same, and `times` (see `FlowObjective`).

    Attributes:
        chunk_seconds: shortest and longest chunk of the chunk-causal stage; none for whole utterances.
        drop_codes: share of utterances without condition, for guidance.
        blur_codes: share of codes that one of their nearest neighbours in the codebook replaces.
    """

    chunk_seconds: tuple[float, float] | None = None
    drop_codes: float = 0.1
    blur_codes: float = 0.0
    batch_seconds: float = 60.0
    longest_seconds: float = 12.0

    def build(self) -> FlowObjective:
        parts, detokenizer = self.load()
        rate = detokenizer.sample_rate
        store = self.store(self.recordings, rate)
        dev = self.store([self.dev], rate) if self.dev else None
        audios = [row["audio"] for row in [*store.rows, *(dev.rows if dev else [])] if "codes" not in row]
        heard = codes_of(audios, self.model, parts, self.cache, Listening.of(self.train))

        def codes(row: dict[str, Any]) -> list[int]:
            return row["codes"] if "codes" in row else list(heard.heard(row["audio"]).codes)

        return FlowObjective(
            detokenizer.flow,
            detokenizer.vocoder.config,
            store,
            codes,
            dev=dev,
            export=lambda folder: save_parts(folder, parts),
            chunk_seconds=self.chunk_seconds,
            drop_codes=self.drop_codes,
            neighbours_CK=parts.semantic.neighbours(NEIGHBOURS) if self.blur_codes else None,
            blur_codes=self.blur_codes,
            rates=self.rates,
            batch_seconds=self.batch_seconds,
            longest_seconds=self.longest_seconds,
            seed=self.train.seed,
        )


@dataclass(frozen=True, kw_only=True)
class VocoderRecipe(DetokenizerRecipe):
    """`objective: vocoder`: mels to samples, against discriminators; see `VocoderObjective`."""

    discriminator_channels: int = 32
    adversary_after: int = 0
    judges: int = COUNT
    segment_frames: int = 32
    batch: int = 16

    def build(self) -> VocoderObjective:
        parts, detokenizer = self.load()
        rate = detokenizer.sample_rate
        return VocoderObjective(
            detokenizer.vocoder,
            self.store(self.recordings, rate),
            dev=self.store([self.dev], rate) if self.dev else None,
            export=lambda folder: save_parts(folder, parts),
            discriminator_channels=self.discriminator_channels,
            adversary_after=self.adversary_after,
            judges=self.judges,
            segment_frames=self.segment_frames,
            batch=self.batch,
            rates=self.rates,
            seed=self.train.seed,
        )
