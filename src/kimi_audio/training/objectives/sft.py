"""Instruction tuning: conversations and tasks in, documents with loss on the assistant's words out (SPEC §8).

    read = Reader(vocab, tokenizer.encode, cache, variants=range(2))
    speech = TaskSource(rows, Task("recognition", instructions("recognition"), answer="text"), read)
    talk = ConversationSource(conversations, read)
    LanguageObjective(llm, Mixture([speech, talk], [2, 1], capacity=1024), vocab)

A task row is a recording with a transcript or label; each time it is drawn it meets another natural-language
instruction, written or, where a recording of the instruction is at hand, spoken. A conversation is taken as it
stands. The loss is that of `LanguageObjective`, which the official fine-tuning code shares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

import numpy as np

from kimi_audio.data.cache import CLEAN, variant_key
from kimi_audio.errors import DataError
from kimi_audio.messages import Message, messages_from
from kimi_audio.prompt import Heard, Prompt, build_prompt
from kimi_audio.vocab import Vocabulary


def instructions(task: str) -> list[str]:
    """The bundled instructions of a task, `instructions/TASK.txt`, one a line.

    Raises:
        DataError: when there is no such task.
    """
    folder = files("kimi_audio.training") / "instructions"
    path = folder / f"{task}.txt"
    if not path.is_file():
        tasks = sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt"))
        raise DataError(f"there are no instructions for the task {task!r}; the tasks are {', '.join(tasks)}.")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


class Ears(Protocol):
    """Whatever knows what the model hears of a recording, and with which codes it would say it itself."""

    def heard(self, key: str) -> Heard: ...

    def said(self, audio: str) -> Heard: ...


@dataclass(frozen=True)
class Reader:
    """Turns messages into a training prompt.

    Attributes:
        ears: hears recordings by their keys.
        variants: numbers of the variants of each recording, 0 the clean one; each time it is read one is drawn. What
            the assistant says is always clean.
        encode_spoken: as `encode_text`, for what the assistant says, if it is another.
    """

    vocab: Vocabulary
    encode_text: Callable[[str], list[int]]
    ears: Ears
    variants: range = CLEAN
    encode_spoken: Callable[[str], list[int]] | None = None

    def prompt(self, messages: Sequence[Message], rng: np.random.Generator) -> Prompt:
        """A document with loss on what the assistant says."""
        speaks = any(message.role == "assistant" and message.type != "text" for message in messages)
        answers = {message.content[0] for message in messages if message.type == "audio-text"}
        return build_prompt(
            messages,
            self.vocab,
            self.encode_text,
            lambda audio: self.ears.said(audio) if audio in answers else self.listen(audio, rng),
            output_type="both" if speaks else "text",
            training=True,
            learn_speech=True,
            open_answer=False,
            encode_spoken=self.encode_spoken,
        )

    def listen(self, audio: str, rng: np.random.Generator) -> Heard:
        """One of the variants of a recording, each as likely."""
        return self.ears.heard(variant_key(audio, self.variants[rng.integers(len(self.variants))]))


@dataclass(frozen=True)
class Task:
    """What to ask about a recording.

    Attributes:
        name: for messages to the user.
        instructions: wordings, one of which is drawn each time.
        answer: field of the manifest row that holds the right answer.
        spoken: instruction → recordings of it (keys of the cache).
        spoken_share: how often a spoken instruction is taken when there is one.
    """

    name: str
    instructions: Sequence[str]
    answer: str
    spoken: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spoken_share: float = 0.5

    def instruction(self, rng: np.random.Generator) -> Message:
        """A drawn wording, written or spoken."""
        wording = self.instructions[int(rng.integers(len(self.instructions)))]
        recordings = self.spoken.get(wording, ())
        if recordings and rng.random() < self.spoken_share:
            return Message("user", "audio", recordings[int(rng.integers(len(recordings)))])
        return Message("user", "text", wording)


@dataclass(frozen=True)
class TaskSource:
    """Recordings with an instruction: a mixture source. Rows have `audio` and the field `task.answer`."""

    rows: Sequence[Mapping[str, Any]]
    task: Task
    reader: Reader

    def __post_init__(self) -> None:
        for row in self.rows:
            if not isinstance(row.get(self.task.answer), str):
                raise DataError(f"{row['audio']}: the task {self.task.name} needs the field {self.task.answer!r}.")

    def __len__(self) -> int:
        return len(self.rows)

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt:
        row = self.rows[index]
        asked = [self.task.instruction(rng), Message("user", "audio", row["audio"])]
        return self.reader.prompt([*asked, Message("assistant", "text", row[self.task.answer])], rng)


@dataclass(frozen=True)
class SaySource:
    """Texts to read aloud, with recordings of them: a mixture source. Rows have `audio` and the field `task.answer`.

    The text follows the instruction, and is written and spoken side by side in the answer.
    """

    rows: Sequence[Mapping[str, Any]]
    task: Task
    reader: Reader

    def __len__(self) -> int:
        return len(self.rows)

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt:
        row, instruction = self.rows[index], self.task.instruction(rng)
        text = row[self.task.answer]
        asked = [instruction, Message("user", "text", text)]
        if instruction.type == "text":
            asked = [Message("user", "text", f"{instruction.content} {text}")]
        return self.reader.prompt([*asked, Message("assistant", "audio-text", (row["audio"], text))], rng)


@dataclass(frozen=True)
class ConversationSource:
    """Conversations as they stand, each a list of messages: a mixture source."""

    conversations: Sequence[Sequence[Message | Mapping[str, Any]]]
    reader: Reader

    def __len__(self) -> int:
        return len(self.conversations)

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt:
        return self.reader.prompt(messages_from(self.conversations[index]), rng)
