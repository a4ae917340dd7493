"""Golden cases of the detokenizer: flow matching, vocoder, and both as a stream."""

from collections.abc import Iterator

import torch
from torch import Tensor

from kimi_audio.audio.vocoder_mel import vocoder_log_mel
from kimi_audio.detokenizer.flow import FlowConfig, FlowTransformer, euler, naive_euler, whole_time
from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE, Detokenizer, MelStream, StreamConfig
from kimi_audio.detokenizer.vocoder import BigVGAN, VocoderConfig, folded
from kimi_audio.errors import CheckpointError
from kimi_audio.verify.case import Case, Results


def read_flow(case: Case) -> FlowTransformer:
    flow = FlowTransformer(FlowConfig.from_dict(case.config))
    case.load(flow, "speech_model.")
    return flow


def read_vocoder(case: Case) -> BigVGAN:
    vocoder = BigVGAN(VocoderConfig.from_dict(case.config))
    vocoder.load_state_dict(folded(case.weights))
    return vocoder.eval()


@torch.inference_mode()
def dit(case: Case) -> Results:
    """One forward pass, and mels made chunk by chunk under several settings."""
    flow, inputs = read_flow(case), case.inputs
    times = inputs["fwd.t"]
    yield "fwd.t_embed", flow.t_embedder(times)
    start = int(inputs["fwd.position_ids"][0, 0])
    yield "fwd.v", flow(inputs["fwd.x"], inputs["fwd.condition"], times, start=start)
    base = case.params["stream"]
    yield "stream.timesteps", torch.cat([whole_time(time, 1) for time, _ in euler(base["ode_steps"] - 1)])
    for name, params in case.params.items():
        if name.startswith("stream"):
            for number, mel_TM in enumerate(_chunks(flow, case, {**base, **params})):
                yield f"{name}.mel{number}", mel_TM


def _chunks(flow: FlowTransformer, case: Case, params: dict) -> Iterator[Tensor]:
    steps, frames_per_code = params["ode_steps"], params["upsample_factor"]
    is_naive = params["ode_solver"] == "naive_euler"
    config = StreamConfig(
        look_ahead_codes=params["look_ahead_frames"] // frames_per_code,
        remembered_frames=params["max_kv_cache_tokens"],
        schedule=naive_euler(steps) if is_naive else euler(steps - 1),
    )
    sizes, codes = params["chunk_tokens"], case.inputs["stream.semantic_tokens"].tolist()
    noises = iter(case.inputs[f"stream.noise{number}"] for number in range(len(sizes)))
    stream = MelStream(flow, config, lambda frames, bins: next(noises))
    for number, size in enumerate(sizes):
        take = stream.flush if number == len(sizes) - 1 else stream.push
        yield take(codes[:size])
        codes = codes[size:]


@torch.inference_mode()
def bigvgan(case: Case) -> Results:
    """The samples, what comes out of the first layers, and the mel of a sound."""
    vocoder, config = read_vocoder(case), VocoderConfig.from_dict(case.config)
    mel_1TM = case.inputs["mel"][None]
    pre = vocoder.conv_pre(mel_1TM.transpose(1, 2))
    up = vocoder.ups[0][0](pre)  # type: ignore[index]
    first = vocoder.resblocks[0]
    stages = {"conv_pre": pre, "ups0": up, "act0": first.activations[0](up), "resblock0": first(up)}  # type: ignore[index]
    for name, value in stages.items():
        yield name, value
        yield f"stage.{name}", value[:, :8, :40]
    yield "wav", vocoder(mel_1TM)
    samples_1L = case.inputs["wav24k_int16"].float()[None] / 32768
    yield "melspec", vocoder_log_mel(samples_1L, n_fft=config.n_fft, hop=config.hop_size, window=config.win_size,
                                     n_mels=config.num_mels, rate=config.sampling_rate, fmin=config.fmin,
                                     fmax=config.fmax)[0]  # fmt: skip


@torch.inference_mode()
def detokenizer_e2e(case: Case) -> Results:
    """Whole sounds; the weights are those of the cases `dit` and `bigvgan` beside this one."""
    parts = [_part(case, "dit", "detokenizer"), _part(case, "bigvgan", "vocoder")]
    flow, vocoder, config = read_flow(parts[0]), read_vocoder(parts[1]), case.config
    for name, settings in config["cases"].items():
        if config["upsample_factor"] != FRAMES_PER_CODE:
            raise CheckpointError(f"{case.folder}: upsample_factor is {config['upsample_factor']}; 4 is accepted.")
        stream_config = StreamConfig(
            chunk_codes=config["chunk_size"],
            look_ahead_codes=settings["look_ahead_tokens"],
            remembered_frames=config["max_kv_cache_tokens"],
            positions=settings["max_pos_size"],
            schedule=euler(config["ode_steps"] - 1),
            stitching="official",
        )
        torch.manual_seed(settings["seed"])
        samples_L = Detokenizer(flow, vocoder, stream_config)(case.inputs[f"{name}.tokens"].tolist())
        yield f"{name}.wav", samples_L[:: case.params["wav_stride"].get(name, 1)][None]


def _part(case: Case, kind: str, field: str) -> Case:
    """The case beside this one that holds its weights; its configuration is the one written here."""
    found = Case.read(case.folder.parent / kind)
    return Case(found.folder, case.config[field], found.params, found.inputs, found.expected)
