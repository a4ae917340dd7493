"""A CTC head that reads phonemes off the acoustic encoder, which stays as it is (`tokenizer.phonemes`).

    objective = PhonemesObjective(parts, WaveformStore.build([manifest], cache), heard=ears.cache)

Its targets are the transcripts as the model's lexicon pronounces them. Not in the report; transcription by a small
language model leans on it (`generation.joint`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kimi_audio.audio.log_mel import SAMPLE_RATE
from kimi_audio.checkpoint.layout import ModelParts, save_parts
from kimi_audio.data.cache import CLEAN, HeardCache, variant_key
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.errors import DataError
from kimi_audio.tokenizer.acoustic import FRAMES_PER_TOKEN, num_tokens
from kimi_audio.tokenizer.phonemes import PhonemeConfig, PhonemeReader, phoneme_classes
from kimi_audio.training.ctc import best_path, class_error_rate, ctc_loss, positions_needed
from kimi_audio.training.length_batches import length_batches
from kimi_audio.training.objective import Objective
from kimi_audio.training.objectives.language import hide_spans


@dataclass(frozen=True)
class Batch:
    """Features (T, F) of recordings, and the classes of their phonemes."""

    features: list[Tensor]
    targets: list[list[int]]


class PhonemesObjective(Objective):
    """CTC over transcribed recordings; only the head is trained.

    Args:
        parts: the model, which has a lexicon; it gets a new head, and `save` writes it.
        store: recordings with `text`.
        heard: what the encoder hears of each variant of the recordings (`data.cache.variant_key`).
        variants: numbers of the variants to learn from, each as often as the others.
        dev: name → recordings for `evaluate`, as they are.
        hidden, kernel, layers: of the head (`PhonemeConfig`); dropout: in it.
        batch_seconds: sound in a batch, padding included.
        mask_features: share of the features that are hidden, in spans of 1–4.
    """

    def __init__(self, parts: ModelParts, store: WaveformStore, *, heard: HeardCache, variants: range = CLEAN,
                 dev: Mapping[str, WaveformStore] | None = None, hidden: int = 384, kernel: int = 5,
                 layers: int = 2, dropout: float = 0.15,
                 batch_seconds: float = 80.0, mask_features: float = 0.1, seed: int = 0) -> None:
        if parts.acoustic is None or parts.lexicon is None:
            raise DataError("a head for phonemes needs a model with an acoustic encoder and a lexicon.")
        self.parts, self.dev, self.heard = parts, dev or {}, heard
        self.lexicon, self.seed = parts.lexicon, seed
        self.budget, self.mask_features = num_tokens(int(batch_seconds * SAMPLE_RATE)), mask_features
        torch.manual_seed(seed)
        parts.phonemes = PhonemeReader(
            PhonemeConfig(parts.acoustic.encoder.config.d_model, hidden, kernel, layers), dropout
        )
        self.model = self.reader = parts.phonemes
        targets = [phoneme_classes(self.lexicon.pronounce(row.get("text") or "")) for row in store.rows]
        said = ((variant_key(row["audio"], n), target)
                for row, target in zip(store.rows, targets, strict=True) if target for n in variants)
        self.usable = [(key, target) for key, target in said
                       if positions_needed(target) <= FRAMES_PER_TOKEN * heard.length(key)]  # fmt: skip
        if not self.usable:
            raise DataError("no recording has a transcript that fits into its length.")

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Recordings of similar length together."""
        lengths = [self.heard.length(key) for key, _ in self.usable]
        for _, places in length_batches(lengths, self.budget, self.seed, start, stride):
            chosen = [self.usable[place] for place in places]
            yield Batch([self._features(key) for key, _ in chosen], [target for _, target in chosen])

    def _features(self, key: str) -> Tensor:
        features_1TF = self.heard.heard(key).features
        assert features_1TF is not None, "the model has an acoustic encoder"
        return features_1TF[0].float()

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        hidden = [hide_spans(features_TF.to(self.device), self.mask_features, rng) for features_TF in batch.features]
        loss = ctc_loss(self.reader.read(hidden), batch.targets)
        return loss, {"tokens": float(sum(map(len, hidden))), "ctc_loss": loss.detach()}

    def evaluate(self) -> dict[str, float]:
        """Phoneme error rate of CTC's best path."""
        metrics = {}
        for name, store in self.dev.items():
            said = [phoneme_classes(self.lexicon.pronounce(row["text"])) for row in store.rows]
            heard = [self.reader(self._features(row["audio"]).to(self.device)).argmax(-1) for row in store.rows]
            read = [best_path(path_T.tolist()) for path_T in heard]
            metrics[f"per_{name}"] = class_error_rate(said, read)
        return metrics

    def save(self, folder: Path) -> None:
        save_parts(folder, self.parts)
