import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.errors import ConfigError
from kimi_audio.vocab import Vocabulary

PROMPT_CASE = Path(__file__).parent / "golden" / "prompt" / "config.json"


def test_official_special_table() -> None:
    official = json.loads(PROMPT_CASE.read_text())
    vocab = Vocabulary(official["num_base_tokens"], official["num_reserved_special_tokens"])
    assert vocab.special_tokens() == official["special_tokens"]
    assert list(vocab.special_tokens()) == list(official["special_tokens"])
    assert vocab.token_offset == official["kimia_token_offset"]
    assert vocab.pad == official["pad_id"]
    assert vocab.size == 168448


@given(st.integers(256, 200_000), st.integers(34, 600), st.integers(0, 20_000))
def test_layout_moves_as_a_whole(base: int, specials: int, codes: int) -> None:
    vocab = Vocabulary(base, specials, codes)
    table = vocab.special_tokens()
    assert list(table.values()) == list(range(base, base + specials))
    assert table["<|im_media_begin|>"] == vocab.media_begin == base + 18
    config = {"num_base_tokens": base, "kimia_token_offset": vocab.token_offset, "vocab_size": vocab.size}
    assert Vocabulary.from_config(config) == vocab


def test_config_errors_name_the_field() -> None:
    with pytest.raises(ConfigError, match="kimia_token_offset"):
        Vocabulary.from_config({"num_base_tokens": 256, "vocab_size": 704})
    sizes = {"num_base_tokens": 256, "kimia_token_offset": 320, "vocab_size": 704}
    with pytest.raises(ConfigError, match="kimia_media_end is 7"):
        Vocabulary.from_config(sizes | {"kimia_media_end": 7})
    with pytest.raises(ConfigError, match="at least 34"):
        Vocabulary(256, 33)
