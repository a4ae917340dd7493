"""`say` and `chat` as a user meets them."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
from tiny_model import tiny_model
from typer.testing import CliRunner, Result

from kimi_audio.checkpoint.layout import save_parts
from kimi_audio.cli import app
from kimi_audio.llm.model import AudioLLM

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
def listener(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("listening")
    tiny_model(generation_config={"max_new_tokens": 12}).save(folder)
    return str(folder)


def run(*arguments: str | Path, typed: str | None = None) -> Result:
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


def test_ctrl_c_keeps_what_was_said(model: str, tmp_path: Path) -> None:
    target = tmp_path / "long.wav"
    process = subprocess.Popen(
        [*COMMAND, "say", LONG, "-o", str(target), "--model", model],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for _ in range(600):
        if target.exists() and target.stat().st_size > 100_000:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-1500:]
    told = re.fullmatch(r"kimi-audio: interrupted; (\d+\.\d) s of speech are in .*long\.wav\n", errors)
    assert told, errors
    assert soundfile.info(target).duration == pytest.approx(float(told[1]), abs=0.06)


def test_a_spoken_question_is_answered_in_writing_and_aloud(model: str, tmp_path: Path) -> None:
    result = run("chat", SPEECH, "-o", tmp_path / "answer.wav", "--seed", "3", "--model", model)
    assert result.exit_code == 0 and result.stdout.endswith("\n")
    assert soundfile.info(tmp_path / "answer.wav").duration > 0


def test_a_conversation_takes_text_and_sounds_and_outlives_mistakes(model: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_text("not a sound")
    typed = f"Hello.\n{SPEECH}\n\n{broken}\nStill there?\n"
    result = run("chat", "-o", tmp_path / "all.wav", "--model", model, typed=typed)
    assert result.exit_code == 0
    assert "broken.wav" in result.stderr
    assert len(result.stdout.splitlines()) >= 3
    assert soundfile.info(tmp_path / "all.wav").duration > 0


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
