from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.generation.loops import MIN_IDS, MIN_REPEATS, collapse_loops, repeated_unit

PHRASE = [5, 6, 7, 8]


def test_phrases_are_loops_after_three_times_and_twelve_ids() -> None:
    assert repeated_unit([1, 2, *PHRASE * 2]) == 0
    assert repeated_unit([1, 2, *PHRASE * 3]) == 4
    assert repeated_unit([9] * (MIN_IDS - 1)) == 0
    assert repeated_unit([9] * MIN_IDS) == 1
    assert repeated_unit([*PHRASE * 3, 1]) == 0


def test_people_may_repeat_themselves() -> None:
    said = [1, 1, 1, 2, 3, 2, 3, 2, 3, *PHRASE, *PHRASE]
    assert collapse_loops(said) == said


def test_loops_are_said_once_and_the_rest_is_kept() -> None:
    assert collapse_loops([1, 2, *PHRASE * 9, 3, 4]) == [1, 2, *PHRASE, 3, 4]
    assert collapse_loops([1, *PHRASE * 5, 5, 6]) == [1, *PHRASE]
    assert collapse_loops([*PHRASE * 4, 5, 9]) == [*PHRASE, 5, 9]


@given(
    st.lists(st.integers(0, 50), max_size=12, unique=True),
    st.lists(st.integers(100, 150), min_size=1, max_size=20, unique=True),
    st.integers(MIN_IDS, 30),
    st.lists(st.integers(200, 250), max_size=12, unique=True),
)
def test_any_loop_between_fresh_ids(before: list[int], phrase: list[int], times: int, after: list[int]) -> None:
    looped = before + phrase * times
    assert repeated_unit(looped) == len(phrase)
    assert collapse_loops(looped + after) == before + phrase + after


@given(st.lists(st.integers(0, 2), max_size=80))
def test_collapsing_never_adds_and_spares_what_does_not_loop(ids: list[int]) -> None:
    collapsed = collapse_loops(ids)
    assert len(collapsed) <= len(ids)
    assert collapsed[:1] == ids[:1]
    if not any(repeated_unit(ids[:end]) for end in range(len(ids) + 1)):
        assert collapsed == ids
    assert MIN_REPEATS * len(collapsed) >= len(set(ids))
