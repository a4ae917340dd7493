"""Models as things that answer about a sound, so that one loop can put the same files to all of them.

A *system* has a `name`, a `fingerprint` of its weights, `instructable` (whether it takes an instruction, or can only
transcribe) and `answer(audio, instruction)`; `instruction` None asks for the words that were said.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from kimi_audio.audio.decode import load_audio
from kimi_audio.errors import CheckpointError
from kimi_audio.messages import Message

Sound = Path | np.ndarray
"""A sound file, or float32 samples at 16 kHz."""


class System(Protocol):
    name: str
    fingerprint: str
    instructable: bool

    def answer(self, audio: Sound | None, instruction: str | None) -> str: ...


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that change with any weight in `folder` (all its safetensors files, by content)."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


class KimiAudioSystem:
    """A Kimi-Audio folder, asked as the command line asks it; answers to instructions are at most `max_new_tokens`."""

    instructable = True

    def __init__(self, folder: Path, dtype: str = "float32", max_new_tokens: int = 100):
        from kimi_audio import KimiAudio

        self.name = f"kimi-audio {folder.name}"
        self.fingerprint = fingerprint(folder)
        self._max_new_tokens = max_new_tokens
        self._model = KimiAudio.from_pretrained(folder, dtype=dtype)

    def answer(self, audio: Sound | None, instruction: str | None) -> str:
        if instruction is None:
            assert audio is not None, "there is nothing to transcribe without a sound"
            return self._model.transcribe(audio).text
        heard = [Message("user", "audio", audio)] if audio is not None else []
        asked = [Message("user", "text", instruction)] if instruction else []
        return self._model.generate(asked + heard, break_loops=True, max_new_tokens=self._max_new_tokens).text


class WhisperSystem:
    """An ordinary Hugging Face Whisper folder, decoded greedily by faster-whisper in float32 (or any of its types)."""

    instructable = False

    def __init__(self, folder: Path, compute_type: str = "float32"):
        from faster_whisper import WhisperModel

        self.name = folder.name
        self.fingerprint = fingerprint(folder)
        with converted_whisper(folder) as converted:
            self._model = WhisperModel(str(converted), device="cpu", compute_type=compute_type)

    def answer(self, audio: Sound | None, instruction: str | None) -> str:
        assert audio is not None and instruction is None, "Whisper transcribes; it takes no instructions"
        samples = audio if isinstance(audio, np.ndarray) else load_audio(audio)
        segments, _ = self._model.transcribe(
            samples, language="en", beam_size=1, temperature=0.0, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)


@contextmanager
def converted_whisper(folder: Path, quantization: str = "float32") -> Iterator[Path]:
    """`folder`, in Hugging Face layout, as a CTranslate2 folder that lasts as long as the context."""
    from ctranslate2.converters import TransformersConverter

    missing = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / name).exists()]
    if missing:
        raise CheckpointError(f"{folder}: a Whisper folder needs {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as target:
        converter = TransformersConverter(str(folder), copy_files=["tokenizer.json"])
        yield Path(converter.convert(target, quantization=quantization, force=True))
