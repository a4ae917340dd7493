"""The report's page in a real Chromium: it shows, finds, compares and plays, fits a phone, and asks no network."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation.results_maker import benchmark_of

from kimi_audio.evaluation.page import write_page
from kimi_audio.evaluation.samples import ItemScore
from kimi_audio.evaluation.store import Item, read_results
from kimi_audio.evaluation.tables import by_benchmark

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, html: Path) -> Iterator[Any]:
    """The page in a window; in the end nothing may have been complained about or asked of a network."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or trouble.append(request.url))
    page.goto(html.as_uri())
    yield page
    page.close()
    assert trouble == []


def test_the_table_shows_figures_marks_and_failures(page: Any) -> None:
    assert page.title() == "A <report> & more"
    assert page.locator("#summary").inner_text() == "3 models · 3 benchmarks · 188 answers"
    row = page.locator("#table tbody tr", has_text="Read sentences")
    assert "word error rate" in row.locator("th").inner_text()
    assert row.locator(".best-mark").count() == 1 and "Best" in row.locator("td").nth(2).inner_text()
    assert "2 of 36 failed" in row.locator("td").nth(1).inner_text()
    assert page.locator("#table b", has_text="2").locator("b").count() == 0  # a name is text, not markup


def test_a_figure_opens_its_recipe_by_keyboard(page: Any) -> None:
    page.locator("#table tr", has_text="Everyday sounds").locator("button.figure").nth(1).focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    text = dialog.inner_text()
    assert all(
        word in text
        for word in ("tiny on Everyday sounds", "Which sound is this?", "temperature 0", "3fa9c2d1", "numpy")
    )
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_failures_lead_to_the_answers_that_failed(page: Any) -> None:
    page.locator("button.failed", has_text="2 of 36 failed").click()
    assert page.locator("#count").inner_text() == "2 of 36 answers"
    assert page.locator("#items .fault", has_text="out of memory").count() == 2


def test_two_chosen_models_are_compared(page: Any, data: dict[str, Any]) -> None:
    page.select_option("#first", label="whisper-base")
    page.select_option("#second", label="tiny")
    (pair,) = [p for p in benchmark_of(data, "Read sentences")["pairs"] if (p["first"], p["second"]) == (2, 1)]
    row = page.locator("#pairs tbody tr")
    assert row.count() == 1 and pair["text"] in row.inner_text() and "whisper-base better" in row.inner_text()
    page.select_option("#second", label="whisper-base")
    assert "two different models" in page.locator("#pairs").inner_text()


def test_alignments_are_coloured_and_marked(page: Any, data: dict[str, Any]) -> None:
    page.select_option("#benchmark", label="Read sentences")
    page.select_option("#model", label="tiny")
    page.fill("#search", "read/0004")
    (row,) = [row for row in benchmark_of(data, "Read sentences")["cells"][1]["rows"] if row["id"] == "read/0004"]
    pieces = page.locator("#items .aligned .piece")
    assert pieces.count() == len(row["alignment"])
    for number, (kind, reference, hypothesis) in enumerate(row["alignment"]):
        assert kind in pieces.nth(number).get_attribute("class")
        assert [pieces.nth(number).locator(which).inner_text().strip("\xa0") for which in (".ref", ".hyp")] == [
            reference, hypothesis]  # fmt: skip
    page.fill("#search", "")
    looks = {
        kind: page.locator(f"#items .{kind} {which}").first.evaluate(
            "node => [getComputedStyle(node).color, getComputedStyle(node).textDecorationLine]"
        )
        for kind, which in {"substitute": ".hyp", "delete": ".ref", "insert": ".hyp", "equal": ".ref"}.items()
    }
    assert len({colour for colour, _ in looks.values()}) == 4
    assert [looks[kind][1] for kind in ("substitute", "delete", "insert")] == ["underline", "line-through", "underline"]


