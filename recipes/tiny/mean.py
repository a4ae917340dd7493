"""Average the weights of two models, of which one was trained from the other, or both from a third.

    python recipes/tiny/mean.py models/tiny runs/tiny/listen_long/model 0.85 runs/tiny/mean
    python recipes/tiny/mean.py runs/tiny/hear runs/tiny/models/whisper-base 0.5 runs/tiny/between --parts acoustic

The share is of the second, which may be a Whisper folder where its encoder is all that is wanted (`acoustic`); what is
not among the parts is the first model's. Fine-tuning on little data forgets other things, and part of the way back
returns them and keeps most of what was learned (WiSE-FT, Wortsman et al. 2022).
"""

import argparse
from pathlib import Path

from torch import nn

from kimi_audio.checkpoint.layout import ACOUSTIC_FOLDER, ModelParts, load_parts, load_whisper, save_parts

PARTS = ("llm", "acoustic", "phonemes", "flow")


def part(parts: ModelParts, name: str) -> nn.Module:
    found = {"llm": parts.llm, "acoustic": parts.acoustic and parts.acoustic.encoder, "phonemes": parts.phonemes,
             "flow": parts.detokenizer and parts.detokenizer.flow}[name]  # fmt: skip
    if found is None:
        raise SystemExit(f"one of the models has no part {name}.")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", default=["llm"], choices=PARTS)
    args = parser.parse_args()
    parts = load_parts(args.before)
    if (args.after / ACOUSTIC_FOLDER).is_dir():
        other = load_parts(args.after)
        after = {name: part(other, name) for name in args.parts}
    elif args.parts == ["acoustic"]:
        after = {"acoustic": load_whisper(args.after)}
    else:
        raise SystemExit(f"{args.after} is no model folder; of a Whisper only the encoder can be had: --parts acoustic")
    for name in args.parts:
        mine, theirs = part(parts, name), after[name].state_dict()
        mine.load_state_dict({key: x.lerp(theirs[key], args.share) for key, x in mine.state_dict().items()})
    save_parts(args.out, parts)


if __name__ == "__main__":
    main()
