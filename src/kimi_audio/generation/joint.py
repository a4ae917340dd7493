"""Joint CTC/attention decoding: transcripts that the language model and the phonemes heard agree on.

    ears = PhonemeEars(reader, lexicon, tokenizer.decode, JointSearch())
    for text_ids in joint_transcripts(llm, vocab, prompts, limits, ears):
        ...

A small language model alone writes what reads well; a CTC head over the encoder's frames (`tokenizer.phonemes`) knows
sounds and no words. A beam search over the language model's ids adds the CTC prefix score of how their words are
pronounced (Watanabe et al. 2017, hybrid CTC/attention). Not part of the report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kimi_audio.errors import ConfigError
from kimi_audio.generation.ctc_prefix import Prefixes, start, without_silence
from kimi_audio.generation.decode import PromptBatch
from kimi_audio.generation.loops import repeated_unit
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import Prompt
from kimi_audio.pronunciation import Lexicon, sound_out
from kimi_audio.tokenizer.phonemes import PhonemeReader, phoneme_classes
from kimi_audio.vocab import Vocabulary

WORD = re.compile(r" ?(?:[A-Z]?[a-z']*|[,.?!])")


@dataclass(frozen=True)
class JointSearch:
    """How to search; `beams` and `ctc_weight` may be set in ``generation_config.json``.

    Raises:
        ConfigError: when one of these is out of range.

    Attributes:
        beams: texts that are followed at once.
        ctc_weight: of the phonemes' log-probability; that of the language model is one minus this.
        candidates: ids tried after each text, the likeliest.
        margin: nats by which an id may be less likely than the likeliest one.
        unknown_word: nats that a word costs which the lexicon does not have.
        threshold: nats below the best text at which another is given up.
    """

    beams: int = 4
    ctc_weight: float = 0.4
    candidates: int = 12
    margin: float = 8.0
    unknown_word: float = 2.0
    threshold: float = 3.0

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ConfigError(f"beams is {self.beams}; at least 1 is needed")
        if not 0 <= self.ctc_weight <= 1:
            raise ConfigError(f"ctc_weight is {self.ctc_weight}; a number from 0 to 1 is expected")


class PhonemeEars:
    """What phonemes are heard, and how texts sound, in classes of phonemes.

    Args:
        decode: text ids to text.
    """

    def __init__(
        self, reader: PhonemeReader, lexicon: Lexicon, decode: Callable[[list[int]], str], search: JointSearch
    ) -> None:
        self.reader, self.search = reader, search
        self._lexicon, self._decode = lexicon, decode
        self._sounds: dict[tuple[str, bool], list[int]] = {}
        self._known: dict[tuple[str, bool], bool] = {}
        self._is_word: dict[int, bool] = {}

    def hear(self, prompt: Prompt) -> Tensor:
        """Log-probabilities (T, C) of blank and phonemes in the sounds of a prompt."""
        features_1TF = torch.cat(prompt.features, 1)
        return without_silence(self.reader(features_1TF[0].to(self.reader.out.weight.device)))

    def is_word(self, text_id: int) -> bool:
        """Whether an id is of a word, or a mark between words: digits and odd signs escape what is heard."""
        if text_id not in self._is_word:
            self._is_word[text_id] = WORD.fullmatch(self._decode([text_id])) is not None
        return self._is_word[text_id]

    def words(self, ids: Sequence[int]) -> list[str]:
        """The words of a text, of which the last may go on."""
        return self._decode([*ids]).split(" ")

    def sounds(self, words: Sequence[str], go_on: bool = False) -> list[int]:
        """Classes of the phonemes of words; one that may go on and is not in the lexicon is sounded out."""
        for word in words:
            if (word, go_on) not in self._sounds:
                known = not go_on or word.lower() in self._lexicon.words
                said = self._lexicon.pronounce(word) if known else sound_out(word.lower())
                self._sounds[word, go_on] = phoneme_classes(said)
        return [sound for word in words for sound in self._sounds[word, go_on]]

    def unknown(self, words: Sequence[str], go_on: bool = False) -> int:
        """How many of the words are not in the lexicon, or may no more become one that is."""
        for word in words:
            if (word, go_on) not in self._known:
                letters = re.sub(r"[^a-z']", "", word.lower()).strip("'")
                known = not letters or self._lexicon.knows(letters) or (go_on and self._lexicon.begins(letters))
                self._known[word, go_on] = known
        return sum(not self._known[word, go_on] for word in words)


@dataclass(frozen=True)
class _Text:
    """A text that is followed.

    Attributes:
        passage: number of the prompt.
        ended: nothing follows its ids.
        settled: words that the CTC state of its row has; the last one, which may go on, is never among them.
        unknown: how many of those the lexicon does not have.
        attention: the language model's log-probability.
        score: that of both.
    """

    passage: int
    ids: list[int]
    ended: bool = False
    settled: int = 0
    unknown: int = 0
    attention: float = 0.0
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
    states = start([ears.hear(prompt) for prompt in prompts])
    live = [_Text(passage, []) for passage in range(len(prompts))]
    best: dict[int, _Text] = {}
    following = 0
    while live:
        logits_NV, _ = batch.forward(True)
        assert logits_NV is not None
        rows, tried = _continued(live, logits_NV.float().log_softmax(-1), vocab.text_eos, ears)
        tried, states = _heard(tried, states.select(_index(rows, states.last_N)), ears)
        kept = _kept(tried, best, limits, ears.search)
        live, states = [tried[n] for n in kept], states.select(_index(kept, states.last_N))
        if kept:
            batch.keep([rows[n] for n in kept])
            batch.feed([(text.ids[-1], vocab.text_blank) for text in live])
        while following < len(prompts) and following not in {text.passage for text in live}:
            yield best[following].ids
            following += 1


def _continued(
    live: Sequence[_Text], log_probs_NV: Tensor, eos: int, ears: PhonemeEars
) -> tuple[list[int], list[_Text]]:
    """Each text with each of the ids that may follow, and ended; and the rows that they come from."""
    values_NK, ids_NK = log_probs_NV.topk(ears.search.candidates, -1)
    rows, tried = [], []
    for row, (text, values, ids) in enumerate(zip(live, values_NK.tolist(), ids_NK.tolist(), strict=True)):
        longer = [
            replace(text, ids=[*text.ids, text_id], attention=text.attention + value)
            for text_id, value in zip(ids, values, strict=True)
            if value >= values[0] - ears.search.margin and ears.is_word(text_id)
        ]
        longer = [text for text in longer if not repeated_unit(text.ids)]
        if (end := float(log_probs_NV[row, eos])) >= values[0] - ears.search.margin or not longer:
            longer.append(replace(text, ended=True, attention=text.attention + end))
        tried += longer
        rows += [row] * len(longer)
    return rows, tried


def _heard(tried: Sequence[_Text], states: Prefixes, ears: PhonemeEars) -> tuple[list[_Text], Prefixes]:
    """The texts with their scores, and their CTC states."""
    words = [ears.words(text.ids) for text in tried]
    settled = [ears.sounds(said[text.settled : -1]) for text, said in zip(tried, words, strict=True)]
    last = [ears.sounds(said[-1:], not text.ended) for text, said in zip(tried, words, strict=True)]
    states = states.extend(settled)
    ahead = states.extend(last)
    weight, scored = ears.search.ctc_weight, []
    for text, said, begins, says in zip(tried, words, ahead.prefix_N.tolist(), ahead.whole_N.tolist(), strict=True):
        unknown = text.unknown + ears.unknown(said[text.settled : -1])
        score = (1 - weight) * text.attention + weight * (says if text.ended else begins)
        score -= ears.search.unknown_word * (unknown + ears.unknown(said[-1:], not text.ended))
        scored.append(replace(text, settled=len(said) - 1, unknown=unknown, score=score))
    return scored, states


def _kept(tried: Sequence[_Text], best: dict[int, _Text], limits: Sequence[int], search: JointSearch) -> list[int]:
    """Numbers of the texts that are followed on; `best` gets the best whole one of each passage."""
    kept: list[int] = []
    for passage in dict.fromkeys(text.passage for text in tried):
        ranked = sorted((n for n, text in enumerate(tried) if text.passage == passage), key=lambda n: -tried[n].score)
        whole = [tried[n] for n in ranked if tried[n].ended] + [text for text in [best.get(passage)] if text]
        going = [n for n in ranked if not tried[n].ended][: search.beams]
        going = [n for n in going if tried[n].score >= tried[going[0]].score - search.threshold]
        if going and len(tried[going[0]].ids) >= limits[passage]:
            whole, going = whole or [tried[going[0]]], []
        if whole:
            best[passage] = max(whole, key=lambda text: text.score)
            # Texts only get less likely as they grow: what is below a whole one does not get above it.
            going = [n for n in going if tried[n].score > best[passage].score]
        kept += going
    return kept


def _index(numbers: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64, device=like.device)
