"""Weights in few bits: what a forward pass meets is what is stored, and small steps get through."""

import pytest
import torch
from torch import nn

from kimi_audio.checkpoint.quantise import quantise
from kimi_audio.errors import ConfigError
from kimi_audio.training.few_bits import keep_few_bits, learn_in_few_bits


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_a_forward_pass_meets_the_stored_weights():
    model = TwoLayers()
    stored = quantise(model.first.weight, 4).dequantise()
    learn_in_few_bits(model, ["first"])
    torch.testing.assert_close(model.first.weight, stored)
    keep_few_bits(model)
    assert type(model.first.weight) is nn.Parameter
    torch.testing.assert_close(model.first.weight, stored)
    again = quantise(model.first.weight, 4).dequantise()
    torch.testing.assert_close(again, stored)


def test_steps_smaller_than_a_rounding_add_up():
    model, x = TwoLayers(), torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
    wanted = torch.randn(256, 8, generator=torch.Generator().manual_seed(2))
    learn_in_few_bits(model, ["*"])
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=2e-3), []
    for _ in range(60):
        loss = (model(x) - wanted).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_only_the_named_layers_are_rounded():
    model = TwoLayers()
    before = model.second.weight.clone()
    learn_in_few_bits(model, ["first"])
    assert torch.equal(model.second.weight, before)


def test_a_pattern_without_a_layer_is_an_error():
    with pytest.raises(ConfigError, match="mlp"):
        learn_in_few_bits(TwoLayers(), ["*.mlp"])
