"""Loops over int8 weights that numba compiles for the processor at hand: matrix products, and decoder layers.

    multiply(values_NK, scale_N, x_MK, y_MN, counts, shares)       # y = x · (values · scale)ᵀ, in float32
    layers(x_MD, first, last, weights, tables, memory, seen_BTS, buffers, counts, shares)       # for few rows, in place
    compile_all()                                                  # now, and not at the first use

A decoding step reads all weights for a row or a few, so it is as fast as they come out of memory, if nothing else takes
time; PyTorch's forty operations a layer take more than that between them. Compiling takes ten seconds, once: the code
is kept on disk. It is all in this file, since numba looks at no other to see whether what it kept is out of date.

Threads that call a function with the same arguments work on it together. It consists of steps of some shares: everyone
takes the next share until none is left, and goes on to the next step when all are done. So nobody waits for a thread
that comes late, or never.
"""

from collections.abc import Callable

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# Sums may be reordered, which lets them be vectorised; infinities and NaN stay what they are.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
ZERO = np.float32(0)
STEPS = 5
"""Steps of a layer."""
_QKV, _ATTENTION, _OUT, _GATE_UP, _DOWN = range(STEPS)
_NOTHING = np.float32(-np.inf)
_AHEAD = 4
"""Rows of a weight matrix between what is fetched and what is used; left to itself, the processor fetches too late."""
_CACHE_LINE = 64
_PATIENCE = 2000
"""How often a thread looks whether a step is done before it lets others have the processor in between."""


def _compiled(function: Callable) -> Callable:
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(**_OPTIONS)(function)


def _intrinsic(function: Callable) -> Callable:
    """Its signature for type checkers: it is called without the typing context."""
    return intrinsic(function)


def _address(context, builder, signature, arguments):
    """Of a number in an array that lies in memory without gaps."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


@_intrinsic
def _add_one(typing_context, counts, index):
    """Add 1 to a count, at once for all threads; what it was before."""

    def generate(context, builder, signature, arguments):
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", _address(context, builder, signature, arguments), one, "acq_rel")

    return types.int64(counts, types.intp), generate


@_intrinsic
def _read(typing_context, counts, index):
    """A count that other threads add to."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_address(context, builder, signature, arguments), "acquire", 8)

    return types.int64(counts, types.intp), generate


@_intrinsic
def _fetch(typing_context, values, index):
    """Have a number brought from memory, which goes on by itself; one beyond the end does no harm."""

    def generate(context, builder, signature, arguments):
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        where = builder.bitcast(_address(context, builder, signature, arguments), pointer)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        builder.call(prefetch, [where, number(0), number(3), number(1)])  # to be read; again soon; no instructions
        return context.get_dummy_value()

    return types.void(values, types.intp), generate


_let_others_run = types.ExternalFunction("sched_yield", types.int32())


@_compiled
def take(counts, step):
    """The next share of a step; when they have all been taken, a number that is none."""
    return _add_one(counts, 2 * step)


@_compiled
def finish(counts, step):
    """Tell that a share is done."""
    _add_one(counts, 2 * step + 1)


@_compiled
def wait(counts, step, shares):
    """Until all shares of a step are done."""
    looks = 0
    while _read(counts, 2 * step + 1) < shares:
        looks += 1
        if looks > _PATIENCE:
            _let_others_run()


@_compiled
def few(values_NK, scale_N, x_MK, y_MN, first, last):
    """Columns `first` to `last` of x · (values · scale)ᵀ for few rows, two or four by two columns at a time.

    Where fewer are left, the last one is computed again: weights take their time, not sums.
    """
    rows, size = x_MK.shape
    for n in range(first, last, 2):
        p = min(n + 1, last - 1)
        for byte in range((n + _AHEAD) * size, (n + _AHEAD + 2) * size, _CACHE_LINE):
            _fetch(values_NK, byte)
        a, b = scale_N[n], scale_N[p]
        for m in range(0, rows, 4):
            r = min(m + 1, rows - 1)
            n0 = n1 = p0 = p1 = ZERO
            if rows - m <= 2:
                for k in range(size):
                    v, w = np.float32(values_NK[n, k]), np.float32(values_NK[p, k])
                    x0, x1 = x_MK[m, k], x_MK[r, k]
                    n0 += v * x0
                    n1 += v * x1
                    p0 += w * x0
                    p1 += w * x1
            else:
                s, t = m + 2, min(m + 3, rows - 1)
                n2 = n3 = p2 = p3 = ZERO
                for k in range(size):
                    v, w = np.float32(values_NK[n, k]), np.float32(values_NK[p, k])
                    x0, x1, x2, x3 = x_MK[m, k], x_MK[r, k], x_MK[s, k], x_MK[t, k]
                    n0 += v * x0
                    n1 += v * x1
                    n2 += v * x2
                    n3 += v * x3
                    p0 += w * x0
                    p1 += w * x1
                    p2 += w * x2
                    p3 += w * x3
                y_MN[s, n], y_MN[t, n], y_MN[s, p], y_MN[t, p] = a * n2, a * n3, b * p2, b * p3
            y_MN[m, n], y_MN[r, n], y_MN[m, p], y_MN[r, p] = a * n0, a * n1, b * p0, b * p1


