"""What can be measured on spoken answers alone: pace, pauses, chunk joins, level.

    pauses = find_pauses(samples_L, 24_000)             # .total, .longest, .count, .span (seconds of speech with them)
    speaking_rate(words=12, seconds=pauses.span)        # words a second
    spectral_jumps(samples_L, 24_000, joins)            # (joins,): about 1.0 where a join can't be told

Samples are mono float32 at any rate up to 48 kHz, ±1 full scale. The report gives no measure of generated speech (§6);
these are the usual ones. Voice is found by the detector of `audio.voice` in frames of 32 ms, so times are that coarse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kimi_audio.audio.blocks import Samples, resample
from kimi_audio.audio.log_mel import mel_filters
from kimi_audio.audio.segments import OFFSET, ONSET
from kimi_audio.audio.voice import FRAME, VoiceDetector

VOICE_RATE = 16_000
FRAME_SECONDS = FRAME / VOICE_RATE
SHORTEST_PAUSE = 0.25  # seconds; shorter gaps are stops inside words (Goldman-Eisler 1968)
MELS = 40
JUMP_FLOOR = 60.0  # dB below the loudest band: what lies deeper is taken for silence


@dataclass(frozen=True)
class Pauses:
    """Gaps between the first and the last voiced frame, `span` seconds apart, in seconds."""

    total: float
    longest: float
    count: int
    span: float


def at_voice_rate(samples_L: Samples, rate: int) -> Samples:
    """The sound at 16 kHz."""
    return np.concatenate([np.empty(0, np.float32), *resample([samples_L], rate, VOICE_RATE)])


def voiced_frames(samples_L: Samples, rate: int) -> np.ndarray:
    """Which frames of 32 ms hold a voice, bool (F,)."""
    heard_L = at_voice_rate(samples_L, rate)
    frames_FS = np.pad(heard_L, (0, -len(heard_L) % FRAME)).reshape(-1, FRAME)
    if not len(frames_FS):
        return np.zeros(0, bool)
    voiced, now = [], False
    for probability in VoiceDetector()(frames_FS).tolist():
        now = probability >= (OFFSET if now else ONSET)
        voiced.append(now)
    return np.array(voiced)


def find_pauses(samples_L: Samples, rate: int) -> Pauses:
    """Pauses inside the speech; silence before and after it doesn't count. Without a voice all is 0."""
    voiced = np.flatnonzero(voiced_frames(samples_L, rate))
    if not len(voiced):
        return Pauses(0.0, 0.0, 0, 0.0)
    gaps = (np.diff(voiced) - 1) * FRAME_SECONDS
    long = gaps[gaps >= SHORTEST_PAUSE]
    span = float(voiced[-1] + 1 - voiced[0]) * FRAME_SECONDS
    return Pauses(float(long.sum()), float(long.max(initial=0.0)), len(long), span)


def leading_silence(samples_L: Samples, rate: int) -> float:
    """Seconds before the voice begins; the whole length if there is none."""
    voiced = np.flatnonzero(voiced_frames(samples_L, rate))
    return float(voiced[0]) * FRAME_SECONDS if len(voiced) else len(samples_L) / rate


def speaking_rate(words: int, seconds: float) -> float:
    """Words a second; NaN where nothing was said for no time."""
    return words / seconds if seconds > 0 else float("nan")


def spectral_jumps(samples_L: Samples, rate: int, joins: Sequence[int]) -> np.ndarray:
    """How much more the spectrum jumps at each join than on average elsewhere in the same sound, (joins,).

    The jump at a place is the larger of the distances between the last frame before it, the frame around it and the
    first frame after it: 20 ms of log-mel, 10 ms apart, root-mean-square in dB. Elsewhere are places every 10 ms whose
    frames touch no join. Joins in silence or at the very ends are NaN, so average with `numpy.nanmean`.

    Args:
        joins: indices of the samples that begin a new chunk.
    """
    hop = rate // 100
    inside = range(2 * hop, len(samples_L) - 2 * hop + 1)
    at = np.array(joins, int).reshape(-1)
    grid = np.array(inside[::hop], int)
    if len(at):
        grid = grid[(np.abs(grid[:, None] - at) >= 4 * hop).all(1)]
    usable = np.array([place in inside for place in at], bool)
    jumps = _jumps(samples_L, rate, np.concatenate([at[usable], grid]))
    ratios = np.full(len(at), np.nan)
    elsewhere = jumps[usable.sum() :]
    if np.isfinite(elsewhere).any():
        ratios[usable] = jumps[: usable.sum()] / np.nanmean(elsewhere)
    return ratios


def _jumps(samples_L: Samples, rate: int, places_P: np.ndarray) -> np.ndarray:
    """The jump in dB at each place, NaN in silence."""
    if not len(places_P):
        return np.empty(0)
    hop = rate // 100
    starts_P3 = places_P[:, None] + hop * np.arange(-2, 1)
    frames_P3W = torch.from_numpy(samples_L[starts_P3[..., None] + np.arange(2 * hop)])
    power = torch.fft.rfft(frames_P3W * torch.hann_window(2 * hop)).abs().square()
    decibel_P3M = 10 * (power @ mel_filters(MELS, 2 * hop, rate).T).clamp(min=1e-12).log10().numpy()
    floor = decibel_P3M.max() - JUMP_FLOOR
    steps_P2 = np.sqrt(np.square(np.diff(np.maximum(decibel_P3M, floor), axis=1)).mean(-1))
    heard_P = decibel_P3M.max((1, 2)) > floor + 10
    return np.where(heard_P, steps_P2.max(1), np.nan)
