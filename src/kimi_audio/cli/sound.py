"""Where sound goes and comes from on this machine: wav files written as they are made, loudspeaker, microphone.

The last two need the extra `live` (the package `sounddevice`) and a device.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from kimi_audio.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

LISTENING_RATE = 16_000
PATIENCE = 8.0
"""Seconds that a listener waits for someone to begin to speak."""

FRAMES_A_READ = 3
"""Frames of the voice detector, 32 ms each."""

PIECES_AHEAD = 64
"""Sound that waits to be played, in pieces: whoever makes more of it has to wait."""


class WavFile:
    """A mono 16-bit wav file, playable up to the last samples written whatever happens next."""

    def __init__(self, path: Path, rate: int) -> None:
        if path.suffix.lower() != ".wav":
            raise ConfigError(f"{path}: sound is written as .wav; give the file that ending")
        self._file = path.open("wb")
        self._wav = wave.Wave_write(self._file)
        self._wav.setparams((1, 2, rate, 0, "NONE", ""))

    def write(self, samples: np.ndarray) -> None:
        self._wav.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        self._file.flush()

    def close(self) -> None:
        try:
            self._wav.close()
        finally:
            self._file.close()


class Loudspeaker:
    """Plays sound in a thread of its own, while more of it is made.

    Raises:
        ConfigError: when there is no device, or none that works at this rate; from `write`, when it has failed since.
    """

    def __init__(self, rate: int) -> None:
        with _devices("loudspeaker") as devices:
            self._stream = devices.OutputStream(rate, channels=1, dtype="float32")
            self._stream.start()
        self._block = rate // 10
        self._silent = False
        self._failure: ConfigError | None = None
        self._waiting: Queue[np.ndarray | None] = Queue(PIECES_AHEAD)
        self._player = Thread(target=self._play, daemon=True)
        self._player.start()

    def write(self, samples: np.ndarray) -> None:
        """Have samples (L,) played after those before."""
        if self._failure is not None:
            raise self._failure
        self._waiting.put(samples)

    def wait(self) -> None:
        """Return when everything has been played."""
        self._waiting.join()

    def hush(self) -> None:
        """Be silent from now on."""
        self._silent = True

    def close(self) -> None:
        """Play what is left, and let the device go."""
        self._waiting.put(None)
        self._player.join()
        self._stream.stop()
        self._stream.close()

    def _play(self) -> None:
        while (samples := self._waiting.get()) is not None:
            try:
                with _devices("loudspeaker"):
                    for start in range(0, len(samples), self._block):
                        if not self._silent:
                            self._stream.write(samples[start : start + self._block, None])
            except ConfigError as error:
                self._failure, self._silent = error, True
            self._waiting.task_done()


def require_loudspeaker() -> None:
    """Raises ConfigError where there is none."""
    with _devices("loudspeaker") as devices:
        devices.check_output_settings(channels=1, dtype="float32")


def has_microphone() -> bool:
    """Whether there is one that can be used."""
    try:
        with _devices("microphone") as devices:
            devices.check_input_settings(channels=1, dtype="float32", samplerate=LISTENING_RATE)
    except ConfigError:
        return False
    return True


def hear() -> np.ndarray | None:
    """What someone says into the microphone until they pause: 16 kHz mono; None if nobody begins to speak."""
    from kimi_audio.audio.segments import ONSET, speech_segments
    from kimi_audio.audio.voice import FRAME, VoiceDetector

    with _devices("microphone") as devices:
        stream = devices.InputStream(LISTENING_RATE, channels=1, dtype="float32")

        def blocks() -> Iterator[np.ndarray]:
            detector, has_begun = VoiceDetector(), False
            for read in count(1):
                block = stream.read(FRAMES_A_READ * FRAME)[0][:, 0]
                has_begun = has_begun or bool((detector(block.reshape(-1, FRAME)) >= ONSET).any())
                if not has_begun and read * len(block) > PATIENCE * LISTENING_RATE:
                    return
                yield block

        with stream:
            segment = next(speech_segments(blocks(), LISTENING_RATE, target_seconds=2.0), None)
    return None if segment is None else segment.samples


@contextmanager
def _devices(what: str) -> Iterator[Any]:
    """The package sounddevice; raises ConfigError where it is missing, or fails in the block."""
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError):
        raise ConfigError(
            f"no {what}: this needs the package sounddevice (pip install -e '.[live]') and PortAudio"
        ) from None
    try:
        yield sounddevice
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ConfigError(f"no {what} on this machine ({error})") from None
