"""What the model says best: texts said several times, heard by the model's own phoneme head, and the clearest kept.

    python recipes/tiny/proofread.py models/tiny runs/tiny/hear runs/tiny/cache SOUNDS QUESTIONS.jsonl > proofread.jsonl
    python recipes/tiny/proofread.py … --count 0 --letters LETTERS                 # letters alone, and these recordings

The texts are the letters of the alphabet, as a word is spelled aloud, and answers of QUESTIONS (of `questions.py`),
piece by piece. The first try is greedy; where it is not heard as it is written, others are drawn (rejection sampling,
Yuan et al. 2023, arXiv 2308.01825); of letters, recordings `LETTERS/O_….wav` are tries, too. What was said goes
to SOUNDS, and its codes to the cache of a recipe that trains the second model, which has the same tokenizer. Each line
is a conversation of it. The same arguments give the same lines. One process at a time may write to a cache.
"""

import argparse
import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

import soundfile
import soxr
import torch
import torch.nn.functional as F
from replies import MAX_CHARACTERS, name_of
from torch import Tensor
from tqdm import tqdm

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.layout import load_parts
from kimi_audio.detokenizer.streaming import Noise
from kimi_audio.generation.speech_text import spoken_pieces
from kimi_audio.model import SAMPLE_RATE, KimiAudio
from kimi_audio.prompt import Heard
from kimi_audio.tokenizer.acoustic import AcousticEncoder
from kimi_audio.tokenizer.phonemes import PhonemeReader, phoneme_classes
from kimi_audio.training.recipes.ears import CachedEars, Listening

CLEAR = 0.06
"""Nats a phoneme, by CTC, below which no other try is made."""
TRIES = 5
SAMPLING = {"audio_temperature": 0.9, "audio_top_k": 20}
SHARES = {
    "unit": 22, "capital": 14, "arithmetic": 10, "opposite": 10, "currency": 8, "repeat": 8, "order": 6, "spelling": 6,
    "language": 5, "continent": 5, "definition": 2, "smalltalk": 2,
}  # fmt: skip
"""How much of each kind of answer is drawn, while there is any left."""


class Spoken(NamedTuple):
    codes: tuple[int, ...]
    samples_L: Tensor
    unclear: float


class ProofReader:
    """Says texts with a model and hears them with its phoneme head."""

    def __init__(self, model: KimiAudio) -> None:
        self.model = model
        assert isinstance(model.acoustic, AcousticEncoder) and isinstance(model.parts.phonemes, PhonemeReader)
        self.acoustic, self.reader = model.acoustic, model.parts.phonemes

    def clearest(self, text: str, tries: int, recordings: Sequence[Path]) -> Spoken:
        """The clearest of so many tries, and of recordings; no other try is made where one is clear."""
        best = Spoken((), torch.zeros(0), math.inf)
        for spoken in chain((self.said(text, seed) for seed in range(tries)),
                            (self.revoiced(text, path) for path in recordings)):  # fmt: skip
            best = min(best, spoken, key=lambda spoken: spoken.unclear)
            if best.unclear < CLEAR:
                break
        return best

    def revoiced(self, text: str, recording: Path) -> Spoken:
        """A recording of the text, as the model would say it."""
        codes = self.model.semantic.encode([load_audio(recording)])[0].tolist()
        assert self.model.detokenizer is not None
        samples_L = self.model.detokenizer(codes, seeded_noise())
        return Spoken(tuple(codes), samples_L, self.unclear(samples_L, text))

    def said(self, text: str, seed: int) -> Spoken:
        options, prompt = SAMPLING if seed else {}, self.model._reading(text)
        with closing(self.model._answer(prompt, "both", seed, None, options, reads=text)) as answer:
            for _ in answer:
                pass
        assert answer.reply.audio is not None
        samples_L = torch.from_numpy(answer.reply.audio)
        return Spoken(answer.reply.codes, samples_L, self.unclear(samples_L, text))

    def unclear(self, samples_L: Tensor, text: str) -> float:
        """Minus log-probability of the text's phonemes in what is heard, for each of them."""
        assert self.model.parts.lexicon is not None
        said = phoneme_classes(self.model.parts.lexicon.pronounce(text))
        heard_L = soxr.resample(samples_L.numpy(), self.model.speech_rate, SAMPLE_RATE)
        log_probs_TC = self.reader(self.acoustic(heard_L)[0].to(self.reader.out.weight)).float()
        frames, classes = torch.tensor([len(log_probs_TC)]), torch.tensor([said])
        return F.ctc_loss(log_probs_TC[:, None], classes, frames, torch.tensor([len(said)])).item()


def seeded_noise() -> Noise:
    generator = torch.Generator().manual_seed(0)
    return lambda frames, bins: torch.randn(frames, bins, generator=generator)


def letters() -> list[str]:
    """As pieces of a word that is spelled aloud."""
    return [f"{letter}." for letter in ascii_uppercase]


def answers(manifests: list[Path], count: int, seed: int) -> list[str]:
    """The pieces of so many answers, of each kind its share."""
    rng, kinds = random.Random(seed), defaultdict(set)
    for path in manifests:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            kinds[row["kind"]].add(row["messages"][-1]["content"])
    left = {kind: rng.sample(sorted(kinds[kind]), len(kinds[kind])) for kind in SHARES}
    drawn: list[str] = []
    while len(drawn) < count and (open_kinds := [kind for kind in SHARES if left[kind]]):
        [kind] = rng.choices(open_kinds, [SHARES[kind] for kind in open_kinds])
        drawn.append(left[kind].pop())
    pieces = (piece for answer in drawn for piece in spoken_pieces(answer, MAX_CHARACTERS, join_sentences=False))
    return [piece for piece in dict.fromkeys(pieces) if piece not in letters()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("questions", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--letters", type=Path, help="recordings of letters, O_….wav")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.sounds.mkdir(parents=True, exist_ok=True)
    proof = ProofReader(KimiAudio.from_pretrained(args.model, dtype="auto"))
    ears = CachedEars(args.trained, load_parts(args.trained), args.cache, None, Listening())
    texts = [*(letters() if args.letters else ()), *answers(args.questions, args.count, args.seed)]
    for text in tqdm(texts, file=sys.stderr):
        recordings = sorted(args.letters.glob(f"{text[0]}_*.wav")) if args.letters and text in letters() else []
        spoken = proof.clearest(text, TRIES, recordings)
        path = (args.sounds / f"{name_of(text)}.wav").resolve()
        soundfile.write(path, spoken.samples_L.numpy(), proof.model.speech_rate)
        ears.answers.add(str(path), Heard(list(spoken.codes)))
        said = {"role": "assistant", "message_type": "audio-text", "content": [str(path), text]}
        print(json.dumps({"unclear": round(spoken.unclear, 3), "messages": [said]}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
