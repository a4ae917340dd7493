"""Whether two recordings have the same voice: Resemblyzer's speaker encoder in plain torch.

    encoder = SpeakerEncoder()
    voice_E = encoder.voice(["first.wav", "second.wav"])
    float(encoder.embed(load_audio("answer.wav")) @ voice_E)    # cosine: same voice about 0.85, others below 0.75

It is the network of Wan et al. 2018 ("Generalized end-to-end loss for speaker verification"). The weights (Apache-2.0)
come with the package `resemblyzer`, which isn't imported: it needs librosa and a C extension just to prepare sound.
Long silences are cut out by the voice detector of this package instead of WebRTC's.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kimi_audio.audio.blocks import Samples
from kimi_audio.audio.decode import load_audio
from kimi_audio.audio.log_mel import mel_filters
from kimi_audio.audio.voice import FRAME
from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation.speech import VOICE_RATE, voiced_frames

MELS, WINDOW, HOP = 40, 400, 160  # 25 and 10 ms
PARTIAL = 160  # mel frames of 10 ms that are embedded at a time
STEP = 77  # 1.3 partials a second
LEAST_COVER = 0.75  # share of the last partial that must be sound
LEVEL = 10 ** (-30 / 20)  # root mean square to which soft sounds are raised
KEPT_SILENCE = 6  # frames of 32 ms left on both sides of the voice


class SpeakerEncoder(nn.Module):
    """Three LSTM layers over mel frames; the last state, projected, rectified and normalised, is the voice."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        weights = torch.load(_released_weights(), map_location="cpu", weights_only=True)["model_state"]
        known = self.state_dict().keys()
        self.load_state_dict({name: value for name, value in weights.items() if name in known})
        self.eval()

    def forward(self, mel_BTM: Tensor) -> Tensor:
        """(B, T, MELS) -> (B, 256), each of length 1."""
        _, (hidden, _) = self.lstm(mel_BTM)
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=1)

    def embed(self, samples_L: Samples) -> np.ndarray | None:
        """The voice in 16 kHz samples, float32 (256,), or None where nobody speaks."""
        return self.embed_prepared(prepared) if len(prepared := _prepared(samples_L)) else None

    @torch.inference_mode()
    def embed_prepared(self, samples_L: Samples) -> np.ndarray:
        """As `embed`, of samples with neither long silences nor a low level."""
        starts = _partial_starts(len(samples_L))
        padded = np.pad(samples_L, (0, max(0, (starts[-1] + PARTIAL) * HOP - len(samples_L))))
        mel_TM = speaker_mel(torch.from_numpy(padded))
        return _unit(self(torch.stack([mel_TM[start : start + PARTIAL] for start in starts])).mean(0).numpy())

    def voice(self, files: Sequence[Path | str]) -> np.ndarray:
        """The mean voice of recordings, (256,). Raises DataError if there are none, or none with speech."""
        found = [embedded for file in files if (embedded := self.embed(load_audio(file))) is not None]
        if not found:
            named = ", ".join(map(str, files[:3])) or "no recording at all"
            raise DataError(f"speaker similarity needs recordings of the voice with speech in them; given: {named}")
        return _unit(np.mean(found, axis=0))


def speaker_mel(samples_L: Tensor) -> Tensor:
    """Mel power, not its logarithm, of 16 kHz samples: (1 + L // HOP, MELS)."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(samples_L, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    return (mel_filters(MELS, WINDOW, VOICE_RATE) @ spectrum.abs().square()).T


def _partial_starts(samples: int) -> list[int]:
    """Mel frames at which partials begin; the last one hangs over the end if enough of it is sound."""
    frames = samples // HOP + 1
    starts = list(range(0, max(1, frames - PARTIAL + STEP + 1), STEP))
    too_short = samples - starts[-1] * HOP < LEAST_COVER * PARTIAL * HOP
    return starts[:-1] if too_short and len(starts) > 1 else starts


def _prepared(samples_L: Samples) -> Samples:
    """Raised to `LEVEL` if softer, and without long silences."""
    voiced_F = voiced_frames(samples_L, VOICE_RATE)
    if not voiced_F.any():
        return samples_L[:0]
    kept_F = np.convolve(voiced_F, np.ones(2 * KEPT_SILENCE + 1), "full")[KEPT_SILENCE:-KEPT_SILENCE] > 0
    root_mean_square = float(np.sqrt(np.square(samples_L, dtype=np.float64).mean()))
    louder = np.float32(max(1.0, LEVEL / root_mean_square))
    return louder * samples_L[np.repeat(kept_F, FRAME)[: len(samples_L)]]


def _unit(vector_E: np.ndarray) -> np.ndarray:
    return vector_E / np.linalg.norm(vector_E)


def _released_weights() -> Path:
    package = find_spec("resemblyzer")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("speaker similarity needs weights that are not here: pip install --no-deps resemblyzer")
    return Path(package.submodule_search_locations[0]) / "pretrained.pt"
