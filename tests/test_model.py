import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_model import VOCAB, tiny_model

from kimi_audio.audio.decode import load_audio
from kimi_audio.errors import AudioError, ConfigError, DataError
from kimi_audio.generation.transcript import join_texts
from kimi_audio.model import KimiAudio
from kimi_audio.pronunciation import Lexicon
from kimi_audio.tokenizer.phonemes import PhonemeConfig, PhonemeReader

RATE = 16_000
SPEECH = load_audio(Path(__file__).parents[1] / "examples" / "kathleen.flac")


@pytest.fixture(scope="module")
def model() -> KimiAudio:
    return tiny_model()


def tone(seconds: float, pitch: float = 220.0) -> np.ndarray:
    """Something voiced: harmonics of a pitch that falls, in syllables."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(pitch * (1 - 0.1 * np.sin(2 * np.pi * 0.7 * t))) / RATE
    voiced = sum(np.sin(k * phase) / k for k in range(1, 20))
    return (0.1 * voiced * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))).astype(np.float32)


def user(kind: str, content: Any) -> dict[str, Any]:
    return {"role": "user", "message_type": kind, "content": content}


CONVERSATIONS = {
    "text": [user("text", "Hello 世界")],
    "audio": [user("text", "What is it?"), user("audio", tone(0.7))],
    "several audios": [user("audio", tone(0.4)), user("audio", tone(0.9, 110)), user("text", "Which is lower?")],
    "several turns": [
        user("audio", tone(0.5)),
        {"role": "assistant", "message_type": "text", "content": "A tone."},
        user("text", "Sure?"),
    ],
}


DRAWN = {"text_temperature": 1.0, "text_top_k": 0, "seed": 3}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("options", [{}, DRAWN], ids=["greedy", "drawn"])
def test_streamed_pieces_join_to_the_answer(name: str, options: dict[str, Any], model: KimiAudio) -> None:
    messages = CONVERSATIONS[name]
    whole = model.generate(messages, max_new_tokens=30, **options).text
    pieces = list(model.stream(messages, max_new_tokens=30, **options))
    assert "".join(pieces) == whole
    assert all(pieces)


def test_loops_end_in_a_stream_too() -> None:
    """A model that says one id over and over has to say another, and its reply says it once."""
    model = tiny_model(generation_config={"max_new_tokens": 60})
    model.llm.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([65]), 1e4))
    whole = model.stream(CONVERSATIONS["text"])
    assert "".join(whole) == whole.reply.text == "A" * 60
    broken = model.stream(CONVERSATIONS["text"], break_loops=True)
    assert "A" * 13 not in "".join(broken) and "A" * 12 not in broken.reply.text


def test_answers_depend_on_the_sound(model: KimiAudio) -> None:
    heard = {model.ask("What?", tone(0.7, pitch), max_new_tokens=20).text for pitch in (90, 180, 400)}
    assert len(heard) > 1


def test_sources_of_all_kinds_are_the_same_sound(model: KimiAudio, tmp_path: Path) -> None:
    samples = (tone(0.6) * 32767).astype(np.int16)
    path, file = tmp_path / "tone.wav", io.BytesIO()
    soundfile.write(path, samples, RATE)
    soundfile.write(file, samples, RATE, format="WAV")
    heard = [model.listen(source) for source in (path, str(path), path.read_bytes(), file, samples)]
    assert all(other.codes == heard[0].codes for other in heard)
    assert all((other.features == heard[0].features).all() for other in heard if heard[0].features is not None)


def test_a_saved_model_answers_the_same(model: KimiAudio, tmp_path: Path) -> None:
    model.save(tmp_path / "copy")
    copy = KimiAudio.from_pretrained(tmp_path / "copy", device="cpu")
    for messages in CONVERSATIONS.values():
        assert copy.generate(messages, max_new_tokens=15) == model.generate(messages, max_new_tokens=15)
    half = KimiAudio.from_pretrained(tmp_path / "copy", dtype="bfloat16", device="cpu")
    assert half.transcribe(tone(2)).seconds == 2.0
    with pytest.raises(ConfigError, match="dtype is 'int7'; accepted are float32, bfloat16, float16, int8, int4"):
        KimiAudio.from_pretrained(tmp_path / "copy", dtype="int7")


def test_seeds_repeat_a_drawn_answer(model: KimiAudio) -> None:
    options = {"text_temperature": 1.5, "text_top_k": 0, "max_new_tokens": 20}
    first, second, other = (model.generate(CONVERSATIONS["text"], seed=seed, **options).text for seed in (1, 1, 2))
    assert first == second != other


def test_defaults_come_from_the_model_folder() -> None:
    config = {"text_temperature": 0.5, "max_new_tokens": 7, "transcribe_instruction": "write:", "max_length": 8192}
    model = tiny_model(generation_config=config)
    assert model.defaults.text_temperature == 0.5
    assert model.habits.transcribe_instruction == "write:"
    assert len(list(model.stream(CONVERSATIONS["text"]))) <= 8
    with pytest.raises(ConfigError, match="text_top_k is -2"):
        tiny_model(generation_config={"text_top_k": -2})


def test_history_ends_as_the_model_was_trained(model: KimiAudio) -> None:
    trained = tiny_model(generation_config={"history_text_eos": True})
    assert trained.prompt(CONVERSATIONS["several turns"]).text_ids.count(VOCAB.text_eos) == 1
    assert model.prompt(CONVERSATIONS["several turns"]).text_ids.count(VOCAB.text_eos) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"output_type": "both"}, ConfigError, "no detokenizer"),
        ({"output_type": "audio"}, ConfigError, "output_type is 'audio'"),
        ({"temperature": 1}, ConfigError, "'temperature' is no option; accepted are audio_temperature"),
        ({"messages": []}, DataError, "messages is empty"),
        ({"messages": [user("audio", "nowhere.wav")]}, AudioError, r"nowhere\.wav"),
        ({"messages": [user("audio", b"not a sound")]}, AudioError, "not a sound file"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: dict[str, Any], error: type[Exception], sentence: str, model: KimiAudio
) -> None:
    with pytest.raises(error, match=sentence):
        model.generate(**{"messages": CONVERSATIONS["text"], **arguments})


def test_silence_has_no_words(model: KimiAudio) -> None:
    transcript = model.transcribe(np.zeros(5 * RATE, np.float32))
    assert (transcript.text, transcript.segments, transcript.seconds) == ("", [], 5.0)
    assert transcript.rtf > 0


def test_progress_is_told_block_by_block(model: KimiAudio) -> None:
    told: list[float] = []
    model.transcribe(np.zeros(25 * RATE, np.float32), report=told.append)
    assert told == [10.0, 20.0, 25.0]


def test_long_recordings_are_transcribed_passage_by_passage(model: KimiAudio) -> None:
    pause = np.zeros(3 * RATE, np.float32)
    recording = np.concatenate([pause, SPEECH, pause, SPEECH * 0.3, pause, SPEECH * 0.7])
    together = model.transcribe(recording)
    assert model.transcribe(recording, batch_size=1).segments == together.segments
    assert list(model.transcribe_segments(recording, batch_size=2)) == together.segments
    assert len(together.segments) == 3
    assert together.seconds == len(recording) / RATE
    assert together.text == join_texts(segment.text for segment in together.segments)
    times = [time for segment in together.segments for time in (segment.start, segment.end)]
    assert times == sorted(times)
    for segment in together.segments:
        assert len(segment.text) <= 0.6 * 12.5 * (segment.end - segment.start) + 9


def test_other_rates_instructions_and_short_passages(model: KimiAudio) -> None:
    assert model.transcribe(np.repeat(SPEECH, 2), rate=2 * RATE).seconds == len(SPEECH) / RATE
    texts = {model.transcribe(SPEECH, instruction=instruction).text for instruction in ("a", "b", "c", "d")}
    assert len(texts) > 1
    short = tiny_model(generation_config={"max_segment_seconds": 2.0})
    assert all(segment.end - segment.start <= 2.0 for segment in short.transcribe_segments(SPEECH))


@pytest.mark.parametrize(
    ("texts", "joined"),
    [([], ""), (["a", "b"], "a b"), (["你好。", "世界"], "你好。世界"), (["é", "é"], "é é"), (["你", "ok"], "你 ok")],
)
def test_texts_are_joined_as_their_script_wants(texts: list[str], joined: str) -> None:
    assert join_texts(texts) == joined


@pytest.fixture(scope="module")
def writer() -> KimiAudio:
    """A model that reads phonemes and writes requests down."""
    parts = tiny_model().parts
    parts.lexicon, parts.phonemes = Lexicon({"tea": "ti"}), PhonemeReader(PhonemeConfig(32, 8, 3, 1)).eval()
    with torch.no_grad():
        parts.phonemes.out.bias[0] = -20  # it never hears silence,
        parts.llm.lm_head.weight[ord("a") : ord("z")] *= 20  # and likes letters
    parts.generation_config = {"write_requests_down": True, "beams": 2, "max_segment_seconds": 4.0}
    return KimiAudio(parts)


def test_a_spoken_request_is_answered_as_if_typed(writer: KimiAudio) -> None:
    heard = writer.listen_to_request(tone(0.6))
    assert heard.words
    typed = writer.generate([user("text", heard.words)], max_new_tokens=20).text
    assert writer.generate([user("audio", tone(0.6))], max_new_tokens=20).text == typed
    assert writer.generate([user("audio", heard)], max_new_tokens=20).text == typed


def test_sounds_that_are_no_request_stay_sounds(writer: KimiAudio) -> None:
    asked = [user("text", "What is it?"), user("audio", tone(0.6))]
    assert writer.prompt(asked).features
    assert writer.prompt([user("audio", tone(5.0))]).features, "longer than a passage"
    silent = replace(writer.listen(tone(0.6)), words="")
    assert writer.prompt([user("audio", silent)]).features, "nothing was understood"
    assert not writer.prompt([user("audio", replace(silent, words="go"))]).features


def test_passages_are_searched_for_together_as_alone(writer: KimiAudio) -> None:
    alone = [writer.transcribe_segments(SPEECH, batch_size=1), writer.transcribe_segments(SPEECH, batch_size=8)]
    first, second = ([segment.text for segment in segments] for segments in alone)
    assert first == second


def test_another_instruction_than_to_transcribe_is_not_searched_for(writer: KimiAudio) -> None:
    def words(**options: str) -> set[str]:
        said = " ".join(segment.text for segment in writer.transcribe_segments(SPEECH, **options))
        return set(re.sub("[,.?!]", "", said).lower().split())

    assert words() <= {"tea"}
    assert not words(instruction="Translate this:") <= {"tea"}
