"""Draw sentences from a text file and give each a synthetic voice (report §3.2: speech synthesised for training).

    python recipes/tiny/sentences.py SENTENCES.tsv --seed 0 --share piper:joe=2000 --share flite:slt=1000 > lines.tsv

SENTENCES.tsv holds `id <TAB> sentence` lines. The output has one line per utterance, `name <TAB> voice <TAB> speed
<TAB> text`, which a synthesiser turns into `name.wav`. The same arguments give the same lines.
"""

import argparse
import random
from pathlib import Path

MIN_WORDS, MAX_WORDS = 3, 38


def draw(sentences: list[tuple[str, str]], shares: dict[str, int], seed: int) -> list[tuple[str, str, float, str]]:
    """Utterances (name, voice, speed, text): no sentence is spoken twice, speeds vary by ±15 %."""
    rng = random.Random(seed)
    pool = [(key, text.lower()) for key, text in sentences if MIN_WORDS <= len(text.split()) <= MAX_WORDS]
    rng.shuffle(pool)
    lines = []
    for voice, count in shares.items():
        for key, text in (pool.pop() for _ in range(min(count, len(pool)))):
            name = f"{voice.replace(':', '-').replace('+', '-')}_{key}"
            lines.append((name, voice, round(rng.uniform(0.85, 1.15), 2), text))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--share", action="append", default=[], metavar="VOICE=COUNT")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = [line.split("\t", 1) for line in args.sentences.read_text().splitlines() if "\t" in line]
    shares = {voice: int(count) for voice, count in (share.rsplit("=", 1) for share in args.share)}
    for name, voice, speed, text in draw([(key, text) for key, text in rows], shares, args.seed):
        print(name, voice, speed, text, sep="\t")


if __name__ == "__main__":
    main()