def test_answers_are_searched_paged_and_played(page: Any) -> None:
    page.select_option("#benchmark", label="Read sentences")
    page.select_option("#model", label="whisper-base")
    assert page.locator("#items > li").count() == 25 and page.locator("#count").inner_text() == "36 answers"
    page.locator("#answers .pager button", has_text="Next").last.click()
    assert page.locator("#items > li").count() == 11 and "page 2 of 2" in page.locator(".pager").first.inner_text()
    page.fill("#search", "READ/000 house")
    shown = page.locator("#items > li")
    assert 0 < shown.count() < 10
    assert all("house" in text.lower() and "read/000" in text for text in shown.all_inner_texts())
    page.fill("#search", "no such words")
    assert shown.count() == 0 and page.locator("#count").inner_text() == "0 of 36 answers"
    page.fill("#search", "read/0003")
    assert "the sound file is missing" in shown.inner_text() and shown.locator("audio").count() == 0
    page.fill("#search", "read/0005")
    seconds = shown.locator("audio").evaluate(
        "sound => new Promise((done, fail) => { sound.onloadedmetadata = () => done(sound.duration);"
        " sound.onerror = () => fail(sound.error.message); sound.load(); sound.preload = 'auto'; })"
    )
    assert seconds == pytest.approx(1.1, abs=0.1)


def test_spoken_answers_come_with_their_sound_and_reason(page: Any) -> None:
    page.select_option("#benchmark", label="Spoken answers")
    page.fill("#search", "chat-0")
    text = page.locator("#items > li").inner_text()
    assert "Spoken answer: 00000.wav" in text and "It has the length" in text and "first sound after" in text
    assert page.locator("#items audio").count() == 1 and page.locator("#confusion table").count() == 0


def test_the_matrix_shows_counts_and_picks_answers(page: Any, data: dict[str, Any]) -> None:
    page.select_option("#benchmark", label="Everyday sounds")
    page.select_option("#model", label="tiny")
    confusion = benchmark_of(data, "Everyday sounds")["cells"][1]["confusion"]
    rows = page.locator("#confusion tbody tr")
    shown = [
        [int(cell or 0) for cell in rows.nth(number).locator("td").all_inner_texts()] for number in range(rows.count())
    ]
    assert shown == confusion["counts"]
    rows.nth(0).locator("button").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#count").inner_text() == f"{shown[1][1]} of 36 answers"
    page.locator("#chip button").click()
    assert page.locator("#count").inner_text() == "36 answers"


def test_times_are_plotted_per_model(page: Any) -> None:
    assert page.locator("#plot svg path").count() == 3
    page.select_option("#where", label="Everyday sounds")
    assert page.locator("#plot svg path").count() == 2
    page.select_option("#measure", label="Seconds to first sound")
    assert page.locator("#plot svg path").count() == 1 and "7 answers" in page.locator("#plot").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_window_in_both_schemes(page: Any, scheme: str) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.emulate_media(color_scheme=scheme)
    for title in ("Read sentences", "Everyday sounds", "Spoken answers"):
        page.select_option("#benchmark", label=title)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", paper))) / 3
    assert (brightness > 128) == (scheme == "light")


def test_thousands_of_answers_stay_fast(browser: Any, tmp_path: Path, results: Path) -> None:
    (result, items) = next(pair for pair in read_results(results) if pair[0].benchmark == "read")
    many = [Item(ItemScore(f"{number}/{item.score.id}", 1, 9, item.score.detail), item.text, (), None)
            for number in range(150) for item in items]  # fmt: skip
    write_page(by_benchmark([(result, many)]), tmp_path / "page.html")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    took = page.evaluate(
        "() => { const box = document.getElementById('search'), start = performance.now(); box.value = '149/read/0007';"
        " box.oninput(); return performance.now() - start; }"
    )
    assert page.locator("#items > li").count() == 1
    assert took < 1500
    page.close()
