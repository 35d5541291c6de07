"""Swapped tiles: which two tiles of the picture were exchanged?

Corrupted: the photo is cut into a grid of tiles, and two of them change places. Asked: the two places, by letter, in any
order. Graded by F1; a blind guesser solves 1 in K (K - 1) / 2 of K tiles.

All pairs are equally likely, neighbours or not. Tiles lose a margin and are separated by white lines, so that seams
cannot be compared pixel by pixel. Refused: pictures in which ANY exchange would be invisible, because of a `blank_tile`
or `similar_tiles`, and `too_small` pictures.

After the jigsaw of Noroozi & Favaro (arXiv 1603.09246); with the box-swap questions of Jigsaw-R1 (arXiv 2505.23590).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import LabelSet
from ssl4rl_plugin.tasks.image.tiles import GridLevel, composed, grid_tiles


@dataclass(frozen=True)
class SwappedTilesLevel(GridLevel):
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows * self.cols < 3:
            raise ValueError("two tiles have only one pair to exchange; at least 3 tiles are needed")


class SwappedTiles(Task[SwappedTilesLevel]):
    name = "swapped_tiles"
    summary = "which two tiles of the picture were exchanged"
    reference = "after Noroozi & Favaro, arXiv 1603.09246; Jigsaw-R1, arXiv 2505.23590"
    levels = {f"{n}x{n}": SwappedTilesLevel(rows=n, cols=n) for n in (2, 3, 4)}
    default_level = "2x2"

    def grader(self, level: SwappedTilesLevel) -> LabelSet:
        return LabelSet(level.letters, 2)

    def generate(self, item: Item, level: SwappedTilesLevel, rng: random.Random) -> Sample | Rejection:
        tiles = grid_tiles(item.image, level, rng)
        if isinstance(tiles, Rejection):
            return tiles
        a, b = sorted(rng.sample(range(len(tiles)), 2))
        tiles[a], tiles[b] = tiles[b], tiles[a]
        question = (
            f"<image>\nA picture was cut into {len(tiles)} tiles, {level.rows} rows by {level.cols} columns, with white "
            f"lines between them. Then two of the tiles were exchanged; all others are in their right places. The places "
            f"are: {level.places}. At which two places are the exchanged tiles shown? Answer with the two letters "
            "separated by a comma, in any order."
        )
        truth = [level.letters[a], level.letters[b]]
        return Sample(question, (composed(tiles, level.cols, level.side),), truth, {"tiles": [a + 1, b + 1]})
