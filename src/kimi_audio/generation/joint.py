"""Joint CTC/attention decoding: transcripts that the language model and the phonemes heard agree on.

    ears = PhonemeEars(reader, lexicon, tokenizer.encode, JointSearch())
    for text_ids in joint_transcripts(llm, vocab, prompts, limits, ears):
        ...

A small language model alone writes what reads well; a CTC head over the encoder's frames (`tokenizer.phonemes`) knows
sounds and no words. Of the words that its phonemes may be (`generation.lattice`), a beam search chooses those that are
likely together, by both and by how frequent they are. Marks between words are the language model's. After Watanabe et
al. 2017, hybrid CTC/attention, with a lexicon; not part of the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from kimi_audio.errors import ConfigError
from kimi_audio.generation.decode import PromptBatch
from kimi_audio.generation.lattice import IMPOSSIBLE, Floats, Lattice, PronunciationTree, word_lattice
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import Prompt
from kimi_audio.pronunciation import MARKS, Lexicon
from kimi_audio.tokenizer.phonemes import PhonemeReader, without_silence
from kimi_audio.vocab import Vocabulary

LIKELY = 8
"""A capital letter, or a mark after a word, is only written where it is among so many likeliest ids."""
WELCOME = -3.0
"""Log-probability from which on a mark is tried."""
CLEAR = 0.3
"""Entropy of a phoneme in clear speech, in nats."""


@dataclass(frozen=True)
class JointSearch:
    """How to search; `beams` and `language_weight` may be set in ``generation_config.json``.

    Raises:
        ConfigError: when one of these is out of range.

    Attributes:
        beams: texts that are followed at once.
        language_weight: of the language model's log-probability, where that of the phonemes counts once; in speech that
            is less clear it is more, as the entropy of the phonemes is, up to twice as much.
        frequency_weight: of the log-probability of the words alone.
        word_cost: taken off that log-probability for every word, so that a long word is not heard as short ones.
        ahead_weight: of the same, of words that are still to come; it stands for the language model there.
        candidates: words tried after each text, the likeliest.
        margin: nats by which a text may be less likely than the likeliest one.
    """

    beams: int = 4
    language_weight: float = 1.0
    frequency_weight: float = 0.5
    word_cost: float = 4.0
    ahead_weight: float = 0.5
    candidates: int = 8
    margin: float = 6.0

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ConfigError(f"beams is {self.beams}; at least 1 is needed")
        if self.language_weight < 0:
            raise ConfigError(f"language_weight is {self.language_weight}; it may not be negative")


class PhonemeEars:
    """What words are heard, and how they are written.

    Args:
        encode: text to text ids.
    """

    def __init__(
        self, reader: PhonemeReader, lexicon: Lexicon, encode: Callable[[str], list[int]], search: JointSearch
    ) -> None:
        self.reader, self.lexicon, self.search = reader, lexicon, search
        self._encode = encode
        self._spellings: dict[tuple[int, bool], list[list[int]]] = {}

    @cached_property
    def tree(self) -> PronunciationTree:
        return PronunciationTree(self.lexicon)

    @cached_property
    def marks(self) -> frozenset[int]:
        """Ids of the marks that may follow a word."""
        return frozenset(ids[0] for mark in MARKS if len(ids := self._encode(mark)) == 1)

    def hear(self, prompt: Prompt) -> Lattice:
        """The words that may be said in the sounds of a prompt."""
        features_1TF = torch.cat(prompt.features, 1)
        log_probs_TC = without_silence(self.reader(features_1TF[0].to(self.reader.out.weight.device)))
        return word_lattice(log_probs_TC.cpu().numpy(), self.tree)

    def spellings(self, word: int, first: bool) -> list[list[int]]:
        """Ids of a word of the tree, and of the same with a capital letter."""
        if (word, first) not in self._spellings:
            plain = self.tree.words[word]
            written = [plain if first else f" {plain}" for plain in (plain, plain.capitalize())]
            self._spellings[word, first] = [self._encode(text) for text in written]
        return self._spellings[word, first]


class _Passage:
    """The lattice of a prompt, and which of its words may follow where a text has come to."""

    def __init__(self, lattice: Lattice, frequency_W: Floats, search: JointSearch):
        self.lattice, self.search = lattice, search
        self.language_weight = search.language_weight * min(max(1.0, lattice.doubt / CLEAR), 2.0)
        self.frequency_R = frequency_W[lattice.words_R] - search.word_cost
        self.worth_R = lattice.sounds_R + search.ahead_weight * self.frequency_R
        self.ahead_T = lattice.ahead(self.worth_R)
        self.words, self._cuts = np.unique(lattice.words_R, return_index=True)

    def following(self, reached_T: Floats) -> list[tuple[float, int]]:
        """The words that may come next, the best first: how good a whole path through each can be, and its place."""
        if not len(self.words):
            return []
        lattice = self.lattice
        hopes_R = reached_T[lattice.starts_R] + self.worth_R + self.ahead_T[lattice.ends_R]
        hopes = np.maximum.reduceat(hopes_R, self._cuts)
        return [(float(hopes[place]), int(place)) for place in np.argsort(-hopes) if hopes[place] > IMPOSSIBLE / 2]

    def extended(self, reached_T: Floats, place: int) -> Floats:
        """The best paths to each boundary after a text and one word more."""
        end = self._cuts[place + 1] if place + 1 < len(self._cuts) else len(self.worth_R)
        lattice, those = self.lattice, slice(self._cuts[place], end)
        longer_T = np.full_like(reached_T, IMPOSSIBLE)
        scores = reached_T[lattice.starts_R[those]] + lattice.sounds_R[those]
        np.maximum.at(longer_T, lattice.ends_R[those], scores)
        return longer_T

    def frequency(self, place: int) -> float:
        return float(self.frequency_R[self._cuts[place]])

    def scored(self, text: _Text) -> _Text:
        by_words = self.language_weight * text.language + self.search.frequency_weight * text.frequency
        return replace(text, score=text.sounds + by_words)


@dataclass(frozen=True)
class _Text:
    """A text that is followed.

    Attributes:
        passage: number of the prompt.
        reached_T: log-probability of the phonemes of its words in the frames up to each boundary.
        sounds: the same with all the best that may follow; of an ended text, up to the end.
        language: the language model's log-probability.
        frequency: of its words.
        rest: ids of its last word that are still to be written.
    """

    passage: int
    ids: list[int]
    reached_T: Floats
    sounds: float = 0.0
    language: float = 0.0
    frequency: float = 0.0
    rest: tuple[int, ...] = ()
    ended: bool = False
    score: float = 0.0


@torch.inference_mode()
def joint_transcripts(
    llm: AudioLLM,
    vocab: Vocabulary,
    prompts: Sequence[Prompt],
    limits: Sequence[int],
    ears: PhonemeEars,
) -> Iterator[list[int]]:
    """Text ids of each prompt's transcript, at most `limits`, in order, each when those before it are done."""
    batch = PromptBatch(llm, prompts, vocab.text_blank, False, max(limits))
    passages = [_Passage(ears.hear(prompt), ears.tree.frequency_W, ears.search) for prompt in prompts]
    live = [_Text(number, [], passage.lattice.silence_T) for number, passage in enumerate(passages)]
    best: dict[int, _Text] = {}
    following = 0
    while live:
        logits_NV, _ = batch.forward(True)
        assert logits_NV is not None
        likely_NK = logits_NV.topk(LIKELY).indices.tolist()
        log_probs_NV = logits_NV.float().log_softmax(-1).cpu().numpy()
        tried, rows = [], []
        for row, text in enumerate(live):
            passage = passages[text.passage]
            longer = _continued(text, log_probs_NV[row], set(likely_NK[row]), passage, vocab.text_eos, ears)
            tried += [passage.scored(text) for text in longer]
            rows += [row] * len(longer)
        kept = _kept(tried, best, limits, ears.search)
        kept = _in_place(kept, [rows[n] for n in kept])
        live = [tried[n] for n in kept]
        if kept:
            batch.keep([rows[n] for n in kept])
            batch.feed([(text.ids[-1], vocab.text_blank) for text in live])
        while following < len(prompts) and following not in {text.passage for text in live}:
            yield best[following].ids
            following += 1


