"""Adapters: our own model, real programs that answer, die, hang and babble, and what a spec may be."""

import json
import os
import shlex
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_model import tiny_model

from kimi_audio.audio.decode import load_audio
from kimi_audio.errors import AudioError, CheckpointError, ConfigError, DataError
from kimi_audio.evaluation.adapters import KimiAudioAdapter, make_adapter
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.command import CommandAdapter, ProgramError
from kimi_audio.evaluation.evaluate import can_do, predict
from kimi_audio.evaluation.samples import Sample
from kimi_audio.evaluation.store import PredictionLog, fingerprint
from kimi_audio.messages import Message
from kimi_audio.model import KimiAudio

SPEECH = Path(__file__).parents[2] / "examples" / "kathleen.flac"
SPOKEN = {"audio_temperature": 1.0, "audio_top_k": 12.0, "max_new_tokens": 30.0}


def benchmark(**fields: Any) -> Benchmark:
    wanted: dict[str, Any] = {"name": "b", "title": "B", "kind": "chat", "folder": "b", "metric": "m"}
    return Benchmark(**wanted | fields)


def sample(name: str, *audios: Path, instruction: str | None = None) -> Sample:
    return Sample(name, audios, instruction, "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "listener"
    tiny_model().save(path)
    return path


@pytest.fixture(scope="module")
def listener(folder: Path) -> KimiAudioAdapter:
    return KimiAudioAdapter(str(folder))


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> KimiAudioAdapter:
    path = tmp_path_factory.mktemp("models") / "speaker"
    tiny_model(speaks=True).save(path)
    return KimiAudioAdapter(str(path), seed=5)


def test_a_transcript_is_that_of_transcribe(listener: KimiAudioAdapter, folder: Path) -> None:
    expected = KimiAudio.from_pretrained(folder, dtype="auto").transcribe(SPEECH, max_new_tokens=9).text
    asked = benchmark(sampling={"max_new_tokens": 9.0})
    assert expected
    assert listener.generate(sample("1", SPEECH), asked).text == expected
    assert listener.generate(sample("1", SPEECH, SPEECH), asked).text == f"{expected} {expected}"


@pytest.mark.parametrize(("instruction", "audios"), [("What?", (SPEECH,)), ("What?", ()), ("", (SPEECH,))])
def test_an_answer_is_that_of_generate(
    instruction: str, audios: tuple[Path, ...], listener: KimiAudioAdapter, folder: Path
) -> None:
    model = KimiAudio.from_pretrained(folder, dtype="auto")
    written = [Message("user", "text", instruction)] if instruction else []
    messages = written + [Message("user", "audio", path) for path in audios]
    options = {"text_temperature": 1.0, "text_top_k": 4, "max_new_tokens": 12}
    expected = model.generate(messages, seed=0, break_loops=True, **options).text
    sampling = {name: float(value) for name, value in options.items()}
    answered = listener.generate(sample("1", *audios, instruction=instruction), benchmark(sampling=sampling))
    assert answered.text == expected and answered.audio is None


def test_earlier_turns_stand_before_the_question(listener: KimiAudioAdapter, folder: Path) -> None:
    history = (Message("user", "audio", str(SPEECH)), Message("assistant", "text", "A voice."))
    asked = benchmark(instruction="", sampling={"text_temperature": 1.0, "text_top_k": 4.0, "max_new_tokens": 12.0})
    answered = listener.generate(Sample("1", (SPEECH,), "", "", history=history), asked).text
    expected = KimiAudio.from_pretrained(folder, dtype="auto").generate(
        [*history, Message("user", "audio", SPEECH)], seed=0, break_loops=True,
        text_temperature=1.0, text_top_k=4, max_new_tokens=12,
    ).text  # fmt: skip
    assert answered == expected != listener.generate(sample("1", SPEECH, instruction=""), asked).text


def test_a_model_without_a_mouth_is_not_asked_to_speak(listener: KimiAudioAdapter) -> None:
    assert can_do(listener, benchmark(instruction="What?")) and not can_do(listener, benchmark(speaks=True))


def test_a_spoken_answer_comes_with_the_time_to_its_first_sound(speaker: KimiAudioAdapter) -> None:
    asked = benchmark(speaks=True, sampling=SPOKEN)
    assert can_do(speaker, asked)
    started = time.perf_counter()
    answer = speaker.generate(sample("1", SPEECH), asked)
    took = time.perf_counter() - started
    assert answer.audio is not None and len(answer.audio) and answer.rate == 24_000
    assert answer.first_sound is not None and 0 < answer.first_sound < took
    again = speaker.generate(sample("1", SPEECH), asked)
    assert again.audio is not None and np.array_equal(answer.audio, again.audio) and answer.text == again.text


def test_a_recording_goes_through_the_detokenizer(tmp_path: Path) -> None:
    model = tiny_model(speaks=True)
    model.save(tmp_path / "speaker")
    adapter = make_adapter(f"revoiced:{tmp_path / 'speaker'}", seed=5)
    assert adapter.name == "revoiced by speaker" and can_do(adapter, benchmark(speaks=True))
    answer = adapter.generate(
        Sample("1", (), None, "A text.", fields={"recording": str(SPEECH)}), benchmark(speaks=True)
    )
    speaker = KimiAudio.from_pretrained(tmp_path / "speaker", dtype="auto")
    expected = np.concatenate(list(speaker.revoice(SPEECH, seed=5)))
    assert answer.audio is not None and np.array_equal(answer.audio, expected)
    assert answer.text == "A text." and answer.first_sound
    with pytest.raises(DataError, match="no recording of somebody"):
        adapter.generate(Sample("1", (), None, "A text."), benchmark(speaks=True))


def test_a_recording_goes_through_a_vocoder_alone(tmp_path: Path) -> None:
    model = tiny_model(speaks=True)
    model.save(tmp_path)
    adapter = make_adapter(f"vocoded:{tmp_path / 'vocoder'}")
    read = Sample("1", (), None, "A text.", fields={"recording": str(SPEECH)})
    answer = adapter.generate(read, benchmark(speaks=True))
    recording = load_audio(SPEECH, answer.rate)
    assert adapter.name == "vocoded by vocoder" and answer.rate == 24_000
    assert answer.audio is not None and abs(len(answer.audio) - len(recording)) < 480
    with pytest.raises(CheckpointError, match=r"config\.json"):
        make_adapter(f"vocoded:{tmp_path / 'nothing'}")


def test_a_model_is_named_by_its_folder_and_known_by_its_weights(
    listener: KimiAudioAdapter, folder: Path, tmp_path: Path
) -> None:
    assert listener.name == "listener"
    tiny_model().save(tmp_path / "same")
    tiny_model(seed=1).save(tmp_path / "other")
    assert listener.fingerprint == fingerprint(folder) == fingerprint(tmp_path / "same")
    assert fingerprint(tmp_path / "other") != listener.fingerprint


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "part/pretrained.pt", "network.onnx"])
def test_weights_in_any_file_are_known(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    marks = set()
    for content in (b"one", b"two"):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "README.md").write_bytes(content * 2)
        marks.add(fingerprint(tmp_path))
    assert len(marks) == 2
    (tmp_path / "README.md").write_bytes(b"another")
    assert fingerprint(tmp_path) in marks


