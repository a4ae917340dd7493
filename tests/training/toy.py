"""A small real objective, and a script that trains it: `python toy.py RUN_DIR STEPS [resume]`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import nn

from kimi_audio.training.objective import Objective, ParameterGroup
from kimi_audio.training.trainer import TrainConfig, Trainer


class Regression(Objective):
    """Fit a fixed random linear map through a dropout layer, so that data and dropout both draw random numbers."""

    def __init__(self, delay: float = 0.0):
        torch.manual_seed(0)
        self.target = torch.randn(8, 3)
        self.model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 3))
        self.delay = delay

    def batches(self, start):
        for number in iter(range(start, 10**9)):
            yield torch.randn(16, 8, generator=torch.Generator().manual_seed(number))

    def loss(self, batch):
        time.sleep(self.delay)
        return (self.model(batch) - batch @ self.target).square().mean(), {"tokens": len(batch)}

    def parameter_groups(self):
        return [
            ParameterGroup("first", list(self.model[0].parameters()), scale=0.5),
            ParameterGroup("rest", list(self.model[1:].parameters())),
        ]

    def evaluate(self):
        points = torch.randn(64, 8, generator=torch.Generator().manual_seed(-1))
        return {"loss": float((self.model(points) - points @ self.target).square().mean())}


if __name__ == "__main__":
    run_dir, steps = Path(sys.argv[1]), int(sys.argv[2])
    config = TrainConfig(steps=steps, learning_rate=1e-2, final_learning_rate=1e-3, warmup=0.1, checkpoint_steps=7)
    Trainer(Regression(delay=0.02), config, run_dir).fit(resume="resume" in sys.argv)
