"""Decoded recordings of a manifest in one file, so that training reads samples instead of decoding again.

    store = WaveformStore.build([Path("speech.train.jsonl")], Path("cache/speech.train"))
    store.rows[7]["text"], store.samples(7)                 # float32 (L,), 16 kHz mono, or another `rate`

`samples.i16` holds the samples end to end, `index.jsonl` the manifest rows with their place, as they were decoded.
Building decodes the rows that the index lacks: it goes on where a kill stopped it, and follows a manifest that changes.
Rows that cannot be decoded are left out, with the reason in the index; a recording that comes twice is stored once.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kimi_audio.audio.decode import load_audio
from kimi_audio.data.manifest import read_recordings
from kimi_audio.errors import AudioError

SAMPLE_RATE = 16_000
OURS = ("offset", "length", "skipped")
"""Fields of an index line that are not the manifest's."""


class WaveformStore:
    """Rows of a manifest with their samples, memory-mapped."""

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = [row for row in rows if "skipped" not in row]
        self._samples = np.memmap(folder / "samples.i16", np.int16, "r") if self.rows else np.zeros(0, np.int16)

    @classmethod
    def build(cls, manifests: list[Path], folder: Path, rate: int = SAMPLE_RATE) -> "WaveformStore":
        """Decode to `rate` what is not decoded yet of the manifests' rows, in order, and open the store."""
        folder.mkdir(parents=True, exist_ok=True)
        index, data = folder / "index.jsonl", folder / "samples.i16"
        wanted = [row for path in manifests for row in read_recordings(path)]
        done = {_content(row): row for row in _read_index(index, data)}
        place = {_sound(row): (row["offset"], row["length"]) for row in done.values() if "offset" in row}
        end = max((offset + length for offset, length in place.values()), default=0)
        with data.open("ab") as samples, index.open("a", encoding="utf-8") as places:
            samples.truncate(2 * end)
            for row in wanted:
                if _content(row) in done:
                    continue
                try:
                    if _sound(row) not in place:
                        pcm = (load_audio(row["audio"], rate).clip(-1, 1) * 32767).astype("<i2")
                        samples.write(pcm.tobytes())
                        samples.flush()
                        place[_sound(row)] = (end, len(pcm))
                        end += len(pcm)
                except AudioError as error:
                    entry = row | {"skipped": str(error)}
                else:
                    offset, length = place[_sound(row)]
                    entry = row | {"offset": offset, "length": length}
                places.write(json.dumps(entry, ensure_ascii=False) + "\n")
                places.flush()
                done[_content(row)] = entry
        return cls(folder, [done[_content(row)] for row in wanted])

    def __len__(self) -> int:
        return len(self.rows)

    def length(self, index: int) -> int:
        """Samples of one row."""
        return self.rows[index]["length"]

    def samples(self, index: int) -> np.ndarray:
        """Samples of one row: float32 (L,), mono."""
        row = self.rows[index]
        return self._samples[row["offset"] : row["offset"] + row["length"]].astype(np.float32) / 32767


def _read_index(index: Path, data: Path) -> list[dict[str, Any]]:
    """The lines of an index whose samples are there; one that a kill cut short is taken off the file."""
    if not index.exists():
        return []
    *whole, cut = index.read_bytes().split(b"\n")
    if cut:
        with index.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in whole))
    there = data.stat().st_size // 2 if data.exists() else 0
    return [row for row in map(json.loads, whole) if row.get("offset", 0) + row.get("length", 0) <= there]


def _content(row: dict[str, Any]) -> str:
    """What the manifest says of a recording."""
    return json.dumps({name: value for name, value in row.items() if name not in OURS}, sort_keys=True)


def _sound(row: dict[str, Any]) -> tuple[str, float]:
    """Names a recording: a file that was made anew is hardly as long as it was."""
    return row["audio"], row["duration"]
