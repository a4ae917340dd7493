"""Which document comes when: sources mixed by weight, packed into rows, the same for everyone who asks.

Documents are drawn in rounds. A round takes from every source its share of documents, going through the
source in a new random order each time it is exhausted, packs them into rows and shuffles the rows. Source order and
the random choices inside a document follow from the seed and the round alone, so row number `i` is always the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from kimi_audio.errors import DataError
from kimi_audio.prompt import Prompt
from kimi_audio.training.packing import pack

ROUND = 128
"""Least number of documents that are in memory, and packed, together."""
ROOM = 12
"""Positions of a row for each document of a round, so that a round of short ones still fills several large rows."""


class Source(Protocol):
    """A set of documents. `prompt` may make random choices (instruction, variant), all of them from `rng`."""

    def __len__(self) -> int: ...

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt: ...


@dataclass(frozen=True)
class Mixture:
    """Endless rows of documents from `sources`; `weights` are shares of documents, `capacity` positions a row."""

    sources: Sequence[Source]
    weights: Sequence[float]
    capacity: int
    seed: int = 0
    documents: int = field(init=False)
    _orders: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sources or min(self.weights) <= 0:
            raise DataError("a mixture needs at least one source, and every weight must be above 0.")
        object.__setattr__(self, "documents", max(ROUND, self.capacity // ROOM))
        for number, source in enumerate(self.sources):
            if not len(source):
                raise DataError(f"source {number + 1} of the mixture holds no document.")

    def rows(self, start: int = 0, stride: int = 1) -> Iterator[list[Prompt]]:
        """Rows number `start`, `start + stride`, ...; earlier ones are laid out again to count them, but not yielded.

        Of `stride` shares of the rows each has every `stride`-th round, so that processes can lay out one each.
        """
        start, first = divmod(start, stride)
        number, round_number = 0, first
        while True:
            prompts = self._round(round_number)
            rows = pack([len(prompt) for prompt in prompts], self.capacity)
            np.random.default_rng((self.seed, round_number, 1)).shuffle(rows)
            for row in rows[max(0, start - number) :]:
                yield [prompts[index] for index in row]
            number += len(rows)
            round_number += stride

    def _round(self, round_number: int) -> list[Prompt]:
        """The documents of one round; those longer than a row are left out."""
        rng = np.random.default_rng((self.seed, round_number, 0))
        prompts = []
        for number, (source, (first, last)) in enumerate(zip(self.sources, self._draws(round_number), strict=True)):
            for draw in range(first, last):
                epoch, place = divmod(draw, len(source))
                index = self._order(number, epoch, len(source))[place]
                prompts.append(source.prompt(int(index), rng))
        fitting = [prompt for prompt in prompts if len(prompt) <= self.capacity]
        if not fitting:
            raise DataError(f"no document of the mixture fits into a row of {self.capacity} positions.")
        return fitting

    def _draws(self, round_number: int) -> list[tuple[int, int]]:
        """For each source, its first draw of this round and that of the next."""
        shares = np.asarray(self.weights, float) / np.sum(self.weights) * self.documents
        begin, end = np.floor(shares * round_number), np.floor(shares * (round_number + 1))
        return [(int(a), int(b)) for a, b in zip(begin, end, strict=True)]

    def _order(self, source: int, epoch: int, length: int) -> np.ndarray:
        key = (source, epoch)
        if key not in self._orders:
            self._orders[key] = np.random.default_rng((self.seed, source, epoch, 2)).permutation(length)
        return self._orders[key]
