"""Acoustic encoder between the Whisper that it was and what fine-tuning made of it (WiSE-FT, Wortsman et al. 2022).

    python recipes/tiny/between.py models/tiny runs/tiny/models/whisper-base 0.2 runs/tiny/between

Fine-tuning on few voices forgets others, and noise; part of the way back between the weights returns that and keeps
most of what was learned. The share is Whisper's. All else of the model stays as it is stored.
"""

import argparse
import shutil
from pathlib import Path

import torch
from shrink import STORAGE

from kimi_audio.checkpoint.layout import ACOUSTIC_FOLDER, load_whisper, write_whisper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("whisper", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    encoder = load_whisper(args.model / ACOUSTIC_FOLDER)
    was = load_whisper(args.whisper).state_dict()
    now = encoder.state_dict()
    encoder.load_state_dict({name: torch.lerp(now[name], was[name], args.share) for name in now})
    shutil.copytree(args.model, args.out)
    shutil.rmtree(args.out / ACOUSTIC_FOLDER)
    write_whisper(args.out / ACOUSTIC_FOLDER, encoder, STORAGE)


if __name__ == "__main__":
    main()
