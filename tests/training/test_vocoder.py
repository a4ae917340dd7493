"""The vocoder's training: both sides of the game get their own gradients and no other; the mel loss falls."""

from itertools import islice

import pytest
import torch
from training.sounds import RATE, make_vocoder, tone_store

from kimi_audio.detokenizer.vocoder import log_mel
from kimi_audio.training.discriminators import (
    Discriminators,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from kimi_audio.training.objectives.vocoder import (
    MATCHING_WEIGHT,
    MEL_WEIGHT,
    VocoderObjective,
    multi_scale_mel_loss,
)
from kimi_audio.training.trainer import TrainConfig, Trainer


@pytest.fixture
def store(tmp_path):
    return tone_store(tmp_path)


def objective(store, **settings) -> VocoderObjective:
    torch.manual_seed(1)
    return VocoderObjective(make_vocoder(), store, discriminator_channels=2, segment_frames=8, batch=2, **settings)


def gradients(module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


def test_one_backward_pass_is_both_sides_of_the_game(store):
    game = objective(store)
    batch = next(game.batches(0))
    game.loss(batch)[0].backward()
    together = gradients(game.vocoder), gradients(game.discriminators)

    game.model.zero_grad(set_to_none=True)
    made = game.vocoder(log_mel(batch[0], game.vocoder.config))
    discriminator_loss(game.discriminators(batch[0]), game.discriminators(made.detach())).backward()
    for ours, expected in zip(together[1], gradients(game.discriminators), strict=True):
        assert torch.allclose(ours, expected, atol=1e-6)

    game.model.zero_grad(set_to_none=True)
    real, judged = game.discriminators(batch[0]), game.discriminators(made)
    mel = multi_scale_mel_loss(batch[0], made, RATE)
    loss = adversarial_loss(judged) + MATCHING_WEIGHT * feature_matching_loss(real, judged) + MEL_WEIGHT * mel
    loss.backward()
    for ours, expected in zip(together[0], gradients(game.vocoder), strict=True):
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_at_first_only_the_mel_counts(store):
    game = objective(store, adversary_after=3)
    numbers = [len(judges) for _, judges in islice(game.batches(0), 5)]
    assert numbers == [0, 0, 0, 8, 8]
    game.loss(next(game.batches(0)))[0].backward()
    assert not gradients(game.discriminators) and gradients(game.vocoder)


def test_few_discriminators_a_batch_are_all_of_them_in_time(store):
    game = objective(store, judges=2)
    drawn = [judges for _, judges in islice(game.batches(0), 40)]
    assert {len(judges) for judges in drawn} == {2} and {judge for judges in drawn for judge in judges} == set(range(8))
    samples_BL, judges = next(game.batches(0))
    loss, metrics = game.loss((samples_BL, judges))
    loss.backward()
    moved = {number for number, judge in enumerate(game.discriminators.parts) if gradients(judge)}
    assert moved == set(judges) and metrics["adversarial_loss"] > 0


def test_batches_depend_on_their_number_alone(store):
    third = list(islice(objective(store).batches(0), 4))[3][0]
    assert torch.equal(next(objective(store).batches(3))[0], third)


def test_discriminators_learn_to_tell(store):
    """Real sounds score higher than noise after a few steps."""
    torch.manual_seed(0)
    judges = Discriminators(2)
    optimizer = torch.optim.Adam(judges.parameters(), 2e-3)
    real = torch.stack([torch.from_numpy(store.samples(row)[:7200]) for row in range(4)])
    made = 0.2 * torch.randn(4, 7200)
    for _ in range(25):
        loss = discriminator_loss(judges(real), judges(made))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(adversarial_loss(judges(real))) < float(adversarial_loss(judges(made)))


def test_equal_sounds_have_no_mel_loss(store):
    samples = torch.from_numpy(store.samples(3))[None]
    assert float(multi_scale_mel_loss(samples, samples, RATE)) == 0
    assert float(multi_scale_mel_loss(samples, 0.5 * samples, RATE)) > 1


def test_the_mel_loss_falls(store, tmp_path):
    game = objective(store, adversary_after=25, dev=store)
    before = game.evaluate()["mel_loss"]
    config = TrainConfig(steps=30, learning_rate=2e-3, evaluate_steps=30, clip=1000.0)
    result = Trainer(game, config, tmp_path / "run").fit()
    assert result.dev["mel_loss"] < 0.8 * before
