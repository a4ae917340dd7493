"""Recipes of the objectives that train an encoder: `semantic_tokenizer` and `front_end`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kimi_audio.checkpoint.layout import load_parts, save_parts
from kimi_audio.data.manifest import read_recordings
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.training.objectives.front_end import FrontEndObjective
from kimi_audio.training.objectives.semantic_tokenizer import SemanticTokenizerObjective, TokenizerTraining
from kimi_audio.training.recipes.language import AugmentRecipe
from kimi_audio.training.trainer import TrainConfig
from kimi_audio.training.whisper_decoder import WhisperText


@dataclass(frozen=True)
class SemanticTokenizerRecipe:
    """`objective: semantic_tokenizer`: the codebook, by recognition.

    Attributes:
        whisper: Hugging Face Whisper folder (with `tokenizer.json`) that lends its upper layers and decoder.
        recordings: manifests with `text`; decoded once into `cache`.
        fresh_codebook: place the codes anew on the data; false goes on with a trained codebook.
    """

    model: Path
    whisper: Path
    run: Path
    recordings: list[Path]
    cache: Path
    train: TrainConfig
    dev: Path | None = None
    augment: AugmentRecipe | None = None
    fresh_codebook: bool = True
    batch_seconds: float = 60.0

    def build(self) -> SemanticTokenizerObjective:
        parts = load_parts(self.model)
        model = TokenizerTraining.from_whisper(parts.semantic, self.whisper)
        return SemanticTokenizerObjective(
            model,
            WhisperText(self.whisper),
            _store(self.recordings, self.cache),
            dev=_store([self.dev], self.cache) if self.dev else None,
            export=partial(save_parts, parts=parts),
            augment=self.augment.augmenter() if self.augment else None,
            fresh_codebook=self.fresh_codebook,
            batch_seconds=self.batch_seconds,
            seed=self.train.seed,
        )


@dataclass(frozen=True)
class FrontEndRecipe:
    """`objective: front_end`: acoustic encoder and adaptor, by CTC into the language model's embedding space.

    Attributes:
        recordings: manifests with `text`, `label` or both; decoded once into `cache`.
        dev: name → manifest for word error rates.
        encoder_scale: the pretrained encoder's learning rate, as a share of the adaptor's.
    """

    model: Path
    run: Path
    recordings: list[Path]
    cache: Path
    train: TrainConfig
    dev: dict[str, Path] = field(default_factory=dict)
    augment: AugmentRecipe | None = None
    encoder_scale: float = 0.1
    batch_seconds: float = 60.0

    def build(self) -> FrontEndObjective:
        return FrontEndObjective(
            self.model,
            [(_store([path], self.cache), 1) for path in self.recordings],
            {name: _store([path], self.cache) for name, path in self.dev.items()},
            batch_seconds=self.batch_seconds,
            seed=self.train.seed,
            augment=self.augment.augmenter() if self.augment else None,
            encoder_scale=self.encoder_scale,
        )


def _store(manifests: list[Path], cache: Path) -> WaveformStore:
    """The decoded recordings of manifests, kept in a folder of `cache` that bears their names."""
    for manifest in manifests:
        read_recordings(manifest)  # complains, with line and field, about what it cannot use
    return WaveformStore.build(manifests, cache / "waveforms" / "+".join(path.stem for path in manifests))
