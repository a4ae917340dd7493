"""Cut a stream of any length into pieces of speech that the recogniser can take, and leave the silence out.

    for segment in speech_segments(stream_audio("lecture.mp3")):
        print(segment.start, segment.end, len(segment.samples))

Every 32 ms frame is voiced or not (`voice.py`, with hysteresis). A piece begins with the first voiced frame, and the
longer it is, the shorter a pause ends it: two seconds at first, so that neighbouring phrases stay together and give
each other context, and the next breath once `target_seconds` are reached. Where no pause comes before `max_seconds`,
the cut is made at the quietest point of the second half. Memory is bounded by `max_seconds`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from kimi_audio.audio.blocks import Samples, reblock, resample
from kimi_audio.audio.voice import FRAME, VoiceDetector
from kimi_audio.errors import ConfigError

RATE = 16000
GROUP = 32  # frames that the detector takes at a time: about a second
# Frames of 32 ms. The detector is a frame or two late, and hears no soft first or last consonant: hence the padding.
PADDING = 20
SHORT_PAUSE = 10
LONG_PAUSE = 63
# For recall first (benchmarks/vad.py): of 1 200 clips of speech (read, acted, children's, words of 0.3 s) 99.7 % are
# kept, of 30 background noises 7 %, of 250 sounds of ESC-50, laughter and babies among them, 24 %.
ONSET, OFFSET = 0.4, 0.25


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of speech with a little padding: `samples` are float32 [samples], 16 kHz; times are seconds."""

    start: float
    end: float
    samples: Samples


def speech_segments(
    blocks: Iterable[Samples], sample_rate: int = RATE, max_seconds: float = 30.0, target_seconds: float = 15.0
) -> Iterator[Segment]:
    """Yield the speech of a stream of mono float32 blocks at `sample_rate` Hz, as 16 kHz pieces in order.

    Pieces never overlap and last at most `max_seconds`; each is yielded as soon as the pause after it is heard. What
    holds no voice yields nothing. Raises `ConfigError` for lengths that can't be met.
    """
    if not 2 <= target_seconds <= max_seconds:
        raise ConfigError(
            f"target_seconds is {target_seconds:g} and max_seconds {max_seconds:g}; 2 <= target <= max is accepted"
        )
    detector = VoiceDetector()
    cutter = _Cutter(int(max_seconds * RATE) // FRAME, int(target_seconds * RATE) // FRAME)
    for group in reblock(resample(blocks, sample_rate, RATE), GROUP * FRAME):
        padded = np.pad(group, (0, -len(group) % FRAME))
        probabilities = detector(padded.reshape(-1, FRAME))
        for i, probability in enumerate(probabilities.tolist()):
            segment = cutter.push(group[i * FRAME : (i + 1) * FRAME], probability)
            if segment:
                yield segment
    segment = cutter.flush()
    if segment:
        yield segment


class _Cutter:
    """The frames since the last cut, from `PADDING` before the first voiced one, and the rule for the next cut."""

    def __init__(self, max_frames: int, target_frames: int) -> None:
        self.max_frames, self.target_frames = max_frames, target_frames
        self.first = 0  # where in the stream the kept frames begin
        self.frames: list[Samples] = []
        self.voiced: list[bool] = []
        self.pause = 0  # unvoiced frames at the end
        self.heard = False

    def push(self, frame: Samples, probability: float) -> Segment | None:
        was_voiced = bool(self.voiced) and self.voiced[-1]
        self._append(frame, probability >= (OFFSET if was_voiced else ONSET))
        if self.heard and self.pause >= (SHORT_PAUSE if len(self.frames) >= self.target_frames else LONG_PAUSE):
            return self._cut(len(self.frames))
        if len(self.frames) == self.max_frames:
            return self._cut(self._quietest())
        return None

    def flush(self) -> Segment | None:
        """The piece that the end of the stream leaves unfinished."""
        return self._cut(len(self.frames)) if self.heard else None

    def _append(self, frame: Samples, voiced: bool) -> None:
        self.frames.append(frame)
        self.voiced.append(voiced)
        self.heard = self.heard or voiced
        self.pause = 0 if voiced else self.pause + 1
        if not self.heard and len(self.frames) > PADDING:
            del self.frames[0], self.voiced[0]
            self.first += 1

    def _cut(self, count: int) -> Segment:
        """Close the piece inside the first `count` frames, and begin the next with what is left."""
        last = max(i for i in range(count) if self.voiced[i])
        end = min(last + 1 + PADDING, count)
        first, samples = self.first, np.concatenate(self.frames[:end])
        left = list(zip(self.frames[end:], self.voiced[end:], strict=True))
        self.first, self.frames, self.voiced, self.pause, self.heard = first + end, [], [], 0, False
        for frame, voiced in left:
            self._append(frame, voiced)
        return Segment(first * FRAME / RATE, (first * FRAME + len(samples)) / RATE, samples)

    def _quietest(self) -> int:
        """How many frames to keep so that the cut falls into the quietest third of a second of the second half."""
        half = len(self.frames) // 2
        energy = np.pad([np.square(frame).mean() for frame in self.frames], SHORT_PAUSE // 2, mode="edge")
        smooth = np.convolve(energy, np.ones(SHORT_PAUSE), mode="valid")[half : len(self.frames)]
        voiced = np.array(self.voiced[half:])
        if not voiced.all():
            smooth[voiced] = np.inf
        return half + int(np.argmin(smooth)) + 1
