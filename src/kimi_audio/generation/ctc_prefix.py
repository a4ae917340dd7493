"""CTC prefix scores: how likely a recording is to begin with given letters (Watanabe et al. 2017).

    texts = start([without_silence(log_probs_TC), ...])      # the empty text of each recording; class 0 is the blank
    texts = texts.select(rows_N)                             # candidates, in any number
    texts = texts.extend([[3, 1, 20], [4, 15, 7], ...])      # the letters that each of them adds
    texts.prefix_N, texts.whole_N                            # log-probabilities: that it begins so, that this is all

The recurrences over time are linear, so each is a cumulative sum in the log domain, for all candidates at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

IMPOSSIBLE = -1e30
AFTER_THE_END = -50.0
"""Log-probability of a letter after the end of a recording that is padded."""
SURE = 0.98
"""Probability of the blank from which on a frame counts as silent."""


@dataclass(frozen=True)
class Prefixes:
    """N texts, each with the forward variables of CTC over the T frames of its recording.

    Attributes:
        frames_NTC, sums_NTC: log-probabilities of the classes, and their running sums over time.
        letter_NT, blank_NT: log-probability that the first frames spell the text and end in its last letter, or in a
            blank.
        last_N: class of the last letter, 0 before the first.
        prefix_N: log-probability that what the recording says begins so.
    """

    frames_NTC: Tensor
    sums_NTC: Tensor
    letter_NT: Tensor
    blank_NT: Tensor
    last_N: Tensor
    prefix_N: Tensor

    @property
    def whole_N(self) -> Tensor:
        """Log-probability that the recording says this and no more."""
        return torch.logaddexp(self.letter_NT[:, -1], self.blank_NT[:, -1])

    def select(self, rows_N: Tensor) -> Prefixes:
        """The texts of these numbers, in this order."""
        return Prefixes(*(getattr(self, field.name)[rows_N] for field in fields(self)))

    def extend(self, letters: Sequence[Sequence[int]]) -> Prefixes:
        """Each text with its letters after it; one that gets none stays as it is."""
        longer = self
        for place in range(max(map(len, letters), default=0)):
            rows = [n for n, added in enumerate(letters) if len(added) > place]
            rows_M = torch.tensor(rows, device=self.last_N.device)
            more = longer.select(rows_M)._with(rows_M.new_tensor([letters[n][place] for n in rows]))
            changed = ("letter_NT", "blank_NT", "last_N", "prefix_N")
            longer = replace(
                longer, **{name: getattr(longer, name).index_copy(0, rows_M, getattr(more, name)) for name in changed}
            )
        return longer

    def _with(self, letter_N: Tensor) -> Prefixes:
        """Each text with one letter after it."""
        at_NT1 = letter_N[:, None, None].expand(-1, self.frames_NTC.shape[1], 1)
        frames_NT, sums_NT = self.frames_NTC.gather(2, at_NT1)[..., 0], self.sums_NTC.gather(2, at_NT1)[..., 0]
        # Between a letter and the same one again there must be a blank.
        either_NT = torch.logaddexp(self.blank_NT, self.letter_NT)
        before_NT = torch.where((letter_N == self.last_N)[:, None], self.blank_NT, either_NT)
        begins_N1 = torch.where(self.last_N == 0, 0.0, IMPOSSIBLE).to(before_NT)[:, None]
        before_NT = torch.cat([begins_N1, before_NT[:, :-1]], 1)
        letter_NT = sums_NT + torch.logcumsumexp(before_NT - sums_NT + frames_NT, 1)
        ended_NT = torch.cat([torch.full_like(begins_N1, IMPOSSIBLE), letter_NT[:, :-1]], 1)
        blanks_NT, blank_sums_NT = self.frames_NTC[..., 0], self.sums_NTC[..., 0]
        blank_NT = blank_sums_NT + torch.logcumsumexp(ended_NT - blank_sums_NT + blanks_NT, 1)
        prefix_N = (before_NT + frames_NT).logsumexp(1)
        return Prefixes(self.frames_NTC, self.sums_NTC, letter_NT, blank_NT, letter_N, prefix_N)


def start(log_probs: Sequence[Tensor]) -> Prefixes:
    """The empty text of each recording; log_probs: (T, C) of each, T ≥ 1."""
    longest = max(map(len, log_probs))
    frames_NTC = log_probs[0].new_full((len(log_probs), longest, log_probs[0].shape[1]), AFTER_THE_END).double()
    frames_NTC[..., 0] = 0.0
    for frames_TC, log_probs_TC in zip(frames_NTC, log_probs, strict=True):
        frames_TC[: len(log_probs_TC)] = log_probs_TC
    sums_NTC = frames_NTC.cumsum(1)
    blank_NT = sums_NTC[..., 0]
    nothing_N = blank_NT.new_zeros(len(log_probs))
    return Prefixes(frames_NTC, sums_NTC, torch.full_like(blank_NT, IMPOSSIBLE), blank_NT, nothing_N.long(), nothing_N)


def without_silence(log_probs_TC: Tensor) -> Tensor:
    """Frames that are surely blank, which most are, joined where they follow each other: (T', C), T' ≤ T."""
    silent_T = log_probs_TC[:, 0] > torch.tensor(SURE).log()
    joins_T = silent_T & torch.cat([silent_T.new_zeros(1), silent_T[:-1]])
    place_T = (~joins_T).cumsum(0) - 1
    joined_TC = log_probs_TC.new_full((int(place_T[-1]) + 1, log_probs_TC.shape[1]), -torch.inf)
    joined_TC.scatter_reduce_(0, place_T[:, None].expand_as(log_probs_TC), log_probs_TC, "amax")
    joined_TC[:, 0] = torch.zeros_like(joined_TC[:, 0]).index_add(0, place_T, log_probs_TC[:, 0])
    return joined_TC
