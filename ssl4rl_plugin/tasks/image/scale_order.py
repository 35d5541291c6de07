"""Scale order: which cut shows most of the scene, which is closest up?

Corrupted: n square crops around one point of the photo, each narrower than the previous one by a fixed factor, are shown
at one size in random order. Asked: their order from the widest to the narrowest view. Graded by Kendall's tau; a blind
guesser gets 1 in n! right, and half of the pairs.

Sharpness must not reveal the order: a crop that is shrunk more looks sharper. So all crops are first shrunk to the same
p x p pixels, where p is at most half the side of the narrowest crop in the photo, with a filter without aliasing. This
removes the effect of their resolution. Then colour is reduced to half the resolution, as in JPEG, since a crop that is
shrunk less would keep more of JPEG's. Last, all are resized to the size shown in the same step. The remaining differences
belong to the question: the variation in a view depends on its width (`cues`).

Refused: `blank` crops; `too_small` photos, for which p would be below 28 pixels; `ambiguous` ones, in which the wider of
two crops could be a part of the narrower one, or hardly differs from it.

Scale as something to predict: after Auto-Encoding Transformations (Zhang et al., arXiv 1901.04596).
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Ordering, letters
from ssl4rl_plugin.tasks.image.views import is_blank, random_square, resized

SHRUNK_BY = 2.0
"""Least ratio of the narrowest crop's side in the photo to p."""
AMBIGUOUS_BELOW = 0.05
"""Mean absolute difference (range [0, 1]) below which a crop counts as a part of another, or as equal to it."""
PROBE_SIDE = 24


@dataclass(frozen=True)
class ScaleOrderLevel(Level):
    side: int = 168
    count: int = 3
    """Pictures to order, 2 to 6."""
    ratio: float = 1.5
    """Width of a crop divided by that of the next narrower one, in [1.1, 4]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.count <= 6 and 1.1 <= self.ratio <= 4):
            raise ValueError(f"count must be in 2..6 and ratio in [1.1, 4], got {self.count}, {self.ratio}")


class ScaleOrder(Task[ScaleOrderLevel]):
    name = "scale_order"
    summary = "in which order cuts around one point show more or less of the scene"
    reference = "after AET, arXiv 1901.04596"
    levels = {
        "three": ScaleOrderLevel(count=3, ratio=1.5),
        "four": ScaleOrderLevel(count=4, ratio=1.35),
        "five": ScaleOrderLevel(count=5, ratio=1.25),
    }
    default_level = "three"
    cues: ClassVar = {
        "sharpness": "a wide view shows more things, so more detail, than its middle",
        "codec": "more detail takes more bytes",
        "colour": "the variation of colours in a view depends on its width",
        "border": "detail includes the border lines",
    }

    def grader(self, level: ScaleOrderLevel) -> Ordering:
        return Ordering(tuple(letters(level.count)))

    def generate(self, item: Item, level: ScaleOrderLevel, rng: random.Random) -> Sample | Rejection:
        widest = random_square(item.image, rng, smallest=0.85)
        sides = [widest.width / level.ratio**k for k in range(level.count)]
        common = min(level.side, int(sides[-1] / SHRUNK_BY))
        if common < 28:
            return Rejection("too_small", f"{common} pixels would be left of each cut")
        middle = widest.width / 2
        # `box` takes fractions of pixels, so all crops have exactly the same centre.
        small = [
            _with_coarse_colour(
                widest.resize(
                    (common, common),
                    Image.Resampling.BICUBIC,
                    box=(middle - side / 2, middle - side / 2, middle + side / 2, middle + side / 2),
                )
            )
            for side in sides
        ]
        if any(is_blank(cut) for cut in small):
            return Rejection("blank")
        for wider, narrower in itertools.pairwise(small):
            # The second is the wrong order: the wider crop compared with the middle of the narrower one.
            apart = min(_apart(wider, narrower), _apart(wider, _middle(narrower, level.ratio)))
            if apart < AMBIGUOUS_BELOW:
                return Rejection("ambiguous", f"differs by {apart:.3f}")
        truth = self.grader(level).draw(rng)  # truth[k] labels the k-th widest cut
        by_label = {label: resized(cut, (level.side, level.side)) for label, cut in zip(truth, small, strict=True)}
        names = self.grader(level).labels
        shown = " ".join(f"{name}: <image>" for name in names)
        question = (
            f"{shown}\nThese are square cuts of one photo around the same point, some wider, some narrower, all shown at "
            "the same size. Order them from the one that shows most of the scene to the one that is closest up. Answer with "
            f"the {level.count} letters separated by commas. For example, {', '.join(names[::-1])} would mean that "
            f"{names[-1]} shows most and {names[0]} is closest up."
        )
        params = {"sides": [round(side, 1) for side in sides], "common": common}
        return Sample(question, tuple(by_label[name] for name in names), list(truth), params)


def _with_coarse_colour(cut: Image.Image) -> Image.Image:
    """The crop with its colour, but not its brightness, at half the resolution.

    JPEG stores colour in this way. A crop that is shrunk by less than 2 would keep a trace of it that wider crops lose.
    """
    brightness, *colours = cut.convert("YCbCr").split()
    half = (max(1, cut.width // 2), max(1, cut.height // 2))
    coarse = (resized(resized(colour, half), cut.size) for colour in colours)
    return Image.merge("YCbCr", (brightness, *coarse)).convert("RGB")


def _middle(cut: Image.Image, ratio: float) -> Image.Image:
    """A thumbnail of the middle of a square crop, `ratio` times narrower."""
    edge = cut.width * (1 - 1 / ratio) / 2
    box = (edge, edge, cut.width - edge, cut.width - edge)
    return cut.resize((PROBE_SIDE, PROBE_SIDE), Image.Resampling.BOX, box=box)


def _apart(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference of two thumbnails, in [0, 1]."""
    one, two = (
        np.asarray(picture.resize((PROBE_SIDE, PROBE_SIDE), Image.Resampling.BOX), np.float32) for picture in (a, b)
    )
    return float(np.abs(one - two).mean()) / 255
