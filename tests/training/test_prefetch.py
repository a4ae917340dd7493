"""Batches from worker processes are those that the trainer itself would make."""

from itertools import count, islice

import numpy as np
import pytest
import torch

from kimi_audio.prompt import Prompt
from kimi_audio.training.mixture import Mixture
from kimi_audio.training.objective import Objective
from kimi_audio.training.prefetch import prefetched
from kimi_audio.training.trainer import TrainConfig, Trainer


class Line(Objective):
    """Learns a line from points that their number decides; a batch says in which process it was made."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(1, 1)

    def batches(self, start, stride=1):
        for number in count(start, stride):
            x = torch.from_numpy(np.random.default_rng(number).standard_normal((4, 1)).astype(np.float32))
            yield number, x, torch.utils.data.get_worker_info() is not None

    def loss(self, batch):
        _, x, _ = batch
        return (self.model(x) - 3 * x - 1).square().mean(), {}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_from_any_start(workers):
    for start in (0, 4):
        batches = list(islice(prefetched(Line(), start, workers), 7))
        assert [number for number, _, _ in batches] == list(range(start, start + 7))
        assert all(elsewhere == (workers > 0) for _, _, elsewhere in batches)


def test_a_run_with_workers_resumes_to_the_same_losses(tmp_path):
    config = TrainConfig(steps=9, learning_rate=0.1, workers=2, checkpoint_steps=4)
    whole = Trainer(Line(), config, tmp_path / "whole").fit()
    alone = Trainer(Line(), TrainConfig(steps=9, learning_rate=0.1), tmp_path / "alone").fit()
    assert whole.loss == alone.loss

    class Stops(Line):
        def batches(self, start, stride=1):
            for batch in super().batches(start, stride):
                if batch[0] == 6:
                    raise InterruptedError("power cut")
                yield batch

    with pytest.raises(InterruptedError):
        Trainer(Stops(), config, tmp_path / "cut").fit()
    assert Trainer(Line(), config, tmp_path / "cut").fit(resume=True).loss == whole.loss


class Words:
    def __len__(self):
        return 10

    def prompt(self, index, rng):
        prompt = Prompt()
        prompt.add([index] * 5, [int(rng.integers(100))] * 5)
        return prompt


class Rows(Objective):
    def __init__(self) -> None:
        self.model, self.mixture = torch.nn.Linear(1, 1), Mixture([Words()], [1.0], capacity=12, seed=3)

    def batches(self, start, stride=1):
        for row in self.mixture.rows(start, stride):
            yield [(prompt.audio_ids[0], prompt.text_ids[0]) for prompt in row]

    def loss(self, batch):
        raise NotImplementedError


def test_rows_of_documents_go_on_where_they_stopped_and_leave_out_none():
    rows = list(islice(prefetched(Rows(), 0, 2), 140))
    for start in (1, 6, 33):
        assert list(islice(prefetched(Rows(), start, 2), 5)) == rows[start : start + 5]
    drawn = [word for row in rows[:128] for word, _ in row]  # one round of 128 documents from each worker
    assert all(abs(drawn.count(word) - 25.6) <= 2 for word in range(10))
