"""Warm-up of encoder and adaptor: by CTC they learn to say what is heard in the LLM's own embeddings.

    objective = AdaptorObjective(parts, WaveformStore.build([manifest], cache), rates={"encoder": 0.1})

Each 12.5 Hz output of the adaptor is compared (cosine) with the LLM's embeddings of the text tokens and with a learned
blank, and trained by connectionist temporal classification on the transcript. Afterwards the LLM meets something like
noisy words, placed where they were said, in the space that it knows. The report trains adaptor, then encoder, with the
LLM at once; at small size this stage, a fraction of the work, spares most of that. An encoder that is trained along
also spells: a second CTC reads letters off its 50 Hz frames, which teaches it the sound of words that it seldom hears.
A recording with a label (a sound event, an emotion) is classified as well: its mean output is compared with the
embeddings of all labels' names.

Where the LLM has since learned from an adaptor's outputs, and the encoder becomes another, an adaptor for the new one
learns to give what the old one gave (`like`) in place of words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.audio.log_mel import SAMPLE_RATE
from kimi_audio.checkpoint.layout import ModelParts, save_parts
from kimi_audio.data.augment import Augmenter, rng_of, spec_augment
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.errors import DataError
from kimi_audio.llm.model import Adaptor
from kimi_audio.prompt import Heard
from kimi_audio.tokenizer.acoustic import FRAMES_PER_TOKEN, SEGMENT_SAMPLES, AcousticEncoder, num_tokens
from kimi_audio.training.ctc import LETTERS, Spelling, ctc_loss, letter_classes, positions_needed
from kimi_audio.training.length_batches import length_batches
from kimi_audio.training.objective import Objective, ParameterGroup, groups_by_prefix
from kimi_audio.training.objectives.language import hide_spans

LETTERS_WEIGHT = 0.3
"""Of the letters' loss beside that of the tokens."""

FRAMES_MULTIPLE = 64
"""Batches are padded to a multiple of so many encoder frames."""

Row = Mapping[str, Any]


class Readout(nn.Module):
    """Encoder and adaptor, read out against frozen embeddings of tokens (V, D) and of labels (C, D)."""

    embeddings: Tensor
    labels: Tensor

    def __init__(self, encoder: AcousticEncoder, adaptor: Adaptor, embeddings_VD: Tensor, labels_CD: Tensor) -> None:
        super().__init__()
        self.encoder, self.adaptor = encoder, adaptor
        self.register_buffer("embeddings", F.normalize(embeddings_VD, dim=-1), persistent=False)
        self.register_buffer("labels", F.normalize(labels_CD, dim=-1), persistent=False)
        self.blank = nn.Parameter(F.normalize(embeddings_VD.mean(0), dim=-1))
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.spell = nn.Linear(encoder.encoder.config.d_model, 1 + len(LETTERS))

    def letters(self, features_TF: Tensor) -> Tensor:
        """Log-probabilities of blank and letters at each of the encoder's frames, float32 (4 T, 1 + letters)."""
        frames_ND = features_TF.unflatten(-1, (-1, self.spell.in_features)).flatten(0, 1)
        return self.spell(frames_ND).float().log_softmax(-1)

    def tokens(self, z_TD: Tensor) -> Tensor:
        """Log-probabilities of blank and tokens at each of the adaptor's outputs, float32 (T, 1 + V)."""
        classes = torch.cat([F.normalize(self.blank, dim=0)[None], self.embeddings])
        return (F.normalize(z_TD, dim=-1) @ classes.T * self.log_scale.exp()).float().log_softmax(-1)

    def label(self, z_TD: Tensor) -> Tensor:
        """Logits of the labels for the whole of a recording, float32 (C,)."""
        return (F.normalize(z_TD.mean(0), dim=-1) @ self.labels.T * self.log_scale.exp()).float()


@dataclass(frozen=True)
class Batch:
    """Log-mels (n_mels, frames) or features (T, F), T of each, CTC targets, label numbers, wanted outputs (T, D)."""

    sounds: list[Tensor]
    lengths: list[int]
    targets: list[list[int]]
    letters: list[list[int]]
    labels: list[int | None]
    wanted: list[Tensor | None]


