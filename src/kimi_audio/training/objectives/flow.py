"""Flow matching from codes to mels, in the report's stages (report §4.3, SPEC §8).

    FlowObjective(flow, vocoder.config, store, codes)                               # whole utterances
    FlowObjective(flow, vocoder.config, store, codes, chunk_seconds=(0.5, 3.0))     # chunk-causal

On the straight way from noise to a mel, x_t = (1 − t) · noise + t · mel, the network learns the velocity mel − noise.
In the chunk-causal stage a row is laid out twice: the finished frames as a stream remembers them (time 0.999), then the
noisy ones. A noisy chunk sees itself and the finished chunks before it, as in `detokenizer.streaming`; what a stream
looks ahead makes its chunks longer, no more. The third stage, one speaker, is a matter of data. Where another voice
said the same, its codes go with the recording as well: row["times"] says when the recording is where that voice is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.detokenizer.flow import CACHE_TIME, TIME_SCALE, FlowTransformer, whole_time
from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE
from kimi_audio.detokenizer.vocoder import VocoderConfig, log_mel
from kimi_audio.training.length_batches import length_batches
from kimi_audio.training.objective import Objective, ParameterGroup, groups_by_prefix

CODES_PER_SECOND = 12.5
DEV_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
FINE = 4
"""Mels of which to choose in time lie so much closer."""


@dataclass(frozen=True)
class FlowBatch:
    """Normalised mels (B, T, M) on their way, noise and all, T = 4 N.

    Attributes:
        mel, noise: float32 (B, T, M).
        codes: int64 (B, N); `no_code` where the condition is dropped, and in the padding.
        times: float32 (B,), 0…1.
        valid: bool (B, T), False for padding.
        chunks: int64 (T,), number of the chunk of each frame; None for whole utterances.
    """

    mel: Tensor
    noise: Tensor
    codes: Tensor
    times: Tensor
    valid: Tensor
    chunks: Tensor | None


class FlowObjective(Objective):
    """Trains a flow on recordings and their codes.

    Args:
        flow: the network.
        mels: settings of the mels, which are the vocoder's.
        store: recordings at the vocoder's rate. Where the codes of a row are of another voice, its `times`, four to a
            code, are the seconds in the recording that go with them.
        codes: row of the store → its codes.
        dev: the same of recordings for `evaluate`.
        export: writes the trained model.
        chunk_seconds: shortest and longest chunk, drawn anew for each batch; None trains on whole utterances.
        drop_codes: share of utterances whose codes are hidden, so that guidance can be used.
        neighbours_CK: int64 (codes, K), the codes most like each code, none for no blurring.
        blur_codes: share of codes that one of their neighbours replaces: the codes of a language model, or of other
            voices, are less exact than those of the recordings.
        rates: parameter-name prefix → learning-rate scale; 0 freezes.
        batch_seconds: sound in a batch, padding included.
        longest_seconds: longer recordings are cut to a random stretch of this length.
    """

    def __init__(
        self,
        flow: FlowTransformer,
        mels: VocoderConfig,
        store: WaveformStore,
        codes: Callable[[dict], list[int]],
        *,
        dev: WaveformStore | None = None,
        export: Callable[[Path], None] | None = None,
        chunk_seconds: tuple[float, float] | None = None,
        drop_codes: float = 0.1,
        neighbours_CK: Tensor | None = None,
        blur_codes: float = 0.0,
        rates: dict[str, float] | None = None,
        batch_seconds: float = 60.0,
        longest_seconds: float = 12.0,
        seed: int = 0,
    ) -> None:
        self.model = self.flow = flow.requires_grad_(True)
        self.mels, self.store, self.codes, self.dev, self.export = mels, store, codes, dev, export
        self.chunk_seconds, self.drop_codes, self.rates, self.seed = chunk_seconds, drop_codes, rates or {}, seed
        self.neighbours_CK, self.blur_codes = neighbours_CK, blur_codes
        self.budget, self.longest = int(batch_seconds * CODES_PER_SECOND), int(longest_seconds * CODES_PER_SECOND)

    def parameter_groups(self) -> list[ParameterGroup]:
        return groups_by_prefix(self.model, self.rates)

    def batches(self, start: int, stride: int = 1) -> Iterator[FlowBatch]:
        lengths = [min(self.longest, len(self.codes(row))) for row in self.store.rows]
        for number, rows in length_batches(lengths, self.budget, self.seed, start, stride):
            rng = np.random.default_rng((self.seed, number))
            yield self._batch(self.store, rows, rng, rng.random(len(rows)), self.drop_codes, self.blur_codes)

    def loss(self, batch: FlowBatch) -> tuple[Tensor, dict[str, float | Tensor]]:
        loss = self._error(batch)
        return loss, {"tokens": float(batch.valid.sum()) / FRAMES_PER_CODE}

    def evaluate(self) -> dict[str, float]:
        """Mean squared error of the velocity on the dev recordings, at fixed times and noise."""
        if self.dev is None:
            return {}
        errors = []
        for row in range(len(self.dev)):
            rng = np.random.default_rng((row, 1))
            times = np.array(DEV_TIMES[row % len(DEV_TIMES)])
            errors.append(self._error(self._batch(self.dev, [row], rng, times[None])).item())
        return {"velocity_error": float(np.mean(errors))}

    def save(self, folder: Path) -> None:
        if self.export is None:
            super().save(folder)
        else:
            self.export(folder)

    def _error(self, batch: FlowBatch) -> Tensor:
        mel, noise, codes = (tensor.to(self.device) for tensor in (batch.mel, batch.noise, batch.codes))
        times, valid = batch.times.to(self.device), batch.valid.to(self.device)
        noisy = torch.lerp(noise, mel, times[:, None, None])
        whole = (times * TIME_SCALE).long()
        if batch.chunks is None:
            mask = None if bool(valid.all()) else valid[:, None, None]
            predicted = self.flow(noisy, codes, whole, mask=mask)
        else:
            predicted = self._chunk_causal(mel, noisy, codes, whole, valid, batch.chunks.to(self.device))
        return F.mse_loss(predicted[valid], (mel - noise)[valid])

    def _chunk_causal(
        self, mel: Tensor, noisy: Tensor, codes: Tensor, times_B: Tensor, valid_BT: Tensor, chunks_T: Tensor
    ) -> Tensor:
        frames, remembered = mel.shape[1], whole_time(torch.tensor(CACHE_TIME), len(mel)).to(times_B)
        times_BN = torch.stack([remembered, times_B], 1).repeat_interleave(codes.shape[1], 1)
        positions = torch.arange(frames, device=mel.device).repeat(2)
        mask = chunk_causal_mask(chunks_T)[None, None] & valid_BT.repeat(1, 2)[:, None, None]
        both = self.flow(torch.cat([mel, noisy], 1), codes.repeat(1, 2), times_BN, positions_T=positions, mask=mask)
        return both[:, frames:]

    def _batch(
        self,
        store: WaveformStore,
        rows: list[int],
        rng: np.random.Generator,
        times: np.ndarray,
        drop: float = 0.0,
        blur: float = 0.0,
    ) -> FlowBatch:
        parts = [self._stretch(store, row, rng) for row in rows]
        longest = max(len(codes) for codes, _ in parts)
        no_code, config = self.flow.config.no_code, self.flow.config
        codes = torch.full((len(rows), longest), no_code)
        mel = torch.zeros(len(rows), FRAMES_PER_CODE * longest, config.input_size)
        valid = torch.zeros(len(rows), FRAMES_PER_CODE * longest, dtype=torch.bool)
        for n, (row_codes, row_mel) in enumerate(parts):
            if rng.random() >= drop:
                codes[n, : len(row_codes)] = self._blurred(torch.tensor(row_codes), blur, rng)
            mel[n, : len(row_mel)] = (row_mel - config.mel_mean) / config.mel_std
            valid[n, : len(row_mel)] = True
        noise = torch.from_numpy(rng.standard_normal(mel.shape, np.float32))
        chunks = None
        if self.chunk_seconds is not None:
            chunks = draw_chunks(longest, self.chunk_seconds, rng).repeat_interleave(FRAMES_PER_CODE)
        return FlowBatch(mel, noise, codes, torch.from_numpy(times).float(), valid, chunks)

    def _blurred(self, codes_N: Tensor, share: float, rng: np.random.Generator) -> Tensor:
        """Codes with a share of them replaced by neighbours, each neighbour as likely as any other."""
        if self.neighbours_CK is None or not share:
            return codes_N
        chosen = torch.from_numpy(rng.integers(self.neighbours_CK.shape[1], size=len(codes_N)))
        replaced = torch.from_numpy(rng.random(len(codes_N)) < share)
        return torch.where(replaced, self.neighbours_CK[codes_N, chosen], codes_N)

    def _stretch(self, store: WaveformStore, row: int, rng: np.random.Generator) -> tuple[list[int], Tensor]:
        """Codes of a recording, or of a random stretch of it, and the log-mel of just those."""
        codes, samples = self.codes(store.rows[row]), torch.from_numpy(store.samples(row))
        first = int(rng.integers(max(0, len(codes) - self.longest) + 1))
        codes = codes[first : first + self.longest]
        stretch = slice(FRAMES_PER_CODE * first, FRAMES_PER_CODE * (first + len(codes)))
        if times := store.rows[row].get("times"):
            return codes, mels_at(samples, times[stretch], self.mels)
        hop = self.mels.hop_size
        samples = F.pad(samples, (0, max(0, hop * stretch.stop - len(samples))))
        return codes, log_mel(samples[hop * stretch.start : hop * stretch.stop][None], self.mels)[0]


def mels_at(samples_L: Tensor, times: Sequence[float], mels: VocoderConfig) -> Tensor:
    """Log-mels (T, M) of the moments of a recording that are nearest to `times`, in seconds."""
    fine = replace(mels, hop_size=mels.hop_size // FINE)
    mel_TM = log_mel(samples_L[None], fine)[0]
    frames = (torch.tensor(times) * mels.sampling_rate / fine.hop_size).long()
    return mel_TM[frames.clamp(0, len(mel_TM) - 1)]


def draw_chunks(codes: int, seconds: tuple[float, float], rng: np.random.Generator) -> Tensor:
    """Number of the chunk of each code, int64 (N,); the chunks of one draw are equally long, but for the last."""
    shortest, longest = (max(1, round(second * CODES_PER_SECOND)) for second in seconds)
    return torch.arange(codes) // int(rng.integers(shortest, longest + 1))


def chunk_causal_mask(chunks_T: Tensor) -> Tensor:
    """Who sees whom among T finished frames and, after them, T noisy ones: bool (2 T, 2 T), True attends."""
    query, key = chunks_T[:, None], chunks_T[None]
    never = torch.zeros_like(query == key)
    return torch.cat([torch.cat([query >= key, never], 1), torch.cat([query > key, query == key], 1)])
