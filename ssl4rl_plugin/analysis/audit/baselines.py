"""Blind guessers: constant answers, and trees that see the numbers of `features` and never a picture's content.

Each is fitted on samples of one half of the pictures and tested on samples of the other half. It is compared with the rate
of the best constant answer on truths drawn by the grader. If the answer does not depend on what a guesser sees, its hits are
independent draws at that rate or below, so the p-values are exact. The 95 % intervals of its accuracy count samples of one
picture as partly dependent.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ssl4rl_plugin.analysis.audit.draw import Batch, TaskError
from ssl4rl_plugin.analysis.audit.features import COMPARED, SampleFeatures
from ssl4rl_plugin.analysis.statistics import Z_95, wilson
from ssl4rl_plugin.core import Grader, Task

DRAWN = 20_000
"""Truths drawn to find what chance is."""
MAX_PARTS = 3
"""Parts of an answer that are guessed one by one; the parts of a longer answer are alike."""
MAX_SEEN = 4
"""Pictures of a sample that a guesser sees one by one; of more it sees the first, the last, and how they are spread."""

TREES = 64
"""Trees of a forest; fewer of each where the forests of several pictures vote."""

Key = tuple[str, str, str]


@dataclass(frozen=True)
class GuesserResult:
    """One blind guesser and how it did."""

    kind: str
    """`constant`, `order` (how the answers are distributed), or what the trees see: `alone` (each picture for itself),
    `compared` (all pictures of a sample at once) or `options` (one option at a time, against the others)."""
    group: str
    """The feature group; `all` for all together that could be leaks; `-` for none."""
    part: str
    """Which part of the answer is guessed."""
    n: int
    """Samples tested on."""
    effective: float
    """Independent observations that these are worth."""
    share: float
    """Share guessed correctly (or mean closeness)."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    chance: float
    """What the best constant answer gets."""
    p: float
    """Probability of a result as good or better by chance alone."""

    @property
    def key(self) -> Key:
        """Identifies the guesser within an arm."""
        return self.kind, self.group, self.part


def guess(task: Task[Any], level: Any, train: Batch, test: Batch, only: set[Key] | None = None) -> list[GuesserResult]:
    """Fit every blind guesser on one batch and test it on another; `only` restricts which.

    Needs scikit-learn; uses one thread. The same inputs give the same rows.
    """
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    grader = task.grader(level)
    rows = _constants(grader, train, test) + _orders(grader, train, test, fresh=only is not None)
    groups = list(train.described[0].shown)
    undeclared = [group for group in groups if group not in task.cues and group != "halves"]
    with threadpool_limits(1):
        for kind, target in _targets(grader, train, test):
            views = _VIEWS[kind](train, test)
            for group, parts in [*((group, [group]) for group in groups), ("all", undeclared)]:
                key = (kind, group, target.part)
                parts = [part for part in parts if part in views[0]]
                if (only is not None and key not in only) or not parts:
                    continue
                fit, check = (
                    [np.concatenate([view[part][side] for part in parts], axis=1) for view in views] for side in (0, 1)
                )
                if kind == "options":
                    hits = _from_options(fit[0], check[0], target)
                else:
                    hits = _from_views(list(zip(fit, check, strict=True)), target)
                rows.append(_row(key, hits, test.groups, target.chance))
    return rows if only is None else [row for row in rows if row.key in only]


# ------------------------------------------------------------------------------------------------- what is guessed


@dataclass(frozen=True)
class _Target:
    part: str
    train: np.ndarray
    """Category of each sample, or for options a row of booleans: which ones are right."""
    test: np.ndarray
    chance: float
    size: int = 0
    """Number of options."""


@lru_cache(maxsize=256)
def _drawn(grader: Grader[Any]) -> dict[str, Counter[int]]:
    """How the parts of the answer are distributed when the grader draws truths."""
    rng = random.Random(0)
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for _ in range(DRAWN):
        for part, category in grader.parts(grader.draw(rng)).items():
            found[part][category] += 1
    return dict(found)


def _value(grader: Grader[Any], truth: Any) -> Any:
    """The truth in the form that the grader's own values have (JSON has no tuples and sets)."""
    value = grader.parse(grader.render(truth))
    if value is None:
        raise TaskError(f"the truth {truth!r} is no possible answer for its grader")
    return value


