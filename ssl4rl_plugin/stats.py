"""How sure a measured accuracy is: the Wilson score interval, used wherever a share is reported."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution: two-sided 95 % intervals."""


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
    """Independent observations behind it."""


def wilson(successes: float, n: int, z: float = Z_95) -> Proportion:
    """The Wilson score interval of `successes` out of `n`.

    It keeps its promised coverage for small n and for shares near 0 and 1, where the usual mean plus or minus z
    standard errors is empty or leaves [0, 1]. From E. B. Wilson, "Probable inference, the law of succession, and
    statistical inference", JASA 22 (1927); recommended by Brown, Cai and DasGupta, "Interval estimation for a
    binomial proportion", Statistical Science 16 (2001).

    Args:
        successes: how many of the n succeeded, in [0, n]; a fraction where each observation is itself a mean.
        n: independent observations. None at all gives the interval [0, 1].
        z: normal quantile of the wanted confidence.

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
    # In exact arithmetic the ends never cross the share; rounding must not make them.
    return Proportion(share, min(share, max(0.0, center - half)), max(share, min(1.0, center + half)), n)


def proportion(values: Iterable[float]) -> Proportion:
    """The mean of observations in [0, 1], each independent of the others, with its interval."""
    observed = list(values)
    return wilson(math.fsum(observed), len(observed))
