"""The transformer: cached decoding equals one pass, features land where they belong, branches can be left out."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import LLM, VOCAB

from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM


@pytest.fixture(scope="module")
def llm():
    torch.manual_seed(0)
    return AudioLLM(LLM).eval().requires_grad_(False)


def streams(length: int, rows: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(1, VOCAB.size, (2, rows, length), generator=generator)
    return ids[0], ids[1]


@settings(max_examples=20, deadline=None)
@given(prompt=st.integers(1, 30), steps=st.integers(1, 12), capacity=st.integers(1, 8))
def test_cached_decoding_equals_one_pass(llm, prompt, steps, capacity):
    audio_ids, text_ids = streams(prompt + steps)
    whole = llm(audio_ids, text_ids)
    cache = llm.new_cache(capacity=capacity)
    parts = [llm(audio_ids[:, :prompt], text_ids[:, :prompt], cache=cache)]
    for at in range(prompt, prompt + steps):
        parts.append(llm(audio_ids[:, at : at + 1], text_ids[:, at : at + 1], cache=cache))
    assert cache.length == prompt + steps <= cache.capacity
    torch.testing.assert_close(torch.cat([part.text_logits for part in parts], 1), whole.text_logits)
    torch.testing.assert_close(torch.cat([part.audio_logits for part in parts], 1), whole.audio_logits)


def test_cache_doubles_and_keeps_rows(llm):
    cache = llm.new_cache(batch=3, capacity=4)
    audio_ids, text_ids = streams(9, rows=3)
    llm(audio_ids, text_ids, cache=cache)
    assert cache.capacity == 16
    keys = cache.layer(0)[0].clone()
    cache.select(torch.tensor([2, 0]))
    assert torch.equal(cache.layer(0)[0], keys[[2, 0]])


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data())
@settings(max_examples=20, deadline=None)
def test_features_fill_the_runs_of_the_mask(llm, lengths, data):
    """A longer feature is cut, a shorter one is filled up with zeros, in row-major order of the runs."""
    given_lengths = [data.draw(st.integers(1, 8)) for _ in lengths]
    mask = torch.tensor([bit for length in lengths for bit in [False] + [True] * length])[None]
    features = [torch.randn(1, length, LLM.kimia_adaptor_input_dim) for length in given_lengths]
    audio_ids, text_ids = streams(mask.shape[1])
    x = llm.embed(audio_ids, text_ids, mask, features)[0]
    written, at = llm.model.embed_tokens(text_ids)[0], 0
    for length, feature in zip(lengths, features, strict=True):
        rows = torch.zeros(length, feature.shape[2])
        rows[: min(length, feature.shape[1])] = feature[0, :length]
        spoken = llm.model.embed_tokens(audio_ids[0, at + 1 : at + 1 + length])
        expected = (spoken + llm.model.vq_adaptor(rows)) * 2**0.5 + written[at + 1 : at + 1 + length]
        torch.testing.assert_close(x[at + 1 : at + 1 + length], expected)
        at += 1 + length


def test_too_few_features_are_told(llm):
    mask = torch.tensor([[True, False, True]])
    with pytest.raises(ValueError, match="1 feature tensors were given for 2 audio segments"):
        llm.embed(*streams(3), mask, [torch.zeros(1, 1, LLM.kimia_adaptor_input_dim)])


def test_a_row_of_zero_text_ids_has_no_text_embedding(llm):
    audio_ids, text_ids = streams(4, rows=2)
    text_ids[0] = 0
    x = llm.embed(audio_ids, text_ids)
    assert torch.equal(x[0], llm.model.embed_tokens(audio_ids[0]))
    assert torch.equal(x[1], llm.model.embed_tokens(audio_ids[1]) + llm.model.embed_tokens(text_ids[1]))


def test_listening_only_model_has_no_audio_branch():
    model = AudioLLM(replace(LLM, kimia_mimo_layers=0, tie_word_embeddings=True))
    output = model(*streams(5))
    assert output.audio_logits is None and output.text_logits.shape == (1, 5, VOCAB.size)
    assert not any("mimo" in name for name in model.state_dict())
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_audio_branch_can_be_left_out(llm):
    audio_ids, text_ids = streams(6)
    whole, text_only = llm(audio_ids, text_ids), llm(audio_ids, text_ids, want_audio=False, last_only=True)
    assert text_only.audio_logits is None
    torch.testing.assert_close(text_only.text_logits, whole.text_logits[:, -1:])


def test_config_survives_a_round_trip_with_unknown_fields():
    content = {**LLM.to_dict(), "kimia_something_new": [1, 2]}
    assert KimiAudioConfig.from_dict(content).to_dict() == content
    del content["hidden_size"]
    with pytest.raises(KeyError, match="hidden_size"):
        KimiAudioConfig.from_dict(content)
