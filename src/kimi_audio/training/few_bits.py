"""Weights that learn in the few bits that they will be stored in (straight-through estimation, arXiv 1308.3432).

    learn_in_few_bits(llm, ["model.layers.*.mlp.gate_proj"])
    ...                                                     # every forward pass meets the rounded weights
    keep_few_bits(llm)                                      # and they are what is left

A gradient passes the rounding as if it were not there, so that small steps add up until a weight takes its next value.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.utils import parametrize

from kimi_audio.checkpoint.quantise import Bits, quantise
from kimi_audio.errors import ConfigError

BITS: Bits = 4


class Rounded(nn.Module):
    """A weight matrix as it will be read after it was stored."""

    def forward(self, weight_NK: Tensor) -> Tensor:
        stored_NK = quantise(weight_NK, BITS).dequantise(weight_NK.dtype)
        return weight_NK + (stored_NK - weight_NK).detach()


def learn_in_few_bits(model: nn.Module, patterns: Sequence[str]) -> None:
    """Round the weights of the linear layers whose names match one of the patterns; `*` stands for anything.

    Raises:
        ConfigError: when a pattern matches no linear layer.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in linears):
            raise ConfigError(f"no linear layer is called {pattern!r}, which is to learn in few bits.")
    for name, linear in linears.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parametrize.register_parametrization(linear, "weight", Rounded())


def keep_few_bits(model: nn.Module) -> None:
    """Leave the rounded weights as ordinary ones."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
