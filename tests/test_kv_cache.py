"""The cache's rows: chosen, doubled, and moved where they share a prompt."""

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


def test_rows_of_one_prompt_move_only_what_is_new():
    cache, rows = filled(3, 5), torch.tensor([1, 1])
    for layer in range(2):
        for tensor in cache.layer(layer):
            tensor[1, :, :3] = tensor[0, :, :3]  # both rows have this prompt
    before = cache.layer(1)[1][rows]
    cache.select(rows, shared=3)
    assert torch.equal(cache.layer(1)[1], before)
