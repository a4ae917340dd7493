"""The evaluation of the small model's range: new wordings, half of the items new, answers as they are taught."""

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

TINY = Path(__file__).parents[2] / "recipes" / "tiny"
sys.path[:0] = [str(TINY), str(TINY / "evaluation")]

from conversations import conversations  # noqa: E402
from data import make_range  # noqa: E402
from questions import evaluation_questions, pairs, rows, user_turns  # noqa: E402
from spoken import VOICES, questions, requests  # noqa: E402

from kimi_audio.evaluation.benchmarks import read_benchmark  # noqa: E402
from kimi_audio.evaluation.matching import mentions  # noqa: E402

RANGE = evaluation_questions("range")
SINGLE = {"smalltalk", "arithmetic", "spelling", "date", "country", "opposite", "unit", "repeat"}


def normalise(text: str) -> str:
    return " ".join(re.sub(r"[^a-z0-9]+", " ", text.lower().replace("'", "")).split())


def test_there_are_200_items_spread_over_the_kinds_and_half_of_those_that_follow_from_a_rule_are_unseen():
    assert [row["id"] for row in RANGE] == [f"r{number:03d}" for number in range(200)]
    counts = Counter(row["kind"] for row in RANGE)
    assert counts.keys() == {*SINGLE, "manner", "previous"}
    assert all(21 <= counts[kind] <= 22 for kind in SINGLE) and counts["manner"] == counts["previous"] == 14
    assert all(("turns" in row) == (row["kind"] not in SINGLE) for row in RANGE)
    unseen = Counter(row["kind"] for row in RANGE if row["unseen"])
    taught = {"date", "opposite"}  # a calendar with a hole is not known, and an opposite does not follow from others
    assert all(unseen[kind] == 0 for kind in taught)
    assert all(abs(unseen[kind] - counts[kind] / 2) <= 1 for kind in SINGLE if kind not in taught)


def test_no_wording_is_in_training_or_in_the_other_evaluation():
    asked = {normalise(text) for row in RANGE for text in user_turns(row)}
    assert len({normalise(user_turns(row)[-1]) for row in RANGE}) == 200
    assert not asked & {normalise(pair.question) for pair in pairs()}
    assert not asked & {normalise(text) for made in conversations() for text in made.user_turns}
    assert not asked & {normalise(row["question"]) for row in evaluation_questions()}
    prompts = ((form or "{}").format(filler) for form, fillers in rows("prompts") for filler in fillers.split("|"))
    assert not asked & {normalise(prompt) for prompt in prompts}


def test_unseen_items_are_unseen():
    training = pairs()
    items = {pair.item for pair in training} | {" ".join(reversed(pair.item.split(" "))) for pair in training}
    answers = [normalise(pair.answer) for pair in training]
    for row in RANGE:
        if not row["unseen"]:
            continue
        assert row["item"] not in items, row["item"]
        if row["kind"] in ("spelling", "repeat"):
            assert not any(mentions(answer, row["patterns"]) for answer in answers), row["item"]
        if row["kind"] == "country":
            name = re.compile(rf"\b{normalise(row['item'].split(' of ')[1])}\b")
            assert not any(name.search(text) for text in answers), row["item"]


def test_what_is_taught_is_judged_right():
    taught: dict[str, list[str]] = {}
    for pair in pairs():
        taught.setdefault(pair.item, []).append(pair.answer)
    for row in RANGE:
        if row["unseen"] or row["kind"] not in SINGLE:
            continue
        assert any(mentions(answer, row["patterns"]) for answer in taught[row["item"]]), row["id"]


def test_a_request_repeated_is_no_answer():
    repeated = {row["kind"] for row in RANGE if mentions(user_turns(row)[-1], row["patterns"])}
    assert repeated == {"repeat"}


def test_after_a_request_for_another_manner_the_whole_answer_is_wanted():
    for row in RANGE:
        if row["kind"] == "manner":
            assert mentions(row["turns"][1], row["patterns"])
            assert not mentions(" ".join(row["turns"][1].split()[1:]), row["patterns"])


def test_each_voice_says_half_and_both_turns_of_an_item():
    spoken = list(requests())
    assert len({name for name, *_ in spoken}) == len(spoken) == 228
    voices = {(name.split("-")[0], voice) for name, voice, _, _ in spoken}
    assert Counter(voice for _, voice in voices) == dict.fromkeys(VOICES, 100)
    assert [text for *_, text in spoken] == [text for row in RANGE for text in user_turns(row)]


def test_the_folder_is_one_that_the_benchmark_reads(tmp_path):
    wavs = tmp_path / "wavs"
    wavs.mkdir()
    for name, *_ in requests():
        soundfile.write(wavs / f"{name}.wav", np.zeros(800, np.int16), 8000)
    make_range(tmp_path, wavs)
    samples, faults = read_benchmark(TINY / "evaluation" / "range.yaml").samples(tmp_path)
    assert (len(samples), faults) == (200, [])
    assert all(sample.instruction == "" and sample.seconds == pytest.approx(0.1) for sample in samples)
    assert sum(bool(sample.history) for sample in samples) == 28
    asked, answered = samples[-1].history
    assert Path(asked.content).resolve() == wavs.resolve() / "r199-1.wav" and answered.content == RANGE[-1]["turns"][1]
    assert samples[-1].audios[0].resolve() == wavs / "r199-2.wav"


def test_both_voices_ask_each_question():
    spoken = list(questions())
    assert len({name for name, *_ in spoken}) == len(spoken) == 200
    assert Counter(voice for _, voice, _, _ in spoken) == dict.fromkeys(VOICES, 100)
