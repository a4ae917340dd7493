"""The cache's rows: chosen, doubled and moved."""

import torch

from kimi_audio.kv_cache import KVCache


def filled(rows: int, positions: int) -> KVCache:
    cache = KVCache(2, rows, 1, 2, capacity=8)
    torch.manual_seed(0)
    for layer in range(2):
        cache.write(layer, *torch.randn(2, rows, 1, positions, 2))
    cache.advance(positions)
    return cache


def test_selected_rows_hold_what_they_held():
    cache, rows = filled(3, 5), torch.tensor([2, 0, 0, 1])
    before = cache.layer(1)[0][rows]
    cache.select(rows)
    assert torch.equal(cache.layer(1)[0], before)
    cache.write(0, *torch.zeros(2, 4, 1, 6, 2))  # beyond its capacity
    assert cache.layer(0)[0].shape == (4, 1, 5, 2)


def test_rows_stay_or_move_to_where_others_were():
    cache, rows = filled(4, 5), torch.tensor([0, 3, 3])
    before = [cache.layer(layer)[kind][rows] for layer in range(2) for kind in range(2)]
    cache.select(rows)
    assert all(map(torch.equal, [cache.layer(layer)[kind] for layer in range(2) for kind in range(2)], before))
