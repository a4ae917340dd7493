"""What docs/evaluation.md shows runs as it stands there."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kimi_audio.cli import app
from kimi_audio.evaluation.store import read_results

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^kimi-audio (eval .*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)


def test_a_model_of_ones_own_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "en_kathleen"
    folder.mkdir(parents=True)
    (folder / "a.flac").symlink_to(ROOT / "examples" / "kathleen.flac")
    row = {"audio": "a.flac", "text": "There was pride and strength.", "split": "test"}
    (folder / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/evaluation.md", "exec"), {})
    [(result, _)] = read_results(Path("results"))
    assert (result.model, result.items, result.value) == ("parrot", 1, 0.0)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_options_exist(command: str) -> None:
    name, *arguments = command.split()[1:]
    group = [] if name.startswith("--") else ["run" if "--model" in arguments else name]
    shown = CliRunner().invoke(app, ["eval", *group, "--help"])
    assert shown.exit_code == 0
    assert [option for option in (name, *arguments) if option.startswith("--") and option not in shown.stdout] == []


def test_judges_are_checked_on_as_many_answers_as_it_says() -> None:
    for name, said in (("judge_check", r"puts (\d+) labelled"), ("judge_check_1_5", r"and (\d+) for 1 to 5")):
        rows = (files("kimi_audio.evaluation") / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert re.findall(said, " ".join(PAGE.split())) == [str(len(rows))]
