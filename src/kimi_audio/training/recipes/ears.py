"""How recipes listen: recordings through the model's encoders, cached or, for an encoder in training, live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.layout import SEMANTIC_FOLDER, ModelParts
from kimi_audio.data.augment import AugmentConfig, Augmenter, rng_of
from kimi_audio.data.cache import CLEAN, HeardCache, fill, listener_hash, split_key, variant_key
from kimi_audio.data.manifest import read_recordings
from kimi_audio.prompt import Heard
from kimi_audio.tokenizer.acoustic import AcousticEncoder


@dataclass(frozen=True)
class AugmentRecipe:
    """Variants of every recording to listen to. Noises and rooms come from manifests.

    Attributes:
        clean: listen to the recording itself, too. Without, cached features are as varied at half the work, and an
            encoder that knows the clean recordings by heart does not make them too easy.
    """

    variants: int = 1
    clean: bool = True
    noises: Path | None = None
    rooms: Path | None = None
    settings: AugmentConfig = field(default_factory=AugmentConfig)

    def augmenter(self) -> Augmenter:
        sounds = [[load_audio(row["audio"]) for row in read_recordings(path)] if path else []
                  for path in (self.noises, self.rooms)]  # fmt: skip
        return Augmenter(self.settings, *sounds)


class CachedEars:
    """The model's encoders at rest: recordings and their variants are heard once and cached.

    `bfloat16` computes the acoustic features in that dtype, which is quicker where a CPU has it.
    """

    def __init__(
        self,
        model: Path,
        parts: ModelParts,
        cache: Path,
        augment: AugmentRecipe | None,
        seed: int,
        bfloat16: bool = False,
    ) -> None:
        self.semantic, self.acoustic, self.seed = parts.semantic, parts.acoustic, seed
        if bfloat16 and parts.acoustic is not None:
            self.acoustic = deepcopy(parts.acoustic).bfloat16()
        self.cache = HeardCache(cache / _cache_name(model, self.acoustic))
        self.answers = HeardCache(cache / _cache_name(model, None)) if self.acoustic is not None else self.cache
        self.augmenter = augment.augmenter() if augment else None
        self.variants = range(0 if augment.clean else 1, 1 + augment.variants) if augment else CLEAN

    def heard(self, key: str) -> Heard:
        return self.cache.heard(key)

    def said(self, audio: str) -> Heard:
        return self.answers.heard(audio)

    def longest(self, audio: str) -> int:
        """Positions that a recording fills, in the slowest of its variants or as it is said."""
        heard = (self.cache.length(variant_key(audio, number)) for number in self.variants)
        return max(self.answers.length(audio), *heard)

    def hear(self, audios: Sequence[str], variants: range = CLEAN) -> None:
        """Put these variants of recordings into the cache."""
        keys = [variant_key(audio, n) for audio in dict.fromkeys(audios) for n in variants]
        self._fill(self.cache, keys, self._listen)

    def learn_to_say(self, audios: Sequence[str]) -> None:
        """Put the codes of recordings into the cache of what is to be spoken: clean, and without acoustic features."""
        self._fill(self.answers, list(dict.fromkeys(audios)), lambda samples: Heard(self._codes(samples)))

    def _fill(self, cache: HeardCache, keys: Sequence[str], listen: Callable[[np.ndarray], Heard]) -> None:
        sounds = [(key, partial(self._samples, key)) for key in keys if key not in cache]
        progress = track(sounds, "listening", console=Console(stderr=True), disable=not sounds)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # short clips: a thread each beats several threads for one
        try:
            fill(cache, progress, listen, workers=threads)
        finally:
            torch.set_num_threads(threads)

    def _samples(self, key: str) -> np.ndarray:
        audio, variant = split_key(key)
        samples = load_audio(audio)
        return self.augmenter(samples, rng_of(self.seed, audio, variant)) if self.augmenter and variant else samples

    def _listen(self, samples: np.ndarray) -> Heard:
        return Heard(self._codes(samples), self.acoustic(samples) if self.acoustic is not None else None)

    def _codes(self, samples: np.ndarray) -> list[int]:
        return self.semantic.encode([samples])[0].tolist()


def _cache_name(model: Path, acoustic: AcousticEncoder | None) -> str:
    """Folder name that tells all that decides what is heard: weights, dtype, and how much of a clip is encoded."""
    if acoustic is None:
        return f"codes-{listener_hash(model, [SEMANTIC_FOLDER])}"
    dtype = str(acoustic.encoder.dtype).removeprefix("torch.")
    extent = f"clip{acoustic.spare_frames}" if acoustic.clip_silence else "pad"
    return f"{listener_hash(model)}-{dtype}-{extent}"


def codes_of(audios: Sequence[str], model: Path, parts: ModelParts, cache: Path) -> HeardCache:
    """The semantic codes of recordings, cached; for what only speaks, and needs no acoustic features."""
    ears = CachedEars(model, replace(parts, acoustic=None), cache, None, 0)
    ears.learn_to_say(audios)
    return ears.answers


class LiveEars(CachedEars):
    """For an encoder that is trained along: samples instead of features, augmented anew each time; codes are cached.

    The codes are those of the clean recording, so augmentation must keep its length: it is cut, or filled with silence.
    """

    def __init__(self, model: Path, parts: ModelParts, *settings: Any) -> None:
        super().__init__(model, replace(parts, acoustic=None), *settings)
        self.variants = range(2**31 - 1) if self.augmenter else CLEAN

    def heard(self, key: str) -> Heard:
        audio, _ = split_key(key)
        clean, samples = load_audio(audio), self._samples(key)
        samples = np.pad(samples[: len(clean)], (0, max(0, len(clean) - len(samples))))
        return Heard(self.cache.heard(audio).codes, torch.from_numpy(samples))

    def longest(self, audio: str) -> int:
        return self.cache.length(audio)

    def hear(self, audios: Sequence[str], variants: range = CLEAN) -> None:
        super().hear(audios)
