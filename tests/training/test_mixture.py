from itertools import islice

import pytest

from kimi_audio.errors import DataError
from kimi_audio.prompt import Prompt
from kimi_audio.training import mixture
from kimi_audio.training.mixture import Mixture


class Numbers:
    """Documents that say their source and number, and a random choice of theirs."""

    def __init__(self, name: int, size: int):
        self.name, self.size = name, size

    def __len__(self):
        return self.size

    def prompt(self, index, rng):
        prompt = Prompt()
        length = 5 + index % 7
        prompt.add([self.name] * length, [index] * (length - 1) + [int(rng.integers(1000))])
        return prompt


@pytest.fixture(autouse=True)
def small_rounds(monkeypatch):
    monkeypatch.setattr(mixture, "ROUND", 40)


def shown(rows):
    return [[(prompt.audio_ids[0], prompt.text_ids[0], prompt.text_ids[-1]) for prompt in row] for row in rows]


def test_row_number_i_is_the_same_wherever_one_starts():
    make = lambda: Mixture([Numbers(0, 13), Numbers(1, 29)], [1, 2], capacity=32, seed=3)  # noqa: E731
    whole = shown(islice(make().rows(), 60))
    for start in (0, 1, 7, 33, 59):
        assert shown(islice(make().rows(start), 60 - start)) == whole[start:]
    shares = [shown(islice(make().rows(share, 3), 90)) for share in range(3)]
    rounds = [row for share in shares for row in share]
    assert all(row in rounds for row in whole)  # each round is in one of the shares
    assert shown(islice(make().rows(1 + 3 * 4, 3), 5)) == shares[1][4:9]
    assert shown(islice(Mixture([Numbers(0, 13)], [1], 32, seed=4).rows(), 9)) != shown(
        islice(Mixture([Numbers(0, 13)], [1], 32, seed=3).rows(), 9)
    )


def test_sources_come_by_weight_and_each_document_once_an_epoch():
    rows = islice(Mixture([Numbers(0, 20), Numbers(1, 1000)], [1, 3], capacity=32).rows(), 400)
    drawn = [entry for row in shown(rows) for entry in row]
    share = sum(source == 0 for source, _, _ in drawn) / len(drawn)
    assert share == pytest.approx(0.25, abs=0.02)
    counts = [sum((source, number) == (0, n) for source, number, _ in drawn) for n in range(20)]
    assert max(counts) - min(counts) <= 2  # rounds are shuffled, so the end may cut two epochs
    others = [number for source, number, _ in drawn if source == 1][:800]
    assert len(set(others)) == len(others)


def test_documents_that_do_not_fit_are_left_out_and_all_of_them_is_an_error():
    rows = islice(Mixture([Numbers(0, 20)], [1], capacity=9).rows(), 50)
    assert max(len(prompt) for row in rows for prompt in row) <= 9
    with pytest.raises(DataError, match="no document of the mixture fits into a row of 4 positions"):
        next(Mixture([Numbers(0, 20)], [1], capacity=4).rows())


def test_empty_sources_are_named():
    with pytest.raises(DataError, match="source 2 of the mixture holds no document"):
        Mixture([Numbers(0, 3), Numbers(1, 0)], [1, 1], capacity=9)
