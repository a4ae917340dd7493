"""The bundled benchmark files: all of them can be read, ask what they say, and know how their data are got."""

import json
import re
from pathlib import Path

import pytest
import yaml

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation.benchmarks import Benchmark, bundled_benchmarks, find_benchmarks, read_benchmark
from kimi_audio.evaluation.prepare import PREPARERS
from kimi_audio.messages import Message

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny" / "evaluation"
BENCHMARKS = bundled_benchmarks()
OWN = {  # benchmarks over folders of labelled sets, and how many items theirs have
    "librispeech-mini": 56,
    "speechocean762": 400,
    "kathleen": 77,
    "keywords": 120,
    "asterisk": 37,
    "misc": 89,
    "words-gcompris": 54,
    "digits": 400,
    "esc50": 200,
    "ravdess": 120,
    "quiet-esc50": 200,
}
METRICS = {"wer", "cer", "label", "digit", "choice", "mentions", "invented-words", "refusal", "ifeval", "judge-yes-no",
           "judge-1-5"}  # fmt: skip
NORMALISERS = {"none", "whisper-english", "whisper-basic", "mandarin", "qwen2-audio"}

each = pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS.keys())
labelled = pytest.mark.parametrize("name", [name for name, b in BENCHMARKS.items() if b.labels])


@each
def test_a_file_is_called_as_its_benchmark(benchmark: Benchmark) -> None:
    assert benchmark.path.stem == benchmark.name
    assert benchmark.kind == "speech" or benchmark.metric in METRICS
    assert benchmark.normaliser in NORMALISERS
    assert benchmark.source and benchmark.licence and benchmark.size and benchmark.obtain


@each
def test_data_come_from_a_preparer_or_from_a_folder_of_ones_own(benchmark: Benchmark) -> None:
    if match := re.match(r"kimi-audio eval prepare (\S+) DOWNLOAD DATA", benchmark.obtain):
        assert benchmark.folder == match[1]
        assert match[1] in PREPARERS and benchmark.source.split()[0] in PREPARERS[match[1]].source
    else:
        assert f"{benchmark.folder}/manifest.jsonl" in benchmark.obtain


@each
def test_a_judged_benchmark_names_its_prompt_and_no_other_does(benchmark: Benchmark) -> None:
    assert (benchmark.judge is not None) == benchmark.metric.startswith("judge-")


def test_everything_that_the_report_evaluates_is_there() -> None:
    counts = {"librispeech": 3, "fleurs": 2, "aishell": 2, "wenetspeech": 2, "mmau": 3, "clothoaqa": 2, "cochlscene": 2,
              "openaudiobench": 5, "voicebench": 7}  # fmt: skip
    for name, count in counts.items():
        assert len(find_benchmarks([name])) == count, name
    assert {"vocalsound", "nonspeech7k", "meld", "tut2017"} <= BENCHMARKS.keys()


@pytest.mark.parametrize(("name", "items"), OWN.items())
def test_sets_of_ones_own_are_read_whole(name: str, items: int, shared: Path) -> None:
    samples, faults = BENCHMARKS[name].samples(shared / "data")
    assert (len(samples), faults) == (items, [])
    assert BENCHMARKS[name].size == f"{items} items"
    assert all(sample.seconds > 0 for sample in samples)


@labelled
def test_every_label_of_a_set_has_patterns(name: str, shared: Path) -> None:
    patterns = BENCHMARKS[name].label_patterns()
    samples, _ = BENCHMARKS[name].samples(shared / "data")
    assert {sample.reference for sample in samples} == patterns.keys()


@labelled
def test_a_label_said_plainly_is_that_label_and_no_other(name: str) -> None:
    labels = BENCHMARKS[name].label_patterns()
    for label in labels:
        plain = " ".join(re.findall(r"\w+", label))
        named = [other for other, patterns in labels.items() if any(re.fullmatch(p, plain) for p in patterns)]
        assert named == [label]


def test_questions_are_heard_alone_and_are_not_transcribed(tmp_path: Path) -> None:
    folder = tmp_path / "spoken_questions"
    folder.mkdir()
    (folder / "q.wav").touch()
    row = {"id": "q", "audio": "q.wav", "question": "What is the capital of Egypt?", "patterns": ["cairo"]}
    (folder / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    (sample,), faults = read_benchmark(RECIPE / "spoken-questions.yaml").samples(tmp_path)
    assert sample.instruction == "" and faults == []
    assert json.loads(sample.reference) == ["cairo"] and sample.fields["question"].endswith("Egypt?")


def test_a_row_may_have_earlier_turns(tmp_path: Path) -> None:
    folder = tmp_path / "range"
    folder.mkdir()
    for name in ("1.wav", "2.wav"):
        (folder / name).touch()
    said = {"role": "assistant", "message_type": "text", "content": "A beep."}
    histories = {
        "whole": [{"role": "user", "message_type": "audio", "content": "1.wav"}, said],
        "no sound": [{"role": "user", "message_type": "audio", "content": "lost.wav"}, said],
        "spoken": [{**said, "message_type": "audio-text", "content": ["1.wav", "A beep."]}],
    }
    rows = [{"id": name, "audio": "2.wav", "patterns": ["b"], "history": turns} for name, turns in histories.items()]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (sample,), faults = read_benchmark(RECIPE / "range.yaml").samples(tmp_path)
    assert sample.audios == (folder / "2.wav",)
    assert sample.history == (Message("user", "audio", str(folder / "1.wav")), Message("assistant", "text", "A beep."))
    assert sample.all_sounds() == (str(folder / "1.wav"), str(folder / "2.wav"))
    assert "lost.wav does not exist" in faults[0] and "must be a text" in faults[1]


def test_missing_data_are_told_with_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="kimi-audio eval prepare voicebench DOWNLOAD DATA"):
        BENCHMARKS["voicebench-ifeval"].samples(tmp_path)


def test_a_file_of_ones_own_is_read_as_strictly(tmp_path: Path) -> None:
    fields = yaml.safe_load(BENCHMARKS["esc50"].path.read_text(encoding="utf-8"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**fields, "name": "mine"}))
    assert find_benchmarks([str(path)])[0].name == "mine"
    path.write_text(yaml.safe_dump({**fields, "metrik": "wer"}))
    with pytest.raises(ConfigError, match="metrik is unknown"):
        read_benchmark(path)
