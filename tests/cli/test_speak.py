"""`say` and `chat` as a user meets them."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_model import tiny_model
from typer.testing import CliRunner, Result

from kimi_audio.audio.decode import load_audio
from kimi_audio.checkpoint.layout import save_parts
from kimi_audio.cli import app
from kimi_audio.cli.speak import Speaking, _turns
from kimi_audio.detokenizer.streaming import Detokenizer
from kimi_audio.errors import ConfigError
from kimi_audio.llm.model import AudioLLM
from kimi_audio.model import KimiAudio

SPEECH = str(Path(__file__).parents[2] / "examples" / "kathleen.flac")
COMMAND = [sys.executable, "-c", "from kimi_audio.cli import main; main()"]
DRAWN = {"audio_temperature": 1.0, "audio_top_k": 12, "max_new_tokens": 40}
LONG = "A sentence that goes on for a while and then ends. " * 200


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a complete model of random weights that can speak."""
    folder = tmp_path_factory.mktemp("speaking")
    tiny_model(generation_config=DRAWN, speaks=True).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model without a limit: its answers take a while."""
    folder = tmp_path_factory.mktemp("talking")
    tiny_model(generation_config=DRAWN | {"max_new_tokens": -1}, speaks=True).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model, but no id of its audio stream is ever a code."""
    folder = tmp_path_factory.mktemp("silent")
    mute = tiny_model(generation_config=DRAWN, speaks=True)
    mute.llm.mimo_output.weight.data.zero_()
    mute.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("listening")
    tiny_model(generation_config={"max_new_tokens": 12}).save(folder)
    return str(folder)


def run(*arguments: str | Path, typed: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)


def test_a_text_becomes_a_file(model: str, tmp_path: Path) -> None:
    result = run("say", "Good morning.", "-o", tmp_path / "hi.wav", "--model", model)
    assert (result.exit_code, result.stdout) == (0, "")
    info = soundfile.info(tmp_path / "hi.wav")
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    assert info.duration > 0.5
    assert re.search(r"s of speech in .* × real time\), the first after .*; wrote .*hi\.wav", result.stderr)


