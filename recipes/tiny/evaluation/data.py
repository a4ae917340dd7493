"""The data folder that the small model is measured on: labelled sets, questions, and sounds in which nobody speaks.

    python recipes/tiny/evaluation/data.py $SHARED/data $WORK/eval_data --questions $WORK/eval_questions \\
        --range $WORK/eval_range
    kimi-audio eval … --data $WORK/eval_data

The sets of the first folder are linked. `quiet` gets silence, noise and music, the same in every run and none of those
that `quiet.py` writes for training; `written_questions` and `spoken_questions` the fixed questions, the latter from
recordings named by their ids (`q000.wav`; several voices: `q000_flite-awb.wav`); `range` the requests of `range.jsonl`,
whose recordings `spoken.py` names. Where an item has two turns, the first and its answer are its `history`.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))
import quiet
from questions import evaluation_questions
from spoken import recording_names

RATE, COUNT, SECONDS = 16_000, 12, 10
QUESTIONS = Path(__file__).parent / "questions.jsonl"


def tone(rng: np.random.Generator, length: int) -> np.ndarray:
    """A sine that glides between two frequencies."""
    start, end = rng.uniform(80, 4000, 2)
    return 0.3 * np.sin(2 * np.pi * np.cumsum(np.linspace(start, end, length)) / RATE)


def chords(rng: np.random.Generator, length: int) -> np.ndarray:
    """Plucked notes of a major scale over a held chord, two to five notes a second."""
    times, scale = np.arange(length) / RATE, np.array([0, 2, 4, 5, 7, 9, 11, 12])
    root, beat = rng.uniform(110, 330), 1 / rng.uniform(2, 5)
    chord = [0.05 * np.sin(2 * np.pi * root / 2 * 2 ** (step / 12) * times) for step in (0, 4, 7)]
    sound = np.sum(chord, axis=0)
    for onset in np.arange(0, times[-1], beat):
        pitch, since = root * 2 ** (rng.choice(scale) / 12), times - onset
        pluck = np.where(since >= 0, np.exp(-4 * np.maximum(since, 0)), 0)
        sound += 0.2 * pluck * np.sum([np.sin(2 * np.pi * pitch * n * since) / n for n in (1, 2, 3, 4)], axis=0)
    return sound


MAKERS = {"silence": [quiet.silence], "noise": [quiet.coloured_noise], "music": [chords, tone]}


def write_manifest(folder: Path, rows: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(lines, encoding="utf-8")


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(target.resolve())


def make_quiet(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind, makers in MAKERS.items():
        for make in makers:
            for number in range(COUNT):
                name = f"{make.__name__}-{number:02}"
                sound = make(np.random.default_rng([5, number]), SECONDS * RATE).astype(np.float32)
                soundfile.write(folder / f"{name}.flac", sound.clip(-1, 1), RATE)
                rows.append({"id": name, "audio": f"{name}.flac", "kind": kind, "duration": SECONDS})
    write_manifest(folder, rows)


def make_questions(out: Path, recordings: Path | None) -> None:
    written, spoken = [], []
    for line in QUESTIONS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        written.append(row)
        for path in sorted(recordings.glob(f"{row['id']}[._]*")) if recordings else []:
            link(out / "spoken_questions" / path.name, path)
            spoken.append(row | {"id": path.stem, "audio": path.name, "duration": soundfile.info(path).duration})
    write_manifest(out / "written_questions", written)
    if spoken:
        write_manifest(out / "spoken_questions", spoken)


def make_range(out: Path, wavs: Path) -> None:
    rows = []
    for row in evaluation_questions("range"):
        names = [f"{name}.wav" for name in recording_names(row)]
        for name in names:
            link(out / "range" / name, wavs / name)
        if "turns" in row:
            row["history"] = [{"role": "user", "message_type": "audio", "content": names[0]},
                              {"role": "assistant", "message_type": "text", "content": row["turns"][1]}]  # fmt: skip
        rows.append(row | {"audio": names[-1], "duration": soundfile.info(out / "range" / names[-1]).duration})
    write_manifest(out / "range", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--questions", type=Path, help="recordings of the questions")
    parser.add_argument("--range", type=Path, help="recordings of the requests within the model's range")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(path.parent for path in args.sets.glob("*/manifest.jsonl")):
        link(args.out / folder.name, folder)
    make_quiet(args.out / "quiet")
    make_questions(args.out, args.questions)
    if args.range:
        make_range(args.out, args.range)


if __name__ == "__main__":
    main()
