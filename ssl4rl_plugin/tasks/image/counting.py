"""Counting: how many circles, squares or triangles lie on the picture?

Corrupted: shapes are drawn onto the photo at random positions and angles. They do not overlap; each has an outline and a
colour that contrasts with the background. Asked: how many there are of one kind, or of each of three. Graded by the
relative error of each count; a blind guesser gets 1/m right of m possible counts of a kind.

Counts are uniform and independent. The positions for the largest counts are found before the counts are drawn, so that
refusals favour no count. At the levels with `others`, other shapes fill the remaining positions, so that the total number
of shapes is constant. Shapes add edges and colours, and kinds differ in how many, so pixel statistics reveal something
(`cues`). Refused: `too_small`, a picture so narrow that its shapes would have fewer than 9 pixels.

From VideoSSR (arXiv 2511.06281), which counts shapes laid on video frames.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Counts
from ssl4rl_plugin.tasks.image.views import fitted


def _star(corners: int, inner: float) -> list[tuple[float, float]]:
    """Corners (x, y) of a star, alternating between circles of radius 1 and `inner`; the first one points up."""
    return [
        (radius * math.sin(math.pi * k / corners), -radius * math.cos(math.pi * k / corners))
        for k in range(2 * corners)
        for radius in [inner if k % 2 else 1.0]
    ]


OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": [(math.sin(math.pi * k / 24), math.cos(math.pi * k / 24)) for k in range(48)],
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(math.sin(2 * math.pi * k / 3), -math.cos(2 * math.pi * k / 3)) for k in range(3)],
    "star": _star(5, 0.45),
    "cross": [(-0.28, -0.95), (0.28, -0.95), (0.28, -0.28), (0.95, -0.28), (0.95, 0.28), (0.28, 0.28), (0.28, 0.95),
              (-0.28, 0.95), (-0.28, 0.28), (-0.95, 0.28), (-0.95, -0.28), (-0.28, -0.28)],
}  # fmt: skip
"""Corners (x, y) of each shape, inside a circle of radius 1."""
COUNTED = ("circle", "square", "triangle")
"""The kinds that are asked about. The others only fill positions."""
COLOURS = ((228, 26, 28), (255, 221, 0), (30, 120, 255), (40, 190, 60), (255, 127, 0), (230, 60, 220), (0, 220, 220),
           (250, 250, 250), (20, 20, 20))  # fmt: skip
SMALLEST = 9
"""Least diameter of a shape in pixels."""
_FINER = 4  # shapes are drawn this many times larger and then shrunk, for smooth edges


@dataclass(frozen=True)
class CountingLevel(Level):
    kinds: int = 1
    """Number of kinds to count, 1 or 3; with 1, each sample draws the kind."""
    low: int = 1
    """Smallest count of a kind."""
    high: int = 5
    """Largest count of a kind."""
    others: bool = False
    """Fill the remaining positions with other shapes."""
    size: float = 0.85
    """Largest diameter of a shape as a share of its cell, in [0.4, 0.9]; the smallest is 0.7 times this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kinds not in (1, 3) or not 0 <= self.low < self.high or self.kinds * self.high > 20:
            raise ValueError(f"kinds must be 1 or 3, and counts leave at most 20 shapes, got {self}")
        if not 0.4 <= self.size <= 0.9:
            raise ValueError(f"size must be in [0.4, 0.9], got {self.size}")


