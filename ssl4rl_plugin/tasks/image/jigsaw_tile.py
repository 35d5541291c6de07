"""Jigsaw tile: where does one tile of the shuffled picture belong?

Corrupted: the photo is cut into a grid of tiles, which are shown as one picture of the grid in a uniformly random order.
Asked: the place where one tile, given by number, belongs, by letter. Exact; a blind guesser gets 1/K of K tiles. It is
the jigsaw with a single answer: easier to guess than an order, but as hard to be certain of.

All orders are equally likely, including the unshuffled one, and so is the tile asked for. So each place is equally likely
for each tile, also the place where the tile is shown. A margin is cut off around every tile, so that seams cannot be
matched pixel by pixel. Refused: `blank_tile`, `similar_tiles` (any two tiles are hard to tell apart, asked for or not),
and `too_small` pictures.

From the single-tile questions of Jigsaw-R1 (arXiv 2505.23590).
"""

from __future__ import annotations

import random

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.tiles import GridLevel, composed, grid_tiles
from ssl4rl_plugin.tasks.image.views import place_names


class JigsawTile(Task[GridLevel]):
    name = "jigsaw_tile"
    summary = "where one tile of the shuffled picture belongs"
    reference = "Jigsaw-R1, arXiv 2505.23590"
    levels = {f"{n}x{n}": GridLevel(rows=n, cols=n) for n in (2, 3, 4)}
    default_level = "2x2"

    def grader(self, level: GridLevel) -> Choice:
        return Choice(level.letters)

    def generate(self, item: Item, level: GridLevel, rng: random.Random) -> Sample | Rejection:
        tiles = grid_tiles(item.image, level, rng)
        if isinstance(tiles, Rejection):
            return tiles
        shown = list(range(len(tiles)))  # shown[k] is the place that the (k+1)-th shown tile comes from
        rng.shuffle(shown)
        asked = rng.randrange(len(tiles))
        names = place_names(level.rows, level.cols)
        question = (
            f"<image>\nThe tiles of a picture, {level.rows} rows by {level.cols} columns, were shuffled and are shown as a "
            f"grid. They are numbered from 1 to {len(tiles)} in reading order. Put together rightly, the picture has "
            f"these places: {level.places}. At which of them does tile {asked + 1}, now shown at {names[asked]}, belong? "
            "Answer with the letter of the place."
        )
        picture = composed([tiles[place] for place in shown], level.cols, level.side)
        params = {"shown": [place + 1 for place in shown], "tile": asked + 1}
        return Sample(question, (picture,), level.letters[shown[asked]], params)
