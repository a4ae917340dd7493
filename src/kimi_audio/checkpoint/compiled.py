"""Loops over int8 weights that numba compiles for the processor at hand: matrix products, and a decoder layer.

    multiply(values_NK, scale_N, x_MK, y_MN, 0, N)         # y = x · (values · scale)ᵀ, in float32
    layer(x_MD, weights, tables, memory, seen_BTS)         # a whole decoder layer for a few rows, in place
    compile_all()                                          # now, and not at the first use

A decoding step reads all weights for a row or a few, so it is as fast as they come out of memory, if nothing else takes
time; PyTorch's forty operations a layer take more than that between them. Compiling takes ten seconds, once: the code
is kept on disk.
"""

from collections.abc import Callable

import numba
import numpy as np

# Sums may be reordered, which lets them be vectorised; infinities and NaN stay what they are.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
ZERO = np.float32(0)
MANY_ROWS = 16
"""From so many rows on what is computed counts, below it how the weights come out of memory."""


def _compiled(function: Callable) -> Callable:
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(**_OPTIONS)(function)


@_compiled
def few(values_NK, scale_N, x_MK, y_MN, first, last):
    """`multiply` for few rows, four by one column at a time: weights are read as they lie in memory."""
    rows, size = x_MK.shape
    for n in range(first, last):
        m = 0
        while m + 4 <= rows:
            n0 = n1 = n2 = n3 = ZERO
            for k in range(size):
                v = np.float32(values_NK[n, k])
                n0 += v * x_MK[m, k]
                n1 += v * x_MK[m + 1, k]
                n2 += v * x_MK[m + 2, k]
                n3 += v * x_MK[m + 3, k]
            y_MN[m, n], y_MN[m + 1, n], y_MN[m + 2, n], y_MN[m + 3, n] = n0, n1, n2, n3
            m += 4
        if m + 2 <= rows:
            n0 = n1 = ZERO
            for k in range(size):
                v = np.float32(values_NK[n, k])
                n0 += v * x_MK[m, k]
                n1 += v * x_MK[m + 1, k]
            y_MN[m, n], y_MN[m + 1, n] = n0, n1
            m += 2
        if m < rows:
            n0 = ZERO
            for k in range(size):
                n0 += np.float32(values_NK[n, k]) * x_MK[m, k]
            y_MN[m, n] = n0
        for row in range(rows):
            y_MN[row, n] *= scale_N[n]


@_compiled
def _many(values_NK, scale_N, x_MK, y_MN, first, last):
    """`multiply` for many rows, four by two columns at a time: eight sums that stay in registers."""
    rows, size = x_MK.shape
    for column in range(first, last, 2):
        n, p = column, min(column + 1, last - 1)
        for row in range(0, rows, 4):
            m = min(row, rows - 4)  # the last rows may be computed twice
            n0 = n1 = n2 = n3 = p0 = p1 = p2 = p3 = ZERO
            for k in range(size):
                v, w = np.float32(values_NK[n, k]), np.float32(values_NK[p, k])
                x0, x1, x2, x3 = x_MK[m, k], x_MK[m + 1, k], x_MK[m + 2, k], x_MK[m + 3, k]
                n0 += v * x0
                n1 += v * x1
                n2 += v * x2
                n3 += v * x3
                p0 += w * x0
                p1 += w * x1
                p2 += w * x2
                p3 += w * x3
            a, b = scale_N[n], scale_N[p]
            y_MN[m, n], y_MN[m + 1, n], y_MN[m + 2, n], y_MN[m + 3, n] = a * n0, a * n1, a * n2, a * n3
            y_MN[m, p], y_MN[m + 1, p], y_MN[m + 2, p], y_MN[m + 3, p] = b * p0, b * p1, b * p2, b * p3


