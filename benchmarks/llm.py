"""Prefill and decode speed of the audio language model, beside the official code in the same run.

    python benchmarks/llm.py                                    # ours: float32, bfloat16, int8
    python benchmarks/llm.py --official CHECKOUT -o benchmarks/results/llm.jsonl

The model is random: 234 M parameters, hidden size 1024, 12 layers, 3 more in the audio branch, which forks after layer
8. Systems take turns, round by round, so that a machine's moods hit all alike; figures are medians over the rounds.
Both run their own complete loop (embedding, layers, heads, greedy choice of both streams) on the same prompt of heard
speech. `--official` wants a checkout with `kimia_infer/` and `finetune_codes/`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import report
from official_llm import load_official

from kimi_audio.checkpoint.kernels import quantise_module
from kimi_audio.checkpoint.layers import compile_layers
from kimi_audio.checkpoint.quantise import Bits
from kimi_audio.generation import SamplingParams, collect, decode
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import OutputType, Prompt
from kimi_audio.vocab import Vocabulary

VOCAB = Vocabulary(num_base_tokens=2304, num_special_tokens=421, num_audio_codes=16384)
CONFIG = KimiAudioConfig(
    vocab_size=VOCAB.size,
    hidden_size=1024,
    intermediate_size=2816,
    num_hidden_layers=12,
    num_attention_heads=16,
    num_key_value_heads=4,
    kimia_token_offset=VOCAB.token_offset,
    kimia_mimo_layers=3,
    kimia_mimo_transformer_from_layer_index=8,
    kimia_adaptor_input_dim=5120,
    kimia_media_begin=VOCAB.media_begin,
    kimia_media_end=VOCAB.media_end,
    num_base_tokens=VOCAB.num_base_tokens,
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BITS: dict[str, Bits] = {"int8": 8, "int4": 4}

Generate = Callable[[Prompt, int, OutputType], list[int]]
"""Decodes so many steps after a prompt and returns the ids of the text stream."""


def random_weights() -> dict[str, torch.Tensor]:
    """Weights that never end an answer: the logits of ids that would are 0, below the largest of thousands."""
    torch.manual_seed(0)
    llm = AudioLLM(CONFIG)
    with torch.no_grad():
        for end in (VOCAB.text_eos, VOCAB.msg_end, VOCAB.media_end):
            llm.lm_head.weight[end] = 0
            llm.mimo_output.weight[end] = 0
    return llm.state_dict()


def heard_speech(positions: int) -> Prompt:
    """A prompt of `positions` ids: one sound, as codes and features."""
    torch.manual_seed(1)
    codes = (VOCAB.token_offset + torch.randint(VOCAB.num_audio_codes, (positions - 3,))).tolist()
    blank, prompt = VOCAB.text_blank, Prompt()
    prompt.add([VOCAB.kimia_user_msg_start, VOCAB.media_begin], [blank] * 2)
    prompt.add(codes, [blank] * len(codes), continuous=True)
    prompt.add([VOCAB.media_end], [blank])
    prompt.features.append(torch.randn(1, len(codes), CONFIG.kimia_adaptor_input_dim))
    return prompt


def ours(state: dict[str, torch.Tensor], dtype: str) -> Generate:
    """This project's model and decode loop."""
    llm = AudioLLM(CONFIG).eval()
    llm.load_state_dict(state)
    if dtype in DTYPES:
        llm.to(DTYPES[dtype])
    else:
        quantise_module(llm, BITS[dtype])
        compile_layers(llm)

    def generate(prompt: Prompt, steps: int, output_type: OutputType) -> list[int]:
        params = SamplingParams()
        return collect(decode(llm, VOCAB, [prompt], [steps], params, output_type=output_type), VOCAB, 1)[0].text_ids

    return generate


def seconds(generate: Generate, prompt: Prompt, steps: int, output_type: OutputType) -> float:
    started = time.perf_counter()
    generate(prompt, steps, output_type)
    return time.perf_counter() - started


def measure(
    systems: dict[str, Generate], prompt: Prompt, steps: int, rounds: int, output_type: OutputType
) -> list[dict]:
    """One row per system: tokens per second of prefill (with the first step) and of the steps after it."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    for generate in systems.values():
        generate(prompt, 2, output_type)  # memory is allocated and kernels are chosen on first use
    for _ in range(rounds):
        for name, generate in systems.items():
            first = seconds(generate, prompt, 1, output_type)
            times[name].append((first, seconds(generate, prompt, steps, output_type) - first))
    rows = []
    for name, taken in times.items():
        prefill, decoding = (statistics.median(column) for column in zip(*taken, strict=True))
        rows.append({
            "benchmark": "llm", "system": name, "streams": output_type, "prompt": len(prompt), "steps": steps,
            "prefill_tokens_per_second": round(len(prompt) / prefill, 1),
            "decode_tokens_per_second": round((steps - 1) / decoding, 2),
        })  # fmt: skip
    return rows


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the ratio to the official code at the same dtype (int8 against float32)."""
    speed = {row["system"]: row for row in rows}
    for row in rows:
        code, dtype = row["system"].split()
        rival = speed.get(f"official {'float32' if dtype == 'int8' else dtype}")
        if code == "ours" and rival:
            for kind in ("prefill", "decode"):
                key = f"{kind}_tokens_per_second"
                row[f"{kind}_ratio_to_official"] = round(row[key] / rival[key], 2)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="checkout of the official code")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--prompt", type=int, default=128, help="positions")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    state, prompt = random_weights(), heard_speech(args.prompt)
    systems: dict[str, Generate] = {}
    for dtype in args.dtypes:
        systems[f"ours {dtype}"] = ours(state, dtype)
        if args.official and dtype in DTYPES:
            systems[f"official {dtype}"] = load_official(args.official, CONFIG, state, VOCAB, DTYPES[dtype])
    rows = []
    for output_type in ("both", "text"):
        rows += compared(measure(systems, prompt, args.steps, args.rounds, output_type))
    report([{**row, "threads": args.threads} for row in rows], args.output)


if __name__ == "__main__":
    main()
