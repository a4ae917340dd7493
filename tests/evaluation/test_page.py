"""The report's page: what is in the file, and what is told where something is missing."""

import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from evaluation.results_maker import LABELS, MODELS, benchmark_of, data_of, make_results

from kimi_audio.evaluation.page import page_data, write_page
from kimi_audio.evaluation.page_sounds import PageSounds
from kimi_audio.evaluation.samples import ItemScore
from kimi_audio.evaluation.store import Item, read_results
from kimi_audio.evaluation.tables import by_benchmark


def test_every_result_is_there_and_what_was_not_run_is_empty(data: dict[str, Any]) -> None:
    assert [model["name"] for model in data["models"]] == sorted(MODELS)
    cells = {each["title"]: [bool(cell) for cell in each["cells"]] for each in data["benchmarks"]}
    assert cells == {
        "Read sentences": [True, True, True],
        "Everyday sounds": [True, True, False],
        "Spoken answers": [True, False, False],
    }


def test_a_cell_tells_all_that_its_figure_depends_on(data: dict[str, Any]) -> None:
    cell = benchmark_of(data, "Everyday sounds")["cells"][1]
    assert cell["recipe"]["instruction"].startswith("Which sound") and cell["recipe"]["sampling"] == {"temperature": 0}
    assert cell["recipe"]["fingerprint"] == MODELS["tiny"] and "numpy" in cell["recipe"]["versions"]
    assert cell["failed"] == 1 and cell["recipe"]["seed"] == 0
    assert "does not exist" in benchmark_of(data, "Read sentences")["cells"][1]["faults"][0]


def test_only_a_clear_winner_is_marked(data: dict[str, Any]) -> None:
    assert [cell["best"] for cell in benchmark_of(data, "Read sentences")["cells"]] == [False, False, True]
    assert not any(cell and cell["best"] for cell in benchmark_of(data, "Everyday sounds")["cells"])


def test_each_two_models_are_compared_from_both_sides(data: dict[str, Any]) -> None:
    pairs = {(pair["first"], pair["second"]): pair for pair in benchmark_of(data, "Read sentences")["pairs"]}
    assert set(pairs) == {(a, b) for a in range(3) for b in range(3) if a != b}
    there, back = pairs[0, 2], pairs[2, 0]
    assert (there["value"], there["low"], there["high"]) == (-back["value"], -back["high"], -back["low"])
    assert there["certain"] and there["text"].endswith("points") and there["p"] == back["p"]


def test_answers_come_from_the_worst_on(data: dict[str, Any]) -> None:
    rows = benchmark_of(data, "Read sentences")["cells"][1]["rows"]
    assert [row["error"] is not None for row in rows] == [True] * 2 + [False] * 34
    badness = [row["badness"] for row in rows[2:]]
    assert badness == sorted(badness, reverse=True) and rows[-1]["right"]


def test_the_confusion_matrix_counts_every_answer(data: dict[str, Any], results: Path) -> None:
    confusion = benchmark_of(data, "Everyday sounds")["cells"][1]["confusion"]
    assert confusion["rows"] == sorted(LABELS) and confusion["columns"] == [*sorted(LABELS), "(none)"]
    assert np.sum(confusion["counts"]) == 36
    (items,) = [
        items for result, items in read_results(results) if (result.model, result.benchmark) == ("tiny", "sounds")
    ]
    assert np.trace(np.array(confusion["counts"])[:, :-1]) == sum(item.score.numerator for item in items)
    assert sum(row[-1] for row in confusion["counts"]) == 2


def test_sounds_are_in_the_page_small_and_whole(data: dict[str, Any], html: Path) -> None:
    row = next(row for row in benchmark_of(data, "Everyday sounds")["cells"][1]["rows"] if row["id"] == "sounds/0005")
    url = data["sounds"][row["sounds"][0]]["url"]
    assert url.startswith("data:audio/mpeg;base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert rate == 16_000 and len(samples) / rate == pytest.approx(1.1, abs=0.08)
    assert np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples) == pytest.approx(300, abs=2)
    assert not (html.parent / "report_sounds").exists()


def test_a_lost_sound_is_told_in_its_row(data: dict[str, Any]) -> None:
    row = next(row for row in benchmark_of(data, "Read sentences")["cells"][0]["rows"] if row["id"] == "read/0003")
    assert data["sounds"][row["sounds"][0]] == {
        "name": "read-0003.wav",
        "url": None,
        "fault": "the sound file is missing",
    }


