"""Intervals cover what they should, and the paired test tells a difference from chance."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.evaluation.samples import ItemScore
from kimi_audio.evaluation.statistics import compare, figure, interval, rank_correlation

ITEMS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=40)


def scores(pairs) -> list[ItemScore]:
    return [ItemScore(str(number), a, b) for number, (a, b) in enumerate(pairs)]


def answers(share: float, items: int, seed: int) -> list[ItemScore]:
    return scores((int(right), 1) for right in np.random.default_rng(seed).random(items) < share)


@given(ITEMS)
def test_the_figure_lies_in_its_interval(pairs) -> None:
    low, high = interval(scores(pairs))
    assert low - 1e-9 <= figure(scores(pairs)) <= high + 1e-9 or len(pairs) < 5


def test_long_items_weigh_more() -> None:
    assert figure(scores([(1, 1), (0, 9)])) == 0.1


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        low, high = interval(answers(0.7, 80, seed), seed)
        covered += low <= 0.7 <= high
    assert 51 <= covered <= 60


def test_an_interval_narrows_with_items() -> None:
    widths = [high - low for low, high in (interval(answers(0.5, items, 1)) for items in (25, 400))]
    assert widths[1] < 0.4 * widths[0]


@given(ITEMS)
def test_a_model_does_not_differ_from_itself(pairs) -> None:
    difference = compare(scores(pairs), scores(pairs))
    assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


def test_a_clear_difference_is_told_from_chance() -> None:
    clear = compare(answers(0.9, 100, 1), answers(0.6, 100, 2))
    assert clear.low > 0 and clear.p < 0.01
    chance = compare(answers(0.7, 100, 1), answers(0.7, 100, 2))
    assert chance.low < 0 < chance.high and chance.p > 0.05
    turned = compare(answers(0.6, 100, 2), answers(0.9, 100, 1))
    assert turned.value == pytest.approx(-clear.value)


def test_pairing_sees_a_difference_that_unpaired_intervals_hide() -> None:
    """One model is right wherever the other is, and on a few items more."""
    first = scores((int(number % 2 == 0), 1) for number in range(100))
    second = scores((int(number % 2 == 0 or number < 14), 1) for number in range(100))
    assert interval(second)[0] < interval(first)[1]
    assert compare(second, first).low > 0


def test_only_common_items_are_compared() -> None:
    first = [ItemScore("a", 1), ItemScore("b", 0)]
    assert compare(first, [ItemScore("b", 1), ItemScore("c", 1)]).items == 1
    nothing = compare(first, [ItemScore("c", 1)])
    assert nothing.items == 0 and math.isnan(nothing.value)
    assert math.isnan(figure([])) and math.isnan(interval([])[0])


@pytest.mark.parametrize(
    ("first", "second", "correlation"),
    [([1, 2, 3], [10, 20, 99], 1), ([1, 2, 3], [9, 5, 1], -1), ([1, 1, 2], [1, 2, 3], 3**0.5 / 2),
     ([1, 1], [1, 2], math.nan), ([1], [1], math.nan), ([], [], math.nan)],
)  # fmt: skip
def test_orders_are_compared(first, second, correlation) -> None:
    assert rank_correlation(first, second) == pytest.approx(correlation, nan_ok=True)
