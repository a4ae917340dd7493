"""A cut vocabulary keeps the words that matter exactly as they were."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_audio.checkpoint.vocabulary import (
    MISSING,
    choose_tokens,
    cut_vocabulary,
    read_vocabulary,
    unchanged,
    write_tiktoken,
)
from kimi_audio.errors import CheckpointError
from kimi_audio.text import TextTokenizer

TEXTS = ["the cat sat on the mat", "the rat sat on the hat", "where is the cat, and where is the rat?"] * 5


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory):
    """A byte-level BPE of 300 merges, trained on text that says more than `TEXTS`."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    other = ["numbers like 12 and 345, brackets (and) signs: a+b=c", "Schöne Grüße aus München", "entirely other words"]
    tokenizer.train_from_iterator([*TEXTS, *other * 5], vocab_size=556, min_frequency=2, special_tokens=["<|im_end|>"])
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_source_is_read_as_it_is(tokenizer_json):
    tokenizers = pytest.importorskip("tokenizers")
    source, reference = read_vocabulary(tokenizer_json), tokenizers.Tokenizer.from_file(str(tokenizer_json))
    assert sorted(source.ids) == [i for i in range(reference.get_vocab_size()) if i not in source.special.values()]
    assert source.special.keys() == {"<|im_end|>"}
    for text in ("the cat", " where is München?", "a+b"):
        assert source.encode(text) == reference.encode(text).ids


@pytest.mark.parametrize("size", [256, 280, 300])
def test_cut_is_closed_ordered_and_of_the_size(tokenizer_json, size):
    source = read_vocabulary(tokenizer_json)
    kept = choose_tokens(source, TEXTS, size)
    assert len(kept) == size and kept == sorted(kept) and kept[:256] == list(range(256))
    for rank in kept:
        assert set(source.parents[rank] or ()) <= set(kept)


def test_frequent_words_survive(tokenizer_json):
    source = read_vocabulary(tokenizer_json)
    words = {" " + word for text in TEXTS for word in text.split()}
    ranks, ids = cut_vocabulary(tokenizer_json, TEXTS, 300)
    assert unchanged(source, ranks, words) == 1.0
    assert unchanged(source, ranks, [" München"]) == 0.0
    assert [source.ids[source.tokens.index(token)] for token in ranks] == ids


@given(st.text(max_size=40))
@settings(max_examples=50)
def test_any_text_can_be_written(tokenizer_json, text):
    ranks, _ = cut_vocabulary(tokenizer_json, TEXTS, 280)
    tokenizer = TextTokenizer({token: rank for rank, token in enumerate(ranks)})
    assert tokenizer.decode(tokenizer.encode(text)) == text.encode("utf-8", "replace").decode()


def test_written_file(tokenizer_json, tmp_path):
    ranks, _ = cut_vocabulary(tokenizer_json, TEXTS, 280)
    write_tiktoken(tmp_path / "tiktoken.model", ranks)
    assert TextTokenizer.from_file(tmp_path / "tiktoken.model").ranks == {token: i for i, token in enumerate(ranks)}
    first = (tmp_path / "tiktoken.model").read_text().splitlines()[0].split()
    assert (base64.b64decode(first[0]), first[1]) == (ranks[0], "0")


def test_bytes_without_a_token_are_marked(tokenizer_json, tmp_path):
    data = json.loads(tokenizer_json.read_text())
    del data["model"]["vocab"]["ÿ"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    source = read_vocabulary(tmp_path / "tokenizer.json")
    assert source.ids[source.tokens.index(b"\xff")] == MISSING


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not a tokenizer"), ("{}", "not a tokenizer"), (json.dumps({"model": {"type": "Unigram", "vocab": [],
      "merges": []}}), "only byte-level BPE")],
)  # fmt: skip
def test_other_tokenizers_are_refused(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_vocabulary(tmp_path / "tokenizer.json")


def test_impossible_sizes_are_refused(tokenizer_json):
    with pytest.raises(CheckpointError, match="allows 256 to"):
        cut_vocabulary(tokenizer_json, TEXTS, 100)
