"""Connectionist temporal classification: what a text is spelt with, and the loss.

    spelling = Spelling(tokenizer, texts)
    loss = ctc_loss([log_probs_TC], [spelling.encode("good morning")])
    spelling.decode(log_probs_TC.argmax(-1).tolist())

Class 0 is the blank everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import jiwer
import numpy as np
import tiktoken
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.text import QWEN_SPLIT, TextTokenizer

MIN_COUNT = 30
"""Tokens that the transcripts use less often are spelt with shorter ones: CTC learns little of what it rarely sees."""

LETTERS = " abcdefghijklmnopqrstuvwxyz'"


class Spelling:
    """BPE restricted to tokens that the transcripts use often.

    Class c > 0 stands for text id `ids[c - 1]`.
    """

    def __init__(self, tokenizer: TextTokenizer, texts: Sequence[str]) -> None:
        counts = Counter(token for text in texts for token in tokenizer.encode(" " + text))
        ranks = {token: rank for token, rank in tokenizer.ranks.items() if counts[rank] >= MIN_COUNT or len(token) == 1}
        self._bpe = tiktoken.Encoding("spelling", pat_str=QWEN_SPLIT, mergeable_ranks=ranks, special_tokens={})
        self.ids = sorted({token for text in texts for token in self._bpe.encode_ordinary(" " + text)})
        self._class_of = {token: number for number, token in enumerate(self.ids, start=1)}

    def encode(self, text: str) -> list[int]:
        """Classes of a text; tokens that the transcripts never used are left out."""
        tokens = self._bpe.encode_ordinary(" " + text)
        return [self._class_of[token] for token in tokens if token in self._class_of]

    def decode(self, classes: Sequence[int]) -> str:
        """Text of CTC's best path: repeats merged, blanks dropped."""
        return self._bpe.decode([self.ids[c - 1] for c in best_path(classes)]).strip()


def best_path(classes: Sequence[int]) -> list[int]:
    """What the most likely class at each position spells: repeats merged, blanks dropped."""
    path = np.array([0, *classes])
    return path[1:][(path[1:] != path[:-1]) & (path[1:] > 0)].tolist()


def class_error_rate(said: Sequence[Sequence[int]], read: Sequence[Sequence[int]]) -> float:
    """Errors of the classes that were read, for each that was said, over all recordings."""
    as_words = [[" ".join(map(str, classes)) for classes in recordings] for recordings in (said, read)]
    return float(jiwer.wer(as_words[0], as_words[1]))


def ctc_loss(log_probs: Sequence[Tensor], targets: Sequence[Sequence[int]]) -> Tensor:
    """Mean over the recordings of connectionist temporal classification per class; log_probs: (T, C) of each."""
    lengths = torch.tensor([len(log_probs_TC) for log_probs_TC in log_probs])
    classes, sizes = torch.tensor([c for target in targets for c in target]), torch.tensor([*map(len, targets)])
    padded_TBC = nn.utils.rnn.pad_sequence([*log_probs])
    return F.ctc_loss(padded_TBC, classes.to(padded_TBC.device), lengths, sizes, zero_infinity=True)


def letter_classes(text: str) -> list[int]:
    """Classes of a text's letters, numbers in `LETTERS` plus 1."""
    return [1 + LETTERS.index(letter) for letter in text.lower() if letter in LETTERS]


def letters_of(classes: Sequence[int]) -> str:
    """The text that classes of letters spell, without blanks."""
    return "".join(LETTERS[c - 1] for c in classes if c)


def positions_needed(target: Sequence[int]) -> int:
    """Least number of positions that CTC needs for a target: equal neighbours want a blank between them."""
    return len(target) + sum(a == b for a, b in pairwise(target))
