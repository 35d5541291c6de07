"""Jigsaw pair: on which side of the first tile does the second one belong?

Corrupted: a crop of the photo is divided into 3 x 3 tiles, of which two are shown as separate pictures: the middle one,
and one of its neighbours. Asked: the direction of the neighbour from the middle tile: left or right; left, right, above
or below; or one of all eight directions. Exact; a blind guesser gets 1/2, 1/4 or 1/8.

The direction is uniform, and the first tile does not depend on it. All tiles have the same size and are enlarged by the
same factor; a margin is cut off around every tile, so that seams cannot be matched pixel by pixel (at `eight_apart` the
shown parts of two tiles are 0.4 tiles apart). Refused: pictures in which the middle tile or ANY neighbour that could be
asked for is a `blank_tile`, or any two of them are `similar_tiles`; `too_small` pictures, with too few pixels for a tile.

From context prediction (Doersch et al., arXiv 1505.05192); as a reward in Jigsaw-R1 (arXiv 2505.23590).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.tiles import check_margin, cut_tiles, too_small, unclear

GRID = ("above-left", "above", "above-right", "left", "", "right", "below-left", "below", "below-right")
"""Direction of each of the 3 x 3 tiles from the middle one, in reading order."""
SYNONYMS = {"above": ("top", "upper"), "below": ("bottom", "lower")}
"""Other accepted words for a direction."""

DIRECTIONS = {
    2: ("left", "right"),
    4: ("left", "right", "above", "below"),
    8: tuple(direction for direction in GRID if direction),
}
"""Number of directions to choose from -> the directions, in the order of the prompt."""
SMALLEST_CUT = 0.6
"""Least share of the photo's width and height that the 3 x 3 tiles cover."""


@dataclass(frozen=True)
class JigsawPairLevel(Level):
    side: int = 224
    directions: int = 4
    """Number of directions to choose from: 2, 4 or 8."""
    margin: float = 0.05
    """Share of a tile cut off at each of its sides, in [0, 0.3]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_margin(self.margin)
        if self.directions not in DIRECTIONS:
            raise ValueError(f"directions must be 2, 4 or 8, got {self.directions}")


class JigsawPair(Task[JigsawPairLevel]):
    name = "jigsaw_pair"
    summary = "on which side of the first tile the second one belongs"
    reference = "Doersch et al., arXiv 1505.05192; Jigsaw-R1, arXiv 2505.23590"
    levels = {
        "left_right": JigsawPairLevel(directions=2),
        "four": JigsawPairLevel(directions=4),
        "eight": JigsawPairLevel(directions=8),
        "eight_apart": JigsawPairLevel(directions=8, margin=0.2),
    }
    default_level = "four"

    def grader(self, level: JigsawPairLevel) -> Choice:
        labels = DIRECTIONS[level.directions]
        aliases = {
            label.replace(word, other): label
            for word, others in SYNONYMS.items()
            for label in labels
            if word in label
            for other in others
        }
        return Choice(labels, aliases)

    def generate(self, item: Item, level: JigsawPairLevel, rng: random.Random) -> Sample | Rejection:
        if (refused := too_small(item.image, 3, 3, SMALLEST_CUT)) is not None:
            return refused
        tiles = cut_tiles(item.image, 3, 3, 3 * level.side, level.margin, rng, SMALLEST_CUT)
        labels = DIRECTIONS[level.directions]
        neighbours = [tiles[GRID.index(label)] for label in labels]
        first = tiles[GRID.index("")]
        if (refused := unclear([first, *neighbours])) is not None:
            return refused
        target = rng.randrange(len(labels))
        question = (
            "First tile: <image> Second tile: <image>\nThese are two neighbouring tiles of one picture that was cut into "
            "a grid; neither was turned. Where does the second tile lie in the picture, seen from the first one? Answer "
            f"with one of: {', '.join(labels)}."
        )
        shown = (first, neighbours[target])
        return Sample(question, shown, labels[target], {"direction": labels[target]}, options=tuple(neighbours))
