"""Where sound goes and comes from on this machine: wav files written as they are made, loudspeaker, microphone.

The last two need the extra `live` (the package `sounddevice`) and a device.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kimi_audio.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

LISTENING_RATE = 16_000
PATIENCE = 8.0
"""Seconds that a listener waits for someone to begin to speak."""
BLOCK = 1600


class Sink(Protocol):
    """Takes sound as it is made."""

    def write(self, samples: np.ndarray) -> None: ...

    def close(self) -> None: ...


class WavFile:
    """A mono 16-bit wav file, playable up to the last samples written whatever happens next."""

    def __init__(self, path: Path, rate: int) -> None:
        if path.suffix.lower() != ".wav":
            raise ConfigError(f"{path}: sound is written as .wav; give the file that ending")
        self.path, self.rate, self.samples = path, rate, 0
        self._file = path.open("wb")
        self._wav = wave.Wave_write(self._file)
        self._wav.setparams((1, 2, rate, 0, "NONE", ""))
        self._wav.writeframes(b"")

    def write(self, samples: np.ndarray) -> None:
        self._wav.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        self._file.flush()
        self.samples += len(samples)

    def close(self) -> None:
        try:
            self._wav.close()
        finally:
            self._file.close()

    @property
    def seconds(self) -> float:
        """Sound written so far."""
        return self.samples / self.rate


class Loudspeaker:
    """Plays sound while more of it is made."""

    def __init__(self, rate: int) -> None:
        self._stream = _open(lambda devices: devices.OutputStream(rate, channels=1, dtype="float32"), "loudspeaker")
        self._stream.start()

    def write(self, samples: np.ndarray) -> None:
        self._stream.write(samples[:, None])

    def close(self) -> None:
        self._stream.stop()
        self._stream.close()


class Sinks:
    """Several sinks as one."""

    def __init__(self, *makers: Callable[[], Sink] | None) -> None:
        with ExitStack() as opened:
            self._sinks = []
            for make in makers:
                if make is not None:
                    self._sinks.append(make())
                    opened.callback(self._sinks[-1].close)
            self._closing = opened.pop_all()

    def write(self, samples: np.ndarray) -> None:
        for sink in self._sinks:
            sink.write(samples)

    def close(self) -> None:
        self._closing.close()


def has_microphone() -> bool:
    """Whether there is one that can be used."""
    try:
        _open(lambda devices: devices.check_input_settings(channels=1, samplerate=LISTENING_RATE), "microphone")
    except ConfigError:
        return False
    return True


def hear() -> np.ndarray | None:
    """What someone says into the microphone until they pause: 16 kHz mono; None if nobody begins to speak."""
    from kimi_audio.audio.segments import speech_segments

    stream = _open(lambda devices: devices.InputStream(LISTENING_RATE, channels=1, dtype="float32"), "microphone")

    def blocks() -> Iterator[np.ndarray]:
        for _ in range(int(PATIENCE * LISTENING_RATE / BLOCK)):
            yield stream.read(BLOCK)[0][:, 0]

    with stream:
        segment = next(speech_segments(blocks(), LISTENING_RATE, target_seconds=2.0), None)
    return None if segment is None else segment.samples


def _open(use: Callable[[Any], Any], what: str) -> Any:
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError):
        raise ConfigError(
            f"no {what}: this needs the package sounddevice (pip install 'kimi-audio[live]') and PortAudio"
        ) from None
    try:
        return use(sounddevice)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ConfigError(f"no {what} on this machine ({error})") from None
