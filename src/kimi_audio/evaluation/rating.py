"""Speech conversation rated by people, 1 to 5 in five dimensions, as in the report's §6.

    write_rating_page([Rateable("speed-1", "speed", question, {"ours": Answer(text, Path("a.wav")), ...})], page)
    scores = read_ratings([Path("ratings-1.json"), Path("ratings-2.json")])
    for opinion in opinions(scores): ...                # mean with its interval, per model and dimension

The page is one file that needs no network. It shows the answers to a question in a random order of its own for every
person, without their models' names (they are in its source: blind for those who don't look), and saves a JSON file.
`conversation_prompts()` are 25 questions to begin with.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from kimi_audio.errors import DataError
from kimi_audio.evaluation.samples import ItemScore
from kimi_audio.evaluation.statistics import figure, interval
from kimi_audio.evaluation.store import Item, Result

DIMENSIONS = {
    "speed": "speed control",
    "accent": "accent control",
    "emotion": "emotion control",
    "empathy": "empathy",
    "style": "style control",
}
FORMAT = "kimi-audio-ratings-1"
SOUND_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg",
               ".opus": "audio/ogg", ".m4a": "audio/mp4"}  # fmt: skip

Scores = dict[tuple[str, str], list[ItemScore]]
"""(model, dimension) → for each question the sum of its ratings and their number."""


@dataclass(frozen=True)
class Answer:
    """What a model said: text ("" if it only spoke) and sound."""

    text: str
    audio: Path | None


@dataclass(frozen=True)
class Rateable:
    """A question with the answers of several models.

    Attributes:
        id: unique on the page.
        dimension: one of `DIMENSIONS`, in which the answers are rated.
        text: the question in writing; `audio` as it was asked.
        answers: by model.
        heed: one line for the rater on what a good answer has.
    """

    id: str
    dimension: str
    text: str
    answers: Mapping[str, Answer]
    audio: Path | None = None
    heed: str = ""


@dataclass(frozen=True)
class Opinion:
    """The mean rating of a model in a dimension with its bootstrap 95 % interval over questions."""

    model: str
    dimension: str
    mean: float
    low: float
    high: float
    ratings: int
    questions: int


def conversation_prompts() -> list[dict[str, str]]:
    """25 questions, five a dimension: `id`, `dimension`, `text`, `manner` (how to ask it) and `heed` (for raters)."""
    lines = (_assets() / "conversation_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rateable_answers(results: Sequence[tuple[Result, list[Item]]]) -> list[Rateable]:
    """The answers of all models to the benchmark `conversation`, question by question.

    Raises:
        DataError: when no model was asked it.
    """
    asked = {row["id"]: row for row in conversation_prompts()}
    answers: dict[str, dict[str, Answer]] = defaultdict(dict)
    sounds: dict[str, Path | None] = {}
    for result, items in results:
        for item in items if result.benchmark == "conversation" else ():
            if item.score.id in asked and item.audio:
                answers[item.score.id][f"{result.model}-{result.fingerprint}"] = Answer(item.text, Path(item.audio))
                sounds[item.score.id] = Path(item.sounds[-1]) if item.sounds else None
    if not answers:
        raise DataError("no spoken answers to rate; `kimi-audio eval conversation --model MODEL …` asks for some")
    return [
        Rateable(name, row["dimension"], row["text"], answers[name], sounds[name], row["heed"])
        for name, row in asked.items()
        if name in answers
    ]


def write_rating_page(items: Sequence[Rateable], out: Path) -> None:
    """Write the page. Raises DataError for an unknown dimension, an id that is there twice, or an unplayable sound."""
    if not items:
        raise DataError("a rating page needs at least one question with answers")
    seen: set[str] = set()
    for item in items:
        if item.dimension not in DIMENSIONS:
            raise DataError(f"{item.id}: dimension is {item.dimension!r}; accepted are {', '.join(DIMENSIONS)}")
        if item.id in seen:
            raise DataError(f"{item.id}: the id is there twice")
        if not item.answers:
            raise DataError(f"{item.id}: there is no answer to rate")
        seen.add(item.id)
    content = json.dumps([_shown(item) for item in items], ensure_ascii=False).replace("<", "\\u003c")
    page = hashlib.sha256(content.encode()).hexdigest()[:12]
    template = (_assets() / "rating.html").read_text(encoding="utf-8")
    filled = template.replace("@FORMAT@", FORMAT).replace("@PAGE@", page).replace("@ITEMS@", content)
    out.write_text(filled, encoding="utf-8")


def read_ratings(paths: Sequence[Path]) -> Scores:
    """What people rated. Raises DataError naming the file that isn't one of ratings, or is there twice."""
    ratings: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    raters: dict[tuple[str, str], Path] = {}
    for path in paths:
        content = _ratings_file(path)
        who = content["page"], content["rater"]
        if who in raters:
            raise DataError(f"{path}: from the same person as {raters[who]}; give only the newer of the two")
        raters[who] = path
        for row in content["ratings"]:
            ratings[row["model"], row["dimension"]][row["item"]].append(row["rating"])
    return {
        key: [ItemScore(item, sum(given), len(given)) for item, given in sorted(by_item.items())]
        for key, by_item in ratings.items()
    }


