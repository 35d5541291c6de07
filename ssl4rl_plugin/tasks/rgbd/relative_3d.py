"""Relative 3-D position: where is one marked point for an observer at another one?

Corrupted: nothing; two points A and B of a picture with depth are marked. Asked: for an observer at A who faces away from
the camera, towards it, or to the left or right of the picture, is B to the front-left, front-right, back-left or
back-right (height does not count)? Exact; a blind guesser gets 1/4.

For an observer who faces away from the camera, front is farther from the camera and right is right in the picture; the
other directions rotate this by quarter turns. Only pairs are used whose answer is the same under every usual definition:
left and right agree in the picture and in metres; the depths differ by at least a factor of 1.2 and 0.2 metres; and the
direction from A to B is at least 15 degrees from the borders between the four answers, both in the camera's frame and
relative to the line of sight to A. Metres need the unknown focal length. These checks assume the picture's longest side
(a field of view of 53 degrees); the answer never depends on it.

The positions of the two marks reveal left or right, so a guesser who sees only the marks is right in half of the cases.
Near or far needs the scene (the lower part of a picture is usually nearer).

A picture is used only if it has a pair of points for each of the four answers. The answer is drawn first, then a pair for
it. Refused: `blank`, `too_small` for the marks, `no_depth` (known in too few pixels), `flat_depth` (everything is equally
far), and `ambiguous` (no clear pair for one of the answers).

From Spatial-SSRL (arXiv 2510.27606).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.rgbd.depth_points import mark_radius, marked, steady_points

ANSWERS = ("front-left", "front-right", "back-left", "back-right")
FACINGS = {
    "away": "straight away from the camera, the way the camera looks",
    "towards": "straight towards the camera",
    "left": "to the left as you see it in the picture",
    "right": "to the right as you see it in the picture",
}
"""Direction that the observer faces -> its description in prompts."""
SIDES = {
    "away": lambda right, farther: (farther, right),
    "towards": lambda right, farther: (-farther, -right),
    "left": lambda right, farther: (-right, farther),
    "right": lambda right, farther: (right, -farther),
}
"""Direction that the observer faces -> direction of B for the observer at A, as (forward, right), computed from B's offset
in the image (right) and in depth (farther from the camera). All are signs."""
MIN_METRES, MIN_RATIO = 0.2, 1.2
"""Least difference and least ratio of the two depths."""
MIN_DEGREES = 15
"""Least angle between the direction from A to B and the borders between the answers."""
USED = 80
"""Number of points from which pairs are made; all pairs are compared."""


@dataclass(frozen=True)
class Relative3DLevel(Level):
    facing: str = "away"
    """Direction that the observer faces: away, towards, left, right, or any (drawn for each sample)."""
    apart: float = 0.12
    """Least horizontal distance of A and B as a share of the picture's longest side, in (0, 0.5]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.facing not in (*FACINGS, "any"):
            raise ValueError(f"facing must be one of {', '.join(FACINGS)}, any; got {self.facing!r}")
        if not 0 < self.apart <= 0.5:
            raise ValueError(f"apart must be in (0, 0.5], got {self.apart}")


class Relative3D(Task[Relative3DLevel]):
    name = "relative_3d"
    summary = "where one point of a scene is for somebody who stands at another one"
    reference = "Spatial-SSRL, arXiv 2510.27606"
    levels = {
        "away": Relative3DLevel(facing="away"),
        "towards": Relative3DLevel(facing="towards"),
        "any": Relative3DLevel(facing="any", apart=0.08),
    }
    default_level = "away"
    kind = "rgbd"

    def grader(self, level: Relative3DLevel) -> Choice:
        return Choice(ANSWERS, {f"{b} {a}": label for label in ANSWERS for a, b in [label.split("-")]})

    def generate(self, item: Item, level: Relative3DLevel, rng: random.Random) -> Sample | Rejection:
        facing = rng.choice(list(FACINGS)) if level.facing == "any" else level.facing
        found = steady_points(item.rgbd, level.side, rng)
        if isinstance(found, Rejection):
            return found
        picture, points = found
        points = points[:USED]
        right, farther = self._clear_pairs(points, picture.size, level)
        pairs: dict[str, list[tuple[int, int]]] = {answer: [] for answer in ANSWERS}
        for a, b in np.argwhere(right != 0).tolist():
            front, side = SIDES[facing](right[a, b], farther[a, b])
            pairs[f"{'front' if front > 0 else 'back'}-{'right' if side > 0 else 'left'}"].append((a, b))
        if not all(pairs.values()):
            return Rejection("ambiguous", "no clear pair of points for one of the answers")
        truth = rng.choice(ANSWERS)
        a, b = rng.choice(pairs[truth])
        places = {label: (int(points[k, 0]), int(points[k, 1])) for label, k in (("A", a), ("B", b))}
        question = (
            "<image>\nTwo points of this scene are marked; a point is at the centre of its mark. Imagine that you stand in "
            f"the scene at point A and face {FACINGS[facing]}. Where is point B then, seen from you? Its height does not "
            f"count. Answer with one of: {', '.join(ANSWERS)}."
        )
        params = {
            "facing": facing,
            "points": {label: list(place) for label, place in places.items()},
            "depths": {"A": round(float(points[a, 2]), 3), "B": round(float(points[b, 2]), 3)},
        }
        return Sample(question, (marked(picture, places),), truth, params)

    @staticmethod
    def _clear_pairs(
        points: np.ndarray, size: tuple[int, int], level: Relative3DLevel
    ) -> tuple[np.ndarray, np.ndarray]:
        """For each pair (a, b): 1 if b is clearly right of a, -1 if left; and 1 if b is clearly farther, -1 if nearer.

        Both are 0 if the pair is not clear.
        """
        longest = max(size)
        bearing = (points[:, 0] - size[0] / 2) / longest  # tangent of the angle to the camera's axis
        depth = points[:, 2]
        x = bearing * depth
        across, along = x[None, :] - x[:, None], depth[None, :] - depth[:, None]
        # The same relative to the line of sight from the camera to a.
        norm = np.sqrt(1 + bearing**2)[:, None]
        across_sight = (across - bearing[:, None] * along) / norm
        along_sight = (along + bearing[:, None] * across) / norm
        moved = points[None, :, 0] - points[:, None, 0]
        right, farther = np.sign(moved), np.sign(along)
        clear = np.abs(moved) >= max(level.apart * longest, 2.5 * mark_radius(longest))
        clear &= np.abs(along) >= MIN_METRES
        clear &= np.maximum(depth[None, :], depth[:, None]) >= MIN_RATIO * np.minimum(depth[None, :], depth[:, None])
        slope = math.tan(math.radians(MIN_DEGREES))
        for sideways, ahead in ((across, along), (across_sight, along_sight)):
            clear &= (np.sign(sideways) == right) & (np.sign(ahead) == farther)
            clear &= (np.abs(sideways) >= slope * np.abs(ahead)) & (np.abs(ahead) >= slope * np.abs(sideways))
        return np.where(clear, right, 0).astype(int), np.where(clear, farther, 0).astype(int)