def test_many_sounds_lie_beside_the_page(results: Path, tmp_path: Path) -> None:
    groups = by_benchmark(read_results(results))
    write_page(groups, tmp_path / "my report.html", embedded=1000)
    sounds = data_of(tmp_path / "my report.html")["sounds"]
    urls = {sound["url"] for sound in sounds if sound["url"]}
    assert len(urls) == len(sounds) - 1 and all(url.startswith("my%20report_sounds/") for url in urls)
    assert {path.name for path in (tmp_path / "my report_sounds").iterdir()} == {url.partition("/")[2] for url in urls}
    write_page(groups, tmp_path / "my report.html")
    assert not (tmp_path / "my report_sounds").exists()


def test_spoken_answers_are_found_after_the_results_were_moved(tmp_path: Path) -> None:
    make_results(tmp_path / "first" / "results", items=6)
    (tmp_path / "first" / "results").rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "first")
    sounds = PageSounds()
    page_data(by_benchmark(read_results(tmp_path / "moved")), sounds)
    assert sum(path.is_file() for path in sounds.numbers) == 7


def test_a_file_that_is_no_sound_is_told(tmp_path: Path) -> None:
    (tmp_path / "noise.wav").write_bytes(b"not a sound at all")
    sounds = PageSounds()
    sounds.number(tmp_path / "noise.wav")
    assert sounds.links(tmp_path / "page_sounds", 1000)[0]["fault"] == "the sound file can't be read"
    assert not (tmp_path / "page_sounds").exists()


def test_nothing_in_the_data_becomes_markup(tmp_path: Path, results: Path) -> None:
    result, _ = read_results(results)[0]
    evil = "</script><script>document.title='taken'</script><!-- <script>"
    item = Item(ItemScore("1", float("nan"), 0.0, {"reason": evil, "odd": float("inf")}), evil, (), evil)
    write_page(by_benchmark([(result, [item])]), tmp_path / "page.html", title=evil)
    assert data_of(tmp_path / "page.html")["benchmarks"][0]["cells"][0]["rows"][0]["reason"] == evil
    assert (tmp_path / "page.html").read_text("utf-8").count("</script>") == 2


def test_what_is_in_no_figure_is_neither_right_nor_wrong(results: Path, tmp_path: Path) -> None:
    result, _ = next(pair for pair in read_results(results) if pair[0].lower_is_better)
    items = [
        Item(ItemScore("unjudged", 0.0, 0.0), "", (), None, error="the judge is away"),
        Item(ItemScore("invented", 2.0, 0.0), "two words", (), None),
        Item(ItemScore("fine", 0.0, 4.0), "", (), None),
    ]
    rows = page_data(by_benchmark([(result, items)]), PageSounds())["benchmarks"][0]["cells"][0]["rows"]
    assert [(row["id"], row["right"], row["score"]) for row in rows] == [
        ("unjudged", None, "not counted"),
        ("invented", False, "2 of 0 wrong"),
        ("fine", True, "0 of 4 wrong"),
    ]


def test_times_are_those_of_what_was_done(results: Path) -> None:
    """Reading aloud is measured apart, and answers that two benchmarks share are counted once."""
    result, items = next(pair for pair in read_results(results) if pair[0].model == "tiny")
    read = replace(result, benchmark="read", title="Read", recipe={"reads_aloud": True}, unanswered=4)
    again = replace(read, benchmark="again", title="Again")
    data = page_data(by_benchmark([(result, items), (read, items), (again, items)]), PageSounds())
    answered = sum(item.error is None for item in items)
    counts = {(plot["measure"], plot["benchmark"]): plot["models"][0]["items"] for plot in data["speed"]}
    assert counts == {
        ("Real-time factor", "All benchmarks"): answered,
        ("Real-time factor", result.title): answered,
        ("Time against a person’s reading", "All benchmarks"): answered,
        ("Time against a person’s reading", "Read"): answered,
        ("Time against a person’s reading", "Again"): answered,
    }
    assert sorted(each["cells"][0]["unanswered"] for each in data["benchmarks"]) == [0, 4, 4]


def test_no_results_are_a_page_too(tmp_path: Path) -> None:
    write_page([], tmp_path / "page.html")
    assert data_of(tmp_path / "page.html") == {"models": [], "benchmarks": [], "speed": [], "sounds": []}


def test_nothing_is_loaded_from_elsewhere(html: Path) -> None:
    text = html.read_text("utf-8")
    assert not re.search(
        r"""(src|href)=["'](?!#|data:)|@import|url\(|fetch\(|https?://(?!www\.w3\.org/2000/svg)""", text
    )