class Counting(Task[CountingLevel]):
    name = "counting"
    summary = "how many circles, squares and triangles were laid on the picture"
    reference = "VideoSSR, arXiv 2511.06281"
    levels = {
        "one_kind": CountingLevel(),
        "one_kind_among_others": CountingLevel(high=6, others=True),
        "three_kinds": CountingLevel(kinds=3, low=0, high=3),
        "three_kinds_among_others": CountingLevel(kinds=3, low=0, high=3, others=True, size=0.65),
    }
    default_level = "one_kind"
    cues: ClassVar = {
        "border": "the border lines are compared with inner lines, to which every shape adds edges",
        "codec": "every shape adds edges and bytes; how many depends on its kind",
        "sharpness": "every shape adds edges; how many depends on its kind",
        "colour": "every shape adds colour, and a circle covers more of the photo than a star",
    }

    def grader(self, level: CountingLevel) -> Counts:
        names = tuple(f"{kind}s" for kind in COUNTED) if level.kinds == 3 else ()
        return Counts(level.kinds, level.low, level.high, names)

    def generate(self, item: Item, level: CountingLevel, rng: random.Random) -> Sample | Rejection:
        picture = fitted(item.image, level.side).copy()
        # With `others`, leave at least two positions for them.
        places = level.kinds * level.high + (2 if level.others else 0)
        rows = min(range(1, places + 1), key=lambda n: -_cell(picture.size, n, places))
        cols, cell = math.ceil(places / rows), _cell(picture.size, rows, places)
        if cell * level.size * 0.7 < SMALLEST:
            return Rejection("too_small", f"places of {cell:.0f} pixels")
        asked = COUNTED if level.kinds == 3 else (rng.choice(COUNTED),)
        counts = self.grader(level).draw(rng)
        shapes = [kind for kind, count in zip(asked, counts, strict=True) for _ in range(count)]
        if level.others:
            fillers = [kind for kind in OUTLINES if kind not in asked]
            shapes += [rng.choice(fillers) for _ in range(places - len(shapes))]
        used = rng.sample(range(rows * cols), len(shapes))
        drawn = []
        for kind, place in zip(shapes, used, strict=True):
            across = cell * level.size * rng.uniform(0.7, 1.0)
            free_x, free_y = picture.width / cols - across, picture.height / rows - across
            x = place % cols * picture.width / cols + across / 2 + rng.uniform(0, free_x)
            y = place // cols * picture.height / rows + across / 2 + rng.uniform(0, free_y)
            colour = _lay(picture, kind, x, y, across / 2, rng)
            drawn.append({"kind": kind, "x": round(x), "y": round(y), "across": round(across), "colour": list(colour)})
        plurals = [f"{kind}s" for kind in asked]
        if level.kinds == 1:
            others = " Other shapes do not count." if level.others else ""
            wanted = (
                f"How many {plurals[0]} are there?{others} Answer with one number from {level.low} to {level.high}."
            )
        else:
            others = ", perhaps among other shapes that do not count" if level.others else ""
            wanted = (
                f"How many {plurals[0]}, {plurals[1]} and {plurals[2]} are there{others}? Answer with three numbers from "
                f"{level.low} to {level.high}, separated by commas, in this order: {', '.join(plurals)}."
            )
        question = (
            "<image>\nShapes of one colour each, with an outline, were laid on this photo; they do not touch. Count these "
            f"shapes only, and nothing in the photo itself. {wanted}"
        )
        return Sample(question, (picture,), list(counts), {"shapes": drawn})


def _cell(size: tuple[int, int], rows: int, places: int) -> float:
    """The shorter side of a cell, if `rows` rows hold `places` cells."""
    return min(size[0] / math.ceil(places / rows), size[1] / rows)


def _lay(
    picture: Image.Image, kind: str, x: float, y: float, radius: float, rng: random.Random
) -> tuple[int, int, int]:
    """Draw a shape around (x, y) into the picture, in place; return its colour."""
    left, upper = math.floor(x - radius), math.floor(y - radius)
    side = math.ceil(2 * radius) + 1
    below = picture.crop((left, upper, left + side, upper + side))
    red, green, blue = np.asarray(below, np.float32).reshape(-1, 3).mean(axis=0)
    # One of the four colours that contrast most with the background.
    apart = sorted(COLOURS, key=lambda c: -(abs(c[0] - red) + abs(c[1] - green) + abs(c[2] - blue)))
    colour = rng.choice(apart[:4])
    outline = "black" if sum(colour) > 240 else "white"
    # A square turned by more than a few degrees could be taken for another shape.
    turn = math.radians(rng.uniform(-15, 15) if kind in ("square", "cross") else rng.uniform(0, 360))
    cos, sin = math.cos(turn), math.sin(turn)
    large = below.resize((side * _FINER, side * _FINER), Image.Resampling.NEAREST)
    width = max(1.0, radius / 9)
    reach = (radius - width) * _FINER
    centre_x, centre_y = (x - left) * _FINER, (y - upper) * _FINER
    corners = [
        (centre_x + reach * (cos * u - sin * v), centre_y + reach * (sin * u + cos * v)) for u, v in OUTLINES[kind]
    ]
    draw = ImageDraw.Draw(large)
    draw.polygon(corners, fill=colour)
    draw.line([*corners, *corners[:2]], fill=outline, width=round(width * _FINER), joint="curve")
    picture.paste(large.reduce(_FINER), (left, upper))
    return colour
