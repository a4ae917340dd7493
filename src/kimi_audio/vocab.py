"""The joint id space: text BPE ids, then special ids, then audio codes (SPEC.md section 2).

    vocab = Vocabulary.from_config(json.load(open("config.json")))
    vocab.text_blank, vocab.media_begin, vocab.token_offset + code

Three sizes describe it. Every special id sits at a fixed distance from the first one, so a small model with
a BPE of its own keeps the official layout; special ids without a role are reserved.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from kimi_audio.errors import ConfigError

AUDIO_DELAY = 6
"""Steps by which the audio stream follows the text stream: 6 as in the report, whatever config.json says."""


def _special(name: str, distance: int) -> int:
    """A field that holds the id of the special token `name`, `distance` ids after the last text id."""
    return field(init=False, repr=False, compare=False, metadata={"name": name, "distance": distance})


@dataclass(frozen=True)
class Vocabulary:
    """Sizes of the three ranges ``[text | specials | audio codes]`` and the ids that have a role.

    Attributes:
        num_base_tokens: text BPE ids, from 0 (official 151643).
        num_special_tokens: special ids after them (official 421; at least 34).
        num_audio_codes: audio codes after those (official 16384).

    Raises:
        ConfigError: when there are too few special ids for all roles.
    """

    num_base_tokens: int
    num_special_tokens: int = 421
    num_audio_codes: int = 16384

    bos: int = _special("[BOS]", 0)
    eos: int = _special("[EOS]", 1)
    msg_end: int = _special("<|im_msg_end|>", 2)
    user_msg_start: int = _special("<|im_user_msg_start|>", 3)
    assistant_msg_start: int = _special("<|im_assistant_msg_start|>", 4)
    eot: int = _special("[EOT]", 9)
    media_begin: int = _special("<|im_media_begin|>", 18)
    media_end: int = _special("<|im_media_end|>", 20)
    text_blank: int = _special("<|im_kimia_text_blank|>", 23)
    text_eos: int = _special("<|im_kimia_text_eos|>", 24)
    kimia_user_msg_start: int = _special("<|im_kimia_user_msg_start|>", 27)
    kimia_assistant_msg_start: int = _special("<|im_kimia_assistant_msg_start|>", 28)
    speech_ct: int = _special("<|im_kimia_speech_ct_id|>", 32)
    speech_ctd: int = _special("<|im_kimia_speech_ctd_id|>", 33)

    def __post_init__(self) -> None:
        roles = [f for f in fields(self) if "distance" in f.metadata]
        needed = 1 + max(f.metadata["distance"] for f in roles)
        if self.num_special_tokens < needed:
            raise ConfigError(f"num_special_tokens is {self.num_special_tokens}; the id space needs at least {needed}")
        for role in roles:
            object.__setattr__(self, role.name, self.num_base_tokens + role.metadata["distance"])

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Vocabulary":
        """Read the sizes from the fields of an official ``config.json``.

        Raises:
            ConfigError: when a field is missing or the fields contradict each other.
        """
        try:
            base, offset, size = (int(config[k]) for k in ("num_base_tokens", "kimia_token_offset", "vocab_size"))
        except KeyError as missing:
            raise ConfigError(f"config.json lacks the field {missing}, which the id space needs") from None
        vocab = cls(base, offset - base, size - offset)
        for key in ("media_begin", "media_end"):
            expected = getattr(vocab, key)
            stated = config.get(f"kimia_{key}", expected)
            if stated != expected:
                raise ConfigError(f"config.json: kimia_{key} is {stated}, but the id layout puts it at {expected}")
        return vocab

    @property
    def token_offset(self) -> int:
        """Id of audio code 0."""
        return self.num_base_tokens + self.num_special_tokens

    @property
    def pad(self) -> int:
        """The last special id."""
        return self.token_offset - 1

    @property
    def size(self) -> int:
        """Number of ids in all."""
        return self.token_offset + self.num_audio_codes

    def special_tokens(self) -> dict[str, int]:
        """Name → id of every special token in id order; those without a role are ``<|reserved_token_N|>``."""
        names = {f.metadata["distance"]: f.metadata["name"] for f in fields(self) if "distance" in f.metadata}
        table: dict[str, int] = {}
        reserved = 0
        for distance in range(self.num_special_tokens):
            name = names.get(distance)
            if name is None:
                name = f"<|reserved_token_{reserved}|>"
                reserved += 1
            table[name] = self.num_base_tokens + distance
        return table
