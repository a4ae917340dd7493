"""Measure the bundled model on everything here, beside the Whispers and the recordings: fills `results/`.

    python recipes/tiny/evaluate.py $SHARED $MODELS $WORK

SHARED holds the labelled sets (`data`) and the synthesiser (`tools`), MODELS its voices and the Whispers; recordings of
the questions and links to the sets go to WORK. Answers that are there already are not asked for again, so a second call
goes on where the first one stopped. It ends with the table of the README.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

OWN = Path(__file__).parent / "evaluation"
HEARD = ("librispeech-mini", "speechocean762", "kathleen", "misc", "asterisk", "keywords", "words-gcompris", "digits",
         "ravdess", "esc50", "quiet-esc50",
         *(str(OWN / f"{name}.yaml") for name in ("quiet-silence", "quiet-noise", "quiet-music", "spoken-questions",
                                                  "written-questions", "range")))  # fmt: skip
READ_ALOUD = ("say-kathleen", "say-kathleen-mos", "say-kathleen-likeness", "say-kathleen-pace", "say-kathleen-pauses")
TIMES = ("say-kathleen-first-sound", "say-kathleen-rtf")
ANSWERED_ALOUD = tuple(str(OWN / f"range-{name}.yaml") for name in ("spoken", "heard", "agreement"))
VOICE_SAMPLES = 20


def run(*command: object, stdin: BinaryIO | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, stdin=stdin)


def speak(kind: str, shared: Path, models: Path, work: Path) -> Path:
    """Recordings of the evaluation's own questions, in the two voices kept for them."""
    lines, folder = work / f"eval_{kind}.tsv", work / f"eval_{kind}"
    lines.write_bytes(subprocess.run([sys.executable, OWN / "spoken.py", kind], capture_output=True, check=True).stdout)
    with lines.open("rb") as said:
        run(sys.executable, shared / "tools" / "voices.py", models, folder, stdin=said)
    return folder


def voice(folder: Path) -> list[Path]:
    """Some recordings of the voice that the model learned from."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    learned = [folder / row["audio"] for row in rows if row["split"] == "train"]
    return learned[:: max(1, len(learned) // VOICE_SAMPLES)][:VOICE_SAMPLES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("shared", "models", "work"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    asked, ranged = (speak(kind, args.shared, args.models, args.work) for kind in ("questions", "range"))
    data = args.work / "eval_data"
    run(sys.executable, OWN / "data.py", args.shared / "data", data, "--questions", asked, "--range", ranged)
    whisper = args.models / "whisper-base"

    def evaluate(benchmarks: Sequence[str], models: Sequence[object], *options: object) -> None:
        named = [part for model in models for part in ("--model", model)]
        run("kimi-audio", "eval", ",".join(benchmarks), *named, "--data", data, "-o", "results", *options)

    evaluate(HEARD, ["tiny", f"whisper:{whisper}", f"whisper:{args.models / 'whisper-tiny.en'}"])
    likeness = [part for path in voice(data / "en_kathleen") for part in ("--voice", path)]
    evaluate(READ_ALOUD, ["recordings", "tiny"], "--recogniser", whisper, *likeness)
    evaluate(TIMES, ["tiny"])
    evaluate(ANSWERED_ALOUD, ["tiny"], "--recogniser", whisper)
    run("kimi-audio", "eval", "report", "results")


if __name__ == "__main__":
    main()
