"""Sounds in which nobody speaks, so that the model learns to write nothing: silence, noise, hum, clicks, simple music.

    python recipes/tiny/quiet.py noise.train.jsonl OUT --count 480     # OUT/quiet-0000.flac …, 16 kHz mono, 1–12 s

The manifest names real noises, of which pieces are cut; the rest is made here. Every file is the same in every run.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from kimi_audio.audio.decode import load_audio

RATE = 16000
Maker = Callable[[np.random.Generator, int], np.ndarray]


def silence(rng: np.random.Generator, length: int) -> np.ndarray:
    """Digital silence, or nearly: white noise of −90 to −50 dB."""
    level = 0.0 if rng.random() < 0.3 else 10 ** rng.uniform(-4.5, -2.5)
    return level * rng.standard_normal(length)


def coloured_noise(rng: np.random.Generator, length: int) -> np.ndarray:
    """Noise with a spectrum of 1/f^0 to 1/f, sometimes swelling."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum /= np.maximum(np.arange(spectrum.size), 20) ** rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, length)
    swell = 1 + rng.uniform(0, 1) * np.sin(2 * np.pi * rng.uniform(0.05, 2) * seconds(length))
    return loud(noise * swell, rng)


def hum(rng: np.random.Generator, length: int) -> np.ndarray:
    """Mains hum with harmonics over a little noise."""
    base = rng.choice([50.0, 60.0, rng.uniform(40, 400)])
    angle = 2 * np.pi * base * seconds(length)
    waves = [rng.uniform(0, 1) / k * np.sin(k * angle + rng.uniform(0, 6)) for k in range(1, 9)]
    return loud(np.sum(waves, axis=0), rng) + 0.002 * rng.standard_normal(length)


def clicks(rng: np.random.Generator, length: int) -> np.ndarray:
    """Knocks: short decaying bursts at random times."""
    sound = 0.001 * rng.standard_normal(length)
    for _ in range(rng.integers(2, 20)):
        burst = rng.standard_normal(2000) * np.exp(-np.arange(2000) / rng.uniform(20, 600)) * rng.uniform(0.05, 0.5)
        at = rng.integers(0, length - 2000)
        sound[at : at + 2000] += burst
    return sound


def music(rng: np.random.Generator, length: int) -> np.ndarray:
    """A random walk over a pentatonic scale with odd harmonics, soft attacks and a beat."""
    scale = np.array([0, 3, 5, 7, 10, 12, 15, 17])
    root, step, place = rng.uniform(90, 400), int(RATE * rng.uniform(0.15, 0.7)), 3
    brightness = rng.uniform(0.5, 2.5)
    sound = np.zeros(length)
    for start in range(0, length - step, step):
        place = int(np.clip(place + rng.integers(-2, 3), 0, len(scale) - 1))
        time = np.arange(min(2 * step, length - start)) / RATE
        shape = np.minimum(time / 0.02, 1) * np.exp(-time * rng.uniform(1, 6))
        pitch = root * 2 ** (scale[place] / 12) * (1 + 0.004 * np.sin(2 * np.pi * 5 * time))
        angle = 2 * np.pi * np.cumsum(pitch) / RATE
        note = np.sum([np.sin(k * angle) / k**brightness for k in (1, 2, 3, 5)], axis=0)
        sound[start : start + len(time)] += shape * note
        if rng.random() < 0.3:
            hit = rng.standard_normal(800) * np.exp(-np.arange(800) / 150)
            sound[start : start + 800] += hit[: length - start]
    return loud(sound, rng)


def recorded(manifest: Path) -> Maker:
    """Pieces of the real noises."""
    noises = [load_audio(json.loads(line)["audio"]) for line in manifest.read_text().splitlines()]

    def piece(rng: np.random.Generator, length: int) -> np.ndarray:
        samples = noises[rng.integers(len(noises))]
        start = rng.integers(0, max(1, len(samples) - length))
        return samples[start : start + length] * 10 ** rng.uniform(-1, 0)

    return piece


def seconds(length: int) -> np.ndarray:
    return np.arange(length) / RATE


def loud(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scaled to a peak of −40 to −2 dB."""
    return sound / max(1e-9, np.abs(sound).max()) * 10 ** rng.uniform(-2, -0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("noises", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=480)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    makers = [silence, coloured_noise, hum, clicks, music, recorded(args.noises)]
    for number in range(args.count):
        rng = np.random.default_rng([7, number])
        sound = makers[number % len(makers)](rng, int(RATE * rng.uniform(1, 12)))
        soundfile.write(args.out / f"quiet-{number:04d}.flac", sound.clip(-1, 1).astype(np.float32), RATE)


if __name__ == "__main__":
    main()
