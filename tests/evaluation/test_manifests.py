"""Manifests of benchmarks: what can't be used is told row by row, and costs no other row."""

import json
from dataclasses import replace

import pytest
from evaluation.echo import BENCHMARK, ROWS, write_manifest

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation.benchmarks import find_benchmarks, read_benchmark


def test_rows_that_cannot_be_used_are_told_one_by_one(tmp_path) -> None:
    bad = [
        "{",
        "[]",
        {**ROWS[0], "id": "missing", "audio": "b.wav"},
        {**ROWS[0], "id": "empty", "text": ""},
        {"id": "none", "audio": "a.wav"},
        ROWS[0],
        {**ROWS[0], "split": "train"},
    ]
    write_manifest(tmp_path, [ROWS[0], *bad])
    samples, faults = BENCHMARK.samples(tmp_path)
    assert [sample.id for sample in samples] == ["first"]
    told = [fault.split(": ", 1) for fault in faults]
    assert [place.rsplit(":", 1)[1] for place, _ in told] == ["2", "3", "4", "5", "6", "7"]
    for (_, sentence), expected in zip(
        told,
        ["not valid JSON", "not a JSON object", "b.wav does not exist", "'text'", "'text'", "'first' is there twice"],
        strict=True,
    ):
        assert expected in sentence


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"audio": None}, "the field 'audio' is None; a path or a list of paths is expected"),
        ({"audio": 5}, "the field 'audio' is 5; a path"),
        ({"audio": [1]}, "the field 'audio' is [1]; a path"),
        ({"audio": "a\0.wav"}, "does not exist"),
        ({"audio": "a" * 5000}, "does not exist"),
        ({"voice": ["a.wav", 1]}, "the field 'voice' is ['a.wav', 1]; a path"),
        ({"duration": "long"}, "the field 'duration' is 'long'; seconds are expected"),
        ({"duration": float("nan")}, "the field 'duration' is nan; seconds"),
        ({"duration": float("inf")}, "the field 'duration' is inf; seconds"),
        ({"duration": -1}, "the field 'duration' is -1; seconds"),
        ({"text": " \t"}, "the field 'text' with what is right is missing or empty"),
        ({"text": None}, "the field 'text' with what is right is missing or empty"),
        ({"history": 5}, "the field 'history' must be a list of messages"),
        ({"history": [5]}, "messages[0] is a int"),
    ],
)
def test_a_field_of_a_wrong_kind_costs_its_row_only(changed, told, tmp_path) -> None:
    write_manifest(tmp_path, [ROWS[0], {**ROWS[1], **changed}, ROWS[2]])
    samples, (fault,) = BENCHMARK.samples(tmp_path)
    assert [sample.id for sample in samples] == ["first", "speaks"]
    assert fault.startswith("echo/manifest.jsonl:2: ") and told in fault


def test_a_line_that_is_no_text_costs_its_row_only(tmp_path) -> None:
    write_manifest(tmp_path, ROWS)
    path = tmp_path / "echo" / "manifest.jsonl"
    first, *others = path.read_bytes().splitlines()
    separator = json.dumps({**ROWS[3], "id": "separated", "text": "one\u2028two"}, ensure_ascii=False).encode()
    path.write_bytes(b"\n".join([b"\xef\xbb\xbf" + first, b'{"id": "\xff"}', *others, separator]))
    samples, faults = BENCHMARK.samples(tmp_path)
    assert [sample.id for sample in samples] == ["first", "fails", "speaks", "last", "separated"]
    assert faults == ["echo/manifest.jsonl:2: not UTF-8"]


@pytest.mark.parametrize(
    ("instruction", "asked"),
    [
        ('Say {text} as {"said": "..."}', 'Say word first as {"said": "..."}'),
        ("Say } {text} {", "Say } word first {"),
        ("Say {}{text}.", "Say {}word first."),
    ],
)
def test_braces_without_a_field_stay(instruction, asked, tmp_path) -> None:
    write_manifest(tmp_path, [{**ROWS[0], "more": "{braces}"}])
    (sample,), _ = replace(BENCHMARK, instruction=instruction).samples(tmp_path)
    assert sample.instruction == asked
    (sample,), _ = replace(BENCHMARK, instruction="{more}").samples(tmp_path)
    assert sample.instruction == "{braces}"


def test_a_field_that_the_instruction_needs_is_named(tmp_path) -> None:
    write_manifest(tmp_path, ROWS)
    with pytest.raises(DataError, match="the field '0' of the instruction is missing"):
        replace(BENCHMARK, instruction="Say {0}.").samples(tmp_path)


def test_without_data_it_says_where_to_get_them(tmp_path) -> None:
    with pytest.raises(DataError, match="the data of echo are not there; see eval --list"):
        BENCHMARK.samples(tmp_path)
    write_manifest(tmp_path, ["{"])
    with pytest.raises(DataError, match="no row of it can be used; the first"):
        BENCHMARK.samples(tmp_path)


def test_a_benchmark_file_of_ones_own(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("{name: mine, title: Mine, kind: answer, folder: mine, metric: wer}\n")
    assert find_benchmarks([str(path)])[0].name == "mine"
    path.write_text("{name: mine, title: Mine, kind: dance, folder: mine, metric: wer}\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:1: kind is 'dance'; accepted are recognition"):
        read_benchmark(path)
    with pytest.raises(ConfigError, match="there is no benchmark 'nonsense'"):
        find_benchmarks(["nonsense"])
