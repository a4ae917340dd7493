"""Transcription speed and memory of the bundled model, beside faster-whisper tiny.en in int8 on the same files.

    python benchmarks/transcription.py --whisper WHISPER_TINY_EN -o benchmarks/results/transcription.jsonl
    python benchmarks/transcription.py --model FOLDER --dtype int8 a.wav b.wav

WHISPER_TINY_EN is an ordinary Hugging Face folder; it is converted to CTranslate2 first. Without files, the LibriSpeech
test clips of the shared data are transcribed. Each system has a process of its own, so that its peak memory is its own;
they take turns, round by round, and the figures are medians. Loading the model is not part of the time; the first file
is transcribed once before the clock starts.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from machine import report

SHARED = Path(os.environ.get("KIMI_AUDIO_SHARED", Path(__file__).parents[2] / "shared"))
CLIPS = SHARED / "data" / "en_librispeech_mini"


def transcriber(system: str, folder: str, dtype: str, threads: int) -> Callable[[str], str]:
    """Audio path in, text out."""
    if system == "kimi-audio":
        import torch

        from kimi_audio import KimiAudio

        torch.set_num_threads(threads)
        model = KimiAudio.from_pretrained(folder or None, dtype=dtype)
        return lambda path: model.transcribe(path).text
    from faster_whisper import WhisperModel

    whisper = WhisperModel(folder, device="cpu", compute_type=dtype, cpu_threads=threads)

    def transcribe(path: str) -> str:
        segments, _ = whisper.transcribe(path, language="en", beam_size=1, temperature=0.0)
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def worker(system: str, folder: str, dtype: str, threads: int, files: list[str]) -> None:
    """One round of one system; prints seconds and peak memory as JSON."""
    transcribe = transcriber(system, folder, dtype, threads)
    transcribe(files[0])
    started = time.perf_counter()
    words = sum(len(transcribe(path).split()) for path in files)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "words": words}))


def one_round(system: tuple[str, str, str], threads: int, files: list[str]) -> dict[str, float]:
    """`worker` in a fresh process."""
    command = [sys.executable, __file__, "--worker", *system, "--threads", str(threads), *files]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def test_clips() -> list[str]:
    rows = map(json.loads, (CLIPS / "manifest.jsonl").read_text().splitlines())
    return [str(CLIPS / row["audio"]) for row in rows if row["split"] == "test"]


def compare(systems: list[tuple[str, str, str]], threads: int, files: list[str], rounds: int) -> list[dict]:
    """One row per system, with medians over the rounds; ratios are to the first system."""
    from kimi_audio.audio.decode import load_audio

    sound = sum(len(load_audio(path)) for path in files) / 16000
    taken: list[list[dict[str, float]]] = [[] for _ in systems]
    for _ in range(rounds):
        for measured, system in zip(taken, systems, strict=True):
            measured.append(one_round(system, threads, files))
    rows = []
    for (name, folder, dtype), measured in zip(systems, taken, strict=True):
        median = {key: statistics.median(round_[key] for round_ in measured) for key in measured[0]}
        rows.append({
            "benchmark": "transcription", "system": name, "model": Path(folder).name, "dtype": dtype,
            "threads": threads, "files": len(files), "sound_seconds": round(sound, 1),
            "rtf": round(median["seconds"] / sound, 4), "peak_mib": round(median["peak_mib"]), "words": median["words"],
        })  # fmt: skip
    return [{**row, "rtf_ratio_to_first": round(row["rtf"] / rows[0]["rtf"], 2)} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="sound files")
    parser.add_argument("--model", default="", help="Kimi-Audio folder (default: the bundled model)")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--whisper", type=Path, help="Hugging Face Whisper folder to compare with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--worker", nargs=3, metavar=("SYSTEM", "FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    files = args.files or test_clips()
    if args.worker:
        system, folder, dtype = args.worker
        worker(system, folder, dtype, args.threads, files)
        return
    systems = [("kimi-audio", args.model, args.dtype)]
    if args.whisper is None:
        report(compare(systems, args.threads, files, args.rounds), args.output)
        return
    from kimi_audio.evaluation.whisper import converted_whisper

    with converted_whisper(args.whisper, "int8") as folder:
        rows = compare([*systems, ("faster-whisper", str(folder), "int8")], args.threads, files, args.rounds)
    report([*rows[:1], {**rows[1], "model": args.whisper.name}], args.output)


if __name__ == "__main__":
    main()
