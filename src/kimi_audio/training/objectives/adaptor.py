"""Warm-up of the adaptor: by CTC it learns to say what is heard in the LLM's own embeddings.

    objective = AdaptorObjective(parts, rows, listen)

Each 12.5 Hz output of the adaptor is compared (cosine) with the LLM's embeddings of the text tokens and with a learned
blank, and trained by connectionist temporal classification on the transcript. Afterwards the LLM meets something like
noisy words, placed where they were said, in the space that it knows. The report trains the adaptor with the LLM at
once; at small size this stage, minutes of work on cached features, spares most of that. Sounds and emotions are spelt
the same way: their name is the target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import tiktoken
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.checkpoint.layout import ModelParts, save_parts
from kimi_audio.errors import DataError
from kimi_audio.llm.model import Adaptor
from kimi_audio.prompt import Heard
from kimi_audio.text import QWEN_SPLIT, TextTokenizer
from kimi_audio.training.length_batches import length_batches
from kimi_audio.training.objective import Objective
from kimi_audio.training.objectives.language import hide_spans

MIN_COUNT = 8
"""Tokens that the transcripts use less often are spelt with shorter ones: CTC learns little of what it rarely sees."""

Row = Mapping[str, Any]


class Spelling:
    """BPE restricted to tokens that the transcripts use often.

    Class 0 is CTC's blank, class c > 0 stands for text id `ids[c - 1]`.
    """

    def __init__(self, tokenizer: TextTokenizer, texts: Sequence[str]) -> None:
        counts = Counter(token for text in texts for token in tokenizer.encode(" " + text))
        ranks = {token: rank for token, rank in tokenizer.ranks.items() if counts[rank] >= MIN_COUNT or len(token) == 1}
        self._bpe = tiktoken.Encoding("spelling", pat_str=QWEN_SPLIT, mergeable_ranks=ranks, special_tokens={})
        self.ids = sorted({token for text in texts for token in self._bpe.encode_ordinary(" " + text)})
        self._class_of = {token: number for number, token in enumerate(self.ids, start=1)}

    def encode(self, text: str) -> list[int]:
        """Classes of a text; tokens that the transcripts never used are left out."""
        tokens = self._bpe.encode_ordinary(" " + text)
        return [self._class_of[token] for token in tokens if token in self._class_of]

    def decode(self, classes: Sequence[int]) -> str:
        """Text of CTC's best path: repeats merged, blanks dropped."""
        path = np.array([0, *classes])
        kept = path[1:][(path[1:] != path[:-1]) & (path[1:] > 0)]
        return self._bpe.decode([self.ids[c - 1] for c in kept]).strip()


class AdaptorReadout(nn.Module):
    """The adaptor, read out against frozen token embeddings (V, D)."""

    def __init__(self, adaptor: Adaptor, embeddings_VD: Tensor) -> None:
        super().__init__()
        self.adaptor = adaptor
        self.register_buffer("embeddings", F.normalize(embeddings_VD, dim=-1), persistent=False)
        self.blank = nn.Parameter(F.normalize(embeddings_VD.mean(0), dim=-1))
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, features_BTF: Tensor) -> Tensor:
        """Log-probabilities of blank and tokens, (B, T, 1 + V)."""
        z_BTD = F.normalize(self.adaptor(features_BTF), dim=-1)
        classes = torch.cat([F.normalize(self.blank, dim=0)[None], self.get_buffer("embeddings")])
        return (z_BTD @ classes.T * self.log_scale.exp()).log_softmax(-1)


class AdaptorObjective(Objective):
    """CTC over transcribed or labelled recordings; of the model, the adaptor alone is trained.

    Args:
        parts: the model; `save` writes it with the trained adaptor.
        rows: recordings (`audio`, and `text`, `label` or both).
        listen: `audio` of a row → its codes and features.
        dev: name → recordings for `evaluate`.
        batch_seconds: sound in a batch, padding included.
        mask_features: share of the features that are hidden, in spans of 1–4.
    """

    def __init__(self, parts: ModelParts, rows: Sequence[Row], listen: Callable[[str], Heard], *,
                 dev: Mapping[str, Sequence[Row]] | None = None, batch_seconds: float = 24.0,
                 mask_features: float = 0.1, seed: int = 0) -> None:
        self.parts, self.listen, self.dev = parts, listen, dev or {}
        self.budget, self.mask_features, self.seed = int(batch_seconds * 12.5), mask_features, seed
        self.spelling = Spelling(parts.tokenizer, [spoken(row) for row in rows])
        adaptor = parts.llm.model.vq_adaptor.requires_grad_(True)
        self.adaptor = adaptor
        self.model = AdaptorReadout(adaptor, parts.llm.model.embed_tokens.weight.detach()[self.spelling.ids])
        self.rows, self.targets, self.lengths = [], [], []
        for row in rows:
            target, length = self.spelling.encode(spoken(row)), len(listen(row["audio"]).codes)
            if 0 < len(target) + sum(a == b for a, b in pairwise(target)) <= length:
                self.rows.append(row)
                self.targets.append(target)
                self.lengths.append(length)
        if not self.rows:
            raise DataError("no recording has a transcript that fits into its length.")

    def batches(self, start: int) -> Iterator[list[int]]:
        """Row numbers, recordings of similar length together."""
        return length_batches(self.lengths, self.budget, self.seed, start)

    def loss(self, batch: list[int]) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        features = [hide_spans(self._features(self.rows[n]), self.mask_features, rng) for n in batch]
        targets = [self.targets[n] for n in batch]
        lengths_B = torch.tensor([len(feature) for feature in features])
        log_probs_BTC = self.model(nn.utils.rnn.pad_sequence(features, batch_first=True))
        loss = F.ctc_loss(log_probs_BTC.transpose(0, 1), torch.tensor([c for t in targets for c in t]), lengths_B,
                          torch.tensor([len(t) for t in targets]), zero_infinity=True)  # fmt: skip
        return loss, {"tokens": float(lengths_B.sum())}

    def _features(self, row: Row) -> Tensor:
        """(T, F) of one recording."""
        features_1TF = self.listen(row["audio"]).features
        assert features_1TF is not None, "the model has no acoustic encoder"
        return features_1TF[0].to(self.device)

    def evaluate(self) -> dict[str, float]:
        """Word error rate of CTC's best path."""
        return {f"wer_{name}": self._word_errors(rows) for name, rows in self.dev.items()}

    def _word_errors(self, rows: Sequence[Row]) -> float:
        paths = [self.model(self._features(row)[None])[0].argmax(-1).tolist() for row in rows]
        return float(jiwer.wer([spoken(row) for row in rows], [self.spelling.decode(path) for path in paths]))

    def save(self, folder: Path) -> None:
        """Write the model.

        CTC looked at directions only; the adaptor's norm is scaled so that a feature, times the √2 of the input sum, is
        about as long as a token's embedding.
        """
        norm, embeddings_VD = self.adaptor.layers[-1], self.parts.llm.model.embed_tokens.weight
        assert isinstance(norm, nn.LayerNorm)
        with torch.no_grad():
            scale = embeddings_VD[self.spelling.ids].norm(dim=-1).median() / (2**0.5 * norm.weight.norm())
            norm.weight.mul_(scale)
            norm.bias.mul_(scale)
        save_parts(folder, self.parts)


def spoken(row: Row) -> str:
    """What a recording should spell: the transcript, then the name of the sound or emotion if it has one."""
    return " ".join(part for part in (row.get("text"), row.get("label")) if part)