@_compiled
def multiply(values_NK, scale_N, x_MK, y_MN, first, last):
    """Columns `first` to `last` of y = x · (values · scale)ᵀ."""
    if x_MK.shape[0] < MANY_ROWS:
        few(values_NK, scale_N, x_MK, y_MN, first, last)
    else:
        _many(values_NK, scale_N, x_MK, y_MN, first, last)


@_compiled
def normed(x_MD, weight_D, eps):
    """RMSNorm."""
    y_MD = np.empty_like(x_MD)
    for m in range(x_MD.shape[0]):
        squares = ZERO
        for d in range(x_MD.shape[1]):
            squares += x_MD[m, d] * x_MD[m, d]
        scale = np.float32(1) / np.sqrt(squares / np.float32(x_MD.shape[1]) + eps)
        for d in range(x_MD.shape[1]):
            y_MD[m, d] = x_MD[m, d] * scale * weight_D[d]
    return y_MD


@_compiled
def gated(gate_up_MN, y_MN, first, last):
    """Rows `first` to `last` of: SiLU of the first half, times the second."""
    for m in range(first, last):
        for n in range(y_MN.shape[1]):
            gate = gate_up_MN[m, n]
            y_MN[m, n] = gate / (np.float32(1) + np.exp(-gate)) * gate_up_MN[m, y_MN.shape[1] + n]


@_compiled
def _rotated(x_d, cos_d, sin_d, y_d):
    half = x_d.shape[0] // 2
    for d in range(half):
        y_d[d] = x_d[d] * cos_d[d] - x_d[d + half] * sin_d[d]
        y_d[d + half] = x_d[d + half] * cos_d[d + half] + x_d[d] * sin_d[d + half]


@_compiled
def into_cache(qkv_MN, bias_N, tables, memory, q_MN):
    """q, k and v of all rows get their biases, q and k are rotated; k and v go to the cache, q to `q_MN`.

    Args:
        qkv_MN: row m is position m % T of sequence m // T.
        tables: cosines and sines (B or 1, T, head_dim) of rotary embedding.
        memory: keys and values (B, kv_heads, capacity, head_dim) of the layer, and the position to write first.
    """
    cosines, sines = tables
    k_BHSd, v_BHSd, start = memory
    kv_heads, size = k_BHSd.shape[1], k_BHSd.shape[3]
    width = bias_N.shape[0] - 2 * kv_heads * size
    steps = q_MN.shape[0] // k_BHSd.shape[0]
    for m in range(q_MN.shape[0]):
        b, step = m // steps, m % steps
        cos_d, sin_d, row_N = cosines[b % len(cosines), step], sines[b % len(sines), step], qkv_MN[m]
        for n in range(bias_N.shape[0]):
            row_N[n] += bias_N[n]
        for n in range(0, width, size):
            _rotated(row_N[n : n + size], cos_d, sin_d, q_MN[m, n : n + size])
        for head in range(kv_heads):
            key, value = width + head * size, width + (kv_heads + head) * size
            _rotated(row_N[key : key + size], cos_d, sin_d, k_BHSd[b, head, start + step])
            for d in range(size):  # numba takes seconds to compile an assignment of a whole row
                v_BHSd[b, head, start + step, d] = row_N[value + d]


@_compiled
def _attend(q_d, k_Sd, v_Sd, seen_S, y_d):
    positions, size = k_Sd.shape
    scores_S = np.empty(positions, dtype=np.float32)
    root = np.float32(1) / np.sqrt(np.float32(size))
    highest = np.float32(-np.inf)
    for s in range(positions):
        if seen_S.shape[0] and not seen_S[s]:
            continue
        score = ZERO
        for d in range(size):
            score += q_d[d] * k_Sd[s, d]
        scores_S[s] = score * root
        highest = max(highest, scores_S[s])
    total = ZERO
    for d in range(size):
        y_d[d] = ZERO
    for s in range(positions):
        if seen_S.shape[0] and not seen_S[s]:
            continue
        share = np.exp(scores_S[s] - highest)
        total += share
        for d in range(size):
            y_d[d] += share * v_Sd[s, d]
    for d in range(size):
        y_d[d] /= total


