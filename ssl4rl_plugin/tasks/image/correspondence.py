"""Correspondence: which marked point of the second picture is the one marked in the first?

Corrupted: the second picture shows about the same part of the photo as the first, rotated by up to 45 degrees, scaled and
sheared (harder levels: in perspective, and with changed colours). Points are marked in it with letters; one of them is
also marked in the first picture. Asked: which one. Exact; a blind guesser gets 1/n of n points.

The truth is uniform among the points, and the positions of the points reveal nothing: the first picture is framed so that
the true point lies at a position drawn beforehand, and only points are used for which this frame is inside the photo.
Both pictures use the same interpolation and show nothing beyond the photo. Points lie apart, have texture around them,
and look different from each other. Refused, independent of the truth: `too_small` photos, and `few_points`, if there are
not enough such points.

Dense correspondence under known warps as supervision: Melekhov et al., DGC-Net, arXiv 1810.08393.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice, letters
from ssl4rl_plugin.tasks.image.augment import draw_colours, recoloured
from ssl4rl_plugin.tasks.image.views import resized, square_at

PROBE_SIDE = 112
"""Side in pixels of the small photo on which the surroundings of points are compared."""
RADIUS = 4
"""Half the side of a point's surroundings, in pixels of the small photo."""
TEXTURE_FROM = 0.05
"""Least standard deviation of the luma (range [0, 0.5]) of a point's surroundings."""
DIFFERENT_FROM = 0.1
"""Least mean absolute difference (range [0, 1]) of two points' surroundings."""
SHOWN = 0.5
"""Approximate side of both pictures as a share of the photo's short side."""
MARGIN = 0.1
"""Least distance of points from the second picture's edges as a share of its side: room for ring and letter."""


