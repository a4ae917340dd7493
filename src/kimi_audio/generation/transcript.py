"""Transcription: recordings of any length to passages with times, prompts to ids, and the text that they join to.

    transcriber = Transcriber(llm, vocab, decode_text, prompt, params, ears, longest=30.0)
    for segment in transcriber.segments(blocks): ...                    # as they are done
    transcriber.whole(blocks).text
"""

import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from kimi_audio.audio.segments import RATE, speech_segments
from kimi_audio.generation.decode import budget, decode
from kimi_audio.generation.joint import PhonemeEars, joint_transcripts
from kimi_audio.generation.loops import collapse_loops
from kimi_audio.generation.sampling import SamplingParams
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import Prompt
from kimi_audio.vocab import Vocabulary

TARGET_SECONDS = 15.0
"""Of a passage, from which on the next breath ends it."""
TEXT_IDS_PER_CODE, SPARE_TEXT_IDS = 0.6, 8
"""A transcript is cut at 0.6 text ids per 80 ms of sound and 8 more: nobody speaks faster."""


@dataclass(frozen=True)
class TranscriptSegment:
    """A spoken passage: `start` and `end` in seconds of the recording, and what was said."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """A transcribed recording.

    Attributes:
        text: all segments joined; empty when nothing was said.
        segments: in order of time.
        seconds: length of the recording.
        elapsed: seconds that the transcription took.
    """

    text: str
    segments: list[TranscriptSegment]
    seconds: float
    elapsed: float

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of work per second of sound."""
        return self.elapsed / self.seconds


@dataclass(frozen=True)
class Transcriber:
    """Writes recordings down with a language model.

    Attributes:
        decode_text: ids → text.
        prompt: samples (L,) of a passage → what asks for its words.
        ears: as of `transcripts`.
        longest: seconds of a passage at most.
        batch_size: passages that are decoded together.
    """

    llm: AudioLLM
    vocab: Vocabulary
    decode_text: Callable[[list[int]], str]
    prompt: Callable[[np.ndarray], Prompt]
    params: SamplingParams
    ears: PhonemeEars | None
    longest: float
    batch_size: int = 8

    def segments(self, blocks: Iterable[np.ndarray]) -> Iterator[TranscriptSegment]:
        """What is said in 16 kHz blocks (L,), passage by passage as they are done, in order, in bounded memory."""
        passages = speech_segments(
            blocks, RATE, max_seconds=self.longest, target_seconds=min(TARGET_SECONDS, self.longest)
        )
        while batch := list(islice(passages, self.batch_size)):
            prompts = [self.prompt(passage.samples) for passage in batch]
            written = transcripts(self.llm, self.vocab, prompts, self.params, self.ears)
            for passage, ids in zip(batch, written, strict=True):
                if text := self.decode_text(ids).strip():
                    yield TranscriptSegment(passage.start, passage.end, text)

    def whole(self, blocks: Iterable[np.ndarray], report: Callable[[float], None] | None = None) -> Transcript:
        """All of it; `report` is called with the seconds of sound read so far, after every block."""
        started, seconds = time.perf_counter(), 0.0

        def counted() -> Iterator[np.ndarray]:
            nonlocal seconds
            for block in blocks:
                seconds += len(block) / RATE
                yield block
                if report is not None:
                    report(seconds)

        segments = list(self.segments(counted()))
        text = join_texts(segment.text for segment in segments)
        return Transcript(text, segments, seconds, time.perf_counter() - started)


def transcripts(
    llm: AudioLLM, vocab: Vocabulary, prompts: Sequence[Prompt], params: SamplingParams, ears: PhonemeEars | None = None
) -> Iterator[list[int]]:
    """Text ids of each prompt's answer, loops broken, in order, each as soon as it and those before it are done.

    With `ears` they are searched for (`joint`), and sampling plays no part.
    """
    caps = [int(TEXT_IDS_PER_CODE * sum(prompt.continuous_mask)) + SPARE_TEXT_IDS for prompt in prompts]
    budgets = [budget(len(prompt), "text", params.max_new_tokens) for prompt in prompts]
    limits = list(map(min, caps, budgets))
    if ears is not None:
        yield from map(collapse_loops, joint_transcripts(llm, vocab, prompts, limits, ears))
        return
    written: list[list[int]] = [[] for _ in prompts]
    done = [False] * len(prompts)
    following = 0
    for step in decode(llm, vocab, prompts, limits, params, break_loops=True):
        for row, text_id in zip(step.rows, step.text_ids, strict=True):
            if text_id != vocab.text_eos:
                written[row].append(text_id)
        for row in step.ended:
            done[row] = True
        while following < len(prompts) and done[following]:
            yield collapse_loops(written[following])
            following += 1


def join_texts(texts: Iterable[str]) -> str:
    """Texts in a row, with a space between them except between scripts that use none."""
    joined = ""
    for text in texts:
        gap = " " if joined and text and not (_is_wide(joined[-1]) and _is_wide(text[0])) else ""
        joined += gap + text
    return joined


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"
