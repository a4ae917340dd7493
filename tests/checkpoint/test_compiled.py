"""Compiled loops where compiled code cannot be kept; their products are tested with the layers that use them."""

import numba

from kimi_audio.checkpoint import compiled


def test_without_a_folder_for_compiled_code_it_is_compiled_each_time(monkeypatch):
    njit, asked = numba.njit, []

    def no_folder(*function, cache=False, **options):  # numba uses it itself, too, with a function at once
        if not function:
            asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*function, **options)

    monkeypatch.setattr(numba, "njit", no_folder)
    doubled = compiled._compiled(lambda x: 2 * x)
    assert doubled(3) == 6 and asked == [True, False]