@dataclass(frozen=True)
class CorrespondenceLevel(Level):
    side: int = 280
    points: int = 4
    """How many points are marked in the second picture."""
    perspective: bool = False
    """Show the second picture in perspective."""
    augment: bool = False
    """Change the second picture's colours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.points <= 10:
            raise ValueError(f"points must be in 2..10, got {self.points}")


class Correspondence(Task[CorrespondenceLevel]):
    name = "correspondence"
    summary = "which point of a turned or distorted picture is the one marked in the first"
    reference = "after DGC-Net, arXiv 1810.08393"
    levels = {
        "affine_4": CorrespondenceLevel(points=4),
        "perspective_6": CorrespondenceLevel(points=6, perspective=True),
        "perspective_8": CorrespondenceLevel(points=8, perspective=True),
        "perspective_8_augmented": CorrespondenceLevel(points=8, perspective=True, augment=True),
    }
    default_level = "affine_4"

    def grader(self, level: CorrespondenceLevel) -> Choice:
        return Choice(tuple(letters(level.points)))

    def generate(self, item: Item, level: CorrespondenceLevel, rng: random.Random) -> Sample | Rejection:
        side, whole = level.side, round(level.side / SHOWN)
        if min(item.image.size) < 56:
            return Rejection("too_small", f"{item.image.width} x {item.image.height} pixels")
        photo = square_at(item.image, whole, rng)  # a pixel of it is about one of either picture
        at = rng.uniform(0.35, 0.65) * side, rng.uniform(0.35, 0.65) * side  # where the truth lies in the first picture
        warp = draw_warp(side, whole, level.perspective, rng)
        points = self._points(photo, warp, at, level, rng)
        if points is None:
            return Rejection("few_points")
        names = letters(level.points)
        true = rng.randrange(level.points)
        x, y = applied(warp, *points[true])
        frame = np.array([[1, 0, x - at[0]], [0, 1, y - at[1]], [0, 0, 1]])
        first, second = (warped(photo, matrix, side) for matrix in (frame, warp))
        params: dict[str, Any] = {
            "points": [[round(x, 1), round(y, 1)] for x, y in points],
            "at": [round(x, 1) for x in at],
        }
        if level.augment:
            params["colours"] = draw_colours(rng, strength=0.4)
            second = recoloured(second, params["colours"])
        mark(first, at)
        for name, point in zip(names, points, strict=True):
            mark(second, point, name)
        question = (
            "<image><image>\nThe second picture shows a part of the same scene as the first one, turned and distorted"
            f"{' and with changed colours' if level.augment else ''}. A ring marks a point of the first picture; rings "
            f"with letters mark {len(names)} points of the second one. Which of these is the same point of the scene? "
            f"Answer with one of: {', '.join(names)}."
        )
        return Sample(question, (first, second), names[true], params)

    @staticmethod
    def _points(
        photo: Image.Image, warp: np.ndarray, at: tuple[float, float], level: CorrespondenceLevel, rng: random.Random
    ) -> list[tuple[float, float]] | None:
        """Points of the second picture, in its pixels, each of which may be the truth; None if there are too few."""
        side, scale = level.side, PROBE_SIDE / photo.width
        small = np.asarray(resized(photo, (PROBE_SIDE, PROBE_SIDE)), np.float32) / 255
        least = side * min(0.25, 0.5 / math.sqrt(level.points))
        points: list[tuple[float, float]] = []
        seen: list[np.ndarray] = []
        for _ in range(40 * level.points):
            u, v = (rng.uniform(MARGIN, 1 - MARGIN) * side for _ in range(2))
            x, y = applied(warp, u, v)
            # The first picture, framed around this point, must lie inside the photo.
            if not all(z - a >= 0 and z - a + side <= photo.width for z, a in zip((x, y), at, strict=True)):
                continue
            if any(math.dist((u, v), other) < least for other in points):
                continue
            col, row = round(x * scale), round(y * scale)
            around = small[row - RADIUS : row + RADIUS + 1, col - RADIUS : col + RADIUS + 1]
            if around.mean(axis=2).std() < TEXTURE_FROM:
                continue
            if any(np.abs(around - other).mean() < DIFFERENT_FROM for other in seen):
                continue
            points.append((u, v))
            seen.append(around)
            if len(points) == level.points:
                rng.shuffle(points)
                return points
        return None


def draw_warp(side: int, whole: int, perspective: bool, rng: random.Random) -> np.ndarray:
    """A matrix (3, 3) from homogeneous pixels of the second picture to those of the photo, a square of `whole` pixels.

    The picture's centre is near the photo's. Draws are repeated with decreasing strength until all four corners lie inside
    the photo.
    """
    for attempt in range(50):
        mild = 0.96**attempt
        angle, zoom = math.radians(45) * rng.uniform(-mild, mild), 1.25 ** rng.uniform(-mild, mild)
        shear, tilt_x, tilt_y = (rng.uniform(-mild, mild) for _ in range(3))
        dx, dy = (0.08 * side * rng.uniform(-mild, mild) for _ in range(2))
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        middle = np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 1]])
        tilt = np.array([[1, 0, 0], [0, 1, 0], [0.6 * tilt_x / side, 0.6 * tilt_y / side, 1]])
        turn = np.array([[cos, -sin, whole / 2 + dx], [sin, cos, whole / 2 + dy], [0, 0, 1]])
        sheared = np.array([[1, 0.2 * shear, 0], [0, 1, 0], [0, 0, 1]])
        warp: np.ndarray = turn @ sheared @ (tilt if perspective else np.eye(3)) @ middle
        corners = [applied(warp, x, y) for x in (0, side) for y in (0, side)]
        if all(1 <= z <= whole - 1 for corner in corners for z in corner):
            return warp
    return np.array([[1, 0, (whole - side) / 2], [0, 1, (whole - side) / 2], [0, 0, 1]])  # practically never


def applied(warp: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """The point that a homogeneous matrix maps (x, y) to."""
    a, b, c = (float(z) for z in warp @ np.array([x, y, 1.0]))
    return a / c, b / c


def warped(photo: Image.Image, warp: np.ndarray, side: int) -> Image.Image:
    """The square picture whose pixels the matrix maps to the photo's."""
    coefficients = (warp / warp[2, 2]).ravel()[:8].tolist()
    return photo.transform((side, side), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)


def mark(picture: Image.Image, point: tuple[float, float], name: str = "") -> None:
    """Draw a ring around a point and a letter beside it, readable on any background."""
    x, y = map(round, point)
    side = picture.width
    radius, line = max(3, side // 48), max(1, side // 224)
    draw = ImageDraw.Draw(picture)
    draw.ellipse(
        [x - radius - line, y - radius - line, x + radius + line, y + radius + line], outline="black", width=line
    )
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline="yellow", width=line)
    if name:
        font = ImageFont.load_default(max(10, side // 18))
        anchor, away = ("lm", radius + 3 * line) if x < side / 2 else ("rm", -radius - 3 * line)
        draw.text((x + away, y), name, "yellow", font, anchor, stroke_width=max(1, line), stroke_fill="black")
