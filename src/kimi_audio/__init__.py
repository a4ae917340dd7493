"""Kimi-Audio, complete and open: sound and text in, text out.

    from kimi_audio import KimiAudio
    KimiAudio.from_pretrained().transcribe("talk.wav").text
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kimi_audio.errors import KimiAudioError
    from kimi_audio.messages import Message
    from kimi_audio.model import KimiAudio

__all__ = ["KimiAudio", "KimiAudioError", "Message"]

_HOME = {"KimiAudio": "model", "KimiAudioError": "errors", "Message": "messages"}


def __getattr__(name: str) -> Any:
    # On first use, so that importing one room (or asking for help) does not load PyTorch and all others.
    if name not in _HOME:
        raise AttributeError(f"module 'kimi_audio' has no attribute {name!r}")
    return getattr(import_module(f"kimi_audio.{_HOME[name]}"), name)
