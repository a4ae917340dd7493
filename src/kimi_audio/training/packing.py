"""Sequence packing: documents laid end to end in rows of at most N positions, none seeing another.

    rows = pack([len(p) for p in prompts], capacity=1024)          # lists of document numbers
    row = PackedRow.of([prompts[i] for i in rows[0]])
    text_ND, audio_ND = packed_hidden(llm, row)

There is no mask: everything but attention works on single positions, and attention runs over one document at a time,
causally, with positions that restart. What a row lacks to its full size is filled with documents of nothing.
Measured on a CPU for rows of 900 positions in documents of 30–250 (`benchmarks/attention_packing.py`): as fast as
batches of similar lengths, whose padding costs 10 % everywhere else, 2.5 × as fast as padding to the longest, 4.6 × as
fast as one row under a block-diagonal mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from kimi_audio.attention import attend
from kimi_audio.llm.model import AudioLLM, DecoderLayer, rotary_tables, rotate
from kimi_audio.prompt import Prompt


@dataclass(frozen=True)
class PackedRow:
    """Documents end to end: ids and mask (N,), the targets of each stream, and where the documents lie.

    `text_at` (n,) are the positions whose next id in the text stream is to be predicted, `text_labels` (n,) those
    ids; likewise for audio. All int64. `sounds` holds the features of all sounds, or their samples, end to end (one
    tensor moves faster than many), `sound_lengths` how much of it is of each.
    """

    lengths: list[int]
    audio_ids: Tensor
    text_ids: Tensor
    continuous_mask: Tensor
    sounds: Tensor | None
    sound_lengths: list[int]
    text_at: Tensor
    text_labels: Tensor
    audio_at: Tensor
    audio_labels: Tensor

    @classmethod
    def of(cls, prompts: Sequence[Prompt], size: int = 0) -> PackedRow:
        """Lay out `prompts`. The first id of a document has no predecessor and is never a target.

        A shorter row is filled up to `size` positions, with documents of nothing: a CPU prepares its kernels anew for
        every size that it meets.
        """
        blank, longest = max(0, size - sum(map(len, prompts))), max(map(len, prompts))
        nothing = [longest] * (blank // longest) + [blank % longest] * (blank % longest > 0)
        audio_ids = torch.tensor([i for prompt in prompts for i in prompt.audio_ids] + blank * [0])
        text_ids = torch.tensor([i for prompt in prompts for i in prompt.text_ids] + blank * [0])
        audio_at = _predecessors([prompt.audio_loss_mask for prompt in prompts])
        text_at = _predecessors([prompt.text_loss_mask for prompt in prompts])
        sounds = [sound.flatten(0, -2) if sound.ndim > 1 else sound for prompt in prompts for sound in prompt.features]
        with torch.autocast("cpu", enabled=False):  # it cannot join what is in float16
            joined = torch.cat(sounds) if sounds else None
        return cls(
            lengths=[len(prompt) for prompt in prompts] + nothing,
            audio_ids=audio_ids,
            text_ids=text_ids,
            continuous_mask=torch.tensor([m for prompt in prompts for m in prompt.continuous_mask] + blank * [False]),
            sounds=joined,
            sound_lengths=[len(sound) for sound in sounds],
            text_at=text_at,
            text_labels=text_ids[text_at + 1],
            audio_at=audio_at,
            audio_labels=audio_ids[audio_at + 1],
        )

    def to(self, device: torch.device) -> PackedRow:
        """The row on a device, its sounds in float32."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved | ({"sounds": moved["sounds"].float()} if "sounds" in moved else {}))

    @property
    def features(self) -> list[Tensor]:
        """Of each sound, in order: (T, F), or samples (L,)."""
        return [] if self.sounds is None else list(self.sounds.split(self.sound_lengths))

    @property
    def positions(self) -> Tensor:
        """Position of each id in its own document: int64 (N,)."""
        return torch.cat([torch.arange(length) for length in self.lengths]).to(self.audio_ids.device)


def _predecessors(masks: Sequence[Sequence[bool]]) -> Tensor:
    """Indices in the row of the positions that come just before a masked one of the same document."""
    at, start = [], 0
    for mask in masks:
        at += [start + index - 1 for index in range(1, len(mask)) if mask[index]]
        start += len(mask)
    return torch.tensor(at, dtype=torch.int64)


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute documents over rows of at most `capacity` positions: best fit, longest first.

    Returns the document numbers of each row; a document longer than `capacity` gets a row of its own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for document in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fitting = [(space, row) for row, space in enumerate(room) if space >= lengths[document]]
        if fitting:
            _, row = min(fitting)
            rows[row].append(document)
            room[row] -= lengths[document]
        else:
            rows.append([document])
            room.append(capacity - lengths[document])
    return rows


