"""Draw phrases that together teach the most words, and give each a synthetic voice.

    python recipes/tiny/phrases.py SENTENCES.tsv KNOWN.jsonl… --count 3500 --share flite:slt=26 --share … > lines.tsv

A model with few hours of speech mishears the words that it never met. Sentences (`id <TAB> sentence`) are cut into
phrases of 6 to 14 words; one after another the phrase is taken whose words are most worth hearing once more: a word's
worth is the square root of its count in SENTENCES, divided by one more than how often it was heard, in the transcripts
of the manifests KNOWN and in the phrases taken so far. Lines of the output as those of `sentences.py`. What share of
the words of SENTENCES was heard less than three times, before and after, is told on standard error.
"""

import argparse
import heapq
import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SHORTEST, LONGEST, LEAST = 6, 14, 4
OVERHEAD = 4
"""Words that a phrase of any length costs, in training time."""


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def phrases(sentence: str, rng: random.Random) -> Iterator[list[str]]:
    """A sentence in parts of random lengths."""
    left = words(sentence)
    while len(left) >= LEAST:
        length = rng.randint(SHORTEST, LONGEST)
        if len(left) - length < LEAST:
            length = len(left)
        yield left[:length]
        left = left[length:]


def choose(pool: list[list[str]], heard: Counter[str], count: int) -> Iterator[list[str]]:
    """The phrases most worth hearing, greedily; a heap of gains that are brought up to date when they come first."""
    total = Counter(word for phrase in pool for word in phrase)

    def gain(phrase: list[str]) -> float:
        worth = sum(math.sqrt(total[word]) / (1 + heard[word]) for word in set(phrase) if total[word] > 1)
        return worth / (len(phrase) + OVERHEAD)

    heap = [(-gain(phrase), number) for number, phrase in enumerate(pool)]
    heapq.heapify(heap)
    while heap and count:
        _, number = heapq.heappop(heap)
        now = gain(pool[number])
        if heap and now < -heap[0][0]:
            heapq.heappush(heap, (-now, number))
            continue
        heard.update(pool[number])
        count -= 1
        yield pool[number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("known", type=Path, nargs="*")
    parser.add_argument("--count", type=int, default=3500)
    parser.add_argument("--share", action="append", required=True, metavar="VOICE=WEIGHT")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    heard = Counter[str]()
    for path in args.known:
        for line in path.read_text(encoding="utf-8").splitlines():
            heard.update(words(json.loads(line).get("text") or ""))
    lines = [line.rsplit("\t", 1)[-1] for line in args.sentences.read_text(encoding="utf-8").splitlines()]
    pool = [phrase for line in lines for phrase in phrases(line, rng)]
    voices = {voice: float(weight) for voice, weight in (share.rsplit("=", 1) for share in args.share)}
    total, before = Counter(word for phrase in pool for word in phrase), heard.copy()
    for number, phrase in enumerate(choose(pool, heard, args.count)):
        voice = rng.choices(list(voices), list(voices.values()))[0]
        print(f"p{number:05}", voice, round(rng.uniform(0.85, 1.15), 2), " ".join(phrase), sep="\t")
    print(f"of {len(pool)} phrases; {rare(total, before):.1%} of words were rarely heard, now {rare(total, heard):.1%}",
          file=sys.stderr)  # fmt: skip


def rare(total: Counter[str], heard: Counter[str]) -> float:
    """Share of all words that were heard less than three times."""
    return sum(count for word, count in total.items() if heard[word] < 3) / sum(total.values())


if __name__ == "__main__":
    main()
