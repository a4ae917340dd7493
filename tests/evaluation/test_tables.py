"""Tables in Markdown: figures with intervals, marks only where the test allows them, failures told."""

from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from evaluation.results_maker import make_results
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.evaluation import tables
from kimi_audio.evaluation.page import page_data
from kimi_audio.evaluation.page_sounds import PageSounds
from kimi_audio.evaluation.samples import ItemScore
from kimi_audio.evaluation.statistics import Difference
from kimi_audio.evaluation.store import Item, Result, read_results
from kimi_audio.evaluation.tables import (
    Group,
    by_benchmark,
    compared,
    markdown,
    model_names,
    shown,
    shown_difference,
    shown_p,
)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[Group]:
    return by_benchmark(read_results(make_results(tmp_path_factory.mktemp("tables") / "results")))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def scored(
    model: str, numerators: list[float], lower: bool = False, fingerprint: str = "1"
) -> tuple[Result, list[Item]]:
    items = [Item(ItemScore(str(i), value), "", (), None) for i, value in enumerate(numerators)]
    value = sum(numerators) / len(numerators)
    result = Result("b", "B", "chat", "%", lower, model, fingerprint, value, value, value, len(items), 0, [], {}, 0, {},
                    {}, 0.0, 0.0)  # fmt: skip
    return result, items


def best_of(results: list[tuple[Result, list[Item]]]) -> Result | None:
    (group,) = by_benchmark(results)
    return group.best


def test_every_benchmark_is_a_row_and_every_model_a_column(groups: list[Group]) -> None:
    lines = markdown(groups).splitlines()
    assert cells(lines[0]) == ["benchmark", "items", "talker &lt;b&gt;2&lt;/b&gt;", "tiny", "whisper-base"]
    assert [cells(line)[0] for line in lines[2:5]] == ["Read sentences ↓", "Everyday sounds ↑", "Spoken answers ↑"]
    assert cells(lines[4])[3:] == ["–", "–"]


def test_figures_carry_their_interval_and_the_unit(groups: list[Group]) -> None:
    (result,) = [r for group in groups for r, _ in group.results if (r.benchmark, r.model) == ("read", "whisper-base")]
    figure = f"{100 * result.value:.1f} % ({100 * result.low:.1f}–{100 * result.high:.1f})"
    assert cells(markdown(groups).splitlines()[2])[4] == f"**{figure}**"


def test_failures_and_unusable_rows_are_footnotes(groups: list[Group]) -> None:
    text = markdown(groups)
    note = "tiny on Read sentences: 2 of 36 answers failed and count as wrong; rows of the manifest that could"
    number = text.split(note)[0].splitlines()[-1].split(".")[0]
    assert f"<sup>{number}</sup>" in cells(text.splitlines()[2])[3]


def test_answers_that_no_judge_could_score_are_not_called_wrong() -> None:
    result, items = scored("a", [1.0] * 4)
    unjudged = replace(items[0], error="the judge is away", score=ItemScore("0", 0.0, 0.0))
    failed = replace(items[1], error="out of memory", score=ItemScore("1", 0.0, 1.0))
    note = "1 of 4 answers failed and count as wrong; 1 of 4 answers could not be scored and are in no figure"
    assert note in markdown(by_benchmark([(replace(result, failed=2), [unjudged, failed, *items[2:]])]))


def test_the_best_is_marked_only_if_the_paired_test_tells_it_from_the_second() -> None:
    low, middle, high = [0.0] * 30, [0.0] * 14 + [1.0] * 16, [1.0] * 30
    winner = best_of([scored("a", low), scored("b", high), scored("c", middle)])
    assert winner is not None and winner.model == "b"
    winner = best_of([scored("a", low, lower=True), scored("b", high, lower=True)])
    assert winner is not None and winner.model == "a"
    assert best_of([scored("a", [1.0] * 15 + [0.0] * 15), scored("b", middle)]) is None
    assert best_of([scored("a", high), scored("b", high), scored("c", low)]) is None
    assert best_of([scored("a", high)]) is None


def test_pairs_that_were_not_asked_the_same_are_footnotes() -> None:
    recipes = {
        "a": {"limit": 60, "normaliser": "none", "adapter": {"beam_size": 1}},
        "b": {"limit": None, "normaliser": "none", "adapter": {}},
        "c": {"normaliser": "none"},  # of before there was a limit in recipes
    }
    results = [(replace(result, recipe=recipes[result.model]), items)
               for result, items in (scored(model, [1.0, 0.0]) for model in recipes)]  # fmt: skip
    table, note = compared(by_benchmark(results)).split("\n\n")
    assert ["<sup>1</sup>" in line for line in table.splitlines()[2:]] == [True, False, False]
    assert note == "1. not the same limit"
    pairs = page_data(by_benchmark(results), PageSounds())["benchmarks"][0]["pairs"]
    assert [pair["unlike"] for pair in pairs if pair["first"] < pair["second"]] == ["limit", "", ""]


def test_models_of_one_name_are_told_apart_by_their_weights() -> None:
    results = [scored("a", [1.0], fingerprint="x"), scored("a", [1.0], fingerprint="y"), scored("b", [1.0])]
    assert list(model_names(by_benchmark(results)).values()) == ["a (x)", "a (y)", "b"]


def test_each_two_models_are_compared(groups: list[Group]) -> None:
    rows = [cells(line) for line in compared(groups).splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["Read sentences ↓", "talker &lt;b&gt;2&lt;/b&gt;", "tiny"],
        ["Read sentences ↓", "talker &lt;b&gt;2&lt;/b&gt;", "whisper-base"],
        ["Read sentences ↓", "tiny", "whisper-base"],
        ["Everyday sounds ↑", "talker &lt;b&gt;2&lt;/b&gt;", "tiny"],
    ]
    assert rows[1][4].startswith("**") and not rows[0][4].startswith("**")


def test_one_comparison_serves_tables_and_page(
    groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "compare", None)
    assert markdown(groups) and compared(groups) and page_data(groups, PageSounds())


def test_nothing_is_a_table_without_rows() -> None:
    assert markdown([]).splitlines()[0] == "| benchmark | items |"
    assert len(compared([]).splitlines()) == 2


def test_figures_that_are_not_there_are_dashes() -> None:
    nan = float("nan")
    assert shown(nan, "%") == shown_p(nan) == shown_difference(Difference(nan, nan, nan, nan, 0), "%") == "–"
    assert shown(0.1214, "%") == "12.1 %" and shown(0.8412, "s") == "0.84 s" and shown(152.2, "") == "152"
    assert shown_difference(Difference(-0.018, -0.025, 0.011, 0.2, 9), "%") == "−1.8 (−2.5 to +1.1)"
    assert shown_p(0.0005) == "< 0.001" and shown_p(0.0312) == "0.031"


@given(st.text(st.sampled_from("ab|*<&\\ \n"), min_size=1, max_size=12))
def test_no_name_breaks_the_table(name: str) -> None:
    line = markdown(by_benchmark([scored(name, [1.0, 0.0])])).splitlines()[0]
    assert line.count("|") == 4 and unescape(cells(line)[2]) == " ".join(name.split())
