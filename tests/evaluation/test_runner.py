"""Answers are asked for once, survive a kill, and are not mixed up between weights or instructions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kimi_audio.evaluation import report
from kimi_audio.evaluation.runner import Item, Task, run
from kimi_audio.evaluation.systems import fingerprint

ITEMS = [Item(f"clip-{n}", np.full(160, n, np.float32), str(n), None, 0.01) for n in range(4)]


def share_right(items, answers) -> float:
    return float(np.mean([item.reference == answer for item, answer in zip(items, answers, strict=True)]))


TASK = Task("levels", "levels, accuracy", "%", ITEMS, share_right)


class Loudness:
    """Says how loud a sound is, and remembers how often it was asked."""

    name, fingerprint, instructable = "loudness meter", "abc", False

    def __init__(self, give_up_after: int = 100):
        self.asked, self.give_up_after = 0, give_up_after

    def answer(self, audio, instruction: str | None) -> str:
        if self.asked == self.give_up_after:
            raise KeyboardInterrupt
        self.asked += 1
        return f"{audio.max():.0f}" + (instruction or "")


def test_answers_come_in_order_and_are_scored(tmp_path: Path) -> None:
    answers = run(Loudness(), TASK, tmp_path)
    assert answers == ["0", "1", "2", "3"]
    assert TASK.score(TASK.items, answers) == 1


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Loudness(give_up_after=2), TASK, tmp_path)
    second = Loudness()
    assert run(second, TASK, tmp_path) == ["0", "1", "2", "3"]
    assert second.asked == 2


def test_a_line_cut_short_by_a_kill_is_asked_again(tmp_path: Path) -> None:
    run(Loudness(), TASK, tmp_path)
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_text(path.read_text()[:-20])
    again = Loudness()
    assert run(again, TASK, tmp_path) == ["0", "1", "2", "3"]
    assert again.asked == 1
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == [item.key for item in ITEMS]


def test_other_weights_and_other_instructions_are_asked_anew(tmp_path: Path) -> None:
    run(Loudness(), TASK, tmp_path)
    other = Loudness()
    other.fingerprint = "def"
    run(other, TASK, tmp_path)
    assert other.asked == len(ITEMS)
    loudly = replace(TASK, items=[replace(item, instruction="!") for item in ITEMS])
    assert run(Loudness(), loudly, tmp_path) == ["0!", "1!", "2!", "3!"]
    assert not loudly.suits(Loudness()) and TASK.suits(Loudness())


def test_the_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"one")
    first = fingerprint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert fingerprint(tmp_path) == first
    (tmp_path / "a.safetensors").write_bytes(b"two")
    assert fingerprint(tmp_path) != first


def test_the_table_has_a_dash_where_a_system_cannot_do_a_task() -> None:
    words = Task("words", "invented words per minute", "", ITEMS[:1], share_right)
    table = report.markdown(
        [TASK, words], ["ours", "other"], {"levels": {"ours": 0.875}, "words": {"ours": 2, "other": 0.04}}
    )
    assert table.splitlines() == [
        "| task | items | ours | other |",
        "| --- | --: | --: | --: |",
        "| levels, accuracy | 4 | 87.5 % | – |",
        "| invented words per minute | 1 | 2.0 | 0.0 |",
    ]
