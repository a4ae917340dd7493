"""Recipes of the objectives that train the language model: `sft` and `pretrain`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from kimi_audio.checkpoint.layout import ModelParts, load_llm, load_parts, save_parts
from kimi_audio.checkpoint.small import add_audio_branch
from kimi_audio.data.cache import CLEAN
from kimi_audio.data.manifest import read_conversations, read_recordings, sounds_of
from kimi_audio.errors import ConfigError, DataError
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import Prompt
from kimi_audio.training.few_bits import keep_few_bits, learn_in_few_bits
from kimi_audio.training.mixture import Mixture, Source
from kimi_audio.training.objectives.language import LanguageObjective, Regularisation
from kimi_audio.training.objectives.pretrain import TASKS, Segment, pretraining_mixture
from kimi_audio.training.objectives.sft import ConversationSource, Reader, SaySource, Task, TaskSource, instructions
from kimi_audio.training.recipes.ears import AugmentRecipe, CachedEars, Listening, LiveEars
from kimi_audio.training.trainer import TrainConfig
from kimi_audio.vocab import AUDIO_DELAY, Vocabulary

T = TypeVar("T")

SAY = "say"
FRAME = 4
"""Positions that a segment takes besides its codes and text: media_begin, media_end, text_eos and one to spare."""


@dataclass(frozen=True)
class DataRecipe:
    """One source of instruction tuning. With `task` a manifest of recordings, without one of conversations.

    The task `say` is the other way round: the recording of a row's `text` is the answer.

    Attributes:
        answer: field of the recordings that holds the right answer.
        dev: manifest of the same kind; the mean loss on its first `dev_items` is reported, under the name of the task,
            or of the manifest where that is taken.
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
class TeacherRecipe:
    """A model whose opinion is learned along with the data, and its share in what is learned."""

    model: Path
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"the share of a teacher is {self.share}; it must be above 0 and at most 1.")


@dataclass(frozen=True, kw_only=True)
class LanguageRecipe:
    """What `sft` and `pretrain` have in common.

    Attributes:
        cache: folder for what was heard.
        capacity: positions in a row of packed documents, one row a batch.
        compile: fuse the layers with `torch.compile`, which needs a C++ compiler on a CPU.
        train_encoder: train the acoustic encoder along: sounds are then decoded, augmented (and their log-mels masked,
            where `augment` is set) and encoded anew each time.
        rates: parameter-name prefix (`llm.model.vq_adaptor`, `encoder`, ...) → learning-rate scale; 0 freezes. A `*`
            in a prefix stands for anything.
        frozen_until: prefix → fraction of the run after which those parameters start to learn.
        few_bits: linear layers (`llm.model.layers.*.mlp.gate_proj`) that learn in the 4 bits that they will be stored
            in. Rounding takes a CPU longer than learning: for GPUs.
        teacher: the model as it was, say, so that less is forgotten (see `LanguageObjective`).
    """

    model: Path
    run: Path
    cache: Path
    train: TrainConfig
    capacity: int = 1024
    train_encoder: bool = False
    compile: bool = False
    augment: AugmentRecipe | None = None
    regularisation: Regularisation = field(default_factory=Regularisation)
    rates: dict[str, float] = field(default_factory=dict)
    frozen_until: dict[str, float] = field(default_factory=dict)
    few_bits: list[str] = field(default_factory=list)
    teacher: TeacherRecipe | None = None

    def ears(self, parts: ModelParts) -> CachedEars:
        kind = LiveEars if self.train_encoder else CachedEars
        return kind(self.model, parts, self.cache, self.augment, Listening.of(self.train))

    def objective(
        self, parts: ModelParts, vocab: Vocabulary, mixture: Mixture, dev: dict[str, list[Prompt]]
    ) -> LanguageObjective:
        learn_in_few_bits(nn.ModuleDict({"llm": parts.llm}), self.few_bits)

        def export(llm: AudioLLM, folder: Path) -> None:
            keep_few_bits(llm)
            save_parts(folder, parts)

        return LanguageObjective(
            parts.llm,
            mixture,
            vocab,
            encoder=parts.acoustic if self.train_encoder else None,
            regularisation=self.regularisation,
            rates=self.rates,
            frozen_until=self.frozen_until,
            export=export,
            dev=dev,
            compiled=self.compile,
            masked_mels=self.train_encoder and self.augment is not None,
            teacher=load_llm(self.teacher.model) if self.teacher else None,
            distil=self.teacher.share if self.teacher else 0.0,
        )


@dataclass(frozen=True)
class AudioBranch:
    """Sizes of a new audio branch: so many layers, that follow the trunk's layer `after` (counted from 0)."""

    layers: int
    after: int


