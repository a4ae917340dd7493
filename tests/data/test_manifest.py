import json
import os
from pathlib import Path

import pytest

from kimi_audio.data.manifest import read_conversations, read_recordings, sounds_of
from kimi_audio.errors import DataError

SHARED = Path(os.environ.get("KIMI_AUDIO_SHARED", Path(__file__).parents[3] / "shared"))
GOOD = {"audio": "a.wav", "duration": 1.5, "split": "train", "text": "hello"}


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "a.wav").touch()

    def write(*lines) -> Path:
        path = tmp_path / "m.jsonl"
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return path

    return write


def test_rows_get_absolute_paths_and_keep_their_fields(manifest, tmp_path):
    path = manifest(GOOD, "", {**GOOD, "split": "dev", "speaker": "x"}, {"audio": "a.wav", "duration": 2, "text": ""})
    rows = read_recordings(path, split="train", needs=["text"])
    assert [row["text"] for row in rows] == ["hello", ""]  # without a split it belongs to all of them
    assert rows[0]["audio"] == str(tmp_path / "a.wav")
    assert read_recordings(path, split="dev")[0]["speaker"] == "x"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON; each line must be one JSON object"),
        ("[1]", "a JSON list; each line must be one JSON object"),
        ({"duration": 1}, "field 'audio' is None; a path is needed"),
        ({**GOOD, "audio": "b.wav"}, "the sound file .*b.wav does not exist"),
        ({**GOOD, "duration": "long"}, "field 'duration' is 'long'; seconds above 0 are needed"),
        ({**GOOD, "duration": 0}, "field 'duration' is 0; seconds above 0 are needed"),
        ({**GOOD, "split": "training"}, "field 'split' is 'training'; accepted are train, dev, test"),
        ({**GOOD, "text": 7}, "field 'text' is 7; a text is needed here"),
    ],
)
def test_a_bad_line_is_named(manifest, line, message):
    with pytest.raises(DataError, match=rf"m\.jsonl:2: {message}"):
        read_recordings(manifest(GOOD, line), needs=["text"])


def test_a_manifest_that_is_missing_or_empty(manifest, tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: the manifest cannot be read"):
        read_recordings(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no recording of the split 'test'"):
        read_recordings(manifest(GOOD), split="test")
    with pytest.raises(DataError, match="holds no conversation"):
        read_conversations(manifest())


def test_conversations(manifest, tmp_path):
    say = {"role": "user", "message_type": "text", "content": "hi"}
    hear = {"role": "user", "message_type": "audio", "content": "a.wav"}
    both = {"role": "assistant", "message_type": "audio-text", "content": ["a.wav", "hello"]}
    conversations = read_conversations(manifest({"messages": [say]}, {"messages": [hear, both]}))
    assert [len(conversation) for conversation in conversations] == [1, 2]
    assert conversations[1][0].content == str(tmp_path / "a.wav")
    assert conversations[1][1].content == (str(tmp_path / "a.wav"), "hello")
    assert sounds_of(conversations) == ([str(tmp_path / "a.wav")], [str(tmp_path / "a.wav")])
    with pytest.raises(DataError, match=r"m\.jsonl:1: messages\[0\]: message role is 'robot'"):
        read_conversations(manifest({"messages": [{**say, "role": "robot"}]}))
    with pytest.raises(DataError, match=r"m\.jsonl:1: the sound file .* does not exist"):
        read_conversations(manifest({"messages": [{**hear, "content": "b.wav"}]}))


@pytest.mark.skipif(not (SHARED / "data").exists(), reason="the labelled recordings are not here")
def test_real_manifests_are_read():
    for path in sorted((SHARED / "data").glob("*/manifest.jsonl")):
        assert len(read_recordings(path)) > 10
