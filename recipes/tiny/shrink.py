"""Store a trained model in few bits, and print what that costs.

    python recipes/tiny/shrink.py runs/tiny/listen/model models/tiny --llm 4

Linear layers of the LLM get `--llm` bits, its embedding and the encoders 8; the rest is float16.
"""

import argparse
from pathlib import Path

import torch

from kimi_audio.checkpoint.layout import Storage, load_parts, quantisation_plan, save_parts
from kimi_audio.checkpoint.loading import tensors_of
from kimi_audio.checkpoint.quantise import quality_loss

HABITS = {"history_text_eos": True, "transcribe_instruction": "Please transcribe the following audio:",
          "max_segment_seconds": 16.0}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--llm", type=int, choices=(4, 8), default=4)
    args = parser.parse_args()
    parts = load_parts(args.model)
    parts.generation_config |= HABITS
    assert parts.acoustic is not None
    encoders = (("acoustic encoder", parts.acoustic.encoder), ("semantic tokenizer", parts.semantic))
    for name, module, linear, embedding in [("LLM", parts.llm, args.llm, 8), *((n, m, 8, None) for n, m in encoders)]:
        plan = quantisation_plan(module, "", linear, embedding)
        *_, total = quality_loss(tensors_of(module).items(), plan)
        print(f"{name}: {total}")
    storage = Storage(llm=args.llm, embedding=8, acoustic=8, semantic=8, floats=torch.float16)
    save_parts(args.out, parts, storage)
    print(f"{sum(file.stat().st_size for file in args.out.rglob('*') if file.is_file()) / 2**20:.1f} MiB in {args.out}")


if __name__ == "__main__":
    main()
