"""Loudspeaker and microphone, by devices that are none, and wav files."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from kimi_audio.audio.decode import load_audio
from kimi_audio.audio.segments import speech_segments
from kimi_audio.cli import sound
from kimi_audio.errors import ConfigError

SPEECH = load_audio(Path(__file__).parents[2] / "examples" / "kathleen.flac")


def test_what_is_written_is_played_in_order(devices: Any) -> None:
    loudspeaker = sound.Loudspeaker(24_000)
    pieces = [np.random.default_rng(number).normal(size=9_000).astype(np.float32) for number in range(4)]
    for piece in pieces:
        loudspeaker.write(piece)
    loudspeaker.wait()
    assert np.array_equal(np.concatenate(devices.played), np.concatenate(pieces))
    loudspeaker.hush()
    loudspeaker.write(pieces[0])
    loudspeaker.close()
    assert sum(map(len, devices.played)) == 4 * 9_000
    assert devices.states == ["started", "stopped", "closed"]


def test_a_loudspeaker_that_fails_says_so(devices: Any) -> None:
    devices.broken = {"playing"}
    loudspeaker = sound.Loudspeaker(24_000)
    loudspeaker.write(np.zeros(9_000, np.float32))
    loudspeaker.wait()
    with pytest.raises(ConfigError, match=r"no loudspeaker on this machine .*playing"):
        loudspeaker.write(np.zeros(9_000, np.float32))
    loudspeaker.close()
    devices.broken = {"output"}
    for use in (sound.require_loudspeaker, lambda: sound.Loudspeaker(24_000)):
        with pytest.raises(ConfigError, match=r"no loudspeaker on this machine .*output"):
            use()


def test_a_microphone_hears_until_a_pause(devices: Any) -> None:
    """Who begins late is heard to the end, too; what comes after the pause is not waited for."""
    assert sound.has_microphone()
    silence = np.zeros(7 * 16_000, np.float32)
    devices.said = np.concatenate([silence, SPEECH, silence, SPEECH])
    heard = sound.hear()
    assert heard is not None and heard.dtype == np.float32
    assert np.array_equal(heard, next(speech_segments([devices.said], target_seconds=2.0)).samples)
    assert devices.heard < 2 * len(silence) + len(SPEECH)
    assert devices.states == ["closed"]


def test_nobody_has_to_speak(devices: Any) -> None:
    assert sound.hear() is None
    assert sound.PATIENCE * 16_000 <= devices.heard < (sound.PATIENCE + 1) * 16_000


def test_no_microphone_and_no_package(devices: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    devices.broken = {"input"}
    assert not sound.has_microphone()
    with pytest.raises(ConfigError, match="no microphone on this machine"):
        sound.hear()
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert not sound.has_microphone()
    with pytest.raises(ConfigError, match=r"no loudspeaker: .*pip install -e '.\[live\]'"):
        sound.require_loudspeaker()


def test_a_wav_file_can_be_played_at_any_moment(tmp_path: Path) -> None:
    path, samples = tmp_path / "a.wav", np.linspace(-1.5, 1.5, 1000, dtype=np.float32)
    file = sound.WavFile(path, 24_000)
    for count in (1, 2):
        file.write(samples)
        assert soundfile.info(path).frames == 1000 * count
    file.close()
    assert np.allclose(soundfile.read(path)[0][:1000], samples.clip(-1, 1), atol=1e-4)
