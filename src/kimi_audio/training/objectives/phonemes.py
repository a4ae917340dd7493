"""A CTC head that reads phonemes off the acoustic encoder, which stays as it is (`tokenizer.phonemes`).

    objective = PhonemesObjective(parts, WaveformStore.build([manifest], cache), heard=ears.heard)

Its targets are the transcripts as the model's lexicon pronounces them. Not in the report; transcription by a small
language model leans on it (`generation.joint`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch
from torch import Tensor

from kimi_audio.audio.log_mel import SAMPLE_RATE
from kimi_audio.checkpoint.layout import ModelParts, save_parts
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.errors import DataError
from kimi_audio.prompt import Heard
from kimi_audio.tokenizer.acoustic import FRAMES_PER_TOKEN, num_tokens
from kimi_audio.tokenizer.phonemes import PhonemeConfig, PhonemeReader, phoneme_classes
from kimi_audio.training.ctc import best_path, ctc_loss, positions_needed
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
        heard: `audio` of a row → features.
        dev: name → recordings for `evaluate`.
        hidden, kernel: channels of the head, and frames that each of them sees.
        batch_seconds: sound in a batch, padding included.
        mask_features: share of the features that are hidden, in spans of 1–4.
    """

    def __init__(self, parts: ModelParts, store: WaveformStore, *, heard: Callable[[str], Heard],
                 dev: Mapping[str, WaveformStore] | None = None, hidden: int = 256, kernel: int = 5,
                 batch_seconds: float = 80.0, mask_features: float = 0.1, seed: int = 0) -> None:
        if parts.acoustic is None or parts.lexicon is None:
            raise DataError("a head for phonemes needs a model with an acoustic encoder and a lexicon.")
        self.parts, self.store, self.dev, self.heard = parts, store, dev or {}, heard
        self.lexicon, self.seed = parts.lexicon, seed
        self.budget, self.mask_features = int(batch_seconds * SAMPLE_RATE), mask_features
        torch.manual_seed(seed)
        parts.phonemes = PhonemeReader(PhonemeConfig(parts.acoustic.encoder.config.d_model, hidden, kernel))
        self.model = self.reader = parts.phonemes
        self.targets = [phoneme_classes(self.lexicon.pronounce(row.get("text") or "")) for row in store.rows]
        self.usable = [
            n for n, target in enumerate(self.targets)
            if target and positions_needed(target) <= FRAMES_PER_TOKEN * num_tokens(store.length(n))
        ]  # fmt: skip
        if not self.usable:
            raise DataError("no recording has a transcript that fits into its length.")

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Recordings of similar length together."""
        lengths = [self.store.length(n) for n in self.usable]
        for _, places in length_batches(lengths, self.budget, self.seed, start, stride):
            rows = [self.usable[place] for place in places]
            heard = [self._features(self.store.rows[row]["audio"]) for row in rows]
            yield Batch(heard, [self.targets[row] for row in rows])

    def _features(self, audio: str) -> Tensor:
        features_1TF = self.heard(audio).features
        assert features_1TF is not None, "the model has an acoustic encoder"
        return features_1TF[0].float()

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        hidden = [hide_spans(features_TF.to(self.device), self.mask_features, rng) for features_TF in batch.features]
        loss = ctc_loss([self.reader(features_TF) for features_TF in hidden], batch.targets)
        return loss, {"tokens": float(sum(map(len, hidden))), "ctc_loss": loss.detach()}

    def evaluate(self) -> dict[str, float]:
        """Phoneme error rate of CTC's best path."""
        metrics = {}
        for name, store in self.dev.items():
            said = [phoneme_classes(self.lexicon.pronounce(row["text"])) for row in store.rows]
            heard = [self.reader(self._features(row["audio"]).to(self.device)).argmax(-1) for row in store.rows]
            read = [best_path(path_T.tolist()) for path_T in heard]
            metrics[f"per_{name}"] = float(jiwer.wer([*map(_joined, said)], [*map(_joined, read)]))
        return metrics

    def save(self, folder: Path) -> None:
        save_parts(folder, self.parts)


def _joined(classes: Sequence[int]) -> str:
    return " ".join(map(str, classes))