class AdaptorObjective(Objective):
    """CTC over transcribed or labelled recordings of at most 30 s; of the model, encoder and adaptor are trained.

    Args:
        parts: the model; `save` writes it.
        store: recordings (rows with `text`, `label` or both).
        dev: name → recordings for `evaluate`.
        heard: `audio` of a row → its features, for an encoder that is not trained; it is then not asked again.
        like: `audio` of a row without a label → the outputs (T, D) wanted instead of its words; only with `heard`.
        augment: changes each sound anew each time it is met; SpecAugment comes on top.
        rates, frozen_until: by parameter-name prefix (`encoder`, `adaptor`), see `groups_by_prefix`.
        batch_seconds: sound in a batch, padding included.
        mask_features: share of the features that are hidden, in spans of 1–4.
    """

    def __init__(self, parts: ModelParts, store: WaveformStore, *, dev: Mapping[str, WaveformStore] | None = None,
                 heard: Callable[[str], Heard] | None = None, like: Callable[[str], Tensor] | None = None,
                 augment: Augmenter | None = None,
                 rates: Mapping[str, float] | None = None, frozen_until: Mapping[str, float] | None = None,
                 batch_seconds: float = 60.0, mask_features: float = 0.1, seed: int = 0) -> None:
        if parts.acoustic is None:
            raise DataError("the model has no acoustic encoder, and so no adaptor to train.")
        self.parts, self.store, self.dev, self.heard, self.like = parts, store, dev or {}, heard, like
        self.augment, self.seed = augment, seed
        self.rates, self.frozen_until = rates or {}, frozen_until or {}
        self.budget, self.mask_features = int(batch_seconds * SAMPLE_RATE), mask_features
        self.spelling = Spelling(parts.tokenizer, [row["text"] for row in store.rows if row.get("text")])
        self.labels = sorted({row["label"] for row in store.rows if row.get("label")})
        embeddings_VD = parts.llm.model.embed_tokens.weight.detach()
        names = [embeddings_VD[parts.tokenizer.encode(" " + label)].mean(0) for label in self.labels]
        labels_CD = torch.stack(names) if names else embeddings_VD[:0]
        self.encoder = parts.acoustic
        self.model = self.readout = Readout(
            self.encoder, parts.llm.model.vq_adaptor, embeddings_VD[self.spelling.ids], labels_CD
        )
        self.model.requires_grad_(True)
        self.targets = [self.spelling.encode(row.get("text") or "") for row in store.rows]
        self.letters = [letter_classes(row.get("text") or "") for row in store.rows]
        self.usable = [n for n, row in enumerate(store.rows) if like is not None or self._teaches(n, row)]
        if not self.usable:
            raise DataError("no recording has a label, or a transcript that fits into its length.")

    def _teaches(self, number: int, row: Row) -> bool:
        """Whether there is a transcript that fits, or a label."""
        fits = positions_needed(self.targets[number]) <= self._room(number)
        return fits and bool(row.get("label") or self.targets[number])

    def _room(self, number: int) -> float:
        """Positions of a recording, as fast as augmentation may make it."""
        fastest = self.augment.config.speed[1] if self.augment else 1.0
        return num_tokens(self.store.length(number)) / fastest

    def parameter_groups(self) -> list[ParameterGroup]:
        """All but the encoder's table of positions, which is fixed sinusoids."""
        return groups_by_prefix(self.model, {"encoder.encoder.embed_positions": 0.0, **self.rates}, self.frozen_until)

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Recordings of similar length together."""
        lengths = [self.store.length(n) for n in self.usable]
        for number, rows in length_batches(lengths, self.budget, self.seed, start, stride):
            yield self._batch([self.usable[row] for row in rows], number)

    def _batch(self, rows: list[int], number: int) -> Batch:
        sounds, lengths = [], []
        for row in rows:
            sound, length = self._remembered(row) if self.heard else self._log_mel(row, rng_of(self.seed, number, row))
            sounds.append(sound)
            lengths.append(length)
        labels = [self.store.rows[row].get("label") for row in rows]
        numbers = [self.labels.index(label) if label else None for label in labels]
        targets, letters = [self.targets[row] for row in rows], [self.letters[row] for row in rows]
        wanted = [self._wanted(self.store.rows[row]) for row in rows]
        return Batch(sounds, lengths, targets, letters, numbers, wanted)

    def _wanted(self, row: Row) -> Tensor | None:
        """Outputs to give for a recording; one with a label is to give that."""
        return self.like(row["audio"]) if self.like and not row.get("label") else None

    def _remembered(self, row: int) -> tuple[Tensor, int]:
        """Features of a recording, and how many."""
        assert self.heard is not None
        features_1TF = self.heard(self.store.rows[row]["audio"]).features
        assert features_1TF is not None, "the model has an acoustic encoder"
        return features_1TF[0].float(), features_1TF.shape[1]

    def _log_mel(self, row: int, rng: np.random.Generator) -> tuple[Tensor, int]:
        """Log-mel of a recording, changed at random if that is wanted, and how many features it will have."""
        samples = self.store.samples(row)
        if self.augment is None:
            return self.encoder.log_mel(torch.from_numpy(samples)), num_tokens(len(samples))
        samples = self.augment(samples, rng)[:SEGMENT_SAMPLES]
        return spec_augment(self.encoder.log_mel(torch.from_numpy(samples)), rng), num_tokens(len(samples))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        sounds = [sound.to(self.device) for sound in batch.sounds]
        features = sounds if self.heard else self.encoder.encode(sounds, batch.lengths, FRAMES_MULTIPLE)
        hidden = torch.cat([hide_spans(feature, self.mask_features, rng) for feature in features])
        heard = self.readout.adaptor(hidden).split(batch.lengths)
        losses = self._label_loss(batch, heard)
        losses |= self._word_losses(batch, features, heard) if self.like is None else self._likeness_loss(batch, heard)
        total = torch.stack(list(losses.values())).sum()
        return total, {"tokens": float(sum(batch.lengths)), **{name: loss.detach() for name, loss in losses.items()}}

    def _word_losses(self, batch: Batch, features: Sequence[Tensor], heard: Sequence[Tensor]) -> dict[str, Tensor]:
        """CTC of tokens; of letters too, where the encoder is trained."""
        if not (spoken := [n for n, target in enumerate(batch.targets) if target]):
            return {}
        lengths = [batch.lengths[n] for n in spoken]
        tokens = self.readout.tokens(torch.cat([heard[n] for n in spoken])).split(lengths)
        losses = {"ctc_loss": ctc_loss(tokens, [batch.targets[n] for n in spoken])}
        if not self.heard:
            letters = self.readout.letters(torch.cat([features[n] for n in spoken]))
            frames = letters.split([FRAMES_PER_TOKEN * length for length in lengths])
            losses["letters_loss"] = LETTERS_WEIGHT * ctc_loss(frames, [batch.letters[n] for n in spoken])
        return losses

    def _likeness_loss(self, batch: Batch, heard: Sequence[Tensor]) -> dict[str, Tensor]:
        """Squared error of the outputs, in parts of the variance of those that are wanted."""
        pairs = [(z_TD, like_TD) for z_TD, like_TD in zip(heard, batch.wanted, strict=True) if like_TD is not None]
        if not pairs:
            return {}
        given_ND, wanted_ND = (torch.cat(outputs).to(self.device) for outputs in zip(*pairs, strict=True))
        return {"likeness_loss": F.mse_loss(given_ND, wanted_ND) / wanted_ND.var(0).mean()}

    def _label_loss(self, batch: Batch, heard: Sequence[Tensor]) -> dict[str, Tensor]:
        labelled = [(z_TD, label) for z_TD, label in zip(heard, batch.labels, strict=True) if label is not None]
        if not labelled:
            return {}
        logits_BC = torch.stack([self.readout.label(z_TD) for z_TD, _ in labelled])
        return {"label_loss": F.cross_entropy(logits_BC, logits_BC.new_tensor([n for _, n in labelled]).long())}

    def evaluate(self) -> dict[str, float]:
        """Word error rate of CTC's best path, if words are learned, and accuracy of the labels."""
        metrics = {}
        for name, store in self.dev.items():
            heard = [self._hear(store.samples(row)) for row in range(len(store))]
            spoken = [(row["text"], z_TD) for row, z_TD in zip(store.rows, heard, strict=True) if row.get("text")]
            if spoken and self.like is None:
                paths = [self.readout.tokens(z_TD).argmax(-1).tolist() for _, z_TD in spoken]
                said = [self.spelling.decode(path) for path in paths]
                metrics[f"wer_{name}"] = float(jiwer.wer([text for text, _ in spoken], said))
            if known := [(row["label"], z_TD) for row, z_TD in zip(store.rows, heard, strict=True) if row.get("label")]:
                right = [self.labels[int(self.readout.label(z_TD).argmax())] == label for label, z_TD in known]
                metrics[f"accuracy_{name}"] = float(np.mean(right))
        return metrics

    def _hear(self, samples: np.ndarray) -> Tensor:
        """The adaptor's outputs (T, D)."""
        return self.readout.adaptor(self.encoder.encode_segment(torch.from_numpy(samples).to(self.device)))

    def save(self, folder: Path) -> None:
        """Write the model.

        CTC looked at directions only; the adaptor's norm is scaled so that a feature, times the √2 of the input sum, is
        about as long as a token's embedding. That of outputs like others' is as it should be.
        """
        if self.like is not None:
            return save_parts(folder, self.parts)
        norm, embeddings_VD = self.readout.adaptor.layers[-1], self.parts.llm.model.embed_tokens.weight
        assert isinstance(norm, nn.LayerNorm)
        with torch.no_grad():
            scale = embeddings_VD[self.spelling.ids].norm(dim=-1).median() / (2**0.5 * norm.weight.norm())
            norm.weight.mul_(scale)
            norm.bias.mul_(scale)
        save_parts(folder, self.parts)
