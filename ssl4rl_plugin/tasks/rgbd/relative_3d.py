"""Relative 3-D position: where is one marked point, seen by somebody who stands at another one?

Corrupted: nothing; two points A and B of a picture with depth are marked. Asked: for somebody who stands at A and faces
away from the camera, towards it, or to the left or right as the picture shows it, is B to the front-left, front-right,
back-left or back-right (height does not count)? Exact; a blind guesser gets 1/4.

Facing away from the camera, front is farther from the camera and right is to the right in the picture; the other ways
to face turn that by quarters. What is to the right and what is farther is decided with margins that hold for every
usual reading: B is right of A in the picture, and also in metres; the depths differ by a factor of 1.2 and 0.2 metres;
and the direction from A to B, both in the camera's frame and in that of the line of sight to A, keeps 15 degrees off
the borders between the four answers. Metres need a focal length, which is unknown; for these margins it is taken as
the picture's longest side (a view of 53 degrees), and the answer never depends on it.

Left or right follows from where the two marks are, so who reads the marks alone is right in half of the cases; near or
far needs the scene (of which the lower part is usually nearer).

A picture is used only if it has a pair of points for each of the four answers; then the answer is drawn, and a pair
for it. Refused: `blank`, `too_small` to hold the marks, `no_depth` (known in too few pixels), `flat_depth` (everything
equally far), and `ambiguous` (no clear pair for one of the answers).

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
"""The ways to face, in words of the prompt."""
SIDES = {
    "away": lambda right, farther: (farther, right),
    "towards": lambda right, farther: (-farther, -right),
    "left": lambda right, farther: (-right, farther),
    "right": lambda right, farther: (right, -farther),
}
"""How far B is to the front and to the right of who stands at A and faces so, by the signs of how far it is to the right
in the picture and away from the camera: to face left, one turns so that one's right hand points away."""
MIN_METRES, MIN_RATIO = 0.2, 1.2
MIN_DEGREES = 15
USED = 80
"""Points of which pairs are made; all pairs are compared."""


@dataclass(frozen=True)
class Relative3DLevel(Level):
    facing: str = "away"
    """The way to face: away, towards, left, right, or any (drawn for each sample)."""
    apart: float = 0.12
    """B is at least this share of the picture's longest side to the left or right of A, in (0, 0.5]."""

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
        """For every pair (a, b): +1 where b is clearly right of a or -1 for left, and likewise for farther or nearer.

        Both are 0 for a pair that leaves a doubt.
        """
        longest = max(size)
        bearing = (points[:, 0] - size[0] / 2) / longest  # tangent of the angle to the camera's axis
        depth = points[:, 2]
        x = bearing * depth
        across, along = x[None, :] - x[:, None], depth[None, :] - depth[:, None]
        # The same in the frame of the line of sight from the camera to a: across it, and along it.
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
