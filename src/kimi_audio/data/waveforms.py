"""Decoded recordings of a manifest in one file, so that training reads samples instead of decoding again.

    store = WaveformStore.build([Path("speech.train.jsonl")], Path("cache/speech.train"))
    store.rows[7]["text"], store.samples(7)                 # float32 (L,), 16 kHz mono, or another `rate`

`samples.i16` holds the samples end to end, `index.jsonl` the manifest rows with their place. Building goes on where it
stopped; rows that cannot be decoded are left out and named; a recording that comes twice is stored once.
"""

import json
from pathlib import Path

import numpy as np

from kimi_audio.audio.decode import load_audio
from kimi_audio.data.manifest import read_recordings
from kimi_audio.errors import AudioError

SAMPLE_RATE = 16_000


class WaveformStore:
    """Rows of a manifest with their samples, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        lines = (folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
        self.rows = [row for row in map(json.loads, lines) if "skipped" not in row]
        self._samples = np.memmap(folder / "samples.i16", np.int16, "r") if self.rows else np.zeros(0, np.int16)

    @classmethod
    def build(cls, manifests: list[Path], folder: Path, rate: int = SAMPLE_RATE) -> "WaveformStore":
        """Decode to `rate` what is not decoded yet of the manifests' rows, in order, and open the store."""
        folder.mkdir(parents=True, exist_ok=True)
        index, data = folder / "index.jsonl", folder / "samples.i16"
        rows = [row for path in manifests for row in read_recordings(path)]
        done = [json.loads(line) for line in index.read_text().splitlines()] if index.exists() else []
        place = {row["audio"]: (row["offset"], row["length"]) for row in done if "offset" in row}
        end = max((offset + length for offset, length in place.values()), default=0)
        with data.open("ab") as samples, index.open("a", encoding="utf-8") as places:
            samples.truncate(2 * end)
            for row in rows[len(done) :]:
                audio = row["audio"]
                try:
                    if audio not in place:
                        pcm = (load_audio(audio, rate).clip(-1, 1) * 32767).astype("<i2")
                        samples.write(pcm.tobytes())
                        samples.flush()
                        place[audio] = (end, len(pcm))
                        end += len(pcm)
                except AudioError as error:
                    row |= {"skipped": str(error)}
                else:
                    offset, length = place[audio]
                    row |= {"offset": offset, "length": length}
                places.write(json.dumps(row, ensure_ascii=False) + "\n")
                places.flush()
        return cls(folder)

    def __len__(self) -> int:
        return len(self.rows)

    def length(self, index: int) -> int:
        """Samples of one row."""
        return self.rows[index]["length"]

    def samples(self, index: int) -> np.ndarray:
        """Samples of one row: float32 (L,), mono."""
        row = self.rows[index]
        return self._samples[row["offset"] : row["offset"] + row["length"]].astype(np.float32) / 32767
