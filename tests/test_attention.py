"""The explicit attention that gradients take on a CPU equals the fused one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.attention import attend


@given(batch=st.integers(1, 3), kv_heads=st.integers(1, 3), group=st.integers(1, 3), steps=st.integers(1, 9),
       kind=st.sampled_from(["causal", "padding", "per head", "none"]), seed=st.integers(0, 99))  # fmt: skip
def test_with_and_without_gradients(batch, kv_heads, group, steps, kind, seed):
    torch.manual_seed(seed)
    q = torch.randn(batch, kv_heads * group, steps, 8)
    k, v = torch.randn(2, batch, kv_heads, steps, 8).unbind()
    mask = None
    if kind == "padding":
        mask = torch.arange(steps) < torch.randint(1, steps + 1, (batch, 1, 1, 1))
    elif kind == "per head":
        mask = torch.eye(steps, dtype=torch.bool) | (torch.rand(batch, kv_heads * group, steps, steps) < 0.5)
    fused = attend(q, k, v, mask, causal=kind == "causal")
    explicit = attend(q.requires_grad_(), k, v, mask, causal=kind == "causal")
    assert explicit.requires_grad
    torch.testing.assert_close(explicit, fused, atol=1e-5, rtol=1e-5)


def test_explicit_gradients_are_those_of_the_formula():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 4, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, causal=True), (q, k, v))
    with pytest.raises(RuntimeError):
        attend(q, k[..., :4], v)
