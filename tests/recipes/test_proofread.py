"""Proof-reading: which texts are said, and which try of each is kept."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from proofread import ProofReader, Spoken, answers, lines

from kimi_audio.model import KimiAudio


class Rehearsed(ProofReader):
    """Whose tries and recordings of each text are as unclear as it is told."""

    def __init__(self, tries: dict[str, list[float]], recorded: list[float]) -> None:
        self.tries, self.recorded, self.made = tries, recorded, 0

    def said(self, texts: Sequence[str], seed: int) -> list[Spoken]:
        self.made += len(texts)
        return [Spoken([seed], torch.zeros(0), self.tries[text][seed]) for text in texts]

    def revoiced(self, texts: Sequence[str], paths: Sequence[Path]) -> list[Spoken]:
        self.made += len(texts)
        numbers = [int(path.stem) for path in paths]
        return [Spoken([100 + number], torch.zeros(0), self.recorded[number]) for number in numbers]


@pytest.mark.parametrize(
    ("tries", "recorded", "kept", "made"),
    [
        ([0.01, 0.0], [], 0, 1),
        ([0.9, 0.05, 0.0], [], 1, 2),
        ([0.9, 0.5, 0.7], [], 1, 3),
        ([0.9, 0.5], [0.8, 0.4], 101, 4),
        ([0.9, 0.5], [0.02, 0.0], 100, 3),
    ],
)
def test_the_clearest_is_kept_and_a_clear_one_ends_the_search(tries, recorded, kept, made):
    reader = Rehearsed({"O.": tries}, recorded)
    recordings = {"O.": [Path(f"{number}.wav") for number in range(len(recorded))]}
    [greedy], [best] = reader.clearest(["O."], len(tries), recordings)
    assert greedy.codes == [0]
    assert best.codes == [kept]
    assert reader.made == made


def test_each_text_keeps_its_own_clearest_try():
    reader = Rehearsed({"A.": [0.3, 0.2, 0.4], "B.": [0.01, 0, 0], "C.": [0.5, 0.9, 0.03]}, [])
    _, best = reader.clearest(["A.", "B.", "C."], 3, {})
    assert [spoken.codes for spoken in best] == [[1], [0], [2]]
    assert reader.made == 7


@pytest.mark.slow
def test_texts_said_together_are_heard_as_each_alone():
    reader = ProofReader(KimiAudio.from_pretrained(dtype="auto"))
    texts = ["The capital of France is Paris.", "Twelve plus two is fourteen.", "No."]
    together = reader.said(texts, 0)
    for text, spoken in zip(texts, together, strict=True):
        [alone] = reader.said([text], 0)
        assert spoken.codes == alone.codes
        assert len(spoken.samples_L) == len(spoken.codes) * 4 * 480
        assert spoken.unclear == pytest.approx(alone.unclear, abs=0.05)
    [right, wrong] = reader.sounding([together[0].codes] * 2, [texts[0], texts[1]])
    assert right.unclear < 1 < wrong.unclear


def test_lines_are_the_last_column_each_text_once(tmp_path):
    (tmp_path / "lines.tsv").write_text("1\tvoice\t0.9\tGood day.\n2\tvoice\t1\tNo.\n3\tvoice\t1\tGood day.\n")
    assert lines(tmp_path / "lines.tsv") == ["Good day.", "No."]


def test_answers_are_drawn_by_their_kinds_and_cut_into_pieces(tmp_path):
    said = {"spelling": "The word dog is spelled D, O, G.", "capital": "Oslo is the capital of Norway."}
    rows = [{"kind": kind, "messages": [{"content": "?"}, {"content": answer}]} for kind, answer in said.items()]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sorted(answers([tmp_path / "questions.jsonl"], 10, 0)) == [said["capital"], "The word dog is spelled."]
    assert len(answers([tmp_path / "questions.jsonl"], 1, 0)) == 1
