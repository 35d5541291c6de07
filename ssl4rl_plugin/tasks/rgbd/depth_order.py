"""Depth order: which of the marked points is nearest, which farthest?

Corrupted: nothing; some points of a picture with depth are marked with letters. Asked: their order by depth, from the
nearest to the farthest. Graded by Kendall's tau; a blind guesser gets 1 in n! right of n points, and half of the pairs.

The truth is measured depth along the camera's axis. Each point lies on one surface, without edges or unknown depth around
it. Points are at least a share of the picture's side apart, and the depths of any two differ by at least the level's
`ratio` and 0.2 metres. The letters are shuffled, so that they reveal nothing. Low parts of a picture are usually near:
this counts as content; at the levels `..._row` all points are at about the same height, so that it does not help.
Refused: `blank`, `too_small` for the marks, `no_depth` (known in too few pixels) and `flat_depth` (no such points found).

From Visual Jigsaw (arXiv 2509.25190), which orders marked points by depth, and Spatial-SSRL (arXiv 2510.27606).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Ordering, letters
from ssl4rl_plugin.tasks.rgbd.depth_points import mark_radius, marked, steady_points

MIN_METRES = 0.2
"""Least difference in depth of any two points."""
ROUNDS = 30
"""Number of searches for points in a picture, each from a new start."""


@dataclass(frozen=True)
class DepthOrderLevel(Level):
    points: int = 3
    """Number of points to order, 2 to 8."""
    ratio: float = 1.15
    """Least ratio of a point's depth to that of the next nearer one, in (1.05, 3]."""
    row: bool = False
    """Choose all points at about the same height in the picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.points <= 8 and 1.05 < self.ratio <= 3):
            raise ValueError(f"points must be in 2..8 and ratio in (1.05, 3], got {self.points}, {self.ratio}")


class DepthOrder(Task[DepthOrderLevel]):
    name = "depth_order"
    summary = "in which order marked points follow each other from near to far"
    reference = "Visual Jigsaw, arXiv 2509.25190; Spatial-SSRL, arXiv 2510.27606"
    levels = {
        "two": DepthOrderLevel(points=2, ratio=1.25),
        "three": DepthOrderLevel(points=3, ratio=1.15),
        "three_row": DepthOrderLevel(points=3, ratio=1.12, row=True),
        "four": DepthOrderLevel(points=4, ratio=1.12),
        "six": DepthOrderLevel(points=6, ratio=1.1),
    }
    default_level = "three"
    kind = "rgbd"

    def grader(self, level: DepthOrderLevel) -> Ordering:
        return Ordering(tuple(letters(level.points)))

    def generate(self, item: Item, level: DepthOrderLevel, rng: random.Random) -> Sample | Rejection:
        found = steady_points(item.rgbd, level.side, rng)
        if isinstance(found, Rejection):
            return found
        picture, candidates = found
        chosen = self._choose(candidates, level, rng, picture.height)
        if chosen is None:
            return Rejection("flat_depth", f"no {level.points} points that differ in depth")
        truth = self.grader(level).draw(rng)  # truth[k] marks the k-th nearest point
        order = np.argsort(chosen[:, 2])
        places = {label: (int(chosen[k, 0]), int(chosen[k, 1])) for label, k in zip(truth, order, strict=True)}
        names = self.grader(level).labels
        example = ", ".join(names[::-1])
        question = (
            f"<image>\n{len(names)} points of this picture are marked with the letters {', '.join(names)}; a point is at "
            "the centre of its mark. Order them by depth, which is how far in front of the camera the thing seen there is: "
            f"first the nearest, last the farthest. Answer with the {len(names)} letters separated by commas. For example, "
            f"{example} would mean that {names[-1]} is the nearest and {names[0]} the farthest."
        )
        depths = {label: round(float(chosen[k, 2]), 3) for label, k in zip(truth, order, strict=True)}
        params = {"points": {label: list(places[label]) for label in names}, "depths": depths}
        return Sample(question, (marked(picture, {label: places[label] for label in names}),), list(truth), params)

    @staticmethod
    def _choose(candidates: np.ndarray, level: DepthOrderLevel, rng: random.Random, height: int) -> np.ndarray | None:
        """`level.points` of the candidates (n, 3) that differ enough in position and depth; None if not found."""
        apart = max(2.5 * mark_radius(level.side), 0.1 * level.side)
        for _ in range(ROUNDS if len(candidates) else 0):
            left = candidates[rng.sample(range(len(candidates)), len(candidates))]
            if level.row:
                left = left[np.abs(left[:, 1] - left[0, 1]) <= max(2, 0.06 * height)]
            chosen: list[np.ndarray] = []
            while len(left) and len(chosen) < level.points:
                x, y, depth = point = left[0]
                chosen.append(point)
                far = np.hypot(left[:, 0] - x, left[:, 1] - y) >= apart
                ratio = np.maximum(left[:, 2], depth) / np.minimum(left[:, 2], depth)
                left = left[far & (ratio >= level.ratio) & (np.abs(left[:, 2] - depth) >= MIN_METRES)]
            if len(chosen) == level.points:
                return np.array(chosen)
        return None
