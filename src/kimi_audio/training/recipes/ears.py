"""How recipes listen: recordings through the model's encoders, cached or, for an encoder in training, live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kimi_audio.audio.decode import load_audio
from kimi_audio.audio.log_mel import SAMPLE_RATE
from kimi_audio.checkpoint.layout import SEMANTIC_FOLDER, ModelParts
from kimi_audio.data.augment import AugmentConfig, Augmenter, rng_of
from kimi_audio.data.cache import CLEAN, HeardCache, fill, listener_hash, split_key, variant_key
from kimi_audio.data.manifest import read_recordings
from kimi_audio.prompt import Heard
from kimi_audio.tokenizer.acoustic import SEGMENT_SAMPLES, AcousticEncoder, by_length
from kimi_audio.training.prefetch import settle_worker
from kimi_audio.training.trainer import TrainConfig

SECONDS_TOGETHER, SECONDS_TOGETHER_CPU = 480, 24
"""Of a batch of clips, padding included: more does not pay."""
MULTIPLE = 64
"""Batches are padded to a multiple of so many frames: a CPU prepares its kernels anew for every size."""


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


@dataclass(frozen=True)
class Listening:
    """How to listen.

    Attributes:
        bfloat16: compute the acoustic features in that dtype, which is quicker where it is built in.
        workers: processes that decode and augment; 0 decodes between listening.
    """

    device: str = "cpu"
    bfloat16: bool = False
    workers: int = 0
    seed: int = 0

    @classmethod
    def of(cls, train: TrainConfig) -> Listening:
        return cls(train.device, train.autocast_bf16, train.workers, train.seed)


class CachedEars:
    """The model's encoders at rest: recordings and their variants are heard once, many together, and cached."""

    def __init__(
        self, model: Path, parts: ModelParts, cache: Path, augment: AugmentRecipe | None, how: Listening
    ) -> None:
        self.how = how
        self.semantic = deepcopy(parts.semantic).to(how.device)
        self.acoustic = None
        if parts.acoustic is not None:
            self.acoustic = deepcopy(parts.acoustic).to(how.device, torch.bfloat16 if how.bfloat16 else None)
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
        self._fill(self.cache, [variant_key(audio, n) for audio in dict.fromkeys(audios) for n in variants])

    def learn_to_say(self, audios: Sequence[str]) -> None:
        """Put the codes of recordings into the cache of what is to be spoken: clean, and without acoustic features."""
        self._fill(self.answers, list(dict.fromkeys(audios)))

    def _fill(self, cache: HeardCache, keys: Sequence[str]) -> None:
        new = [key for key in keys if key not in cache]
        loader = DataLoader(
            _Sounds(new, self._samples), batch_size=None, num_workers=self.how.workers,
            multiprocessing_context="fork" if self.how.workers else None, worker_init_fn=settle_worker,
        )  # fmt: skip
        sounds = track(loader, "listening", total=len(new), console=Console(stderr=True), disable=not new)
        fill(cache, zip(new, sounds, strict=True), lambda part: self._listen(part, cache is self.cache))

    def _samples(self, key: str) -> np.ndarray:
        audio, variant = split_key(key)
        samples = load_audio(audio)
        return self.augmenter(samples, rng_of(self.how.seed, audio, variant)) if self.augmenter and variant else samples

    def _listen(self, sounds: Sequence[np.ndarray | Tensor], with_features: bool) -> list[Heard]:
        """Codes and, on request, features of several recordings, in batches of similar length."""
        wholes = [torch.as_tensor(sound, dtype=torch.float32).to(self.how.device) for sound in sounds]
        parts = [whole_L.split(SEGMENT_SAMPLES) for whole_L in wholes]
        clips, acoustic = [clip for split in parts for clip in split], self.acoustic if with_features else None
        seconds = SECONDS_TOGETHER_CPU if self.semantic.codebook.weight.device.type == "cpu" else SECONDS_TOGETHER
        codes: dict[int, Tensor] = {}
        features: dict[int, Tensor] = {}
        for batch in by_length([len(clip) for clip in clips], seconds * SAMPLE_RATE):
            together = [clips[n] for n in batch]
            codes |= zip(batch, self.semantic.encode_clips(together, MULTIPLE), strict=True)
            if acoustic is not None:
                features |= zip(batch, acoustic.encode_clips(together, MULTIPLE), strict=True)
        heard, number = [], count()
        for split in parts:
            own = [next(number) for _ in split]
            said = torch.cat([codes[n] for n in own]).tolist()
            heard.append(Heard(said, torch.cat([features[n] for n in own])[None] if features else None))
        return heard


@dataclass(frozen=True)
class _Sounds(Dataset):
    """Decoded recordings, for a loader to decode in other processes."""

    keys: Sequence[str]
    load: Callable[[str], np.ndarray]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Tensor:
        return torch.from_numpy(self.load(self.keys[number]))


def _cache_name(model: Path, acoustic: AcousticEncoder | None) -> str:
    """Folder name that tells all that decides what is heard: weights, dtype, and how much of a clip is encoded."""
    if acoustic is None:
        return f"codes-{listener_hash(model, [SEMANTIC_FOLDER])}"
    dtype = str(acoustic.encoder.dtype).removeprefix("torch.")
    extent = f"clip{acoustic.spare_frames}" if acoustic.clip_silence else "pad"
    return f"{listener_hash(model)}-{dtype}-{extent}"


def codes_of(
    audios: Sequence[str], model: Path, parts: ModelParts, cache: Path, how: Listening = Listening()
) -> HeardCache:
    """The semantic codes of recordings, cached; for what only speaks, and needs no acoustic features."""
    ears = CachedEars(model, replace(parts, acoustic=None), cache, None, how)
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
