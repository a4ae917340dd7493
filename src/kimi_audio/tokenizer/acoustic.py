"""Continuous acoustic features: a Whisper encoder read at 12.5 Hz (SPEC §6).

    features_1TF = AcousticEncoder(encoder)(samples)        # (1, T, 4 · d_model), T = (L − 1) // 1280 + 1

Each 30 s segment is encoded on its own. Officially a segment is padded with zeros to 30 s before the log-mel and the
encoder attends over all 1500 frames. `clip_silence=True` (the official `kimia_whisper_clip_silence`) computes the
same log-mel but encodes only the frames that are kept, which is many times faster on short clips. Whisper, used to
30 s, spoils the end of a clip that ends so: with `spare_frames` it also hears so many frames of the silence after it.
A model must be used with the settings that it was trained with.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from kimi_audio.audio.log_mel import HOP, N_FFT, SAMPLE_RATE, whisper_log_mel
from kimi_audio.tokenizer.whisper import WhisperEncoder

SEGMENT_SAMPLES = 30 * SAMPLE_RATE
SEGMENT_FRAMES = 1500
TOKEN_SAMPLES = 1280
FRAMES_PER_TOKEN = 4


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Item numbers in batches of similar length, longest × items at most `budget` (or one item), shortest first."""
    batches: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and lengths[item] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


def num_tokens(num_samples: int) -> int:
    """12.5 Hz positions that `num_samples` samples of one segment fill."""
    return (num_samples - 1) // TOKEN_SAMPLES + 1


class AcousticEncoder(nn.Module):
    """Samples to 12.5 Hz vectors of 4 · d_model numbers; `spare_frames` are of 20 ms, and only for `clip_silence`."""

    def __init__(self, encoder: WhisperEncoder, clip_silence: bool = False, spare_frames: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.clip_silence, self.spare_frames = clip_silence, spare_frames

    def _heard(self, tokens: int) -> int:
        """Encoder frames that are computed of a segment of so many tokens, with `clip_silence`."""
        return min(FRAMES_PER_TOKEN * tokens + self.spare_frames, SEGMENT_FRAMES)

    def log_mel(self, samples_L: Tensor) -> Tensor:
        """Log-mel (n_mels, T) of one segment of at most 30 s, as the encoder wants it: 3000 frames, or those needed.

        Of several equally long ones, samples (B, L), at once: (B, n_mels, T).
        """
        length, frames = SEGMENT_SAMPLES, None
        if self.clip_silence:
            # Two frames more than are kept, so that the last convolution output sees its right neighbour; the silence
            # after them, but for what an analysis window reaches, changes nothing.
            frames = 2 * self._heard(num_tokens(samples_L.shape[-1])) + 2
            length = min(SEGMENT_SAMPLES, frames * HOP + N_FFT)
        padded = nn.functional.pad(samples_L, (0, length - samples_L.shape[-1]))
        return whisper_log_mel(padded, self.encoder.config.num_mel_bins)[..., :frames]

    def encode(self, log_mels: Sequence[Tensor], tokens: Sequence[int], multiple: int = 1) -> list[Tensor]:
        """Segments of at most 30 s as one batch, gradients and all: (T, 4 · d_model) each.

        Args:
            log_mels: from `log_mel`.
            tokens: T = `num_tokens(L)` of each.
            multiple: the batch is padded to a multiple of so many frames of 20 ms. A CPU prepares its kernels anew for
                every length that it meets.
        """
        frames, heard, mask = FRAMES_PER_TOKEN * max(tokens), None, None
        longest = max(log_mel.shape[1] for log_mel in log_mels)
        if self.clip_silence:
            heard = min(-(-self._heard(max(tokens)) // multiple) * multiple, SEGMENT_FRAMES)
            longest = max(longest, 2 * heard)
        padded = [nn.functional.pad(log_mel, (0, longest - log_mel.shape[1])) for log_mel in log_mels]
        log_mel_BMT = torch.stack(padded).to(self.encoder.device, self.encoder.dtype)
        if heard is not None and any(self._heard(count) < heard for count in tokens):
            heard_B = torch.tensor([self._heard(count) for count in tokens], device=log_mel_BMT.device)
            mask = (torch.arange(heard, device=log_mel_BMT.device) < heard_B[:, None])[:, None, None]
        hidden_BTD = self.encoder(log_mel_BMT, num_frames=heard, mask=mask)
        features_BTF = hidden_BTD[:, :frames].unflatten(1, (-1, FRAMES_PER_TOKEN)).flatten(2)
        return [features_TF[:kept] for features_TF, kept in zip(features_BTF, tokens, strict=True)]

    def encode_segment(self, samples_L: Tensor) -> Tensor:
        """One segment of at most 30 s: (T, 4 · d_model)."""
        return self.encode([self.log_mel(samples_L)], [num_tokens(samples_L.shape[0])])[0]

    @torch.inference_mode()
    def forward(self, samples: np.ndarray | Tensor) -> Tensor:
        """Features of 16 kHz mono samples (L,) of any length ≥ 1: (1, T, 4 · d_model) in the encoder's dtype."""
        samples_L = torch.as_tensor(samples, dtype=torch.float32, device=self.encoder.device)
        segments = samples_L.split(SEGMENT_SAMPLES)
        return torch.cat([self.encode_segment(segment) for segment in segments])[None]
