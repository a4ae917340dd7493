"""Benchmarks: small YAML files that say which recordings to ask what, and how to score the answers (report §6).

    for benchmark in find_benchmarks(["librispeech", "esc50"]):
        samples, faults = benchmark.samples(Path("data"))

The bundled files are in `benchmarks/`; a path to one's own works the same. A benchmark reads the JSON lines of
`DATA/<folder>/manifest.jsonl` (`audio` relative to it). A row may have a `history`, the messages of earlier turns. Rows
that can't be used are faults: told and counted.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation.samples import Sample
from kimi_audio.messages import Message, messages_from
from kimi_audio.settings import read_settings

KINDS = ("recognition", "classification", "choice", "answer", "chat", "speech", "quiet")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: what it is called on the command line.
        title: for tables.
        kind: one of `KINDS`; groups the table.
        folder: below the data folder, with `manifest.jsonl`.
        metric: name of a metric, see `evaluation.scoring`.
        normaliser: how texts are made comparable, see `evaluation.normalise`.
        split, where: rows to take: those of this split whose fields have these values.
        instruction: what is asked of every sample; `{field}` is filled in from the row, other braces stay as they are.
            None transcribes, unless `instruction_field` names the field of the row that holds the question.
        reference: field that holds what is right; "" if there is none.
        labels: file (beside this one) with label → list of regular expressions that name it in plain words.
        judge: name of the judge's prompt, for judged metrics.
        speaks: the answer is wanted as sound, too.
        reads_aloud: the reference is to be read aloud; the row's sound, a person reading it, is not heard by the model.
        answers: name of the benchmark whose answers are scored here, too, instead of asking again.
        sampling: options of generation, in the official names; the same for all models that know them.
        source, licence, size, obtain: for `eval --list`: where the data come from, on what terms, how many items, and
            how a user gets them.
    """

    name: str
    title: str
    kind: str
    folder: str
    metric: str
    normaliser: str = "none"
    split: str | None = "test"
    where: dict[str, str] = field(default_factory=dict)
    instruction: str | None = None
    instruction_field: str | None = None
    reference: str = "text"
    labels: str | None = None
    judge: str | None = None
    speaks: bool = False
    reads_aloud: bool = False
    answers: str | None = None
    sampling: dict[str, float] = field(default_factory=dict)
    language: str = "en"
    source: str = ""
    licence: str = ""
    size: str = ""
    obtain: str = ""
    path: Path = Path()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}; accepted are {', '.join(KINDS)}")

    def samples(self, data: Path) -> tuple[list[Sample], list[str]]:
        """The samples, and one sentence for each row that can't be used.

        Raises:
            DataError: when the manifest is missing or nothing of it can be used.
        """
        manifest = data / self.folder / "manifest.jsonl"
        if not manifest.is_file():
            raise DataError(f"{manifest}: the data of {self.name} are not there; {self.obtain or 'see eval --list'}")
        samples, faults, seen = [], [], set()
        for number, line in enumerate(manifest.read_bytes().splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = self._row(line)
                if row is None:
                    continue
                sample = self._sample(row, manifest.parent)
                if sample.id in seen:
                    raise DataError(f"the id {sample.id!r} is there twice")
            except DataError as error:
                faults.append(f"{self.folder}/manifest.jsonl:{number}: {error}")
                continue
            seen.add(sample.id)
            samples.append(sample)
        if not samples:
            raise DataError(f"{manifest}: no row of it can be used" + (f"; the first: {faults[0]}" if faults else ""))
        return samples, faults

    def scored_by(self, normaliser: str) -> Benchmark:
        """The same answers under another normaliser, as a benchmark of its own; unchanged if it counts no words."""
        if self.metric not in ("wer", "cer"):
            return self
        return replace(
            self,
            name=f"{self.name}-{normaliser}",
            title=f"{self.title} by {normaliser}",
            normaliser=normaliser,
            answers=self.answers or self.name,
        )

    def label_patterns(self) -> dict[str, list[str]]:
        """Label → regular expressions. Raises ConfigError when no such file is named, or it holds something else."""
        if self.labels is None:
            raise ConfigError(f"{self.name}: the metric {self.metric} needs a file of labels")
        path = self.path.parent / self.labels
        try:
            patterns = json.loads(path.read_text(encoding="utf-8"))
            if not all(isinstance(names, list) for names in patterns.values()):
                raise TypeError("not a list")
            for pattern in (pattern for names in patterns.values() for pattern in names):
                re.compile(pattern)
        except (ValueError, AttributeError, TypeError, re.error) as error:
            raise ConfigError(f"{path}: labels with lists of regular expressions are expected ({error})") from None
        return patterns

    def asking(self) -> dict[str, Any]:
        """All that the answers depend on besides model, data and seed."""
        names = ("folder", "instruction", "instruction_field", "speaks", "reads_aloud", "sampling", "language")
        return {name: getattr(self, name) for name in names}

    def recipe(self) -> dict[str, Any]:
        """All that a result depends on besides model, data and seed."""
        names = ("metric", "normaliser", "reference", "labels", "judge", "split", "where", "answers")
        return {name: getattr(self, name) for name in names} | self.asking()

    def _row(self, line: bytes) -> dict[str, Any] | None:
        """A row of this benchmark, None for one of another split or subset."""
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise DataError("not UTF-8") from None
        except ValueError:
            raise DataError("not valid JSON") from None
        if not isinstance(row, dict):
            raise DataError("not a JSON object")
        if self.split is not None and row.get("split", self.split) != self.split:
            return None
        return row if all(str(row.get(name)) == value for name, value in self.where.items()) else None

    def _sample(self, row: dict[str, Any], folder: Path) -> Sample:
        names = _texts(row, "audio")
        audios = tuple(_sound(folder / name) for name in names)
        instruction = self._instruction(row)
        if self.reads_aloud:
            row["recording"] = str(audios[0]) if audios else None
            audios = ()
        if not audios and not instruction:
            raise DataError("neither a sound nor a question")
        name = str(row.get("id") or (names[0] if len(names) == 1 else ""))
        if not name:
            raise DataError("the field 'id' is missing")
        if isinstance(row.get("voice"), list):
            row["voice"] = [str(folder / path) for path in _texts(row, "voice")]
        return Sample(name, audios, instruction, self._reference(row), _seconds(row), row, _history(row, folder))

    def _reference(self, row: dict[str, Any]) -> str:
        """What is right, as a text: lists and numbers as JSON."""
        if not self.reference:
            return ""
        found = row.get(self.reference, "")
        reference = found if isinstance(found, str) else json.dumps(found)
        if found is None or (not reference.strip() and self.kind != "quiet"):
            raise DataError(f"the field {self.reference!r} with what is right is missing or empty")
        return reference

    def _instruction(self, row: dict[str, Any]) -> str | None:
        if self.instruction_field is not None:
            question = row.get(self.instruction_field)
            if not isinstance(question, str):
                raise DataError(f"the field {self.instruction_field!r} with the question is missing")
            return question
        if self.instruction is None:
            return None
        try:
            return re.sub(r"\{(\w+)\}", lambda field: str(row[field[1]]), self.instruction)
        except KeyError as error:
            raise DataError(f"the field {error} of the instruction is missing") from None


def _texts(row: dict[str, Any], name: str) -> list[str]:
    """A field that holds a text, a list of texts, or is not there."""
    found = row.get(name, [])
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"the field {name!r} is {found!r}; a path or a list of paths is expected")
    return texts


