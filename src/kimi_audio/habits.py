"""How a model was trained to be used, as its ``generation_config.json`` says.

    defaults = known_fields(SamplingParams, generation_config)
    habits = known_fields(Habits, generation_config)
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from kimi_audio.errors import ConfigError
from kimi_audio.settings import check_types

T = TypeVar("T")


@dataclass(frozen=True)
class Habits:
    """How a model was trained to be used; fields of ``generation_config.json``.

    Attributes:
        transcribe_instruction: asks for the words of the sound that follows it.
        max_segment_seconds: longest piece of a recording that is transcribed at once.
        say_instruction: asks to read the text that follows it aloud.
        max_say_characters: longest piece of a text that is read aloud at once.
        join_sentences: read short sentences aloud together; not for a model that learned single ones.
        beams, language_weight: of the search for transcripts by a model that reads phonemes (`generation.joint`).
        write_requests_down: transcribe a spoken request, and answer what was understood. For a small model, which
            knows more in writing than by ear.
        history_text_eos: an assistant's earlier answers end with ``text_eos``, as in the fine-tuning code; the
            released inference code leaves it out.
    """

    transcribe_instruction: str = "Please transcribe the following audio:"
    max_segment_seconds: float = 30.0
    history_text_eos: bool = False
    say_instruction: str = "Please read the following text aloud:"
    max_say_characters: int = 200
    join_sentences: bool = True
    beams: int = 4
    language_weight: float = 1.0
    write_requests_down: bool = False


def known_fields(cls: type[T], config: Mapping[str, Any]) -> T:
    """An instance of the dataclass `cls` from those of its fields that ``generation_config.json`` has."""
    try:
        check_types(cls, config)
    except ConfigError as error:
        raise ConfigError(f"generation_config.json: {error}") from error
    return cls(**{f.name: config[f.name] for f in fields(cls) if f.name in config})  # type: ignore[arg-type]
