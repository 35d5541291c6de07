"""Relative position: where does one cut-out lie, seen from the other?

Corrupted: two squares, A and B, are cut out of different cells of a 2x2 or 3x3 grid over the photo, at the same position
within the cell, and enlarged; the hardest level changes the colours of each separately. Asked: the direction from A to B
in the photo, which is also shown, out of 4 or 8. Exact; a blind guesser gets 1/4 or 1/8.

The direction is uniform; the pair of cells is uniform among those in that direction, exactly in line or on a diagonal of
the grid. Refused: photos in which the cut-out of ANY cell is `blank` or `ambiguous`, so that refusals favour no answer;
`too_small` photos. A cut-out is ambiguous if another position (more than 0.75 of its side away, compared at low
resolution) matches it nearly as well. A photo is also ambiguous if it is so long that a diagonal of the grid is nearer to
a row or column than to 45 degrees.

From context prediction (Doersch et al., arXiv 1505.05192), where the photo is not shown.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.augment import draw_colours, recoloured
from ssl4rl_plugin.tasks.image.views import best_matches_elsewhere, cell_cuts, fitted, is_blank, resized

AMBIGUOUS_BELOW = 0.03
"""Mean absolute difference (range [0, 1]) below which a cut-out also matches another position."""

LONGEST = 2.4
"""Largest ratio of a photo's sides at which the diagonals of the grid are nearer to 45 degrees than to 0 or 90."""

FOUR = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}
"""Direction -> step in rows and columns."""
EIGHT = FOUR | {"above-left": (-1, -1), "above-right": (-1, 1), "below-left": (1, -1), "below-right": (1, 1)}

SYNONYMS = {"above": ("above", "up", "upper", "top"), "below": ("below", "down", "lower", "bottom")}
"""Synonyms of each word of a label."""


@dataclass(frozen=True)
class RelativePositionLevel(Level):
    grid: int = 2
    """Cells per side."""
    diagonals: bool = False
    """Eight directions instead of four."""
    augment: bool = False
    """Change the cut-outs' colours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.grid <= 4:
            raise ValueError(f"grid must be in 2..4, got {self.grid}")


class RelativePosition(Task[RelativePositionLevel]):
    name = "relative_position"
    summary = "in which direction one cut-out lies from another"
    reference = "Doersch et al., arXiv 1505.05192"
    levels = {
        "4_directions": RelativePositionLevel(grid=2),
        "8_directions": RelativePositionLevel(grid=2, diagonals=True),
        "8_directions_3x3": RelativePositionLevel(grid=3, diagonals=True),
        "8_directions_augmented": RelativePositionLevel(grid=3, diagonals=True, augment=True),
    }
    default_level = "4_directions"

    def grader(self, level: RelativePositionLevel) -> Choice:
        labels = tuple(EIGHT if level.diagonals else FOUR)
        aliases: dict[str, str] = {}
        for label in labels:
            first, *rest = label.split("-")
            aliases |= {" ".join((word, *rest)): label for word in SYNONYMS.get(first, ())}
        return Choice(labels, aliases)

    def generate(self, item: Item, level: RelativePositionLevel, rng: random.Random) -> Sample | Rejection:
        photo, grid = item.image, level.grid
        side = round(min(photo.size) / grid * rng.uniform(0.75, 0.95))
        if side < 14:
            return Rejection("too_small", f"a cut-out would have {side} pixels")
        if level.diagonals and max(photo.size) > LONGEST * min(photo.size):
            return Rejection("ambiguous", f"{photo.width} x {photo.height} pixels: diagonals are nearly straight")
        boxes = cell_cuts(photo, grid, side, rng)
        cuts = [photo.crop(box) for box in boxes]
        if any(is_blank(cut) for cut in cuts):
            return Rejection("blank")
        elsewhere = min(best_matches_elsewhere(photo, boxes, away=0.75))
        if elsewhere < AMBIGUOUS_BELOW:
            return Rejection("ambiguous", f"a cut-out differs by {elsewhere:.3f} from another place")
        truth = rng.choice(self.grader(level).labels)
        down, right = EIGHT[truth]
        cells = [(row, col) for row in range(grid) for col in range(grid)]
        pairs = [
            (cells.index((row, col)), cells.index((row + k * down, col + k * right)))
            for row, col in cells
            for k in range(1, grid)
            if (row + k * down, col + k * right) in cells
        ]
        chosen = rng.choice(pairs)
        shown = [resized(cuts[cell], (level.side // 3, level.side // 3)) for cell in chosen]
        params: dict[str, Any] = {"boxes": [list(boxes[cell]) for cell in chosen]}
        if level.augment:
            params["colours"] = [draw_colours(rng, strength=0.4) for _ in shown]
            shown = [recoloured(cut, colours) for cut, colours in zip(shown, params["colours"], strict=True)]
        changed = " with changed colours" if level.augment else ""
        question = (
            f"<image> A: <image> B: <image>\nA and B are enlarged cut-outs of the first picture{changed}. In which "
            "direction does B lie from A in the first picture? Answer with one of: "
            f"{', '.join(self.grader(level).labels)}."
        )
        return Sample(question, (fitted(photo, level.side), *shown), truth, params)
