"""Golden cases of the two listening encoders."""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.audio.log_mel import mel_filters, whisper_log_mel
from kimi_audio.checkpoint.layout import TRAINING_ONLY
from kimi_audio.tokenizer.acoustic import SEGMENT_SAMPLES, AcousticEncoder
from kimi_audio.tokenizer.semantic import SemanticTokenizer, SemanticTokenizerConfig
from kimi_audio.tokenizer.whisper import WhisperEncoder, WhisperEncoderConfig
from kimi_audio.verify.case import TOLERANCE, Case, Results

_EXCERPT = re.compile(r"(.*)_(first|last)(\d+)")


def sounds_of(case: Case) -> dict[str, Tensor]:
    """Float samples of a case's sounds, which are stored as int16, by their names."""
    suffix = "_int16"
    return {k.removesuffix(suffix): v.float() / 32768 for k, v in case.inputs.items() if k.endswith(suffix)}


def with_excerpts(case: Case, results: Results) -> Results:
    """`results`, and their beginnings and ends that are expected as `NAME_firstN` and `NAME_lastN`.

    Time is the last axis of log-mels, and the second of states (1, T, D).
    """
    for name, value in results:
        yield name, value
        for wanted in case.expected if isinstance(value, Tensor) else ():
            if (match := _EXCERPT.fullmatch(wanted)) and match[1] == name:
                axis, count = (1 if value.dim() == 3 else -1), int(match[3])
                start = 0 if match[2] == "first" else value.shape[axis] - count
                yield wanted, value.narrow(axis, start, min(count, value.shape[axis]))


@torch.inference_mode()
def whisper_features(case: Case) -> Results:
    """Log-mels, encoder states and 12.5 Hz features."""
    yield from with_excerpts(case, _whisper_features(case))


def _whisper_features(case: Case) -> Results:
    encoder = WhisperEncoder(WhisperEncoderConfig.from_dict(case.config))
    case.load(encoder, "model.encoder.")
    n_mels, d_model = encoder.config.num_mel_bins, encoder.config.d_model
    acoustic, clipped = AcousticEncoder(encoder), AcousticEncoder(encoder, clip_silence=True)
    yield f"mel_filters_{n_mels}", mel_filters(n_mels)
    for name, samples in sounds_of(case).items():
        yield f"{name}.features", acoustic(samples)
        yield f"{name}.clip_silence_out", clipped(samples).unflatten(-1, (-1, d_model)).flatten(1, 2)
        segments = samples.split(SEGMENT_SAMPLES)
        log_mel = acoustic.log_mel(segments[0])
        yield f"{name}.logmel", log_mel
        yield f"{name}_tail.logmel", acoustic.log_mel(segments[-1])
        for number, states in enumerate(_states(encoder, log_mel[None])):
            yield f"{name}.encoder_hidden{number}", states
        yield f"{name}.encoder_out", encoder(log_mel[None])


def _states(encoder: WhisperEncoder, log_mel_BMT: Tensor) -> list[Tensor]:
    """What enters the first layer, and what each layer puts out."""
    states: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        if not states:
            states.append(arguments[0])
        states.append(output)

    hooks = [layer.register_forward_hook(keep) for layer in encoder.layers]
    encoder(log_mel_BMT)
    for hook in hooks:
        hook.remove()
    return states


@torch.inference_mode()
def vq_tokenizer(case: Case) -> Results:
    """Log-mels and masks, states before the codebook, ids, and by how much the nearest code is nearest."""
    yield from with_excerpts(case, _vq_tokenizer(case))


def _vq_tokenizer(case: Case) -> Results:
    tokenizer = SemanticTokenizer(SemanticTokenizerConfig.from_dict(case.config))
    case.load(tokenizer, without=TRAINING_ONLY)
    sounds = sounds_of(case)
    batch = [name.split(".")[1] for name in case.expected if name.startswith("batched.")]
    for name, ids in zip(batch, tokenizer.encode([sounds[name] for name in batch]), strict=True):
        yield f"batched.{name}.ids", ids
    for name, samples in sounds.items():
        segments = samples.split(SEGMENT_SAMPLES)
        read = [tokenizer.log_mel(segment) for segment in segments]
        hidden_1TD = torch.cat([tokenizer.hidden(log_mel[None], valid[None]) for log_mel, valid in read], 1)
        yield f"{name}.ids", tokenizer.encode([samples])[0]
        yield f"{name}_tail_alone.ids", tokenizer.encode([segments[-1]])[0]
        yield f"{name}.hidden_before_vq", hidden_1TD
        if (expected := case.expected.get(f"{name}.margin")) is not None:
            # A margin is a small difference of large squared distances: float noise grows with the distances.
            tolerance = TOLERANCE * max(1.0, expected.max().item())
            yield f"{name}.margin", (_margin(hidden_1TD[0], tokenizer.codebook.weight), expected, tolerance)
        yield f"{name}.input_features", read[0][0][None]
        yield f"{name}.attention_mask", read[0][1][None].int()
        yield f"{name}.attention_mask_sum", torch.stack([valid.sum() for _, valid in read])
        # Segments of one call are padded to the longest of them.
        longest = max(map(len, segments))
        for number, segment in enumerate(segments):
            padded = F.pad(segment, (0, longest - len(segment)))
            yield f"{name}.input_features_seg{number}", whisper_log_mel(padded, tokenizer.config.num_mel_bins)


def _margin(hidden_TD: Tensor, codebook_VD: Tensor) -> Tensor:
    """How much farther the second nearest code is than the nearest, in squared distance: (T,)."""
    norms = hidden_TD.square().sum(1, keepdim=True) + codebook_VD.square().sum(1)
    nearest = torch.addmm(norms, hidden_TD, codebook_VD.T, alpha=-2.0).topk(2, largest=False).values
    return nearest[:, 1] - nearest[:, 0]
