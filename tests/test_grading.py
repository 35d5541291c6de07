"""Graders of places, orders, sets and counts: what they read, and what they pay."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading import Box, Choice, Counts, Interval, LabelSet, Ordering, Permutation

ABC, ABCD = tuple("ABC"), tuple("ABCD")
GRADERS: list[Grader[Any]] = [
    Ordering(ABC), LabelSet(ABCD, 2), Counts(1, 1, 9), Counts(3, 0, 3), Interval(16, 3, 6), Interval(48, 8, 16),
    Box(0.2, 0.4), Box(0.5, 0.7), Permutation(2, 2), Choice(ABCD),
]  # fmt: skip


@pytest.mark.parametrize(
    ("grader", "text", "value"),
    [
        (Ordering(ABC), "b, A c.", ("B", "A", "C")),
        (Ordering(ABC), "[B > A > C]", ("B", "A", "C")),
        (Ordering(ABC), "A, B", None),
        (Ordering(ABC), "A, B, B", None),
        (Ordering(ABC), "A, B, C, A", None),
        (Ordering(ABC), "A, B, D", None),
        (LabelSet(ABCD, 2), "D and B", ("B", "D")),
        (LabelSet(ABCD, 2), "A, B, C, D", None),
        (LabelSet(ABCD, 2), "A, A", None),
        (Counts(1, 1, 9), "3", (3,)),
        (Counts(1, 1, 9), "0", None),
        (Counts(1, 1, 9), "three", None),
        (Counts(3, 0, 3), "(2, 0; 3)", (2, 0, 3)),
        (Counts(3, 0, 3), "2, 0", None),
        (Interval(16, 3, 6), "4-9", (4, 9)),
        (Interval(16, 3, 6), "[4, 9]", (4, 9)),
        (Interval(16, 3, 6), "4 to 9", (4, 9)),
        (Interval(16, 3, 6), "9-4", None),
        (Interval(16, 3, 6), "4-17", None),
        (Interval(16, 3, 6), "4.5-9", None),
        (Interval(16, 3, 6), "4", None),
        (Box(0.2, 0.4), "[100, 200, 300, 450]", (100, 200, 300, 450)),
        (Box(0.2, 0.4), "(100, 200), (300, 450)", (100, 200, 300, 450)),
        (Box(0.2, 0.4), "x1=100, y1=200, x2=300, y2=450", (100, 200, 300, 450)),
        (Box(0.2, 0.4), "[300, 200, 100, 450]", None),
        (Box(0.2, 0.4), "[100, 200, 300, 1450]", None),
        (Box(0.2, 0.4), "[100, 200, 300]", None),
        (Box(0.2, 0.4), "about [100, 200, 300, 450]", None),
    ],
)
def test_reading(grader: Grader[Any], text: str, value: Any) -> None:
    assert grader.parse(text) == value


@pytest.mark.parametrize("grader", GRADERS, ids=repr)
def test_truths_survive_being_written(grader: Grader[Any]) -> None:
    rng = random.Random(0)
    for _ in range(200):
        truth = grader.draw(rng)
        value = grader.parse(grader.render(truth))
        assert value is not None and grader.equal(value, truth) and grader.similarity(value, truth) == 1.0
        for part, category in grader.parts(truth).items():
            assert isinstance(part, str) and isinstance(category, int)


@pytest.mark.parametrize("grader", GRADERS, ids=repr)
@given(text=st.text(alphabet="AaBbCD0123456789,;-–.()[]xy=to <>and", max_size=60))
def test_any_text_is_read_or_refused(grader: Grader[Any], text: str) -> None:
    value = grader.parse(text)
    if value is not None:
        assert 0.0 <= grader.similarity(value, grader.draw(random.Random(1))) <= 1.0
        assert grader.parse(grader.render(value)) == value


@pytest.mark.parametrize("grader", GRADERS, ids=repr)
def test_no_random_constant_beats_the_stated_chance(grader: Grader[Any]) -> None:
    """Thousands of constants, those near the best one among them, on truths of another seed."""
    rng = random.Random(7)
    truths = [grader.draw(rng) for _ in range(1500)]
    guesses = [grader.best_guess, *(grader.draw(rng) for _ in range(60))]
    for guess in guesses:
        mean = sum(grader.similarity(guess, truth) for truth in truths) / len(truths)
        right = sum(grader.equal(guess, truth) for truth in truths) / len(truths)
        assert mean <= grader.chance_similarity + 0.05 and right <= grader.chance_accuracy + 0.04
    best = sum(grader.similarity(grader.best_guess, truth) for truth in truths) / len(truths)
    assert best == pytest.approx(grader.chance_similarity, abs=0.05)


def test_hand_computed_similarities() -> None:
    assert Ordering(ABC).similarity(("A", "C", "B"), list(ABC)) == pytest.approx(2 / 3)
    assert LabelSet(ABCD, 2).similarity(("A", "B"), ["B", "C"]) == 0.5
    assert Counts(2, 0, 4).similarity((2, 0), [4, 0]) == pytest.approx(0.75)
    assert Interval(16, 3, 6).similarity((1, 4), [3, 6]) == pytest.approx(2 / 6)
    assert Box(0.2, 0.4).similarity((0, 0, 200, 200), [100, 0, 300, 200]) == pytest.approx(1 / 3)


def test_published_figures_are_met() -> None:
    """The best constant interval for 8 to 16 of 48 frames, the ranges of VideoSSR (arXiv 2511.06281), by simulation."""
    assert Interval(48, 8, 16).chance_similarity == pytest.approx(0.306, abs=0.002)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ordering(("A",)), lambda: Ordering(("A", "a")), lambda: LabelSet(ABC, 3), lambda: Counts(1, 3, 3),
        lambda: Interval(16, 6, 3), lambda: Interval(5, 2, 5), lambda: Box(0.4, 0.2),
    ],
)  # fmt: skip
def test_impossible_graders_are_refused(make: Any) -> None:
    with pytest.raises(ValueError):
        make()
