"""What all preparers share: find the download's files, check every item, collect what is wrong, write the manifest."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import track

from kimi_audio.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Report:
    """What came of a download: how many rows the manifest has, and one sentence for each item that is not in it."""

    rows: int
    faults: list[str]
    manifest: Path


@dataclass
class Manifest:
    """`FOLDER/manifest.jsonl` in the making; `path` of `add` may lie anywhere, the manifest keeps it relative."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, name: str, path: Path, **fields: Any) -> None:
        """A row with the id `name`. A sound that can't be read or a field without a value is a fault instead."""
        for key, value in fields.items():
            if value is None or value == "":
                self.faults.append(f"{name}: {key} is missing")
                return
        if not path.is_file():
            self.faults.append(f"{name}: the sound file {path} does not exist")
            return
        try:
            duration = soundfile.info(str(path)).duration
        except soundfile.SoundFileError:
            self.faults.append(f"{name}: the sound file {path} can't be read")
            return
        audio = Path(os.path.relpath(path.resolve(), self.folder.resolve())).as_posix()
        self.rows.append({"id": name, "audio": audio, "duration": round(duration, 3), "split": "test", **fields})

    def write(self) -> Report:
        """Raises DataError when there is nothing to write."""
        if not self.rows:
            raise DataError(
                "no item of it can be used" + (f"; the first fault: {self.faults[0]}" if self.faults else "")
            )
        path = self.folder / "manifest.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows]
        keep(path, lambda part: part.write_text("".join(lines), encoding="utf-8"), again=True)
        return Report(len(self.rows), self.faults, path)


def find(download: Path, *patterns: str) -> Path | None:
    """The first file or folder that fits one of the patterns, at the top or up to three folders below it."""
    for depth in range(4):
        for pattern in patterns:
            if found := sorted(download.glob("*/" * depth + pattern)):
                return found[0]
    return None


def locate(download: Path, *patterns: str) -> Path:
    """`find`, or a DataError."""
    found = find(download, *patterns)
    if found is None:
        raise DataError(f"there is no {' or '.join(patterns)} in it")
    return found


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path} is not there or not UTF-8") from None


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header; a row that is cut short lacks its last fields."""
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def read_items(path: Path, key: str | None = None) -> list[dict[str, Any]]:
    """The objects that a JSON file lists, under `key` if given."""
    try:
        found = json.loads(read_text(path))
    except ValueError:
        raise DataError(f"{path} is not valid JSON") from None
    items = found.get(key) if key and isinstance(found, dict) else found
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"{path} is not a list of objects" + (f" under {key!r}" if key else ""))
    return items


def keyed_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines of the form `KEY value`, as Kaldi's tables have them; the value is "" where only a key is there."""
    for line in read_text(path).splitlines():
        if line.strip():
            key, *value = line.split(maxsplit=1)
            yield key, value[0].strip() if value else ""


def keep(path: Path, write: Callable[[Path], Any], *, again: bool = False) -> None:
    """A file that is there already stays; a new one appears only when it is complete."""
    if path.exists() and not again:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def keep_sound(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    keep(path, lambda part: soundfile.write(str(part), samples, rate, format="FLAC"))


def listed(choices: Iterable[str]) -> str:
    """`(A) man (B) woman`."""
    return " ".join(f"({chr(ord('A') + number)}) {choice}" for number, choice in enumerate(choices))


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    return track(items, what, total=total, console=Console(stderr=True), transient=True)
