"""The command line as a user meets it: what it prints, where, and with which exit code."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_model
from typer.testing import CliRunner, Result

from kimi_audio.cli import app, subtitles
from kimi_audio.generation.transcript import TranscriptSegment

ROOT = Path(__file__).parents[1]
SPEECH = str(ROOT / "examples" / "kathleen.flac")
DOG = str(ROOT / "examples" / "dog.flac")
COMMAND = [sys.executable, "-c", "from kimi_audio.cli import main; main()"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a complete model of random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model(generation_config={"max_new_tokens": 12}).save(folder)
    return str(folder)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def complaints(result: Result) -> list[str]:
    """Lines on standard error that are not about what was done."""
    return [line for line in result.stderr.splitlines() if "× real time" not in line]


def test_help_names_every_command_without_loading_torch() -> None:
    script = "import sys, kimi_audio.cli; assert not {'torch', 'numpy', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
    result = run("--help")
    assert result.exit_code == 0
    for name in ("transcribe", "ask", "verify", "info", "train"):
        assert re.search(rf"^  {name} ", result.stdout, re.MULTILINE)


def test_one_file_gives_one_line_of_text_and_says_how_long_it_took(model: str) -> None:
    result = run("transcribe", "--model", model, SPEECH)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    assert re.fullmatch(
        r"kimi-audio: .*kathleen\.flac: 4\.0 s of sound in \d+\.\d s \(\d+\.\d\d × real time\)\n", result.stderr
    )


def test_several_files_give_a_line_each_with_their_names(model: str) -> None:
    result = run("transcribe", "--model", model, SPEECH, DOG)
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [SPEECH, DOG]


def test_json_lines_have_the_documented_fields(model: str) -> None:
    rows = [json.loads(line) for line in run("transcribe", "--model", model, "--json", SPEECH, DOG).stdout.splitlines()]
    assert [row["audio"] for row in rows] == [SPEECH, DOG]
    for row in rows:
        assert set(row) == {"audio", "text", "seconds", "rtf"}
        assert row["rtf"] > 0
    assert rows[0]["seconds"] == pytest.approx(3.988, abs=0.001)
    assert rows[0]["text"]


def test_silence_gives_an_empty_text(model: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(32000), 16000)
    result = run("transcribe", "--model", model, "--json", tmp_path / "silence.wav")
    assert json.loads(result.stdout)["text"] == ""


def test_ask_answers_about_several_sounds(model: str) -> None:
    result = run("ask", "What do you hear?", SPEECH, DOG, "--model", model, "--json")
    row = json.loads(result.stdout)
    assert set(row) == {"instruction", "audio", "text", "seconds", "rtf"}
    assert row["audio"] == [SPEECH, DOG]
    assert row["seconds"] == pytest.approx(3.988 + 5.0, abs=0.01)
    plain = run("ask", "What do you hear?", SPEECH, DOG, "--model", model)
    assert plain.stdout == row["text"] + "\n"


def broken_file(kind: str, folder: Path) -> Path:
    """A file that holds no usable sound."""
    path = folder / f"{kind}.wav"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("This is not a sound.\n" * 100)
    elif kind == "truncated":
        path.write_bytes(Path(SPEECH).read_bytes()[:60])
    elif kind == "not-a-number":
        soundfile.write(path, np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")
    elif kind == "zero-length":
        soundfile.write(path, np.zeros(0), 16000)
    elif kind == "1-hertz":
        soundfile.write(path, np.zeros(60), 1)
    elif kind == "directory":
        path.mkdir()
    return path


BROKEN = ["empty", "text", "truncated", "not-a-number", "zero-length", "1-hertz", "directory", "missing"]


def test_a_broken_file_gets_one_sentence_and_the_others_are_done(model: str, tmp_path: Path) -> None:
    paths = [broken_file(kind, tmp_path) for kind in BROKEN]
    result = run("transcribe", "--model", model, *paths, SPEECH)
    assert result.exit_code == 2
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [SPEECH]
    told = complaints(result)
    assert len(told) == len(paths)
    for path, line in zip(paths, told, strict=True):
        assert line.startswith("kimi-audio: ") and str(path) in line


FORMATS = {"wav": None, "flac": None, "mp3": None, "aiff": None, "ogg": "VORBIS", "opus": "OPUS"}


@pytest.mark.parametrize(("suffix", "codec"), FORMATS.items())
def test_a_file_that_breaks_off_is_written_down_as_far_as_it_goes_and_told(
    model: str, tmp_path: Path, suffix: str, codec: str | None
) -> None:
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"half.{suffix}"
    soundfile.write(whole, *soundfile.read(SPEECH), subtype=codec, format="OGG" if codec else None)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    result = run("transcribe", "--model", model, "--json", path, whole)
    assert result.exit_code == 2
    half, both = map(json.loads, result.stdout.splitlines())
    assert half["text"] and half["seconds"] < 0.6 * both["seconds"]
    assert len(complaints(result)) == 1
    assert re.fullmatch(rf"kimi-audio: {re.escape(str(path))} is damaged: it breaks off .*", complaints(result)[0])


def test_ask_and_subtitles_tell_of_a_file_that_breaks_off_too(model: str, tmp_path: Path) -> None:
    path = tmp_path / "half.flac"
    path.write_bytes(Path(SPEECH).read_bytes()[:40_000])
    for command in (["ask", "What?", path], ["transcribe", "--srt", path]):
        result = run(*command, "--model", model)
        assert result.exit_code == 2 and result.stdout.strip()
        assert len(complaints(result)) == 1 and "half.flac is damaged" in complaints(result)[0]


@pytest.mark.parametrize(("rate", "channels"), [(768_000, 1), (8_000, 32), (1_000, 2)])
def test_unusual_rates_and_channels_are_heard(model: str, tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "unusual.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.01, (rate // 2, channels)), rate)
    result = run("transcribe", "--model", model, "--json", path)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["seconds"] == pytest.approx(0.5, abs=0.01)


def test_ask_names_each_sound_that_cannot_be_read(model: str, tmp_path: Path) -> None:
    result = run("ask", "What?", tmp_path / "a.wav", SPEECH, tmp_path / "b.wav", "--model", model)
    assert (result.exit_code, result.stdout, len(complaints(result))) == (2, "", 2)


def set_fields(file: str, **values):
    """A damage: fields of a JSON file of the model become `values`."""

    def damage(folder: Path) -> None:
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | values))

    return damage


def flatten_quantised(folder: Path) -> None:
    """A weight stored as int8 that is no matrix."""
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].flatten().to(torch.int8)
    save_file(tensors | {"lm_head.weight_scale": torch.ones(1)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (flatten_quantised, "lm_head.weight"),
        (set_fields("config.json", hidden_size="32"), "hidden_size is '32'; a whole number is expected"),
        (set_fields("config.json", num_attention_heads=0), "num_attention_heads is 0; at least 1 is needed"),
        (set_fields("config.json", num_key_value_heads=3), "num_key_value_heads is 3"),
        (set_fields("config.json", vocab_size=None), "vocab_size is None; a whole number is expected"),
        (set_fields("config.json", num_hidden_layers=10**9), "asks for 10000000"),
        (set_fields("config.json", kimia_mimo_transformer_from_layer_index=3), "the layers are 0 to 2"),
        (set_fields("whisper-large-v3/config.json", d_model=[32]), "d_model is [32]"),
        (set_fields("whisper-large-v3/config.json", encoder_attention_heads=0), "encoder_attention_heads is 0"),
        (set_fields("glm-4-voice-tokenizer/config.json", pooling_position=9), "pooling_position is 9"),
        (set_fields("generation_config.json", text_temperature="hot"), "text_temperature is 'hot'; a number"),
        (set_fields("generation_config.json", max_new_tokens=None), "max_new_tokens is None; a whole number"),
        (set_fields("generation_config.json", max_segment_seconds="long"), "max_segment_seconds is 'long'"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64), "model.safetensors"),
        (lambda folder: (folder / "tiktoken.model").write_text("?"), "tiktoken.model"),
    ],
)
def test_a_damaged_checkpoint_gets_one_sentence(tmp_path: Path, damage, named: str) -> None:
    folder = tmp_path / "model"
    tiny_model(generation_config={"max_new_tokens": 12}).save(folder)
    damage(folder)
    result = run("transcribe", "--model", folder, SPEECH)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(complaints(result)) == 1
    assert named in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["transcribe", SPEECH, "--json", "--srt"],
        ["transcribe", SPEECH, "-o", "somewhere"],
        ["transcribe", SPEECH, DOG, "--srt"],
        ["transcribe", SPEECH, SPEECH, "--vtt", "-o", "somewhere"],
        ["transcribe"],
        ["transcribe", SPEECH, "--dtype", "float8"],
        ["train", "no-such-recipe.yaml"],
        ["info", "no-such-model"],
    ],
)
def test_contradictory_arguments_end_with_code_2(model: str, arguments: list[str]) -> None:
    where = ["--model", model] if arguments[0] == "transcribe" else []
    result = run(*arguments, *where)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr
    assert not Path("somewhere").exists()


def test_subtitles_go_to_standard_output_or_a_folder(model: str, tmp_path: Path) -> None:
    shown = run("transcribe", "--model", model, "--srt", SPEECH)
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n.+\n\n", shown.stdout)
    missing = tmp_path / "missing.wav"
    written = run("transcribe", "--model", model, "--srt", "-o", tmp_path / "out", missing, SPEECH)
    assert (written.exit_code, written.stdout) == (2, "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kathleen.srt"]
    assert (tmp_path / "out" / "kathleen.srt").read_text() == shown.stdout


def test_subtitle_formats() -> None:
    segments = [TranscriptSegment(0.0, 1.9996, "one & two"), TranscriptSegment(3723.45, 3724.0, "three\n\nfour")]
    srt = "".join(subtitles.pieces(segments, subtitles.Format.srt))
    assert srt == ("1\n00:00:00,000 --> 00:00:02,000\none & two\n\n2\n01:02:03,450 --> 01:02:04,000\nthree four\n\n")
    vtt = "".join(subtitles.pieces(segments, subtitles.Format.vtt))
    assert vtt == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\none &amp; two\n\n01:02:03.450 --> 01:02:04.000\nthree four\n\n"
    )


def test_an_output_folder_that_cannot_be_made_gets_one_sentence(model: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("transcribe", "--model", model, "--srt", "-o", tmp_path / "file" / "out", SPEECH)
    assert result.exit_code == 2
    assert len(complaints(result)) == 1 and str(tmp_path / "file") in result.stderr


GOLDEN = ROOT / "tests" / "golden"


def test_verify_prints_a_row_per_tensor_and_passes() -> None:
    result = run("verify", GOLDEN / "sampler")
    assert (result.exit_code, result.stderr) == (0, "")
    header, *rows, summary = result.stdout.splitlines()
    assert header.split() == ["case", "error", "tolerance", "tensor"]
    assert all(row.split()[0] == "sampler" and row.split()[3] == "pass" for row in rows)
    assert summary == f"{len(rows)} passed, 0 failed"


def test_verify_fails_with_code_1_when_a_figure_is_off(tmp_path: Path) -> None:
    case = shutil.copytree(GOLDEN / "sampler", tmp_path / "off")
    tensors = load_file(case / "expected.safetensors")
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name] + 1}, case / "expected.safetensors")
    result = run("verify", case)
    assert result.exit_code == 1
    assert re.search(rf"^off +1 .* FAIL +{re.escape(name)}$", result.stdout, re.MULTILINE)
    assert result.stdout.splitlines()[-1].endswith(" 1 failed")


def test_verify_names_a_folder_that_is_no_case_and_does_the_others(tmp_path: Path) -> None:
    result = run("verify", tmp_path, GOLDEN / "sampler")
    assert result.exit_code == 2
    assert len(complaints(result)) == 1 and str(tmp_path) in result.stderr
    assert result.stdout.splitlines()[-1].endswith(" 0 failed")


def test_info_says_what_a_folder_holds(model: str) -> None:
    result = run("info", model)
    assert result.exit_code == 0
    facts = {line[:24].strip(): line[25:] for line in result.stdout.splitlines()}
    assert facts["text ids"] == "0 … 255"
    assert {"parameters", "on disk", "licence", "training data"} <= set(facts)


def test_train_names_what_is_wrong_in_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("objective: juggling\n")
    result = run("train", recipe)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "recipe.yaml" in result.stderr and "juggling" in result.stderr


@pytest.mark.parametrize(("command", "extra"), [(("train", "recipe.yaml"), "train"), (("eval", "report", "r"), "eval")])
def test_a_command_says_how_to_install_what_it_needs(
    command: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kimi_audio.cli.common.find_spec", lambda name: None if name == "jiwer" else True)
    result = run(*command)
    assert result.exit_code == 2
    assert complaints(result) == [f'kimi-audio: this needs jiwer; install with: pip install -e ".[{extra}]"']


def test_ctrl_c_ends_cleanly_and_keeps_what_was_printed(model: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "transcribe", "--model", model, *[SPEECH] * 1000],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(SPEECH)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[:1500] + "...." + errors[-1500:]
    assert errors.splitlines()[-1] == "kimi-audio: interrupted"
    assert "Traceback" not in errors
