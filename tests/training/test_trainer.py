import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import Regression

from kimi_audio.errors import CheckpointError, ConfigError
from kimi_audio.training.checkpoints import checkpoints
from kimi_audio.training.logs import read_metrics
from kimi_audio.training.trainer import TrainConfig, Trainer

TOY = Path(__file__).with_name("toy.py")
QUICK = TrainConfig(steps=60, learning_rate=1e-2, final_learning_rate=1e-3, warmup=0.1)


def losses(run_dir: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(run_dir / "metrics.jsonl") if "loss" in line}


def start(run_dir: Path, steps: int, *more: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(TOY), str(run_dir), str(steps), *more], stderr=subprocess.PIPE)


def wait_until(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.02)


def test_killed_run_resumes_to_the_same_losses(tmp_path):
    whole = start(tmp_path / "whole", 40)
    killed = start(tmp_path / "killed", 40)
    wait_until(lambda: len(losses(tmp_path / "killed")) >= 17)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    seen = len(losses(tmp_path / "killed"))
    assert start(tmp_path / "killed", 40, "resume").wait() == 0
    assert whole.wait() == 0
    assert seen < 40
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert sorted(losses(tmp_path / "killed")) == list(range(1, 41))


def test_sigterm_writes_a_checkpoint_and_the_run_goes_on_from_there(tmp_path):
    process = start(tmp_path / "run", 400)
    wait_until(lambda: len(losses(tmp_path / "run")) >= 3)
    process.terminate()
    assert process.wait() == 0
    stopped_at = max(losses(tmp_path / "run"))
    assert checkpoints(tmp_path / "run" / "checkpoints")[-1].name == f"step-{stopped_at:08d}"
    assert b"stopped at step" in process.stderr.read()
    assert not (tmp_path / "run" / "model").exists()


def test_training_fits_the_toy_and_leaves_everything_behind(tmp_path):
    config = replace(QUICK, evaluate_steps=20, accumulate=2)
    result = Trainer(Regression(), config, tmp_path).fit()
    curve = losses(tmp_path)
    assert result.finished and result.step == 60
    assert curve[60] < curve[1] / 3
    assert result.dev["loss"] < curve[1] / 3
    assert (tmp_path / "model" / "model.safetensors").stat().st_size > 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if "dev/loss" in line] == [20, 40, 60]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".pkl", ".bin", ".pth")]


def test_accumulating_equals_one_large_batch():
    def step(accumulate, size):
        objective = Regression()
        objective.model = torch.nn.Linear(8, 3, bias=False)
        torch.nn.init.ones_(objective.model.weight)
        objective.parameter_groups = lambda: super(Regression, objective).parameter_groups()
        data = torch.randn(32, 8, generator=torch.Generator().manual_seed(5))
        objective.batches = lambda begin: iter(data.split(size)[begin:])
        trainer = Trainer(objective, TrainConfig(steps=3, accumulate=accumulate, learning_rate=1e-2), Path())
        trainer._update(objective.batches(0))
        return objective.model.weight.detach()

    torch.testing.assert_close(step(4, 8), step(1, 32))


def test_a_long_gradient_is_clipped_and_a_short_one_left_alone(tmp_path):
    def step(clip):
        objective = Regression()
        trainer = Trainer(objective, replace(QUICK, clip=clip), tmp_path)
        kept = {}
        trainer.optimizer.register_step_pre_hook(
            lambda *_: kept.update({name: p.grad.clone() for name, p in objective.model.named_parameters()})
        )
        metrics = trainer._update(objective.batches(0))
        return metrics["gradient_norm"], torch.cat([gradient.flatten() for gradient in kept.values()])

    norm, whole = step(clip=1e9)
    assert float(whole.norm()) == pytest.approx(norm, rel=1e-5)
    told, clipped = step(clip=norm / 4)
    assert told == pytest.approx(norm)  # what is logged is the length before
    torch.testing.assert_close(clipped, whole / 4, rtol=1e-3, atol=1e-6)