def test_texts_come_from_files_and_standard_input_too(model: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Good morning.")
    options = ["--seed", "1", "--steps", "2", "--chunk", "8", "--model", model]
    run("say", "Good morning.", "-o", tmp_path / "a.wav", *options)
    run("say", "-f", tmp_path / "text.txt", "-o", tmp_path / "b.wav", *options)
    run("say", "-", "-o", tmp_path / "c.wav", *options, typed="Good morning.")
    sounds = [(tmp_path / name).read_bytes() for name in ("a.wav", "b.wav", "c.wav")]
    assert len(set(sounds)) == 1 and len(sounds[0]) > 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Hello."], "where should the sound go?"),
        (["Hello.", "-o", "x.mp3"], "x.mp3: sound is written as .wav"),
        (["Hello.", "-o", "no/such/folder/x.wav"], "no/such/folder/x.wav: No such file or directory"),
        (["-o", "x.wav"], "give either the text to say"),
        (["Hello.", "-f", "x.txt", "-o", "x.wav"], "give either the text to say"),
        (["-f", "missing.txt", "-o", "x.wav"], "missing.txt: No such file"),
        (["", "-o", "x.wav"], "nothing to say"),
        (["…!", "-o", "x.wav"], "nothing to say"),
        (["Hello.", "--steps", "0", "-o", "x.wav"], "--steps"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: list[str], sentence: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("say", *arguments, "--model", model)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_failure_overwrites_nothing(model: str, listener: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.wav"
    kept.write_bytes(b"what was there")
    for text, speaker in (("…!", model), ("Hello.", listener)):
        assert run("say", text, "-o", kept, "--model", speaker).exit_code == 2
        assert kept.read_bytes() == b"what was there"


def test_a_model_that_only_listens_says_so(listener: str, tmp_path: Path) -> None:
    for arguments in (["say", "Hello."], ["chat", SPEECH], ["revoice", SPEECH]):
        result = run(*arguments, "-o", tmp_path / "x.wav", "--model", listener)
        assert result.exit_code == 2 and "can't speak" in result.stderr
    result = run("chat", SPEECH, "--model", listener)
    assert (result.exit_code, result.stderr) == (0, "") and result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told(model: str, tmp_path: Path) -> None:
    (tmp_path / "full.wav").symlink_to("/dev/full")
    result = run("say", "Hello there.", "-o", tmp_path / "full.wav", "--model", model)
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr and "Traceback" not in result.stderr


def start(*arguments: str | Path, before: str = "") -> subprocess.Popen[str]:
    """The command in a process of its own, after a line of Python."""
    code = f"{before}\nfrom kimi_audio.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def interrupted(process: subprocess.Popen[str], moment: Callable[[], bool]) -> str:
    """Ctrl-C as soon as `moment` has come; standard error."""
    for _ in range(1800):  # a busy machine is no failure
        if moment():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-1500:]
    return errors


@pytest.mark.parametrize("command", [["say", LONG], ["chat", SPEECH]], ids=["say", "chat"])
def test_ctrl_c_keeps_what_was_said(command: list[str], talker: str, tmp_path: Path) -> None:
    target = tmp_path / "long.wav"
    process = start(*command, "-o", target, "--model", talker)
    errors = interrupted(process, lambda: target.exists() and target.stat().st_size > 100_000)
    told = re.fullmatch(r"kimi-audio: interrupted; (\d+\.\d) s of speech are in .*long\.wav\n", errors)
    assert told, errors
    assert soundfile.info(target).duration == pytest.approx(float(told[1]), abs=0.06)


def test_ctrl_c_between_two_turns_keeps_the_answers(model: str, tmp_path: Path) -> None:
    target = tmp_path / "talk.wav"
    process = start("chat", "-o", target, "--model", model)
    assert process.stdin and process.stdout
    process.stdin.write("Hello.\n")
    process.stdin.flush()
    assert process.stdout.readline()  # complete when the answer is
    errors = interrupted(process, lambda: True)
    assert re.fullmatch(r"kimi-audio: interrupted; \d+\.\d s of speech are in .*talk\.wav\n", errors)
    assert soundfile.info(target).duration > 0.5


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("command", [["say", "Hello."], ["chat", SPEECH], ["chat"]])
def test_ctrl_c_before_the_first_sound_leaves_nothing(
    command: list[str], existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_, **__) -> None:
        signal.raise_signal(signal.SIGINT)

    target = tmp_path / "talk.wav"
    if existing:
        target.write_bytes(b"what was there")
    monkeypatch.setattr(KimiAudio, "from_pretrained", interrupt)
    result = run(*command, "-o", target)
    assert (result.exit_code, result.stderr) == (130, "kimi-audio: interrupted\n")
    assert target.exists() == existing
    assert not existing or target.read_bytes() == b"what was there"


@pytest.mark.parametrize("command", [["say", LONG], ["chat"]], ids=["say", "chat"])
def test_a_disk_that_gets_full_keeps_what_was_said(command: list[str], talker: str, tmp_path: Path) -> None:
    """In a conversation, too, it ends everything: no other turn would fare better."""
    target = tmp_path / "long.wav"
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))"
    process = start(*command, "-o", target, "--model", talker, before=limited)
    _, errors = process.communicate("Hello.\n" * 9, timeout=240)
    assert process.returncode == 2, errors[-1500:]
    told = re.fullmatch(r"kimi-audio: .*long\.wav: File too large; (\d+\.\d) s of speech are in .*long\.wav\n", errors)
    assert told, errors
    assert float(told[1]) > 1
    assert len(soundfile.read(target)[0]) / 24_000 == pytest.approx(float(told[1]), abs=0.06)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("command", [["say", "Hello."], ["chat", SPEECH]], ids=["say", "chat"])
