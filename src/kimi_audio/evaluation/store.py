"""Results on disk: predictions and scores, apart, so that scoring never needs a model again.

    RESULTS/<model>/<benchmark>/predictions.jsonl      a line per sample: text, audio file or error, time
    RESULTS/<model>/<benchmark>/audio/<number>.wav     what the model said
    RESULTS/<model>/<benchmark>/items.jsonl            a line per sample: how it scored, and why
    RESULTS/<model>/<benchmark>/scores.json            the figure with all that it depends on

`<model>` is the model's name and the fingerprint of its weights: other weights, other folder. Predictions are appended
as they are made; a line that a kill cut short is dropped and made again.
"""

from __future__ import annotations

import hashlib
import json
import re
import wave
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kimi_audio.errors import DataError
from kimi_audio.evaluation.samples import ItemScore, Output, Prediction, Sample


@dataclass(frozen=True)
class Result:
    """`scores.json`: one figure and all that it depends on.

    Attributes:
        benchmark, title, kind, unit, lower_is_better: of the benchmark and its metric.
        model, fingerprint: whose answers they are.
        value: the figure; `low`, `high` its bootstrap 95 % interval.
        items: answers, `failed` of them errors: scored as wrong or, where nothing could be scored, in no figure.
        faults: one sentence for each row of the manifest that could not be used.
        recipe: instruction, sampling, normaliser, judge, ...; `seed` of sampling and bootstrap; `versions` of the
            libraries; `machine` where the answers were made.
        took: seconds of work in all; `seconds` of sound that were heard; `first_sound` median seconds to first sound.
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


@dataclass(frozen=True)
class Item:
    """A line of `items.jsonl`: the score of one answer beside what was asked and answered."""

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
    """Twelve hex digits that change with any weight in `folder` (all its safetensors files, by content)."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
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

    def add(self, sample: Sample, output: Output) -> Prediction:
        """Keep an answer at once."""
        audio = None
        if output.audio is not None:
            audio = self.folder / "audio" / f"{len(self.known):05}.wav"
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
        """Drop what is kept, or just the errors, to ask again."""
        kept = [row for row in self.known.values() if errors_only and row.error is None]
        lines = {json.loads(line)["id"]: line for line in self.path.read_text("utf-8").splitlines()} if kept else {}
        self.path.write_text("".join(lines[row.id] + "\n" for row in kept), "utf-8")
        self.known = {row.id: row for row in kept}

    def _read(self) -> Iterator[Prediction]:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self.path.write_bytes(whole)
        for number, line in enumerate(whole.decode("utf-8").splitlines(), start=1):
            try:
                yield self._prediction(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{self.path}:{number}: not a prediction; move the file away to ask anew") from None

    def _prediction(self, row: dict[str, Any]) -> Prediction:
        audio = self.folder / row["audio"] if row.get("audio") else None
        return Prediction(row["id"], row["text"], audio, row.get("error"), row.get("took", 0.0),
                          row.get("first_sound"), row.get("seconds", 0.0))  # fmt: skip


def write_result(folder: Path, result: Result, items: list[Item]) -> None:
    """Write `scores.json` and `items.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(item), ensure_ascii=False) for item in items]
    (folder / "items.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    (folder / "scores.json").write_text(json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_results(results: Path) -> list[tuple[Result, list[Item]]]:
    """All results below a folder, ordered by benchmark and model. Raises DataError naming a damaged file."""
    found = []
    for path in sorted(results.glob("*/*/scores.json")):
        try:
            result = Result(**json.loads(path.read_text(encoding="utf-8")))
            lines = (path.parent / "items.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
            items = [Item(ItemScore(**row.pop("score")), sounds=tuple(row.pop("sounds")), **row) for row in rows]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: not a result that can be read ({error}); score it again") from error
        found.append((result, items))
    return sorted(found, key=lambda pair: (pair[0].kind, pair[0].benchmark, pair[0].model))


def write_wav(path: Path, samples_L: np.ndarray, rate: int) -> None:
    """Mono, 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples_L, -1, 1) * 32767).astype("<i2").tobytes())
