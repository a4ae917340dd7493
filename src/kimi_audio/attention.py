"""Scaled dot-product attention for all transformers here: PyTorch's own, except where gradients are wanted on a CPU.

    out_BHTd = attend(q_BHTd, k_BhSd, v_BhSd, causal=True)      # h divides H: grouped queries

On a CPU the backward pass of the fused kernel is slower, in bfloat16, than that of matrix product, softmax and matrix
product; `benchmarks/training.py` measures by how much.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q_BHTd: Tensor, k_BhSd: Tensor, v_BhSd: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Attention (B, H, T, d).

    Args:
        mask: bool, broadcastable to (B, H, T, S); True attends.
        causal: position t sees positions up to t; needs T = S and no mask.
    """
    if torch.is_grad_enabled() and q_BHTd.requires_grad and q_BHTd.device.type == "cpu":
        return _plain_attention(q_BHTd, k_BhSd, v_BhSd, mask, causal)
    grouped = q_BHTd.shape[1] != k_BhSd.shape[1]
    return F.scaled_dot_product_attention(q_BHTd, k_BhSd, v_BhSd, mask, is_causal=causal, enable_gqa=grouped)


def _plain_attention(q_BHTd: Tensor, k_BhSd: Tensor, v_BhSd: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    heads, steps = q_BHTd.shape[1:3]
    q_BhgTd = (q_BHTd * q_BHTd.shape[-1] ** -0.5).unflatten(1, (k_BhSd.shape[1], -1))
    scores_BhgTS = q_BhgTd @ k_BhSd.unsqueeze(2).transpose(-1, -2)
    if causal:
        hidden_TS = torch.ones(steps, steps, dtype=torch.bool).triu(1)
        scores_BhgTS.masked_fill_(hidden_TS, -torch.inf)
    elif mask is not None:
        per_head = mask.unsqueeze(1) if mask.shape[1] == 1 else mask.unflatten(1, (k_BhSd.shape[1], -1))
        scores_BhgTS.masked_fill_(~per_head, -torch.inf)
    return (scores_BhgTS.softmax(-1) @ v_BhSd.unsqueeze(2)).flatten(1, 2).view(-1, heads, steps, v_BhSd.shape[-1])
