"""Speed of the official sizes on one GPU, with random weights: language model, flow, vocoder, and all of them speaking.

    python benchmarks/gpu.py -o benchmarks/results/gpu.jsonl           # about a minute on an H100, 30 GB
    python benchmarks/gpu.py --small --device cpu                      # whether it runs; the figures mean nothing

Language model and flow are bfloat16; the vocoder is float32, as the product runs it, and bfloat16 beside it. `eager` is
the product's own code. `CUDA graph` is the same modules on tensors that stay in place, captured once and replayed: it
saves the time in which the processor starts thousands of kernels. The product has no such path yet. Figures are
medians of wall-clock times between two moments at which the GPU has nothing to do.

Decoding is set against what memory allows: a token reads every weight once, but those of the embedding and of the
adaptor, and no faster than memory was copied (bytes read and written) in the same run. `steps_as_eager` of `steps` is
how many steps of the CUDA graph write the ids of the eager ones before the first that doesn't; rounding decides near
ties.

A chunk of the flow has a full memory of earlier frames behind it. First sound counts from the prompt, ready, to samples
in main memory: prefill, a decoding step for each code of the first chunk, 6 of delay and one that shows that the chunk
is not the last, then flow and vocoder. Nothing runs beside anything else.
"""

import argparse
import copy
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from gpu_graphs import GraphedChunk, GraphedDecoder, captured
from gpu_models import OFFICIAL, SMALL, Sizes, random_module
from machine import machine
from torch import Tensor

from kimi_audio.detokenizer.flow import FlowTransformer
from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE, Detokenizer, MelStream, Overlap, StreamConfig
from kimi_audio.detokenizer.vocoder import BigVGAN
from kimi_audio.generation import SamplingParams, decode
from kimi_audio.generation.decode import Step
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import Prompt
from kimi_audio.vocab import AUDIO_DELAY

CODES_PER_SECOND = 12.5
PROMPT, PREFILL, STEPS, SPOKEN = 256, 1024, 64, 75
"""Positions before decoding and of the long prompt; decoding steps; codes that are spoken."""

STREAMS = {
    "chunk 30, look-ahead 12, 29 steps": StreamConfig(),
    "chunk 30, look-ahead 12, 8 steps": StreamConfig().with_steps(8),
    "chunk 24, first 12, look-ahead 6, 8 steps": StreamConfig(24, 12, 6).with_steps(8),
}
"""Ways to stream: the official one, with fewer solver steps, and one with an early first sound."""

FLOAT32_VOCODER = "bfloat16, vocoder float32"

