"""Rotation: by how many degrees was the picture turned?

Corrupted: a square crop of the photo is rotated counter-clockwise by a uniform multiple of 90, 45 or 30 degrees. Asked:
the angle, either from a pair (upright, rotated) or from the rotated picture alone. Graded by circular distance; a blind
guesser gets 1/4, 1/8 or 1/12 right.

Only the content may reveal the angle. Both pictures are squares of the same size, cropped inside the circle that every
rotation keeps, so no border, corner or padding appears, and no picture is enlarged. Quarter turns move whole pixels, and
nothing is resampled after them. For other angles, resampling has a square passband that rotates with the picture, which
would reveal the angle in the spectrum. So the picture is first blurred isotropically by 1.3 pixels of the result; all
angles, including 0, use the same interpolation; nothing is rounded in between; and noise of at most 2 of 255 levels
covers the rest. A test fits a guesser that sees only spectra. Compression artefacts of the source rotate with the
pixels; they belong to the photo. Refused: `blank` pictures, `symmetric` ones, which look the same at two of the possible
angles, and `too_small` ones.

From RotNet (Gidaris et al., arXiv 1803.07728); as a reward in SSL4RL (arXiv 2510.16416).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import difference
from ssl4rl_plugin.grading import Angle
from ssl4rl_plugin.tasks.image.views import is_blank, random_square, resized

SYMMETRIC_BELOW = 0.03
"""Mean absolute difference (range [0, 1]) below which a picture counts as equal to its rotation."""

BLUR = 1.3
"""Standard deviation, in pixels of the result, of the blur before rotations that are not quarter turns."""


@dataclass(frozen=True)
class RotationLevel(Level):
    step: int = 90
    """The possible angles are the multiples of this many degrees; divides 180."""
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
        possible = range(0, 360, level.step)
        angle = rng.choice(possible)
        # A quarter turn keeps the whole square; other rotations keep only the square inside the circle.
        kept = square.width if level.step % 90 == 0 else int(square.width / math.sqrt(2))
        side = min(level.side, kept)
        if side < 28:
            return Rejection("too_small", f"{side} pixels would be left")
        if level.step % 90 == 0:
            small = resized(square, (side, side))
            tiny = resized(small, (32, 32))
            upright, *others = (tiny.rotate(a) for a in possible)
        else:
            tiny_planes = as_planes(resized(square, (64, 64)))
            upright, *others = (as_image(turned(tiny_planes, a, 32, 64 * kept / square.width)) for a in possible)
        if is_blank(upright):
            return Rejection("blank")
        for other, seen in zip(possible[1:], others, strict=True):
            if (apart := difference(upright, seen)) < SYMMETRIC_BELOW:
                return Rejection("symmetric", f"differs by {apart:.3f} from itself at {other} degrees")
        if level.step % 90 == 0:
            before, after = small, small.rotate(angle)
        else:
            from scipy.ndimage import gaussian_filter  # slow to import, and quarter turns do not need it

            soft = gaussian_filter(as_planes(square), (0, BLUR * kept / side, BLUR * kept / side))
            before, after = (as_image(view + noise(view.shape, rng)) for view in
                             (turned(soft, a, side, kept) for a in (0, angle)))  # fmt: skip
        angles = ", ".join(map(str, possible))
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


def as_planes(image: Image.Image) -> np.ndarray:
    """The picture's channels as float32 of shape (3, height, width), so that intermediate results are not rounded."""
    return np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1))


def as_image(planes: np.ndarray) -> Image.Image:
    """An RGB picture of channels of shape (3, height, width). Values outside [0, 255] are clipped."""
    return Image.fromarray(np.clip(np.rint(planes), 0, 255).astype(np.uint8).transpose(1, 2, 0))


def turned(planes: np.ndarray, angle: int, side: int, kept: float) -> np.ndarray:
    """Rotate a square counter-clockwise by `angle` degrees, and resize its central `kept` x `kept` pixels to `side`.

    If the square's side is at least sqrt(2) * `kept`, no corner of the rotated square is visible.
    """
    from scipy.ndimage import affine_transform

    scale = kept / side
    cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    matrix = np.array([[cos, sin], [-sin, cos]])  # from (y, x) in the result to (y, x) in the square; y points down
    here, there = (side - 1) / 2, (planes.shape[1] - 1) / 2
    offset = there - matrix.sum(axis=1) * here
    # Cubic B-splines: the errors of Pillow's bicubic filter are large enough to reveal the angle.
    return np.stack([affine_transform(plane, matrix, offset, (side, side), order=3, mode="mirror") for plane in planes])


def noise(shape: tuple[int, ...], rng: random.Random) -> np.ndarray:
    """Nearly uniform integers from -2 to 2 in an array of the given shape, drawn from `rng`."""
    return (np.frombuffer(rng.randbytes(math.prod(shape)), np.uint8).reshape(shape) % 5).astype(np.float32) - 2