def test_nothing_spoken_is_a_mistake(command: list[str], existing: bool, silent: str, tmp_path: Path) -> None:
    target = tmp_path / "zero.wav"
    if existing:
        target.write_bytes(b"what was there")
    result = run(*command, "-o", target, "--model", silent)
    assert result.exit_code == 2
    assert result.stderr == f"kimi-audio: nothing was spoken; {target} was not written\n"
    assert target.exists() == existing
    assert not existing or target.read_bytes() == b"what was there"


def test_options_change_only_what_they_name(tmp_path: Path) -> None:
    model = tiny_model(speaks=True)

    def manner(**options: int) -> tuple[int, int | None, int]:
        config = Speaking(**options).manner(model)
        return config.chunk_codes, config.first_chunk_codes, config.look_ahead_codes

    assert manner() == manner(steps=3) == (6, 4, 2)
    assert manner(chunk=9) == (9, 4, 2)
    assert manner(chunk=3) == (3, 4, 1)
    assert manner(first_chunk=2) == (6, 2, 1)
    assert manner(first_chunk=5, look_ahead=4) == (6, 5, 4)
    assert manner(look_ahead=0) == (6, 4, 0)
    with pytest.raises(ConfigError, match="look_ahead_codes is 4; 0 to 3 are possible"):
        manner(look_ahead=4)


def test_sound_is_played_while_it_is_written(model: str, devices: Any, tmp_path: Path) -> None:
    result = run("say", "Good morning.", "--play", "-o", tmp_path / "hi.wav", "--model", model)
    assert result.exit_code == 0
    played = np.concatenate(devices.played)
    assert np.allclose(soundfile.read(tmp_path / "hi.wav")[0], played.clip(-1, 1), atol=1e-4)
    assert devices.states == ["started", "stopped", "closed"]
    count = len(played)
    assert run("chat", SPEECH, "--play", "--model", model).exit_code == 0
    assert sum(map(len, devices.played)) > count


@pytest.mark.parametrize("command", ["say", "revoice", "chat"])
def test_without_a_loudspeaker_nothing_is_begun(command: str, devices: Any, tmp_path: Path) -> None:
    devices.broken = {"output"}
    kept, new = tmp_path / "kept.wav", tmp_path / "new.wav"
    kept.write_bytes(b"what was there")
    for target in (kept, new):
        result = run(command, SPEECH, "--play", "-o", target, "--model", tmp_path / "no model here")
        assert result.exit_code == 2
        assert re.fullmatch(r"kimi-audio: no loudspeaker on this machine \(.*\)\n", result.stderr)
    assert kept.read_bytes() == b"what was there" and not new.exists()


def test_a_loudspeaker_that_fails_ends_a_conversation(model: str, devices: Any, tmp_path: Path) -> None:
    devices.broken = {"playing"}
    result = run("chat", "--play", "-o", tmp_path / "a.wav", "--model", model, typed="Hello.\n" * 9)
    assert result.exit_code == 2 and result.stderr.count("no loudspeaker") == 1
    assert re.search(r"; \d+\.\d s of speech are in .*a\.wav\n", result.stderr)
    assert soundfile.info(tmp_path / "a.wav").duration > 0


def test_a_spoken_question_is_answered_in_writing_and_aloud(model: str, tmp_path: Path) -> None:
    result = run("chat", SPEECH, "-o", tmp_path / "answer.wav", "--seed", "3", "--model", model)
    assert result.exit_code == 0 and result.stdout.endswith("\n")
    assert soundfile.info(tmp_path / "answer.wav").duration > 0


