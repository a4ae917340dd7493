"""The classic failure of speech recognisers: one phrase over and over. Find it, break it, take it out.

    if unit := repeated_unit(text_ids):          # the last `unit` ids have been said several times in a row
        forbid(text_ids[-unit])                  # the id that would begin the phrase once more
    text_ids = collapse_loops(text_ids)

People repeat themselves too, so a phrase counts as a loop only after 3 times in a row and 12 ids in all:
one id 12 times, two ids 6 times, four ids 3 times.
"""

from collections.abc import Hashable, Sequence
from typing import TypeVar

Id = TypeVar("Id", bound=Hashable)

MIN_REPEATS = 3
MIN_IDS = 12
MAX_UNIT = 32


def repeated_unit(ids: Sequence[int]) -> int:
    """Length of the shortest phrase that `ids` ends with, said often enough to be a loop; 0 if there is none."""
    for unit in range(1, min(MAX_UNIT, len(ids) // MIN_REPEATS) + 1):
        span = _loop_span(unit)
        # A loop of this unit equals itself shifted by the unit.
        if len(ids) >= span and ids[-span:-unit] == ids[-span + unit :]:
            return unit
    return 0


def collapse_loops(ids: Sequence[Id]) -> list[Id]:
    """`ids`, or words, with every loop said once; where `ids` ends inside a loop, the phrase begun last goes too."""
    kept: list[Id] = []
    at = 0
    while at < len(ids):
        unit = next((u for u in range(1, MAX_UNIT + 1) if _loops_from(ids, at, u)), 0)
        if not unit:
            kept.append(ids[at])
            at += 1
            continue
        kept += ids[at : at + unit]
        end = at + unit
        while end < len(ids) and ids[end] == ids[end - unit]:
            end += 1
        # Whole repetitions are dropped; what follows them may share a few ids with the phrase and stays.
        at = end if end == len(ids) else end - (end - at) % unit
    return kept


def _loops_from(ids: Sequence[Id], at: int, unit: int) -> bool:
    end = at + _loop_span(unit)
    return end <= len(ids) and ids[at : end - unit] == ids[at + unit : end]


def _loop_span(unit: int) -> int:
    """How many ids a phrase of `unit` ids must fill to be a loop."""
    return unit * max(MIN_REPEATS, -(-MIN_IDS // unit))
