"""Jigsaw box: in which box of the picture were the quarters shuffled?

Corrupted: a box of the photo, with the photo's aspect ratio, is cut into four quarters, which change places inside the
box so that none stays in its place. Asked: the box, in thousandths of the picture's width and height. Graded by the
intersection over union; `ssl4rl_plugin.grading.Box` computes what a blind guesser gets from the distribution of boxes.

The grader defines the distribution: the box's side as a share of the picture's is uniform, and its position is uniform
given the side. The nine ways to move all four quarters are equally likely. No line marks the box: it is the region where
the content does not fit. Quarters move by whole pixels (the truth is exact to a pixel of the picture shown), without
resampling or blur. Refused: `no_visible_change`, unless each of the nine shuffles would be visible in EVERY box of the
smallest size, at positions half a box apart, so that refusals do not depend on the box drawn; `too_small` pictures.

From the box questions of Jigsaw-R1 (arXiv 2505.23590), which exchange two boxes; here one box is the single answer.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import thumbnail_array
from ssl4rl_plugin.grading import Box
from ssl4rl_plugin.tasks.image.views import fitted, random_box

SHUFFLES = [order for order in itertools.permutations(range(4)) if all(k != place for place, k in enumerate(order))]
"""The nine ways to move all four quarters: entry p is the quarter that moves to place p, both in reading order."""
VISIBLE_FROM = 0.025
"""Least mean absolute difference (range [0, 1]) at which a shuffled box counts as visibly changed."""
PROBE_SIDE = 64
"""Pixels along both sides of the small picture in which this is measured."""
SMALLEST_BOX = 12
"""Least side of a box in pixels, both in the photo and as shown."""


@dataclass(frozen=True)
class JigsawBoxLevel(Level):
    smallest: float = 0.4
    """Least side of the box, as a share of the picture's, in [0.1, 1)."""
    largest: float = 0.55
    """Largest side of the box, as a share of the picture's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Box(self.smallest, self.largest)  # checks the range
        if self.smallest < 0.1:
            raise ValueError(f"smallest must be at least 0.1, got {self.smallest}")


class JigsawBox(Task[JigsawBoxLevel]):
    name = "jigsaw_box"
    summary = "in which box of the picture the quarters were shuffled"
    reference = "Jigsaw-R1, arXiv 2505.23590"
    levels = {
        "large": JigsawBoxLevel(smallest=0.55, largest=0.75),
        "medium": JigsawBoxLevel(smallest=0.4, largest=0.55),
        "small": JigsawBoxLevel(smallest=0.3, largest=0.4),
    }
    default_level = "large"

    def grader(self, level: JigsawBoxLevel) -> Box:
        return Box(level.smallest, level.largest)

    def generate(self, item: Item, level: JigsawBoxLevel, rng: random.Random) -> Sample | Rejection:
        keep = rng.uniform(0.85, 1.0)
        size = (item.image.width * keep, item.image.height * keep)
        cut = item.image.crop(random_box(*item.image.size, *size, rng))
        picture = fitted(cut, level.side)
        pixels = int(level.smallest * min(cut.size + picture.size))
        if pixels < SMALLEST_BOX:
            return Rejection("too_small", f"a box would have {pixels} pixels")
        if (least := least_change(picture, level.smallest)) < VISIBLE_FROM:
            return Rejection("no_visible_change", f"shuffling would change some box by {least:.3f}")
        box = self.grader(level).draw(rng)
        order = rng.choice(SHUFFLES)
        left, half_w = halves(box[0], box[2], picture.width)
        upper, half_h = halves(box[1], box[3], picture.height)
        corners = [(left + x, upper + y) for y in (0, half_h) for x in (0, half_w)]
        quarters = [picture.crop((x, y, x + half_w, y + half_h)) for x, y in corners]
        for corner, quarter in zip(corners, order, strict=True):
            picture.paste(quarters[quarter], corner)
        question = (
            "<image>\nInside one box of this picture the four quarters of the box were moved to each other's places; "
            "outside of it nothing was changed. The box is a rectangle of the picture's own shape. Where is it? Answer "
            "with [x1, y1, x2, y2]: its left, upper, right and lower edge in thousandths of the picture's width (x) and "
            "height (y), counted from the top-left corner."
        )
        params = {"pixels": [left, upper, left + 2 * half_w, upper + 2 * half_h], "order": [k + 1 for k in order]}
        return Sample(question, (picture,), list(box), params)


def halves(start: int, end: int, length: int) -> tuple[int, int]:
    """First pixel, and half the number of pixels, of the interval from `start` to `end` (thousandths of `length`)."""
    half = round((end - start) * length / 2000)
    return min(max(0, round((start + end) * length / 2000) - half), length - 2 * half), half


def least_change(picture: Image.Image, share: float) -> float:
    """Least change by a shuffle, as mean absolute difference in [0, 1], over all shuffles and over boxes of side `share`
    (of the picture's) at positions half a box apart."""
    small = thumbnail_array(picture, PROBE_SIDE)
    half = max(2, int(PROBE_SIDE * share / 2))
    windows = sliding_window_view(small, (2 * half, 2 * half), axis=(0, 1))[::half, ::half]  # type: ignore[call-overload]
    quarters = [windows[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    apart = np.zeros((4, 4, *windows.shape[:2]), np.float32)
    for a, b in itertools.combinations(range(4), 2):
        apart[a, b] = apart[b, a] = np.abs(quarters[a] - quarters[b]).mean(axis=(2, 3, 4))
    return float(min(np.mean([apart[place, k] for place, k in enumerate(order)], axis=0).min() for order in SHUFFLES))