def test_a_result_tells_what_a_model_adds_to_the_benchmark(tmp_path: Path) -> None:
    speech = {"chunk_codes": 24, "look_ahead_codes": 6, "steps": 4}
    own = {"transcribe_instruction": "Write it down:", "text_temperature": 0.5, "text_top_k": 3, "speech": speech}
    tiny_model(generation_config=own, speaks=True).save(tmp_path)
    adapter = KimiAudioAdapter(str(tmp_path))
    told = adapter.recipe(benchmark(sampling={"text_top_k": 7.0}))
    assert told["transcribe_instruction"] == "Write it down:" and told["break_loops"] is True
    assert (told["sampling"]["text_temperature"], told["sampling"]["text_top_k"]) == (0.5, 7)
    assert "speech" not in told
    assert adapter.recipe(benchmark(speaks=True))["speech"] == speech


def test_there_is_nothing_to_transcribe_without_a_sound(listener: KimiAudioAdapter) -> None:
    with pytest.raises(DataError, match="1: there is no sound"):
        listener.generate(sample("1"), benchmark())


@pytest.mark.parametrize("spec", ["/no/such/model", "nonsense", "wisper:models", "openai-talk:a@http://h/v1"])
def test_a_spec_that_names_no_model_lists_what_is_accepted(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_adapter(spec)
    message = str(caught.value)
    assert repr(spec) in message
    assert all(kind in message for kind in ("tiny", "whisper:", "openai:", "openai-transcribe:", "command:"))


@pytest.mark.parametrize("spec", ["command:", "command:no-such-program -x", "command:'open", "openai:gpt-4o",
                                  "whisper:/no/such", "whisper-hf:/no/such"])  # fmt: skip
def test_what_belongs_to_a_spec_is_checked(spec: str) -> None:
    with pytest.raises(ConfigError):
        make_adapter(spec)


@pytest.mark.parametrize("kind", ["whisper", "whisper-hf"])
def test_a_folder_without_a_whisper_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"needs config\.json, model\.safetensors, tokenizer\.json"):
        make_adapter(f"{kind}:{tmp_path}")