def opinions(scores: Scores, seed: int = 0) -> list[Opinion]:
    """Means and intervals, ordered by dimension and then by mean, best first."""
    found = []
    for (model, dimension), items in scores.items():
        low, high = interval(items, seed)
        given = round(sum(item.denominator for item in items))
        found.append(Opinion(model, dimension, figure(items), low, high, given, len(items)))
    return sorted(found, key=lambda opinion: (list(DIMENSIONS).index(opinion.dimension), -opinion.mean, opinion.model))


def _assets() -> Path:
    return Path(str(files("kimi_audio.evaluation") / "rating_assets"))


def _shown(item: Rateable) -> dict[str, Any]:
    answers = [
        {"model": model, "text": answer.text, "audio": _sound(item.id, answer.audio)}
        for model, answer in item.answers.items()
    ]
    return {"id": item.id, "dimension": item.dimension, "asked": DIMENSIONS[item.dimension], "text": item.text,
            "heed": item.heed, "audio": _sound(item.id, item.audio), "answers": answers}  # fmt: skip


def _sound(item: str, path: Path | None) -> str | None:
    """The file as a data address."""
    if path is None:
        return None
    if path.suffix.lower() not in SOUND_TYPES:
        raise DataError(f"{item}: browsers can't play {path.name}; accepted are {', '.join(SOUND_TYPES)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{item}: the sound file {path} cannot be read ({error.strerror})") from error
    return f"data:{SOUND_TYPES[path.suffix.lower()]};base64,{base64.b64encode(content).decode()}"


def _ratings_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError:
        raise DataError(f"{path}: not valid JSON; a file saved by a rating page is expected") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: not saved by a rating page (its format is not {FORMAT})")
    rows = content.get("ratings")
    named = all(isinstance(content.get(name), str) for name in ("page", "rater"))
    if not named or not isinstance(rows, list):
        raise DataError(f"{path}: damaged; 'page', 'rater' and a list of 'ratings' are expected")
    seen = set()
    for number, row in enumerate(rows, start=1):
        problem = _problem(row)
        if problem is None and (key := (row["item"], row["model"])) in seen:
            problem = f"{key[1]} on {key[0]} is rated twice"
        if problem:
            raise DataError(f"{path}: rating {number}: {problem}")
        seen.add((row["item"], row["model"]))
    return content


def _problem(row: Any) -> str | None:
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("item", "model")):
        return "'item' and 'model' must be texts"
    if row.get("dimension") not in DIMENSIONS:
        return f"dimension is {row.get('dimension')!r}; accepted are {', '.join(DIMENSIONS)}"
    if type(row.get("rating")) is not int or not 1 <= row["rating"] <= 5:
        return f"rating is {row.get('rating')!r}; 1 to 5 is accepted"
    return None
