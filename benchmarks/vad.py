"""What the voice detection keeps and drops, set by set, and how fast.

    python benchmarks/vad.py ../shared/data [--clips 200] [--split dev]

For every folder with a `manifest.jsonl` one JSON line: the share of clips in which speech was found (wanted: above
0.99 for speech, low for noises) and the share of their time that was kept; at the end the CPU time per time of sound.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch

from kimi_audio.audio import load_audio, speech_segments


def main() -> None:
    parser = argparse.ArgumentParser(description="What the voice detection keeps and drops, set by set")
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", type=int, default=200, help="at most so many of each set")
    parser.add_argument("--split", default="", help="only this split")
    options = parser.parse_args()
    torch.set_num_threads(1)

    total, spent = 0.0, 0.0
    for manifest in sorted(options.data.glob("*/manifest.jsonl")):
        items = [json.loads(line) for line in manifest.read_text().splitlines()]
        items = [item for item in items if options.split in ("", item["split"])]
        found, kept, seconds = 0, 0.0, 0.0
        sample = random.Random(0).sample(items, min(options.clips, len(items)))
        for item in sample:
            samples = load_audio(manifest.parent / item["audio"])
            started = time.process_time()
            segments = list(speech_segments([samples]))
            spent += time.process_time() - started
            found += bool(segments)
            kept += sum(segment.end - segment.start for segment in segments)
            seconds += len(samples) / 16000
        total += seconds
        if sample:
            row = dict(data=manifest.parent.name, clips=len(sample), found=found / len(sample), kept=kept / seconds)
            print(json.dumps({name: round(x, 4) if isinstance(x, float) else x for name, x in row.items()}), flush=True)
    print(json.dumps(dict(seconds_of_sound=round(total), cpu_seconds_per_second=round(spent / total, 5))))


if __name__ == "__main__":
    main()
