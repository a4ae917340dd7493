"""Answers as they are made: pieces joined equal the whole, both streams are kept, leaving early frees everything."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import VOCAB, tiny_model

from kimi_audio.detokenizer.flow import euler
from kimi_audio.errors import ConfigError, DataError
from kimi_audio.generation import AnswerStream, collect, decode
from kimi_audio.generation.sampling import SamplingParams
from kimi_audio.generation.speech_text import spoken_pieces
from kimi_audio.kv_cache import KVCache
from kimi_audio.messages import Message
from kimi_audio.model import KimiAudio
from kimi_audio.prompt import Heard, Prompt
from kimi_audio.pronunciation import Lexicon
from kimi_audio.vocab import AUDIO_DELAY

QUESTION = [Message("user", "text", "Say something.")]
LEXICON = Lexicon({"hello": "hxlo"})
DRAWN = {"audio_temperature": 1.0, "audio_top_k": 12}
SPOKEN = {"output_type": "both", "seed": 5, "max_new_tokens": 40, **DRAWN}
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


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[weakref.WeakSet[KVCache]]:
    """All key/value caches that are alive; nothing is freed late, by the garbage collector."""
    alive: weakref.WeakSet[KVCache] = weakref.WeakSet()
    made = KVCache.__init__

    def counted(cache: KVCache, *arguments, **options) -> None:
        made(cache, *arguments, **options)
        alive.add(cache)

    monkeypatch.setattr(KVCache, "__init__", counted)
    gc.collect()
    gc.disable()
    yield alive
    gc.enable()


def test_leaving_early_frees_everything_at_once(model: KimiAudio, caches: weakref.WeakSet[KVCache]) -> None:
    answer = model.stream(QUESTION, **SPOKEN)
    next(piece for piece in answer if isinstance(piece, np.ndarray))
    assert len(caches) == 2, "one of the language model, one of the flow"
    answer.close()
    assert not caches
    assert answer.reply.audio is not None and list(answer) == []


@pytest.mark.parametrize("output_type", ["text", "both"])
def test_an_answer_that_is_dropped_is_gone(
    output_type: str, model: KimiAudio, caches: weakref.WeakSet[KVCache]
) -> None:
    answer = model.stream(QUESTION, **{**SPOKEN, "output_type": output_type})
    next(answer)
    assert caches
    del answer
    assert not caches


def test_reading_aloud_and_revoicing_free_everything_too(model: KimiAudio, caches: weakref.WeakSet[KVCache]) -> None:
    for sounds in (model.say("Hello there. " * 9, seed=1), model.revoice(np.zeros(64_000, np.float32), seed=1)):
        next(sound for sound in sounds if len(sound))
        assert caches
        sounds.close()
        assert not caches


def test_a_long_text_takes_bounded_memory(model: KimiAudio, caches: weakref.WeakSet[KVCache]) -> None:
    """10 000 characters: one piece at a time is asked for and said, and nothing is left of those before it."""
    answers: weakref.WeakSet[AnswerStream] = weakref.WeakSet()
    answer_to = model._answer
    quick = replace(model.detokenizer.config, schedule=euler(1))
    text = "A sentence of some length stands here, and it goes on for a while. " * 150
    with pytest.MonkeyPatch.context() as patch:
        asked = []

        def counted(prompt: Prompt, *arguments, **options) -> AnswerStream:
            asked.append(len(prompt))
            answers.add(answer := answer_to(prompt, *arguments, **options))
            return answer

        patch.setattr(model, "_answer", counted)
        seconds = 0.0
        for sound in model.say(text, seed=1, speech=quick, **DRAWN, max_new_tokens=12):
            seconds += len(sound) / model.speech_rate
            assert len(caches) <= 2 and len(answers) == 1
    assert not caches and not answers
    assert len(text) > 10_000 and len(asked) == len(list(spoken_pieces(text, 200))) > 40
    assert max(asked) < 300 and seconds > 0.2 * len(asked)


def test_answers_at_the_same_time_are_as_alone(model: KimiAudio) -> None:
    """Several streams of one model, taken from in turns, each with words and sounds of its own."""
    questions = ["Say something.", "And you?", "What?"]

    def answer(number: int) -> AnswerStream:
        return model.stream([Message("user", "text", questions[number])], **{**SPOKEN, "seed": number})

    alone = [answer(number) for number in range(3)]
    for each in alone:
        assert list(each)
    together = [answer(number) for number in range(3)]
    waiting = list(together)
    while waiting:
        waiting = [each for each in waiting if next(each, None) is not None]
    for one, other in zip(alone, together, strict=True):
        assert one.reply.text == other.reply.text and one.reply.codes == other.reply.codes
        assert np.array_equal(one.reply.audio, other.reply.audio)
    assert len({each.reply.codes for each in together}) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "auto"])
def test_it_speaks_whatever_the_weights_are_in(dtype: str, model: KimiAudio, tmp_path: Path) -> None:
    model.save(tmp_path)
    loaded = KimiAudio.from_pretrained(tmp_path, dtype=dtype, device="cpu")
    sound = np.concatenate(list(loaded.say("Hello there.", seed=1, **DRAWN)))
    assert sound.dtype == np.float32 and len(sound) > 10_000 and np.isfinite(sound).all()


def test_models_with_a_lexicon_say_its_phonemes(model: KimiAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(text: str) -> np.ndarray:
        return np.concatenate(list(model.say(text, seed=1, **DRAWN)))

    plain = said("hxlo.")
    monkeypatch.setattr(model.parts, "lexicon", LEXICON)
    assert model.parts.encode_spoken("Hello.") == model.tokenizer.spell("hxlo.") != model.tokenizer.encode("Hello.")
    assert not np.array_equal(said("Hello."), plain)  # the text to read is another one
    assert np.array_equal(said("Hello."), said("Hello."))


def test_words_of_other_scripts_are_not_said(model: KimiAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.parts, "lexicon", LEXICON)
    assert list(model.say("привет", seed=1, **DRAWN)) == []


def test_a_model_with_a_lexicon_writes_first_and_then_says_it(
    model: KimiAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = model.generate(QUESTION, "text", max_new_tokens=40)
    monkeypatch.setattr(model.parts, "lexicon", LEXICON)
    answer = model.stream(QUESTION, **SPOKEN)
    are_texts = [isinstance(piece, str) for piece in answer]
    assert True in are_texts and False in are_texts and are_texts == sorted(are_texts, reverse=True)
    assert answer.reply.text == alone.text and answer.reply.codes
    stopped = model.stream(QUESTION, **SPOKEN)
    next(piece for piece in stopped if isinstance(piece, np.ndarray))
    stopped.close()
    assert list(stopped) == [] and 0 < len(stopped.reply.codes) < len(answer.reply.codes)


def test_an_answer_without_any_sound_is_one_of_no_length() -> None:
    model = tiny_model(speaks=True)
    model.llm.mimo_output.weight.data.zero_()  # no id of the audio stream is ever a code
    assert list(model.say("Hello.")) == []
    reply = model.generate(QUESTION, "both", max_new_tokens=40)
    assert reply.text and reply.codes == () and reply.audio is not None and reply.audio.shape == (0,)
    assert model.generate([*QUESTION, reply.message, *QUESTION], "both", max_new_tokens=40).codes == ()


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


def test_a_long_conversation_keeps_its_newest_turns(model: KimiAudio) -> None:
    """Bytes are the text's ids here, and turns end with one more: what is kept leaves room, and could not be longer."""
    numbered = [f"{number:2} " + "x" * 197 for number in range(40)]
    turns = [Message(("user", "assistant")[number % 2], "text", words) for number, words in enumerate(numbered)]
    history = [*turns, Message("user", "text", "And now?")]
    for output_type, positions in (("text", 7500), ("both", 1500)):
        kept = model.recent(history, output_type)
        assert kept == history[-len(kept) :] and kept[0].role == "user" and len(kept) > 1
        assert len(model.prompt(kept, output_type)) <= positions - 500
        if len(kept) < len(history):
            assert len(model.prompt(history[-len(kept) - 2 :], output_type)) > positions - 500
    assert model.recent([Message("user", "text", "x" * 2000)], "both") == [Message("user", "text", "x" * 2000)]
    assert len(model.recent([*turns[:1], Message("assistant", "text", "x" * 2000)], "both")) == 1


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
    spelled = "Cat is spelled: C, A, T. Plan A, B and all."
    apart = ["Cat is spelled.", "C.", "A.", "T.", "Plan A, B and all."]
    assert [*spoken_pieces(spelled, 200, join_sentences=False)] == apart
    assert [*spoken_pieces(spelled, 200)] == [spelled]
    pieces = list(spoken_pieces(text, 200))
    assert len(pieces) > 1
    sounds = list(model.say(text, seed=1, max_new_tokens=60, **DRAWN))
    assert len(sounds) > len(pieces)
    first = next(model.say(text, seed=1, max_new_tokens=60, **DRAWN))
    np.testing.assert_allclose(first, sounds[0], atol=1e-4)  # float sums may differ in their last bits


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
