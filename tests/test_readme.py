"""What the README shows exists and runs as it stands there."""

import re
import shlex
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from kimi_audio.checkpoint.hub import bundled
from kimi_audio.cli import app
from kimi_audio.errors import CheckpointError
from kimi_audio.evaluation.benchmarks import bundled_benchmarks
from kimi_audio.evaluation.normalise import normaliser
from kimi_audio.evaluation.store import fingerprint, model_folder, read_results
from kimi_audio.evaluation.tables import by_benchmark, markdown
from kimi_audio.evaluation.word_errors import align

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    re.sub(r"\s+#.*", "", line)
    for language, block in BLOCKS
    if language == "sh"
    for line in block.splitlines()
    if re.match(r"(kimi-audio|\./run) (?!test)", line)
]


def has_bundled_model() -> bool:
    try:
        return bundled().is_dir()
    except CheckpointError:
        return False


needs_model = pytest.mark.skipif(not has_bundled_model(), reason="the bundled model is not in this checkout")


def test_it_opens_with_commands_that_set_everything_up() -> None:
    first = next(block for language, block in BLOCKS if language == "sh")
    wanted = [["./run", name] for name in ("say", "transcribe", "test")]
    assert [line.split()[:2] for line in first.splitlines()] == wanted


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_options_exist(command: str) -> None:
    name, *arguments = command.split()[1:]
    names = [name] if name != "eval" else [name, arguments[0] if arguments[0] == "report" else "run"]
    result = CliRunner().invoke(app, [*names, "--help"])
    assert result.exit_code == 0
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in result.stdout


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if not target.startswith("http")]
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


def test_recipes_it_trains_exist() -> None:
    recipes = re.findall(r"(?:kimi-audio|\./run) train (\S+/\S+\.yaml)", README)
    assert recipes and all((ROOT / recipe).exists() for recipe in recipes)


def test_example_files_exist_and_have_a_licence() -> None:
    notes = (ROOT / "examples" / "README.md").read_text()
    for path in set(re.findall(r"examples/[\w.]+", README)):
        assert (ROOT / path).exists() and f"`{Path(path).name}`" in notes


def test_it_says_how_many_benchmarks_there_are() -> None:
    assert f"the items of {len(bundled_benchmarks())} benchmarks" in " ".join(README.split())


def test_the_figures_are_those_of_the_results() -> None:
    """The table is what `kimi-audio eval report results` prints."""
    assert markdown(by_benchmark(read_results(ROOT / "results"))) in README


@needs_model
def test_the_results_are_those_of_the_bundled_weights() -> None:
    assert model_folder(ROOT / "results", bundled().name, fingerprint(bundled())).is_dir()


@needs_model
def test_the_first_command_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    _, *arguments = shlex.split(next(command for command in COMMANDS if command.startswith("./run")))
    assert CliRunner().invoke(app, arguments).exit_code == 0
    samples, rate = soundfile.read(tmp_path / arguments[-1])
    assert rate == 24_000 and 1.5 < len(samples) / rate < 6
    assert 0.01 < samples.std() < 0.3


@needs_model
def test_the_recording_is_understood() -> None:
    result = CliRunner().invoke(app, ["transcribe", str(ROOT / "examples" / "kathleen.flac")])
    assert result.exit_code == 0
    said = re.search(r"reads “(.+?)”", (ROOT / "examples" / "README.md").read_text())
    assert said and result.stdout.strip()
    counts, _ = align(*map(normaliser("whisper-english"), (said[1], result.stdout)))
    assert counts.errors <= 0.34 * counts.words


@needs_model
def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = (block for language, block in BLOCKS if language == "python")
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
