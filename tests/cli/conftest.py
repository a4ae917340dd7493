"""The package `sounddevice` as it is used here, with a loudspeaker and a microphone that are arrays."""

import sys
from types import ModuleType

import numpy as np
import pytest


class PortAudioError(Exception):
    pass


class Devices(ModuleType):
    """One loudspeaker, whose sound is kept in `played`, and one microphone that hears `said`, then silence.

    Attributes:
        broken: what fails: "input", "output", or, after the first block, "playing".
    """

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.broken: set[str] = set()
        self.said = np.zeros(0, np.float32)
        self.heard = 0
        self.played: list[np.ndarray] = []
        self.states: list[str] = []

    def require(self, what: str) -> None:
        if what in self.broken:
            raise PortAudioError(f"Error querying device: {what}")

    def check_input_settings(self, **_) -> None:
        self.require("input")

    def check_output_settings(self, **_) -> None:
        self.require("output")

    def InputStream(self, rate: int, channels: int, dtype: str) -> "Stream":
        self.require("input")
        return Stream(self)

    def OutputStream(self, rate: int, channels: int, dtype: str) -> "Stream":
        self.require("output")
        return Stream(self)


class Stream:
    def __init__(self, devices: Devices) -> None:
        self.devices = devices

    def start(self) -> None:
        self.devices.states.append("started")

    def stop(self) -> None:
        self.devices.states.append("stopped")

    def close(self) -> None:
        self.devices.states.append("closed")

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def write(self, samples_L1: np.ndarray) -> None:
        if self.devices.played:
            self.devices.require("playing")
        assert samples_L1.ndim == 2 and samples_L1.dtype == np.float32
        self.devices.played.append(samples_L1[:, 0])

    def read(self, frames: int) -> tuple[np.ndarray, bool]:
        block = self.devices.said[self.devices.heard : self.devices.heard + frames]
        self.devices.heard += frames
        return np.pad(block, (0, frames - len(block)))[:, None], False


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Devices:
    fake = Devices()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake
