"""`kimi-audio eval` from the command line to the page: a model of random weights on a handful of recordings."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluation.endpoint_server import Server, says
from tiny_model import tiny_model
from typer.testing import CliRunner, Result

from kimi_audio.cli import app
from kimi_audio.evaluation import store as results_store
from kimi_audio.evaluation.rating import FORMAT, Answer, conversation_prompts, rateable_answers
from kimi_audio.evaluation.samples import ItemScore
from kimi_audio.evaluation.store import Item, read_results

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


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_a_conversation_is_asked_rated_and_read(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nothing = command("rate", "results")
    assert nothing.exit_code == 2 and "no spoken answers to rate" in nothing.stderr

    Path("recorded").mkdir()
    soundfile.write(f"recorded/{conversation_prompts()[5]['id']}.wav", np.zeros(8000), 16000)
    done = command("prepare", "conversation", "recorded", "data")
    assert done.exit_code == 0 and "conversation: 1 items, 24 could not be used" in done.stderr

    class Deaf:
        def __init__(self, *_: object, **__: object) -> None: ...

        def transcribe(self, *_: object) -> str:
            return ""

    monkeypatch.setattr("kimi_audio.evaluation.speech_metrics.FasterWhisper", Deaf)
    asked = command("conversation", "-m", place / "model", "--data", "data", "-o", "results", "--recogniser", tmp_path)
    assert asked.exit_code == 0 and "1 items" in asked.stdout

    monkeypatch.chdir(place)
    written = command("rate", tmp_path / "results", "--data", tmp_path / "data", "-o", tmp_path / "rating.html")
    assert written.exit_code == 0, written.output
    (items,) = re.findall(r'id="items">(.*?)</script>', (tmp_path / "rating.html").read_text(), re.DOTALL)
    (item,) = json.loads(items)
    (answer,) = item["answers"]
    assert item["dimension"] == "accent" and item["audio"] and answer["audio"]

    rating = {"item": item["id"], "model": answer["model"], "dimension": item["dimension"], "rating": 4}
    saved = {"format": FORMAT, "page": "p", "rater": "a", "ratings": [rating]}
    (tmp_path / "ratings.json").write_text(json.dumps(saved))
    read = command("ratings", tmp_path / "ratings.json")
    assert read.exit_code == 0 and read.stdout.startswith("accent ")
    assert "4.00 (4.00–4.00), 1 ratings of 1 questions" in read.stdout


def test_an_answer_to_a_question_without_a_sound_can_be_rated(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    result = scored_result("conversation")
    item = Item(ItemScore("speed-1", 1.0), "Monday.", (), None, str(tmp_path / "a.wav"))
    (rateable,) = rateable_answers([(result, [item])])
    assert rateable.audio is None and list(rateable.answers.values()) == [Answer("Monday.", tmp_path / "a.wav")]


def scored_result(benchmark: str) -> results_store.Result:
    return results_store.Result(benchmark, "B", "speech", "%", False, "m", "f", 1, 1, 1, 1, 0, [], {}, 0, {}, {}, 0, 0)


def test_a_judge_is_checked_and_what_it_cost_is_told(server: Server) -> None:
    server.answers = [says("yes")]
    done = command("judge-check", "--judge", f"openai:a-model@{server.url}", "--prices", "2,10")
    assert done.exit_code == 0, done.output
    assert "42 answers: 50% judged right" in done.stdout and "16 answers rated 1-5: 16 without a rating" in done.stdout
    asked = len(server.asked)
    assert f"a-model: {asked} requests, 0 answers kept from before, {100 * asked} tokens read" in done.stderr
    assert f"cost {asked * 4e-4:.4f}" in done.stderr
    wrong = command("judge-check", "--judge", f"openai:a-model@{server.url}", "--prices", "cheap")
    assert wrong.exit_code == 2 and "--prices cheap: two numbers are expected" in wrong.stderr


def test_what_an_evaluation_asked_of_endpoints_is_told(place: Path, tmp_path: Path, server: Server) -> None:
    server.answers = [says("A cat."), says("4")]
    model = judge = f"openai:a-model@{server.url}"
    for kept in (0, 2):
        done = evaluate(place, "judged", tmp_path, "--judge", judge, "--timeout", "9", model=model)
        assert done.exit_code == 0, done.output
        # One line for the model, one for the judge; both answer two samples, or know the answers.
        spent = f"a-model: {2 - kept} requests, {kept} answers kept from before, {200 - 100 * kept} tokens read"
        assert done.stderr.count(spent) == 2
    [(result, _)] = read_results(tmp_path)
    assert result.recipe["judged_by"] == f"a-model@{server.url}" and len(result.recipe["judge_prompt"]) == 12
    assert result.recipe["adapter"] == {"instruction": "What?", "temperature": 0, "seed": 0}


def test_downloads_are_listed() -> None:
    listed = command("prepare", "--list")
    assert listed.exit_code == 0 and "librispeech      https://www.openslr.org/12" in listed.stdout
    assert "LibriSpeech/test-clean/SPEAKER" in listed.stdout
