"""People's ratings: the page is worked in a real browser, and what it saves is read back."""

import json
import shutil
import wave
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.errors import DataError
from kimi_audio.evaluation.rating import (
    DIMENSIONS,
    FORMAT,
    Answer,
    Rateable,
    conversation_prompts,
    opinions,
    read_ratings,
    write_rating_page,
)

MODELS = ("ours", "theirs", "another")


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "answer.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    return path


def questions(sound: Path | None, count: int = 2) -> list[Rateable]:
    answers = {model: Answer(f"{model[0]} </script> & all", sound) for model in MODELS}
    return [Rateable(f"q{i}", list(DIMENSIONS)[i], f"Question <{i}>?", answers, sound, "Heed") for i in range(count)]


def ratings_file(path: Path, rows: list[dict], rater: str = "a", **changed) -> Path:
    path.write_text(json.dumps({"format": FORMAT, "page": "p", "rater": rater, "ratings": rows} | changed))
    return path


def row(item: str = "q0", model: str = "ours", rating: object = 4, dimension: str = "speed") -> dict:
    return {"item": item, "model": model, "rating": rating, "dimension": dimension}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        installed = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            browser = driver.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium that Playwright can start: {error}")
        yield browser
        browser.close()


def test_a_person_rates_blind_with_keys_and_saves(browser, sound: Path, tmp_path: Path) -> None:
    page_file = tmp_path / "rate.html"
    write_rating_page(questions(sound), page_file)
    context = browser.new_context(accept_downloads=True, offline=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(page_file.as_uri())

    shown = page.inner_text("body")
    assert "Question <" in shown and not any(model in shown for model in MODELS)
    assert page.locator("#save").is_disabled()
    by_letter = {}  # the texts give away to this test, not to a person, whose answer it is
    for number, key in enumerate("135"):
        card = page.locator(".answer").nth(number)
        assert "active" in card.get_attribute("class")
        by_letter[card.locator("p").inner_text()[0]] = int(key)
        page.keyboard.press(key)
    page.keyboard.press("ArrowRight")
    page.locator(".answer").nth(1).get_by_text("2", exact=True).click()
    fourth = page.locator(".answer").nth(1).locator("p").inner_text()[0]
    assert "4 of 6 rated" in page.inner_text("header")

    page.reload()
    assert "Question 2 of 2 · 4 of 6 rated" in page.inner_text("header")
    assert page.locator('.answer button[aria-pressed="true"]').inner_text() == "2"
    assert page.locator(".answer").nth(1).locator("p").inner_text()[0] == fourth
    with page.expect_download() as download:
        page.click("#save")
    saved = tmp_path / "saved.json"
    download.value.save_as(saved)
    assert problems == []
    context.close()

    first_item = next(r["item"] for r in json.loads(saved.read_text())["ratings"] if r["rating"] == 5)
    first_dimension = list(DIMENSIONS)[int(first_item[1])]
    scores = read_ratings([saved])
    found = {model: scores[model, first_dimension][0].numerator for model in MODELS}
    assert {model[0]: rating for model, rating in found.items()} == by_letter
    assert sum(len(items) for items in scores.values()) == 4


def test_space_plays_the_answer_and_stops_the_others(browser, sound: Path, tmp_path: Path) -> None:
    write_rating_page(questions(sound), tmp_path / "rate.html")
    page = browser.new_page()
    page.goto((tmp_path / "rate.html").as_uri())
    playing = "() => [...document.querySelectorAll('.answer audio')].map(sound => !sound.paused)"
    page.keyboard.press(" ")
    assert page.evaluate(playing) == [True, False, False]
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    assert page.evaluate(playing) == [False, True, False]
    page.keyboard.press(" ")
    assert page.evaluate(playing) == [False, False, False]
    page.close()


def test_every_person_has_an_order_of_their_own(browser, tmp_path: Path) -> None:
    write_rating_page(questions(None, 5), tmp_path / "rate.html")
    orders = Counter()
    for _ in range(5):
        context = browser.new_context()
        page = context.new_page()
        page.goto((tmp_path / "rate.html").as_uri())
        orders[page.inner_text("#question")] += 1
        context.close()
    assert len(orders) > 2  # of 30 orders that are equally likely


def test_the_page_is_one_file_without_addresses(sound: Path, tmp_path: Path) -> None:
    write_rating_page(questions(sound), tmp_path / "rate.html")
    content = (tmp_path / "rate.html").read_text()
    assert "http:" not in content and "https:" not in content and "@" not in content.split("<script")[1]
    assert content.count("</script>") == 2


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (Rateable("x", "speed", "?", {"m": Answer("", Path("gone.wav"))}), "x: the sound file gone.wav cannot be read"),
        (Rateable("x", "speed", "?", {"m": Answer("", Path("a.txt"))}), "browsers can't play a.txt"),
        (Rateable("x", "charm", "?", {"m": Answer("", None)}), "dimension is 'charm'; accepted are speed"),
        (Rateable("x", "speed", "?", {}), "no answer to rate"),
        (Rateable("q0", "speed", "?", {"m": Answer("", None)}), "q0: the id is there twice"),
    ],
)
def test_items_that_cannot_be_rated_are_named(item: Rateable, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem.replace("?", r"\?")):
        write_rating_page([*questions(None), item], tmp_path / "rate.html")
    assert not (tmp_path / "rate.html").exists()


