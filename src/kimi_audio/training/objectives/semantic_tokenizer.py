"""The semantic tokenizer's training: codes off which a reader can read what was said (report §2.1, SPEC §6).

    model = TokenizerTraining(semantic, LetterReader(d_model, mels))
    SemanticTokenizerObjective(model, store, export=...)

Whisper layers give 12.5 Hz states, the nearest codes replace them, and a reader (`training/code_readers.py`), which is
needed for training only, reads letters and spectrum, or the transcript. Gradients pass the quantiser straight through;
states are drawn to their codes by a commitment loss; codes follow the states by an exponential moving average, and
codes that nobody uses are placed anew on states of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.audio.log_mel import SAMPLE_RATE
from kimi_audio.data.augment import Augmenter, rng_of, spec_augment
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.errors import DataError
from kimi_audio.tokenizer.acoustic import num_tokens
from kimi_audio.tokenizer.semantic import SemanticTokenizer
from kimi_audio.training.code_readers import MEL_PER_CODE, CodeReader, Reading
from kimi_audio.training.ctc import letter_classes, letters_of
from kimi_audio.training.length_batches import length_batches
from kimi_audio.training.objective import Objective, ParameterGroup

LEAST_COUNT = 1e-5
MEL_MULTIPLE = 128
"""Batches are padded to a multiple of so many log-mel frames: every new shape costs a CPU time."""


class Quantised(NamedTuple):
    """Codes int64 (B, T), what the reader gets (B, T, D), and the commitment loss."""

    codes_BT: Tensor
    states_BTD: Tensor
    commitment: Tensor


class TokenizerTraining(nn.Module):
    """The tokenizer, and the reader of its codes.

    Attributes:
        open_updates: so many updates at the start pass the states on unquantised, while the codebook already follows
            them. The reader must read 12.5 Hz states before it can read codes: without this the states collapse onto
            few codes.
    """

    updates: Tensor
    ema_count: Tensor
    ema_weight: Tensor
    open_updates = 0

    def __init__(self, tokenizer: SemanticTokenizer, reader: CodeReader) -> None:
        super().__init__()
        self.tokenizer, self.reader = tokenizer, reader
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("ema_count", torch.ones(tokenizer.config.quantize_vocab_size))
        self.register_buffer("ema_weight", tokenizer.codebook.weight.detach().clone())
        self.requires_grad_(True)

    def forward(self, log_mel_BMT: Tensor, valid_BT: Tensor, targets: Any) -> tuple[Reading, Quantised]:
        """What the reader reads, and what the quantiser did.

        Args:
            log_mel_BMT, valid_BT: as for `SemanticTokenizer.hidden`.
            targets: of the reader.
        """
        quantised = self.quantise(self.tokenizer.hidden(log_mel_BMT, valid_BT), valid_BT[:, ::MEL_PER_CODE])
        return self.reader.read(quantised.states_BTD, valid_BT, targets), quantised

    def quantise(self, hidden_BTD: Tensor, valid_BT: Tensor) -> Quantised:
        """Replace states by codes; in training mode the codebook then follows the states."""
        with torch.autocast(hidden_BTD.device.type, enabled=False):  # distances in bfloat16 would pick other codes
            codes_BT = self.tokenizer.quantise(hidden_BTD.detach().float())
        nearest_BTD = self.tokenizer.codebook(codes_BT).detach()
        distance_BT = (hidden_BTD - nearest_BTD).square().mean(-1)
        commitment = self.tokenizer.config.quantize_commit_coefficient * distance_BT[valid_BT].mean()
        if self.training:
            self._follow(hidden_BTD.detach()[valid_BT].float(), codes_BT[valid_BT])
            if int(self.updates) <= self.open_updates:
                return Quantised(codes_BT, hidden_BTD, torch.zeros_like(commitment))
        return Quantised(codes_BT, hidden_BTD + (nearest_BTD - hidden_BTD).detach(), commitment)

    @torch.no_grad()
    def _follow(self, hidden_nD: Tensor, codes_n: Tensor) -> None:
        """One step of the moving averages: each code becomes the mean of the states that it lately stood for."""
        tokenizer, decay = self.tokenizer, self.tokenizer.config.quantize_ema_decay
        count_C, sum_CD = self.ema_count, self.ema_weight
        count_C.mul_(decay).add_(codes_n.bincount(minlength=len(count_C)), alpha=1 - decay)
        sum_CD.mul_(decay).index_add_(0, codes_n, hidden_nD, alpha=1 - decay)
        tokenizer.codebook.weight.copy_(sum_CD / count_C.clamp_min(LEAST_COUNT)[:, None])
        self.updates += 1
        interval = tokenizer.config.quantize_restart_interval
        if int(self.updates) % interval == 0:
            # A count of 1 that nothing was added to is decay^interval by now, give or take rounding.
            self.restart(count_C < 1.001 * decay**interval, hidden_nD)

    @torch.no_grad()
    def restart(self, dead_C: Tensor, hidden_nD: Tensor) -> None:
        """Put the marked codes on randomly chosen states."""
        dead = dead_C.nonzero()[:, 0]
        if not len(dead):
            return
        chosen = torch.randperm(len(hidden_nD))[: len(dead)]
        if len(chosen) < len(dead):
            chosen = torch.randint(len(hidden_nD), (len(dead),))
        states = hidden_nD[chosen.to(hidden_nD.device)]
        self.tokenizer.codebook.weight[dead] = states
        self.ema_weight[dead] = states
        self.ema_count[dead] = 1.0


@dataclass(frozen=True)
class Batch:
    """Log-mels (B, n_mels, T), bool (B, T) false for padding, and what the reader is to read."""

    log_mel: Tensor
    valid: Tensor
    targets: Any


class SemanticTokenizerObjective(Objective):
    """Reading off the codes of transcribed recordings of up to 30 s.

    Args:
        model: the tokenizer and the reader of its codes.
        store: training recordings, rows with `text`.
        dev: name → recordings for `evaluate`.
        export: writes the trained tokenizer.
        fresh_codebook: place all codes on states of the data before the first step.
        augment: changes each sound anew each time it is met; SpecAugment comes on top.
        batch_seconds: sound in a batch, padding included.

    Raises:
        DataError: when no recording is long enough for its transcript.
    """

    def __init__(
        self,
        model: TokenizerTraining,
        store: WaveformStore,
        *,
        dev: Mapping[str, WaveformStore] | None = None,
        export: Callable[[Path], None] | None = None,
        augment: Augmenter | None = None,
        fresh_codebook: bool = True,
        batch_seconds: float = 60.0,
        seed: int = 0,
    ) -> None:
        self.model = self.tokenizing = model
        self.store, self.dev = store, dev or {}
        self.export, self.augment, self.seed = export, augment, seed
        self.budget = int(batch_seconds * SAMPLE_RATE)
        self.usable = [row for row in range(len(store)) if self._teaches(row)]
        if not self.usable:
            raise DataError("no recording has a transcript that fits into its length.")
        if fresh_codebook:
            self._place_codes()

    def _teaches(self, row: int) -> bool:
        """Whether there is a transcript, and it fits however fast augmentation makes the recording."""
        fastest = self.augment.config.speed[1] if self.augment else 1.0
        text = self.store.rows[row].get("text") or ""
        return self.tokenizing.reader.fits(text, num_tokens(self.store.length(row)) / fastest)

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        lengths = [self.store.length(row) for row in self.usable]
        for number, rows in length_batches(lengths, self.budget, self.seed, start, stride):
            yield self._batch(self.store, [self.usable[row] for row in rows], number)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        reading, quantised = self._read(batch)
        weighted = self.tokenizing.tokenizer.config.quantize_loss_scale * quantised.commitment
        share = self.tokenizing.ema_count / self.tokenizing.ema_count.sum()
        return sum(reading.losses.values(), weighted), {
            **{f"{name}_loss": loss.detach() for name, loss in reading.losses.items()},
            "commitment_loss": quantised.commitment.detach(),
            "code_perplexity": (-(share * share.clamp_min(1e-12).log()).sum()).exp(),
            "tokens": float(quantised.codes_BT.numel()),
        }

    def evaluate(self) -> dict[str, float]:
        """By name of the dev recordings: mean losses, letters read wrongly; and the share of codes in use."""
        metrics, used = {}, set()
        for name, store in self.dev.items():
            said, losses = [], []
            for row in range(len(store)):
                reading, quantised = self._read(self._batch(store, [row]))
                said += reading.texts
                losses.append({kind: loss.item() for kind, loss in reading.losses.items()})
                used.update(quantised.codes_BT.flatten().tolist())
            metrics |= {f"{kind}_{name}": float(np.mean([loss[kind] for loss in losses])) for kind in losses[0]}
            if said:
                wanted = [letters_of(letter_classes(row["text"])) for row in store.rows]
                metrics[f"cer_{name}"] = float(jiwer.cer(wanted, said))
        return metrics | {"codes_used": len(used) / self.tokenizing.tokenizer.config.quantize_vocab_size}

    def parameter_groups(self) -> list[ParameterGroup]:
        """All but the codebook, which follows its own rule, and the tables of positions, which are fixed sinusoids."""
        fixed = ("tokenizer.codebook.", "tokenizer.embed_positions")
        learnt = [p for name, p in self.model.named_parameters() if not name.startswith(fixed)]
        return [ParameterGroup("all", learnt)]

    def save(self, folder: Path) -> None:
        if self.export is None:
            super().save(folder)
        else:
            self.export(folder)

    def _read(self, batch: Batch) -> tuple[Reading, Quantised]:
        return self.tokenizing(batch.log_mel.to(self.device), batch.valid.to(self.device), batch.targets)

    def _batch(self, store: WaveformStore, rows: list[int], number: int | None = None) -> Batch:
        """A padded batch; with a batch number it is augmented: what is heard is masked, what is to be read is whole."""
        log_mels, heard, valid = [], [], []
        for row in rows:
            samples = store.samples(row)
            rng = None if number is None or self.augment is None else rng_of(self.seed, number, row)
            if rng is not None and self.augment is not None:
                samples = self.augment(samples, rng)
            log_mel_MT, valid_T = self.tokenizing.tokenizer.log_mel(torch.from_numpy(samples))
            log_mels.append(log_mel_MT)
            heard.append(log_mel_MT if rng is None else spec_augment(log_mel_MT, rng))
            valid.append(valid_T)
        longest = max(map(len, valid))
        longest += -longest % MEL_MULTIPLE
        texts = [store.rows[row]["text"] for row in rows]
        return Batch(
            torch.stack([F.pad(log_mel_MT, (0, longest - log_mel_MT.shape[1])) for log_mel_MT in heard]),
            torch.stack([F.pad(valid_T, (0, longest - len(valid_T))) for valid_T in valid]),
            self.tokenizing.reader.targets(log_mels, texts, longest),
        )

    @torch.no_grad()
    def _place_codes(self) -> None:
        """Put all codes on states of the first recordings in training order."""
        codes, states = self.tokenizing.tokenizer.config.quantize_vocab_size, []
        self.model.eval()
        for batch in self.batches(0):
            hidden_BTD = self.tokenizing.tokenizer.hidden(batch.log_mel.to(self.device), batch.valid.to(self.device))
            states.append(hidden_BTD[batch.valid[:, ::MEL_PER_CODE].to(self.device)])
            if sum(map(len, states)) >= 4 * codes or len(states) >= len(self.store):
                break
        generator_state = torch.get_rng_state()
        torch.manual_seed(self.seed)
        self.tokenizing.restart(torch.ones(codes, dtype=torch.bool), torch.cat(states))
        torch.set_rng_state(generator_state)
