"""Phonemes read off the acoustic encoder's frames: a CTC head, for small models (`generation.joint` uses it).

    log_probs_TC = PhonemeReader(PhonemeConfig(512, 384, 5, 2))(features_TF)  # (T, 4 · 512) → (4 T, 41), at 50 Hz
    phoneme_classes("gUd mcrnIG")                              # as `Lexicon.pronounce` writes them, without spaces

Not in the report: its language model is large enough to know what it hears. One that is not writes what reads well, and
is told by this head, which knows sounds and no words, where that was not what was said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.pronunciation import PHONEMES

CLASSES = {phoneme: number for number, phoneme in enumerate(sorted(PHONEMES), start=1)}
"""Class of each phoneme; class 0 is the blank."""
AROUND = 9
"""Frames that a block sees of each channel."""
SURE = 0.98
"""Probability of the blank from which on a frame counts as silent."""


def phoneme_classes(pronounced: str) -> list[int]:
    """Classes of a text's phonemes; spaces and pauses have none."""
    return [CLASSES[phoneme] for phoneme in pronounced if phoneme in CLASSES]


@dataclass(frozen=True)
class PhonemeConfig:
    """Sizes of the head.

    Attributes:
        d_model: numbers a frame of the encoder.
        hidden: channels.
        kernel: frames that the first layer sees (an odd number).
        layers: blocks after it.
    """

    d_model: int
    hidden: int
    kernel: int
    layers: int

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "PhonemeConfig":
        return cls(*(config[name] for name in ("d_model", "hidden", "kernel", "layers")))


class Block(nn.Module):
    """What the frames around say, channel by channel, then a feed-forward layer (as in ConvNeXt)."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.around = nn.Conv1d(hidden, hidden, AROUND, padding=AROUND // 2, groups=hidden)
        self.up = nn.Linear(hidden, 2 * hidden)
        self.down = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BNH: Tensor, there_BN1: Tensor) -> Tensor:
        around_BNH = self.around((self.norm(x_BNH) * there_BN1).transpose(1, 2)).transpose(1, 2)
        return x_BNH + self.dropout(self.down(F.gelu(self.up(around_BNH))))


class PhonemeReader(nn.Module):
    """A convolution over the encoder's frames, some blocks, and the phonemes that their channels stand for."""

    def __init__(self, config: PhonemeConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.d_model)
        # A convolution, as a matrix that may be stored in few bits.
        self.first = nn.Linear(config.d_model * config.kernel, config.hidden)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(config.hidden, dropout) for _ in range(config.layers))
        self.last_norm = nn.LayerNorm(config.hidden)
        self.out = nn.Linear(config.hidden, 1 + len(CLASSES))

    def forward(self, features_TF: Tensor) -> Tensor:
        """Log-probabilities of blank and phonemes at each of the encoder's frames, float32 (T · F / d_model, C)."""
        return self.read([features_TF])[0]

    def read(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The same of several sounds, together."""
        frames = [features_TF.unflatten(-1, (-1, self.config.d_model)).flatten(0, 1) for features_TF in features]
        frames_BND = nn.utils.rnn.pad_sequence(frames, batch_first=True).to(self.norm.weight.dtype)
        # What is beside a sound is nothing, whether it ends or is padded.
        ends = torch.tensor([len(frames_ND) for frames_ND in frames], device=frames_BND.device)
        there_BN1 = (torch.arange(frames_BND.shape[1], device=ends.device) < ends[:, None])[..., None]
        beside = self.config.kernel // 2
        seen_BNDK = F.pad(self.norm(frames_BND) * there_BN1, (0, 0, beside, beside)).unfold(1, self.config.kernel, 1)
        x_BNH = self.dropout(F.gelu(self.first(seen_BNDK.flatten(2))))
        for block in self.blocks:
            x_BNH = block(x_BNH, there_BN1)
        log_probs_BNC = self.out(self.last_norm(x_BNH)).float().log_softmax(-1)
        return [log_probs_NC[: len(own)] for log_probs_NC, own in zip(log_probs_BNC, frames, strict=True)]


def without_silence(log_probs_TC: Tensor) -> Tensor:
    """Frames that are surely blank, which most are, joined where they follow each other: (T', C), T' ≤ T."""
    silent_T = log_probs_TC[:, 0] > torch.tensor(SURE).log()
    joins_T = silent_T & torch.cat([silent_T.new_zeros(1), silent_T[:-1]])
    place_T = (~joins_T).cumsum(0) - 1
    joined_TC = log_probs_TC.new_full((int(place_T[-1]) + 1, log_probs_TC.shape[1]), -torch.inf)
    joined_TC.scatter_reduce_(0, place_T[:, None].expand_as(log_probs_TC), log_probs_TC, "amax")
    joined_TC[:, 0] = torch.zeros_like(joined_TC[:, 0]).index_add(0, place_T, log_probs_TC[:, 0])
    return joined_TC
