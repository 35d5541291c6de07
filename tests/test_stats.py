"""The Wilson interval: known values, its promised coverage, and the ends of its range."""

from __future__ import annotations

import math

import pytest

from ssl4rl_plugin.stats import proportion, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(successes, n, low, high):
    found = wilson(successes, n)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.mean == successes / n and found.n == n


def test_all_right_and_all_wrong_mirror_each_other():
    none, every = wilson(0, 50), wilson(50, 50)
    assert none.low == 0.0 and every.high == 1.0
    assert none.high == pytest.approx(1 - every.low)


def test_no_observations_say_nothing():
    found = wilson(0, 0)
    assert math.isnan(found.mean) and (found.low, found.high, found.n) == (0.0, 1.0, 0)
    assert math.isnan(proportion([]).mean)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, -1), (math.nan, 5)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
        wilson(successes, n)


def test_fractions_count_as_they_are():
    assert proportion([0.5, 1.0, 0.0, 0.5]) == wilson(2, 4)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("n", [20, 128])
def test_coverage_is_about_95_percent(share, n):
    """Exact coverage: the weight of the outcomes whose interval holds the true share."""
    inside = (k for k in range(n + 1) if wilson(k, n).low <= share <= wilson(k, n).high)
    coverage = sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in inside)
    assert 0.92 < coverage < 0.985


def test_the_interval_always_holds_the_mean():
    for n in range(1, 60):
        for k in range(n + 1):
            found = wilson(k, n)
            assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
