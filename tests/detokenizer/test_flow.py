"""Flow matching: what is shared by the frames of a code, what a chunk may see, solver steps. Figures: golden cases."""

import pytest
import torch
from detokenizer.small import FLOW, make_flow
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.detokenizer.flow import FlowConfig, euler, naive_euler, solve


@torch.inference_mode()
def test_four_frames_of_a_code_are_a_code_four_times():
    flow, x_BTM, codes_BN = make_flow(), torch.randn(2, 12, 8), torch.randint(20, (2, 3))
    times_B = torch.tensor([3, 700])
    repeated = flow(x_BTM, codes_BN.repeat_interleave(4, 1), times_B)
    torch.testing.assert_close(flow(x_BTM, codes_BN, times_B), repeated, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_cached_chunks_see_what_a_chunk_causal_mask_lets_through():
    """A chunk after a cache equals its part of one pass in which it sees itself and the chunk before."""
    flow, x_1TM, codes_1N = make_flow(), torch.randn(1, 20, 8), torch.randint(20, (1, 5))
    time, first = torch.tensor([999]), 8
    mask = torch.ones(20, 20, dtype=torch.bool)
    mask[:first, first:] = False
    whole = flow(x_1TM, codes_1N, time, mask=mask[None, None])
    cache = flow.new_cache()
    before = flow(x_1TM[:, :first], codes_1N[:, :2], time, cache=cache)
    cache.advance(first)
    after = flow(x_1TM[:, first:], codes_1N[:, 2:], time, start=first, cache=cache)
    torch.testing.assert_close(torch.cat([before, after], 1), whole, atol=1e-6, rtol=1e-5)


@given(steps=st.integers(1, 60))
def test_steps_go_from_noise_to_mel(steps):
    for schedule, end in ((euler(steps), 1.0), (naive_euler(steps), 1 - 1e-4)):
        assert len(schedule) == steps and schedule[0][0] == 0
        assert sum(float(width) for _, width in schedule) == pytest.approx(end, abs=1e-5)


@given(steps=st.integers(2, 60))
def test_swayed_steps_are_small_first_and_go_as_far(steps):
    widths = [float(width) for _, width in euler(steps, -1.0)]
    assert widths == sorted(widths) and widths[0] > 0 and sum(widths) == pytest.approx(1, abs=1e-5)
    assert euler(steps, 0.0) == euler(steps)


def test_the_solver_follows_a_constant_velocity():
    def constant(x_BTM, codes_BN, times_B, start, cache):
        return torch.full_like(x_BTM, 2.0)

    noise = torch.randn(1, 4, 8)
    torch.testing.assert_close(solve(constant, noise, torch.zeros(1, 1), euler(7)), noise + 2.0)


def test_configuration_comes_back_and_unknown_kinds_are_named():
    assert FlowConfig.from_dict(FLOW.to_dict()) == FLOW
    other = FLOW.to_dict()
    other["model"]["dit"]["ffn_type"] = "conv1d_conv1d"
    with pytest.raises(ValueError, match="ffn_type is 'conv1d_conv1d'; accepted is 'vanilla_mlp'"):
        FlowConfig.from_dict(other)
