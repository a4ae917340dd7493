"""Streams of mono sample blocks: change their sample rate, or their block size, in bounded memory.

A stream is any iterable of float32 arrays [samples]; where it is cut into blocks carries no meaning, and nothing here
depends on it.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import soxr

Samples = npt.NDArray[np.float32]


def resample(blocks: Iterable[Samples], rate_in: int, rate_out: int) -> Iterator[Samples]:
    """Convert a stream from `rate_in` to `rate_out` Hz by band-limited interpolation (soxr, high quality)."""
    if rate_in == rate_out:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate_in, rate_out, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def reblock(blocks: Iterable[Samples], size: int) -> Iterator[Samples]:
    """Cut a stream into blocks of exactly `size` samples; only the last may be shorter, and none is empty."""
    assert size > 0
    pending: list[Samples] = []
    held = 0
    for block in blocks:
        pending.append(block)
        held += len(block)
        if held >= size:
            joined = np.concatenate(pending)
            whole = held - held % size
            for start in range(0, whole, size):
                yield joined[start : start + size]
            pending, held = [joined[whole:]], held - whole
    if held:
        yield np.concatenate(pending)
