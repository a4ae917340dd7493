"""CTC prefix scores: how likely a recording is to begin with given letters (Watanabe et al. 2017).

    texts = start([without_silence(log_probs_TC), ...])      # the empty text of each recording; class 0 is the blank
    texts = texts.select(rows_N)                             # candidates, in any number
    texts = texts.extend([[3, 1, 20], [4, 15, 7], ...])      # the letters that each of them adds
    texts.prefix_N, texts.whole_N                            # log-probabilities: that it begins so, that this is all

The recurrences over time are linear, so each is a cumulative sum in the log domain, for all candidates at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

IMPOSSIBLE = -1e30
AFTER_THE_END = -50.0
"""Log-probability of a letter after the end of a recording that is padded."""
GROWING = ("letter_NT", "blank_NT", "last_N", "prefix_N")
"""What changes of a text that grows."""
SURE = 0.98
"""Probability of the blank from which on a frame counts as silent."""


@dataclass(frozen=True)
class Prefixes:
    """N texts, each with the forward variables of CTC over the T frames of its recording.

    Attributes:
        frames_RTC, sums_RTC: log-probabilities of the classes in each recording, and their running sums over time.
        recording_N: number of the text's recording.
        letter_NT, blank_NT: log-probability that the first frames spell the text and end in its last letter, or in a
            blank.
        last_N: class of the last letter, 0 before the first.
        prefix_N: log-probability that what the recording says begins so.
    """

    frames_RTC: Tensor
    sums_RTC: Tensor
    recording_N: Tensor
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
        return replace(self, **{name: getattr(self, name)[rows_N] for name in ("recording_N", *GROWING)})

    def extend(self, letters: Sequence[Sequence[int]]) -> Prefixes:
        """Each text with its letters after it; one that gets none stays as it is."""
        longer = self
        for place in range(max(map(len, letters), default=0)):
            rows = [n for n, added in enumerate(letters) if len(added) > place]
            rows_M = torch.tensor(rows, device=self.last_N.device)
            more = longer.select(rows_M)._with(rows_M.new_tensor([letters[n][place] for n in rows]))
            longer = replace(
                longer, **{name: getattr(longer, name).index_copy(0, rows_M, getattr(more, name)) for name in GROWING}
            )
        return longer

    def _with(self, letter_N: Tensor) -> Prefixes:
        """Each text with one letter after it."""
        frames_NT, sums_NT = (table[self.recording_N, :, letter_N] for table in (self.frames_RTC, self.sums_RTC))
        blanks_NT, blank_sums_NT = (table[self.recording_N, :, 0] for table in (self.frames_RTC, self.sums_RTC))
        # Between a letter and the same one again there must be a blank.
        either_NT = torch.logaddexp(self.blank_NT, self.letter_NT)
        before_NT = torch.where((letter_N == self.last_N)[:, None], self.blank_NT, either_NT)
        begins_N1 = torch.where(self.last_N == 0, 0.0, IMPOSSIBLE).to(before_NT)[:, None]
        before_NT = torch.cat([begins_N1, before_NT[:, :-1]], 1)
        letter_NT = sums_NT + torch.logcumsumexp(before_NT - sums_NT + frames_NT, 1)
        ended_NT = torch.cat([torch.full_like(begins_N1, IMPOSSIBLE), letter_NT[:, :-1]], 1)
        blank_NT = blank_sums_NT + torch.logcumsumexp(ended_NT - blank_sums_NT + blanks_NT, 1)
        prefix_N = (before_NT + frames_NT).logsumexp(1)
        return replace(self, letter_NT=letter_NT, blank_NT=blank_NT, last_N=letter_N, prefix_N=prefix_N)


def start(log_probs: Sequence[Tensor]) -> Prefixes:
    """The empty text of each recording; log_probs: (T, C) of each, T ≥ 1."""
    longest = max(map(len, log_probs))
    frames_RTC = log_probs[0].new_full((len(log_probs), longest, log_probs[0].shape[1]), AFTER_THE_END).double()
    frames_RTC[..., 0] = 0.0
    for frames_TC, log_probs_TC in zip(frames_RTC, log_probs, strict=True):
        frames_TC[: len(log_probs_TC)] = log_probs_TC
    sums_RTC = frames_RTC.cumsum(1)
    blank_NT = sums_RTC[..., 0]
    number_N = torch.arange(len(log_probs), device=blank_NT.device)
    impossible_NT = torch.full_like(blank_NT, IMPOSSIBLE)
    return Prefixes(
        frames_RTC,
        sums_RTC,
        number_N,
        impossible_NT,
        blank_NT,
        torch.zeros_like(number_N),
        blank_NT.new_zeros(len(log_probs)),
    )


def without_silence(log_probs_TC: Tensor) -> Tensor:
    """Frames that are surely blank, which most are, joined where they follow each other: (T', C), T' ≤ T."""
    silent_T = log_probs_TC[:, 0] > torch.tensor(SURE).log()
    joins_T = silent_T & torch.cat([silent_T.new_zeros(1), silent_T[:-1]])
    place_T = (~joins_T).cumsum(0) - 1
    joined_TC = log_probs_TC.new_full((int(place_T[-1]) + 1, log_probs_TC.shape[1]), -torch.inf)
    joined_TC.scatter_reduce_(0, place_T[:, None].expand_as(log_probs_TC), log_probs_TC, "amax")
    joined_TC[:, 0] = torch.zeros_like(joined_TC[:, 0]).index_add(0, place_T, log_probs_TC[:, 0])
    return joined_TC
