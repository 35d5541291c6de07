"""Intervals and tests: known values, by hand, against scipy, and the coverage that they promise."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hypothesis
from scipy import stats

from ssl4rl_plugin.analysis.statistics import bootstrap, clustered, holm, mcnemar, proportion, wilson


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


def test_bootstrap_of_single_observations_is_scipys():
    rng = np.random.default_rng(5)
    values = rng.normal(size=60)
    found = bootstrap(values.tolist(), resamples=4000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    assert found.mean == pytest.approx(values.mean()) and found.groups == 60
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.03)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.03)
    assert bootstrap(values.tolist(), resamples=4000) == found, "same seed, same interval"


def test_bootstrap_by_hand_where_all_resamples_can_be_listed():
    """Three groups of unequal size: 27 equally likely draws of groups; no interval of a mean is wider than their ends."""
    values, groups = [1.0, 1.0, 0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b", "b", "c"]
    sums, counts = {"a": 2, "b": 0, "c": 1}, {"a": 3, "b": 2, "c": 1}
    means = sorted(sum(sums[g] for g in drawn) / sum(counts[g] for g in drawn) for drawn in product("abc", repeat=3))
    found = bootstrap(values, groups)
    assert found.mean == 0.5 and found.groups == 3
    # 1 draw in 27 is more than 2.5 %: the ends are the smallest and the largest mean there is.
    assert (found.low, found.high) == (means[0], means[-1]) == (0.0, 1.0)


def test_questions_about_one_picture_make_the_interval_wider():
    values = [float(k % 2) for k in range(50) for _ in range(6)]
    alone, together = bootstrap(values), bootstrap(values, [k // 6 for k in range(300)])
    assert alone.mean == together.mean == 0.5
    assert 2 < (together.high - together.low) / (alone.high - alone.low) < 3  # sqrt(6) = 2.45


def test_bootstrap_of_too_little():
    assert math.isnan(bootstrap([]).mean)
    alone = bootstrap([1.0, 0.0], ["a", "a"])
    assert alone.mean == 0.5 and math.isnan(alone.low) and alone.groups == 1
    with pytest.raises(ValueError, match="2 values and 1 groups"):
        bootstrap([1.0, 0.0], ["a"])


def test_bootstrap_of_differences_covers_the_true_one():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        pictures = np.repeat(rng.normal(size=40), 2)
        differences = 0.3 + pictures + rng.normal(size=80)
        found = bootstrap(differences.tolist(), np.repeat(np.arange(40), 2).tolist(), resamples=500)
        inside += found.low <= 0.3 <= found.high
    assert 0.89 < inside / 200 < 0.98


def test_mcnemar_by_hand_and_against_its_approximation():
    assert mcnemar(5, 0) == 2 / 2**5 and mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == 1.0
    # 2 or fewer of 10 heads, or 8 or more: 2 * (1 + 10 + 45) / 1024
    assert mcnemar(2, 8) == mcnemar(8, 2) == pytest.approx(112 / 1024)
    # Agresti, "Categorical Data Analysis" (3rd ed., 2013), section 11.1: approval of a prime minister, 86 and 150 changed
    # their mind; z squared is 17.36 there.
    chi_squared = (86 - 150) ** 2 / (86 + 150)
    assert round(chi_squared, 2) == 17.36
    assert mcnemar(86, 150) == pytest.approx(stats.chi2.sf((abs(86 - 150) - 1) ** 2 / (86 + 150), df=1), rel=0.1)
    assert mcnemar(86, 150) == pytest.approx(2 * stats.binom.cdf(86, 236, 0.5))


@pytest.mark.parametrize("n", [1, 7, 30])
def test_mcnemar_rejects_equal_models_at_most_as_often_as_it_says(n):
    """Exact: the weight of the outcomes with p <= 0.05 where both models are equally good."""
    assert sum(math.comb(n, k) / 2**n for k in range(n + 1) if mcnemar(k, n - k) <= 0.05) <= 0.05


def test_holm_by_hand_and_against_the_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(hypothesis.lists(hypothesis.floats(0, 1), max_size=12))
def test_holm_rejects_in_steps(values):
    found = holm(values)
    assert all(p <= q <= 1 for p, q in zip(values, found, strict=True))
    # Holm 1979: reject in ascending order while p <= alpha / (number of hypotheses left).
    rejected = set()
    for rank, place in enumerate(sorted(range(len(values)), key=lambda k: values[k])):
        if values[place] * (len(values) - rank) >= 0.05:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(found) if p < 0.05} == rejected


@given(hypothesis.integers(1, 200), hypothesis.floats(0, 1), hypothesis.sampled_from([0.05, 0.25, 0.5]))
def test_the_score_test_rejects_exactly_what_wilsons_interval_leaves_out(n, share, chance):
    found = wilson(int(share * n), n)
    assert (found.p_against(chance) < 0.05) == (not found.low <= chance <= found.high)


def test_an_interval_over_groups_is_the_one_over_questions_if_groups_do_not_matter():
    rng = np.random.default_rng(1)
    values = (rng.random(4000) < 0.4).astype(float).tolist()
    found = clustered(values, [number % 400 for number in range(4000)])
    plain = proportion(values)
    assert (found.n, found.groups, found.mean) == (4000, 400, plain.mean)
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.12)


def test_whole_groups_that_are_right_or_wrong_count_as_one_question_each():
    values = [float(group % 5 < 2) for group in range(40) for _ in range(25)]
    found = clustered(values, [group for group in range(40) for _ in range(25)])
    assert found.n == 1000 and found.effective == pytest.approx(39, rel=0.08)
    alone = wilson(16, 40)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.01)


def test_with_few_groups_the_interval_is_over_questions_and_says_so():
    values = [1.0, 0.0] * 50
    found = clustered(values, ["one", "one", "two", "two"] * 25)
    assert found == replace(proportion(values), groups=2) and found.effective is None


def test_coverage_over_groups():
    """Each of 30 groups has its own share; the interval holds the mean share as often as it promises."""
    rng, inside = np.random.default_rng(7), 0
    for _ in range(400):
        shares = rng.beta(2, 3, 30)
        values = (rng.random((30, 20)) < shares[:, None]).astype(float).ravel().tolist()
        found = clustered(values, [group for group in range(30) for _ in range(20)])
        inside += found.low <= 0.4 <= found.high
    assert 0.92 <= inside / 400 <= 0.985
