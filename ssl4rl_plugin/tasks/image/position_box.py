"""Position box: where exactly in the picture does the cut-out lie?

Corrupted: a part of the photo, with the photo's aspect ratio, is cut out and enlarged; the hardest level changes its
colours. Asked: its box in thousandths of the picture's width and height. Graded by the intersection over union; at least
0.75 counts as correct. The grader integrates what the best constant box gets: a few per cent.

The grader draws the box: its side is uniform in the level's range, and its position is uniform given the side. Refusals
depend on neither. They test cut-outs of the smallest side at positions all over the photo, and refuse the photo if any of
these is `blank` or `ambiguous`: another position (more than half its width or height away, compared at low resolution)
matches it nearly as well. Also refused: `too_small` photos. A smaller cut-out has coarser detail, which reveals roughly
the size of the box but nothing about its position.

After context prediction (Doersch et al., arXiv 1505.05192), with the answer of visual grounding.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Box
from ssl4rl_plugin.tasks.image.augment import draw_colours, recoloured
from ssl4rl_plugin.tasks.image.views import best_matches_elsewhere, fitted, is_blank

AMBIGUOUS_BELOW = 0.03
"""Mean absolute difference (range [0, 1]) below which a cut-out also matches another position."""


@dataclass(frozen=True)
class PositionBoxLevel(Level):
    smallest: float = 0.45
    """Least side of the cut-out as a share of the picture's, in (0, 1)."""
    largest: float = 0.6
    """Largest side of the cut-out as a share of the picture's, in (0, 1)."""
    augment: bool = False
    """Change the cut-out's colours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Box(self.smallest, self.largest)  # checks the range


class PositionBox(Task[PositionBoxLevel]):
    name = "position_box"
    summary = "in which box of the picture the cut-out lies"
    reference = "after Doersch et al., arXiv 1505.05192"
    levels = {
        "large": PositionBoxLevel(smallest=0.45, largest=0.6),
        "medium": PositionBoxLevel(smallest=0.35, largest=0.45),
        "small": PositionBoxLevel(smallest=0.25, largest=0.35),
        "small_augmented": PositionBoxLevel(smallest=0.25, largest=0.35, augment=True),
    }
    default_level = "large"

    def grader(self, level: PositionBoxLevel) -> Box:
        return Box(level.smallest, level.largest)

    def generate(self, item: Item, level: PositionBoxLevel, rng: random.Random) -> Sample | Rejection:
        photo = item.image
        width, height = round(photo.width * level.smallest), round(photo.height * level.smallest)
        if min(width, height) < 14:
            return Rejection("too_small", f"a cut-out would have {width} x {height} pixels")
        places = math.ceil(1 / level.smallest)  # positions along each side, so that they cover the photo
        lefts, uppers = (
            [round(k * (whole - part) / (places - 1)) for k in range(places)]
            for whole, part in ((photo.width, width), (photo.height, height))
        )
        tried = [(left, upper, left + width, upper + height) for upper in uppers for left in lefts]
        if any(is_blank(photo.crop(box)) for box in tried):
            return Rejection("blank")
        elsewhere = min(best_matches_elsewhere(photo, tried))
        if elsewhere < AMBIGUOUS_BELOW:
            return Rejection("ambiguous", f"a cut-out differs by {elsewhere:.3f} from another place")
        truth = self.grader(level).draw(rng)
        x1, y1, x2, y2 = (edge / 1000 * whole for edge, whole in zip(truth, photo.size * 2, strict=True))
        whole = fitted(photo, level.side)
        shape = max(1, whole.width // 2), max(1, whole.height // 2)
        # Crop the exact box, not the nearest whole pixels.
        shown = photo.resize(shape, Image.Resampling.BICUBIC, (x1, y1, x2, y2), reducing_gap=3.0)
        params: dict[str, Any] = {"box": [round(edge, 2) for edge in (x1, y1, x2, y2)]}
        if level.augment:
            params["colours"] = draw_colours(rng, strength=0.4)
            shown = recoloured(shown, params["colours"])
        question = (
            "<image><image>\nThe second picture is an enlarged cut-out of the first one, of the same shape. Where in the "
            "first picture does it lie? Answer with the box [x1, y1, x2, y2] of its left, top, right and bottom edges in "
            "the first picture, as whole numbers from 0 to 1000: x in thousandths of the first picture's width counted "
            "from the left, y in thousandths of its height counted from the top."
        )
        return Sample(question, (whole, shown), list(truth), params)