@_compiled
def attend(q_MN, memory, seen_BTS, y_MN, first, last):
    """Rows `first` to `last` of what the queries get from the values.

    `seen_BTS` says to which positions each one attends; where it is empty, to all up to itself.
    """
    k_BHSd, v_BHSd, start = memory
    size, group = k_BHSd.shape[3], q_MN.shape[1] // (k_BHSd.shape[1] * k_BHSd.shape[3])
    steps = q_MN.shape[0] // k_BHSd.shape[0]
    for m in range(first, last):
        b, step = m // steps, m % steps
        if seen_BTS.shape[0]:
            seen_S = seen_BTS[b % seen_BTS.shape[0], step]
            end = seen_S.shape[0]
        else:
            seen_S, end = np.empty(0, dtype=np.bool_), start + step + 1
        for head in range(q_MN.shape[1] // size):
            here = slice(head * size, (head + 1) * size)
            k_Sd, v_Sd = k_BHSd[b, head // group, :end], v_BHSd[b, head // group, :end]
            _attend(q_MN[m, here], k_Sd, v_Sd, seen_S, y_MN[m, here])


@_compiled
def layer(x_MD, weights, tables, memory, seen_BTS):
    """A decoder layer (`llm.model.DecoderLayer`) for a few rows; what comes out replaces `x_MD`.

    `weights`: of the norms before attention and before the feed-forward layers, (D,) each; their epsilon; int8 values
    (N, K) and float32 scales (N,) of the projections to q, k and v together; its bias (N,); values and scales of the
    projection out of attention, of gate and up together, and down.
    """
    norm_D, second_norm_D, eps, qkv, bias_N, out, gate_up, down = weights
    rows = x_MD.shape[0]
    inputs_MK = outputs_MN = x_MD
    for part in range(4):  # a loop, because every call of `few` would be compiled for itself
        if part == 0:
            inputs_MK, weight = normed(x_MD, norm_D, eps), qkv
        elif part == 1:
            inputs_MK, weight = np.empty((rows, out[0].shape[1]), np.float32), out
            q_MN = np.empty_like(inputs_MK)
            into_cache(outputs_MN, bias_N, tables, memory, q_MN)
            attend(q_MN, memory, seen_BTS, inputs_MK, 0, rows)
        elif part == 2:
            inputs_MK, weight = normed(x_MD, second_norm_D, eps), gate_up
        else:
            inputs_MK, weight = np.empty((rows, down[0].shape[1]), np.float32), down
            gated(outputs_MN, inputs_MK, 0, rows)
        outputs_MN = np.empty((rows, weight[0].shape[0]), np.float32)
        few(weight[0], weight[1], inputs_MK, outputs_MN, np.int64(0), weight[0].shape[0])
        if part % 2:
            for m in range(rows):
                for d in range(x_MD.shape[1]):
                    x_MD[m, d] += outputs_MN[m, d]


def compile_all() -> None:
    """Compile for what the layers of a model call these functions with."""
    values, scale = np.zeros((8, 4), dtype=np.int8), np.zeros(8, dtype=np.float32)
    x, y = np.zeros((2, 4), dtype=np.float32), np.zeros((2, 8), dtype=np.float32)
    multiply(values, scale, x, y, 0, 8)
    weights = (scale[:4], scale[:4], np.float32(1), (values, scale), scale, (values[:4], scale[:4]), (values, scale),
               (values[:4], scale[:4]))  # fmt: skip
    tables = (np.zeros((1, 1, 2), dtype=np.float32), np.zeros((1, 1, 2), dtype=np.float32))
    memory = (np.zeros((2, 1, 4, 2), dtype=np.float32), np.zeros((2, 1, 4, 2), dtype=np.float32), 0)
    layer(x, weights, tables, memory, np.empty((0, 0, 0), dtype=bool))
