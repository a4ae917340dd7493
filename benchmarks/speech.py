"""Speed of speech: flow, vocoder and both as a stream, beside the official code in the same run; what choices cost.

    python benchmarks/speech.py                                       # ours, random weights of a middle size
    python benchmarks/speech.py --official CHECKOUT -o benchmarks/results/speech.jsonl
    python benchmarks/speech.py --official CHECKOUT --recording a.wav --model MODEL   # with MODEL's flow
    python benchmarks/speech.py --choices a.wav b.wav --model MODEL   # latency and quality by chunk, look-ahead, steps
    python benchmarks/speech.py --conversation question.wav           # spoken questions, from prompt to last sound

Figures are seconds of work per second of speech (real-time factors), medians over rounds in which the systems take
turns.

Beside the official code, which takes 29 steps, ours takes as many, and fewer. For those it says how far its log-mels
are from those of 29 steps from the same noise: mean absolute difference, in nats. With random weights that means
little; `--recording` has the codes of a recording said by a trained flow (the vocoder stays random, if the model's is
of a kind that the official code doesn't know). `--official` wants a checkout with `kimia_infer/`; neither flash-attn
nor a GPU is needed.

`--choices` says the codes of recordings in each way to stream, and compares with all codes at once in 29 steps from the
same noise and with the same guidance: the log-mels; how much more the spectrum jumps where chunks meet than elsewhere;
how many codes the first sound needs, and how long it takes once they are there.

`--conversation` answers spoken questions aloud: seconds from the question, encoded, to the first text and the first
sound (median and slowest question), and work per second of speech over all answers. Both include the language model,
and the writing down of the question where the model does that.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from machine import report
from official_speech import load_official
from torch import Tensor

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.files import write_json
from kimi_audio.detokenizer.flow import FlowConfig, FlowTransformer, euler, solve
from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE, Detokenizer, StreamConfig
from kimi_audio.detokenizer.vocoder import BigVGAN, VocoderConfig, log_mel, unfolded
from kimi_audio.evaluation.speech import spectral_jumps
from kimi_audio.messages import Message
from kimi_audio.model import KimiAudio
from kimi_audio.training.objectives.flow import CODES_PER_SECOND

CODES, CHUNK, LOOK_AHEAD, STEPS = 1024, 30, 12, 29
FEWER_STEPS = (12, 8, 4)
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


class Choice(NamedTuple):
    """A way to stream: codes of a chunk, look-ahead in codes, solver steps, codes of the first chunk."""

    chunk: int
    look_ahead: int
    steps: int
    first_chunk: int | None = None


CHOICES = [
    Choice(30, 12, 29),
    Choice(30, 12, 12),
    Choice(30, 12, 8),
    Choice(30, 12, 4),
    Choice(30, 4, 8),
    Choice(24, 6, 8),
    Choice(24, 6, 8, first_chunk=16),
    Choice(24, 6, 8, first_chunk=12),
    Choice(20, 6, 8),
    Choice(20, 6, 8, first_chunk=14),
    Choice(12, 4, 12),
    Choice(12, 4, 8),
    Choice(12, 4, 4),
    Choice(8, 2, 8),
]

Work = Callable[[], Any]


def random_vocoder() -> BigVGAN:
    torch.manual_seed(0)
    return BigVGAN(VOCODER).eval()


def random_flow() -> FlowTransformer:
    torch.manual_seed(0)
    return FlowTransformer(FLOW).eval()


def write_official(folder: Path, detokenizer: Detokenizer) -> None:
    """The two folders as they are released."""
    for name in ("audio_detokenizer", "vocoder"):
        (folder / name).mkdir()
    (folder / "audio_detokenizer" / "config.yaml").write_text(yaml.safe_dump(detokenizer.flow.config.to_dict()))
    state = {f"speech_model.{name}": tensor for name, tensor in detokenizer.flow.state_dict().items()}
    torch.save({"state_dict": state}, folder / "audio_detokenizer" / "model.pt")
    write_json(folder / "vocoder" / "config.json", detokenizer.vocoder.config.to_dict())
    torch.save({"generator": unfolded(detokenizer.vocoder.state_dict())}, folder / "vocoder" / "model.pt")


def seconds_of(work: Work) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(part: str, systems: dict[str, Work], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Real-time factor of each system, and how many times faster than the official code it is."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(rounds + 1):  # the first one warms up
        for name, work in systems.items():
            taken = seconds_of(work)
            if turn:
                times[name].append(taken)
    rtf = {name: statistics.median(taken) / seconds for name, taken in times.items()}
    rows = []
    for name, value in rtf.items():
        row = {"benchmark": "speech", "part": part, "system": name, "rtf": round(value, 4)}
        if name != "official" and "official" in rtf:
            row["ratio_to_official"] = round(rtf["official"] / value, 2)
        rows.append(row)
    return rows


def beside_official(
    checkout: Path | None, detokenizer: Detokenizer, codes: list[int], rounds: int
) -> list[dict[str, Any]]:
    """Both systems at work on the same codes: as a stream, in the vocoder alone, and in the flow with one chunk."""
    device, flow = detokenizer.flow.input_linear.weight.device, detokenizer.flow
    ours = StreamConfig(CHUNK, None, LOOK_AHEAD, schedule=euler(STEPS))
    mel_1TM = torch.randn(1, FRAMES_PER_CODE * len(codes), flow.config.input_size, device=device)
    mel_1TM = mel_1TM * flow.config.mel_std + flow.config.mel_mean
    chunk_1N = torch.tensor([(codes * CHUNK)[: CHUNK + LOOK_AHEAD]], device=device)
    noise_1TM = torch.randn(1, FRAMES_PER_CODE * (CHUNK + LOOK_AHEAD), flow.config.input_size, device=device)

    def solved(steps: int) -> Work:
        return lambda: solve(flow, noise_1TM, chunk_1N, euler(steps))

    def streamed(config: StreamConfig) -> Work:
        return lambda: detokenizer(codes, config=config)

    def vocoded() -> Tensor:
        with torch.inference_mode():
            return detokenizer.vocoder(mel_1TM)

    fewer = {steps: replace(ours, schedule=euler(steps)) for steps in FEWER_STEPS}
    systems: dict[str, dict[str, Work]] = {
        "stream": {
            "ours": streamed(replace(ours, stitching="official")),
            "ours, overlap": streamed(ours),
            **{f"ours, overlap, {steps} steps": streamed(config) for steps, config in fewer.items()},
        },
        "vocoder": {"ours": vocoded},
        "flow": {"ours": solved(STEPS), **{f"ours, {steps} steps": solved(steps) for steps in FEWER_STEPS}},
    }
    seconds = dict.fromkeys(systems, len(codes) / CODES_PER_SECOND) | {"flow": chunk_1N.numel() / CODES_PER_SECOND}
    with tempfile.TemporaryDirectory() as scratch:
        if checkout:
            write_official(Path(scratch), detokenizer)
            official = load_official(checkout, Path(scratch), look_ahead=LOOK_AHEAD, chunk=CHUNK, steps=STEPS)
            systems["stream"]["official"] = lambda: official(codes)
            systems["vocoder"]["official"] = lambda: official.vocode(mel_1TM[0])
            systems["flow"]["official"] = lambda: official.chunk(noise_1TM[0], chunk_1N[0])
        rows = [row for part, each in systems.items() for row in measure(part, each, seconds[part], rounds)]

    finest_1TM = solved(STEPS)()
    noise_TM = torch.randn(FRAMES_PER_CODE * len(codes), flow.config.input_size)
    whole_TM = mel_of(detokenizer, detokenizer(codes, Noise(noise_TM, LOOK_AHEAD), ours))
    for steps, config in fewer.items():
        mel_TM = mel_of(detokenizer, detokenizer(codes, Noise(noise_TM, LOOK_AHEAD), config))
        distances = {
            ("stream", f"ours, overlap, {steps} steps"): float((mel_TM - whole_TM).abs().mean()),
            ("flow", f"ours, {steps} steps"): float((solved(steps)() - finest_1TM).abs().mean()) * flow.config.mel_std,
        }
        for row in rows:
            if (distance := distances.get((row["part"], row["system"]))) is not None:
                row["mel_distance_to_29_steps"] = round(distance, 3)
    return rows


class Noise:
    """The same noise for each frame of an utterance, however it is cut; frames only looked at get it again later."""

    def __init__(self, noise_TM: Tensor, look_ahead: int) -> None:
        self.noise_TM, self.look_ahead, self.start = noise_TM, FRAMES_PER_CODE * look_ahead, 0

    def __call__(self, frames: int, bins: int) -> Tensor:
        drawn = self.noise_TM[self.start : self.start + frames]
        self.start += frames - self.look_ahead
        return drawn


def mel_of(detokenizer: Detokenizer, samples_L: Tensor) -> Tensor:
    """Log-mel (T, M) of a sound, on the CPU."""
    return log_mel(samples_L[None].cpu(), detokenizer.vocoder.config)[0]


@torch.inference_mode()
def said_at_once(detokenizer: Detokenizer, codes: list[int], noise_TM: Tensor) -> Tensor:
    """Log-mel (T, M) of the sound of all codes in one chunk, by the finest solver and with the usual guidance."""
    flow = detokenizer.flow
    device = flow.input_linear.weight.device
    mel_1TM = solve(flow, noise_TM[None].to(device), torch.tensor([codes], device=device), euler(STEPS),
                    guidance=detokenizer.config.guidance)  # fmt: skip
    return mel_of(detokenizer, detokenizer.vocoder(mel_1TM * flow.config.mel_std + flow.config.mel_mean)[0])


def say_in_pieces(detokenizer: Detokenizer, codes: list[int], noise: Noise, config: StreamConfig) -> list[tuple]:
    """What each code, and at last the end, brings about: samples (L,) and seconds of work."""
    stream = detokenizer.stream(noise, config)

    def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
        started = time.perf_counter()
        return work(), time.perf_counter() - started

    return [*(timed(lambda code=code: stream.push([code])) for code in codes), timed(stream.flush)]


def choices(detokenizer: Detokenizer, utterances: list[list[int]], rounds: int) -> Iterator[dict[str, Any]]:
    """Latency and distance of each way to stream."""
    bins = detokenizer.flow.config.input_size
    said = []
    for codes in utterances:
        noise_TM = torch.randn(FRAMES_PER_CODE * len(codes), bins)
        said.append((codes, noise_TM, said_at_once(detokenizer, codes, noise_TM)))
    for choice in CHOICES:
        config = replace(
            detokenizer.config,
            chunk_codes=choice.chunk,
            first_chunk_codes=choice.first_chunk,
            look_ahead_codes=choice.look_ahead,
        ).with_steps(choice.steps)
        awaited, first, whole, distances, jumps = [], [], [], [], []
        for codes, noise_TM, target_TM in said * rounds:
            pieces = say_in_pieces(detokenizer, codes, Noise(noise_TM, choice.look_ahead), config)
            sounding = [(number, taken) for number, (samples, taken) in enumerate(pieces, 1) if len(samples)]
            awaited.append(sounding[0][0])
            first.append(sounding[0][1])
            whole.append(sum(taken for _, taken in pieces) * CODES_PER_SECOND / len(codes))
            samples_L = torch.cat([samples for samples, _ in pieces])
            distances.append(float((mel_of(detokenizer, samples_L) - target_TM).abs().mean()))
            joins = np.cumsum([len(samples) for samples, _ in pieces if len(samples)])[:-1]
            jumps += spectral_jumps(samples_L.numpy(), detokenizer.sample_rate, joins.tolist()).tolist()
        heard = [jump for jump in jumps if np.isfinite(jump)]
        yield {
            "benchmark": "speech choices",
            **choice._asdict(),
            "guidance": config.guidance,
            "recordings": len(utterances),
            "speech_seconds": round(sum(map(len, utterances)) / CODES_PER_SECOND, 1),
            "codes_until_first_sound": round(statistics.median(awaited)),
            "first_sound_seconds": round(statistics.median(first), 3),
            "rtf": round(statistics.median(whole), 3),
            "mel_distance_to_whole": round(statistics.mean(distances), 3),
            "joins": len(heard) // rounds,
            "jump_at_joins": round(statistics.mean(heard), 3) if heard else None,
        }


def conversation(model: KimiAudio, questions: list[str], rounds: int) -> dict[str, Any]:
    """Spoken answers to spoken questions."""
    prompts, first_texts, first_sounds = [], [], []
    work = speech = 0.0
    silent = 0
    for turn in range(rounds + 1):  # the first one warms up
        for question in questions if turn else questions[:1]:
            asked = time.perf_counter()
            heard = model.listen(question)
            started = time.perf_counter()  # a model that writes requests down does so now
            answer = model.stream([Message("user", "audio", heard)], "both", seed=turn)
            moments = [(type(piece), time.perf_counter() - started) for piece in answer]
            taken = time.perf_counter() - started
            audio = answer.reply.audio
            if not turn or audio is None:
                continue
            prompts.append(started - asked)
            work, speech = work + taken, speech + len(audio) / model.speech_rate
            silent += not len(audio)
            for kind, found in ((str, first_texts), (np.ndarray, first_sounds)):
                found += [moment for made, moment in moments if made is kind][:1]
    return {
        "benchmark": "speech conversation",
        "questions": len(questions),
        "rounds": rounds,
        "answers_without_sound": silent,
        "prompt_seconds": _median(prompts),
        "first_text_seconds": _median(first_texts),
        "first_sound_seconds": _median(first_sounds),
        "slowest_first_sound_seconds": round(max(first_sounds), 3) if first_sounds else None,
        "speech_seconds": round(speech, 1),
        "rtf": round(work / speech, 3) if speech else None,
    }


def _median(seconds: list[float]) -> float | None:
    return round(statistics.median(seconds), 3) if seconds else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="checkout of the official code")
    parser.add_argument("--recording", help="said beside the official code by the flow of --model")
    parser.add_argument("--choices", nargs="+", metavar="SOUND", help="compare ways to stream on these recordings")
    parser.add_argument("--conversation", nargs="+", metavar="SOUND", help="answer these spoken questions aloud")
    parser.add_argument("--model", help="folder or hub id; the bundled model if not given")
    parser.add_argument("--dtype", default="auto", help="of the model's weights in a conversation")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=9.6, help="of speech, beside the official code")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    if args.official and args.device != "cpu":
        parser.error("the official code is run on the CPU; leave out --device or --official")
    torch.set_num_threads(args.threads)
    rows = list(measured(args))
    is_cuda = torch.device(args.device).type == "cuda"
    device = torch.cuda.get_device_name(args.device) if is_cuda else args.device
    report([{**row, "threads": args.threads, "device": device} for row in rows], args.output)


def measured(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of what was asked for."""
    if args.conversation:
        model = KimiAudio.from_pretrained(args.model, dtype=args.dtype, device=args.device)
        yield {**conversation(model, args.conversation, args.rounds), "dtype": args.dtype}
    elif args.choices or args.recording:
        model = KimiAudio.from_pretrained(args.model, device=args.device)
        if model.detokenizer is None:
            raise SystemExit("this model has no detokenizer")
        sounds = args.choices or [args.recording]
        codes = [model.semantic.encode([load_audio(sound)])[0].tolist() for sound in sounds]
        if args.choices:
            yield from choices(model.detokenizer, codes, args.rounds)
            return
        is_known = not model.detokenizer.vocoder.config.istft_hop
        vocoder = model.detokenizer.vocoder if is_known else random_vocoder().to(args.device)
        yield from beside_official(args.official, Detokenizer(model.detokenizer.flow, vocoder), codes[0], args.rounds)
    else:
        detokenizer = Detokenizer(random_flow().to(args.device), random_vocoder().to(args.device))
        codes = torch.randint(CODES, (round(CODES_PER_SECOND * args.seconds),)).tolist()
        yield from beside_official(args.official, detokenizer, codes, args.rounds)


if __name__ == "__main__":
    main()
