"""One answer as it is made: steps of the decode loop in, pieces of text and sound out.

answer = AnswerStream(decode(...), vocab, tokenizer, voice=detokenizer.stream())
for piece in answer:
    print(piece) if isinstance(piece, str) else play(piece)
answer.reply                                            # the whole; also after the loop was left early
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from kimi_audio.detokenizer.streaming import SpeechStream
from kimi_audio.generation.decode import Step
from kimi_audio.generation.loops import collapse_loops
from kimi_audio.messages import Message
from kimi_audio.prompt import Heard
from kimi_audio.text import TextTokenizer
from kimi_audio.vocab import AUDIO_DELAY, Vocabulary

Piece = str | np.ndarray
"""Text, or samples (L,) float32, never empty."""


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        text: what was written.
        message: the answer as a message, both streams of it, for the next turn of the conversation.
        audio: what was said, float32 (L,) at the detokenizer's rate (24 kHz); None when no speech was wanted.
        codes: the 12.5 Hz codes of what was said.
    """

    text: str
    message: Message
    audio: np.ndarray | None = None
    codes: tuple[int, ...] = ()


class AnswerStream(Iterator[Piece]):
    """Iterates over the pieces of one answer; joined, they are `reply`.

    Args:
        steps: of a decode loop with one row.
        voice: turns codes into sound; None for a written answer.
        break_loops: say a phrase that is repeated over and over once in `reply`.
    """

    def __init__(
        self,
        steps: Generator[Step, None, None],
        vocab: Vocabulary,
        tokenizer: TextTokenizer,
        voice: SpeechStream | None = None,
        break_loops: bool = False,
    ) -> None:
        self._tokenizer, self._speaks, self._break_loops = tokenizer, voice is not None, break_loops
        self._made = _Made()
        # A generator that knew this object would form a circle with it, which outlives them until garbage is collected.
        self._pieces = _pieces(steps, self._made, vocab, tokenizer, voice)

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Stop here: nothing more is computed, and what the answer held in memory is free at once."""
        self._pieces.close()

    @property
    def reply(self) -> Reply:
        """What was made so far."""
        ids = self._made.text_ids
        text = self._tokenizer.decode(collapse_loops(ids) if self._break_loops else ids)
        if not self._speaks:
            return Reply(text, Message("assistant", "text", text))
        audio = np.concatenate([np.zeros(0, np.float32), *self._made.sounds])
        return Reply(text, self._message(text), audio, tuple(self._made.codes))

    def _message(self, text: str) -> Message:
        """Both streams, unless the sound ended so early that the text has no room beside it."""
        codes = self._made.codes
        if len(self._tokenizer.encode(text)) + 1 > len(codes) + AUDIO_DELAY:
            return Message("assistant", "text", text)
        return Message("assistant", "audio-text", (Heard(codes), text))


@dataclass
class _Made:
    """What there is of an answer."""

    text_ids: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    sounds: list[np.ndarray] = field(default_factory=list)

    def heard(self, sound: Tensor) -> Iterator[np.ndarray]:
        """Keep a sound and hand it out, unless it is empty."""
        if len(sound):
            self.sounds.append(sound.numpy())
            yield self.sounds[-1]


def _pieces(
    steps: Generator[Step, None, None],
    made: _Made,
    vocab: Vocabulary,
    tokenizer: TextTokenizer,
    voice: SpeechStream | None,
) -> Generator[Piece, None, None]:
    """The pieces of an answer, each when `made` has it."""
    written, text_done = tokenizer.stream(), False
    try:
        for index, step in enumerate(steps):
            text_id, audio_id = step.text_ids[0], step.audio_ids[0]
            if not text_done:
                if text_done := text_id == vocab.text_eos:
                    text = written.flush()
                else:
                    made.text_ids.append(text_id)
                    text = written.push(text_id)
                if text:
                    yield text
            if voice is not None and index >= AUDIO_DELAY and audio_id >= vocab.token_offset:
                made.codes.append(audio_id - vocab.token_offset)
                yield from made.heard(voice.push(made.codes[-1:]))
        if text := written.flush():
            yield text
        if voice is not None:
            yield from made.heard(voice.flush())
    finally:
        steps.close()
        if voice is not None:
            voice.reset()
