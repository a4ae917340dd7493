"""Mean of two language models of one training: between what was known before and what was learned after.

    python recipes/tiny/mean.py models/tiny runs/tiny/listen_long/model 0.85 runs/tiny/mean

The share is of the second model; all but the language model is of the first.
"""

import argparse
from pathlib import Path

import torch

from kimi_audio.checkpoint.layout import load_llm, load_parts, save_parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    parts = load_parts(args.before)
    before, after = parts.llm.state_dict(), load_llm(args.after).state_dict()
    mean = {name: torch.lerp(tensor, after[name], args.share) for name, tensor in before.items()}
    parts.llm.load_state_dict(mean)
    save_parts(args.out, parts)


if __name__ == "__main__":
    main()
