"""Speed of speech: flow, vocoder and both as a stream, beside the official code in the same run; what choices cost.

    python benchmarks/speech.py                                       # ours, random weights of a middle size
    python benchmarks/speech.py --official CHECKOUT -o benchmarks/results/speech.jsonl
    python benchmarks/speech.py --choices --model MODEL               # latency and quality by chunk, look-ahead, steps

Figures are seconds of work per second of speech (real-time factors), medians over rounds in which the systems take
turns. `--choices` compares each way to stream with the slowest and finest one at the same noise: mean absolute
difference of the log-mels (nats), and how long the first sound takes once its codes are there, and how many codes that
is. `--official` wants a checkout with `kimia_infer/`; neither flash-attn nor a GPU is needed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from machine import report
from official_speech import load_official
from torch import Tensor

from kimi_audio.checkpoint.files import write_json
from kimi_audio.checkpoint.layout import load_parts
from kimi_audio.detokenizer.flow import FlowConfig, FlowTransformer, euler, solve
from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE, Detokenizer, StreamConfig
from kimi_audio.detokenizer.vocoder import BigVGAN, VocoderConfig, unfolded
from kimi_audio.training.objectives.flow import log_mel

CODES, CHUNK, LOOK_AHEAD, STEPS = 1024, 30, 12, 29
FLOW = FlowConfig(80, CODES, hidden_size=512, depth=8, num_heads=8, mel_mean=-4.479605, mel_std=3.4584913)
VOCODER = VocoderConfig(
    upsample_rates=(5, 2, 2, 2, 2, 3, 2),
    upsample_kernel_sizes=(9, 4, 4, 4, 4, 5, 4),
    upsample_initial_channel=512,
    resblock_kernel_sizes=(3, 5, 7, 11),
    resblock_dilation_sizes=((1, 3, 5),) * 4,
    use_tanh_at_final=False,
    use_bias_at_final=False,
)
CHOICES = [
    (30, 12, 29),
    (30, 12, 12),
    (30, 12, 8),
    (30, 12, 4),
    (30, 4, 8),
    (12, 4, 12),
    (12, 4, 8),
    (12, 4, 4),
    (8, 2, 8),
]
"""Codes of a chunk, look-ahead in codes, solver steps."""


def random_detokenizer() -> Detokenizer:
    torch.manual_seed(0)
    return Detokenizer(FlowTransformer(FLOW).eval(), BigVGAN(VOCODER).eval())


def write_official(folder: Path, detokenizer: Detokenizer) -> None:
    """The two folders as they are released."""
    for name in ("audio_detokenizer", "vocoder"):
        (folder / name).mkdir()
    (folder / "audio_detokenizer" / "config.yaml").write_text(yaml.safe_dump(detokenizer.flow.config.to_dict()))
    state = {f"speech_model.{name}": tensor for name, tensor in detokenizer.flow.state_dict().items()}
    torch.save({"state_dict": state}, folder / "audio_detokenizer" / "model.pt")
    write_json(folder / "vocoder" / "config.json", detokenizer.vocoder.config.to_dict())
    torch.save({"generator": unfolded(detokenizer.vocoder.state_dict())}, folder / "vocoder" / "model.pt")


def measure(parts: dict[str, dict[str, Callable[[], Any]]], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Real-time factor of each part, part → system → work, and how many times faster than the official code it is."""
    rows = []
    for part, systems in parts.items():
        times: dict[str, list[float]] = {name: [] for name in systems}
        for turn in range(rounds + 1):  # the first one warms up
            for name, work in systems.items():
                started = time.perf_counter()
                work()
                if turn:
                    times[name].append(time.perf_counter() - started)
        rtf = {name: statistics.median(taken) / seconds for name, taken in times.items()}
        for name, value in rtf.items():
            row = {"benchmark": "speech", "part": part, "system": name, "rtf": round(value, 4)}
            if name != "official" and "official" in rtf:
                row["ratio_to_official"] = round(rtf["official"] / value, 2)
            rows.append(row)
    return rows


