"""`kimi-audio eval` from the command line to the page: a model of random weights on a handful of recordings."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_model import tiny_model
from typer.testing import CliRunner, Result

from kimi_audio.cli import app
from kimi_audio.evaluation.rating import conversation_prompts
from kimi_audio.evaluation.store import read_results

SPEECH = Path(__file__).parents[2] / "examples" / "kathleen.flac"
DRAWN = {"audio_temperature": 1.0, "audio_top_k": 12, "max_new_tokens": 40}
FIELDS = "folder: few, reference: text, normaliser: whisper-english"
FILES = {
    "words": f"{{name: words, title: Words, kind: recognition, metric: wer, {FIELDS}}}",
    "aloud": f"{{name: aloud, title: Aloud, kind: speech, metric: pauses, speaks: true, reads_aloud: true, "
    f"instruction: 'Read {{text}}', {FIELDS}}}",
    "rtf": f"{{name: rtf, title: Speed, kind: speech, metric: rtf, speaks: true, reads_aloud: true, answers: aloud, "
    f"instruction: 'Read {{text}}', {FIELDS}}}",
    "judged": f"{{name: judged, title: Judged, kind: answer, metric: judge-1-5, judge: answer-1-5, "
    f'instruction: "What?", {FIELDS}}}',
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, data and benchmark files."""
    folder = tmp_path_factory.mktemp("eval")
    tiny_model(generation_config=DRAWN, speaks=True).save(folder / "model")
    (folder / "data" / "few").mkdir(parents=True)
    (folder / "data" / "few" / "a.flac").symlink_to(SPEECH)
    soundfile.write(folder / "data" / "few" / "b.wav", np.zeros(16000), 16000)
    rows = [{"audio": name, "text": "there was pride", "duration": 1.0} for name in ("a.flac", "b.wav", "gone.wav")]
    (folder / "data" / "few" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, content in FILES.items():
        (folder / f"{name}.yaml").write_text(content)
    return folder


def evaluate(place: Path, names: str, results: Path, *options: str, model: str | None = None) -> Result:
    files = ",".join(str(place / f"{name}.yaml") for name in names.split(","))
    arguments = ["eval", files, "--model", model or str(place / "model"), "--data", str(place / "data")]
    return CliRunner().invoke(app, [*arguments, "-o", str(results), *options])


def test_from_the_command_to_the_page(place: Path, tmp_path: Path) -> None:
    done = evaluate(place, "words,aloud,rtf", tmp_path)
    assert done.exit_code == 0, done.output
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["model  Words", "model  Aloud", "model  Speed"]
    assert "2 items, 1 rows unusable" in done.stdout
    results = {result.benchmark: (result, items) for result, items in read_results(tmp_path)}
    assert results["words"][0].value > 0 and "gone.wav" in results["words"][0].faults[0]
    assert [item.audio for item in results["aloud"][1]] == [item.audio for item in results["rtf"][1]]
    assert results["rtf"][0].value > 0
    report = CliRunner().invoke(app, ["eval", "report", str(tmp_path)])
    assert report.exit_code == 0 and "| Words ↓ | 2 |" in report.stdout
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()


def test_answers_are_kept_and_can_be_scored_alone(place: Path, tmp_path: Path) -> None:
    evaluate(place, "words", tmp_path)
    (predictions,) = tmp_path.glob("*/words/predictions.jsonl")
    kept = predictions.read_text()
    predictions.write_text(kept.splitlines()[0] + "\n")
    assert "1 items" in evaluate(place, "words", tmp_path, "--score-only").stdout
    assert "2 items" in evaluate(place, "words", tmp_path).stdout
    assert predictions.read_text().splitlines()[0] == kept.splitlines()[0]
    assert "1 items" in evaluate(place, "words", tmp_path / "other", "--limit", "1").stdout


def test_people_are_measured_like_models(place: Path, tmp_path: Path) -> None:
    done = evaluate(place, "aloud,words", tmp_path, model="recordings")
    assert "recordings  Aloud" in done.stdout
    [(result, items)] = [pair for pair in read_results(tmp_path) if pair[0].benchmark == "aloud"]
    assert 0 <= result.value < 30 and items[0].audio is not None
    assert soundfile.info(items[0].audio).duration == pytest.approx(soundfile.info(SPEECH).duration, abs=0.01)


def test_what_is_missing_is_told_and_the_rest_is_done(place: Path, tmp_path: Path) -> None:
    done = evaluate(place, "judged,words", tmp_path)
    assert done.exit_code == 2
    assert "open answers need a judge: --judge" in done.stderr and "Words" in done.stdout
    done = evaluate(place, "words", tmp_path, model="juggler:x")
    assert done.exit_code == 2 and "'juggler:x'" in done.stderr
    done = CliRunner().invoke(app, ["eval", "report", str(tmp_path / "nothing")])
    assert done.exit_code == 2 and "holds no results" in done.stderr


def test_the_list_says_what_there_is() -> None:
    listed = CliRunner().invoke(app, ["eval", "--list"])
    assert listed.exit_code == 0
    for name in ("librispeech-clean", "mmau-sound", "voicebench-ifeval", "esc50", "conversation"):
        assert f"\n{name} " in f"\n{listed.stdout}"


def test_a_conversation_is_asked_rated_and_read(place: Path, tmp_path: Path) -> None:
    prompts = conversation_prompts()
    for row in prompts[:2]:
        soundfile.write(tmp_path / f"{row['id']}.wav", np.zeros(8000), 16000)
    done = CliRunner().invoke(app, ["eval", "prepare", "conversation", str(tmp_path), str(tmp_path / "data")])
    assert done.exit_code == 0 and "conversation: 2 items, 23 could not be used" in done.stderr
    nothing = CliRunner().invoke(app, ["eval", "rate", str(tmp_path)])
    assert nothing.exit_code == 2 and "no spoken answers to rate" in nothing.stderr