def _parts(grader: Grader[Any], batch: Batch) -> list[dict[str, int]]:
    return [grader.parts(_value(grader, truth)) for truth in batch.truths]


def _targets(grader: Grader[Any], train: Batch, test: Batch) -> list[tuple[str, _Target]]:
    """What trees are to guess: each of the first parts from the pictures, and the right one among the options."""
    known, seen = _parts(grader, train), _parts(grader, test)
    drawn = _drawn(grader)
    targets = []
    for part in list(drawn)[:MAX_PARTS]:
        chance = max(drawn[part].values()) / sum(drawn[part].values())
        fit, check = (np.array([parts[part] for parts in batch]) for batch in (known, seen))
        kinds = ["alone", "compared"] if _most(train, test) > 1 else ["alone"]
        targets += [(kind, _Target(part, fit, check, chance)) for kind in kinds]
    size = _option_count(train, test)
    selects = bool(train.truths) and grader.members(train.truths[0]) is not None
    if selects and grader.item_count == size:
        fit, check = (np.array([grader.members(truth) for truth in batch.truths]) for batch in (train, test))
        targets.append(("options", _Target("one of the set", fit, check, float(fit[0].mean()), size)))
    elif size > 1 and not selects:
        part = next(iter(drawn))
        categories = sorted(drawn[part])
        if len(categories) == size:
            fit, check = (np.array([[p[part] == c for c in categories] for p in parts]) for parts in (known, seen))
            targets.append(("options", _Target(part, fit, check, max(drawn[part].values()) / DRAWN, size)))
    return targets


def _option_count(*batches: Batch) -> int:
    """How many options every sample has; 0 where they have none, or not all as many."""
    counts = {
        _height(described.options) if described.options is not None else 0
        for batch in batches
        for described in batch.described
    }
    return counts.pop() if len(counts) == 1 else 0


def with_options(grader: Grader[Any], batch: Batch) -> Batch:
    """The batch, with the shown pictures as options where the answer is an order or set of them and none are named."""
    if not batch.described or any(described.options is not None for described in batch.described):
        return batch
    count = grader.item_count
    if count and all(_height(described.shown) == count for described in batch.described):
        batch.described = [SampleFeatures(d.prompt, d.shown, d.shown) for d in batch.described]
    return batch


# --------------------------------------------------------------------------------------------- what a guesser sees


def _alone(*batches: Batch) -> list[dict[str, list[np.ndarray]]]:
    """For each picture of a sample: group -> one matrix for each batch. The prompt goes with the first picture."""
    most = _most(*batches)
    longest = max(len(described.prompt) for batch in batches for described in batch.described)
    views: list[dict[str, list[np.ndarray]]] = []
    for place in range(max(1, min(most, MAX_SEEN))):
        view: dict[str, list[np.ndarray]] = {}
        for group in batches[0].described[0].shown:
            view[group] = []
            for batch in batches:
                rows = [
                    d.shown[group][place] if place < len(d.shown[group]) else np.zeros(_width(group, *batches))
                    for d in batch.described
                ]
                view[group].append(np.stack(rows).astype(np.float32))
        if place == 0 and longest:
            for side, batch in enumerate(batches):
                prompts = np.stack([np.pad(d.prompt, (0, longest - len(d.prompt))) for d in batch.described])
                view["layout"][side] = np.concatenate([prompts, view["layout"][side]], axis=1)
        views.append(view)
    return views


def _compared(*batches: Batch) -> list[dict[str, list[np.ndarray]]]:
    """One view, of all pictures of a sample at once: group -> one matrix for each batch."""
    most = _most(*batches)
    view: dict[str, list[np.ndarray]] = {}
    for group, skip in COMPARED.items():
        view[group] = [np.stack([_at_once(d.shown[group][:, skip:], most) for d in b.described]) for b in batches]
    return [view]


def _at_once(rows: np.ndarray, most: int) -> np.ndarray:
    """The numbers of a sample's pictures as one row of a length that `most`, the largest number of pictures, decides."""
    if most <= MAX_SEEN:
        padded = np.zeros((most, rows.shape[1]), np.float32)
        padded[: len(rows)] = rows
        apart = [np.abs(padded[i] - padded[j]) for i in range(most) for j in range(i)]
        return np.concatenate([padded.ravel(), *apart])
    if not rows.shape[1]:
        return np.zeros(0, np.float32)
    return np.concatenate([rows[0], rows[-1], rows.mean(0), rows.std(0), rows.argmax(0), rows.argmin(0)])


