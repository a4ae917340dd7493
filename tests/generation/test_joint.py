"""Joint decoding with the tiny model: between the language model alone and the phonemes alone."""

import re

import numpy as np
import pytest
import torch
from tiny_model import tiny_model

from kimi_audio.errors import ConfigError
from kimi_audio.generation.decode import PromptBatch
from kimi_audio.generation.joint import JointSearch, PhonemeEars, joint_transcripts
from kimi_audio.generation.transcript import transcripts
from kimi_audio.model import KimiAudio
from kimi_audio.prompt import Prompt
from kimi_audio.pronunciation import Lexicon
from kimi_audio.tokenizer.phonemes import CLASSES, PhonemeConfig, PhonemeReader, phoneme_classes

LEXICON = Lexicon({"tea": "ti", "the": "Dx", "bad": "bQd", "ad": "Qd", "a": "x"}, {"tea": 5, "bad": 5})


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


class Certain(PhonemeReader):
    """Phonemes of which it is sure, whatever it hears: each a frame, with a blank after it."""

    said = "bQdti"

    def forward(self, features_TF: torch.Tensor) -> torch.Tensor:
        log_probs = torch.full((2 * len(self.said), 1 + len(CLASSES)), -15.0)
        log_probs[range(0, 2 * len(self.said), 2), phoneme_classes(self.said)] = 0
        log_probs[1::2, 0] = 0
        return log_probs


def ears(model: KimiAudio, kind: type[PhonemeReader] = PhonemeReader, **search: float) -> PhonemeEars:
    torch.manual_seed(0)
    reader = kind(PhonemeConfig(d_model=32, hidden=8, kernel=3, layers=1)).eval()
    return PhonemeEars(reader, LEXICON, model.tokenizer.encode, JointSearch(**search))  # type: ignore[arg-type]


def search(model: KimiAudio, prompts: list[Prompt], by: PhonemeEars, limit: int = 40) -> list[list[int]]:
    return list(joint_transcripts(model.llm, model.vocab, prompts, [limit] * len(prompts), by))


def words(model: KimiAudio, ids: list[int]) -> list[str]:
    return re.sub("[,.?!]", "", model.tokenizer.decode(ids)).lower().split()


def test_words_that_are_surely_heard_are_written(model, prompts):
    by = ears(model, Certain, beams=8, language_weight=0.1)
    for written in search(model, prompts, by):
        assert words(model, written) == ["bad", "tea"]


def test_the_language_model_decides_between_words_that_sound_alike(model, prompts):
    lexicon = Lexicon({"ab": "bQd", "ba": "bQd", "tea": "ti"})
    scores = {}
    for word in ("ab", "ba"):
        alone = Lexicon({word: "bQd", "tea": "ti"})
        by = PhonemeEars(ears(model, Certain).reader, alone, model.tokenizer.encode, JointSearch(beams=16))
        scores[word] = language_score(model, prompts[0], search(model, prompts[:1], by)[0])
    by = PhonemeEars(ears(model, Certain).reader, lexicon, model.tokenizer.encode, JointSearch(beams=16, margin=50))
    written = words(model, search(model, prompts[:1], by)[0])
    assert written[0] == max(scores, key=scores.__getitem__)


def language_score(model: KimiAudio, prompt: Prompt, ids: list[int]) -> float:
    batch, score = PromptBatch(model.llm, [prompt], model.vocab.text_blank, False, len(ids) + 1), 0.0
    with torch.inference_mode():
        for text_id in [*ids, model.vocab.text_eos]:
            logits_NV, _ = batch.forward(True)
            assert logits_NV is not None
            score += float(logits_NV[0].log_softmax(-1)[text_id])
            batch.feed([(text_id, model.vocab.text_blank)])
    return score


def test_prompts_together_get_what_each_gets_alone(model, prompts):
    by = ears(model, beams=3)
    assert search(model, prompts, by) == [search(model, [prompt], by)[0] for prompt in prompts]


def test_only_words_of_the_lexicon_and_marks_are_written(model, prompts):
    for written in search(model, prompts, ears(model, beams=4)):
        assert set(words(model, written)) <= set(LEXICON.words)


def test_no_text_is_longer_than_its_limit(model, prompts):
    for limit in (1, 2, 5):
        assert all(len(ids) <= limit for ids in search(model, prompts, ears(model, Certain), limit))


def test_with_sampling_options_or_without_transcripts_are_the_same(model, prompts):
    by, params = ears(model, Certain), model._params({"max_new_tokens": 40})
    assert list(transcripts(model.llm, model.vocab, prompts, params, by)) == search(model, prompts, by)


@pytest.mark.parametrize(("field", "value"), [("beams", 0), ("language_weight", -0.1)])
def test_what_cannot_be_searched_with_is_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"{field} is {value}"):
        JointSearch(**{field: value})  # type: ignore[arg-type]
