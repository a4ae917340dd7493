"""What a vocoder must fool: multi-period and multi-resolution discriminators (BigVGAN §3, HiFi-GAN §2.3).

    scores, features = Discriminators(channels=8)(samples_BL)       # a score map and feature maps for each of 8

Each sees the sound in another way: as images whose rows are a prime number of samples long, where periods line up, and
as magnitude spectrograms of three resolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1
PERIODS = (2, 3, 5, 7, 11)
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""FFT size, hop and window in samples."""
COUNT = len(PERIODS) + len(RESOLUTIONS)


class Judgement(NamedTuple):
    """Score maps of all discriminators, and the feature maps of their layers."""

    scores: list[Tensor]
    features: list[Tensor]


class ConvolutionStack(nn.Module):
    """2-d convolutions over an image (B, 1, H, W): a score map, and what every layer made."""

    def __init__(self, layers: list[nn.Conv2d], score: nn.Conv2d) -> None:
        super().__init__()
        self.layers, self.score = nn.ModuleList(map(weight_norm, layers)), weight_norm(score)

    def forward(self, x_B1HW: Tensor) -> tuple[Tensor, list[Tensor]]:
        features, x = [], x_B1HW
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        score = self.score(x)
        return score, [*features, score]


class PeriodDiscriminator(nn.Module):
    """Sees every `period`-th sample in a column."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, 4 * channels, 16 * channels, 32 * channels]
        layers = [nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in pairwise(widths)]
        layers.append(nn.Conv2d(widths[-1], widths[-1], (5, 1), 1, (2, 0)))
        self.stack = ConvolutionStack(layers, nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, samples_BL: Tensor) -> tuple[Tensor, list[Tensor]]:
        x_BL = F.pad(samples_BL, (0, -samples_BL.shape[1] % self.period), mode="reflect")
        return self.stack(x_BL.unflatten(1, (-1, self.period))[:, None])


class SpectrumDiscriminator(nn.Module):
    """Sees magnitudes at one resolution."""

    def __init__(self, resolution: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.resolution = resolution
        layers = [nn.Conv2d(1, channels, (3, 9), 1, (1, 4))]
        layers += [nn.Conv2d(channels, channels, (3, 9), (1, 2), (1, 4)) for _ in range(3)]
        layers.append(nn.Conv2d(channels, channels, 3, 1, 1))
        self.stack = ConvolutionStack(layers, nn.Conv2d(channels, 1, 3, 1, 1))

    def forward(self, samples_BL: Tensor) -> tuple[Tensor, list[Tensor]]:
        size, hop, window = self.resolution
        padded_BL = F.pad(samples_BL[:, None], ((size - hop) // 2,) * 2, mode="reflect")[:, 0]
        hann = torch.hann_window(window, device=samples_BL.device)
        spectrum = torch.stft(padded_BL, size, hop, window, hann, center=False, return_complex=True)
        magnitude_BFT = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
        return self.stack(magnitude_BFT[:, None])


class Discriminators(nn.Module):
    """All eight, or those asked for; `channels` is the width of the first layers, officially 32."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        periods = [PeriodDiscriminator(period, channels) for period in PERIODS]
        spectra = [SpectrumDiscriminator(resolution, channels) for resolution in RESOLUTIONS]
        self.parts = nn.ModuleList([*periods, *spectra])

    def forward(self, samples_BL: Tensor, chosen: Sequence[int] = tuple(range(COUNT))) -> Judgement:
        judged = [self.parts[index](samples_BL) for index in chosen]
        return Judgement([score for score, _ in judged], [one for _, features in judged for one in features])


def discriminator_loss(real: Judgement, made: Judgement) -> Tensor:
    """Least squares: 1 for what is real, 0 for what is made."""
    pairs = zip(real.scores, made.scores, strict=True)
    return torch.stack([(1 - yes).square().mean() + no.square().mean() for yes, no in pairs]).sum()


def adversarial_loss(made: Judgement) -> Tensor:
    """Least squares: the generator wants 1."""
    return torch.stack([(1 - score).square().mean() for score in made.scores]).sum()


def feature_matching_loss(real: Judgement, made: Judgement) -> Tensor:
    """Mean absolute difference of all feature maps; the real ones are targets."""
    pairs = zip(real.features, made.features, strict=True)
    return torch.stack([F.l1_loss(ours, theirs.detach()) for theirs, ours in pairs]).sum()
