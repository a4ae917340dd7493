"""What the model hears of every recording, computed once: semantic codes and acoustic features on disk.

    cache = HeardCache(Path("cache") / listener_hash(model_folder))
    fill(cache, recordings, listen)
    cache.heard("speech/a.wav")                     # Heard(codes, features [1, T, F]), read from a memory map

    FOLDER/index.jsonl          {"key", "shard", "start", "length", "width"} per recording
    FOLDER/features-000.f16     float16 [sum of T, F], a new file every GiB
    FOLDER/codes-000.i32        int32 [sum of T], 12.5 Hz

A line of the index is written after its data, so that a killed process loses one recording at most. The folder's name
must tell all that decides what is heard: other weights, other cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from kimi_audio.errors import CheckpointError, DataError
from kimi_audio.prompt import Heard

SHARD_BYTES = 2**30

Sound = TypeVar("Sound")


def listener_hash(model_folder: Path, parts: Iterable[str] = ("whisper-large-v3", "glm-4-voice-tokenizer")) -> str:
    """16 hex digits that name the weights and configurations of the encoders in `model_folder`."""
    digest = hashlib.sha256()
    for part in parts:
        for path in [model_folder / part / "config.json", *sorted((model_folder / part).glob("*.safetensors"))]:
            if not path.exists():
                raise CheckpointError(f"{path} is missing; a folder of encoder weights needs it.")
            digest.update(np.memmap(path, np.uint8, "r").data)
    return digest.hexdigest()[:16]


class HeardCache:
    """A growing folder of `Heard`, by key. One process writes, any number read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._entries: dict[str, dict] = {}
        self._maps: dict[tuple[int, str], np.ndarray] = {}
        index = folder / "index.jsonl"
        whole = [line for line in index.read_bytes().split(b"\n")[:-1]] if index.exists() else []
        for line in whole:
            entry = json.loads(line)
            self._entries[entry["key"]] = entry
        if index.exists() and (size := sum(len(line) + 1 for line in whole)) < index.stat().st_size:
            with index.open("r+b") as file:  # a kill cut the last line short
                file.truncate(size)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def length(self, key: str) -> int:
        """Number of 12.5 Hz positions of a recording."""
        return self._entry(key)["length"]

    def heard(self, key: str) -> Heard:
        """Codes (T,) and features [1, T, F] in float16.

        Raises:
            DataError: when the recording was never cached.
        """
        entry = self._entry(key)
        start, end, width = entry["start"], entry["start"] + entry["length"], entry["width"]
        codes = self._map(entry["shard"], "codes", np.int32)[start:end].tolist()
        if not width:
            return Heard(codes)
        flat = self._map(entry["shard"], "features", np.float16)[start * width : end * width]
        return Heard(codes, torch.from_numpy(flat.copy()).view(1, -1, width))

    def add(self, key: str, heard: Heard) -> None:
        """Append a recording; features may be absent. A key that is there already is left as it is."""
        if key in self._entries:
            return
        features = np.zeros((len(heard.codes), 0), np.float16)
        if heard.features is not None:
            features = heard.features[0].cpu().half().numpy()
        assert len(features) == len(heard.codes), "one feature vector per code"
        last = next(reversed(self._entries.values()), {"shard": 0, "start": 0, "length": 0, "width": features.shape[1]})
        assert last["width"] == features.shape[1], "all features of a cache have one width"
        shard, start = last["shard"], last["start"] + last["length"]
        if start * max(4, 2 * features.shape[1]) >= SHARD_BYTES:
            shard, start = shard + 1, 0
        _write_at(self._path(shard, "features"), start * features.shape[1] * 2, features.tobytes())
        _write_at(self._path(shard, "codes"), start * 4, np.asarray(heard.codes, np.int32).tobytes())
        entry = {"key": key, "shard": shard, "start": start, "length": len(features), "width": features.shape[1]}
        with (self.folder / "index.jsonl").open("a", encoding="utf-8") as index:
            index.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._entries[key] = entry
        self._maps.clear()

    def _entry(self, key: str) -> dict:
        if key not in self._entries:
            raise DataError(f"{key} is not in the cache {self.folder}; fill it with that recording first.")
        return self._entries[key]

    def _path(self, shard: int, kind: str) -> Path:
        return self.folder / f"{kind}-{shard:03d}.{'f16' if kind == 'features' else 'i32'}"

    def _map(self, shard: int, kind: str, dtype: type) -> np.ndarray:
        if (shard, kind) not in self._maps:
            self._maps[shard, kind] = np.memmap(self._path(shard, kind), dtype, "r")
        return self._maps[shard, kind]


def _write_at(path: Path, position: int, data: bytes) -> None:
    """Write at a position, over what an interrupted write may have left there."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(position)
        file.write(data)
        file.truncate()


def fill(
    cache: HeardCache,
    recordings: Iterable[tuple[str, Sound]],
    listen: Callable[[list[Sound]], list[Heard]],
    together: int = 256,
) -> int:
    """Listen to recordings, so many together, put them into the cache in their order, and return how many there were.

    Args:
        recordings: (key, sound), in whatever form `listen` wants it.
        listen: several sounds → codes and features of each.
    """
    count, waiting = 0, iter(recordings)
    while part := list(islice(waiting, together)):
        for (key, _), heard in zip(part, listen([sound for _, sound in part]), strict=True):
            cache.add(key, heard)
        count += len(part)
    return count


CLEAN = range(1)
"""Numbers of variants: the recording itself alone."""


def variant_key(audio: str, variant: int) -> str:
    """Key of an augmented variant of a recording; variant 0 is the recording itself."""
    return f"{audio}#{variant}" if variant else audio


def split_key(key: str) -> tuple[str, int]:
    """The recording and the variant that a key stands for."""
    audio, mark, variant = key.rpartition("#")
    return (audio, int(variant)) if mark and variant.isdecimal() else (key, 0)
