"""A tiny random audio LLM with both branches, and the id space that goes with it."""

import pytest
import torch

from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.vocab import Vocabulary

FEATURES = 12


@pytest.fixture
def vocab() -> Vocabulary:
    return Vocabulary(num_base_tokens=256, num_special_tokens=64, num_audio_codes=32)


@pytest.fixture
def llm(vocab: Vocabulary) -> AudioLLM:
    torch.manual_seed(0)
    config = KimiAudioConfig(
        vocab_size=vocab.size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        kimia_token_offset=vocab.token_offset,
        kimia_mimo_layers=1,
        kimia_mimo_transformer_from_layer_index=1,
        kimia_adaptor_input_dim=FEATURES,
        kimia_media_begin=vocab.media_begin,
        kimia_media_end=vocab.media_end,
        num_base_tokens=vocab.num_base_tokens,
    )
    return AudioLLM(config)


@pytest.fixture
def make_prompt(vocab: Vocabulary):
    """A document of `heard` positions of sound, `said` text ids to predict and `spoken` codes to predict."""
    from kimi_audio.prompt import Prompt

    def make(heard: int, said: int, spoken: int, seed: int = 0) -> Prompt:
        generator = torch.Generator().manual_seed(seed)
        codes = torch.randint(vocab.num_audio_codes, (heard + spoken,), generator=generator)
        codes = (codes + vocab.token_offset).tolist()
        words = torch.randint(vocab.num_base_tokens, (said,), generator=generator).tolist()
        blank, prompt = vocab.text_blank, Prompt()
        if heard:
            prompt.add([vocab.media_begin], [blank])
            prompt.add(codes[:heard], [blank] * heard, continuous=True)
            prompt.add([vocab.media_end], [blank])
            prompt.features.append(torch.randn(1, heard, FEATURES, generator=generator))
        prompt.add([blank] * said, words, text_loss=True)
        prompt.add(codes[heard:], [blank] * spoken, audio_loss=True)
        return prompt

    return make
