"""One speaker's recordings, of any format and length, as pieces of speech and manifests for the voice recipe.

    python recipes/voice/prepare.py RECORDINGS OUT

OUT gets `voice.train.jsonl`, `voice.dev.jsonl` (one piece in twenty) and the pieces, 24 kHz FLAC: speech of 1 to 12 s,
cut at pauses. No transcripts are needed: the voice is learnt from the codes that the tokenizer hears. Recordings
that can't be read are named and left out; pieces that are there already are kept.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.progress import track

from kimi_audio.audio.decode import load_audio, stream_audio
from kimi_audio.audio.segments import speech_segments
from kimi_audio.errors import AudioError

RATE = 24_000
SHORTEST, LONGEST, TARGET = 1.0, 12.0, 6.0
FAINT = 1e-3
"""Root mean square below which a piece is silence."""


def pieces(recording: Path, name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Write the speech of one recording, piece by piece, and yield the manifest's rows."""
    samples = load_audio(recording, RATE)
    spoken = speech_segments(stream_audio(recording), max_seconds=LONGEST, target_seconds=TARGET)
    for number, segment in enumerate(spoken):
        piece = samples[int(segment.start * RATE) : int(segment.end * RATE)]
        path = folder / f"{name}-{number:04}.flac"
        if len(piece) < SHORTEST * RATE or np.sqrt(np.square(piece).mean()) < FAINT:
            continue
        if not path.exists():
            soundfile.write(path, piece.clip(-1, 1), RATE)
        yield {"audio": str(path.relative_to(folder.parent)), "duration": round(len(piece) / RATE, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if not args.recordings.is_dir():
        sys.exit(f"{args.recordings}: is not a folder of recordings")
    folder = args.out / "pieces"
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    found = sorted(path for path in args.recordings.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in track(found, "cutting"):
        name = "_".join(path.relative_to(args.recordings).with_suffix("").parts)
        try:
            rows += pieces(path, name, folder)
        except AudioError as error:
            print(error, file=sys.stderr)
    if not rows:
        sys.exit(f"{args.recordings}: holds no recording in which somebody speaks for a second or longer")
    for split, chosen in (("dev", rows[::20]), ("train", [row for n, row in enumerate(rows) if n % 20])):
        path = args.out / f"voice.{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
        print(f"{path}: {len(chosen)} pieces, {sum(row['duration'] for row in chosen) / 60:.1f} min")


if __name__ == "__main__":
    main()
