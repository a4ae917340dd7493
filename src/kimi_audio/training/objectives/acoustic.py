"""The acoustic encoder, by the phonemes that its head reads off it, while all else of the model stays as it is.

    objective = AcousticObjective(parts, WaveformStore.build([manifest], cache), augment=Augmenter(...))

What is heard in noise and in other rooms is to give the phonemes that were said, and, through the adaptor, what the
encoder gave before of the clean sound: the language model, which knows those outputs, need not learn anew. Encoder and
head learn; a recording without words (`text` empty) teaches the head to hear none. Not in the report, whose encoder
is large enough; it trains that along with the language model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

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
from kimi_audio.tokenizer.acoustic import FRAMES_PER_TOKEN, SEGMENT_SAMPLES, AcousticEncoder, num_tokens
from kimi_audio.tokenizer.phonemes import PhonemeReader, phoneme_classes
from kimi_audio.training.ctc import best_path, class_error_rate, positions_needed
from kimi_audio.training.length_batches import length_batches
from kimi_audio.training.objective import Objective, ParameterGroup, groups_by_prefix
from kimi_audio.training.objectives.adaptor import FRAMES_MULTIPLE

FRAMES_PER_PHONEME = 5
"""About: CTC's loss is told for each phoneme that there is room for, so that silence has one, too."""
COMPARED = 3
"""Every so many sounds of a batch are heard as they were before, too: that takes as long as hearing them."""
AT_REST = {"before": 0.0, "adaptor": 0.0, "encoder.encoder.embed_positions": 0.0}


class Hearing(nn.Module):
    """Encoder and head, which learn; adaptor and the encoder as it was, which do not."""

    def __init__(self, encoder: AcousticEncoder, reader: PhonemeReader, adaptor: Adaptor) -> None:
        super().__init__()
        self.encoder, self.reader, self.adaptor = encoder, reader, adaptor
        self.before = deepcopy(encoder)

    def heard(self, log_mels: list[Tensor], lengths: list[int]) -> list[Tensor]:
        """Features (T, F) of each sound."""
        return self.encoder.encode(log_mels, lengths, FRAMES_MULTIPLE)

    @torch.no_grad()
    def wanted(self, log_mels: list[Tensor], lengths: list[int]) -> Tensor:
        """The adaptor's outputs for what the encoder heard before, of all sounds in a row (N, D)."""
        return self.adaptor(torch.cat(self.before.encode(log_mels, lengths, FRAMES_MULTIPLE)))


@dataclass(frozen=True)
class Batch:
    """Sounds that are met together.

    Attributes:
        noisy: log-mels (n_mels, frames); clean: of every `COMPARED`-th of them, without the noise.
        lengths: features that each will have; targets: classes of its phonemes.
    """

    noisy: list[Tensor]
    clean: list[Tensor]
    lengths: list[int]
    targets: list[list[int]]