def test_a_page_without_questions_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one question"):
        write_rating_page([], tmp_path / "rate.html")


def test_people_are_averaged_over_questions(tmp_path: Path) -> None:
    one = ratings_file(tmp_path / "1", [row(rating=5), row("q1", rating=2), row("q2", "theirs", 1, "empathy")])
    two = ratings_file(tmp_path / "2", [row(rating=4)], rater="b")
    scores = read_ratings([one, two])
    assert [(s.id, s.numerator, s.denominator) for s in scores["ours", "speed"]] == [("q0", 9, 2), ("q1", 2, 1)]
    ours, theirs = opinions(scores)
    assert (ours.model, ours.dimension, ours.ratings, ours.questions) == ("ours", "speed", 3, 2)
    assert ours.mean == pytest.approx(11 / 3) and ours.low == 2 and ours.high == 4.5
    assert (theirs.model, theirs.mean, theirs.low, theirs.high) == ("theirs", 1, 1, 1)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_a_mean_lies_in_its_interval_and_on_the_scale(tmp_path_factory, given_ratings: list[int]) -> None:
    path = tmp_path_factory.mktemp("ratings") / "r.json"
    ratings_file(path, [row(f"q{i}", rating=value) for i, value in enumerate(given_ratings)])
    (opinion,) = opinions(read_ratings([path]))
    assert opinion.mean == pytest.approx(sum(given_ratings) / len(given_ratings))
    assert 1 <= opinion.low <= opinion.high <= 5
    if len(given_ratings) >= 5:
        assert opinion.low - 1e-9 <= opinion.mean <= opinion.high + 1e-9


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not valid JSON; a file saved by a rating page"),
        ("[]", "not saved by a rating page"),
        ('{"format": "else"}', "not saved by a rating page"),
        (json.dumps({"format": FORMAT, "ratings": []}), "damaged; 'page', 'rater'"),
        ([row(rating=6)], "rating 1: rating is 6; 1 to 5 is accepted"),
        ([row(), row("q1", rating=True)], "rating 2: rating is True"),
        ([row(dimension="charm")], "dimension is 'charm'; accepted are speed, accent"),
        ([row(), row()], "rating 2: ours on q0 is rated twice"),
        ([{"rating": 3}], "'item' and 'model' must be texts"),
    ],
)
def test_a_wrong_file_is_named_in_one_sentence(content, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    if isinstance(content, str):
        path.write_text(content)
    else:
        ratings_file(path, content)
    with pytest.raises(DataError, match=problem) as raised:
        read_ratings([path])
    assert str(raised.value).startswith(f"{path}: ")


def test_a_person_counts_once(tmp_path: Path) -> None:
    paths = [ratings_file(tmp_path / name, [row()]) for name in "12"]
    with pytest.raises(DataError, match="from the same person"):
        read_ratings(paths)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json: cannot be read"):
        read_ratings([tmp_path / "gone.json"])


def test_there_are_five_prompts_a_dimension() -> None:
    prompts = conversation_prompts()
    assert Counter(prompt["dimension"] for prompt in prompts) == dict.fromkeys(DIMENSIONS, 5)
    assert len({prompt["id"] for prompt in prompts}) == len({prompt["text"] for prompt in prompts}) == 25
    assert all(prompt[name] for prompt in prompts for name in ("id", "text", "manner", "heed"))
