"""The language model of the tiny model, new and random, and documents for it."""

from pathlib import Path

import pytest
import torch
from recipe_folder import make_folder
from tiny_model import LLM, VOCAB

from kimi_audio.llm.model import AudioLLM
from kimi_audio.vocab import Vocabulary


@pytest.fixture
def vocab() -> Vocabulary:
    return VOCAB


@pytest.fixture
def llm() -> AudioLLM:
    torch.manual_seed(0)
    return AudioLLM(LLM)


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
            prompt.features.append(torch.randn(1, heard, LLM.kimia_adaptor_input_dim, generator=generator))
        prompt.add([blank] * said, words, text_loss=True)
        prompt.add(codes[heard:], [blank] * spoken, audio_loss=True)
        return prompt

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which recipes can run."""
    return make_folder(tmp_path)