class AcousticObjective(Objective):
    """Phonemes by CTC and the adaptor's outputs of before, over recordings of at most 30 s.

    Args:
        parts: the model, which has a lexicon and a head for phonemes; `save` writes it.
        store: recordings with `text`, empty where nobody speaks.
        dev: name → recordings for `evaluate`, as they are and augmented.
        augment: changes each sound anew each time it is met; SpecAugment comes on top.
        rates: parameter-name prefix (`encoder`, `reader`) → learning-rate scale.
        batch_seconds: sound in a batch, padding included.
    """

    def __init__(self, parts: ModelParts, store: WaveformStore, *, augment: Augmenter,
                 dev: Mapping[str, WaveformStore] | None = None, rates: Mapping[str, float] | None = None,
                 batch_seconds: float = 60.0, seed: int = 0) -> None:
        if parts.acoustic is None or parts.phonemes is None or parts.lexicon is None:
            raise DataError("the model has no head for phonemes, which needs an acoustic encoder and a lexicon.")
        self.parts, self.store, self.dev, self.augment = parts, store, dev or {}, augment
        self.lexicon, self.rates, self.seed = parts.lexicon, rates or {}, seed
        self.budget = int(batch_seconds * SAMPLE_RATE)
        self.model = self.hearing = Hearing(parts.acoustic, parts.phonemes, parts.llm.model.vq_adaptor)
        self.model.requires_grad_(True)
        self.targets = [phoneme_classes(self.lexicon.pronounce(row["text"])) for row in store.rows]
        fastest = augment.config.speed[1]
        self.usable = [n for n, said in enumerate(self.targets) if positions_needed(said) <= self._room(n) / fastest]
        if not self.usable:
            raise DataError("no recording has a transcript that fits into its length.")

    def _room(self, row: int) -> int:
        """Frames of a recording."""
        return FRAMES_PER_TOKEN * num_tokens(self.store.length(row))

    def parameter_groups(self) -> list[ParameterGroup]:
        return groups_by_prefix(self.model, {**AT_REST, **self.rates})

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Recordings of similar length together."""
        lengths = [self.store.length(n) for n in self.usable]
        for number, places in length_batches(lengths, self.budget, self.seed, start, stride):
            rows = [self.usable[place] for place in places]
            met = [self._met(self.store.samples(row), rng_of(self.seed, number, row)) for row in rows]
            noisy, clean, counts = map(list, zip(*met, strict=True))
            yield Batch(noisy, clean[::COMPARED], counts, [self.targets[row] for row in rows])

    def _met(self, samples: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor, int]:
        """Log-mels of a recording in noise and without, at one pace, and how many features they have."""
        clean = self.augment.at_a_pace(samples, rng)[:SEGMENT_SAMPLES]
        noisy = self.augment.on_its_way(clean, rng)
        log_mels = [self.hearing.encoder.log_mel(torch.from_numpy(sound)) for sound in (noisy, clean)]
        return spec_augment(log_mels[0], rng), log_mels[1], num_tokens(len(clean))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """CTC's, and the squared error of the adaptor's outputs, in parts of the variance of those that are wanted."""
        noisy, clean = ([sound.to(self.device) for sound in sounds] for sounds in (batch.noisy, batch.clean))
        features = self.hearing.heard(noisy, batch.lengths)
        ctc = _loss_a_phoneme(self.hearing.reader.read(features), batch.targets)
        wanted_ND = self.hearing.wanted(clean, batch.lengths[::COMPARED]).float()
        given_ND = self.hearing.adaptor(torch.cat(features[::COMPARED])).float()
        unlike = F.mse_loss(given_ND, wanted_ND) / wanted_ND.var(0).mean()
        logged = {"tokens": float(sum(batch.lengths)), "ctc_loss": ctc.detach(), "likeness_loss": unlike.detach()}
        return ctc + unlike, logged

    def evaluate(self) -> dict[str, float]:
        """Phoneme error rate of CTC's best path, of recordings as they are and augmented."""
        metrics = {}
        for name, store in self.dev.items():
            said = [phoneme_classes(self.lexicon.pronounce(row["text"])) for row in store.rows]
            sounds = [store.samples(row) for row in range(len(store))]
            noisy = [self.augment.on_its_way(sound, rng_of(self.seed, row)) for row, sound in enumerate(sounds)]
            metrics[f"per_{name}"] = self._error_rate(said, sounds)
            metrics[f"per_{name}_noisy"] = self._error_rate(said, noisy)
        return metrics

    def _error_rate(self, said: list[list[int]], sounds: list[np.ndarray]) -> float:
        read = []
        for sound in sounds:
            features_TF = self.hearing.encoder.encode_segment(torch.from_numpy(sound).to(self.device))
            read.append(best_path(self.hearing.reader(features_TF).argmax(-1).tolist()))
        return class_error_rate(said, read)

    def save(self, folder: Path) -> None:
        save_parts(folder, self.parts)


def _loss_a_phoneme(log_probs: list[Tensor], targets: list[list[int]]) -> Tensor:
    """CTC's loss over recordings, some of them without a word, for each phoneme that there is room for."""
    lengths = torch.tensor([len(log_probs_TC) for log_probs_TC in log_probs])
    classes, sizes = torch.tensor([c for target in targets for c in target]), torch.tensor([*map(len, targets)])
    padded_TBC = nn.utils.rnn.pad_sequence(log_probs)
    summed = F.ctc_loss(padded_TBC, classes.to(padded_TBC.device), lengths, sizes, reduction="sum", zero_infinity=True)
    return summed * FRAMES_PER_PHONEME / lengths.sum()
