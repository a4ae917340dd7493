"""Instructions and the sources that use them."""

import re
from collections import Counter

import numpy as np
import pytest
import torch

from kimi_audio.data.cache import HeardCache, variant_key
from kimi_audio.errors import DataError
from kimi_audio.messages import Message
from kimi_audio.prompt import Heard
from kimi_audio.training.objectives.sft import (
    ConversationSource,
    Reader,
    SaySource,
    Task,
    TaskSource,
    instructions,
)

OTHERS = (
    "caption",
    "digit",
    "emotion",
    "keyword",
    "question",
    "say",
    "scene",
    "sound_event",
    "speaker_age",
    "speaker_gender",
)


def words(line: str) -> str:
    return " ".join(re.findall(r"[a-z']+", line.lower()))


def test_there_are_200_wordings_for_recognition_and_30_for_each_other_task():
    assert len(instructions("recognition")) == 200
    assert [len(instructions(task)) for task in OTHERS] == [30] * len(OTHERS)
    with pytest.raises(DataError, match="no instructions for the task 'smell'; the tasks are caption, digit, emotion"):
        instructions("smell")


@pytest.mark.parametrize("task", ["recognition", *OTHERS])
def test_wordings_differ_in_more_than_punctuation(task):
    lines = [words(line) for line in instructions(task)]
    assert len(set(lines)) == len(lines)
    openings = Counter(tuple(line.split()[:4]) for line in lines if len(line.split()) > 4)
    assert max(openings.values()) <= 4


@pytest.fixture
def cache(tmp_path) -> HeardCache:
    cache = HeardCache(tmp_path)
    for number, name in enumerate(("a.wav", "a.wav#1", "b.wav", "b.wav#1", "ask.wav", "ask.wav#1")):
        cache.add(name, Heard([number] * (2 + number), torch.full((1, 2 + number, 3), float(number))))
    return cache


def rows():
    return [{"audio": "a.wav", "text": "yes"}, {"audio": "b.wav", "text": "no"}]


def test_a_task_asks_differently_each_time_and_predicts_the_answer_alone(vocab, cache):
    reader = Reader(vocab, lambda text: list(text.encode()), cache, variants=range(2))
    task = Task("t", ["What?", "Say it."], "text", spoken={"Say it.": ["ask.wav"]})
    source = TaskSource(rows(), task, reader)
    assert len(source) == 2
    asked, variants = Counter(), set()
    for seed in range(100):
        prompt = source.prompt(1, np.random.default_rng(seed))
        again = source.prompt(1, np.random.default_rng(seed))
        assert (prompt.audio_ids, prompt.text_ids) == (again.audio_ids, again.text_ids)
        targets = [i for i, m in zip(prompt.text_ids, prompt.text_loss_mask, strict=True) if m]
        assert targets == [*b"no", vocab.text_eos] and not any(prompt.audio_loss_mask)
        written = bytes(i for i in prompt.text_ids if i < 256).decode().removesuffix("no")
        asked[written] += 1
        variants.add(prompt.features[-1].shape[1])
        assert len(prompt.features) == (2 if written == "" else 1)
        assert sum(prompt.continuous_mask) == sum(feature.shape[1] for feature in prompt.features)
        assert vocab.speech_ct in prompt.audio_ids
    assert 35 <= asked["What?"] <= 65 and asked["Say it."] > 10 and asked[""] > 10
    assert variants == {4, 5}


def test_a_row_without_its_answer_is_named(vocab, cache):
    reader = Reader(vocab, lambda text: list(text.encode()), cache)
    with pytest.raises(DataError, match=r"c\.wav: the task emotion needs the field 'label'"):
        TaskSource([{"audio": "c.wav", "text": "x"}], Task("emotion", ["How?"], "label"), reader)


def test_conversations_are_taken_as_they_stand(vocab, cache):
    reader = Reader(vocab, lambda text: list(text.encode()), cache)
    talk = [
        Message("user", "audio", "a.wav"),
        Message("assistant", "text", "one"),
        Message("user", "text", "and?"),
        Message("assistant", "audio", "b.wav"),
    ]
    prompt = ConversationSource([talk], reader).prompt(0, np.random.default_rng(0))
    text = [i for i, m in zip(prompt.text_ids, prompt.text_loss_mask, strict=True) if m]
    audio = [i for i, m in zip(prompt.audio_ids, prompt.audio_loss_mask, strict=True) if m]
    assert text == [*b"one", vocab.text_eos]
    assert audio == [vocab.token_offset + 2] * 4 + [vocab.media_end]
    assert vocab.speech_ctd in prompt.audio_ids  # somebody answers in speech
    assert variant_key("a.wav", 0) == "a.wav"


class Mouth:
    """Ears that only know how the recordings of a cache would be said."""

    def __init__(self, cache):
        self.cache = cache

    def heard(self, key):
        raise AssertionError(f"{key} is not to be listened to")

    def said(self, audio):
        return self.cache.heard(audio)


def test_a_text_is_asked_for_and_answered_in_both_streams(vocab, cache):
    reader = Reader(vocab, lambda text: list(text.encode()), Mouth(cache), variants=range(1, 3))
    source = SaySource([{"audio": "b.wav", "text": "no"}], Task("say", ["Say:", "Read:"], "text"), reader)
    asked = set()
    for seed in range(20):
        prompt = source.prompt(0, np.random.default_rng(seed))
        text = [i for i, m in zip(prompt.text_ids, prompt.text_loss_mask, strict=True) if m]
        audio = [i for i, m in zip(prompt.audio_ids, prompt.audio_loss_mask, strict=True) if m]
        assert text == [*b"no", vocab.text_eos]
        assert audio == [vocab.token_offset + 2] * 4 + [vocab.msg_end]
        assert not prompt.features and prompt.text_loss_mask.index(True) == prompt.audio_loss_mask.index(True) - 6
        asked.add(bytes(i for i in prompt.text_ids[: prompt.text_loss_mask.index(True)] if i < 256).decode())
    assert asked == {"Say: no", "Read: no"}


class Head(Mouth):
    """Ears and mouth."""

    def heard(self, key):
        return self.cache.heard(key)


def test_a_text_may_be_asked_for_aloud(vocab, cache):
    reader = Reader(vocab, lambda text: list(text.encode()), Head(cache))
    task = Task("say", ["Say:"], "text", spoken={"Say:": ["a.wav"]})
    source = SaySource([{"audio": "b.wav", "text": "no"}], task, reader)
    asked = set()
    for seed in range(20):
        prompt = source.prompt(0, np.random.default_rng(seed))
        before = slice(0, prompt.text_loss_mask.index(True))
        written = bytes(i for i in prompt.text_ids[before] if i < 256).decode()
        asked.add((written, len(prompt.features)))
        assert [i for i, m in zip(prompt.audio_ids, prompt.audio_loss_mask, strict=True) if m][-1] == vocab.msg_end
    assert asked == {("Say: no", 0), ("no", 1)}