def packed_hidden(
    llm: AudioLLM,
    row: PackedRow,
    *,
    want_text: bool = True,
    want_audio: bool = True,
    compiled: bool = False,
    watch: Callable[[int, int, Tensor, Tensor], None] | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """States of both branches for every position of `row`, (N, D) each, ready for the heads.

    Equal to `llm.hidden` of each document on its own, and None where that is. `compiled` fuses what lies between the
    matrix products (`torch.compile`, which needs a C++ compiler on a CPU). `watch` is shown what the audio branch
    attends with: layer, document, queries (1, heads, T, head_dim) and keys of that document.
    """
    run_layer = _PackedLayer(row.lengths, compiled, row.audio_ids.device)
    x_1ND = llm.embed(row.audio_ids[None], row.text_ids[None], row.continuous_mask[None], row.features or None)
    config, model = llm.config, llm.model
    tables = rotary_tables(row.positions[None], config, x_1ND.dtype)
    forked = None
    for index, layer in enumerate(model.layers if want_text else model.below_fork):
        x_1ND = run_layer(layer, x_1ND, tables)
        if index == config.kimia_mimo_transformer_from_layer_index:
            forked = x_1ND
    text_ND = model.norm(x_1ND)[0] if want_text else None
    if not (want_audio and config.kimia_mimo_layers):
        return text_ND, None
    assert forked is not None, "the audio branch forks after the last layer"
    for index, layer in enumerate(model.mimo_layers):
        forked = run_layer(layer, forked, tables, partial(watch, index) if watch else None)
    return text_ND, model.mimo_norm(forked)[0]


class _PackedLayer:
    """Runs a layer over rows of documents with these lengths."""

    def __init__(self, lengths: list[int], compiled: bool, device: torch.device) -> None:
        self.lengths = lengths
        self.project, self.finish = _fused() if compiled else (_project, _finish)
        self.attend = OneByOneAttention(lengths) if device.type == "cpu" else PaddedAttention(lengths, device)

    def __call__(
        self,
        layer: Any,
        x_1ND: Tensor,
        tables: tuple[Tensor, Tensor],
        watch: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        q, k, v = self.project(layer, x_1ND, *tables)
        if watch:
            for document, seen in enumerate(zip(q.split(self.lengths, 2), k.split(self.lengths, 2), strict=True)):
                watch(document, *seen)
        return self.finish(layer, x_1ND, self.attend(q, k, v))


class OneByOneAttention:
    """Causal attention within each document, (1, heads, N, head_dim): the fewest operations."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        documents = zip(*(part.split(self.lengths, 2) for part in (q, k, v)), strict=True)
        return torch.cat([attend(*document, causal=True) for document in documents], dim=2)


class PaddedAttention:
    """The same in one batch of documents, padded at their ends: many small kernels would keep a GPU waiting."""

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        longest = max(lengths)
        places = [torch.arange(length) + number * longest for number, length in enumerate(lengths)]
        self.places, self.shape = torch.cat(places).to(device), (len(lengths), longest)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        padded = []
        for part in (q, k, v):
            empty_hSd = part.new_zeros(part.shape[1], math.prod(self.shape), part.shape[3])
            filled_hSd = empty_hSd.index_copy(1, self.places, part[0])
            padded.append(filled_hSd.unflatten(1, self.shape).transpose(0, 1))
        return attend(*padded, causal=True).transpose(0, 1).flatten(1, 2)[None, :, self.places]


def _project(layer: DecoderLayer, x_1ND: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries and keys, and values: (1, heads, N, head_dim)."""
    attention, x_1ND = layer.self_attn, layer.input_layernorm(x_1ND)
    q, k, v = (
        project(x_1ND).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return rotate(q, (cos, sin)).to(v.dtype), rotate(k, (cos, sin)).to(v.dtype), v


def _finish(layer: DecoderLayer, x_1ND: Tensor, out_1HNd: Tensor) -> Tensor:
    """What follows the attention in a layer."""
    x_1ND = x_1ND + layer.self_attn.o_proj(out_1HNd.transpose(1, 2).flatten(2))
    return x_1ND + layer.mlp(layer.post_attention_layernorm(x_1ND))


@cache
def _fused() -> tuple[Callable, Callable]:
    return torch.compile(_project, dynamic=True), torch.compile(_finish, dynamic=True)
