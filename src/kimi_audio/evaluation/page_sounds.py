"""The sounds of the report's page: small copies, in the page itself while they are small together, else beside it.

sounds = PageSounds()
number = sounds.number(path)                    # what rows refer to
sounds.links(out.with_name("page_sounds"), 25 * 2**20)
"""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from kimi_audio.audio.decode import load_audio
from kimi_audio.errors import KimiAudioError

RATE = 16_000


class PageSounds:
    """The sound files of a page, each once."""

    def __init__(self) -> None:
        self.numbers: dict[Path, int] = {}

    def number(self, path: Path) -> int:
        return self.numbers.setdefault(path, len(self.numbers))

    def links(self, folder: Path, embedded: int) -> list[dict[str, str | None]]:
        """For each sound its name and `url`, or `fault`. Smaller copies are made in `folder`, which goes if all fit."""
        folder.mkdir(exist_ok=True)
        for old in folder.glob("[0-9]*.mp3"):
            old.unlink()
        faults = {path: _shrink(path, folder / f"{number:05}.mp3") for path, number in self.numbers.items()}
        copies = {path: folder / f"{number:05}.mp3" for path, number in self.numbers.items() if not faults[path]}
        fit = sum(copy.stat().st_size for copy in copies.values()) <= embedded
        urls = {path: _data_uri(copy) if fit else f"{quote(folder.name)}/{copy.name}" for path, copy in copies.items()}
        if fit:
            for copy in copies.values():
                copy.unlink()
            with suppress(OSError):  # something of the user's is in it
                folder.rmdir()
        return [{"name": path.name, "url": urls.get(path), "fault": faults[path]} for path in self.numbers]


def _shrink(path: Path, copy: Path) -> str | None:
    """Write a sound as MP3, mono, 16 kHz: small, and played by every browser. What is wrong if that can't be done."""
    import soundfile

    if not path.is_file():
        return "the sound file is missing"
    try:
        soundfile.write(copy, load_audio(path, RATE), RATE, format="MP3")
    except (KimiAudioError, OSError, soundfile.SoundFileError):
        return "the sound file can't be read"
    return None


def _data_uri(path: Path) -> str:
    return f"data:audio/mpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
