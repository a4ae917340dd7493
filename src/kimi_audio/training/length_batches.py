"""Batches of items of similar length, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence


def length_batches(
    lengths: Sequence[int], budget: int, seed: int, start: int = 0, stride: int = 1
) -> Iterator[tuple[int, list[int]]]:
    """Endless (number, item numbers) of every `stride`-th batch, from batch number `start` on.

    Args:
        lengths: of the items. Sorting blurs them by 15 %, so that an item meets other neighbours each epoch.
        budget: largest (longest item × items) of a batch; a longer item is a batch of its own.
    """
    epoch = number = 0
    while True:
        batches = _epoch(lengths, budget, random.Random(f"{seed} {epoch}"))
        while start < number + len(batches):
            yield start, batches[start - number]
            start += stride
        number += len(batches)
        epoch += 1


def _epoch(lengths: Sequence[int], budget: int, rng: random.Random) -> list[list[int]]:
    batches: list[list[int]] = []
    longest = 0
    for item in sorted(range(len(lengths)), key=lambda item: lengths[item] * rng.uniform(0.85, 1.15)):
        longest = max(longest, lengths[item])
        if batches and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(item)
        else:
            batches.append([item])
            longest = lengths[item]
    rng.shuffle(batches)
    return batches
