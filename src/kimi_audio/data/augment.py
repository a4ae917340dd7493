"""Augmentation of 16 kHz waveforms and log-mels: noise, room, speed, gain, SpecAugment.

    augment = Augmenter(AugmentConfig(), noises=[...], rooms=[...])
    louder_and_noisier = augment(samples, rng_of(seed, "speech/a.wav", 1))

All chance comes from the generator that is handed in; `rng_of` makes one that depends on a seed and a recording
alone, so that an item is augmented the same whenever and wherever it is processed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from torch import Tensor

Samples = np.ndarray
RATE = 16000


@dataclass(frozen=True)
class AugmentConfig:
    """How often (shares, 0 to 1) and how strongly (ranges) a waveform is changed.

    Attributes:
        reverberation: seconds, from and to, in which the sound of rooms that are made up fades by 60 dB; without
            these and without recorded rooms `room` does nothing.
    """

    noise: float = 0.5
    snr_db: tuple[float, float] = (5.0, 25.0)
    room: float = 0.3
    reverberation: tuple[float, float] | None = None
    speed: tuple[float, float] = (0.9, 1.1)
    gain_db: tuple[float, float] = (-12.0, 6.0)


def rng_of(seed: int, *key: object) -> np.random.Generator:
    """A generator that depends on the seed and the key (a path, a variant number, ...) alone."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


@dataclass(frozen=True)
class Augmenter:
    """Speed, room, noise and gain, in that order: what happens to a voice on its way to a microphone.

    Attributes:
        noises: recordings of noise (L,); without any, white noise is used.
        rooms: impulse responses (L,); without any, rooms are made up, if the settings have `reverberation`.
    """

    config: AugmentConfig
    noises: Sequence[Samples] = ()
    rooms: Sequence[Samples] = ()

    def __call__(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """An augmented copy: float32 (L',), L' = L / speed, at most ±1."""
        return self.on_its_way(self.at_a_pace(samples, rng), rng)

    def at_a_pace(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """Speed alone: float32 (L / speed,)."""
        return change_speed(samples, rng.uniform(*self.config.speed))

    def on_its_way(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """Room, noise and gain: float32 (L,), at most ±1."""
        config = self.config
        if (self.rooms or config.reverberation) and rng.random() < config.room:
            samples = reverberate(samples, self._room(rng))
        if rng.random() < config.noise:
            samples = add_noise(samples, self._noise(len(samples), rng), rng.uniform(*config.snr_db))
        samples = samples * np.float32(10 ** (rng.uniform(*config.gain_db) / 20))
        return np.clip(samples, -1.0, 1.0).astype(np.float32)

    def _room(self, rng: np.random.Generator) -> Samples:
        """One of the rooms, or another each time."""
        if self.rooms:
            return self.rooms[int(rng.integers(len(self.rooms)))]
        assert self.config.reverberation is not None
        return made_up_room(rng.uniform(*self.config.reverberation), rng)

    def _noise(self, length: int, rng: np.random.Generator) -> Samples:
        """A stretch of one of the noises, repeated if it is too short."""
        if not self.noises:
            return rng.standard_normal(length).astype(np.float32)
        noise = self.noises[int(rng.integers(len(self.noises)))]
        start = int(rng.integers(max(1, len(noise) - length + 1)))
        return np.resize(noise[start:], length)


def change_speed(samples: Samples, factor: float) -> Samples:
    """`factor` times as fast, and higher by as much (as a tape would be): float32 (round(L / factor),) or so."""
    if abs(factor - 1) < 1e-3 or not len(samples):
        return samples.astype(np.float32)
    changed = soxr.resample(samples.astype(np.float32), RATE * factor, RATE)
    return changed if len(changed) else samples.astype(np.float32)


def add_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """`samples` with `noise` (as long) at a signal-to-noise ratio; where either is silent nothing is added."""
    if not np.any(samples) or not np.any(noise):
        return samples
    gain = np.sqrt(np.mean(samples**2) / np.mean(noise**2) / 10 ** (snr_db / 10))
    return (samples + gain * noise).astype(np.float32)


def reverberate(samples: Samples, impulse: Samples) -> Samples:
    """`samples` as heard in a room: convolved, as long and as loud as before, the direct sound in its old place."""
    if not np.any(samples) or not np.any(impulse):
        return samples
    size = 1 << (len(samples) + len(impulse) - 2).bit_length()  # a power of two: other lengths can be much slower
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(impulse, size), size)
    direct = int(np.argmax(np.abs(impulse)))
    wet = wet[direct : direct + len(samples)]
    return (wet * np.sqrt(np.mean(samples**2) / max(np.mean(wet**2), 1e-12))).astype(np.float32)


def made_up_room(seconds: float, rng: np.random.Generator) -> Samples:
    """An impulse response (L,): the direct sound, and half as much energy in noise that fades by 60 dB in `seconds`."""
    time = np.arange(1, max(2, round(seconds * RATE))) / RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail *= np.sqrt(0.5 / np.sum(tail**2))
    return np.concatenate([[1.0], tail]).astype(np.float32)


def spec_augment(log_mel_MT: Tensor, rng: np.random.Generator, longest: int = 40, widest: int = 12) -> Tensor:
    """SpecAugment: a copy of the log-mel (n_mels, T) with two stretches of time and a band of mels at its minimum.

    A stretch covers up to `longest` frames of 10 ms, but at most an eighth of the clip; the band up to `widest` mels.
    """
    masked, floor = log_mel_MT.clone(), log_mel_MT.min()
    mels, frames = masked.shape
    for _ in range(2):
        width = int(rng.integers(min(longest, frames // 8) + 1))
        start = int(rng.integers(frames - width + 1))
        masked[:, start : start + width] = floor
    width = int(rng.integers(min(widest, mels) + 1))
    start = int(rng.integers(mels - width + 1))
    masked[start : start + width] = floor
    return masked
