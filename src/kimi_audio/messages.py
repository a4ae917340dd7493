"""Messages of a conversation, in the official dict format, checked where a user hands them in.

    messages_from([
        {"role": "user", "message_type": "text", "content": "What do you hear?"},
        {"role": "user", "message_type": "audio", "content": "dog.wav"},
    ])

Message types: ``text`` (a string), ``audio`` (any sound source: path, bytes, file object, array) and
``audio-text`` (a pair of an assistant's spoken answer and its words).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from kimi_audio.errors import DataError

Role = Literal["user", "assistant"]
MessageType = Literal["text", "audio", "audio-text"]


@dataclass(frozen=True)
class Message:
    """One message. Neighbouring messages of one role form a turn.

    Attributes:
        role: who speaks.
        type: what `content` is: a string, a sound source, or a pair (sound source, string).
        content: see `type`.

    Raises:
        DataError: when a field has a value that is not accepted.
    """

    role: Role
    type: MessageType
    content: Any

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise DataError(f"message role is {self.role!r}; accepted are {_listed(get_args(Role))}")
        if self.type not in get_args(MessageType):
            raise DataError(f"message_type is {self.type!r}; accepted are {_listed(get_args(MessageType))}")
        if self.type == "text" and not isinstance(self.content, str):
            raise DataError(f"content of a text message is a {type(self.content).__name__}; it must be a string")
        if self.type == "audio" and self.content is None:
            raise DataError("content of an audio message is None; it must be a path, bytes, a file object or an array")
        if self.type == "audio-text" and not _is_audio_and_text(self.content):
            raise DataError("content of an audio-text message must be a pair (sound source, string)")


Conversation = Iterable[Message | Mapping[str, Any]]


def messages_from(conversation: Conversation) -> list[Message]:
    """Check a conversation given as dicts ``{"role", "message_type", "content"}`` or as `Message` objects.

    Raises:
        DataError: naming the message (counted from 0) and the field that is wrong.
    """
    if isinstance(conversation, str | bytes | Mapping | Message):
        raise DataError(f"messages is a {type(conversation).__name__}; it must be a list of messages")
    checked = [_message_from(index, item) for index, item in enumerate(conversation)]
    if not checked:
        raise DataError("messages is empty; at least one message is needed")
    return checked


def _message_from(index: int, item: Message | Mapping[str, Any]) -> Message:
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping):
        raise DataError(f"messages[{index}] is a {type(item).__name__}; it must be a dict or a Message")
    if absent := [key for key in ("role", "message_type", "content") if key not in item]:
        raise DataError(f"messages[{index}] lacks the field {absent[0]!r}")
    try:
        return Message(cast(Role, item["role"]), cast(MessageType, item["message_type"]), item["content"])
    except DataError as error:
        raise DataError(f"messages[{index}]: {error}") from None


def _is_audio_and_text(content: Any) -> bool:
    return isinstance(content, list | tuple) and len(content) == 2 and isinstance(content[1], str)


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(repr(value) for value in values)