def _height(rows: dict[str, np.ndarray]) -> int:
    """How many pictures, or options, are described."""
    return len(next(iter(rows.values())))


def _most(*batches: Batch) -> int:
    """The largest number of pictures that a sample shows."""
    return max(_height(described.shown) for batch in batches for described in batch.described)


def _width(group: str, *batches: Batch) -> int:
    return max(described.shown[group].shape[1] for batch in batches for described in batch.described)


def _options(*batches: Batch) -> list[dict[str, list[np.ndarray]]]:
    """One view: group -> one matrix for each batch, a row for each option of each sample: its numbers against the
    others', and, where one more picture is shown than there are options, how near they are to those of the first."""
    asked = all(_is_asked_about(described) for batch in batches for described in batch.described)
    tables: dict[str, list[np.ndarray]] = {}
    for group in batches[0].described[0].shown:
        tables[group] = []
        for batch in batches:
            rows = []
            for described in batch.described:
                assert described.options is not None
                numbers = described.options[group]
                found = [
                    numbers - (numbers.sum(axis=0) - numbers) / (len(numbers) - 1),
                    _rank(numbers),
                    np.abs(numbers - np.median(numbers, axis=0)),
                ]
                if asked and group in COMPARED:
                    apart = np.abs(numbers - described.shown[group][0])[:, COMPARED[group] :]
                    found += [apart, _rank(apart)]
                rows.append(np.concatenate(found, axis=1))
            tables[group].append(np.concatenate(rows).astype(np.float32))
    return [tables]


def _is_asked_about(described: SampleFeatures) -> bool:
    """Whether a sample shows one picture more than its options: that which one of them belongs to."""
    options, shown = described.options, described.shown
    if options is None or "layout" not in shown or _height(shown) != _height(options) + 1:
        return False
    return shown["layout"].shape[1] == options["layout"].shape[1]  # no clips


def _rank(numbers: np.ndarray) -> np.ndarray:
    """Where each row stands among the others, in each column: -1 for the smallest, 1 for the largest."""
    larger, smaller = numbers[:, None, :] > numbers[None, :, :], numbers[:, None, :] < numbers[None, :, :]
    return (larger.sum(axis=1) - smaller.sum(axis=1)) / (len(numbers) - 1)


_VIEWS = {"alone": _alone, "compared": _compared, "options": _options}


# ------------------------------------------------------------------------------------------------------ the guessers


