"""Results on disk: predictions and scores, apart, so that scoring never needs a model again.

    RESULTS/<model>/<benchmark>/asked.json             how the answers were asked for
    RESULTS/<model>/<benchmark>/predictions.jsonl      a line per sample: text, audio file or error, time
    RESULTS/<model>/<benchmark>/audio/<number>.wav     what the model said
    RESULTS/<model>/<benchmark>/items.jsonl            a line per sample: how it scored, and why
    RESULTS/<model>/<benchmark>/scores.json            the figure with all that it depends on

`<model>` is the model's name and the fingerprint of its weights: other weights, other folder. Predictions are appended
as they are made; a line that a kill cut short is dropped and made again. Answers that were asked for in one way are
never scored as if they had been asked for in another.
"""

from __future__ import annotations

import hashlib
import json
import re
import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from kimi_audio.errors import DataError
from kimi_audio.evaluation.samples import ItemScore, Output, Prediction, Sample

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".gguf")


@dataclass(frozen=True)
class Asked:
    """`asked.json`: how answers were asked for.

    Attributes:
        recipe: instruction, sampling, language, ...; under `adapter` what the model's adapter adds.
        seed: of sampling.
        versions, machine: libraries and hardware, when the first of the answers was asked for.
    """

    recipe: dict[str, Any]
    seed: int
    versions: dict[str, str]
    machine: dict[str, Any]

    def unlike(self, other: Asked) -> str:
        """In what `other` asks otherwise, `seed 0, not 1; ...`; "" if in nothing. Versions and machine may differ."""
        ours, theirs = (each.recipe | each.recipe.get("adapter", {}) | {"seed": each.seed} for each in (self, other))
        names = [name for name in {**ours, **theirs} if name != "adapter" and ours.get(name) != theirs.get(name)]
        return "; ".join(f"{name} {ours.get(name)!r}, not {theirs.get(name)!r}" for name in names)


@dataclass(frozen=True)
class Result:
    """`scores.json`: one figure and all that it depends on.

    Attributes:
        benchmark, title, kind, unit, lower_is_better: of the benchmark and its metric.
        model, fingerprint: whose answers they are.
        value: the figure; `low`, `high` its bootstrap 95 % interval.
        items: answers, `failed` of them errors: scored as wrong or, where nothing could be scored, in no figure.
        faults: one sentence for each row of the manifest that could not be used.
        recipe: instruction, sampling, normaliser, judge, ...; `adapter` what the model's adapter adds.
        seed: of sampling and bootstrap; `versions` of the libraries and `machine` when the answers were asked for.
        took: seconds of work in all; `seconds` of sound that were heard; `first_sound` median seconds to first sound.
        unanswered: samples that were not asked yet, in no figure.
        scored_with: versions of libraries that were others at the time of scoring.
    """

    benchmark: str
    title: str
    kind: str
    unit: str
    lower_is_better: bool
    model: str
    fingerprint: str
    value: float
    low: float
    high: float
    items: int
    failed: int
    faults: list[str]
    recipe: dict[str, Any]
    seed: int
    versions: dict[str, str]
    machine: dict[str, Any]
    took: float
    seconds: float
    first_sound: float | None = None
    unanswered: int = 0
    scored_with: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """A line of `items.jsonl`: the score of one answer beside what was asked and answered.

    On disk `audio`, the spoken answer, is relative to the model's folder, and `sounds` are relative to the data folder.
    """

    score: ItemScore
    text: str
    sounds: tuple[str, ...]
    instruction: str | None
    audio: str | None = None
    error: str | None = None
    took: float = 0.0
    first_sound: float | None = None
    seconds: float = 0.0


def model_folder(results: Path, name: str, fingerprint: str) -> Path:
    """The folder of a model's results."""
    return results / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}-{fingerprint}"


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that change with any weight in `folder` (all files of `WEIGHTS`, by content)."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in WEIGHTS):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


