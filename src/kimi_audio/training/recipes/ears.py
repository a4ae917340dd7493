"""How recipes listen: recordings through the model's encoders, cached or, for an encoder in training, live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.layout import SEMANTIC_FOLDER, ModelParts
from kimi_audio.data.augment import AugmentConfig, Augmenter, rng_of
from kimi_audio.data.cache import CLEAN, HeardCache, fill, listener_hash, split_key, variant_key
from kimi_audio.data.manifest import read_recordings
from kimi_audio.errors import AudioError
from kimi_audio.prompt import Heard
from kimi_audio.tokenizer.acoustic import SEGMENT_SAMPLES, AcousticEncoder, by_length, num_tokens
from kimi_audio.tokenizer.semantic import SemanticTokenizer
from kimi_audio.training.prefetch import settle_worker
from kimi_audio.training.trainer import TrainConfig

TOKENS_PER_SECOND = 12.5
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
        acoustic = self.acoustic if cache is self.cache else None
        loader = DataLoader(
            _Segments(new, self._samples, self.semantic, acoustic), batch_size=None, num_workers=self.how.workers,
            prefetch_factor=16 if self.how.workers else None, worker_init_fn=settle_worker,
            multiprocessing_context="fork" if self.how.workers else None,
        )  # fmt: skip
        sounds = track(loader, "listening", total=len(new), console=Console(stderr=True), disable=not new)
        read = (_or_raise(sound) for sound in sounds)
        fill(cache, zip(new, read, strict=True), lambda part: listen_together(part, self.semantic, acoustic))

    def _samples(self, key: str) -> np.ndarray:
        audio, variant = split_key(key)
        samples = load_audio(audio)
        return self.augmenter(samples, rng_of(self.how.seed, audio, variant)) if self.augmenter and variant else samples


def _or_raise(sound: list[Segment] | AudioError) -> list[Segment]:
    """What a worker process read. Its error travels as a value: raised there, it comes with that process' traceback."""
    if isinstance(sound, AudioError):
        raise sound
    return sound


class Segment(NamedTuple):
    """At most 30 s of a recording, as the encoders want it: log-mels, and the number of 12.5 Hz positions."""

    semantic: tuple[Tensor, Tensor]
    acoustic: Tensor | None
    tokens: int


@dataclass(frozen=True)
class _Segments(Dataset):
    """Recordings as segments; other processes decode them and make their log-mels."""

    keys: Sequence[str]
    load: Callable[[str], np.ndarray]
    semantic: SemanticTokenizer
    acoustic: AcousticEncoder | None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> list[Segment] | AudioError:
        try:
            segments = torch.from_numpy(self.load(self.keys[number])).split(SEGMENT_SAMPLES)
        except AudioError as error:
            return error
        heard = self.acoustic.log_mel if self.acoustic is not None else lambda _: None
        return [Segment(self.semantic.log_mel(part), heard(part), num_tokens(len(part))) for part in segments]


@torch.inference_mode()
def listen_together(
    sounds: Sequence[Sequence[Segment]], semantic: SemanticTokenizer, acoustic: AcousticEncoder | None
) -> list[Heard]:
    """Codes and, with an acoustic encoder, float16 features of recordings, in batches of similar length."""
    segments = [segment for sound in sounds for segment in sound]
    seconds = SECONDS_TOGETHER_CPU if semantic.codebook.weight.device.type == "cpu" else SECONDS_TOGETHER
    codes: dict[int, Tensor] = {}
    features: dict[int, Tensor] = {}
    for batch in by_length([segment.tokens for segment in segments], int(seconds * TOKENS_PER_SECOND)):
        codes |= zip(batch, semantic.encode_together([segments[n].semantic for n in batch], MULTIPLE), strict=True)
        if acoustic is not None:
            tokens, log_mels = [segments[n].tokens for n in batch], [segments[n].acoustic for n in batch]
            heard = acoustic.encode([log_mel for log_mel in log_mels if log_mel is not None], tokens, MULTIPLE)
            features |= zip(batch, torch.cat(heard).half().cpu().split(tokens), strict=True)
    answers, numbers = [], count()
    for sound in sounds:
        own = [next(numbers) for _ in sound]
        said = torch.cat([codes[n] for n in own]).tolist()
        answers.append(Heard(said, torch.cat([features[n] for n in own])[None] if features else None))
    return answers


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
