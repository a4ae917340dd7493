"""Answers as they are made: pieces joined equal the whole, both streams are kept, leaving early frees everything."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import VOCAB, tiny_model

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.generation import collect, decode
from kimi_audio.generation.sampling import SamplingParams
from kimi_audio.generation.speech_text import spoken_pieces
from kimi_audio.kv_cache import KVCache
from kimi_audio.messages import Message
from kimi_audio.model import KimiAudio
from kimi_audio.prompt import Heard
from kimi_audio.vocab import AUDIO_DELAY

QUESTION = [Message("user", "text", "Say something.")]
SPOKEN = {"output_type": "both", "seed": 5, "audio_temperature": 1.0, "audio_top_k": 12, "max_new_tokens": 40}
SAMPLES_PER_CODE = 4 * 480


@pytest.fixture(scope="module")
def model() -> KimiAudio:
    return tiny_model(speaks=True)


def test_pieces_joined_are_the_reply(model: KimiAudio) -> None:
    reply = model.generate(QUESTION, **SPOKEN)
    answer = model.stream(QUESTION, **SPOKEN)
    pieces = list(answer)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == reply.text == answer.reply.text
    sounds = [piece for piece in pieces if isinstance(piece, np.ndarray)]
    assert len(sounds) > 1 and all(len(sound) and sound.dtype == np.float32 for sound in sounds)
    assert reply.audio is not None
    assert np.array_equal(np.concatenate(sounds), reply.audio)
    assert len(reply.audio) == len(reply.codes) * SAMPLES_PER_CODE
    assert model.speech_rate == 24_000


def test_sound_comes_before_the_answer_is_complete(model: KimiAudio) -> None:
    answer = model.stream(QUESTION, **SPOKEN)
    next(piece for piece in answer if isinstance(piece, np.ndarray))
    assert 0 < len(answer.reply.codes) < len(model.generate(QUESTION, **SPOKEN).codes)


def test_leaving_early_frees_everything(model: KimiAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[weakref.ref] = []
    made = KVCache.__init__

    def counted(cache: KVCache, *arguments, **options) -> None:
        made(cache, *arguments, **options)
        caches.append(weakref.ref(cache))

    monkeypatch.setattr(KVCache, "__init__", counted)
    answer = model.stream(QUESTION, **SPOKEN)
    next(piece for piece in answer if isinstance(piece, np.ndarray))
    assert any(cache() is not None for cache in caches)
    answer.close()
    gc.collect()
    language_model = [c for cache in caches if (c := cache()) is not None and c.length > 0]
    assert not language_model
    assert answer.reply.audio is not None and list(answer) == []


def test_history_keeps_both_streams() -> None:
    model = tiny_model(speaks=True, generation_config={"history_text_eos": True})
    codes = tuple(range(12))
    turn = Message("assistant", "audio-text", (Heard(codes), "Hi."))
    prompt = model.prompt([*QUESTION, turn, Message("user", "text", "Again?")], "both")
    written = [VOCAB.token_offset + code for code in codes]
    start = prompt.audio_ids.index(written[0])
    assert prompt.audio_ids[start - AUDIO_DELAY : start + 13] == [VOCAB.text_blank] * AUDIO_DELAY + written + [
        VOCAB.msg_end
    ]
    assert prompt.text_ids[start - AUDIO_DELAY : start - 2] == [*b"Hi.", VOCAB.text_eos]


def test_a_reply_can_be_the_next_turn(model: KimiAudio) -> None:
    reply = model.generate(QUESTION, **SPOKEN)
    assert reply.message.role == "assistant"
    again = model.generate([*QUESTION, reply.message, *QUESTION], **SPOKEN)
    assert again.codes != reply.codes


def test_given_words_are_what_is_said(model: KimiAudio) -> None:
    words = [*b"hello there"]
    prompt = model.prompt(QUESTION, "both")
    params = SamplingParams(audio_temperature=1.0, audio_top_k=12)
    generator = torch.Generator().manual_seed(0)
    steps = decode(
        model.llm, VOCAB, [prompt] * 3, [60] * 3, params, output_type="both", generator=generator, texts=[words] * 3
    )
    for answer in collect(steps, VOCAB, 3):
        assert answer.text_ids == words
        assert len(answer.audio_codes(VOCAB)) > len(words) - AUDIO_DELAY


def test_a_text_is_said_in_pieces(model: KimiAudio) -> None:
    text = "One sentence of some length stands here, and it goes on. " * 12
    assert [piece.count(".") for piece in spoken_pieces("One. Two. And three.", 200, join_sentences=False)] == [1, 1, 1]
    pieces = list(spoken_pieces(text, 200))
    assert len(pieces) > 1
    sounds = list(model.say(text, seed=1, audio_temperature=1.0, audio_top_k=12))
    assert len(sounds) > len(pieces)
    first = next(model.say(text, seed=1, audio_temperature=1.0, audio_top_k=12))
    assert np.array_equal(first, sounds[0])


@pytest.mark.parametrize("text", ["", "  \n", "… !? —", "***"])
def test_nothing_to_say_is_a_mistake(text: str, model: KimiAudio) -> None:
    with pytest.raises(DataError, match="nothing to say"):
        list(model.say(text))


def test_a_model_without_a_mouth_says_so() -> None:
    silent = tiny_model()
    with pytest.raises(ConfigError, match="no detokenizer"):
        list(silent.say("Hello."))
    with pytest.raises(ConfigError, match="no detokenizer"):
        silent.speech_rate  # noqa: B018


@given(st.text(st.sampled_from("ab ,.!?\n。x1"), max_size=400), st.integers(8, 60))
def test_pieces_hold_every_word_once_and_fit(text: str, longest: int) -> None:
    if not any(character.isalnum() for character in text):
        return
    pieces = list(spoken_pieces(text, longest))
    spoken = [character for piece in pieces for character in piece if character.isalnum()]
    assert spoken == [character for character in text if character.isalnum()]
    assert all(0 < len(piece) <= longest for piece in pieces)