def test_a_conversation_takes_text_and_sounds_and_outlives_mistakes(model: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_text("not a sound")
    typed = f"Hello.\n{SPEECH}\n\n{broken}\n{'A line longer than any file name. ' * 9}\n"
    result = run("chat", "-o", tmp_path / "all.wav", "--model", model, typed=typed)
    assert result.exit_code == 2, "one turn of four was a mistake"
    assert result.stderr.count("kimi-audio: ") == 1 and "broken.wav" in result.stderr
    assert len(result.stdout.splitlines()) >= 3
    assert soundfile.info(tmp_path / "all.wav").duration > 0
    assert run("chat", "--model", model, typed=typed.replace(str(broken), "Still there?")).exit_code == 0
    assert run("chat", "-o", tmp_path / "none.wav", "--model", model, typed="").exit_code == 0
    assert not (tmp_path / "none.wav").exists()


def test_sound_that_would_go_nowhere_is_not_made(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detokenizer, "stream", lambda *_, **__: pytest.fail("nobody asked for sound"))
    for question, typed in (([SPEECH], None), ([], "Hello.\n")):
        result = run("chat", *question, "--model", model, typed=typed)
        assert (result.exit_code, result.stderr) == (0, "") and result.stdout


def test_a_long_conversation_forgets_its_oldest_turns(model: str, tmp_path: Path) -> None:
    line = "A rather long thing to say, which has to be remembered. " * 8
    result = run("chat", "-o", tmp_path / "all.wav", "--model", model, typed=f"{line}\n" * 4)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == (
        "kimi-audio: the conversation has become long; from now on its oldest turns are forgotten\n"
    )


def test_a_conversation_at_the_terminal_listens(
    model: str, devices: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    devices.said = np.concatenate([load_audio(SPEECH), np.zeros(64_000, np.float32)])
    monkeypatch.setattr("sys.stdin", Terminal("Hello.\n\n\n"))
    turns = list(_turns())
    assert [turn.type for turn in turns] == ["text", "audio"] and isinstance(turns[1].content, np.ndarray)
    errors = capsys.readouterr().err
    assert "Enter alone listens" in errors and "nobody spoke" in errors
    devices.broken = {"input"}
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    assert list(_turns()) == [] and "Enter alone" not in capsys.readouterr().err


def test_what_is_typed_must_be_text(model: str, tmp_path: Path) -> None:
    """Bytes that are none arrive as an error or, by the terminal's settings, as lone surrogates."""
    options = ["-o", tmp_path / "x.wav", "--model", model]
    for arguments, typed, name in (
        (["say", "-"], b"Hello \xff", "standard input"),
        (["chat"], b"Hello \xff\n", "standard input"),
        (["say", "Hello \udcff"], None, "the text"),
    ):
        result = run(*arguments, *options, typed=typed)
        assert (result.exit_code, result.stderr) == (2, f"kimi-audio: {name}: is not text in UTF-8\n")


def test_a_question_that_is_not_there(model: str) -> None:
    result = run("chat", "missing.wav", "--model", model)
    assert result.exit_code == 2 and "missing.wav: no such file" in result.stderr


def test_a_recording_is_said_again(model: str, tmp_path: Path) -> None:
    """By a model without an audio branch, too: nothing of the language model is at work."""
    parts = tiny_model(speaks=True).parts
    parts.llm = AudioLLM(replace(parts.llm.config, kimia_mimo_layers=0)).eval()
    save_parts(tmp_path / "mouth", parts)
    options = ["-o", tmp_path / "a.wav", "--seed", "1", "--model", tmp_path / "mouth"]
    result = run("revoice", SPEECH, *options)
    assert result.exit_code == 0 and "s of speech in" in result.stderr
    first = (tmp_path / "a.wav").read_bytes()
    assert soundfile.info(tmp_path / "a.wav").duration == pytest.approx(soundfile.info(SPEECH).duration, abs=0.1)
    assert run("revoice", SPEECH, *options).exit_code == 0 and (tmp_path / "a.wav").read_bytes() == first

    result = run("revoice", tmp_path / "none.wav", *options)
    assert result.exit_code == 2 and "none.wav" in result.stderr and (tmp_path / "a.wav").read_bytes() == first
    result = run("say", "Hello.", *options)
    assert result.exit_code == 2 and "no audio branch" in result.stderr and (tmp_path / "a.wav").read_bytes() == first
    assert run("chat", SPEECH, "--model", tmp_path / "mouth").exit_code == 0
    assert run("revoice", SPEECH, "--model", tmp_path / "mouth").exit_code == 2
