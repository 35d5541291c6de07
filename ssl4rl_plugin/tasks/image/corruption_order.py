"""Corruption order: which of the pictures is corrupted least, which most?

Corrupted: one crop of the photo is shown n times, with one kind of corruption at n equally spaced strengths; the more
pictures, the smaller the steps. The kinds are those of the `corruption` task. Asked: the order from the least to the most
corrupted; the prompt names the kind. Graded by Kendall's tau; a blind guesser gets 1 in n! right, and half of the pairs.

The order shown is uniform. All pictures have the same size and resampling. The question is about pixel statistics, so a
guesser may use them (`cues`). Refused: `no_visible_change`, if a step does not move the picture visibly away from the
clean picture and from the previous one (only the drawn kind is checked, as it is not part of the answer); `blank`;
`too_small`, if the photo would be enlarged more than twice.

After the severities of ImageNet-C (Hendrycks & Dietterich, arXiv 1903.12261).
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Ordering, letters
from ssl4rl_plugin.tasks.image.corruption import CORRUPTIONS, IN_WORDS, clean_cut, sampled

VISIBLE_STEP = 0.004
"""Least mean absolute difference (range [0, 1]) between neighbouring pictures, and least growth of the difference from the
clean picture."""
VISIBLE_GROWTH = 1.1
"""Least ratio of a picture's difference from the clean picture to that of the previous picture."""


@dataclass(frozen=True)
class CorruptionOrderLevel(Level):
    side: int = 224
    count: int = 3
    """Pictures to order, 3 to 6."""
    strongest: float = 1.0
    """Strength of the most corrupted picture, in (0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (3 <= self.count <= 6 and 0 < self.strongest <= 1):
            raise ValueError(f"count must be in 3..6 and strongest in (0, 1], got {self.count}, {self.strongest}")


class CorruptionOrder(Task[CorruptionOrderLevel]):
    name = "corruption_order"
    summary = "in which order the same picture is corrupted less or more"
    reference = "after the severities of ImageNet-C, arXiv 1903.12261"
    levels = {
        "three": CorruptionOrderLevel(count=3),
        "four": CorruptionOrderLevel(count=4),
        "five": CorruptionOrderLevel(count=5),
    }
    default_level = "three"
    cues: ClassVar = {
        "codec": "the question may be about the strength of compression, and noisy pictures take more bytes",
        "sharpness": "the question may be about the strength of blur, noise or pixelation",
        "colour": "the question may be about the strength of brightness, contrast or saturation",
        "border": "the corruption includes the border lines of the pictures",
    }

    def grader(self, level: CorruptionOrderLevel) -> Ordering:
        return Ordering(tuple(letters(level.count)))

    def generate(self, item: Item, level: CorruptionOrderLevel, rng: random.Random) -> Sample | Rejection:
        kind = rng.choice(list(CORRUPTIONS))
        clean = clean_cut(item, level.side, rng)
        if isinstance(clean, Rejection):
            return clean
        strengths = [level.strongest * (k + 1) / level.count for k in range(level.count)]
        pictures = [CORRUPTIONS[kind](clean, strength, rng) for strength in strengths]
        seen = [sampled(picture) for picture in (clean, *pictures)]
        gone = [float(np.abs(now - seen[0]).mean()) for now in seen]
        for before, now in itertools.pairwise(range(len(seen))):
            step = min(float(np.abs(seen[now] - seen[before]).mean()), gone[now] - gone[before])
            if step < VISIBLE_STEP or gone[now] < VISIBLE_GROWTH * gone[before]:
                return Rejection("no_visible_change", f"{kind}: step {now} changes the picture by {step:.3f}")
        truth = self.grader(level).draw(rng)  # truth[k] labels the picture of strengths[k]
        by_label = dict(zip(truth, pictures, strict=True))
        names = self.grader(level).labels
        shown = " ".join(f"{name}: <image>" for name in names)
        question = (
            f"{shown}\nThese pictures show the same photo, each corrupted in the same way but more or less strongly. The "
            f"corruption is: {kind} ({IN_WORDS[kind]}). Order them from the one that is corrupted least to the one that is "
            f"corrupted most. Answer with the {level.count} letters separated by commas. For example, "
            f"{', '.join(names[::-1])} would mean that {names[-1]} is corrupted least and {names[0]} most."
        )
        params = {"kind": kind, "strengths": [round(strength, 3) for strength in strengths]}
        return Sample(question, tuple(by_label[name] for name in names), list(truth), params)