def test_autocast_computes_in_bfloat16_and_keeps_weights_and_moments_in_float32(tmp_path):
    seen = []

    class Watched(Regression):
        def loss(self, batch):
            seen.append(self.model[0](batch).dtype)
            return super().loss(batch)

        def evaluate(self):
            seen.append(self.model[0](torch.zeros(2, 8)).dtype)
            return super().evaluate()

    config = replace(QUICK, autocast_bf16=True, evaluate_steps=60)
    objective = Watched()
    trainer = Trainer(objective, config, tmp_path)
    result = trainer.fit()
    assert set(seen) == {torch.bfloat16}
    assert result.dev["loss"] < 0.3 * objective.target.square().sum() / 3
    kept = [*objective.model.parameters(), *(s["exp_avg"] for s in trainer.optimizer.state.values())]
    assert {tensor.dtype for tensor in kept} == {torch.float32}


def test_schedule_warms_up_and_ends_at_the_final_rate(tmp_path):
    Trainer(Regression(), QUICK, tmp_path).fit()
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert rates[:6] == sorted(rates[:6]) and rates[0] < 3e-3
    assert max(rates) == pytest.approx(1e-2, rel=0.01)
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert rates[-1] == pytest.approx(1e-3, rel=0.02)


def test_time_limit_ends_the_run_with_the_rate_annealed(tmp_path):
    result = Trainer(Regression(delay=0.01), replace(QUICK, steps=10**6, minutes=0.5 / 60), tmp_path).fit()
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert result.finished and 5 < result.step < 100
    assert rates[-1] < 2e-3


def test_frozen_parameters_stay_and_are_not_in_the_checkpoint(tmp_path):
    from safetensors.torch import load_file

    objective = Regression()
    objective.model[0].weight.requires_grad_(False)
    objective.parameter_groups = lambda: super(Regression, objective).parameter_groups()
    before = objective.model[0].weight.clone()
    Trainer(objective, QUICK, tmp_path).fit()
    assert torch.equal(objective.model[0].weight, before)
    saved = load_file(checkpoints(tmp_path / "checkpoints")[-1] / "weights.safetensors")
    assert "0.weight" not in saved and "0.bias" in saved and "1.running_mean" in saved


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    Trainer(Regression(), replace(QUICK, checkpoint_steps=10), tmp_path).fit()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000050", "step-00000060"]
    state = json.loads((tmp_path / "checkpoints" / "step-00000060" / "state.json").read_text())
    assert state["step"] == 60 and state["config"]["steps"] == 60


def test_a_bad_gradient_is_left_out_and_training_goes_on(tmp_path):
    objective = Regression()
    good = objective.batches
    objective.batches = lambda begin: (batch * (float("nan") if i == 3 else 1.0) for i, batch in enumerate(good(begin)))
    objective.model[1] = torch.nn.Identity()  # batch statistics would keep the NaN
    objective.parameter_groups = lambda: super(Regression, objective).parameter_groups()
    result = Trainer(objective, QUICK, tmp_path).fit()
    assert torch.isfinite(objective.model[0].weight).all() and result.loss < 5


def test_a_run_folder_is_not_overwritten(tmp_path):
    Trainer(Regression(), replace(QUICK, steps=2), tmp_path).fit()
    with pytest.raises(ConfigError, match="holds a training run already"):
        Trainer(Regression(), replace(QUICK, steps=2), tmp_path).fit()


def test_resuming_another_model_is_refused(tmp_path):
    Trainer(Regression(), replace(QUICK, steps=2), tmp_path).fit()
    other = Regression()
    other.model[3] = torch.nn.Linear(32, 4)
    with pytest.raises(CheckpointError, match=r"3\.(weight|bias) has shape"):
        Trainer(other, replace(QUICK, steps=4), tmp_path).fit(resume=True)


def test_the_documented_objective_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    exec(page.split("```python\n")[1].split("```")[0], {})
    curve = losses(tmp_path / "runs" / "denoise")
    assert len(curve) == 100 and curve[100] < curve[1] / 2
