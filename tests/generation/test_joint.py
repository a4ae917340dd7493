"""Joint decoding with the tiny model: between the language model alone and the phonemes alone."""

import numpy as np
import pytest
import torch
from tiny_model import VOCAB, tiny_model

from kimi_audio.errors import ConfigError
from kimi_audio.generation.joint import JointSearch, PhonemeEars, joint_transcripts
from kimi_audio.generation.transcript import transcripts
from kimi_audio.model import KimiAudio
from kimi_audio.prompt import Prompt
from kimi_audio.pronunciation import Lexicon
from kimi_audio.tokenizer.phonemes import CLASSES, PhonemeConfig, PhonemeReader, phoneme_classes

LEXICON = Lexicon({"tea": "ti", "the": "Dx"})


@pytest.fixture(scope="module")
def model() -> KimiAudio:
    return tiny_model()


@pytest.fixture(scope="module")
def prompts(model: KimiAudio) -> list[Prompt]:
    noise = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    return [
        model.prompt([{"role": "user", "message_type": "audio", "content": noise[:length]}])
        for length in (9_000, 40_000, 20_000)
    ]


class Careless(PhonemeEars):
    """Writes whatever is likely."""

    def is_word(self, text_id: int) -> bool:
        return text_id != VOCAB.text_eos


class Reading(PhonemeEars):
    """Phonemes of which it is certain, whatever it hears: each a frame, with a blank after it."""

    heard = "bQd"

    def hear(self, prompt: Prompt) -> torch.Tensor:
        probabilities = torch.full((2 * len(self.heard), 1 + len(CLASSES)), 1e-6)
        probabilities[range(0, 2 * len(self.heard), 2), phoneme_classes(self.heard)] = 1
        probabilities[1::2, 0] = 1
        return probabilities.log()


def ears(model: KimiAudio, kind: type[PhonemeEars] = PhonemeEars, **search: float) -> PhonemeEars:
    torch.manual_seed(0)
    reader = PhonemeReader(PhonemeConfig(d_model=32, hidden=8, kernel=3)).eval()
    return kind(reader, LEXICON, model.tokenizer.decode, JointSearch(**search))  # type: ignore[arg-type]


def search(model: KimiAudio, prompts: list[Prompt], by: PhonemeEars) -> list[list[int]]:
    return list(joint_transcripts(model.llm, model.vocab, prompts, [12] * len(prompts), by))


def test_one_text_without_phonemes_is_greedy_decoding(model, prompts):
    params = model._params({"max_new_tokens": 12, "text_temperature": 0.0})
    alone = list(transcripts(model.llm, model.vocab, prompts, params))
    greedy = ears(model, Careless, beams=1, ctc_weight=0.0, margin=0.0)
    assert list(transcripts(model.llm, model.vocab, prompts, params, greedy)) == alone


def test_phonemes_alone_decide_what_is_written(model, prompts):
    sure = ears(model, Reading, beams=24, ctc_weight=1.0, candidates=256, margin=1e9, unknown_word=0.0)
    for written in search(model, prompts[:1], sure):
        assert sure.sounds(sure.words(written)) == phoneme_classes("bQd")


def test_prompts_together_get_what_each_gets_alone(model, prompts):
    by = ears(model, beams=3, ctc_weight=0.5)
    assert search(model, prompts, by) == [search(model, [prompt], by)[0] for prompt in prompts]


def test_a_word_that_may_go_on_is_sounded_out(model):
    by = ears(model)
    assert by.sounds(["tea"], go_on=True) == phoneme_classes("ti")
    assert by.sounds(["th"], go_on=True) == phoneme_classes("T")
    assert by.sounds(["th", "the"]) == [*by.sounds(["th"]), *phoneme_classes("Dx")]


def test_what_letters_do_not_tell_is_not_written(model, prompts):
    by = ears(model, beams=4, candidates=40)
    assert by.is_word(ord("a")) and by.is_word(ord(",")) and by.is_word(ord(" "))
    assert not by.is_word(ord("4")) and not by.is_word(0xC3) and not by.is_word(ord("$"))
    for written in search(model, prompts, by):
        assert all(by.is_word(text_id) for text_id in written)


@pytest.mark.parametrize(("field", "value"), [("beams", 0), ("ctc_weight", 1.5), ("ctc_weight", -0.1)])
def test_what_cannot_be_searched_with_is_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"{field} is {value}"):
        JointSearch(**{field: value})  # type: ignore[arg-type]
