"""What the small model says: answers and texts for its own voice, and the manifests that teach it to speak them.

    python recipes/tiny/replies.py lines QUESTIONS.jsonl… --texts SENTENCES.tsv --voice piper:joe > lines.tsv
    python recipes/tiny/replies.py manifests lines.tsv WAVS OUT --questions QUESTIONS.jsonl… --read READ.train.jsonl

QUESTIONS are manifests of conversations, spoken (`questions.train.jsonl`) or written. `lines` gives each different
answer and some sentences to the voice of the assistant, a line each (`name <TAB> voice <TAB> speed <TAB> text`), for a
synthesiser. `manifests` writes `talk` (conversations whose answers are written and spoken), `say` (texts to read aloud:
the same answers and sentences, and the recordings of READ) and `alone` (the same speech with nothing before it, which
is all that an audio branch needs), each as `.train.jsonl` and `.dev.jsonl`.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

MAX_CHARACTERS, MAX_SECONDS = 110, 9.0
PACE = (0.88, 0.98)
"""Of the voice: a little slower than it speaks by itself."""


def name_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def answers(paths: list[Path]) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows of conversations with one answer each, and the answer."""
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            text = row["messages"][-1]["content"]
            if len(text) <= MAX_CHARACTERS:
                yield row, text


def answer_of(row: dict[str, Any]) -> dict[str, Any]:
    """A recording and its text as what the assistant says."""
    return {"role": "assistant", "message_type": "audio-text", "content": [row["audio"], row["text"]]}


def as_written(text: str, rng: random.Random) -> str:
    """Half of the lower-case sentences get a capital and a full stop: users write both ways.

    An eighth is cut to one to three words, another eighth to two sentences.
    """
    words, kind = text.split(), rng.random()
    if kind < 0.125:
        text = " ".join(words[: rng.randint(1, 3)])
    elif kind < 0.25 and len(words) > 3:
        middle = rng.randint(2, len(words) - 2)
        return f"{_sentence(' '.join(words[:middle]))} {_sentence(' '.join(words[middle:]))}"
    return _sentence(text) if rng.random() < 0.5 else text


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def lines(args: argparse.Namespace) -> None:
    rng = random.Random(args.seed)
    texts = dict.fromkeys(text for _, text in answers(args.conversations))
    sentences = [line.rsplit("\t", 1)[-1].lower() for line in args.texts.read_text().splitlines()] if args.texts else []
    fitting = [sentence for sentence in sentences if len(sentence) <= MAX_CHARACTERS]
    drawn = [as_written(text, rng) for text in rng.sample(fitting, min(args.sentences, len(fitting)))]
    for text in [*texts, *drawn]:
        print(name_of(text), args.voice, round(rng.uniform(*PACE), 2), text, sep="\t")


def manifests(args: argparse.Namespace) -> None:
    spoken = {}
    for line in args.lines.read_text(encoding="utf-8").splitlines():
        name, _, _, text = line.split("\t")
        audio = args.wavs / f"{name}.wav"
        if audio.exists() and (duration := soundfile.info(audio).duration) <= MAX_SECONDS:
            spoken[text] = {"audio": str(audio.resolve()), "duration": round(duration, 3), "text": text}
    talk = []
    for row, text in answers(args.questions):
        if text in spoken:
            talk.append({"messages": [*row["messages"][:-1], answer_of(spoken[text])]})
    read = [json.loads(line) for path in args.read for line in path.read_text(encoding="utf-8").splitlines()]
    aloud = [{name: row[name] for name in ("audio", "duration", "text")} for row in [*spoken.values(), *read]]
    aloud = [row for row in aloud if row["duration"] <= MAX_SECONDS]
    alone = [{"messages": [answer_of(row)]} for row in aloud]
    for kind, rows in (("talk", talk), ("say", aloud), ("alone", alone)):
        for split, chosen in (("dev", rows[::50]), ("train", [row for n, row in enumerate(rows) if n % 50])):
            path = args.out / f"{kind}.{split}.jsonl"
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen), encoding="utf-8")
            print(f"{path.name}: {len(chosen)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("lines")
    first.add_argument("conversations", type=Path, nargs="+")
    first.add_argument("--texts", type=Path)
    first.add_argument("--sentences", type=int, default=1500)
    first.add_argument("--voice", default="piper:joe")
    first.add_argument("--seed", type=int, default=0)
    first.set_defaults(run=lines)
    second = commands.add_parser("manifests")
    second.add_argument("lines", type=Path)
    second.add_argument("wavs", type=Path)
    second.add_argument("out", type=Path)
    second.add_argument("--questions", type=Path, nargs="+", default=[])
    second.add_argument("--read", type=Path, nargs="*", default=[])
    second.set_defaults(run=manifests)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