def beside_official(checkout: Path | None, seconds: float, rounds: int) -> list[dict[str, Any]]:
    detokenizer = random_detokenizer()
    detokenizer = replace(detokenizer, config=StreamConfig(CHUNK, None, LOOK_AHEAD, schedule=euler(STEPS)))
    official_stitching = replace(detokenizer.config, stitching="official")
    codes = torch.randint(CODES, (round(12.5 * seconds),)).tolist()
    mel_TM = torch.randn(FRAMES_PER_CODE * len(codes), FLOW.input_size) * FLOW.mel_std + FLOW.mel_mean
    flow_1TM = torch.randn(1, FRAMES_PER_CODE * (CHUNK + LOOK_AHEAD), FLOW.input_size)
    chunk_1N = torch.randint(CODES, (1, CHUNK + LOOK_AHEAD))

    @torch.inference_mode()
    def vocode() -> Tensor:
        return detokenizer.vocoder(mel_TM[None])

    stream: dict[str, Callable[[], Any]] = {
        "ours": lambda: detokenizer(codes, config=official_stitching),
        "ours, overlap": lambda: detokenizer(codes),
    }
    vocoder: dict[str, Callable[[], Any]] = {"ours": vocode}
    flow: dict[str, Callable[[], Any]] = {"ours": lambda: solve(detokenizer.flow, flow_1TM, chunk_1N, euler(STEPS))}
    with tempfile.TemporaryDirectory() as scratch:
        if checkout:
            write_official(Path(scratch), detokenizer)
            official = load_official(checkout, Path(scratch), look_ahead=LOOK_AHEAD, chunk=CHUNK, steps=STEPS)
            stream["official"] = lambda: official(codes)
            vocoder["official"] = lambda: official.vocode(mel_TM)
            flow["official"] = lambda: official.chunk(flow_1TM[0], chunk_1N[0])
        rows = measure({"stream": stream, "vocoder": vocoder}, seconds, rounds)
        return rows + measure({"flow": flow}, flow_1TM.shape[1] / 50, rounds)


def choices(detokenizer: Detokenizer, codes: list[int], rounds: int) -> list[dict[str, Any]]:
    """Latency and distance of each way to stream."""

    def noise(frames: int, bins: int) -> Tensor:
        # Each frame's noise depends on nothing but the place of its chunk, as far as chunks allow.
        return torch.randn(frames, bins, generator=torch.Generator().manual_seed(frames))

    def mel(samples_L: Tensor) -> Tensor:
        return log_mel(samples_L[None], detokenizer.vocoder.config)[0]

    with torch.inference_mode():
        noise_1TM = torch.randn(1, FRAMES_PER_CODE * len(codes), detokenizer.flow.config.input_size)
        finest = solve(detokenizer.flow, noise_1TM, torch.tensor(codes)[None], euler(STEPS))
        config = detokenizer.flow.config
        target = mel(detokenizer.vocoder(finest * config.mel_std + config.mel_mean)[0])
    rows = []
    for chunk, look_ahead, steps in CHOICES:
        stream_config = replace(
            detokenizer.config,
            chunk_codes=chunk,
            first_chunk_codes=None,
            look_ahead_codes=look_ahead,
            schedule=euler(steps),
        )
        first, whole = [], []
        samples = torch.zeros(0)
        for _ in range(rounds):
            stream = detokenizer.stream(noise, stream_config)
            started = time.perf_counter()
            parts = [stream.push(codes[: chunk + 1])]
            first.append(time.perf_counter() - started)
            parts += [stream.push(codes[chunk + 1 :]), stream.flush()]
            whole.append(time.perf_counter() - started)
            samples = torch.cat(parts)
        rows.append(
            {
                "benchmark": "speech choices",
                "chunk": chunk,
                "look_ahead": look_ahead,
                "steps": steps,
                "codes_until_first_sound": chunk + 1,
                "first_sound_seconds": round(statistics.median(first), 3),
                "rtf": round(statistics.median(whole) / (len(codes) / 12.5), 3),
                "mel_distance_to_whole": round(float((mel(samples) - target).abs().mean()), 3),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="checkout of the official code")
    parser.add_argument("--choices", action="store_true", help="compare ways to stream")
    parser.add_argument("--model", help="whose detokenizer --choices uses; the bundled model's if not given")
    parser.add_argument("--seconds", type=float, default=9.6, help="of speech")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.choices:
        detokenizer = load_parts(args.model).detokenizer
        if detokenizer is None:
            raise SystemExit("this model has no detokenizer")
        codes = torch.randint(detokenizer.flow.config.semantic_vocab_size, (round(12.5 * args.seconds),)).tolist()
        rows = choices(detokenizer, codes, args.rounds)
    else:
        rows = beside_official(args.official, args.seconds, args.rounds)
    report([{**row, "threads": args.threads} for row in rows], args.output)


if __name__ == "__main__":
    main()
