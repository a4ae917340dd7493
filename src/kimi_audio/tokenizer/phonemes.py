"""Phonemes read off the acoustic encoder's frames: a CTC head, for small models (`generation.joint` uses it).

    log_probs_TC = PhonemeReader(PhonemeConfig(512, 256, 5))(features_TF)     # (T, 4 · 512) → (4 T, 41), at 50 Hz
    phoneme_classes("gUd mcrnIG")                              # as `Lexicon.pronounce` writes them, without spaces

Not in the report: its language model is large enough to know what it hears. One that is not writes what reads well, and
is told by this head, which knows sounds and no words, where that was not what was said.
"""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.pronunciation import PHONEMES

CLASSES = {phoneme: number for number, phoneme in enumerate(sorted(PHONEMES), start=1)}
"""Class of each phoneme; class 0 is the blank."""


def phoneme_classes(pronounced: str) -> list[int]:
    """Classes of a text's phonemes; spaces and pauses have none."""
    return [CLASSES[phoneme] for phoneme in pronounced if phoneme in CLASSES]


@dataclass(frozen=True)
class PhonemeConfig:
    """Numbers a frame, channels, and frames that each of them sees (an odd number)."""

    d_model: int
    hidden: int
    kernel: int

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "PhonemeConfig":
        return cls(config["d_model"], config["hidden"], config["kernel"])


class PhonemeReader(nn.Module):
    """A convolution over the encoder's frames, and the phonemes that its channels stand for."""

    def __init__(self, config: PhonemeConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.d_model)
        self.conv = nn.Conv1d(config.d_model, config.hidden, config.kernel, padding=config.kernel // 2)
        self.out = nn.Linear(config.hidden, 1 + len(CLASSES))

    def forward(self, features_TF: Tensor) -> Tensor:
        """Log-probabilities of blank and phonemes at each of the encoder's frames, float32 (T · F / d_model, C)."""
        frames_ND = features_TF.unflatten(-1, (-1, self.config.d_model)).flatten(0, 1).to(self.out.weight.dtype)
        hidden_HN = F.gelu(self.conv(self.norm(frames_ND).T))
        return self.out(hidden_HN.T).float().log_softmax(-1)
