"""How sure a figure is, and whether two models differ: bootstrap intervals and a paired test.

    low, high = interval(scores)                    # 95 %, by resampling items
    difference = compare(scores_a, scores_b)        # on the items that both answered

A figure is the quotient of two sums over items, so that a word error rate is resampled by utterance, as it should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kimi_audio.evaluation.samples import ItemScore

RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """`value` is the first model's figure minus the second's on `items` common items.

    Attributes:
        low, high: 95 % interval of the difference, by paired bootstrap.
        p: how often exchanging the models' answers at random gives a difference at least as large (permutation test).
    """

    value: float
    low: float
    high: float
    p: float
    items: int


def figure(scores: Sequence[ItemScore]) -> float:
    """Sum of numerators over sum of denominators; NaN if that is nothing."""
    denominator = sum(score.denominator for score in scores)
    return sum(score.numerator for score in scores) / denominator if denominator else float("nan")


def interval(scores: Sequence[ItemScore], seed: int = 0, share: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of `figure`."""
    pairs_N2 = np.array([(score.numerator, score.denominator) for score in scores], float)
    if not len(pairs_N2):
        return float("nan"), float("nan")
    sums_R2 = _resampled(pairs_N2, seed)
    return _percentiles(_quotient(sums_R2[:, 0], sums_R2[:, 1]), share)


def compare(first: Sequence[ItemScore], second: Sequence[ItemScore], seed: int = 0, share: float = 0.95) -> Difference:
    """Whether two models differ, item by item; items that only one of them answered are left out."""
    others = {score.id: score for score in second}
    pairs = [(score, others[score.id]) for score in first if score.id in others]
    if not pairs:
        nan = float("nan")
        return Difference(nan, nan, nan, nan, 0)
    table_N22 = np.array([[(s.numerator, s.denominator) for s in pair] for pair in pairs], float)
    sums_22 = table_N22.sum(0)
    value = float(_quotient(sums_22[0, 0], sums_22[0, 1]) - _quotient(sums_22[1, 0], sums_22[1, 1]))

    sums_R22 = _resampled(table_N22, seed)
    differences = _quotient(sums_R22[:, 0, 0], sums_R22[:, 0, 1]) - _quotient(sums_R22[:, 1, 0], sums_R22[:, 1, 1])
    low, high = _percentiles(differences, share)

    ours_R2 = _exchanged(table_N22, seed)
    theirs_R2 = table_N22.sum((0, 1)) - ours_R2
    exchanged = _quotient(ours_R2[:, 0], ours_R2[:, 1]) - _quotient(theirs_R2[:, 0], theirs_R2[:, 1])
    p = (1 + int((np.abs(exchanged) >= abs(value) - 1e-12).sum())) / (1 + RESAMPLES)
    return Difference(value, low, high, float(p), len(pairs))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: 1 where both put things into the same order, -1 into the opposite one; NaN where one has no order."""
    ranks = [_ranks(values) for values in (first, second)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.corrcoef(ranks)[0, 1]) if len(first) > 1 else float("nan")


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Places from the smallest on; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def _resampled(table: np.ndarray, seed: int) -> np.ndarray:
    """Sums over items, drawn with replacement as many as there are: (RESAMPLES, ...)."""
    rng = np.random.default_rng((seed, 0))
    return np.stack([table[rng.integers(0, len(table), len(table))].sum(0) for _ in range(RESAMPLES)])


def _exchanged(table_N22: np.ndarray, seed: int) -> np.ndarray:
    """Sums over items where chance decides whose answer counts as the first model's: (RESAMPLES, 2)."""
    rng = np.random.default_rng((seed, 1))
    items = np.arange(len(table_N22))
    return np.stack([table_N22[items, rng.integers(0, 2, len(items))].sum(0) for _ in range(RESAMPLES)])


def _quotient(numerator: np.ndarray | float, denominator: np.ndarray | float) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(numerator, float) / np.asarray(denominator, float)


def _percentiles(values: np.ndarray, share: float) -> tuple[float, float]:
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [50 * (1 - share), 50 * (1 + share)])
    return float(low), float(high)
