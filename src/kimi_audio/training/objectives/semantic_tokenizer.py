"""The semantic tokenizer's training: a codebook inside a Whisper that must still recognise speech (SPEC §6).

    model = TokenizerTraining.from_whisper(semantic, Path("whisper-tiny.en"))
    SemanticTokenizerObjective(model, WhisperText(folder), store, export=...)

The lower encoder layers give 12.5 Hz states, the nearest codes replace them, and the rest of Whisper (upper encoder
layers and decoder) writes the transcript from the codes alone. Gradients pass the quantiser straight through; states
are drawn to their codes by a commitment loss; codes follow the states by an exponential moving average, and codes
that nobody uses are placed anew on states of the current batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.checkpoint.files import read_json, read_tensors
from kimi_audio.data.augment import Augmenter, rng_of
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.errors import CheckpointError
from kimi_audio.tokenizer.acoustic import TOKEN_SAMPLES
from kimi_audio.tokenizer.semantic import SemanticTokenizer, block_causal_mask
from kimi_audio.tokenizer.whisper import WhisperLayer
from kimi_audio.training.length_batches import length_batches
from kimi_audio.training.objective import Objective, ParameterGroup
from kimi_audio.training.whisper_decoder import WhisperDecoder, WhisperDecoderConfig, WhisperText

IGNORED = -100
LEAST_COUNT = 1e-5


class Quantised(NamedTuple):
    """Codes int64 (B, T), what goes on to the upper layers (B, T, D), and the commitment loss."""

    codes_BT: Tensor
    states_BTD: Tensor
    commitment: Tensor


class TokenizerTraining(nn.Module):
    """The tokenizer, and above it the parts of Whisper that only training needs.

    Args:
        tokenizer: lower half and codebook.
        upper: Whisper's encoder layers above the codebook; at 12.5 Hz.
        decoder: Whisper's text decoder.

    Attributes:
        open_updates: so many updates at the start pass the states on unquantised, while the codebook already follows
            them. The upper half must read 12.5 Hz states before it can read codes: without this it stops listening,
            and the states collapse onto few codes.
    """

    updates: Tensor
    open_updates = 0

    def __init__(self, tokenizer: SemanticTokenizer, upper: nn.ModuleList, decoder: WhisperDecoder) -> None:
        super().__init__()
        self.tokenizer, self.upper, self.decoder = tokenizer, upper, decoder
        self.layer_norm = nn.LayerNorm(tokenizer.config.d_model)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @classmethod
    def from_whisper(cls, tokenizer: SemanticTokenizer, folder: Path) -> TokenizerTraining:
        """Take the upper layers and the decoder from a Hugging Face Whisper folder, of the tokenizer's width."""
        config, tensors = read_json(folder / "config.json"), read_tensors(folder)
        width = tokenizer.config.d_model
        if config.get("d_model") != width:
            raise CheckpointError(f"{folder}: d_model is {config.get('d_model')}; the tokenizer needs {width}.")
        below = tokenizer.config.quantize_position
        upper = nn.ModuleList(WhisperLayer(tokenizer.config) for _ in range(config["encoder_layers"] - below))
        model = cls(tokenizer, upper, WhisperDecoder(WhisperDecoderConfig.from_dict(config)))
        for number, layer in enumerate(upper, start=below):
            layer.load_state_dict(_under(tensors, f"model.encoder.layers.{number}."))
        model.layer_norm.load_state_dict(_under(tensors, "model.encoder.layer_norm."))
        model.decoder.load_state_dict(_under(tensors, "model.decoder."))
        return model.requires_grad_(True)

    def forward(self, log_mel_BMT: Tensor, valid_BT: Tensor, token_ids_BT: Tensor) -> tuple[Tensor, Quantised]:
        """Decoder states (B, T, D) for `token_ids_BT`, and what the quantiser did.

        Args:
            log_mel_BMT, valid_BT: as for `SemanticTokenizer.hidden`.
        """
        config = self.tokenizer.config
        hidden_BTD = self.tokenizer.hidden(log_mel_BMT, valid_BT)
        # 100 Hz → 12.5 Hz: two by the convolution, then the pooling
        valid_BT = valid_BT[:, :: 2 * config.pooling_kernel_size]
        quantised = self.quantise(hidden_BTD, valid_BT)
        x_BTD = quantised.states_BTD + self.tokenizer.embed_positions2.weight[: hidden_BTD.shape[1]]
        block = config.quantize_causal_block_size
        mask = block_causal_mask(valid_BT, block and block // config.pooling_kernel_size)
        for layer in self.upper:
            x_BTD = layer(x_BTD, mask)
        return self.decoder(token_ids_BT, self.layer_norm(x_BTD), valid_BT), quantised

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
        count_C, sum_CD = tokenizer.get_buffer("ema_count"), tokenizer.get_buffer("ema_weight")
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
        tokenizer, states = self.tokenizer, hidden_nD[chosen.to(hidden_nD.device)]
        tokenizer.codebook.weight[dead] = states
        tokenizer.get_buffer("ema_weight")[dead] = states
        tokenizer.get_buffer("ema_count")[dead] = 1.0


@dataclass(frozen=True)
class Batch:
    """Log-mels (B, n_mels, T), bool (B, T), decoder input (B, L) and the ids to predict (B, L), `IGNORED` elsewhere."""

    log_mel: Tensor
    valid: Tensor
    token_ids: Tensor
    labels: Tensor


class SemanticTokenizerObjective(Objective):
    """Recognition through the codebook, over transcribed recordings of up to 30 s.

    Args:
        model: the tokenizer with the rest of Whisper.
        text: Whisper's text tokenizer.
        store: training recordings, rows with `text`.
        dev: recordings for `evaluate`.
        export: writes the trained tokenizer.
        fresh_codebook: place all codes on states of the data before the first step.
        batch_seconds: sound in a batch, padding included.
    """

    def __init__(
        self,
        model: TokenizerTraining,
        text: WhisperText,
        store: WaveformStore,
        *,
        dev: WaveformStore | None = None,
        export: Callable[[Path], None] | None = None,
        augment: Augmenter | None = None,
        fresh_codebook: bool = True,
        batch_seconds: float = 60.0,
        seed: int = 0,
    ) -> None:
        self.model = self.whisper = model
        self.text, self.store, self.dev = text, store, dev
        self.export, self.augment, self.seed = export, augment, seed
        self.budget = int(batch_seconds * 16000)
        if fresh_codebook:
            self._place_codes()

    def batches(self, start: int) -> Iterator[Batch]:
        lengths = [self.store.length(row) for row in range(len(self.store))]
        for number, rows in enumerate(length_batches(lengths, self.budget, self.seed, start), start=start):
            yield self._batch(self.store, rows, number)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        recognition, quantised = self._recognition(batch)
        weighted = self.whisper.tokenizer.config.quantize_loss_scale * quantised.commitment
        counts = self.whisper.tokenizer.get_buffer("ema_count")
        share = counts / counts.sum()
        return recognition + weighted, {
            "recognition_loss": recognition.detach(),
            "commitment_loss": quantised.commitment.detach(),
            "code_perplexity": (-(share * share.clamp_min(1e-12).log()).sum()).exp(),
            "tokens": float(quantised.codes_BT.numel()),
        }

    def evaluate(self) -> dict[str, float]:
        """Mean recognition loss, and the share of codes in use, on the dev recordings."""
        if self.dev is None:
            return {}
        losses, used = [], set()
        for first in range(0, len(self.dev), 8):
            batch = self._batch(self.dev, list(range(first, min(first + 8, len(self.dev)))))
            recognition, quantised = self._recognition(batch)
            losses.append(recognition.item())
            used.update(quantised.codes_BT.flatten().tolist())
        size = self.whisper.tokenizer.config.quantize_vocab_size
        return {"loss": float(np.mean(losses)), "codes_used": len(used) / size}

    def parameter_groups(self) -> list[ParameterGroup]:
        """All but the codebook, which follows its own rule, and the tables of positions, which are fixed sinusoids."""
        fixed = ("tokenizer.codebook.", "tokenizer.embed_positions.")
        learnt = [p for name, p in self.model.named_parameters() if not name.startswith(fixed)]
        return [ParameterGroup("all", learnt)]

    def save(self, folder: Path) -> None:
        if self.export is None:
            super().save(folder)
        else:
            self.export(folder)

    def _recognition(self, batch: Batch) -> tuple[Tensor, Quantised]:
        log_mel, valid = batch.log_mel.to(self.device), batch.valid.to(self.device)
        states_BLD, quantised = self.whisper(log_mel, valid, batch.token_ids.to(self.device))
        labels = batch.labels.to(self.device)
        wanted = labels != IGNORED
        logits_nV = self.whisper.decoder.logits(states_BLD[wanted]).float()
        return F.cross_entropy(logits_nV, labels[wanted]), quantised

    def _batch(self, store: WaveformStore, rows: list[int], number: int | None = None) -> Batch:
        """A padded batch; with a batch number the sounds are augmented."""
        sounds = [store.samples(row) for row in rows]
        if self.augment is not None and number is not None:
            sounds = [self.augment(s, rng_of(self.seed, number, row)) for s, row in zip(sounds, rows, strict=True)]
        ids = [self.text.encode(store.rows[row]["text"]) for row in rows]
        return Batch(*self._log_mels(sounds), *_teacher_forcing(ids, len(self.text.start), self.text.end))

    def _log_mels(self, sounds: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Log-mels as in inference, each on its own, then padded to the longest."""
        pairs = [self.whisper.tokenizer.log_mel(torch.from_numpy(samples)) for samples in sounds]
        longest = max(valid.shape[0] for _, valid in pairs)
        log_mel = torch.stack([F.pad(mel, (0, longest - mel.shape[1])) for mel, _ in pairs])
        return log_mel, torch.stack([F.pad(valid, (0, longest - len(valid))) for _, valid in pairs])

    @torch.no_grad()
    def _place_codes(self) -> None:
        """Put all codes on states of the first recordings in training order."""
        codes, states = self.whisper.tokenizer.config.quantize_vocab_size, []
        self.model.eval()
        for batch in self.batches(0):
            hidden_BTD = self.whisper.tokenizer.hidden(batch.log_mel.to(self.device), batch.valid.to(self.device))
            states.append(hidden_BTD[batch.valid[:, :: TOKEN_SAMPLES // 160].to(self.device)])
            if sum(map(len, states)) >= 4 * codes or len(states) >= len(self.store):
                break
        generator_state = torch.get_rng_state()
        torch.manual_seed(self.seed)
        self.whisper.restart(torch.ones(codes, dtype=torch.bool), torch.cat(states))
        torch.set_rng_state(generator_state)


def _teacher_forcing(ids: list[list[int]], prompt: int, end: int) -> tuple[Tensor, Tensor]:
    """Decoder input and labels (B, L) of ids that begin with `prompt` start marks, which are not predicted."""
    longest = max(map(len, ids)) - 1
    inputs = torch.full((len(ids), longest), end)
    labels = torch.full((len(ids), longest), IGNORED)
    for row, sequence in enumerate(ids):
        inputs[row, : len(sequence) - 1] = torch.tensor(sequence[:-1])
        labels[row, prompt - 1 : len(sequence) - 1] = torch.tensor(sequence[prompt:])
    return inputs, labels


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value.float() for name, value in tensors.items() if name.startswith(prefix)}
