"""What a transcription gives: spoken passages with times, and the text that they join to."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass


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


def join_texts(texts: Iterable[str]) -> str:
    """Texts in a row, with a space between them except between scripts that use none."""
    joined = ""
    for text in texts:
        gap = " " if joined and text and not (_is_wide(joined[-1]) and _is_wide(text[0])) else ""
        joined += gap + text
    return joined


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"
