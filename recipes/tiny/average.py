"""The mean of two models' weights: of one before and after more training it is often better than either.

    python recipes/tiny/average.py runs/tiny/base runs/tiny/more/model runs/tiny/mean
"""

import argparse
from pathlib import Path

import torch

from kimi_audio.checkpoint.layout import load_parts, save_parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    parts, other = load_parts(args.first), load_parts(args.second).llm.state_dict()
    with torch.no_grad():
        for name, weight in parts.llm.state_dict().items():
            weight.lerp_(other[name], 0.5)
    save_parts(args.out, parts)


if __name__ == "__main__":
    main()