@_compiled
def multiply(values_NK, scale_N, x_MK, y_MN, counts, shares):
    """y = x · (values · scale)ᵀ for few rows, in one step."""
    size = len(scale_N)
    share = take(counts, 0)
    while share < shares:
        few(values_NK, scale_N, x_MK, y_MN, size * share // shares, size * (share + 1) // shares)
        finish(counts, 0)
        share = take(counts, 0)
    wait(counts, 0, shares)


@_compiled
def normed(x_MD, weight_D, eps, y_MD):
    """RMSNorm."""
    for m in range(x_MD.shape[0]):
        squares = ZERO
        for d in range(x_MD.shape[1]):
            squares += x_MD[m, d] * x_MD[m, d]
        scale = np.float32(1) / np.sqrt(squares / np.float32(x_MD.shape[1]) + eps)
        for d in range(x_MD.shape[1]):
            y_MD[m, d] = x_MD[m, d] * scale * weight_D[d]


@_compiled
def _rotated(x_d, cos_d, sin_d, y_d):
    half = x_d.shape[0] // 2
    for d in range(half):
        low, high = x_d[d], x_d[d + half]
        y_d[d] = low * cos_d[d] - high * sin_d[d]
        y_d[d + half] = high * cos_d[d + half] + low * sin_d[d + half]


@_compiled
def _into_cache(row_N, cos_d, sin_d, k_d, v_d, head, kv_heads):
    """Rotate the queries of a head of keys, in place, and its key; key and value are written to the cache."""
    size = len(k_d)
    group = len(row_N) // kv_heads - 2 * size
    for n in range(head * group, (head + 1) * group, size):
        _rotated(row_N[n : n + size], cos_d, sin_d, row_N[n : n + size])
    key, value = kv_heads * group + head * size, kv_heads * (group + size) + head * size
    _rotated(row_N[key : key + size], cos_d, sin_d, k_d)
    for d in range(size):  # numba takes seconds to compile an assignment of a whole row
        v_d[d] = row_N[value + d]


@_compiled
def _attend(q_Q, k_Sd, v_Sd, seen_S, y_Q):
    """What the queries of one head of keys get from its values; each key and value is read once for all of them."""
    positions, size = k_Sd.shape
    group = len(q_Q) // size
    scores_GS, highest_G = np.empty((group, positions), dtype=np.float32), np.full(group, _NOTHING)
    root = np.float32(1) / np.sqrt(np.float32(size))
    for s in range(positions):
        for g in range(group):
            score = ZERO
            for d in range(size):
                score += q_Q[g * size + d] * k_Sd[s, d]
            scores_GS[g, s] = score * root if not len(seen_S) or seen_S[s] else _NOTHING
            highest_G[g] = max(highest_G[g], scores_GS[g, s])
    total_G = np.zeros(group, dtype=np.float32)
    for n in range(len(y_Q)):
        y_Q[n] = ZERO
    for s in range(positions):
        for g in range(group):
            share = np.exp(scores_GS[g, s] - highest_G[g])
            total_G[g] += share
            for d in range(size):
                y_Q[g * size + d] += share * v_Sd[s, d]
    for n in range(len(y_Q)):
        y_Q[n] /= total_G[n // size]


@_compiled
def attention(qkv_MN, tables, memory, layer, seen_BTS, y_MK, first, last):
    """What queries get from values, and the cache from keys and values, for units `first` to `last`.

    A unit is a head of keys in a sequence: what it writes, no other one needs.

    Args:
        qkv_MN: row m is position m % T of sequence m // T.
        tables: cosines and sines (B or 1, T, head_dim) of rotary embedding.
        memory: keys and values (layers, B or more, kv_heads, capacity, head_dim), B, and the position to write first.
        seen_BTS: to which positions each one attends (B or 1); where it is empty, to all up to itself.
    """
    cosines, sines = tables
    keys, values, sequences, start = memory
    kv_heads, steps, group = keys.shape[2], len(qkv_MN) // sequences, y_MK.shape[1] // keys.shape[2]
    for unit in range(first, last):
        b, head = unit // kv_heads, unit % kv_heads
        k_Sd, v_Sd, here = keys[layer, b, head], values[layer, b, head], slice(head * group, (head + 1) * group)
        for step in range(steps):
            cos_d, sin_d = cosines[b % len(cosines), step], sines[b % len(sines), step]
            row_N, position = qkv_MN[b * steps + step], start + step
            _into_cache(row_N, cos_d, sin_d, k_Sd[position], v_Sd[position], head, kv_heads)
        for step in range(steps):
            end, seen_S = start + step + 1, np.empty(0, dtype=np.bool_)
            if len(seen_BTS):
                end, seen_S = start + steps, seen_BTS[b % len(seen_BTS), step]
            m = b * steps + step
            _attend(qkv_MN[m, here], k_Sd[:end], v_Sd[:end], seen_S, y_MK[m, here])


@_compiled
def _biased(y_MN, bias_N, first, last):
    for m in range(y_MN.shape[0]):
        for n in range(first, last):
            y_MN[m, n] += bias_N[n]


@_compiled
def _added(x_MD, y_MD, first, last):
    for m in range(x_MD.shape[0]):
        for d in range(first, last):
            x_MD[m, d] += y_MD[m, d]


@_compiled
def _gated(gate_up_MN, y_MK, first, last):
    """SiLU of the first half, times the second."""
    for m in range(y_MK.shape[0]):
        for k in range(first, last):
            gate = gate_up_MN[m, k]
            y_MK[m, k] = gate / (np.float32(1) + np.exp(-gate)) * gate_up_MN[m, y_MK.shape[1] + k]


@_compiled
def layers(x_MD, first, last, weights, tables, memory, seen_BTS, buffers, counts, shares):
    """Decoder layers `first` to `last` (`llm.model.DecoderLayer`) for few rows; what comes out replaces `x_MD`.

    Args:
        weights: of all layers: of the norms before attention and before the feed-forward layers (layers, 2, D); their
            epsilon; biases of q, k and v (layers, N); int8 values (layers, N, K) and float32 scales (layers, N) of the
            projections to q, k and v together, out of attention, to gate and up together, and down.
        tables, memory, seen_BTS: as of `attention`.
        buffers: for what comes out of each step.
        counts: zeros, two for each of `STEPS` a layer.
        shares: of every step.
    """
    norms, eps, biases, values, scales = weights
    qkv_MN, attended_MK, branch_MD, gate_up_MN, gated_MK = buffers
    normed_MD, units = np.empty_like(x_MD), memory[0].shape[2] * memory[2]
    inputs, outputs = (normed_MD, attended_MK, normed_MD, gated_MK), (qkv_MN, branch_MD, gate_up_MN, branch_MD)
    for step in range(STEPS * (last - first)):
        layer, part = first + step // STEPS, step % STEPS
        projection = max(part - 1, 0)
        if part in (_QKV, _GATE_UP):  # by everyone: it takes less time than to wait for others
            normed(x_MD, norms[layer, part // _GATE_UP], eps, normed_MD)
        halves = 2 if part == _GATE_UP else 1  # who has the gates and the ups of the same units can multiply them
        size = units if part == _ATTENTION else outputs[projection].shape[1] // halves
        share = take(counts, step)
        while share < shares:
            start, end = size * share // shares, size * (share + 1) // shares
            if part == _ATTENTION:
                attention(qkv_MN, tables, memory, layer, seen_BTS, attended_MK, start, end)
            else:  # one call for all, because each would be compiled for itself
                values_NK, scale_N = values[projection][layer], scales[projection][layer]
                for n in range(0, halves * size, size):
                    few(values_NK, scale_N, inputs[projection], outputs[projection], n + start, n + end)
            if part == _QKV:
                _biased(qkv_MN, biases[layer], start, end)
            elif part == _GATE_UP:
                _gated(gate_up_MN, gated_MK, start, end)
            elif part != _ATTENTION:
                _added(x_MD, branch_MD, start, end)
            finish(counts, step)
            share = take(counts, step)
        wait(counts, step, shares)


def compile_all() -> None:
    """Compile for what a model calls these functions with."""
    values, scale = np.zeros((1, 8, 4), dtype=np.int8), np.zeros((1, 8), dtype=np.float32)
    x, y = np.zeros((2, 4), dtype=np.float32), np.zeros((2, 8), dtype=np.float32)
    multiply(values[0], scale[0], x, y, np.zeros(2, dtype=np.int64), 1)
    all_values, all_scales = (values, values[:, :4], values, values[:, :4]), (scale, scale[:, :4], scale, scale[:, :4])
    weights = (np.zeros((1, 2, 4), dtype=np.float32), np.float32(1), scale, all_values, all_scales)
    tables = (np.zeros((1, 1, 2), dtype=np.float32), np.zeros((1, 1, 2), dtype=np.float32))
    memory = (np.zeros((1, 2, 1, 4, 2), dtype=np.float32), np.zeros((1, 2, 1, 4, 2), dtype=np.float32), 2, 0)
    buffers, counts = (y, x.copy(), x.copy(), y, x.copy()), np.zeros(2 * STEPS, dtype=np.int64)
    layers(x, 0, 1, weights, tables, memory, np.empty((0, 0, 0), dtype=bool), buffers, counts, 1)
