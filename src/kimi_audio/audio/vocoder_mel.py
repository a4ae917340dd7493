"""The vocoder's log-mel, what flow matching makes and BigVGAN reads (SPEC §7).

    log_mel_BTM = vocoder_log_mel(samples_BL, n_fft=1024, hop=480, window=1024, n_mels=80, rate=24000)   # T = L // hop

Natural logarithm with floor 1e-5, magnitudes, Slaney filters; frames start at the first sample (not centred) of the
sound reflected by (n_fft − hop) / 2 at both ends.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_audio.audio.log_mel import mel_filters


def vocoder_log_mel(samples_BL: Tensor, *, n_fft: int, hop: int, window: int, n_mels: int, rate: int,
                    fmin: float = 0.0, fmax: float | None = None) -> Tensor:
    """Log-mels (B, T, n_mels) of float samples; L must exceed (n_fft − hop) / 2."""
    padded = F.pad(samples_BL.float()[:, None], ((n_fft - hop) // 2,) * 2, mode="reflect")[:, 0]
    hann = torch.hann_window(window, device=samples_BL.device)
    spectrum = torch.stft(padded, n_fft, hop, window, hann, center=False, return_complex=True)
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    mel = mel_filters(n_mels, n_fft, rate, fmin, fmax).to(samples_BL.device) @ magnitude
    return mel.clamp(min=1e-5).log().transpose(1, 2)
