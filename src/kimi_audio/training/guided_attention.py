"""Guided attention: some heads of the audio branch are told which words are being spoken (Tachibana et al. 2017).

    guide = GuidedAttention(row)
    packed_hidden(llm, row, watch=guide)
    loss = loss + weight * guide.loss()

Text runs ahead of the speech beside it, ever farther, and a branch that learns from scratch to follow takes millions of
positions to find out. Speech is about evenly spread over its text: the heads that are guided should look, from the
place of a code, at the text near the same fraction of the answer. What they do inside that band is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from kimi_audio.training.packing import PackedRow
from kimi_audio.vocab import AUDIO_DELAY

GUIDED_LAYERS = (1, 3)
"""Of the audio branch. In each, the query heads of the first group of keys are guided."""
NARROWEST, SHARE = 2.0, 0.15
"""Half the width of the band: in text ids, and as a share of the answer's; whichever is more."""


@dataclass
class GuidedAttention:
    """Watches the attention of a row's documents."""

    row: PackedRow
    losses: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        starts = [0, *accumulate(self.row.lengths)]
        self._documents = [answer_in(self.row, start, end) for start, end in pairwise(starts)]

    def __call__(self, layer: int, document: int, q_1HTd: Tensor, k_1hTd: Tensor) -> None:
        """Note how far a layer's guided heads look past the band, if the document has a spoken answer."""
        codes_at, text_at = self._documents[document]
        if layer not in GUIDED_LAYERS or not len(codes_at) or not len(text_at):
            return
        group = q_1HTd.shape[1] // k_1hTd.shape[1]
        q_gCd, k_Td = q_1HTd[0, :group, codes_at].float(), k_1hTd[0, 0].float()
        scores_gCT = q_gCd @ k_Td.T * k_Td.shape[-1] ** -0.5
        later_CT = torch.arange(k_Td.shape[0], device=codes_at.device) > codes_at[:, None]
        weights_gCN = scores_gCT.masked_fill(later_CT, -torch.inf).softmax(-1)[..., text_at]
        inside_gC = (weights_gCN * band(len(codes_at), len(text_at)).to(weights_gCN)).sum(-1)
        self.losses.append(-(inside_gC + 1e-4).log().mean())

    def loss(self) -> Tensor:
        """Mean over layers and documents; 0 where nothing is spoken."""
        return torch.stack(self.losses).mean() if self.losses else torch.zeros((), device=self.row.audio_ids.device)


def answer_in(row: PackedRow, start: int, end: int) -> tuple[Tensor, Tensor]:
    """Where a document at `start`…`end` predicts codes, and where the text of that speech stands, from its start on."""
    codes_at = row.audio_at[(row.audio_at >= start) & (row.audio_at < end)] - start
    text_at = row.text_at[(row.text_at >= start) & (row.text_at < end)] + 1 - start
    if len(codes_at):
        text_at = text_at[text_at > codes_at[0] - AUDIO_DELAY]  # not that of earlier answers, in writing
    return codes_at, text_at


def band(codes: int, texts: int) -> Tensor:
    """bool (codes, texts): which text ids may be spoken at each code, if speech is about even."""
    spoken_C1 = (torch.arange(codes) + 0.5)[:, None] * (texts / codes)
    return (torch.arange(texts) + 0.5 - spoken_C1).abs() <= max(NARROWEST, SHARE * texts)
