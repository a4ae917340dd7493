"""What a benchmark asks, what a model answers, and how one answer scored.

    Sample      a question: sounds, an instruction, what was said before, and what is right
    Output      an answer: text, and sound if the model speaks; or the error that came instead
    ItemScore   numerator and denominator of one item; a benchmark's figure is the quotient of the sums
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kimi_audio.errors import DataError
from kimi_audio.messages import Message


@dataclass(frozen=True)
class Sample:
    """One item of a benchmark.

    Attributes:
        id: unique in the benchmark.
        audios: sound files that are heard together, in order; none for a written question.
        instruction: what is asked in writing; None asks for the words that are said (transcription).
        reference: what is right: a transcript, a label, an answer; "" where there is none.
        seconds: length of the sounds together.
        fields: the whole row of the manifest (choices, rules, subset, ...).
        history: earlier turns of the conversation; what the assistant said in them is written.
    """

    id: str
    audios: tuple[Path, ...]
    instruction: str | None
    reference: str
    seconds: float = 0.0
    fields: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Message, ...] = ()

    def all_sounds(self) -> tuple[str, ...]:
        """The paths of all sounds of the conversation, in order: those of earlier turns, then those asked about."""
        earlier = [str(message.content) for message in self.history if message.type == "audio"]
        return (*earlier, *map(str, self.audios))

    def to_transcribe(self) -> tuple[Path, ...]:
        """The sounds. Raises DataError if there are none."""
        if not self.audios:
            raise DataError(f"{self.id}: there is no sound to transcribe")
        return self.audios


@dataclass(frozen=True, eq=False)
class Output:
    """What a model said to a sample.

    Attributes:
        text: the written answer; "" if there was an error.
        audio: the spoken answer, float32 (L,), if it speaks; `rate` in Hz.
        error: one sentence if the model failed.
        took: seconds of work; `first_sound` seconds until sound began.
    """

    text: str
    audio: np.ndarray | None = None
    rate: int = 24_000
    error: str | None = None
    took: float = 0.0
    first_sound: float | None = None


@dataclass(frozen=True)
class Prediction:
    """An output as it is kept: `audio` is a file."""

    id: str
    text: str
    audio: Path | None = None
    error: str | None = None
    took: float = 0.0
    first_sound: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class ItemScore:
    """How one answer scored: `numerator` of `denominator` (word errors of words; 1 of 1 for a right answer).

    `detail` is for people and for the page: `reference` and `hypothesis` as they were compared, `predicted` and
    `expected` labels, a judge's `reason`.
    """

    id: str
    numerator: float
    denominator: float = 1.0
    detail: Mapping[str, Any] = field(default_factory=dict)


class Metric(Protocol):
    """Scores answers, one by one.

    Attributes:
        name: as in the benchmark files.
        unit: `%` (a share), `1-5`, `s`, or "" for a plain figure.
        lower_is_better: for error rates and times.
    """

    name: str
    unit: str
    lower_is_better: bool

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore: ...