Row = dict[str, Any]
Work = Callable[[], Any]
@dataclass
class Bench:
    """The models, each made when it is first needed, and how to measure."""

    sizes: Sizes
    device: torch.device
    rounds: int
    dtype: torch.dtype = torch.bfloat16
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = torch.cuda.get_device_name(self.device) if self.is_cuda else str(self.device)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def llm(self) -> AudioLLM:
        """Weights that never end an answer: the logits of ids that would are 0, below the largest of thousands."""
        llm = random_module(lambda: AudioLLM(self.sizes.llm_config), self.device, self.dtype)
        for end in (self.sizes.vocab.text_eos, self.sizes.vocab.msg_end, self.sizes.vocab.media_end):
            llm.lm_head.weight[end] = 0
            llm.mimo_output.weight[end] = 0
        return llm

    @cached_property
    def flow(self) -> FlowTransformer:
        return random_module(lambda: FlowTransformer(self.sizes.flow), self.device, self.dtype)

    @cached_property
    def vocoder(self) -> BigVGAN:
        return random_module(lambda: BigVGAN(self.sizes.vocoder_config), self.device, torch.float32)

    @cached_property
    def copy_bandwidth(self) -> float:
        """Bytes a second, read and written."""
        source = torch.zeros(self.sizes.copied_bytes, dtype=torch.uint8, device=self.device)
        target = torch.zeros_like(source)
        return 2 * source.nbytes / self.seconds(lambda: target.copy_(source), rounds=10)

    def prompt(self, positions: int) -> Prompt:
        """One sound that was heard, as codes and features."""
        vocab, prompt = self.sizes.vocab, Prompt()
        codes = torch.randint(vocab.token_offset, vocab.size, (positions - 3,)).tolist()
        prompt.add([vocab.kimia_user_msg_start, vocab.media_begin], [vocab.text_blank] * 2)
        prompt.add(codes, [vocab.text_blank] * len(codes), continuous=True)
        prompt.add([vocab.media_end], [vocab.text_blank])
        prompt.features.append(torch.randn(1, len(codes), self.llm.config.kimia_adaptor_input_dim, device=self.device))
        return prompt

    def codes(self, count: int) -> list[int]:
        return torch.randint(self.sizes.vocab.num_audio_codes, (count,)).tolist()

    def decoded(self, prompt: Prompt, steps: int) -> Iterator[Step]:
        """The product's decoding of both streams."""
        return decode(self.llm, self.sizes.vocab, [prompt], [steps], SamplingParams(), output_type="both")

    def now(self) -> float:
        """The time at which all work is done."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, work: Work, rounds: int | None = None) -> float:
        """Median time of `work`, after two runs that allocate memory and choose kernels."""
        for _ in range(2):
            work()
        times = []
        for _ in range(rounds or self.rounds):
            started = self.now()
            work()
            times.append(self.now() - started)
        return statistics.median(times)

    def row(self, measure: str, setting: str, value: float, unit: str, dtype: str = "", **more: Any) -> Row:
        """A result; `dtype` is that of the models unless given."""
        return {
            "benchmark": "gpu", "measure": measure, "setting": setting, "value": float(f"{value:.4g}"), "unit": unit,
            **more, "dtype": dtype or str(self.dtype).removeprefix("torch."), "device": self.name,
            "torch": torch.__version__,
        }  # fmt: skip


def bandwidth(bench: Bench) -> Iterator[Row]:
    size = f"{bench.sizes.copied_bytes / 2**30:g} GiB, bytes read and written"
    yield bench.row("memory copy", size, bench.copy_bandwidth / 1e9, "GB/s", "uint8")


def prefill(bench: Bench) -> Iterator[Row]:
    prompt = bench.prompt(PREFILL)
    seconds = bench.seconds(lambda: next(bench.decoded(prompt, 1)))
    yield bench.row("prefill", f"{PREFILL} positions, eager", PREFILL / seconds, "tokens/s", seconds=round(seconds, 5))


def decoding(bench: Bench) -> Iterator[Row]:
    """Tokens per second after a prompt, beside what memory allows."""
    prompt = bench.prompt(PROMPT)
    read = bytes_per_token(bench.llm)
    limit = bench.copy_bandwidth / read

    def row(setting: str, runs: list[tuple[float, list[list[int]]]], **more: Any) -> Row:
        speed = STEPS / statistics.median(seconds for seconds, _ in runs[1:])  # the first one warms up
        return bench.row("decode", f"both streams after {PROMPT} positions, {setting}", speed, "tokens/s",
                         bandwidth_limit=round(limit, 2), share_of_limit=round(speed / limit, 3),
                         gigabytes_per_token=round(read / 1e9, 3), **more)  # fmt: skip

    eager = [decode_eager(bench, prompt) for _ in range(bench.rounds + 1)]
    yield row("eager", eager)
    if bench.is_cuda:
        decoder = GraphedDecoder(bench.llm, bench.sizes.vocab.text_blank, 2 * PROMPT)
        graphed = [decode_graphed(bench, decoder, prompt) for _ in range(bench.rounds + 1)]
        alike = steps_alike(eager[-1][1], graphed[-1][1])
        yield row("CUDA graph", graphed, steps_as_eager=alike, steps=STEPS + 1)


def bytes_per_token(llm: AudioLLM) -> int:
    """Bytes of the weights that a decoding step reads."""
    unread = ("model.embed_tokens.", "model.vq_adaptor.")
    return sum(weight.nbytes for name, weight in llm.named_parameters() if not name.startswith(unread))


def decode_eager(bench: Bench, prompt: Prompt) -> tuple[float, list[list[int]]]:
    """Seconds of `STEPS` steps after the first, and text and audio ids of all."""
    steps = bench.decoded(prompt, STEPS + 1)
    first = next(steps)
    started = bench.now()
    rest = list(steps)
    taken = bench.now() - started
    return taken, [[step.text_ids[0], step.audio_ids[0]] for step in (first, *rest)]


def decode_graphed(bench: Bench, decoder: GraphedDecoder, prompt: Prompt) -> tuple[float, list[list[int]]]:
    """As `decode_eager`."""
    first = decoder.start(prompt)
    started = bench.now()
    rest = [decoder.step() for _ in range(STEPS)]
    return bench.now() - started, [first, *rest]


def steps_alike(one: list[list[int]], other: list[list[int]]) -> int:
    """Steps before the first that differs."""
    differ = (index for index, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return next(differ, len(one))


def detokenizing(bench: Bench, setting: str, config: StreamConfig) -> Iterator[Row]:
    """Seconds of work per second of speech in the middle of an utterance."""
    speech = config.chunk_codes / CODES_PER_SECOND
    codes = bench.codes(config.chunk_codes)

    def row(measure: str, how: str, work: Work, dtype: str = "") -> Row:
        seconds = bench.seconds(work)
        return bench.row(measure, f"{setting}, {how}", seconds / speech, "s per s of speech", dtype,
                         seconds_per_chunk=round(seconds, 5))  # fmt: skip

    mels = MelStream(bench.flow, config)
    stream = Detokenizer(bench.flow, bench.vocoder, config).stream()
    chunks_to_fill = -(-config.remembered_frames // (FRAMES_PER_CODE * config.chunk_codes)) + 1
    for _ in range(chunks_to_fill):
        mels.push(codes)
        stream.push(codes)
    yield row("flow", "eager", lambda: mels.push(codes))
    yield row("flow and vocoder", "eager", lambda: stream.push(codes), FLOAT32_VOCODER)
    if bench.is_cuda:
        chunk = GraphedChunk(bench.flow, bench.vocoder, config)
        longer = bench.codes(chunk.count)
        yield row("flow", "eager, schedule and noise on the GPU", chunk.make_mel)
        yield row("flow", "CUDA graph", chunk.solve)
        yield row("flow and vocoder", "CUDA graph", lambda: chunk(longer), FLOAT32_VOCODER)


def vocoding(bench: Bench) -> Iterator[Row]:
    """Seconds of work per second of speech, by the chunk and with the context of the official stream."""
    config = StreamConfig()
    frames = FRAMES_PER_CODE * config.chunk_codes
    speech = config.chunk_codes / CODES_PER_SECOND
    mel_TM = torch.randn(frames, bench.sizes.flow.input_size, device=bench.device)
    more_1TM = torch.randn(1, frames + 2 * config.context_frames, bench.sizes.flow.input_size, device=bench.device)
    for dtype in (torch.float32, torch.bfloat16):
        vocoder = bench.vocoder if dtype == torch.float32 else copy.deepcopy(bench.vocoder).to(dtype)
        stitcher = Overlap(vocoder, config.context_frames)
        ways: dict[str, Work] = {"eager": partial(stitcher.push, mel_TM)}
        if bench.is_cuda:
            ways["CUDA graph"] = captured(partial(vocoder, more_1TM))
        for how, work in ways.items():
            seconds = bench.seconds(work)
            yield bench.row("vocoder", f"chunk {config.chunk_codes}, {how}", seconds / speech, "s per s of speech",
                            str(dtype).removeprefix("torch."), seconds_per_chunk=round(seconds, 5))  # fmt: skip


def speaking(bench: Bench, setting: str, config: StreamConfig) -> Iterator[Row]:
    """From the prompt to the first sound, and work per second of speech."""
    prompt = bench.prompt(PROMPT)
    first_steps = AUDIO_DELAY + (config.first_chunk_codes or config.chunk_codes) + 1
    runs = [spoken_eager(bench, prompt, config) for _ in range(bench.rounds + 1)]
    first, whole = (statistics.median(column) for column in zip(*runs[1:], strict=True))
    speech = SPOKEN / CODES_PER_SECOND
    yield bench.row("first sound", f"{setting}, eager", first, "s", FLOAT32_VOCODER, decoding_steps=first_steps)
    yield bench.row("speaking", f"{setting}, eager, prompt and {speech:g} s of speech", whole / speech,
                    "s per s of speech", FLOAT32_VOCODER)  # fmt: skip
    if bench.is_cuda:
        yield from speaking_graphed(bench, setting, config, first_steps)


def spoken_eager(bench: Bench, prompt: Prompt, config: StreamConfig) -> tuple[float, float]:
    """Seconds to the first sound and to the last, by the product."""
    stream = Detokenizer(bench.flow, bench.vocoder, config).stream()
    first = 0.0
    started = bench.now()
    for index, step in enumerate(bench.decoded(prompt, AUDIO_DELAY + SPOKEN)):
        if index >= AUDIO_DELAY:
            sound = stream.push([step.audio_ids[0] % bench.sizes.vocab.num_audio_codes])
            if len(sound) and not first:
                first = bench.now() - started
    stream.flush()
    return first, bench.now() - started


def speaking_graphed(bench: Bench, setting: str, config: StreamConfig, first_steps: int) -> Iterator[Row]:
    """The same with graphs; not the whole utterance, but a chunk in the middle of it and its decoding steps."""
    prompt = bench.prompt(PROMPT)
    decoder = GraphedDecoder(bench.llm, bench.sizes.vocab.text_blank, 2 * PROMPT)
    first_chunk = GraphedChunk(bench.flow, bench.vocoder, config, is_first=True)
    chunk = GraphedChunk(bench.flow, bench.vocoder, config)

    def codes(steps: int) -> list[int]:
        return [decoder.step()[1] % bench.sizes.vocab.num_audio_codes for _ in range(steps)]

    def to_first_sound() -> Tensor:
        decoder.start(prompt)
        return first_chunk(codes(first_steps - 1)[-first_chunk.count - 1 : -1])

    looked_at = bench.codes(config.look_ahead_codes)

    def to_next_sound() -> Tensor:
        decoder.cache.position_1.fill_(PROMPT + AUDIO_DELAY + SPOKEN)
        return chunk(looked_at + codes(config.chunk_codes))

    seconds = bench.seconds(to_first_sound)
    yield bench.row("first sound", f"{setting}, CUDA graph", seconds, "s", FLOAT32_VOCODER, decoding_steps=first_steps)
    seconds = bench.seconds(to_next_sound)
    yield bench.row("speaking", f"{setting}, CUDA graph, a chunk in the middle",
                    seconds * CODES_PER_SECOND / config.chunk_codes, "s per s of speech", FLOAT32_VOCODER)  # fmt: skip


def memory(bench: Bench) -> Iterator[Row]:
    if bench.is_cuda:
        weights = sum(weight.nbytes for weight in bench.llm.parameters())
        yield bench.row("memory", "weights of the language model", weights / 1e9, "GB")
        yield bench.row("memory", "most that was in use, all models and graphs",
                        torch.cuda.max_memory_allocated(bench.device) / 1e9, "GB", FLOAT32_VOCODER)  # fmt: skip


Section = Callable[[Bench], Iterator[Row]]


def sections() -> dict[str, Section]:
    """What is measured, the most important first."""
    streams = STREAMS.items()
    return {
        "bandwidth": bandwidth,
        "decode": decoding,
        "prefill": prefill,
        **{f"flow, {name}": partial(detokenizing, setting=name, config=config) for name, config in list(streams)[:2]},
        "vocoder": vocoding,
        **{f"speaking, {name}": partial(speaking, setting=name, config=config) for name, config in streams},
        "memory": memory,
    }


def measured(bench: Bench) -> Iterator[Row]:
    """All rows. What goes wrong in one section is told on the standard error, and the next one begins."""
    for name, section in sections().items():
        started = time.perf_counter()
        try:
            yield from section(bench)
        except Exception as error:
            traceback.print_exc()
            print(json.dumps({"benchmark": "gpu", "section": name, "error": repr(error)}), file=sys.stderr, flush=True)
        print(f"{name}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes, to see whether it runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="each row is written as soon as it is there")
    args = parser.parse_args()
    bench = Bench(SMALL if args.small else OFFICIAL, torch.device(args.device), args.rounds)
    where = machine()
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("")
    for row in measured(bench):
        print(json.dumps(row), flush=True)
        if args.output:
            with args.output.open("a") as lines:
                lines.write(json.dumps({**row, "machine": where}) + "\n")


if __name__ == "__main__":
    main()
