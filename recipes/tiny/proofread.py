"""What the model says best: texts said several times, heard by the model's own phoneme head, and the clearest kept.

    python recipes/tiny/proofread.py models/tiny runs/tiny/hear CACHE SOUNDS --answers QUESTIONS.jsonl > proofread.jsonl
    python recipes/tiny/proofread.py … --lines LINES.tsv --tries 8             # texts: the last column of LINES
    python recipes/tiny/proofread.py … --letters LETTERS                       # letters, and these recordings of them

The texts are lines, answers of QUESTIONS (of `questions.py`), piece by piece, or the letters of the alphabet, as a word
is spelled aloud. The first try is greedy; where it is not heard as it is written, others are drawn (rejection
sampling, Yuan et al. 2023, arXiv 2308.01825); of letters, recordings `LETTERS/O_….wav` are tries, too. Many texts are
said together, each as a whole, not in chunks as a stream is. The clearest try of each goes to SOUNDS, unless none is
clear, and its codes to the cache of a recipe that trains the second model, which has the same tokenizer. Each line is a
conversation of it. The same arguments on the same machine give the same lines, and how unclear the greedy tries were
and the clearest are is told on standard error. One process at a time may write to a cache.
"""

import argparse
import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from string import ascii_uppercase
from typing import NamedTuple, TypeVar

import soundfile
import soxr
import torch
import torch.nn.functional as F
from replies import MAX_CHARACTERS, name_of
from torch import Tensor
from tqdm import tqdm

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.layout import load_parts
from kimi_audio.detokenizer.flow import solve
from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE
from kimi_audio.generation.aloud import SPARE_CODES
from kimi_audio.generation.decode import collect, decode
from kimi_audio.generation.sampling import SamplingParams
from kimi_audio.generation.speech_text import spoken_pieces
from kimi_audio.model import CODES_PER_PHONEME, SAMPLE_RATE, KimiAudio
from kimi_audio.prompt import Heard
from kimi_audio.tokenizer.acoustic import AcousticEncoder, num_tokens
from kimi_audio.tokenizer.phonemes import PhonemeReader, phoneme_classes
from kimi_audio.training.recipes.ears import CachedEars, Listening

T = TypeVar("T")

CLEAR, UNCLEAR = 0.06, 0.5
"""Nats a phoneme, by CTC: below the first no other try is made; from the second on a text is left out."""
SAMPLING = SamplingParams(audio_temperature=0.9, audio_top_k=20)
CODES_TOGETHER, CODES_TOGETHER_CPU = 8000, 400
"""Of speech that is made at once."""
SHARES = {
    "unit": 22, "capital": 14, "arithmetic": 10, "opposite": 10, "currency": 8, "repeat": 8, "order": 6, "spelling": 6,
    "language": 5, "continent": 5, "definition": 2, "smalltalk": 2,
}  # fmt: skip
"""How much of each kind of answer is drawn, while there is any left."""


class Spoken(NamedTuple):
    codes: list[int]
    samples_L: Tensor
    unclear: float


