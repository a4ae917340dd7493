"""Drawing the next id of each stream: repetition penalty, temperature, top-k (SPEC.md section 5).

    params = SamplingParams(text_temperature=0.7)
    penalise(logits_NV, history_NS, params.text)
    ids_N = draw(logits_NV, params.text, generator)

Field names and defaults are the official ones. With equal logits and an equally seeded CPU generator the
draws are those of the official sampler.
"""

from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from kimi_audio.errors import ConfigError

_GREEDY_BELOW = 1e-6


@dataclass(frozen=True)
class StreamSampling:
    """How one stream is drawn; see `SamplingParams`."""

    temperature: float
    top_k: int
    repetition_penalty: float
    repetition_window_size: int

    @property
    def is_greedy(self) -> bool:
        """True when the likeliest id is taken and no random number used."""
        return self.temperature <= _GREEDY_BELOW


@dataclass(frozen=True)
class SamplingParams:
    """Options of `generate`, for the audio and the text stream.

    Attributes:
        *_temperature: 0 takes the likeliest id.
        *_top_k: draw among the k likeliest ids; 0 among all.
        *_repetition_penalty: above 1 makes the last ids less likely (1 is off).
        *_repetition_window_size: how many of them; the penalty waits until there are more than that.
        max_new_tokens: limit on decoding steps; -1 fills the official budget (see `budget`).

    Raises:
        ConfigError: naming a field that is out of range.
    """

    audio_temperature: float = 0.0
    audio_top_k: int = 5
    text_temperature: float = 0.0
    text_top_k: int = 5
    audio_repetition_penalty: float = 1.0
    audio_repetition_window_size: int = 64
    text_repetition_penalty: float = 1.0
    text_repetition_window_size: int = 16
    max_new_tokens: int = -1

    def __post_init__(self) -> None:
        for name, value in ((f.name, getattr(self, f.name)) for f in fields(self)):
            if name == "max_new_tokens":
                accepted, meaning = value == -1 or value > 0, "a positive number, or -1 for the default budget"
            elif name.endswith("penalty"):
                accepted, meaning = value >= 1.0, "a number of at least 1"
            elif name.endswith("window_size"):
                accepted, meaning = value > 0, "a positive number"
            else:
                accepted, meaning = value >= 0, "0 or a positive number"
            if not accepted:
                raise ConfigError(f"{name} is {value}; it must be {meaning}")

    @cached_property
    def text(self) -> StreamSampling:
        """The options of the text stream."""
        return StreamSampling(
            self.text_temperature,
            self.text_top_k,
            self.text_repetition_penalty,
            self.text_repetition_window_size,
        )

    @cached_property
    def audio(self) -> StreamSampling:
        """The options of the audio stream."""
        return StreamSampling(
            self.audio_temperature,
            self.audio_top_k,
            self.audio_repetition_penalty,
            self.audio_repetition_window_size,
        )


def penalise(logits_NV: Tensor, history_NS: Tensor, sampling: StreamSampling) -> None:
    """Make the last ids of each row less likely, in place, once a row has more of them than the window."""
    window = sampling.repetition_window_size
    if sampling.repetition_penalty <= 1.0 or history_NS.shape[1] <= window:
        return
    recent_NW = history_NS[:, -window:].long()
    scores_NW = logits_NV.gather(1, recent_NW)
    lowered_NW = torch.where(
        scores_NW < 0, scores_NW * sampling.repetition_penalty, scores_NW / sampling.repetition_penalty
    )
    logits_NV.scatter_(1, recent_NW, lowered_NW)


def draw(logits_NV: Tensor, sampling: StreamSampling, generator: torch.Generator | None = None) -> Tensor:
    """Draw one id per row.

    Args:
        logits_NV: any float dtype; computed with in float32.
        sampling: temperature and top-k.
        generator: on the logits' device; None uses torch's global one.

    Returns:
        int64 [N].
    """
    if sampling.is_greedy:
        return logits_NV.argmax(dim=-1)
    probs_NV = (logits_NV.log_softmax(dim=-1, dtype=torch.float32) / sampling.temperature).exp()
    if sampling.top_k == 0:
        return torch.multinomial(probs_NV, 1, generator=generator)[:, 0]
    top_probs_NK, top_ids_NK = probs_NV.topk(min(sampling.top_k, probs_NV.shape[1]), dim=-1)
    return top_ids_NK.gather(1, torch.multinomial(top_probs_NK, 1, generator=generator))[:, 0]


def discard_draw(
    shape: tuple[int, int], sampling: StreamSampling, device: torch.device, generator: torch.Generator | None = None
) -> None:
    """Use up the random numbers of a `draw` from logits of this shape [rows, ids] whose result nobody needs.

    `torch.multinomial` takes one exponential random number per candidate.
    """
    if not sampling.is_greedy:
        rows, ids = shape
        candidates = min(sampling.top_k, ids) if sampling.top_k else ids
        torch.empty(rows, candidates, device=device).exponential_(generator=generator)
