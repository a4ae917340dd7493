"""Whisper's log-mel spectrogram, the input of both listening encoders (SPEC §6).

    log_mel_MT = whisper_log_mel(samples_L, n_mels=128)     # 16 kHz mono -> (128, L // 160)

The floor (maximum minus 8) is taken over the whole input, so pad first when 30 s segments are wanted.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE = 16_000
N_FFT = 400
HOP = 160


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's scale: linear up to 1 kHz, logarithmic above."""
    linear = hz / (200.0 / 3)
    return np.where(hz < 1000.0, linear, 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(6.4))


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15.0, mel * (200.0 / 3), 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


@lru_cache(maxsize=32)
def mel_filters(n_mels: int, n_fft: int = N_FFT, sample_rate: int = SAMPLE_RATE,
                fmin: float = 0.0, fmax: float | None = None) -> Tensor:
    """Area-normalised triangular Slaney filters, float32 (n_mels, n_fft // 2 + 1)."""
    bins_hz = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    low, high = _hz_to_mel(np.array([fmin, fmax or sample_rate / 2]))
    edges_hz = _mel_to_hz(np.linspace(low, high, n_mels + 2))
    widths = np.diff(edges_hz)
    rising = (bins_hz[None] - edges_hz[:-2, None]) / widths[:-1, None]
    falling = (edges_hz[2:, None] - bins_hz[None]) / widths[1:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]
    return torch.from_numpy(filters.astype(np.float32))


def whisper_log_mel(samples_L: Tensor, n_mels: int) -> Tensor:
    """Log-mel of 16 kHz float samples (L,) or a batch (B, L): float32 (…, n_mels, L // 160), about −1 … 1."""
    window = torch.hann_window(N_FFT, device=samples_L.device)
    spectrum = torch.stft(samples_L.float(), N_FFT, HOP, window=window, return_complex=True)
    power = spectrum[..., :-1].abs().square()
    mel = mel_filters(n_mels).to(samples_L.device) @ power
    log_mel = mel.clamp(min=1e-10).log10()
    log_mel = torch.maximum(log_mel, log_mel.amax(dim=(-2, -1), keepdim=True) - 8.0)
    return (log_mel + 4.0) / 4.0