def _from_options(x_train: np.ndarray, x_test: np.ndarray, target: _Target) -> np.ndarray:
    """Which test samples are guessed right by the option that looks most like a right one (booleans)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    varying = _varying(x_train)
    if not varying.any():  # all options alike: one is as good as another
        return target.test[:, 0]
    # One row for each option makes thousands of rows, which boosted trees use well.
    trees = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=8, learning_rate=0.12, min_samples_leaf=15, early_stopping=False, random_state=0
    )
    trees.fit(x_train[:, varying], target.train.ravel())
    scores = trees.predict_proba(x_test[:, varying])[:, -1].reshape(-1, target.size)
    return target.test[np.arange(len(target.test)), scores.argmax(axis=1)]


def _from_views(views: Sequence[tuple[np.ndarray, np.ndarray]], target: _Target) -> np.ndarray:
    """Which test samples are guessed right by trees of each view, whose probabilities are averaged (booleans)."""
    from sklearn.ensemble import ExtraTreesClassifier

    answers = np.unique(target.train)
    probability = np.tile([np.mean(target.train == answer) for answer in answers], (len(target.test), 1))
    for x_train, x_test in views:
        varying = _varying(x_train)
        if varying.any() and len(answers) > 1:
            # A few hundred rows, up to hundreds of columns, perhaps many answers: here randomised trees find more than
            # boosted ones, in a fraction of the time.
            trees = ExtraTreesClassifier(
                max(TREES // 4, TREES // len(views)), max_features=0.5, min_samples_leaf=4, random_state=0, n_jobs=1
            )
            probability += 10 * trees.fit(x_train[:, varying], target.train).predict_proba(x_test[:, varying])
    return answers[probability.argmax(axis=1)] == target.test


def _varying(x: np.ndarray) -> np.ndarray:
    return np.ptp(x, axis=0) > 0 if x.size else np.zeros(x.shape[1], bool)


def _constants(grader: Grader[Any], train: Batch, test: Batch) -> list[GuesserResult]:
    """The best constant answers that the training half suggests, by accuracy and by closeness."""
    known = [_value(grader, truth) for truth in train.truths]
    common = Counter(known).most_common(3)
    candidates = list(dict.fromkeys([*(value for value, _ in common), *known[:20], grader.best_guess]))
    some = train.truths[:150]
    right = {value: sum(grader.equal(value, truth) for truth in some) for value in candidates}
    most_right = max(candidates, key=lambda value: right[value])
    close = {value: sum(grader.similarity(value, truth) for truth in some) for value in candidates}
    closest = max(candidates, key=lambda value: close[value])
    hits = np.array([grader.equal(most_right, truth) for truth in test.truths])
    rows = [_row(("constant", "-", "whole answer"), hits, test.groups, grader.chance_accuracy)]
    if abs(grader.chance_similarity - grader.chance_accuracy) > 1e-9:
        values = np.array([grader.similarity(closest, truth) for truth in test.truths])
        rng = random.Random(1)
        spread = float(np.std([grader.similarity(closest, grader.draw(rng)) for _ in range(2000)]))
        mean, chance, n = float(values.mean()), grader.chance_similarity, len(values)
        half = Z_95 * float(values.std(ddof=1)) / math.sqrt(n)
        # Where a constant has the same closeness to every truth, any excess over chance is certain.
        z = (mean - chance) * math.sqrt(n) / spread if spread > 1e-9 else math.copysign(9.0, mean - chance - 1e-6)
        p = 0.5 * math.erfc(z / math.sqrt(2))
        rows.append(
            GuesserResult(
                "constant", "-", "closeness", n, n, mean, max(0.0, mean - half), min(1.0, mean + half), chance, p
            )
        )
    return rows


def _orders(grader: Grader[Any], train: Batch, test: Batch, fresh: bool) -> list[GuesserResult]:
    """Whether each part of the answer is distributed as the grader says; all samples serve, but in a second look only
    the fresh ones."""
    from scipy.stats import chi2_contingency

    found = _parts(grader, test) + ([] if fresh else _parts(grader, train))
    rows = []
    for part, drawn in _drawn(grader).items():
        seen = Counter(parts[part] for parts in found)
        n = len(found)
        table = [
            (seen[category], drawn[category])
            for category in sorted({*seen, *drawn})
            if drawn[category] * n / DRAWN >= 3 or category not in drawn
        ]
        rest = (n - sum(a for a, _ in table), DRAWN - sum(b for _, b in table))
        counts = np.array([pair for pair in (*table, rest) if sum(pair)]).T
        p = float(chi2_contingency(counts, correction=False).pvalue) if counts.shape[1] > 1 else 1.0
        count = max(seen.values())
        share = wilson(count, n)
        rows.append(
            GuesserResult("order", "-", part, n, n, share.mean, share.low, share.high, max(drawn.values()) / DRAWN, p)
        )
    return rows


def _row(key: Key, hits: np.ndarray, groups: Sequence[str], chance: float) -> GuesserResult:
    from scipy.stats import binom

    n, right = len(hits), int(hits.sum())
    effective = _effective(hits.astype(float), groups)
    worth = max(1, round(effective))
    interval = wilson(right / n * worth, worth)
    p = float(binom.sf(right - 1, n, chance))
    return GuesserResult(*key, n, effective, right / n, interval.low, interval.high, chance, p)


def _effective(hits: np.ndarray, groups: Sequence[str]) -> float:
    """How many independent observations the hits are worth, from how alike those of one group are."""
    by_group: dict[str, list[float]] = defaultdict(list)
    for hit, group in zip(hits, groups, strict=True):
        by_group[group].append(hit)
    n, share = len(hits), float(hits.mean())
    if len(by_group) < 2 or share in (0.0, 1.0):
        return float(len(by_group))
    sums = [sum(values) - share * len(values) for values in by_group.values()]
    variance = sum(s * s for s in sums) / n**2 * len(sums) / (len(sums) - 1)
    return float(min(n, max(len(by_group) / 2, share * (1 - share) / variance))) if variance > 0 else float(n)
