"""Recipes of the objectives that train the language model: `sft` and `pretrain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.layout import ModelParts, load_parts, save_parts
from kimi_audio.data.augment import AugmentConfig, Augmenter, rng_of
from kimi_audio.data.cache import HeardCache, fill, listener_hash, variant_key
from kimi_audio.data.manifest import read_conversations, read_recordings, sounds_of
from kimi_audio.errors import ConfigError
from kimi_audio.prompt import Heard, Prompt
from kimi_audio.training.mixture import Mixture, Source
from kimi_audio.training.objectives.language import LanguageObjective, Regularisation
from kimi_audio.training.objectives.pretrain import TASKS, Segment, pretraining_mixture
from kimi_audio.training.objectives.sft import ConversationSource, Reader, Task, TaskSource, instructions
from kimi_audio.training.trainer import TrainConfig
from kimi_audio.vocab import Vocabulary


@dataclass(frozen=True)
class AugmentRecipe:
    """Variants of every recording to listen to besides the clean one. Noises and rooms come from manifests."""

    variants: int = 1
    noises: Path | None = None
    rooms: Path | None = None
    settings: AugmentConfig = field(default_factory=AugmentConfig)

    def augmenter(self) -> Augmenter:
        sounds = [[load_audio(row["audio"]) for row in read_recordings(path)] if path else []
                  for path in (self.noises, self.rooms)]  # fmt: skip
        return Augmenter(self.settings, *sounds)


@dataclass(frozen=True)
class DataRecipe:
    """One source of instruction tuning. With `task` a manifest of recordings, without one of conversations.

    Attributes:
        answer: field of the recordings that holds the right answer.
        dev: manifest of the same kind; the mean loss on its first `dev_items` is reported.
        instructions: file of wordings, one a line, instead of the bundled ones of `task`.
        spoken: manifest of recordings of wordings (`text` as in the file), drawn half of the time where there is one.
    """

    manifest: Path
    weight: float
    task: str | None = None
    answer: str = "text"
    dev: Path | None = None
    dev_items: int = 100
    instructions: Path | None = None
    spoken: Path | None = None


@dataclass(frozen=True)
class SftRecipe:
    """`objective: sft`: instruction tuning."""

    model: Path
    run: Path
    data: list[DataRecipe]
    cache: Path
    train: TrainConfig
    capacity: int = 1024
    augment: AugmentRecipe | None = None
    regularisation: Regularisation = field(default_factory=Regularisation)
    rates: dict[str, float] = field(default_factory=dict)

    def build(self) -> LanguageObjective:
        parts = load_parts(self.model)
        vocab = Vocabulary.from_config(parts.llm.config.to_dict())
        ears = Ears(self.model, self.cache, parts, self.augment, self.train.seed)
        read = Reader(vocab, parts.tokenizer.encode, ears.cache, self.augment.variants if self.augment else 0)
        read_clean = Reader(vocab, parts.tokenizer.encode, ears.cache)
        sources, dev = [], {}
        for data in self.data:
            sources.append(_sft_source(data, data.manifest, ears, read))
            if data.dev is not None:
                source = _sft_source(data, data.dev, ears, read_clean)
                dev[data.task or data.manifest.stem] = _first(source, data.dev_items)
        mixture = Mixture(sources, [data.weight for data in self.data], self.capacity, self.train.seed)
        return LanguageObjective(
            parts.llm,
            mixture,
            vocab,
            regularisation=self.regularisation,
            rates=self.rates,
            export=partial(save_parts, parts=parts),
            dev=dev,
        )


@dataclass(frozen=True)
class PretrainRecipe:
    """`objective: pretrain`: the report's seven tasks, with its weights.

    Attributes:
        texts: file of text documents, one a line.
        recordings: manifest of transcribed recordings. Neighbouring rows with the same `document` (else the same
            `speaker`) are the segments of one document, as many as fit into `capacity` positions.
        tasks: those to mix; a model without an audio branch can learn those with loss on text only.
    """

    model: Path
    run: Path
    texts: Path
    recordings: Path
    cache: Path
    train: TrainConfig
    capacity: int = 1024
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    augment: AugmentRecipe | None = None
    regularisation: Regularisation = field(default_factory=Regularisation)
    rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.tasks:
            if name not in TASKS:
                raise ConfigError(f"the task {name!r} is unknown; accepted are {', '.join(TASKS)}.")

    def build(self) -> LanguageObjective:
        parts = load_parts(self.model)
        vocab = Vocabulary.from_config(parts.llm.config.to_dict())
        ears = Ears(self.model, self.cache, parts, self.augment, self.train.seed)
        rows = read_recordings(self.recordings, needs=["text"])
        ears.hear([row["audio"] for row in rows])
        encode = parts.tokenizer.encode
        groups = group_segments(
            rows, [ears.cache.length(row["audio"]) + len(encode(row["text"])) + 4 for row in rows], self.capacity
        )

        def read(group: list[dict[str, Any]]) -> list[Segment]:
            return [Segment(encode(row["text"]), ears.cache.heard(row["audio"])) for row in group]

        lines = [line for line in self.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
        mixture = pretraining_mixture(
            [partial(lambda line: [Segment(encode(line))], line) for line in lines],
            [partial(read, group) for group in groups],
            vocab,
            self.capacity,
            segments=[len(group) for group in groups],
            tasks=self.tasks,
            seed=self.train.seed,
        )
        return LanguageObjective(
            parts.llm,
            mixture,
            vocab,
            regularisation=self.regularisation,
            rates=self.rates,
            export=partial(save_parts, parts=parts),
        )


class Ears:
    """The model's encoders with their cache."""

    def __init__(self, model: Path, cache: Path, parts: ModelParts, augment: AugmentRecipe | None, seed: int) -> None:
        self.cache = HeardCache(cache / listener_hash(model))
        self.parts, self.augment, self.seed = parts, augment, seed

    def hear(self, audios: Sequence[str], augmented: bool = True) -> None:
        """Put the recordings, and their variants if there are to be any, into the cache."""
        missing = list(self._missing(list(dict.fromkeys(audios)), augmented))
        progress = track(missing, "listening", console=Console(stderr=True), disable=not missing)
        fill(self.cache, progress, self._listen)

    def _missing(self, audios: list[str], augmented: bool) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        variants = self.augment.variants if self.augment and augmented else 0
        augmenter = self.augment.augmenter() if self.augment and variants else None
        for audio in audios:
            for variant in range(variants + 1):
                if (key := variant_key(audio, variant)) not in self.cache:
                    yield key, partial(self._samples, audio, variant, augmenter)

    def _samples(self, audio: str, variant: int, augmenter: Augmenter | None) -> np.ndarray:
        samples = load_audio(audio)
        return augmenter(samples, rng_of(self.seed, audio, variant)) if augmenter and variant else samples

    def _listen(self, samples: np.ndarray) -> Heard:
        codes = self.parts.semantic.encode([samples])[0].tolist()
        return Heard(codes, self.parts.acoustic(samples) if self.parts.acoustic is not None else None)


