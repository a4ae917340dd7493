"""Batches that worker processes prepare while the model learns from earlier ones: a GPU is done before they are made.

    for batch in prefetched(objective, start=0, workers=8): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from kimi_audio.training.objective import Objective

AHEAD = 3
"""Batches that each worker may have ready."""


@dataclass(frozen=True)
class _Batches(IterableDataset):
    """Each worker's share of the batches: every `workers`-th, from `start` on."""

    objective: Objective
    start: int

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None
        return self.objective.batches(self.start + worker.id, worker.num_workers)


def prefetched(objective: Objective, start: int, workers: int) -> Iterator[Any]:
    """Micro-batches number `start`, `start + 1`, … of an objective; `workers` 0 makes each when it is asked for."""
    if not workers:
        yield from objective.batches(start)
        return
    loader = DataLoader(
        _Batches(objective, start),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",  # the objective's data are shared, not copied
        worker_init_fn=settle_worker,
    )
    yield from loader


def settle_worker(worker: int) -> None:
    """Tensors by name: a batch of many small ones would run out of open files."""
    torch.multiprocessing.set_sharing_strategy("file_system")
