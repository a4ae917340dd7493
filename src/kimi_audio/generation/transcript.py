"""Transcription: prompts to ids, in order; spoken passages with times, and the text that they join to."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kimi_audio.generation.decode import budget, decode
from kimi_audio.generation.joint import PhonemeEars, joint_transcripts
from kimi_audio.generation.loops import collapse_loops
from kimi_audio.generation.sampling import SamplingParams
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import Prompt
from kimi_audio.vocab import Vocabulary

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
