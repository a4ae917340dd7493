"""The seven pre-training tasks and their mixture (report §3, SPEC §8).

    mixture = pretraining_mixture(texts, recordings, vocab, capacity=1024)
    LanguageObjective(llm, mixture, vocab)

A document is cut into segments; of segment i there are its sound aᵢ (codes with continuous features, as a user's
voice is heard), its codes dᵢ alone (as the model speaks: of the clean recording) and its text tᵢ. Each task is a pure
function of the segments:

    task                    weight  document                loss on
    text_only               7       t₁                      t
    audio_only              1       d₁ d₂ d₃ ...            d
    audio_to_text           1       a₁ t₁ a₂ t₂ ...         t
    text_to_audio           1       t₁ d₁ t₂ d₂ ...         d
    audio_to_semantic       1       a₁ d₂ a₃ d₄ ...         d
    audio_then_text         1       a₁ t₂ a₃ t₄ ...         t
    audio_to_both           2       a₁ d₂/t₂ a₃ d₄/t₄ ...   d and t, side by side, d delayed by 6 blanks

The report does not say how pieces are delimited. Here they are as in instruction tuning, so that nothing has to be
unlearnt: sound stands between `media_begin` and `media_end`, text ends with `text_eos`, and both ends are predicted
where their piece is. Spoken d beside t has no `media_begin`, because generation starts it without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from kimi_audio.prompt import Heard, Prompt
from kimi_audio.training.mixture import Mixture
from kimi_audio.vocab import AUDIO_DELAY, Vocabulary


@dataclass(frozen=True)
class Segment:
    """A stretch of one recording: its text ids, what is heard, and the codes that would be said.

    Text-only documents have no sound.
    """

    text_ids: Sequence[int]
    heard: Heard | None = None
    said: Sequence[int] = ()


Read = Callable[[np.random.Generator], Sequence[Segment]]
"""Reads the segments of one document; chance (which augmented variant) comes from the generator."""


def text_only(segments: Sequence[Segment], vocab: Vocabulary) -> Prompt:
    """t₁: written text."""
    prompt = Prompt()
    _add_text(prompt, [i for segment in segments for i in segment.text_ids], vocab, loss=True)
    return prompt


def audio_only(segments: Sequence[Segment], vocab: Vocabulary) -> Prompt:
    """d₁ d₂ ...: codes of the whole recording as one piece."""
    prompt = Prompt()
    _add_codes(prompt, list(chain.from_iterable(segment.said for segment in segments)), vocab)
    return prompt


def audio_to_text(segments: Sequence[Segment], vocab: Vocabulary) -> Prompt:
    """a₁ t₁ a₂ t₂ ...: recognition."""
    prompt = Prompt()
    for segment in segments:
        _add_sound(prompt, _heard(segment), vocab)
        _add_text(prompt, segment.text_ids, vocab, loss=True)
    return prompt


def text_to_audio(segments: Sequence[Segment], vocab: Vocabulary) -> Prompt:
    """t₁ d₁ t₂ d₂ ...: speech synthesis."""
    prompt = Prompt()
    for segment in segments:
        _add_text(prompt, segment.text_ids, vocab, loss=False)
        _add_codes(prompt, segment.said, vocab)
    return prompt


def audio_to_semantic(segments: Sequence[Segment], vocab: Vocabulary) -> Prompt:
    """a₁ d₂ a₃ d₄ ...: go on speaking."""
    prompt = Prompt()
    for heard, continued in _pairs(segments):
        _add_sound(prompt, _heard(heard), vocab)
        _add_codes(prompt, continued.said, vocab)
    return prompt


def audio_then_text(segments: Sequence[Segment], vocab: Vocabulary) -> Prompt:
    """a₁ t₂ a₃ t₄ ...: go on in writing."""
    prompt = Prompt()
    for heard, continued in _pairs(segments):
        _add_sound(prompt, _heard(heard), vocab)
        _add_text(prompt, continued.text_ids, vocab, loss=True)
    return prompt


def audio_to_both(segments: Sequence[Segment], vocab: Vocabulary) -> Prompt:
    """a₁ d₂/t₂ a₃ d₄/t₄ ...: go on in speech and writing at once."""
    prompt = Prompt()
    for heard, continued in _pairs(segments):
        _add_sound(prompt, _heard(heard), vocab)
        _add_both(prompt, continued, vocab)
    return prompt


@dataclass(frozen=True)
class PretrainingTask:
    """Weight in the mixture, layout of a document, and the fewest segments that it needs."""

    weight: float
    layout: Callable[[Sequence[Segment], Vocabulary], Prompt]
    min_segments: int = 1


TASKS = {
    "text_only": PretrainingTask(7, text_only),
    "audio_only": PretrainingTask(1, audio_only),
    "audio_to_text": PretrainingTask(1, audio_to_text),
    "text_to_audio": PretrainingTask(1, text_to_audio),
    "audio_to_semantic": PretrainingTask(1, audio_to_semantic, min_segments=2),
    "audio_then_text": PretrainingTask(1, audio_then_text, min_segments=2),
    "audio_to_both": PretrainingTask(2, audio_to_both, min_segments=2),
}


class Documents:
    """Documents laid out for one task: a mixture source.

    Args:
        documents: for each, a function that reads its segments (from a cache, so that memory holds none of them).
    """

    def __init__(self, documents: Sequence[Read], task: PretrainingTask, vocab: Vocabulary):
        self.documents, self.task, self.vocab = documents, task, vocab

    def __len__(self) -> int:
        return len(self.documents)

    def prompt(self, index: int, rng: np.random.Generator) -> Prompt:
        return self.task.layout(self.documents[index](rng), self.vocab)


def pretraining_mixture(
    texts: Sequence[Read],
    recordings: Sequence[Read],
    vocab: Vocabulary,
    capacity: int,
    *,
    segments: Sequence[int],
    tasks: Sequence[str] = tuple(TASKS),
    seed: int = 0,
) -> Mixture:
    """The tasks with the report's weights.

    Args:
        texts: documents for `text_only`.
        recordings: documents for all other tasks.
        segments: number of segments of each of `recordings`; those too short for a task are not used for it.
        tasks: names of the tasks to mix; a model without an audio branch takes those with loss on text only.
    """
    sources = []
    for name in tasks:
        task = TASKS[name]
        long_enough = [read for read, n in zip(recordings, segments, strict=True) if n >= task.min_segments]
        sources.append(Documents(texts if name == "text_only" else long_enough, task, vocab))
    return Mixture(sources, [TASKS[name].weight for name in tasks], capacity, seed)


def _pairs(segments: Sequence[Segment]) -> list[tuple[Segment, Segment]]:
    """(1, 2), (3, 4), ...; an odd last segment is dropped."""
    return list(zip(segments[::2], segments[1::2], strict=False))


def _heard(segment: Segment) -> Heard:
    assert segment.heard is not None, "a segment of a spoken document has sound"
    return segment.heard


def _add_text(prompt: Prompt, text_ids: Sequence[int], vocab: Vocabulary, loss: bool) -> None:
    ids = [*text_ids, vocab.text_eos]
    prompt.add([vocab.text_blank] * len(ids), ids, text_loss=loss)


def _add_sound(prompt: Prompt, heard: Heard, vocab: Vocabulary) -> None:
    """aᵢ: codes with continuous features."""
    blank, codes = vocab.text_blank, _offset(heard.codes, vocab)
    prompt.add([vocab.media_begin], [blank])
    prompt.add(codes, [blank] * len(codes), continuous=True)
    prompt.add([vocab.media_end], [blank])
    if heard.features is not None:
        prompt.features.append(heard.features)


def _add_codes(prompt: Prompt, codes: Sequence[int], vocab: Vocabulary) -> None:
    """dᵢ: codes alone, to be predicted with their end."""
    spoken = [*_offset(codes, vocab), vocab.media_end]
    prompt.add([vocab.media_begin], [vocab.text_blank])
    prompt.add(spoken, [vocab.text_blank] * len(spoken), audio_loss=True)


def _add_both(prompt: Prompt, segment: Segment, vocab: Vocabulary) -> None:
    """dᵢ/tᵢ: the shorter stream is filled up with blanks; blanks are not predicted, for generation forces them."""
    spoken = [*_offset(segment.said, vocab), vocab.media_end]
    written = [*segment.text_ids, vocab.text_eos]
    length = max(AUDIO_DELAY + len(spoken), len(written))
    after = length - AUDIO_DELAY - len(spoken)
    blank = vocab.text_blank
    prompt.add([blank] * AUDIO_DELAY + spoken + [blank] * after, written + [blank] * (length - len(written)))
    prompt.audio_loss_mask[-length:] = [False] * AUDIO_DELAY + [True] * len(spoken) + [False] * after
    prompt.text_loss_mask[-length:] = [True] * len(written) + [False] * (length - len(written))


def _offset(codes: Sequence[int], vocab: Vocabulary) -> list[int]:
    return [vocab.token_offset + int(code) for code in codes]
