"""Next-id prediction with the audio LLM over packed rows: what pre-training and instruction tuning share.

    objective = LanguageObjective(llm, Mixture([source], [1.0], capacity=1024), vocab)

The loss of each stream is the mean cross-entropy at its targets, and both are added, as in the official
fine-tuning code (SPEC §8). Logits are computed at the targets alone: with a prompt of sound and a short answer that
spares most of the work of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.data.augment import spec_augment
from kimi_audio.errors import ConfigError
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import Prompt
from kimi_audio.tokenizer.acoustic import SEGMENT_SAMPLES, AcousticEncoder, num_tokens
from kimi_audio.training.guided_attention import GuidedAttention
from kimi_audio.training.mixture import Mixture
from kimi_audio.training.objective import Objective, ParameterGroup, groups_by_prefix
from kimi_audio.training.packing import PackedRow, pack, packed_hidden
from kimi_audio.vocab import Vocabulary

EPSILON = 1e-4
"""Added to the number of targets, so that a row without any in one stream has loss 0: the official constant."""


@dataclass(frozen=True)
class Regularisation:
    """What keeps a small model from learning the data by heart.

    Attributes:
        label_smoothing: probability spread over all ids.
        corrupt_text: share of the answer's ids that are replaced by random ones in the input (not in the labels).
        corrupt_codes: likewise of the codes that the assistant speaks, so that it follows the text, not its own voice.
        mask_features: share of cached continuous features that are hidden, in spans of 1–4 (their codes stay).
    """

    label_smoothing: float = 0.0
    corrupt_text: float = 0.0
    corrupt_codes: float = 0.0
    mask_features: float = 0.0


@dataclass
class LanguageObjective(Objective):
    """Trains `llm` on the rows of `mixture`.

    Attributes:
        encoder: an acoustic encoder to train along. `Prompt.features` then hold samples (L,) instead of features.
        masked_mels: in training it hears log-mels with stretches and bands hidden (SpecAugment).
        rates: parameter-name prefix (`llm.model.vq_adaptor`, `encoder`, ...) → learning-rate scale; the longest
            matching prefix counts, 0 freezes.
        frozen_until: prefix → fraction of the run after which that group starts to learn (report: encoder, 0.2).
        export: writes the trained model in the official layout; without it only the state dict is saved.
        dev: name → documents whose mean loss per target is reported by `evaluate`.
        measure: further dev metrics (error rates, accuracies), computed with the model in eval mode.
        compiled: run the layers through `torch.compile`.
        guide_attention: weight of the guidance that teaches the audio branch to follow the text (`GuidedAttention`).
        text_loss: without, the audio stream alone is learned, and the trunk above the fork is not run.
        teacher: a model of the same vocabulary, at rest, whose opinion is learned along (knowledge distillation, Hinton
            et al. 2015, arXiv 1503.02531): the model as it was, say, so that it forgets less.
        distil: share of the teacher's opinion in what is learned; the rest is the data's.
    """

    llm: AudioLLM
    mixture: Mixture
    vocab: Vocabulary
    encoder: AcousticEncoder | None = None
    regularisation: Regularisation = field(default_factory=Regularisation)
    rates: Mapping[str, float] = field(default_factory=dict)
    frozen_until: Mapping[str, float] = field(default_factory=dict)
    export: Callable[[AudioLLM, Path], None] | None = None
    dev: Mapping[str, list[Prompt]] = field(default_factory=dict)
    measure: Callable[[AudioLLM], Mapping[str, float]] | None = None
    compiled: bool = False
    guide_attention: float = 0.0
    text_loss: bool = True
    masked_mels: bool = False
    teacher: AudioLLM | None = None
    distil: float = 0.0

    def __post_init__(self) -> None:
        if self.encoder is not None and self.regularisation.mask_features:
            raise ConfigError("mask_features works on cached features; with an encoder to train, augment the samples.")
        if self.teacher is not None:
            if self.encoder is not None:
                raise ConfigError("a teacher hears cached features; it can't follow an encoder that is trained.")
            self.teacher.requires_grad_(False)
        self.model = nn.ModuleDict({"llm": self.llm} | ({"encoder": self.encoder} if self.encoder else {}))

    def parameter_groups(self) -> list[ParameterGroup]:
        return groups_by_prefix(self.model, self.rates, self.frozen_until)

    def batches(self, start: int, stride: int = 1) -> Iterator[PackedRow]:
        for number, prompts in zip(count(start, stride), self.mixture.rows(start, stride), strict=False):
            rng = np.random.default_rng((self.mixture.seed, number, 3))
            yield regularise(PackedRow.of(prompts, self.mixture.capacity), self.regularisation, self.vocab, rng)

    def loss(self, batch: PackedRow) -> tuple[Tensor, dict[str, float | Tensor]]:
        row = batch.to(self.device)
        if self.teacher is not None:
            self.teacher.to(self.device)
        guide = GuidedAttention(row) if self.guide_attention and len(row.audio_at) else None
        text, audio = self._stream_losses(row, self.regularisation.label_smoothing, guide, self._taught(row))
        metrics: dict[str, float | Tensor] = {"tokens": len(row.audio_ids)}
        if self.text_loss and len(row.text_at):
            metrics["text_loss"] = text.detach()
        if len(row.audio_at):
            metrics["audio_loss"] = audio.detach()
        if guide is None:
            return text + audio, metrics
        metrics["guide_loss"] = (astray := guide.loss()).detach()
        return text + audio + self.guide_attention * astray, metrics

    def _stream_losses(
        self,
        row: PackedRow,
        smoothing: float,
        guide: GuidedAttention | None = None,
        taught: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Tensor, Tensor]:
        """Of text and audio; `taught` are the teacher's opinions, if it is asked."""
        if len(row.audio_at) and not self.llm.config.kimia_mimo_layers:
            raise ConfigError("the data hold speech to learn; the model has no audio branch: kimia_mimo_layers is 0.")
        if self.encoder is not None:
            rng = None
            if self.masked_mels and self.model.training:
                rng = np.random.default_rng(int(torch.randint(2**31, ())))
            heard = [self._encode(samples_L, rng) for samples_L in row.features]
            row = replace(row, sounds=torch.cat(heard) if heard else None, sound_lengths=[*map(len, heard)])
        text_nV, audio_nV = self._logits(self.llm, row, guide)
        text = audio = torch.zeros((), device=self.device)
        if text_nV is not None:
            text = self._cross_entropy(text_nV, row.text_labels, smoothing, taught[0])
        if audio_nV is not None:
            labels = row.audio_labels - self.llm.config.kimia_mimo_output_first
            audio = self._cross_entropy(audio_nV, labels, smoothing, taught[1])
        return text, audio

    @torch.no_grad()
    def _taught(self, row: PackedRow) -> tuple[Tensor | None, Tensor | None]:
        """The teacher's probabilities (n, V) at the targets of each stream; None for those that are not learned."""
        if self.teacher is None:
            return None, None
        text_nV, audio_nV = self._logits(self.teacher, row)
        return (None if text_nV is None else text_nV.softmax(-1)), (None if audio_nV is None else audio_nV.softmax(-1))

    def _logits(
        self, llm: AudioLLM, row: PackedRow, guide: GuidedAttention | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """A model's float32 logits (n, V) at the targets of each stream; None for those that are not learned."""
        text_ND, audio_ND = packed_hidden(
            llm,
            row,
            want_text=self.text_loss,
            want_audio=len(row.audio_at) > 0,
            compiled=self.compiled,
            watch=guide,
        )
        text_nV = None if text_ND is None else llm.lm_head(text_ND[row.text_at]).float()
        return text_nV, None if audio_ND is None else llm.mimo_output(audio_ND[row.audio_at]).float()

    def _cross_entropy(self, logits_nV: Tensor, labels: Tensor, smoothing: float, taught_nV: Tensor | None) -> Tensor:
        """Mean over the targets."""
        total = F.cross_entropy(logits_nV, labels, reduction="sum", label_smoothing=smoothing)
        if taught_nV is not None:
            total = torch.lerp(total, F.cross_entropy(logits_nV, taught_nV, reduction="sum"), self.distil)
        return total / (len(labels) + EPSILON)

    def _encode(self, samples_L: Tensor, rng: np.random.Generator | None) -> Tensor:
        """Features (T, F) of one sound, with gradients (`AcousticEncoder.forward` has none); with `rng` masked."""
        assert self.encoder is not None
        parts = samples_L.split(SEGMENT_SAMPLES)
        log_mels = [self.encoder.log_mel(part_L) for part_L in parts]
        if rng is not None:
            log_mels = [spec_augment(log_mel_MT, rng) for log_mel_MT in log_mels]
        features = [
            self.encoder.encode([log_mel_MT], [num_tokens(len(part_L))])[0]
            for log_mel_MT, part_L in zip(log_mels, parts, strict=True)
        ]
        return torch.cat(features)

    def evaluate(self) -> dict[str, float]:
        metrics = {f"{name}_loss": self._dev_loss(prompts) for name, prompts in self.dev.items()}
        if self.measure is not None:
            metrics |= self.measure(self.llm)
        return metrics

    def _dev_loss(self, prompts: list[Prompt]) -> float:
        total, targets = 0.0, 0
        for numbers in pack([len(prompt) for prompt in prompts], self.mixture.capacity):
            row = PackedRow.of([prompts[number] for number in numbers]).to(self.device)
            text, audio = self._stream_losses(row, smoothing=0.0)
            written = len(row.text_at) if self.text_loss else 0
            total += float(text) * written + float(audio) * len(row.audio_at)
            targets += written + len(row.audio_at)
        return total / targets

    def save(self, folder: Path) -> None:
        if self.export is None:
            super().save(folder)
        else:
            self.export(self.llm, folder)


def regularise(row: PackedRow, settings: Regularisation, vocab: Vocabulary, rng: np.random.Generator) -> PackedRow:
    """`row` with some answer ids corrupted and some features hidden; a new row, the labels unchanged."""
    text_ids, audio_ids = row.text_ids, row.audio_ids
    if settings.corrupt_text:
        text_ids = _corrupted(text_ids, row.text_at + 1, settings.corrupt_text, range(vocab.num_base_tokens), rng)
    if settings.corrupt_codes:
        codes = range(vocab.token_offset, vocab.token_offset + vocab.num_audio_codes)
        spoken = row.audio_at[row.audio_labels >= vocab.token_offset] + 1
        audio_ids = _corrupted(audio_ids, spoken, settings.corrupt_codes, codes, rng)
    sounds = row.sounds
    if settings.mask_features and sounds is not None:
        sounds = torch.cat([hide_spans(feature_TF, settings.mask_features, rng) for feature_TF in row.features])
    return replace(row, text_ids=text_ids, audio_ids=audio_ids, sounds=sounds)


def _corrupted(ids: Tensor, at: Tensor, share: float, alphabet: range, rng: np.random.Generator) -> Tensor:
    """A copy of `ids` with a share of those at `at` replaced by any of the alphabet."""
    chosen = at[torch.from_numpy(rng.random(len(at)) < share)]
    ids = ids.clone()
    ids[chosen] = torch.from_numpy(rng.integers(alphabet.start, alphabet.stop, len(chosen)))
    return ids


def hide_spans(feature: Tensor, share: float, rng: np.random.Generator, longest: int = 4) -> Tensor:
    """`feature` (…, T, F) with about `share` of its T vectors zeroed, in spans of 1 to `longest`."""
    frames = feature.shape[-2]
    starts = np.flatnonzero(rng.random(frames) < share / ((1 + longest) / 2))
    hidden = feature.clone()
    for start, span in zip(starts, rng.integers(1, longest + 1, len(starts)), strict=True):
        hidden[..., start : start + span, :] = 0.0
    return hidden