@pytest.mark.parametrize("kind", ["whisper", "whisper-hf"])
def test_a_real_whisper_hears_what_is_said(kind: str, tmp_path: Path) -> None:
    if not (whisper := os.environ.get("KIMI_AUDIO_TEST_WHISPER")):
        pytest.skip("KIMI_AUDIO_TEST_WHISPER names no Whisper folder")
    adapter = make_adapter(f"{kind}:{whisper}")
    assert not can_do(adapter, benchmark(instruction="What?")) and not can_do(adapter, benchmark(speaks=True))
    text = adapter.generate(sample("1", SPEECH), benchmark()).text
    assert text == "There was pride and strength, the ring of triumph in his voice."
    samples_L, rate = soundfile.read(SPEECH)
    pause_L = np.zeros(rate // 2)
    often = np.concatenate([samples_L, pause_L] * 3)
    late = np.concatenate([samples_L, np.zeros(30 * rate - len(samples_L)), samples_L])
    for name, sound, times in (("often", often, 3), ("late", late, 2)):
        soundfile.write(tmp_path / f"{name}.wav", sound, rate)
        text = adapter.generate(sample(name, tmp_path / f"{name}.wav"), benchmark()).text
        assert text.count("pride and strength") == times and "<|" not in text


# A program: PROGRAM is the loop over the requests, `say` writes an answer.
PROGRAM = """
import json, os, sys, time
def say(**answer):
    print(json.dumps(answer), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    {body}
"""


@pytest.fixture
def program(tmp_path: Path):
    """Makes an adapter of a program whose loop does what `body` says."""
    made: list[CommandAdapter] = []

    def make(body: str, timeout: float = 30.0, kind: str = "command") -> CommandAdapter:
        script = tmp_path / "program.py"
        script.write_text(PROGRAM.format(body=dedent(body).strip().replace("\n", "\n    ")))
        adapter = make_adapter(f"{kind}:{shlex.quote(sys.executable)} {shlex.quote(str(script))}", timeout=timeout)
        assert isinstance(adapter, CommandAdapter)
        made.append(adapter)
        return adapter

    yield make
    for adapter in made:
        adapter.close()


def test_a_program_is_started_once_and_told_everything(program) -> None:
    adapter = program("""say(id=asked["id"], text=json.dumps([os.getpid(), asked]))""")
    asked = benchmark(language="zh", sampling={"max_new_tokens": 20.0})
    first = adapter.generate(sample("a", SPEECH, instruction="Was hörst du?\n\nSag es."), asked)
    second = adapter.generate(sample("b"), asked)
    (first_process, request), (second_process, other) = json.loads(first.text), json.loads(second.text)
    assert first_process == second_process != os.getpid()
    assert request == {
        "id": "a",
        "audios": [str(SPEECH)],
        "instruction": "Was hörst du?\n\nSag es.",
        "language": "zh",
        "speak": False,
        "sampling": {"max_new_tokens": 20},
    }
    assert other["instruction"] is None and other["audios"] == []


def test_a_program_is_told_earlier_turns(program) -> None:
    adapter = program("""say(id=asked["id"], text=json.dumps(asked.get("history")))""")
    history = (Message("user", "audio", str(SPEECH)), Message("assistant", "text", "A voice."))
    told = json.loads(adapter.generate(Sample("a", (), "Whose?", "", history=history), benchmark()).text)
    assert told == [{"role": "user", "message_type": "audio", "content": str(SPEECH)},
                    {"role": "assistant", "message_type": "text", "content": "A voice."}]  # fmt: skip
    assert adapter.generate(sample("b"), benchmark()).text == "null"


def test_a_program_may_speak(program, tmp_path: Path) -> None:
    spoken = tmp_path / "spoken.wav"
    soundfile.write(spoken, np.zeros(8000), 16_000)
    adapter = program(f"""say(id=asked["id"], text="hush", audio={str(spoken)!r})""", kind="command-speech")
    assert can_do(adapter, benchmark(speaks=True))
    output = adapter.generate(sample("a"), benchmark(speaks=True))
    assert output.audio is not None and len(output.audio) / output.rate == pytest.approx(0.5)


def test_a_sound_that_is_not_there_is_told(program) -> None:
    adapter = program("""say(id=asked["id"], text="hush", audio="/no/such.wav")""")
    with pytest.raises(AudioError, match=r"/no/such\.wav"):
        adapter.generate(sample("a"), benchmark())


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("""raise RuntimeError("out of memory")""", "ended with code 1 .*: RuntimeError: out of memory"),
        ("""sys.exit(3)""", "ended with code 3 instead of answering$"),
        ("""os.kill(os.getpid(), 9)""", "ended with code -9"),
        ("""print("Loading ...", flush=True)""", r"wrote 'Loading \.\.\.' where a JSON object"),
        ("""print("[1]", flush=True)""", "where a JSON object"),
        ("""sys.stdout.buffer.write(b"\\xff\\xfe\\n"); sys.stdout.flush()""", "where a JSON object"),
        ("""say(id="z", text="x")""", "answered 'z', but 'bad' was asked"),
        ("""say(id="bad")""", "no field 'text'"),
        ("""say(id="bad", text=None)""", "no field 'text'"),
    ],
)
def test_trouble_costs_one_sample_only(trouble: str, told: str, program) -> None:
    adapter = program(f"""
        if asked["id"] == "bad":
            {trouble}
            say(id="bad", text="too late")
        say(id=asked["id"], text="fine")
        """)
    assert adapter.generate(sample("first"), benchmark()).text == "fine"
    with pytest.raises(ProgramError, match=told):
        adapter.generate(sample("bad"), benchmark())
    assert adapter.generate(sample("next"), benchmark()).text == "fine"


