import pytest

from kimi_audio.errors import DataError
from kimi_audio.messages import Message, messages_from


def test_dicts_and_messages_mix() -> None:
    typed = Message("assistant", "text", "A dog.")
    spoken = Message("assistant", "audio-text", ("bark.wav", "Woof."))
    asked = messages_from([{"role": "user", "message_type": "audio", "content": b"RIFF"}, typed, spoken])
    assert asked == [Message("user", "audio", b"RIFF"), typed, spoken]


@pytest.mark.parametrize(
    ("conversation", "sentence"),
    [
        ([], "messages is empty"),
        ("hello", "messages is a str"),
        ({"role": "user"}, "messages is a dict"),
        ([["user", "text", "hi"]], r"messages\[0\] is a list"),
        ([{"role": "user", "content": "hi"}], r"messages\[0\] lacks the field 'message_type'"),
        ([{"role": "system", "message_type": "text", "content": "hi"}], r"messages\[0\]: message role is 'system'"),
        ([{"role": "user", "message_type": "video", "content": "hi"}], "message_type is 'video'"),
        ([{"role": "user", "message_type": "text", "content": 3}], "content of a text message is a int"),
        ([{"role": "user", "message_type": "audio", "content": None}], "content of an audio message is None"),
        ([{"role": "assistant", "message_type": "audio-text", "content": "a.wav"}], "pair"),
    ],
)
def test_mistakes_are_named(conversation: object, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        messages_from(conversation)  # type: ignore[arg-type]
