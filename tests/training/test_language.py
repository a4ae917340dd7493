from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kimi_audio.errors import ConfigError
from kimi_audio.llm.model import AudioLLM
from kimi_audio.training.mixture import Mixture
from kimi_audio.training.objective import groups_by_prefix
from kimi_audio.training.objectives.language import LanguageObjective, Regularisation, regularise
from kimi_audio.training.packing import PackedRow
from kimi_audio.training.trainer import TrainConfig, Trainer


@pytest.fixture
def source(make_prompt):
    class Prompts:
        def __len__(self):
            return 6

        def prompt(self, index, rng):
            return make_prompt(3, 5, 2, seed=index)

    return Prompts()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_the_masked_loss_over_all_positions(llm, vocab, source, make_prompt, smoothing):
    """The definition of SPEC §8: sum(ce · mask) / (sum(mask) + 1e-4), over labels shifted left, both streams."""
    settings = Regularisation(label_smoothing=smoothing)
    objective = LanguageObjective(llm, Mixture([source], [1], 64), vocab, regularisation=settings)
    prompt = make_prompt(4, 6, 3, seed=9)
    loss, metrics = objective.loss(PackedRow.of([prompt]))
    ids = torch.tensor([prompt.audio_ids]), torch.tensor([prompt.text_ids])
    mask = torch.tensor([prompt.continuous_mask])
    logits = llm(*ids, continuous_mask_BT=mask, features=prompt.features)
    expected = {}
    for name, stream_logits, stream_ids, loss_mask in (
        ("text_loss", logits.text_logits, ids[1], prompt.text_loss_mask),
        ("audio_loss", logits.audio_logits, ids[0], prompt.audio_loss_mask),
    ):
        wanted = torch.tensor([*loss_mask[1:], False]).float()
        labels = torch.cat([stream_ids[0, 1:], stream_ids[0, :1]])
        each = F.cross_entropy(stream_logits[0], labels, reduction="none", label_smoothing=smoothing)
        expected[name] = (each * wanted).sum() / (wanted.sum() + 1e-4)
    torch.testing.assert_close(metrics["text_loss"], expected["text_loss"].detach())
    torch.testing.assert_close(metrics["audio_loss"], expected["audio_loss"].detach())
    torch.testing.assert_close(loss, expected["text_loss"] + expected["audio_loss"])


def test_regularisation_changes_the_input_and_never_the_labels(vocab, make_prompt):
    row = PackedRow.of([make_prompt(20, 200, 150, 1), make_prompt(30, 100, 150, 2)])
    settings = Regularisation(corrupt_text=0.2, corrupt_codes=0.2, mask_features=0.3)
    changed = regularise(row, settings, vocab, np.random.default_rng(0))
    assert torch.equal(changed.text_labels, row.text_labels) and torch.equal(changed.audio_labels, row.audio_labels)
    for ids, before, targets in (
        (changed.text_ids, row.text_ids, row.text_at + 1),
        (changed.audio_ids, row.audio_ids, row.audio_at + 1),
    ):
        different = (ids != before).nonzero()[:, 0]
        assert set(different.tolist()) <= set(targets.tolist())
        assert len(different) / len(targets) == pytest.approx(0.2, abs=0.06)
    assert (changed.audio_ids[row.audio_at + 1] >= vocab.token_offset).all()
    hidden = torch.cat([feature.abs().sum(-1) == 0 for feature in changed.features])
    assert 0.1 < hidden.float().mean() < 0.5
    assert all((feature.abs().sum(-1) > 0).all() for feature in row.features)
    same = regularise(row, Regularisation(), vocab, np.random.default_rng(0))
    assert torch.equal(same.text_ids, row.text_ids) and same.sounds is row.sounds


def test_batches_are_the_same_from_any_start(llm, vocab, source):
    settings = Regularisation(corrupt_text=0.3, mask_features=0.3)
    objective = LanguageObjective(llm, Mixture([source], [1], 32, seed=5), vocab, regularisation=settings)
    batches, later = objective.batches(0), objective.batches(4)
    for _ in range(4):
        next(batches)
    for _ in range(3):
        one, two = next(batches), next(later)
        assert torch.equal(one.text_ids, two.text_ids)
        assert all(torch.equal(a, b) for a, b in zip(one.features, two.features, strict=True))


def test_frozen_until_and_frozen_for_good(llm, vocab, source, tmp_path):
    objective = LanguageObjective(
        llm,
        Mixture([source], [1], 32),
        vocab,
        rates={"llm.model.vq_adaptor": 0.5, "llm.mimo_output": 0.0},
        frozen_until={"llm.model.embed_tokens": 0.5},
    )
    before = {name: value.clone() for name, value in llm.state_dict().items()}
    trainer = Trainer(objective, TrainConfig(steps=8, learning_rate=1e-2), tmp_path)
    batches = objective.batches(0)
    for _ in range(4):
        trainer._update(batches)
        trainer.step += 1
    assert torch.equal(llm.model.embed_tokens.weight, before["model.embed_tokens.weight"])
    assert not torch.equal(llm.model.vq_adaptor.layers[0].weight, before["model.vq_adaptor.layers.0.weight"])
    trainer._update(batches)
    assert not torch.equal(llm.model.embed_tokens.weight, before["model.embed_tokens.weight"])
    assert torch.equal(llm.mimo_output.weight, before["mimo_output.weight"])


