"""Proof-reading: which texts are said, and which try of each is kept."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "tiny"))

from proofread import ProofReader, Spoken, answers


class Rehearsed(ProofReader):
    """Whose tries and recordings are as unclear as it is told."""

    def __init__(self, tries: list[float], recorded: list[float]) -> None:
        self.tries, self.recorded, self.made = tries, recorded, 0

    def said(self, text: str, seed: int) -> Spoken:
        self.made += 1
        return Spoken((seed,), torch.zeros(0), self.tries[seed])

    def revoiced(self, text: str, recording: Path) -> Spoken:
        self.made += 1
        return Spoken((100 + int(recording.stem),), torch.zeros(0), self.recorded[int(recording.stem)])


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
    reader = Rehearsed(tries, recorded)
    spoken = reader.clearest("O.", len(tries), [Path(f"{number}.wav") for number in range(len(recorded))])
    assert spoken.codes == (kept,)
    assert reader.made == made


def test_answers_are_drawn_by_their_kinds_and_cut_into_pieces(tmp_path):
    said = {"spelling": "The word dog is spelled D, O, G.", "capital": "Oslo is the capital of Norway."}
    rows = [{"kind": kind, "messages": [{"content": "?"}, {"content": answer}]} for kind, answer in said.items()]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sorted(answers([tmp_path / "questions.jsonl"], 10, 0)) == [said["capital"], "The word dog is spelled."]
    assert len(answers([tmp_path / "questions.jsonl"], 1, 0)) == 1
