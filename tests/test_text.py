import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.errors import CheckpointError
from kimi_audio.text import TextTokenizer

BYTES = {bytes([b]): b for b in range(256)}
TOKENIZER = TextTokenizer(BYTES | {b"th": 256, b"the": 257, b" the": 258, b"12": 259, "é".encode(): 260})


@given(st.text())
def test_round_trip(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.text())
def test_spelled_text_is_the_same_text(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.spell(text)) == text


def test_spelling_takes_characters_apart_but_for_the_space_before_them() -> None:
    tokenizer = TextTokenizer(BYTES | {b" t": 256, b"th": 257})
    assert [tokenizer.decode([i]) for i in tokenizer.spell("th th!")] == ["t", "h", " t", "h", "!"]


@given(st.lists(st.integers(-5, 400)))
def test_streamed_pieces_join_to_the_whole(ids: list[int]) -> None:
    stream = TOKENIZER.stream()
    pieces = [stream.push(i) for i in ids] + [stream.flush()]
    assert "".join(pieces) == TOKENIZER.decode(ids)


def test_stream_holds_back_unfinished_characters() -> None:
    stream = TOKENIZER.stream()
    assert [stream.push(i) for i in "世!".encode()] == ["", "", "世", "!"]


def test_special_names_are_plain_text_and_special_ids_are_dropped() -> None:
    assert TOKENIZER.encode("<|im_msg_end|>") == list(b"<|im_msg_end|>")
    assert TOKENIZER.decode([104, 5000, 105]) == "hi"


def test_qwen_splits_digits_one_by_one() -> None:
    assert TOKENIZER.encode("the 12") == [257, 32, 49, 50]


def test_unpaired_surrogates_do_not_raise() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a\ufffdb"


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "tiktoken.model"
    TOKENIZER.save(path)
    assert TextTokenizer.from_file(path).ranks == TOKENIZER.ranks
    assert path.read_bytes().startswith(base64.b64encode(b"\0") + b" 0\n")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"AA== 0\nnot-a-line\n", "line 2"), (b"!!! 0\n", "line 1"), (b"AA== x\n", "line 1"), (b"AA== 0\n", "byte 1")],
)
def test_damaged_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "tiktoken.model"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        TextTokenizer.from_file(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.model"):
        TextTokenizer.from_file(tmp_path / "nowhere.model")


def test_ids_are_unique() -> None:
    with pytest.raises(CheckpointError, match="one id to several"):
        TextTokenizer(BYTES | {b"ab": 0})
