"""Confidence intervals of measured accuracies, and tests of their differences.

The Wilson score interval for shares. The bootstrap for differences, and for several questions about one picture.
McNemar's test for two models that answered the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution: two-sided 95 % intervals."""

RESAMPLES = 10_000
"""Number of resamples of a bootstrap."""
_BATCH = 2**22  # numbers in memory at once while resampling


@dataclass(frozen=True)
class Proportion:
    """A measured share with its 95 % interval."""

    mean: float
    """The share itself, in [0, 1]; NaN without observations."""
    low: float
    """Lower end of the interval, in [0, mean]."""
    high: float
    """Upper end of the interval, in [mean, 1]."""
    n: int
    """Number of independent observations."""


def wilson(successes: float, n: int, z: float = Z_95) -> Proportion:
    """The Wilson score interval of `successes` out of `n`.

    It keeps its coverage for small n and for shares near 0 and 1, where the usual interval, mean plus or minus z standard
    errors, is empty or leaves [0, 1]. From E. B. Wilson, "Probable inference, the law of succession, and
    statistical inference", JASA 22 (1927); recommended by Brown, Cai and DasGupta, "Interval estimation for a
    binomial proportion", Statistical Science 16 (2001).

    Args:
        successes: number of successes, in [0, n]; a fraction if an observation is itself a mean.
        n: number of independent observations; 0 gives the interval [0, 1].
        z: normal quantile of the confidence level.

    Raises:
        ValueError: n is negative, or successes lies outside of [0, n].

    Example:
        >>> wilson(45, 50)
        Proportion(mean=0.9, low=0.786..., high=0.956..., n=50)
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, got {successes} of {n}")
    if n == 0:
        return Proportion(math.nan, 0.0, 1.0, 0)
    share = successes / n
    scale = 1.0 + z * z / n
    center = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1.0 - share) / n + z * z / (4 * n * n))
    # Rounding must not push the ends beyond the share.
    return Proportion(share, min(share, max(0.0, center - half)), max(share, min(1.0, center + half)), n)


def proportion(values: Iterable[float]) -> Proportion:
    """The mean of independent observations in [0, 1], with its interval."""
    observed = list(values)
    return wilson(math.fsum(observed), len(observed))


@dataclass(frozen=True)
class ConfidenceInterval:
    """A mean with its 95 % interval."""

    mean: float
    """NaN without observations."""
    low: float
    """NaN with fewer than two groups, which cannot be resampled."""
    high: float
    """NaN as for `low`."""
    groups: int
    """Number of independent groups, which are the units of resampling."""


def bootstrap(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> ConfidenceInterval:
    """The mean of observations with its percentile bootstrap interval.

    Draws whole groups with replacement (the cluster bootstrap): questions about one picture are correlated, and must not
    count as independent. From B. Efron and R. J. Tibshirani, "An Introduction to
    the Bootstrap" (1993), chapter 13; Davison and Hinkley, "Bootstrap Methods and their Application" (1997), 3.8. For
    the paired bootstrap of two models, give the difference of each question.

    Args:
        values: finite observations.
        groups: the group of each observation; None if each is a group of its own.
        resamples: number of resamples.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: the numbers of groups and values differ.

    Example:
        >>> bootstrap([1.0, 0.0, 1.0, 1.0]).mean
        0.75
    """
    import numpy as np
    from scipy import stats

    observed = np.asarray(values, dtype=float)
    labels: Sequence[Hashable] = range(len(observed)) if groups is None else groups
    if len(labels) != len(observed):
        raise ValueError(f"{len(observed)} values and {len(labels)} groups")
    if not len(observed):
        return ConfidenceInterval(math.nan, math.nan, math.nan, 0)
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    codes = np.array([numbers[label] for label in labels])
    sums, counts = np.bincount(codes, weights=observed), np.bincount(codes)
    mean = math.fsum(observed) / len(observed)
    if len(sums) < 2:
        return ConfidenceInterval(mean, math.nan, math.nan, len(sums))

    def mean_of(sums: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
        return sums.sum(axis=axis) / counts.sum(axis=axis)

    found = stats.bootstrap(
        (sums, counts.astype(float)), mean_of, paired=True, vectorized=True, n_resamples=resamples, method="percentile",
        batch=max(1, _BATCH // len(sums)), rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return ConfidenceInterval(mean, float(found.low), float(found.high), len(sums))


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided p-value of McNemar's exact test: whether two models that answered the same questions differ.

    If the models are equally good, each one answers half of the questions that only one of them answers correctly. From
    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947), with the exact binomial distribution instead of the chi-squared approximation.

    Args:
        gained: number of questions that only the second model answered correctly.
        lost: number of questions that only the first model answered correctly.

    Example:
        >>> mcnemar(5, 0)  # 2 * (1/2) ** 5
        0.0625
    """
    from scipy import stats

    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
