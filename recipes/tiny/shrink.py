"""Store a trained model in few bits, and print what that costs.

    python recipes/tiny/shrink.py runs/tiny/mean models/tiny --voice runs/tiny/vocoder_long/model
    python recipes/tiny/shrink.py --gate-up-only runs/tiny/listen/model runs/tiny/coarse

The LLM's gate and up projections get 4 bits, all other matrices 8; the rest is float16. `--gate-up-only` leaves all
else as it is, for the training that mends what 4 bits break (`finish.yaml`). Flow and vocoder, which are trained for
themselves, come from the model that is named as the voice; the audio branch and the pronunciations that it learned from
come from the one that is named as the branch, which must be equal below the fork; the head that reads phonemes, from
the one that is named as its ears, which must have the same acoustic encoder.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from kimi_audio.checkpoint.layout import Part, Storage, load_parts, quantisation_plan, save_parts
from kimi_audio.checkpoint.loading import tensors_of
from kimi_audio.checkpoint.quantise import quality_loss
from kimi_audio.llm.model import AudioLLM

STORAGE = Storage(llm=8, gate_up=4, embedding=8, acoustic=8, semantic=8, flow=8, phonemes=4, floats=torch.float16)
HABITS = {"history_text_eos": True, "transcribe_instruction": "Please transcribe the following audio:",
          "max_segment_seconds": 16.0, "max_say_characters": 110, "join_sentences": False,
          "audio_temperature": 0.0, "beams": 4, "language_weight": 0.85, "write_requests_down": True,
          "speech": {"chunk_codes": 20, "first_chunk_codes": 14, "look_ahead_codes": 6, "steps": 8, "sway": -1.0,
                     "guidance": 2.2, "guidance_from": 0.05}}  # fmt: skip


def take_branch(llm: AudioLLM, other: AudioLLM) -> None:
    """Replace the audio branch of `llm` by that of `other`."""
    fork = llm.config.kimia_mimo_transformer_from_layer_index
    below = ("model.embed_tokens.", *(f"model.layers.{layer}." for layer in range(fork + 1)))
    theirs = other.state_dict()
    for name, mine in llm.state_dict().items():
        if name.startswith(below) and not torch.equal(mine, theirs[name]):
            raise SystemExit(f"{name} differs; the branch was trained on top of another model.")
    branch = {name: tensor for name, tensor in theirs.items() if "mimo" in name}
    llm.load_state_dict(branch, strict=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--gate-up-only", action="store_true")
    parser.add_argument("--voice", type=Path, help="model whose flow and vocoder to take")
    parser.add_argument("--phonemes", type=Path, help="model whose head for phonemes to take")
    parser.add_argument("--branch", type=Path, help="model whose audio branch to take")
    args = parser.parse_args()
    parts = load_parts(args.model)
    if args.branch:
        other = load_parts(args.branch)
        take_branch(parts.llm, other.llm)
        parts.lexicon = other.lexicon
    if args.voice:
        parts.detokenizer = load_parts(args.voice).detokenizer
    if args.phonemes:
        parts.phonemes = load_parts(args.phonemes, with_detokenizer=False).phonemes
    parts.generation_config |= HABITS
    storage = Storage(gate_up=4) if args.gate_up_only else STORAGE
    assert parts.acoustic is not None
    modules: dict[Part, nn.Module] = {
        "llm": parts.llm, "acoustic": parts.acoustic.encoder, "semantic": parts.semantic
    }  # fmt: skip
    if parts.detokenizer is not None:
        modules["flow"] = parts.detokenizer.flow
    if parts.phonemes is not None:
        modules["phonemes"] = parts.phonemes
    for part, module in modules.items():
        *_, total = quality_loss(tensors_of(module).items(), quantisation_plan(module, storage, part))
        print(f"{part}: {total}")
    save_parts(args.out, parts, storage)
    print(f"{sum(file.stat().st_size for file in args.out.rglob('*') if file.is_file()) / 2**20:.1f} MiB in {args.out}")


if __name__ == "__main__":
    main()
