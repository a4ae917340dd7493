"""The vocoder against its discriminators, and a multi-scale mel loss (report §4.3; BigVGAN, BigVGAN-v2).

    VocoderObjective(vocoder, store, discriminator_channels=8)

The trainer knows one loss and one step. Both sides of the game fit into it: each is given the other's parameters as
constants, so that the gradient of the sum is that of either loss in its own parameters, and both move at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kimi_audio.audio.vocoder_mel import vocoder_log_mel
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.detokenizer.vocoder import BigVGAN, log_mel
from kimi_audio.training.discriminators import (
    COUNT,
    Discriminators,
    Judgement,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from kimi_audio.training.objective import Objective, ParameterGroup, groups_by_prefix

MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""Window in samples and number of mel bins; windows advance by a quarter."""
MEL_WEIGHT, MATCHING_WEIGHT = 15.0, 2.0
DEV_SECONDS = 2.0


class VocoderObjective(Objective):
    """Trains a vocoder on random stretches of recordings at its rate.

    Args:
        vocoder: the generator.
        store: recordings at its rate.
        dev: recordings for `evaluate`.
        export: writes the trained model.
        discriminator_channels: width of the discriminators.
        adversary_after: so many batches are trained with the mel loss alone, which is several times cheaper.
        judges: so many of the eight discriminators are drawn for each batch after that. Their losses stand for all
            eight, at a fraction of the cost.
        segment_frames, batch: length in mel frames, and number, of the stretches of a batch.
        rates: parameter-name prefix (`generator`, `discriminators`) → learning-rate scale; 0 freezes.
    """

    def __init__(
        self,
        vocoder: BigVGAN,
        store: WaveformStore,
        *,
        dev: WaveformStore | None = None,
        export: Callable[[Path], None] | None = None,
        discriminator_channels: int = 32,
        adversary_after: int = 0,
        judges: int = COUNT,
        segment_frames: int = 32,
        batch: int = 16,
        rates: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.vocoder, self.discriminators = vocoder.requires_grad_(True), Discriminators(discriminator_channels)
        self.model = nn.ModuleDict({"generator": vocoder, "discriminators": self.discriminators})
        self.store, self.dev, self.export, self.rates = store, dev, export, rates or {}
        self.adversary_after, self.judges = adversary_after, judges
        self.frames, self.size, self.seed = segment_frames, batch, seed

    def parameter_groups(self) -> list[ParameterGroup]:
        return groups_by_prefix(self.model, self.rates)

    def batches(self, start: int, stride: int = 1) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
        """Samples (B, L), and which discriminators play along."""
        lengths = np.array([self.store.length(row) for row in range(len(self.store))], float)
        for number in count(start, stride):
            rng = np.random.default_rng((self.seed, number))
            rows = rng.choice(len(lengths), self.size, p=lengths / lengths.sum())
            samples_BL = torch.stack([self._stretch(int(row), rng) for row in rows])
            judges = rng.permutation(COUNT)[: self.judges] if number >= self.adversary_after else ()
            yield samples_BL, tuple(int(judge) for judge in judges)

    def loss(self, batch: tuple[Tensor, tuple[int, ...]]) -> tuple[Tensor, dict[str, float | Tensor]]:
        real_BL, judges = batch[0].to(self.device), batch[1]
        made_BL = self.vocoder(log_mel(real_BL, self.vocoder.config))
        mel = multi_scale_mel_loss(real_BL, made_BL, self.vocoder.config.sampling_rate)
        metrics: dict[str, float | Tensor] = {
            "mel_loss": mel.detach(),
            "seconds_of_sound": real_BL.numel() / self.vocoder.config.sampling_rate,
        }
        if not judges:
            return MEL_WEIGHT * mel, metrics
        all_of_them = COUNT / len(judges)
        real = self.discriminators(real_BL, judges)
        against = all_of_them * discriminator_loss(real, self.discriminators(made_BL.detach(), judges))
        made = self._judged_as_is(made_BL, judges)
        adversarial = all_of_them * adversarial_loss(made)
        matching = all_of_them * feature_matching_loss(real, made)
        metrics |= {
            "discriminator_loss": against.detach(),
            "adversarial_loss": adversarial.detach(),
            "matching_loss": matching.detach(),
        }
        return against + adversarial + MATCHING_WEIGHT * matching + MEL_WEIGHT * mel, metrics

    def evaluate(self) -> dict[str, float]:
        """The mel loss on the beginnings of the dev recordings."""
        if self.dev is None:
            return {}
        rate, losses = self.vocoder.config.sampling_rate, []
        for row in range(len(self.dev)):
            samples_1L = torch.from_numpy(self.dev.samples(row)[: int(DEV_SECONDS * rate)])[None].to(self.device)
            made_1L = self.vocoder(log_mel(samples_1L, self.vocoder.config))
            losses.append(multi_scale_mel_loss(samples_1L[:, : made_1L.shape[1]], made_1L, rate).item())
        return {"mel_loss": float(np.mean(losses))}

    def save(self, folder: Path) -> None:
        if self.export is None:
            super().save(folder)
        else:
            self.export(folder)

    def _judged_as_is(self, made_BL: Tensor, judges: tuple[int, ...]) -> Judgement:
        """What the discriminators say, with gradients for the sound alone."""
        constants = {name: tensor.detach() for name, tensor in self.discriminators.state_dict(keep_vars=True).items()}
        return functional_call(self.discriminators, constants, (made_BL, judges))

    def _stretch(self, row: int, rng: np.random.Generator) -> Tensor:
        """`frames` · hop samples from anywhere in a recording, with silence after a shorter one."""
        length = self.frames * self.vocoder.config.hop_size
        samples_L = self.store.samples(row)
        first = int(rng.integers(max(0, len(samples_L) - length) + 1))
        samples_L = torch.from_numpy(samples_L[first : first + length])
        return F.pad(samples_L, (0, length - len(samples_L)))


def multi_scale_mel_loss(real_BL: Tensor, made_BL: Tensor, rate: int) -> Tensor:
    """Mean absolute difference of log10 mels at seven resolutions, summed."""
    total = real_BL.new_zeros(())
    for window, bins in MEL_SCALES:
        real, made = (
            vocoder_log_mel(x_BL, n_fft=window, hop=window // 4, window=window, n_mels=bins, rate=rate)
            for x_BL in (real_BL, made_BL)
        )
        total = total + (real - made).abs().mean() / math.log(10)
    return total