class PredictionLog:
    """The predictions of one model on one benchmark, read and appended to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "predictions.jsonl"
        self.known = {row.id: row for row in self._read()}
        sounds = [int(path.stem) for path in (folder / "audio").glob("*.wav") if path.stem.isdecimal()]
        self._numbers = count(max(sounds, default=-1) + 1)

    def asked(self, now: Asked) -> Asked:
        """How the kept answers were asked for; where there are none, `now`, which is kept.

        Raises:
            DataError: when they were asked for in another way than `now`, or nobody knows how.
        """
        path = self.folder / "asked.json"
        if not self.known:
            path.write_text(json.dumps(asdict(now), indent=2, ensure_ascii=False) + "\n", "utf-8")
        try:
            then = Asked(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            problem = "it isn't known how these answers were asked for; --again asks anew"
            raise DataError(f"{self.folder}: {problem}") from None
        if difference := then.unlike(now):
            raise DataError(f"{self.folder}: these answers were asked for with {difference}; --again asks anew")
        return then

    def add(self, sample: Sample, output: Output) -> Prediction:
        """Keep an answer at once."""
        audio = None
        if output.audio is not None:
            audio = self.folder / "audio" / f"{next(self._numbers):05}.wav"
            audio.parent.mkdir(exist_ok=True)
            write_wav(audio, output.audio, output.rate)
        row = {"id": sample.id, "text": output.text, "took": round(output.took, 4), "seconds": sample.seconds}
        row |= {"audio": f"audio/{audio.name}"} if audio else {}
        row |= {"error": output.error} if output.error else {}
        row |= {"first_sound": round(output.first_sound, 4)} if output.first_sound is not None else {}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.known[sample.id] = self._prediction(row)
        return self.known[sample.id]

    def forget(self, errors_only: bool = False) -> None:
        """Drop what is kept and its sounds, or just the errors, to ask again."""
        kept = {row.id: row for row in self.known.values() if errors_only and row.error is None}
        lines = {json.loads(line)["id"]: line for line in _lines(self.path.read_bytes())} if kept else {}
        self.path.write_text("".join(lines[name] + "\n" for name in kept), "utf-8")
        for row in self.known.values():
            if row.audio and row.id not in kept:
                row.audio.unlink(missing_ok=True)
        self.known = kept

    def _read(self) -> Iterator[Prediction]:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self.path.write_bytes(whole)
        for number, line in enumerate(_lines(whole), start=1):
            try:
                yield self._prediction(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{self.path}:{number}: not a prediction; move the file away to ask anew") from None

    def _prediction(self, row: dict[str, Any]) -> Prediction:
        audio = self.folder / row["audio"] if row.get("audio") else None
        return Prediction(row["id"], row["text"], audio, row.get("error"), row.get("took", 0.0),
                          row.get("first_sound"), row.get("seconds", 0.0))  # fmt: skip


def write_result(folder: Path, result: Result, items: list[Item], data: Path | None = None) -> None:
    """Write `scores.json` and `items.jsonl`, with sounds below `data` relative to it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(_stored(item, data)), ensure_ascii=False) for item in items]
    (folder / "items.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    (folder / "scores.json").write_text(json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_results(results: Path, data: Path = Path()) -> list[tuple[Result, list[Item]]]:
    """All results below a folder, ordered by benchmark and model; `data` is where the sounds that were heard are.

    Raises:
        DataError: naming a damaged file.
    """
    found = []
    for path in sorted(results.glob("*/*/scores.json")):
        try:
            result = Result(**json.loads(path.read_text(encoding="utf-8")))
            lines = _lines((path.parent / "items.jsonl").read_bytes())
            items = [_item(json.loads(line), path.parents[1], data) for line in lines]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: not a result that can be read ({error}); score it again") from error
        found.append((result, items))
    return sorted(found, key=lambda pair: (pair[0].kind, pair[0].benchmark, pair[0].model))


def _stored(item: Item, data: Path | None) -> Item:
    audio = item.audio and Path(*Path(item.audio).parts[-3:]).as_posix()  # <benchmark>/audio/<number>.wav
    sounds = (Path(sound) for sound in item.sounds)
    below = (sound.relative_to(data) if data and sound.is_relative_to(data) else sound for sound in sounds)
    return replace(item, audio=audio, sounds=tuple(sound.as_posix() for sound in below))


def _item(row: dict[str, Any], model: Path, data: Path) -> Item:
    """A line of `items.jsonl` with paths that lead to the sounds, wherever results and data were moved to since."""
    audio = row["audio"] and str(model / Path(*Path(row["audio"]).parts[-3:]))
    sounds = tuple(str(data / sound) for sound in row["sounds"])
    return Item(**row | {"score": ItemScore(**row["score"]), "audio": audio, "sounds": sounds})


def _lines(content: bytes) -> list[str]:
    """The lines of a file in UTF-8. Not `str.splitlines`, which also cuts at characters that texts may hold."""
    return content.decode("utf-8").split("\n")[:-1]


def write_wav(path: Path, samples_L: np.ndarray, rate: int) -> None:
    """Mono, 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples_L, -1, 1) * 32767).astype("<i2").tobytes())
