"""One answer as it is made: steps of the decode loop in, pieces of text and sound out.

answer = AnswerStream(decode(...), vocab, tokenizer, voice=detokenizer.stream())
for piece in answer:
    print(piece) if isinstance(piece, str) else play(piece)
answer.reply                                            # the whole; also after the loop was left early
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

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
        self._vocab, self._tokenizer, self._voice, self._break_loops = vocab, tokenizer, voice, break_loops
        self._text_ids: list[int] = []
        self._codes: list[int] = []
        self._sounds: list[np.ndarray] = []
        self._made = self._pieces(steps)

    def __next__(self) -> Piece:
        return next(self._made)

    def close(self) -> None:
        """Stop here: nothing more is computed, and what the answer held in memory is free at once."""
        self._made.close()

    def _pieces(self, steps: Generator[Step, None, None]) -> Generator[Piece, None, None]:
        written = self._tokenizer.stream()
        text_done = False
        try:
            for index, step in enumerate(steps):
                text_id, audio_id = step.text_ids[0], step.audio_ids[0]
                text_done |= text_id == self._vocab.text_eos
                if not text_done:
                    self._text_ids.append(text_id)
                    if text := written.push(text_id):
                        yield text
                if self._voice is not None and index >= AUDIO_DELAY and audio_id >= self._vocab.token_offset:
                    self._codes.append(audio_id - self._vocab.token_offset)
                    yield from self._heard(self._voice.push(self._codes[-1:]).numpy())
            if text := written.flush():
                yield text
            if self._voice is not None:
                yield from self._heard(self._voice.flush().numpy())
        finally:
            steps.close()
            if self._voice is not None:
                self._voice.reset()

    def _heard(self, sound: np.ndarray) -> Iterator[np.ndarray]:
        if len(sound):
            self._sounds.append(sound)
            yield sound

    @property
    def reply(self) -> Reply:
        """What was made so far."""
        text = self._tokenizer.decode(collapse_loops(self._text_ids) if self._break_loops else self._text_ids)
        if self._voice is None:
            return Reply(text, Message("assistant", "text", text))
        audio = np.concatenate([np.zeros(0, np.float32), *self._sounds])
        return Reply(text, self._message(text), audio, tuple(self._codes))

    def _message(self, text: str) -> Message:
        """Both streams, unless the sound ended so early that the text has no room beside it."""
        if len(self._tokenizer.encode(text)) + 1 > len(self._codes) + AUDIO_DELAY:
            return Message("assistant", "text", text)
        return Message("assistant", "audio-text", (Heard(self._codes), text))
