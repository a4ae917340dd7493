"""Manifests: JSON lines that say which recordings there are and what is known about them.

    rows = read_recordings(Path("speech/manifest.jsonl"), split="train", needs=["text"])
    conversations = read_conversations(Path("chat.jsonl"))

A line of a recordings manifest is an object with `audio` (path, relative to the manifest), `duration` in seconds
and, as far as known, `split` (train, dev, test), `text`, `label`, `speaker`, ...; other fields are kept. A line of a
conversations manifest is {"messages": [{"role", "message_type", "content"}, ...]}, sounds again relative to it.
A mistake raises a DataError that names file and line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kimi_audio.errors import DataError
from kimi_audio.messages import Message, messages_from

SPLITS = ("train", "dev", "test")


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON lines file, each with the place `FILE:LINE` that a complaint about it should name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the manifest cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the manifest is not UTF-8 text.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{path}:{number}: not valid JSON; each line must be one JSON object.") from None
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number}: a JSON {type(value).__name__}; each line must be one JSON object.")
        yield f"{path}:{number}", value


def read_recordings(path: Path, split: str | None = None, needs: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The recordings of a manifest with absolute `audio` paths; of one split, if asked.

    Args:
        needs: fields (`text`, `label`, ...) that every row must have as a string; silence has the text "".

    Raises:
        DataError: a line is malformed, lacks a field, or names a file that is not there; or there is no row at all.
    """
    rows = []
    for place, row in read_lines(path):
        _check_recording(place, row)
        if split is not None and row.get("split", split) != split:
            continue
        for name in needs:
            if not isinstance(row.get(name), str):
                raise DataError(f"{place}: field {name!r} is {row.get(name)!r}; a text is needed here.")
        rows.append({**row, "audio": _resolve(place, path.parent, row["audio"])})
    if not rows:
        raise DataError(f"{path}: the manifest holds no recording" + (f" of the split {split!r}." if split else "."))
    return rows


def read_conversations(path: Path) -> list[list[Message]]:
    """The conversations of a manifest, their sounds as absolute paths. Raises DataError as `read_recordings` does."""
    conversations = []
    for place, line in read_lines(path):
        try:
            messages = messages_from(line.get("messages", ()))
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        conversations.append([_resolved(place, path.parent, message) for message in messages])
    if not conversations:
        raise DataError(f"{path}: the manifest holds no conversation.")
    return conversations


def sounds_of(conversations: Sequence[Sequence[Message]]) -> tuple[list[str], list[str]]:
    """The sound files of conversations, each once, in order: those to listen to, and the spoken answers."""
    messages = [message for conversation in conversations for message in conversation]
    heard = dict.fromkeys(message.content for message in messages if message.type == "audio")
    said = dict.fromkeys(message.content[0] for message in messages if message.type == "audio-text")
    return list(heard), list(said)


def _check_recording(place: str, row: dict[str, Any]) -> None:
    if not isinstance(row.get("audio"), str) or not row["audio"]:
        raise DataError(f"{place}: field 'audio' is {row.get('audio')!r}; a path is needed.")
    duration = row.get("duration")
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not duration > 0:
        raise DataError(f"{place}: field 'duration' is {duration!r}; seconds above 0 are needed.")
    if row.get("split", "train") not in SPLITS:
        raise DataError(f"{place}: field 'split' is {row['split']!r}; accepted are {', '.join(SPLITS)}.")


def _resolve(place: str, folder: Path, audio: str) -> str:
    path = (folder / audio).absolute()
    if not path.is_file():
        raise DataError(f"{place}: the sound file {path} does not exist.")
    return str(path)


def _resolved(place: str, folder: Path, message: Message) -> Message:
    if message.type == "text":
        return message
    if message.type == "audio":
        return replace(message, content=_resolve(place, folder, str(message.content)))
    audio, text = message.content
    return replace(message, content=(_resolve(place, folder, str(audio)), text))