def test_groups_take_the_longest_prefix(llm):
    rates = {"model": 0.1, "model.vq_adaptor": 1.0, "lm_head": 0.0}
    groups = {group.name: group for group in groups_by_prefix(llm, rates)}
    assert groups["model.vq_adaptor"].scale == 1.0 and len(groups["model.vq_adaptor"].parameters) == 6
    assert "lm_head" not in groups and not llm.lm_head.weight.requires_grad
    assert sum(len(group.parameters) for group in groups.values()) == len(list(llm.parameters())) - 1
    with pytest.raises(ConfigError, match="no parameter's name starts with 'modl'"):
        groups_by_prefix(llm, {"modl": 1.0})


def test_dev_loss_weighs_targets_alike(llm, vocab, source, make_prompt):
    prompts = [make_prompt(2, 3, 0, 1), make_prompt(2, 9, 0, 2)]
    objective = LanguageObjective(llm, Mixture([source], [1], 64), vocab, dev={"both": prompts, "one": prompts[:1]})
    with torch.no_grad():
        metrics = objective.evaluate()
        losses = [objective.loss(PackedRow.of([prompt]))[0].item() for prompt in prompts]
    assert metrics["one_loss"] == pytest.approx(losses[0], rel=1e-4)
    assert metrics["both_loss"] == pytest.approx((3 * losses[0] + 9 * losses[1]) / 12, rel=1e-3)


def test_a_row_without_audio_targets_skips_the_audio_branch(llm, vocab, source, make_prompt):
    objective = LanguageObjective(llm, Mixture([source], [1], 64), vocab)
    row = PackedRow.of([make_prompt(3, 5, 0)])
    loss, metrics = objective.loss(row)
    loss.backward()
    assert "audio_loss" not in metrics and llm.mimo_output.weight.grad is None


def test_without_text_loss_the_audio_branch_learns_as_with_it(llm, vocab, source):
    """The trunk above the fork is not even run: its gradient stays None."""
    objective = LanguageObjective(llm, Mixture([source], [1], 32), vocab, text_loss=False)
    row = next(objective.batches(0))
    loss, metrics = objective.loss(row)
    loss.backward()
    assert "text_loss" not in metrics and loss.item() == metrics["audio_loss"]
    assert llm.model.layers[-1].mlp.up_proj.weight.grad is None
    alone = llm.model.mimo_layers[0].mlp.up_proj.weight.grad
    assert alone is not None
    llm.zero_grad()
    _, both = LanguageObjective(llm, Mixture([source], [1], 32), vocab).loss(row)
    assert both["audio_loss"] == metrics["audio_loss"] and "text_loss" in both


def test_speech_to_learn_needs_an_audio_branch(llm, vocab, source, make_prompt):
    listener = AudioLLM(replace(llm.config, kimia_mimo_layers=0))
    objective = LanguageObjective(listener, Mixture([source], [1], 64), vocab)
    assert objective.loss(PackedRow.of([make_prompt(3, 5, 0)]))[0] > 0
    with pytest.raises(ConfigError, match="the model has no audio branch"):
        objective.loss(PackedRow.of([make_prompt(3, 5, 2)]))


def test_what_a_model_teaches_itself_changes_nothing(llm, vocab, source, make_prompt):
    objective = LanguageObjective(llm, Mixture([source], [1], 64), vocab, teacher=deepcopy(llm), distil=1.0)
    loss, _ = objective.loss(PackedRow.of([make_prompt(4, 6, 3, seed=9)]))
    loss.backward()
    for parameter in llm.parameters():
        assert parameter.grad is None or parameter.grad.abs().max() < 1e-6


def test_a_teacher_has_its_share_and_is_no_part_of_what_is_trained(llm, vocab, source, make_prompt):
    row, teacher = PackedRow.of([make_prompt(4, 6, 3, seed=9)]), deepcopy(llm)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(1.5)

    def loss(**settings):
        objective = LanguageObjective(llm, Mixture([source], [1], 64), vocab, **settings)
        assert sum(1 for _ in objective.model.parameters()) == sum(1 for _ in llm.parameters())
        return objective.loss(row)[0]

    data, taught = loss(), loss(teacher=teacher, distil=1.0)
    assert abs(data - taught) > 0.1
    torch.testing.assert_close(loss(teacher=teacher, distil=0.3), 0.7 * data + 0.3 * taught)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