@pytest.mark.parametrize("hangs", ["time.sleep(60)", "sys.stdout.write('{'); sys.stdout.flush(); time.sleep(60)"])
def test_a_program_that_hangs_is_ended_and_started_again(hangs: str, program) -> None:
    adapter = program(
        f"""
        if asked["id"] == "bad":
            {hangs}
        say(id=asked["id"], text=str(os.getpid()))
        """,
        timeout=5.0,
    )
    process = int(adapter.generate(sample("first"), benchmark()).text)
    adapter._timeout = 0.3
    with pytest.raises(ProgramError, match=r"no line within 0\.3 s"):
        adapter.generate(sample("bad"), benchmark())
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    adapter._timeout = 30.0
    assert int(adapter.generate(sample("next"), benchmark()).text) != process


def test_a_program_ends_with_its_adapter(program) -> None:
    adapter = program("""say(id=asked["id"], text=str(os.getpid()))""")
    process = int(adapter.generate(sample("a"), benchmark()).text)
    os.kill(process, 0)
    adapter.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_failure_of_a_program_is_kept_as_an_error_and_the_rest_goes_on(program, tmp_path: Path) -> None:
    adapter = program("""
        if asked["id"] == "1":
            raise ValueError("I dislike ones")
        say(id=asked["id"], text="fine")
        """)
    samples = [sample(name) for name in "012"]
    kept = list(predict(adapter, benchmark(), samples, PredictionLog(tmp_path / "log")))
    assert [row.text for row in kept] == ["fine", "", "fine"]
    assert "I dislike ones" in (kept[1].error or "")


def test_programs_are_known_by_their_command_lines() -> None:
    one, same, other = (make_adapter(f"command:{sys.executable} {rest}") for rest in ("-x", "-x", "-y"))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert make_adapter(f"command-speech:{sys.executable} -x").fingerprint != one.fingerprint
    assert one.name == f"{sys.executable} -x"