@dataclass(frozen=True, kw_only=True)
class SftRecipe(LanguageRecipe):
    """`objective: sft`: instruction tuning.

    Attributes:
        audio_branch: a new one, for a model that only listens and is to learn to speak.
        guide_attention: weight of a loss that teaches the audio branch which words it is saying (`GuidedAttention`).
        text_loss: without, the audio branch alone learns; what lies above its fork is not run. Freeze what lies below.
    """

    data: list[DataRecipe]
    audio_branch: AudioBranch | None = None
    guide_attention: float = 0.0
    text_loss: bool = True

    def build(self) -> LanguageObjective:
        parts = load_parts(self.model)
        if self.audio_branch is not None:
            if parts.llm.config.kimia_mimo_layers:
                raise ConfigError(f"{self.model}: the model has an audio branch already; leave out audio_branch.")
            parts.llm = add_audio_branch(parts.llm, self.audio_branch.layers, self.audio_branch.after)
        vocab = Vocabulary.from_config(parts.llm.config.to_dict())
        ears = self.ears(parts)
        everything = Reader(vocab, parts.tokenizer.encode, ears, ears.variants, parts.encode_spoken)
        sources, dev = [], {}
        for data in self.data:
            sources.append(_sft_source(data, data.manifest, ears, everything))
            if data.dev is not None:
                source = _sft_source(data, data.dev, ears, replace(everything, variants=CLEAN))
                name = data.task or data.manifest.stem
                dev[data.dev.stem if name in dev else name] = _first(source, data.dev_items)
        mixture = Mixture(sources, [data.weight for data in self.data], self.capacity, self.train.seed)
        objective = self.objective(parts, vocab, mixture, dev)
        return replace(objective, text_loss=self.text_loss, guide_attention=self.guide_attention)


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(LanguageRecipe):
    """`objective: pretrain`: the report's seven tasks, with its weights.

    Attributes:
        texts: file of text documents, one a line.
        recordings: manifest of transcribed recordings. Neighbouring rows with the same `document` (else the same
            `speaker`) are the segments of one document, as many as fit into `capacity` positions.
        tasks: those to mix; a model without an audio branch can learn those with loss on text only.
    """

    texts: Path
    recordings: Path
    tasks: list[str] = field(default_factory=lambda: list(TASKS))

    def __post_init__(self) -> None:
        for name in self.tasks:
            if name not in TASKS:
                raise ConfigError(f"the task {name!r} is unknown; accepted are {', '.join(TASKS)}.")

    def build(self) -> LanguageObjective:
        parts = load_parts(self.model)
        vocab, encode = Vocabulary.from_config(parts.llm.config.to_dict()), parts.tokenizer.encode
        ears = self.ears(parts)
        read = Reader(vocab, encode, ears, ears.variants)
        rows = read_recordings(self.recordings, needs=["text"])
        audios = [row["audio"] for row in rows]
        ears.hear(audios, ears.variants)
        ears.learn_to_say(audios)
        lengths = [ears.longest(row["audio"]) + len(encode(row["text"])) + FRAME for row in rows]
        groups = group_segments(rows, lengths, self.capacity)

        def spoken(group: list[dict[str, Any]], rng: np.random.Generator) -> list[Segment]:
            return [
                Segment(encode(row["text"]), read.listen(row["audio"], rng), ears.said(row["audio"]).codes)
                for row in group
            ]

        def written(line: str, rng: np.random.Generator) -> list[Segment]:
            return [Segment(encode(line))]

        mixture = pretraining_mixture(
            [partial(written, line) for line in _lines(self.texts)],
            [partial(spoken, group) for group in groups],
            vocab,
            self.capacity,
            segments=[len(group) for group in groups],
            tasks=self.tasks,
            seed=self.train.seed,
        )
        return self.objective(parts, vocab, mixture, dev={})


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


def _sft_source(data: DataRecipe, manifest: Path, ears: CachedEars, read: Reader) -> Source:
    if data.task is None:
        conversations = read_conversations(manifest)
        heard, said = sounds_of(conversations)
        ears.hear(heard, read.variants)
        ears.learn_to_say(said)
        spoken_texts = [[m.content for m in messages if m.type == "audio-text"] for messages in conversations]
        return ConversationSource(_sayable(conversations, spoken_texts, ears, read, manifest), read)
    rows = read_recordings(manifest, needs=[data.answer])
    wordings = instructions(data.task) if data.instructions is None else _lines(data.instructions)
    spoken: dict[str, list[str]] = {}
    for row in read_recordings(data.spoken, needs=["text"]) if data.spoken else []:
        spoken.setdefault(row["text"], []).append(row["audio"])
    task, recorded = Task(data.task, wordings, data.answer, spoken), [row["audio"] for row in rows]
    asked = [audio for audios in spoken.values() for audio in audios]
    if data.task == SAY:
        ears.learn_to_say(recorded)
        ears.hear(asked, read.variants)
        spoken_texts = [[(row["audio"], row[data.answer])] for row in rows]
        return SaySource(_sayable(rows, spoken_texts, ears, read, manifest), task, read)
    ears.hear([*recorded, *asked], read.variants)
    return TaskSource(rows, task, read)


def _sayable(
    items: Sequence[T], said: Sequence[Sequence[tuple[str, str]]], ears: CachedEars, read: Reader, manifest: Path
) -> list[T]:
    """The items whose spoken texts have room beside their sound: a sound that was cut off says less than its text.

    Args:
        said: the sounds and texts that the assistant says in each item.
    """
    encode = read.encode_spoken or read.encode_text
    fits = [all(len(encode(text)) < ears.answers.length(audio) + AUDIO_DELAY for audio, text in each) for each in said]
    if not any(fits):
        raise DataError(f"{manifest}: every sound is too short for its text.")
    if short := fits.count(False):
        print(f"{manifest}: {short} of {len(items)} left out; their sound is too short for their text", file=sys.stderr)
    return [item for item, fit in zip(items, fits, strict=True) if fit]


def _first(source: Source, items: int) -> list[Prompt]:
    return [source.prompt(index, np.random.default_rng(index)) for index in range(min(items, len(source)))]


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the file cannot be read as UTF-8 text ({error}).") from error
    if not lines:
        raise DataError(f"{path}: the file holds no line.")
    return lines
