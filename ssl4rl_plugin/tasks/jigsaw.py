"""Jigsaw: in which order do the shuffled tiles make the picture?

Corrupted: the photo is cut into a grid of tiles, which are shown in a uniformly random order, as several images or as
one composed image. Asked: the order, under the package's one convention (`ssl4rl_plugin.grading.Permutation`): entry p
of the list is the number of the shown tile that belongs at place p, places in reading order. The prompt says so and
works an example in which the opposite reading would give another list (with two tiles both readings agree). Graded by
the right places and the right neighbours; a blind guesser solves 1 in K! of K tiles.

All K! orders are equally likely, the unshuffled one too: without it a 2x1 puzzle would have one answer, and some
constant answers would beat others. A margin is cut off around every tile, so that seams cannot be matched pixel by
pixel. Refused: `blank_tile`, and `similar_tiles`, where two tiles are hard to tell apart and so the answer not unique.

From Noroozi & Favaro, arXiv 1603.09246; as a reward in SSL4RL (arXiv 2510.16416) and Jigsaw-R1 (arXiv 2505.23590).
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Permutation
from ssl4rl_plugin.images import difference
from ssl4rl_plugin.views import grid_boxes, is_blank, place_names, random_box, resized

SIMILAR_BELOW = 0.03
"""Mean absolute difference (range [0, 1]) under which two tiles count as interchangeable."""


@dataclass(frozen=True)
class JigsawLevel(Level):
    rows: int = 2
    """Rows of the grid."""
    cols: int = 2
    """Columns of the grid."""
    composed: bool = False
    """Show one picture of the shuffled grid instead of one picture per tile."""
    margin: float = 0.05
    """Share of a tile cut off at each of its sides, in [0, 0.3]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.margin <= 0.3:
            raise ValueError(f"margin must be in [0, 0.3], got {self.margin}")
        Permutation(self.rows, self.cols)  # checks the grid
        if self.side // max(self.rows, self.cols) < 14:
            raise ValueError(f"side {self.side} leaves tiles under 14 pixels")


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
        picture = item.image
        keep = rng.uniform(0.85, 1.0)
        box = random_box(*picture.size, picture.width * keep, picture.height * keep, rng)
        # Tiles are whole pixels and all alike, and the picture keeps its aspect ratio up to 2:1 either way.
        width, height = box[2] - box[0], box[3] - box[1]
        scale = level.side / max(width, height)
        tile_w = max(14, round(max(width * scale, level.side / 2) / level.cols))
        tile_h = max(14, round(max(height * scale, level.side / 2) / level.rows))
        whole = resized(picture.crop(box), (tile_w * level.cols, tile_h * level.rows))
        cut_x, cut_y = round(tile_w * level.margin), round(tile_h * level.margin)
        originals = [
            whole.crop((left + cut_x, upper + cut_y, right - cut_x, lower - cut_y))
            for left, upper, right, lower in grid_boxes(*whole.size, level.rows, level.cols)
        ]
        if any(is_blank(tile) for tile in originals):
            return Rejection("blank_tile")
        closest = min(difference(a, b) for a, b in itertools.combinations(originals, 2))
        if closest < SIMILAR_BELOW:
            return Rejection("similar_tiles", f"two tiles differ by {closest:.3f}")

        shown = list(range(len(originals)))  # shown[k] is the place that the (k+1)-th shown tile comes from
        rng.shuffle(shown)
        truth = [shown.index(place) + 1 for place in range(len(shown))]
        tiles = [originals[place] for place in shown]
        images = (self._composed(tiles, level),) if level.composed else tuple(tiles)
        return Sample(self._question(level), images, truth, {"shown": [place + 1 for place in shown]})

    @staticmethod
    def _composed(tiles: list[Image.Image], level: JigsawLevel) -> Image.Image:
        """One picture of the tiles in shown order, white lines between them."""
        (w, h), gap = tiles[0].size, max(2, level.side // 64)
        canvas = Image.new("RGB", (level.cols * (w + gap) - gap, level.rows * (h + gap) - gap), "white")
        for k, tile in enumerate(tiles):
            canvas.paste(tile, ((k % level.cols) * (w + gap), (k // level.cols) * (h + gap)))
        return canvas

    @staticmethod
    def _question(level: JigsawLevel) -> str:
        count = level.rows * level.cols
        places = place_names(level.rows, level.cols)
        # A three-cycle tells the two readings of a permutation apart; with two tiles there is nothing to tell apart.
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
