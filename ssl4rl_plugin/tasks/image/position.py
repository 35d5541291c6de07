"""Position: from which part of the picture was the cut-out taken?

Corrupted: a square is cut out of one cell of a 2x2 or 3x3 grid over the photo, wholly inside the cell, and enlarged to
a fixed size; optionally its colours are changed. Asked: which cell, by name. Exact; a blind guesser gets 1/4 or 1/9.

The cell is uniform, and the cut-out's size does not depend on it. Refused: pictures in which the cut-out of ANY cell is
`too_small`, `blank` or `ambiguous`, so that refusals favour no answer. A cut-out is ambiguous if, compared at low
resolution, it matches a position in another cell nearly as well.

From context prediction (Doersch et al., arXiv 1505.05192); as a reward in SSL4RL (arXiv 2510.16416).
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import PixelBox
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.augment import draw_colours, recoloured
from ssl4rl_plugin.tasks.image.views import BLANK_CONTRAST, cell_cuts, fitted, place_names, resized, slid_over

AMBIGUOUS_BELOW = 0.04
"""Mean absolute difference (range [0, 1]) below which the cut-out also matches another cell."""


@dataclass(frozen=True)
class PositionLevel(Level):
    grid: int = 2
    """Cells per side."""
    smallest: float = 0.6
    """Least side of the cut-out as a share of the cell's short side, in (0, 0.9]."""
    augment: bool = False
    """Change the cut-out's colours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.grid <= 5 and 0 < self.smallest <= 0.9):
            raise ValueError(f"grid must be in 2..5 and smallest in (0, 0.9], got {self.grid}, {self.smallest}")


SYNONYMS = {"top": ("top", "upper"), "bottom": ("bottom", "lower")} | dict.fromkeys(
    ("middle", "center"), ("center", "centre", "middle")
)
"""Synonyms of each word of a label."""


class Position(Task[PositionLevel]):
    name = "position"
    summary = "which part of the picture the cut-out was taken from"
    reference = "Doersch et al., arXiv 1505.05192; SSL4RL, arXiv 2510.16416"
    levels = {
        "quadrants": PositionLevel(grid=2),
        "quadrants_augmented": PositionLevel(grid=2, smallest=0.4, augment=True),
        "3x3": PositionLevel(grid=3),
        "3x3_augmented": PositionLevel(grid=3, smallest=0.5, augment=True),
    }
    default_level = "quadrants"

    def grader(self, level: PositionLevel) -> Choice:
        labels = place_names(level.grid, level.grid)
        aliases = {
            " ".join(words): label
            for label in labels
            for words in itertools.product(*(SYNONYMS.get(word, (word,)) for word in label.split("-")))
        }
        return Choice(labels, aliases)

    def generate(self, item: Item, level: PositionLevel, rng: random.Random) -> Sample | Rejection:
        picture = item.image
        side = round(min(picture.size) / level.grid * rng.uniform(level.smallest, 0.9))
        if side < 14:
            return Rejection("too_small", f"the cut-out would have {side} pixels")
        boxes = cell_cuts(picture, level.grid, side, rng)
        gray, scale = np.asarray(item.little.convert("L")), item.little.width / picture.width
        for left, upper, right, lower in (tuple(round(edge * scale) for edge in box) for box in boxes):
            if gray[upper:lower, left:right].std() / 255 < BLANK_CONTRAST:
                return Rejection("blank")
        elsewhere = min(self._best_matches_in_other_cells(item, boxes, level.grid))
        if elsewhere < AMBIGUOUS_BELOW:
            return Rejection("ambiguous", f"a cut-out differs by {elsewhere:.3f} from a place in another cell")
        cell = rng.randrange(level.grid**2)
        box = boxes[cell]
        shown = resized(picture.crop(box), (level.side // 2, level.side // 2))
        params: dict[str, Any] = {"box": list(box)}
        if level.augment:
            params["colours"] = draw_colours(rng, strength=0.4)
            shown = recoloured(shown, params["colours"])
        places = place_names(level.grid, level.grid)
        question = (
            "<image><image>\nThe second picture is an enlarged cut-out of the first one. In which of the "
            f"{len(places)} equal parts of the first picture does it lie? Answer with one of: {', '.join(places)}."
        )
        return Sample(question, (fitted(picture, level.side), shown), places[cell], params)

    @staticmethod
    def _best_matches_in_other_cells(item: Item, boxes: list[PixelBox], grid: int) -> list[float]:
        """For the cut-out of each cell, the smallest mean absolute difference, in [0, 1], to a window in another cell.

        A window belongs to the cell of its centre.
        """
        maps, y, x = slid_over(item.image, boxes, item.little)
        row, col = (np.minimum((centres * grid).astype(int), grid - 1) for centres in (y, x))
        cell_of = row[:, None] * grid + col[None, :]
        return [float(apart[cell_of != cell].min(initial=1.0)) for cell, apart in enumerate(maps)]