class ProofReader:
    """Says texts with a model and hears them with its phoneme head."""

    def __init__(self, model: KimiAudio) -> None:
        self.model = model
        assert isinstance(model.acoustic, AcousticEncoder) and isinstance(model.parts.phonemes, PhonemeReader)
        self.acoustic, self.reader = model.acoustic, model.parts.phonemes
        self.device = model.llm.model.norm.weight.device
        self.codes_together = CODES_TOGETHER_CPU if self.device.type == "cpu" else CODES_TOGETHER

    def clearest(
        self, texts: Sequence[str], tries: int, recordings: Mapping[str, Sequence[Path]]
    ) -> tuple[list[Spoken], list[Spoken]]:
        """Of each text the greedy try, and the clearest of so many and of its recordings; none follows a clear one."""
        greedy = self.said(texts, 0)
        best = list(greedy)

        def once_more(wanted: list[int], spoken: list[Spoken]) -> None:
            for n, one in zip(wanted, spoken, strict=True):
                best[n] = min(best[n], one, key=lambda spoken: spoken.unclear)

        def unclear() -> list[int]:
            return [n for n, spoken in enumerate(best) if spoken.unclear >= CLEAR]

        for seed in range(1, tries):
            if wanted := unclear():
                once_more(wanted, self.said([texts[n] for n in wanted], seed))
        for number in range(max(map(len, recordings.values()), default=0)):
            if wanted := [n for n in unclear() if number < len(recordings.get(texts[n], ()))]:
                said = [texts[n] for n in wanted]
                once_more(wanted, self.revoiced(said, [recordings[text][number] for text in said]))
        return greedy, best

    def revoiced(self, texts: Sequence[str], paths: Sequence[Path]) -> list[Spoken]:
        """Recordings of the texts, as the model would say them."""
        codes = self.model.semantic.encode([load_audio(path) for path in paths])
        return self.sounding([row.tolist() for row in codes], texts)

    def said(self, texts: Sequence[str], seed: int) -> list[Spoken]:
        """One try of each text: greedy with seed 0, else drawn."""
        model = self.model
        ids = [model.parts.encode_spoken(text) for text in texts]
        generator = torch.Generator(self.device).manual_seed(seed)
        steps = decode(model.llm, model.vocab, [model._reading(text) for text in texts],
                       [CODES_PER_PHONEME * len(row) + SPARE_CODES for row in ids],
                       SAMPLING if seed else SamplingParams(), output_type="both", generator=generator,
                       texts=ids)  # fmt: skip
        answers = collect(steps, model.vocab, len(texts))
        return self.sounding([answer.audio_codes(model.vocab) for answer in answers], texts)

    def sounding(self, codes: Sequence[list[int]], texts: Sequence[str]) -> list[Spoken]:
        """What these codes sound like, and how unclear the text is in it; those of one length are made together."""
        spoken = [Spoken([], torch.zeros(0), math.inf)] * len(texts)
        by_length: dict[int, list[int]] = defaultdict(list)
        for n, row in enumerate(codes):
            by_length[len(row)].append(n)
        by_length.pop(0, None)  # nothing was said
        for length, rows in by_length.items():
            for part in portions(rows, max(1, self.codes_together // length)):
                samples_BL = self.samples([codes[n] for n in part])
                unclear = self.unclear(samples_BL, [texts[n] for n in part])
                for n, samples_L, nats in zip(part, samples_BL.cpu(), unclear, strict=True):
                    spoken[n] = Spoken(codes[n], samples_L, nats)
        return spoken

    @torch.inference_mode()
    def samples(self, codes: Sequence[list[int]]) -> Tensor:
        """Sounds (B, L) of rows of equally many codes, from one and the same noise."""
        mouth = self.model.detokenizer
        assert mouth is not None
        flow, config, codes_BN = mouth.flow, mouth.config, torch.tensor(codes, device=self.device)
        generator = torch.Generator().manual_seed(0)
        noise_TM = torch.randn(FRAMES_PER_CODE * codes_BN.shape[1], flow.config.input_size, generator=generator)
        mel_BTM = solve(flow, noise_TM.to(self.device).expand(len(codes), -1, -1), codes_BN, config.schedule,
                        guidance=config.guidance, guidance_from=config.guidance_from)  # fmt: skip
        return mouth.vocoder(mel_BTM * flow.config.mel_std + flow.config.mel_mean).float()

    @torch.inference_mode()
    def unclear(self, samples_BL: Tensor, texts: Sequence[str]) -> list[float]:
        """Minus log-probability of the phonemes of each text in what is heard, for each of them."""
        lexicon = self.model.parts.lexicon
        assert lexicon is not None
        said = [phoneme_classes(lexicon.pronounce(text)) for text in texts]
        heard_LB = soxr.resample(samples_BL.T.cpu().numpy(), self.model.speech_rate, SAMPLE_RATE)
        heard_BL = torch.from_numpy(heard_LB).T.to(self.device)
        tokens = [num_tokens(heard_BL.shape[1])] * len(texts)
        features = self.acoustic.encode(list(self.acoustic.log_mel(heard_BL)), tokens)
        log_probs_TBC = torch.stack(self.reader.read(features), 1)
        frames, lengths = torch.tensor([len(log_probs_TBC)] * len(texts)), torch.tensor([len(row) for row in said])
        targets = torch.tensor([number for row in said for number in row], device=self.device)
        nats_B = F.ctc_loss(log_probs_TBC, targets, frames, lengths, reduction="none").cpu()
        return (nats_B / lengths).tolist()


def portions(items: list[T], size: int) -> list[list[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


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


def lines(path: Path) -> list[str]:
    """The different texts of a table for a synthesiser."""
    return list(dict.fromkeys(line.rsplit("\t", 1)[-1] for line in path.read_text(encoding="utf-8").splitlines()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("--answers", type=Path, nargs="+", default=[])
    parser.add_argument("--count", type=int, default=400, help="how many answers")
    parser.add_argument("--lines", type=Path)
    parser.add_argument("--letters", type=Path, help="recordings of letters, O_….wav")
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--unclear", type=float, default=UNCLEAR, help="from so many nats on a text is left out")
    parser.add_argument("--together", type=int, default=64, help="how many texts are said at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.sounds.mkdir(parents=True, exist_ok=True)
    proof = ProofReader(KimiAudio.from_pretrained(args.model, dtype="auto", device=args.device))
    ears = CachedEars(args.trained, load_parts(args.trained), args.cache, None, Listening())
    texts = [*(letters() if args.letters else ()), *answers(args.answers, args.count, args.seed)]
    texts += lines(args.lines) if args.lines else []
    said = [text for text in texts if proof.model.parts.encode_spoken(text)]
    recordings = {text: sorted(args.letters.glob(f"{text[0]}_*.wav")) for text in letters()} if args.letters else {}
    progress, before, after = tqdm(total=len(said), file=sys.stderr), [], []
    for part in portions(said, args.together):
        greedy, best = proof.clearest(part, args.tries, recordings)
        before += [spoken.unclear for spoken in greedy if math.isfinite(spoken.unclear)]
        after += [spoken.unclear for spoken in best if spoken.unclear < args.unclear]
        for text, spoken in zip(part, best, strict=True):
            if spoken.unclear >= args.unclear:
                continue
            path = (args.sounds / f"{name_of(text)}.wav").resolve()
            soundfile.write(path, spoken.samples_L.numpy(), proof.model.speech_rate)
            ears.answers.add(str(path), Heard(spoken.codes))
            content = {"role": "assistant", "message_type": "audio-text", "content": [str(path), text]}
            row = {"unclear": round(spoken.unclear, 3), "codes": spoken.codes, "messages": [content]}
            print(json.dumps(row, ensure_ascii=False), flush=True)
        progress.update(len(part))
    progress.close()
    if not after:
        raise SystemExit(f"none of the {len(said)} texts could be said clearly.")
    told = f"{len(said)} texts, {fmean(before):.3f} nats a phoneme; the {len(after)} kept, {fmean(after):.3f}"
    print(told, file=sys.stderr)


if __name__ == "__main__":
    main()
