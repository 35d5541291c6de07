"""Confidence intervals of measured accuracies, and tests of their differences.

The Wilson score interval for shares, also for several questions about one photograph. The bootstrap for differences.
McNemar's test for two models that answered the same questions. The score test of a share, and Holm's correction for
several tests.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

Z_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution: two-sided 95 % intervals."""

FEWEST_GROUPS = 10
"""Groups from which an interval is computed over groups: with fewer, their variance is hardly known. Cameron, Gelbach and
Miller, "Bootstrap-based improvements for inference with clustered errors" (2008), find such intervals unreliable below."""

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
    """Number of observations."""
    groups: int | None = None
    """Number of groups, such as photographs, that the observations are from; None if it is unknown."""
    effective: float | None = None
    """Number of independent observations with the same information, if the interval is over groups; else None."""

    def p_against(self, chance: float) -> float:
        """The two-sided p-value of the score test against the share `chance`, in (0, 1).

        It is below 0.05 exactly where the interval leaves `chance` out: Wilson's interval is this test, inverted.
        """
        n = self.n if self.effective is None else self.effective
        if not n or not 0 < chance < 1:
            return 1.0
        return math.erfc(abs(self.mean - chance) / math.sqrt(2 * chance * (1 - chance) / n))


def wilson(successes: float, n: float, z: float = Z_95) -> Proportion:
    """The Wilson score interval of `successes` out of `n`.

    It keeps its coverage for small n and for shares near 0 and 1, where the usual interval, mean plus or minus z standard
    errors, is empty or leaves [0, 1]. From E. B. Wilson, "Probable inference, the law of succession, and
    statistical inference", JASA 22 (1927); recommended by Brown, Cai and DasGupta, "Interval estimation for a
    binomial proportion", Statistical Science 16 (2001).

    Args:
        successes: number of successes, in [0, n]; a fraction if an observation is itself a mean.
        n: number of independent observations (a fraction if it is an effective one); 0 gives the interval [0, 1].
        z: normal quantile of the confidence level.

    Raises:
        ValueError: n is negative, or successes lies outside of [0, n].

    Example:
        >>> wilson(45, 50)
        Proportion(mean=0.9, low=0.786..., high=0.956..., n=50, ...)
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
    return Proportion(share, min(share, max(0.0, center - half)), max(share, min(1.0, center + half)), round(n))


def proportion(values: Iterable[float]) -> Proportion:
    """The mean of independent observations in [0, 1], with its interval."""
    observed = list(values)
    return wilson(math.fsum(observed), len(observed))


def clustered(values: Sequence[float], groups: Sequence[Hashable]) -> Proportion:
    """The mean of observations in [0, 1], with an interval over groups, such as photographs whose crops were asked about.

    Questions about one photograph are correlated. The interval is Wilson's, with the number of independent observations
    that have the same variance as the grouped ones, and with Student's t for the number of groups (E. L. Korn and B. I.
    Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated from survey
    data", Survey Methodology 24 (1998)). With fewer than `FEWEST_GROUPS` groups the interval is over observations, so it
    holds for these groups only; `effective` is None then.

    Raises:
        ValueError: the numbers of groups and values differ.
    """
    if len(groups) != len(values):
        raise ValueError(f"{len(values)} values and {len(groups)} groups")
    sizes: dict[Hashable, int] = {}
    sums: dict[Hashable, float] = {}
    for value, group in zip(values, groups, strict=True):
        sizes[group] = sizes.get(group, 0) + 1
        sums[group] = sums.get(group, 0.0) + value
    plain, count = proportion(values), len(sizes)
    if count < FEWEST_GROUPS or count == len(values):
        return replace(plain, groups=count)
    from scipy import stats

    alone = plain.mean * (1 - plain.mean) / plain.n
    spread = math.fsum((sums[group] - plain.mean * size) ** 2 for group, size in sizes.items()) / plain.n**2
    effect = max(1.0, count / (count - 1) * spread / alone) if alone else 1.0
    effective = plain.n / effect * (Z_95 / float(stats.t.ppf(0.975, count - 1))) ** 2
    found = wilson(plain.mean * effective, effective)
    return Proportion(plain.mean, min(found.low, plain.mean), max(found.high, plain.mean), plain.n, count, effective)


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


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected so that all of them together err in at most 5 % of cases if each is below 0.05.

    From S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979). It
    assumes nothing about how the tests depend on each other.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    found, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda k: values[k])):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        found[place] = least
    return found
