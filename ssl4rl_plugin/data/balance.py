"""Balanced answers of validation sets: every possible answer of a task is right equally often.

A task draws its truth uniformly, so 64 questions with two answers can hold 36 of one. A model that always gives the other
one would then score 0.44 instead of 0.5. So validation samples are made in blocks of as many as there are answers, and
each answer is right once in a block: a sample is drawn again from the same item until its answer is not yet taken. In
every prefix the counts of two answers differ by at most one, and a constant answer scores 1/k over whole blocks of k. A
task with more answers than samples repeats none.

Each draw is the task's own, and the item is chosen before. As the truth is drawn independently of the item, the samples
with an answer are those that the task would make anyway; only how often each answer comes is fixed.

Tasks whose truths are not uniform over their answers (`Grader.uniform`: boxes, runs of frames, rankings, paths, hidden
words) are left as they are. There the answer follows from the item, so equal counts would choose among items, and chance
is computed for the truths as the task draws them.

Training samples are not balanced: many are drawn, and each advantage compares rollouts of one prompt.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from ssl4rl_plugin.core import Sample
from ssl4rl_plugin.data.arms import Arm

PATIENCE = 16
"""Draws per expected draw until a free answer comes; all fail once in e^16 samples."""


@dataclass(frozen=True)
class Wanted:
    """The answers that a sample may have."""

    taken: frozenset[str] = frozenset()
    """Answers (`Task.gold`) that its block has already."""
    draws: int = 1
    """Most draws from an item. If none has a free answer, the first one is used."""

    def has(self, arm: Arm, drawn: Sample) -> bool:
        """Whether the answer of a sample is free."""
        return arm.task.gold(drawn.truth, arm.level) not in self.taken


ANY = Wanted()
"""Any answer will do: the first draw is used."""


def block_size(arm: Arm, most: int) -> int:
    """Samples in a block: the number of the arm's answers, at most `most`; 1 if its truths are not uniform."""
    grader = arm.task.grader(arm.level)
    return max(1, sum(1 for _ in itertools.islice(grader.values(), most))) if grader.uniform else 1


def wanted(taken: frozenset[str], size: int) -> Wanted:
    """What a sample of a block of `size` may have after samples with the answers `taken`."""
    if not taken:
        return ANY
    free = max(1, size - len(taken))
    return Wanted(taken, math.ceil(PATIENCE * size / free))