def _continued(
    text: _Text, log_probs_V: np.ndarray, likely: set[int], passage: _Passage, eos: int, ears: PhonemeEars
) -> list[_Text]:
    """A text with each of the ids that may follow, and ended."""
    if text.rest:
        return [_with(text, text.rest[0], log_probs_V, rest=text.rest[1:])]
    search = ears.search
    words: list[tuple[float, float, int, list[int]]] = []
    following = passage.following(text.reached_T)[: 3 * search.candidates]
    for hope, place in following:
        if hope < following[0][0] - 2 * search.margin:
            break
        plain, capital = ears.spellings(passage.words[place], not text.ids)
        capital_first = capital[0] in likely and log_probs_V[capital[0]] > log_probs_V[plain[0]]
        ids = capital if capital_first else plain
        words.append((hope + passage.language_weight * float(log_probs_V[ids[0]]), hope, place, ids))
    longer = [
        _with(text, ids[0], log_probs_V, rest=tuple(ids[1:]), sounds=hope,
              reached_T=passage.extended(text.reached_T, place), frequency=text.frequency + passage.frequency(place))
        for _, hope, place, ids in sorted(words, reverse=True)[: search.candidates]
    ]  # fmt: skip
    if text.ids and text.ids[-1] not in ears.marks:
        longer += [_with(text, mark, log_probs_V) for mark in ears.marks & likely if log_probs_V[mark] > WELCOME]
    ended = replace(text, language=text.language + float(log_probs_V[eos]), sounds=text.reached_T[-1], ended=True)
    return [*longer, ended]


