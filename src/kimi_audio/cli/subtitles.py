"""SubRip and WebVTT: spoken passages with times, as text that players read."""

import html
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kimi_audio.generation.transcript import TranscriptSegment


class Format(str, Enum):
    """Subtitle formats; the value is the file name's extension."""

    srt = "srt"
    vtt = "vtt"


def pieces(segments: "Iterable[TranscriptSegment]", kind: Format) -> Iterator[str]:
    """The subtitle file, passage by passage."""
    if kind is Format.vtt:
        yield "WEBVTT\n\n"
    for number, segment in enumerate(segments, 1):
        text = " ".join(segment.text.split())  # an empty line would end the passage
        head, text = (f"{number}\n", text) if kind is Format.srt else ("", html.escape(text, quote=False))
        yield f"{head}{timestamp(segment.start, kind)} --> {timestamp(segment.end, kind)}\n{text}\n\n"


def timestamp(seconds: float, kind: Format) -> str:
    """01:02:03,450 (SubRip) or 01:02:03.450 (WebVTT)."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    mark = "," if kind is Format.srt else "."
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{mark}{rest % 1000:03}"
