"""Recipes of the objectives that train the listening parts: `semantic_tokenizer`, `adaptor`, `phonemes`, `acoustic`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kimi_audio.checkpoint.layout import ModelParts, load_parts, save_parts
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.errors import ConfigError
from kimi_audio.llm.model import Adaptor
from kimi_audio.tokenizer.semantic import SemanticTokenizer
from kimi_audio.training.code_readers import CodeReader, DecoderReader, LetterReader
from kimi_audio.training.objectives.acoustic import AcousticObjective
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
        like: a model whose adaptor gives, of what its own encoder hears, the outputs to learn, instead of the words.
            The language model, which knows those, can stay as it is. With `encoder: 0`.
        frozen_until: prefix → fraction of the run after which those parameters start to learn.
        mask_features: share of the features that are hidden.
    """

    model: Path
    run: Path
    recordings: list[Path]
    cache: Path
    train: TrainConfig
    dev: dict[str, Path] = field(default_factory=dict)
    like: Path | None = None
    augment: AugmentRecipe | None = None
    rates: dict[str, float] = field(default_factory=dict)
    frozen_until: dict[str, float] = field(default_factory=dict)
    mask_features: float = 0.1
    batch_seconds: float = 60.0

    def build(self) -> AdaptorObjective:
        parts, store, heard, like = load_parts(self.model), _store(self.recordings, self.cache), None, None
        if self.rates.get("encoder") == 0:
            if self.augment:
                raise ConfigError("augment is for an encoder in training; with `encoder: 0` sounds are heard clean.")
            heard = self._ears(self.model, parts, store).heard
        elif self.like:
            raise ConfigError("like is for an encoder that is not trained: set rates: {encoder: 0}.")
        if self.like:
            other = load_parts(self.like)
            like = partial(_outputs, other.llm.model.vq_adaptor, self._ears(self.like, other, store))
        return AdaptorObjective(
            parts,
            store,
            heard=heard,
            like=like,
            dev={name: _store([path], self.cache) for name, path in self.dev.items()},
            augment=self.augment.augmenter() if self.augment else None,
            rates=self.rates,
            frozen_until=self.frozen_until,
            batch_seconds=self.batch_seconds,
            mask_features=self.mask_features,
            seed=self.train.seed,
        )

    def _ears(self, model: Path, parts: ModelParts, store: WaveformStore) -> CachedEars:
        """Those of a model, which have heard all recordings."""
        ears = CachedEars(model, parts, self.cache, None, Listening.of(self.train))
        ears.hear([row["audio"] for row in store.rows])
        return ears


@torch.inference_mode()
def _outputs(adaptor: Adaptor, ears: CachedEars, audio: str) -> Tensor:
    """What an adaptor gives for a recording (T, D)."""
    features_1TF = ears.heard(audio).features
    assert features_1TF is not None, "a model with an adaptor has an acoustic encoder"
    return adaptor(features_1TF[0].float())


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


@dataclass(frozen=True, kw_only=True)
class AcousticRecipe:
    """`objective: acoustic`: the acoustic encoder with its head for phonemes, in noise; the adaptor's outputs stay.

    Attributes:
        recordings: manifests with `text` (empty where nobody speaks), decoded once into `cache`; one named twice counts
            double.
        dev: name → manifest for phoneme error rates.
        augment: noises, rooms and settings; variants are drawn anew each time.
        rates: parameter-name prefix (`encoder`, `reader`) → learning-rate scale.
    """

    model: Path
    run: Path
    recordings: list[Path]
    cache: Path
    train: TrainConfig
    augment: AugmentRecipe
    dev: dict[str, Path] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    batch_seconds: float = 60.0

    def build(self) -> AcousticObjective:
        return AcousticObjective(
            load_parts(self.model),
            _store(self.recordings, self.cache),
            dev={name: _store([path], self.cache) for name, path in self.dev.items()},
            augment=self.augment.augmenter(),
            rates=self.rates,
            batch_seconds=self.batch_seconds,
            seed=self.train.seed,
        )


def _store(manifests: list[Path], cache: Path) -> WaveformStore:
    """The decoded recordings of manifests, kept in a folder of `cache` that bears their names."""
    return WaveformStore.build(manifests, cache / "waveforms" / "+".join(path.stem for path in manifests))
