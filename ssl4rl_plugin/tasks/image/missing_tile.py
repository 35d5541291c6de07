"""Missing tile: which place of the grid has no tile?

Corrupted: the photo is cut into a grid of tiles, one tile is removed, and the others are shown in a uniformly random
order as separate pictures. Asked: the place of the missing tile, by letter. Exact; a blind guesser gets 1/K of K tiles.

The missing tile and the order of the others are uniform. Nothing shows where a tile belongs, so the answer requires
solving the puzzle. All tiles have the same size, and a margin is cut off around each, so that seams cannot be matched
pixel by pixel. Refused, independent of the missing tile: pictures with a `blank_tile` or with `similar_tiles`, either of
which could be the missing one, and `too_small` pictures.

After the jigsaw of Noroozi & Favaro (arXiv 1603.09246) and its forms in Jigsaw-R1 (arXiv 2505.23590).
"""

from __future__ import annotations

import random

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.tiles import GridLevel, grid_tiles


class MissingTile(Task[GridLevel]):
    name = "missing_tile"
    summary = "which place of the grid has no tile"
    reference = "after Noroozi & Favaro, arXiv 1603.09246; Jigsaw-R1, arXiv 2505.23590"
    levels = {f"{n}x{n}": GridLevel(rows=n, cols=n) for n in (2, 3, 4)}
    default_level = "2x2"

    def grader(self, level: GridLevel) -> Choice:
        return Choice(level.letters)

    def generate(self, item: Item, level: GridLevel, rng: random.Random) -> Sample | Rejection:
        tiles = grid_tiles(item.image, level, rng)
        if isinstance(tiles, Rejection):
            return tiles
        order = list(range(len(tiles)))
        rng.shuffle(order)
        missing = order.pop()
        numbered = " ".join(f"Tile {k}: <image>" for k in range(1, len(tiles)))
        question = (
            f"{numbered}\nA picture was cut into {len(tiles)} tiles, {level.rows} rows by {level.cols} columns. All of "
            f"them but one are shown here, shuffled. The places of the picture are: {level.places}. The tile of which "
            "place is missing? Answer with the letter of the place."
        )
        params = {"shown": [place + 1 for place in order], "missing": missing + 1}
        return Sample(question, tuple(tiles[place] for place in order), level.letters[missing], params)