def _with(text: _Text, text_id: int, log_probs_V: np.ndarray, **changes: object) -> _Text:
    language = text.language + float(log_probs_V[text_id])
    return replace(text, ids=[*text.ids, text_id], language=language, **changes)  # type: ignore[arg-type]


def _kept(tried: Sequence[_Text], best: dict[int, _Text], limits: Sequence[int], search: JointSearch) -> list[int]:
    """Numbers of the texts that are followed on; `best` gets the best whole one of each passage."""
    kept: list[int] = []
    for passage in dict.fromkeys(text.passage for text in tried):
        ranked = sorted((n for n, text in enumerate(tried) if text.passage == passage), key=lambda n: -tried[n].score)
        whole = [tried[n] for n in ranked if tried[n].ended] + [text for text in [best.get(passage)] if text]
        going = {tuple(tried[n].ids): n for n in reversed(ranked) if not tried[n].ended}
        going = sorted(going.values(), key=lambda n: -tried[n].score)[: search.beams]
        going = [n for n in going if tried[n].score >= tried[ranked[0]].score - search.margin]
        if going and len(tried[going[0]].ids) >= limits[passage]:
            whole, going = [tried[going[0]]], []
        if whole:
            best[passage] = max(whole, key=lambda text: text.score)
            # What is below a whole text does not get above it, but for the little that `ahead_weight` misjudges.
            going = [n for n in going if tried[n].score > best[passage].score]
        kept += going
    return kept


def _in_place(kept: Sequence[int], rows: Sequence[int]) -> list[int]:
    """The texts in an order in which as many as may be stay in the row that they come from: what moves is copied."""
    placed: dict[int, int] = {}
    rest: list[int] = []
    for text, row in zip(kept, rows, strict=True):
        if row < len(kept) and row not in placed:
            placed[row] = text
        else:
            rest.append(text)
    return [placed[row] if row in placed else rest.pop() for row in range(len(kept))]
