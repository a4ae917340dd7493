"""Speed of speech: flow, vocoder and both as a stream, beside the official code in the same run; what choices cost.

    python benchmarks/speech.py                                       # ours, random weights of a middle size
    python benchmarks/speech.py --official CHECKOUT -o benchmarks/results/speech.jsonl
    python benchmarks/speech.py --choices a.wav b.wav --model MODEL   # latency and quality by chunk, look-ahead, steps

Figures are seconds of work per second of speech (real-time factors), medians over rounds in which the systems take
turns. `--choices` says the codes of recordings in each way to stream, and compares with all codes at once in 29 steps
from the same noise: mean absolute difference of the log-mels (nats); how much more the spectrum jumps where chunks meet
than elsewhere; how long the first sound takes once its codes are there, and how many codes that is. `--official` wants
a checkout with `kimia_infer/`; neither flash-attn nor a GPU is needed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from machine import report
from official_speech import load_official
from torch import Tensor

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.files import write_json
from kimi_audio.checkpoint.layout import load_parts
from kimi_audio.detokenizer.flow import FlowConfig, FlowTransformer, euler, solve
from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE, Detokenizer, StreamConfig
from kimi_audio.detokenizer.vocoder import BigVGAN, VocoderConfig, log_mel, unfolded
from kimi_audio.evaluation.speech import spectral_jumps
from kimi_audio.training.objectives.flow import CODES_PER_SECOND

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


class Noise:
    """The same noise for each frame of an utterance, however it is cut; frames only looked at get it again later."""

    def __init__(self, noise_TM: Tensor, look_ahead: int) -> None:
        self.noise_TM, self.look_ahead, self.start = noise_TM, FRAMES_PER_CODE * look_ahead, 0

    def __call__(self, frames: int, bins: int) -> Tensor:
        drawn = self.noise_TM[self.start : self.start + frames]
        self.start += frames - self.look_ahead
        return drawn


def choices(detokenizer: Detokenizer, utterances: list[list[int]], rounds: int) -> list[dict[str, Any]]:
    """Latency and distance of each way to stream."""

    def mel(samples_L: Tensor) -> Tensor:
        return log_mel(samples_L[None], detokenizer.vocoder.config)[0]

    config, noises, targets = detokenizer.flow.config, [], []
    with torch.inference_mode():
        for codes in utterances:
            noises.append(torch.randn(FRAMES_PER_CODE * len(codes), config.input_size))
            finest = solve(detokenizer.flow, noises[-1][None], torch.tensor(codes)[None], euler(STEPS))
            targets.append(mel(detokenizer.vocoder(finest * config.mel_std + config.mel_mean)[0]))
    rows = []
    for chunk, look_ahead, steps in CHOICES:
        stream_config = replace(
            detokenizer.config,
            chunk_codes=chunk,
            first_chunk_codes=None,
            look_ahead_codes=look_ahead,
            schedule=euler(steps),
        )
        first, whole, distances, jumps = [], [], [], []
        for codes, noise, target in zip(utterances * rounds, noises * rounds, targets * rounds, strict=True):
            stream = detokenizer.stream(Noise(noise, look_ahead), stream_config)
            started = time.perf_counter()
            parts = [stream.push(codes[: chunk + 1])]
            first.append(time.perf_counter() - started)
            parts += [stream.push([code]) for code in codes[chunk + 1 :]]
            parts.append(stream.flush())
            whole.append((time.perf_counter() - started) * CODES_PER_SECOND / len(codes))
            samples = torch.cat(parts)
            distances.append(float((mel(samples) - target).abs().mean()))
            joins = np.cumsum([len(part) for part in parts if len(part)])[:-1]
            jumps += spectral_jumps(samples.numpy(), detokenizer.sample_rate, joins.tolist()).tolist()
        rows.append(
            {
                "benchmark": "speech choices",
                "chunk": chunk,
                "look_ahead": look_ahead,
                "steps": steps,
                "codes_until_first_sound": chunk + 1,
                "first_sound_seconds": round(statistics.median(first), 3),
                "rtf": round(statistics.median(whole), 3),
                "mel_distance_to_whole": round(statistics.mean(distances), 3),
                "jump_at_joins": round(float(np.nanmean(jumps)), 3),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="checkout of the official code")
    parser.add_argument("--choices", nargs="+", metavar="SOUND", help="compare ways to stream on these recordings")
    parser.add_argument("--model", help="whose detokenizer --choices uses; the bundled model's if not given")
    parser.add_argument("--seconds", type=float, default=9.6, help="of speech, beside the official code")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.choices:
        parts = load_parts(args.model)
        if parts.detokenizer is None:
            raise SystemExit("this model has no detokenizer")
        codes = [found.tolist() for found in parts.semantic.encode([load_audio(sound) for sound in args.choices])]
        rows = choices(parts.detokenizer, codes, args.rounds)
    else:
        rows = beside_official(args.official, args.seconds, args.rounds)
    report([{**row, "threads": args.threads} for row in rows], args.output)


if __name__ == "__main__":
    main()
