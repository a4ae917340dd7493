"""Ways to let short documents of one training row attend to themselves alone: which is fastest?

    python benchmarks/attention_packing.py [--row 900] [--threads 1] [-o results/attention_packing.jsonl]

One layer's attention, forward and backward (without projections), for documents of 30–250 positions, hidden 576,
9 heads and 3 key/value heads. Variants take turns; figures are medians of CPU milliseconds.
`kimi_audio/training/packing.py` uses the first.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import report
from torch import Tensor

HEADS, KV_HEADS, HEAD_DIM = 9, 3, 64


def documents(row: int) -> list[int]:
    """Lengths that sum up to `row`."""
    rng, lengths = random.Random(0), []
    while (left := row - sum(lengths)) > 0:
        lengths.append(min(left, rng.randint(30, 250)))
    return lengths


def qkv(batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(batch, heads, length, HEAD_DIM, generator=generator, requires_grad=True)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)


def variants(lengths: list[int]) -> dict[str, Callable[[], Tensor]]:
    """Name → a function that attends within each document."""
    row, longest, count = sum(lengths), max(lengths), len(lengths)
    document = torch.repeat_interleave(torch.arange(count), torch.tensor(lengths))
    mask = (document[:, None] == document[None]) & torch.ones(row, row, dtype=torch.bool).tril()
    packed, padded, similar = qkv(1, row), qkv(count, longest), qkv(count, round(row / count * 1.1))

    def each() -> Tensor:
        parts = zip(*(x.split(lengths, 2) for x in packed), strict=True)
        return torch.cat([attend(*part) for part in parts], 2)

    return {
        "each document on its own": each,
        "one row under a block-diagonal mask": lambda: attend(*packed, mask=mask),
        "a batch padded to the longest": lambda: attend(*padded),
        "a batch of similar lengths, 10 % padding": lambda: attend(*similar),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Attention within the documents of a packed row")
    parser.add_argument("--row", type=int, default=900)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lengths = documents(options.row)
    functions = variants(lengths)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(options.rounds + 1):
        for name, function in functions.items():
            started = time.process_time()
            function().sum().backward()
            times[name].append((time.process_time() - started) * 1000)
    fastest = min(statistics.median(values[1:]) for values in times.values())
    rows = []
    for name, values in times.items():
        median = statistics.median(values[1:])
        rows.append({"variant": name, "cpu_ms": round(median, 1), "ratio": round(median / fastest, 2),
                     "documents": lengths, "threads": options.threads})  # fmt: skip
    report(rows, options.output)


if __name__ == "__main__":
    main()
