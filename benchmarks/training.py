"""Training throughput of a 135 M language model: what bfloat16, explicit attention and `torch.compile` each bring.

    python benchmarks/training.py -o benchmarks/results/training.jsonl

The ways take turns, step by step, over the same row of documents; each line is positions per second, the median.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from machine import report

from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.training import packing
from kimi_audio.training.packing import PackedRow, packed_hidden

SIZES = dict(vocab_size=18496, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
             num_key_value_heads=3, kimia_mimo_layers=0, tie_word_embeddings=True,
             use_whisper_feature=False, num_base_tokens=16384, kimia_token_offset=16448, kimia_media_begin=16402,
             kimia_media_end=16404)  # fmt: skip
DOCUMENTS = [60, 90, 90, 120, 150, 180, 210, 240, 260]
WARM_UP, STEPS = 3, 6


def fused_attention(q, k, v, causal):
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)


@contextmanager
def way(attention: str) -> Iterator[None]:
    if attention == "fused":
        with patch.object(packing, "attend", fused_attention):
            yield
    else:
        yield


def row_of(vocab_size: int) -> PackedRow:
    """Random documents with a target at every fifth position."""
    count = sum(DOCUMENTS)
    ids, at, none = torch.randint(vocab_size, (count,)), torch.arange(0, count - 1, 5), torch.tensor([]).long()
    return PackedRow(DOCUMENTS, ids, ids, torch.zeros(count, dtype=torch.bool), None, [], at, ids[at + 1], none, none)


def step(llm: AudioLLM, optimizer: torch.optim.Optimizer, row: PackedRow, bfloat16: bool, compiled: bool) -> float:
    """Seconds of one step: forward, backward, update."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        text_ND, _ = packed_hidden(llm, row, want_audio=False, compiled=compiled)
        assert text_ND is not None
        loss = F.cross_entropy(llm.lm_head(text_ND[row.text_at]).float(), row.text_labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    llm = AudioLLM(KimiAudioConfig.from_dict(SIZES))
    optimizer = torch.optim.AdamW(llm.parameters(), lr=1e-5, fused=True)
    row = row_of(SIZES["vocab_size"])
    ways = [("float32", "fused", False), ("float32", "explicit", False), ("bfloat16", "fused", False),
            ("bfloat16", "explicit", False), ("bfloat16", "explicit", True)]  # fmt: skip
    seconds: dict[tuple[str, str, bool], list[float]] = {kind: [] for kind in ways}
    for turn in range(WARM_UP + STEPS):
        for kind in ways:
            dtype, attention, compiled = kind
            with way(attention):
                took = step(llm, optimizer, row, dtype == "bfloat16", compiled)
            if turn >= WARM_UP:
                seconds[kind].append(took)
    results = [
        {"dtype": dtype, "attention": attention, "compiled": compiled, "threads": args.threads,
         "positions_per_s": round(sum(DOCUMENTS) / statistics.median(took))}
        for (dtype, attention, compiled), took in seconds.items()
    ]  # fmt: skip
    report(results, args.output)


if __name__ == "__main__":
    main()
