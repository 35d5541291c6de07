"""Jigsaw: in which order do the shuffled tiles make the picture?

Corrupted: the photo is cut into a grid of tiles, which are shown in a uniformly random order, as several images or as
one composed image. Asked: the order, in the convention of the package (`ssl4rl_plugin.grading.Permutation`): entry p
of the list is the number of the shown tile that belongs at place p, in reading order. The prompt explains this with an
example for which the opposite reading would give another list (with two tiles both readings agree). Graded by correct
places and correct neighbours; a blind guesser solves 1 in K! of K tiles.

All K! orders are equally likely, including the unshuffled one: without it a 2x1 puzzle would have only one answer, and
some constant answers would beat others. A margin is cut off around every tile, so that seams cannot be matched pixel by
pixel. Refused: `blank_tile`, and `similar_tiles`, if two tiles are hard to tell apart, so that the answer is not unique.

From Noroozi & Favaro, arXiv 1603.09246; as a reward in SSL4RL (arXiv 2510.16416) and Jigsaw-R1 (arXiv 2505.23590).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Permutation
from ssl4rl_plugin.tasks.image.tiles import GridLevel, composed, cut_tiles, unclear
from ssl4rl_plugin.tasks.image.views import place_names


@dataclass(frozen=True)
class JigsawLevel(GridLevel):
    composed: bool = False
    """Show one picture of the shuffled grid instead of one picture for each tile."""


class Jigsaw(Task[JigsawLevel]):
    name = "jigsaw"
    summary = "in which order the shuffled tiles make the picture"
    reference = "Noroozi & Favaro, arXiv 1603.09246; SSL4RL, arXiv 2510.16416"
    levels = {
        f"{rows}x{cols}{'_composed' if composed else ''}": JigsawLevel(rows=rows, cols=cols, composed=composed)
        for rows, cols in ((2, 1), (2, 2), (3, 3), (4, 4))
        for composed in (False, True)
    }
    default_level = "2x2"

    def grader(self, level: JigsawLevel) -> Permutation:
        return Permutation(level.rows, level.cols)

    def generate(self, item: Item, level: JigsawLevel, rng: random.Random) -> Sample | Rejection:
        originals = cut_tiles(item.image, level.rows, level.cols, level.side, level.margin, rng)
        if (refused := unclear(originals)) is not None:
            return refused

        shown = list(range(len(originals)))  # shown[k] is the place that the (k+1)-th shown tile comes from
        rng.shuffle(shown)
        truth = [shown.index(place) + 1 for place in range(len(shown))]
        tiles = [originals[place] for place in shown]
        images = (composed(tiles, level.cols, level.side),) if level.composed else tuple(tiles)
        return Sample(self._question(level), images, truth, {"shown": [place + 1 for place in shown]})

    @staticmethod
    def _question(level: JigsawLevel) -> str:
        count = level.rows * level.cols
        places = place_names(level.rows, level.cols)
        # A three-cycle distinguishes the two readings of a permutation. With two tiles both readings agree.
        example = [2, 1] if count == 2 else [2, 3, 1, *range(4, count + 1)]
        worked = "; ".join(f"tile {tile} belongs at {place}" for tile, place in zip(example, places, strict=True))
        if level.composed:
            shown = (
                f"<image>\nThe tiles of a picture, {level.rows} rows by {level.cols} columns, were shuffled. They are "
                f"shown as a grid and numbered in reading order: tile 1 is shown at {places[0]}, tile {count} at "
                f"{places[-1]}."
            )
        else:
            numbered = " ".join(f"Tile {k}: <image>" for k in range(1, count + 1))
            shown = f"{numbered}\nThese are the shuffled tiles of a picture, {level.rows} rows by {level.cols} columns."
        return (
            f"{shown} Put the picture together again. The places are, in reading order: {', '.join(places)}. Answer with "
            f"{count} tile numbers separated by commas: for each place in that order, the number of the tile that "
            f"belongs there. For example, {', '.join(map(str, example))} would mean: {worked}."
        )
