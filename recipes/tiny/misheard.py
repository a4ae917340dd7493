"""Requests as the model may mishear them, out of their texts alone.

    python recipes/tiny/misheard.py MODEL RECORDINGS.jsonl… PAIRS.jsonl > questions_misheard.jsonl

"What is the capital of Hungary" is heard as "what is the capital of hungry", and a small language model that never met
that answers something else. Of the RECORDINGS (manifests with `text`) it is counted what MODEL's phoneme head hears in
place of each phoneme; each question of PAIRS (of `questions.py`) is then pronounced with phonemes drawn from that, and
written down as the likeliest words of its lattice, by sound and frequency. What differs from the question is printed,
with its answer, unless nobody could answer it any more. The same arguments give the same lines.
"""

import argparse
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import jiwer
import numpy as np
from numbers_in_words import in_words
from questions import as_heard
from tqdm import tqdm

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.layout import ModelParts, load_parts
from kimi_audio.generation.lattice import IMPOSSIBLE, Lattice, PronunciationTree, word_lattice
from kimi_audio.pronunciation import Lexicon
from kimi_audio.tokenizer.phonemes import CLASSES, PhonemeReader

SILENT = np.log(np.array([0.97] + [0.03 / len(CLASSES)] * len(CLASSES)))
LETTERS = {number: letter for letter, number in CLASSES.items()}
FREQUENCY_WEIGHT, WORD_COST = 0.7, 2.0
MOST_ERRORS = 0.5
"""Of the words of a question; beyond it nobody could answer."""
SPELLED = 0.1
"""Share of the words to spell, of which there are more than of all else."""
NUMBERS = {word for n in (*range(1, 21), *range(30, 100, 10), 100, 1000) for word in in_words(n).split()}

Frames = list[np.ndarray]


def spoken_phonemes(log_probs_TC: np.ndarray) -> tuple[str, Frames]:
    """The phonemes that a head hears, with what it thinks of each at its surest frame."""
    heard, frames = "", []
    best_T = log_probs_TC.argmax(1)
    for frame, best in enumerate(best_T):
        if best and (frame == 0 or best != best_T[frame - 1]):
            heard += LETTERS[int(best)]
            frames.append(log_probs_TC[frame])
        elif best and log_probs_TC[frame, best] > frames[-1][best]:
            frames[-1] = log_probs_TC[frame]
    return heard, frames


def confusions(parts: ModelParts, rows: list[dict]) -> dict[str, list[Frames]]:
    """What was heard in place of each phoneme of these recordings: a frame or none."""
    reader, lexicon, acoustic = parts.phonemes, parts.lexicon, parts.acoustic
    assert isinstance(reader, PhonemeReader) and isinstance(lexicon, Lexicon) and acoustic is not None
    bank: dict[str, list[Frames]] = defaultdict(list)
    for row in tqdm(rows, desc="listening", file=sys.stderr):
        said = "".join(letter for letter in lexicon.pronounce(row["text"]) if letter in CLASSES)
        heard, frames = spoken_phonemes(reader(acoustic(load_audio(row["audio"]))[0]).numpy())
        if not heard or jiwer.cer(said, heard) > MOST_ERRORS:
            continue
        for letter, place in instead_of(said, heard):
            bank[letter].append([frames[n] for n in place])
    return bank


def instead_of(said: str, heard: str) -> Iterator[tuple[str, range]]:
    """Each phoneme that was said, and the place of the one heard for it, if any; what else was heard is left out."""
    for chunk in jiwer.process_characters(said, heard).alignments[0]:
        count, end = chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx
        for n in range(count):
            first = min(chunk.hyp_start_idx + n, end)
            yield said[chunk.ref_start_idx + n], range(first, min(first + 1, end))


def pronounced(phonemes: str, bank: dict[str, list[Frames]], rng: random.Random) -> np.ndarray:
    """Log-probabilities (T, C) as if these phonemes had been heard, with silence around each."""
    frames: Frames = [SILENT]
    for letter in phonemes:
        if letter in bank:
            frames += [*rng.choice(bank[letter]), SILENT]
    return np.stack(frames).astype(np.float32)


def likeliest_words(lattice: Lattice, tree: PronunciationTree) -> str:
    """The best path by sound and by how frequent the words are."""
    worth_R = lattice.sounds_R + FREQUENCY_WEIGHT * (tree.frequency_W[lattice.words_R] - WORD_COST)
    ahead_T = lattice.ahead(worth_R)
    at, words = int((lattice.silence_T + ahead_T)[:-1].argmax()), []
    while at < len(ahead_T) - 1 and ahead_T[at] > IMPOSSIBLE / 2:
        best = int(np.where(lattice.starts_R == at, worth_R + ahead_T[lattice.ends_R], IMPOSSIBLE).argmax())
        words.append(tree.words[lattice.words_R[best]])
        at = int(lattice.ends_R[best])
    return " ".join(words)


def answerable(pair: dict, asked: str, heard: str) -> bool:
    """Whether what the answer repeats has been heard: numbers, the word to spell, the sentence to say."""
    words = heard.split()
    if pair["kind"] == "spelling":
        return pair["item"] in words
    if pair["kind"] == "repeat":
        return heard.endswith(as_heard(pair["item"]))
    return NUMBERS.intersection(asked.split()) <= set(words) and jiwer.wer(asked, heard) <= MOST_ERRORS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parts, rng = load_parts(args.model, with_detokenizer=False), random.Random(args.seed)
    assert parts.lexicon is not None
    rows = [json.loads(line) for path in args.recordings for line in path.read_text().splitlines()]
    bank, tree = confusions(parts, rows), PronunciationTree(parts.lexicon)
    pairs = [json.loads(line) for line in args.pairs.read_text().splitlines()]
    for pair in tqdm(pairs, desc="mishearing", file=sys.stderr):
        if pair["kind"] == "digits" or (pair["kind"] == "spelling" and rng.random() > SPELLED):
            continue
        asked = as_heard(pair["question"])
        phonemes = re.sub("[^a-zA-Z]", "", parts.lexicon.pronounce(asked))
        heard = likeliest_words(word_lattice(pronounced(phonemes, bank, rng), tree), tree)
        if heard != asked and answerable(pair, asked, heard):
            pair["messages"][0]["content"] = heard
            print(json.dumps({**pair, "question": heard}, ensure_ascii=False))


if __name__ == "__main__":
    main()