def _seconds(row: dict[str, Any]) -> float:
    duration = row.get("duration") or 0.0
    if not isinstance(duration, int | float) or not 0 <= duration < math.inf:
        raise DataError(f"the field 'duration' is {duration!r}; seconds are expected")
    return float(duration)


def _sound(path: Path) -> Path:
    if not os.path.isfile(path):  # unlike Path.is_file, no error for names that no file can have
        raise DataError(f"the sound file {path} does not exist")
    return path


def _history(row: dict[str, Any], folder: Path) -> tuple[Message, ...]:
    """The messages before the question, their sounds as paths."""
    history = row.get("history") or []
    if not isinstance(history, list):
        raise DataError("the field 'history' must be a list of messages")
    return tuple(_earlier(message, folder) for message in messages_from(history)) if history else ()


def _earlier(message: Message, folder: Path) -> Message:
    if message.type == "text":
        return message
    if message.type == "audio":
        return replace(message, content=str(_sound(folder / str(message.content))))
    raise DataError("in the field 'history' what the assistant said must be a text")


def bundled_benchmarks() -> dict[str, Benchmark]:
    """The benchmarks that come with the package, by name."""
    folder = Path(str(files("kimi_audio.evaluation") / "benchmarks"))
    found = [read_benchmark(path) for path in sorted(folder.glob("*.yaml"))]
    return {benchmark.name: benchmark for benchmark in found}


def read_benchmark(path: Path) -> Benchmark:
    """A benchmark file. Raises ConfigError naming file, line and field."""
    benchmark = read_settings(path, Benchmark)
    object.__setattr__(benchmark, "path", path)
    return benchmark


def find_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """Benchmarks by name, by kind, by what names begin with (`librispeech`: all of it) or by the path of a file.

    Raises:
        ConfigError: for a name that is none of these.
    """
    bundled, found = bundled_benchmarks(), {}
    for name in names:
        if name in bundled:
            found[name] = bundled[name]
        elif name.endswith((".yaml", ".yml")):
            benchmark = read_benchmark(Path(name))
            found[benchmark.name] = benchmark
        elif group := [b for b in bundled.values() if b.kind == name or b.name.startswith(f"{name}-")]:
            found |= {benchmark.name: benchmark for benchmark in group}
        else:
            raise ConfigError(f"there is no benchmark {name!r}; there are {', '.join(bundled)}, and {', '.join(KINDS)}")
    return list(found.values())
