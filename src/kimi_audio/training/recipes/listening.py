"""Recipes of the objectives that train the listening parts: `semantic_tokenizer`, `adaptor` and `phonemes`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kimi_audio.checkpoint.layout import load_parts, save_parts
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.errors import ConfigError
from kimi_audio.tokenizer.semantic import SemanticTokenizer
from kimi_audio.training.code_readers import CodeReader, DecoderReader, LetterReader
from kimi_audio.training.objectives.adaptor import AdaptorObjective
from kimi_audio.training.objectives.phonemes import PhonemesObjective
from kimi_audio.training.objectives.semantic_tokenizer import SemanticTokenizerObjective, TokenizerTraining
from kimi_audio.training.recipes.ears import AugmentRecipe, CachedEars, Listening
from kimi_audio.training.trainer import TrainConfig


@dataclass(frozen=True, kw_only=True)
class SemanticTokenizerRecipe:
    """`objective: semantic_tokenizer`: the codebook, and the layers below it.

    Attributes:
        recordings: manifests with `text`; decoded once into `cache`.
        dev: name → manifest of transcribed recordings.
        fresh_codebook: place the codes anew on the data; false goes on with a trained codebook.
        open_updates: so many updates at the start do not quantise yet, see `TokenizerTraining`.
        reader: what must be legible in the codes: `letters` and log-mel, or, as in the report, the transcript for the
            `decoder` of a Whisper.
        whisper: Hugging Face Whisper folder (with `tokenizer.json`) that lends its upper layers and decoder.
    """

    model: Path
    run: Path
    recordings: list[Path]
    cache: Path
    train: TrainConfig
    dev: dict[str, Path] = field(default_factory=dict)
    augment: AugmentRecipe | None = None
    fresh_codebook: bool = True
    open_updates: int = 0
    batch_seconds: float = 60.0
    reader: Literal["letters", "decoder"] = "letters"
    whisper: Path | None = None

    def __post_init__(self) -> None:
        if (self.reader == "decoder") != (self.whisper is not None):
            raise ConfigError("reader: decoder and the folder whisper belong together; set both or neither.")

    def build(self) -> SemanticTokenizerObjective:
        parts = load_parts(self.model)
        model = TokenizerTraining(parts.semantic, self._reader(parts.semantic))
        model.open_updates = self.open_updates
        return SemanticTokenizerObjective(
            model,
            _store(self.recordings, self.cache),
            dev={name: _store([path], self.cache) for name, path in self.dev.items()},
            export=lambda folder: save_parts(folder, parts),
            augment=self.augment.augmenter() if self.augment else None,
            fresh_codebook=self.fresh_codebook,
            batch_seconds=self.batch_seconds,
            seed=self.train.seed,
        )


    def _reader(self, tokenizer: SemanticTokenizer) -> CodeReader:
        if self.whisper is not None:
            return DecoderReader(tokenizer, self.whisper)
        return LetterReader(tokenizer.config.d_model, tokenizer.config.num_mel_bins)


@dataclass(frozen=True, kw_only=True)
class AdaptorRecipe:
    """`objective: adaptor`: encoder and adaptor, by CTC into the language model's embedding space.

    Attributes:
        recordings: manifests with `text`, `label` or both, decoded once into `cache`; one named twice counts double.
        dev: name → manifest for word error rates and accuracies.
        augment: for an encoder that is trained along.
        rates: parameter-name prefix (`encoder`, `adaptor`) → learning-rate scale; 0 freezes. With `encoder: 0` it hears
            every recording once, clean, and the features are cached.
        frozen_until: prefix → fraction of the run after which those parameters start to learn.
        mask_features: share of the features that are hidden.
    """

    model: Path
    run: Path
    recordings: list[Path]
    cache: Path
    train: TrainConfig
    dev: dict[str, Path] = field(default_factory=dict)
    augment: AugmentRecipe | None = None
    rates: dict[str, float] = field(default_factory=dict)
    frozen_until: dict[str, float] = field(default_factory=dict)
    mask_features: float = 0.1
    batch_seconds: float = 60.0

    def build(self) -> AdaptorObjective:
        parts, store, heard = load_parts(self.model), _store(self.recordings, self.cache), None
        if self.rates.get("encoder") == 0:
            if self.augment:
                raise ConfigError("augment is for an encoder in training; with `encoder: 0` sounds are heard clean.")
            ears = CachedEars(self.model, parts, self.cache, None, Listening.of(self.train))
            ears.hear([row["audio"] for row in store.rows])
            heard = ears.heard
        return AdaptorObjective(
            parts,
            store,
            heard=heard,
            dev={name: _store([path], self.cache) for name, path in self.dev.items()},
            augment=self.augment.augmenter() if self.augment else None,
            rates=self.rates,
            frozen_until=self.frozen_until,
            batch_seconds=self.batch_seconds,
            mask_features=self.mask_features,
            seed=self.train.seed,
        )


@dataclass(frozen=True, kw_only=True)
class PhonemesRecipe:
    """`objective: phonemes`: a head that reads phonemes off the acoustic encoder, for joint decoding.

    Attributes:
        recordings: manifests with `text`, decoded once into `cache`, where what the encoder hears is kept, too.
        dev: name → manifest for phoneme error rates.
        hidden, kernel, layers: of the head (`PhonemeConfig`); dropout: in it.
        augment: noisy variants of the recordings to hear, too.
        mask_features: share of the features that are hidden.
    """

    model: Path
    run: Path
    recordings: list[Path]
    cache: Path
    train: TrainConfig
    dev: dict[str, Path] = field(default_factory=dict)
    hidden: int = 384
    kernel: int = 5
    layers: int = 2
    dropout: float = 0.15
    augment: AugmentRecipe | None = None
    mask_features: float = 0.1
    batch_seconds: float = 80.0

    def build(self) -> PhonemesObjective:
        parts, store = load_parts(self.model), _store(self.recordings, self.cache)
        dev = {name: _store([path], self.cache) for name, path in self.dev.items()}
        ears = CachedEars(self.model, parts, self.cache, self.augment, Listening.of(self.train))
        ears.hear([row["audio"] for row in store.rows], ears.variants)
        ears.hear([row["audio"] for recordings in dev.values() for row in recordings.rows])
        return PhonemesObjective(
            parts,
            store,
            heard=ears.cache,
            variants=ears.variants,
            dev=dev,
            hidden=self.hidden,
            kernel=self.kernel,
            layers=self.layers,
            dropout=self.dropout,
            batch_seconds=self.batch_seconds,
            mask_features=self.mask_features,
            seed=self.train.seed,
        )


def _store(manifests: list[Path], cache: Path) -> WaveformStore:
    """The decoded recordings of manifests, kept in a folder of `cache` that bears their names."""
    return WaveformStore.build(manifests, cache / "waveforms" / "+".join(path.stem for path in manifests))
