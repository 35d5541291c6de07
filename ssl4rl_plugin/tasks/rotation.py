"""Rotation: by how many degrees was the picture turned?

Corrupted: a square cut of the photo is rotated counter-clockwise by a uniform multiple of 90, 45 or 30 degrees. Asked:
the angle, either from a pair (upright, rotated) or from the rotated picture alone. Graded by circular distance; a blind
guesser gets 1/4, 1/8 or 1/12 right.

No file property tells: both pictures are squares of the same size, cut inside the circle that every rotation keeps, so
that no border, corner or padding appears; where the angle is not a right one the turn happens at twice the resolution,
so that resampling leaves no blur at some angles and none at others. Refused: `blank` pictures, and `symmetric` ones,
which look the same at two of the possible angles.

From RotNet (Gidaris et al., arXiv 1803.07728); as a reward in SSL4RL (arXiv 2510.16416).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Angle
from ssl4rl_plugin.images import difference
from ssl4rl_plugin.views import is_blank, random_square, resized

SYMMETRIC_BELOW = 0.03
"""Mean absolute difference (range [0, 1]) under which a picture counts as equal to its rotated self."""


@dataclass(frozen=True)
class RotationLevel(Level):
    step: int = 90
    """Possible angles are the multiples of this many degrees; divides 180."""
    pair: bool = True
    """Show the upright picture beside the rotated one."""


class Rotation(Task[RotationLevel]):
    name = "rotation"
    summary = "by how many degrees the picture was rotated"
    reference = "RotNet, arXiv 1803.07728; SSL4RL, arXiv 2510.16416"
    levels = {
        "pair_90": RotationLevel(step=90, pair=True),
        "single_90": RotationLevel(step=90, pair=False),
        "pair_45": RotationLevel(step=45, pair=True),
        "single_45": RotationLevel(step=45, pair=False),
        "pair_30": RotationLevel(step=30, pair=True),
        "single_30": RotationLevel(step=30, pair=False),
    }
    default_level = "pair_90"

    def grader(self, level: RotationLevel) -> Angle:
        return Angle(level.step)

    def generate(self, item: Item, level: RotationLevel, rng: random.Random) -> Sample | Rejection:
        square = random_square(item.image, rng)
        angle = rng.randrange(0, 360, level.step)
        probe = resized(square, (64, 64))
        upright = turned(probe, 0, 32)
        if is_blank(upright):
            return Rejection("blank")
        # A quarter turn keeps the square; other turns keep only the square inside the circle.
        right_angles = level.step % 90 == 0
        for other in range(level.step, 360, level.step):
            seen = probe.rotate(other) if right_angles else turned(probe, other, 32)
            if (apart := difference(probe if right_angles else upright, seen)) < SYMMETRIC_BELOW:
                return Rejection("symmetric", f"differs by {apart:.3f} from itself at {other} degrees")
        if right_angles:
            before = resized(square, (level.side, level.side))
            after = before.rotate(angle)
        else:
            large = resized(square, (math.ceil(level.side * 2 * math.sqrt(2)),) * 2)
            before, after = (resized(turned(large, a, level.side * 2), (level.side,) * 2) for a in (0, angle))
        angles = ", ".join(str(a) for a in range(0, 360, level.step))
        if level.pair:
            question = (
                "<image><image>\nThe second picture shows the first one after a counter-clockwise rotation. By how many "
                f"degrees was it rotated? Answer with one of these numbers: {angles}."
            )
        else:
            question = (
                "<image>\nThis picture was rotated counter-clockwise from its upright position. By how many degrees was "
                f"it rotated? Answer with one of these numbers: {angles}."
            )
        return Sample(question, (before, after) if level.pair else (after,), angle, {"angle": angle})


def turned(square: Image.Image, angle: int, side: int) -> Image.Image:
    """The central `side` x `side` pixels of a square after a counter-clockwise turn by `angle` degrees.

    With the square's side at least sqrt(2) times `side`, no corner of the turned square shows.
    """
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    here, there = side / 2, square.width / 2
    # The affine map from a place in the result to a place in the square, about both centres; y points down.
    matrix = (cos, -sin, there - cos * here + sin * here, sin, cos, there - sin * here - cos * here)
    return square.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