def group_segments(rows: Sequence[dict[str, Any]], lengths: Sequence[int], capacity: int) -> list[list[dict[str, Any]]]:
    """Neighbouring rows of one document (else speaker) together, as long as their `lengths` sum to ≤ `capacity`."""
    groups: list[list[dict[str, Any]]] = []
    last, room = None, 0
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        name = row.get("document") or row.get("speaker") or number
        if name != last or length > room:
            groups.append([])
            room = capacity
        groups[-1].append(row)
        last, room = name, room - length
    return groups


def _sft_source(data: DataRecipe, manifest: Path, ears: Ears, read: Reader) -> Source:
    clean = read.variants == 0
    if data.task is None:
        conversations = read_conversations(manifest)
        ears.hear(sounds_of(conversations), augmented=not clean)
        return ConversationSource(conversations, read)
    rows = read_recordings(manifest, needs=[data.answer])
    wordings = instructions(data.task) if data.instructions is None else _lines(data.instructions)
    spoken: dict[str, list[str]] = {}
    for row in read_recordings(data.spoken, needs=["text"]) if data.spoken else []:
        spoken.setdefault(row["text"], []).append(row["audio"])
    ears.hear([row["audio"] for row in rows] + [a for audios in spoken.values() for a in audios], augmented=not clean)
    return TaskSource(rows, Task(data.task, wordings, data.answer, spoken), read)


def _first(source: Source, items: int) -> list[Prompt]:
    return [source.prompt(index, np.random.default_rng(index)) for index in range(min(items, len(source)))]


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ConfigError(f"{path}: the file of instructions holds no line.")
    return lines
