"""Bring real and synthetic recordings into the manifests that the tiny recipe trains on.

    python recipes/tiny/manifests.py DATA OUT --spoken LINES.tsv WAVS --questions LINES.tsv WAVS --chat chat.jsonl

DATA is a folder of labelled sets, each with a `manifest.jsonl` (fields `audio`, `split`, `duration`, `text` or
`label`). OUT gets speech (`read`, `accented`, `words`, synthetic `sentences`), `sound`, `emotion`, `noise`, `quiet`
(nobody speaks: the empty transcript) and `questions` (spoken ones with their answers), each as `.train.jsonl` and
`.dev.jsonl`; nothing of a `test` split is read. `--spoken` and `--questions` add synthetic speech: the lines of
`sentences.py` or `questions.py` and the folder of recordings made from them; `--chat` tells the answers to spoken
prompts of `chat.py`, `--texts` is the table that `questions.py` had, `--quiet` the folder that `quiet.py` fills, and
`--instructions` gives the manifest `instructions`, recordings of our own instructions.
Transcripts become lower case a–z and apostrophes; what cannot be written so (digits, symbols) is left out.
"""

import argparse
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import soundfile
from questions import chat_pairs, pairs

from kimi_audio.training.objectives.sft import instructions

SPEECH = {
    "read": ("en_librispeech_mini", "en_kathleen", "en_misc", "en_asterisk"),
    "accented": ("en_speechocean762",),
    "words": ("en_words_gcompris", "en_keywords", "digits_fsdd"),
}
MAX_SECONDS = 20.0
PLAIN_LABELS = {"door - wood creaks": "creaking wooden door", "drinking - sipping": "drinking"}


def normalised(text: str) -> str | None:
    """Lower case, hyphens as spaces, no punctuation; None if a digit or a symbol remains."""
    text = text.lower().replace("’", "'").replace("-", " ")
    text = re.sub(r"[.,;:!?\"()“”…]", " ", text)
    text = " ".join(text.split())
    return text if text and re.fullmatch(r"[a-z' ]+", text) else None


def rows_of(folder: Path, splits: tuple[str, ...] = ("train", "dev")) -> Iterator[dict]:
    """Rows of one set with absolute audio paths."""
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["split"] in splits and row["duration"] <= MAX_SECONDS:
            yield {**row, "audio": str((folder / row["audio"]).resolve()), "set": folder.name}


def speech(data: Path, kind: str) -> Iterator[dict]:
    for name in SPEECH[kind]:
        for row in rows_of(data / name):
            if text := normalised(row.get("text") or ""):
                yield kept(row, text=text)


def sound(data: Path) -> Iterator[dict]:
    return (kept(row, label=PLAIN_LABELS.get(row["label"], row["label"])) for row in rows_of(data / "sound_esc50"))


def emotion(data: Path) -> Iterator[dict]:
    return (kept(row, text=normalised(row["text"]), label=row["label"]) for row in rows_of(data / "emotion_ravdess"))


def noise(data: Path) -> Iterator[dict]:
    """Noises without words, of any length."""
    for line in (data / "noise_rir" / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["label"] == "noise" and row["split"] == "train":
            yield kept({**row, "audio": str((data / "noise_rir" / row["audio"]).resolve()), "set": "noise_rir"})


def quiet(data: Path, made: Path | None) -> Iterator[dict]:
    """Sounds without words, to be transcribed as nothing: sound events, and what `quiet.py` made."""
    yield from (kept(row, text="") for row in rows_of(data / "sound_esc50"))
    for number, audio in enumerate(sorted(made.glob("*.flac")) if made else []):
        row = {"audio": str(audio.resolve()), "set": "quiet", "duration": soundfile.info(audio).duration}
        yield kept({**row, "split": "dev" if number % 20 == 0 else "train"}, text="")


def recorded(lines: Path, wavs: Path) -> Iterator[tuple[str, dict]]:
    """(text, row) of the lines whose recording exists, one in fifty for dev."""
    for number, line in enumerate(lines.read_text().splitlines()):
        name, voice, _, text = line.split("\t")
        audio = wavs / f"{name}.wav"
        if audio.exists() and 0.3 < (duration := soundfile.info(audio).duration) <= MAX_SECONDS:
            split = "dev" if number % 50 == 0 else "train"
            row = {"audio": str(audio.resolve()), "split": split, "set": wavs.name, "speaker": voice}
            yield text, {**row, "duration": round(duration, 3)}


def synthetic(lines: Path, wavs: Path) -> Iterator[dict]:
    for text, row in recorded(lines, wavs):
        if target := normalised(text):
            yield kept(row, text=target)


def questions(lines: Path, wavs: Path, chat: Path | None, texts: Path | None) -> Iterator[dict]:
    """Spoken questions, as recordings with a transcript and as conversations; none whose pair is no longer there."""
    known = {pair.question: pair for pair in (*pairs(texts=texts), *(chat_pairs(chat) if chat else ()))}
    for asked, row in recorded(lines, wavs):
        if pair := known.get(asked):
            messages = [{"role": "user", "message_type": "audio", "content": row["audio"]},
                        {"role": "assistant", "message_type": "text", "content": pair.answer}]  # fmt: skip
            yield kept(row, text=normalised(asked), kind=pair.kind, question=asked) | {"messages": messages}


def spoken_instructions(lines: Path, wavs: Path) -> Iterator[dict]:
    """Recordings of the bundled instructions: `task`, and as `text` the wording in its file."""
    folder = files("kimi_audio.training") / "instructions"
    tasks = [entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt")]
    known = {wording.lower(): (task, wording) for task in sorted(tasks) for wording in instructions(task)}
    for said, row in recorded(lines, wavs):
        if said in known:
            task, wording = known[said]
            yield kept(row, task=task, text=wording)


def kept(row: dict, **labels: str | None) -> dict:
    return {key: row.get(key) for key in ("audio", "split", "set", "speaker", "duration")} | labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--spoken", nargs=2, action="append", default=[], type=Path, metavar=("LINES", "WAVS"))
    parser.add_argument("--questions", nargs=2, action="append", default=[], type=Path, metavar=("LINES", "WAVS"))
    parser.add_argument("--instructions", nargs=2, action="append", default=[], type=Path, metavar=("LINES", "WAVS"))
    parser.add_argument("--chat", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--quiet", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kinds = {
        **{kind: list(speech(args.data, kind)) for kind in SPEECH},
        "sentences": [row for lines, wavs in args.spoken for row in synthetic(lines, wavs)],
        "sound": list(sound(args.data)), "emotion": list(emotion(args.data)), "noise": list(noise(args.data)),
        "quiet": list(quiet(args.data, args.quiet)),
        "questions": [row for lines, wavs in args.questions for row in questions(lines, wavs, args.chat, args.texts)],
        "instructions": [row for lines, wavs in args.instructions for row in spoken_instructions(lines, wavs)],
    }  # fmt: skip
    for kind, rows in kinds.items():
        for split in ("train", "dev"):
            chosen = [row for row in rows if row["split"] == split]
            path = args.out / f"{kind}.{split}.jsonl"
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen))
            print(f"{path.name}: {len(chosen)} clips, {sum(row['duration'] for row in chosen) / 3600:.2f} h")


if __name__ == "__main__":
    main()
