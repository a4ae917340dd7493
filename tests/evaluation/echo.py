"""A benchmark of four rows whose model repeats what it is told."""

import json
from pathlib import Path

import numpy as np
import soundfile

from kimi_audio.evaluation.benchmarks import Benchmark

BENCHMARK = Benchmark(name="echo", title="Echo", kind="answer", folder="echo", metric="same", instruction="Say {text}.")


def write_manifest(data: Path, rows: list) -> None:
    (data / "echo").mkdir(parents=True, exist_ok=True)
    soundfile.write(data / "echo" / "a.wav", np.zeros(1600), 16000)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (data / "echo" / "manifest.jsonl").write_text("".join(line + "\n" for line in lines))


ROWS = [
    {"id": name, "audio": "a.wav", "text": f"word {name}", "split": "test", "duration": 0.1}
    for name in ("first", "fails", "speaks", "last")
]
