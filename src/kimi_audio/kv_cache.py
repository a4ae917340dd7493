"""Key/value cache of a transformer, preallocated and grown by doubling."""

import torch
from torch import Tensor


class KVCache:
    """Keys (after RoPE) and values of all layers: main layers first, then the audio branch's.

    `write(layer, k, v)` stores the new positions of one layer and returns that layer's whole history as views;
    `advance(n)` is called once after all layers of a step have written.
    """

    def __init__(self, num_layers: int, batch: int, kv_heads: int, head_dim: int, *, capacity: int = 256,
                 dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        self.length, self.rows = 0, batch
        shape = (num_layers, batch, kv_heads, capacity, head_dim)
        self._k = torch.empty(shape, dtype=dtype, device=device)
        self._v = torch.empty(shape, dtype=dtype, device=device)

    @property
    def capacity(self) -> int:
        return self._k.shape[3]

    def reserve(self, length: int) -> None:
        """Make room for `length` positions in all, doubling the capacity as often as needed."""
        if length <= self.capacity:
            return
        capacity = self.capacity
        while capacity < length:
            capacity *= 2
        for name in ("_k", "_v"):
            old = getattr(self, name)
            new = old.new_empty((*old.shape[:3], capacity, old.shape[4]))
            new[:, :, :, : self.length] = old[:, :, :, : self.length]
            setattr(self, name, new)

    def room(self, positions: int) -> tuple[Tensor, Tensor]:
        """The whole memory, (layers, B or more, kv_heads, capacity, head_dim), for `positions` more to be written."""
        self.reserve(self.length + positions)
        return self._k, self._v

    def write(self, layer: int, k_BHTd: Tensor, v_BHTd: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new positions of `layer`; the history with them, each (B, kv_heads, length + T, head_dim).

        B may be less than the rows there are: it is then the first ones.
        """
        end = self.length + k_BHTd.shape[2]
        keys, values = (memory[layer, : len(k_BHTd)] for memory in self.room(k_BHTd.shape[2]))
        keys[:, :, self.length : end] = k_BHTd
        values[:, :, self.length : end] = v_BHTd
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, positions: int) -> None:
        self.length += positions

    def keep_last(self, positions: int) -> None:
        """Forget all but the newest `positions`."""
        if (surplus := self.length - positions) > 0:
            for tensor in (self._k, self._v):
                tensor[:, :, :, :positions] = tensor[:, :, :, surplus : self.length].clone()
            self.length = positions

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer up to the current length."""
        return self._k[index, : self.rows, :, : self.length], self._v[index, : self.rows, :, : self.length]

    def select(self, rows: Tensor) -> None:
        """Keep only these batch rows (int64 indices): finished sequences are dropped, others may be doubled.

        A row that stays in its place costs nothing.
        """
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for name in ("_k", "_v"):
            tensor = getattr(self, name)
            if len(rows) > tensor.shape[1]:
                longer = tensor.new_empty((tensor.shape[0], len(rows), *tensor.shape[2:]))
                longer[:, : self.rows, :, : self.length] = tensor[:, : self.rows, :, : self.length]
                tensor = longer
                setattr(self, name, tensor)
            tensor[:, moved, :, : self.length] = tensor[:, rows[moved], :, : self.length]
        self.rows = len(rows)
