"""Flipped tile: which tile of the picture is mirrored?

Corrupted: the photo is cut into a grid of tiles, all in their right places, and one of them is mirrored top-bottom or
left-right. Asked: which one, by the letter of its place. Exact; a blind guesser gets 1/K of K tiles.

The tile is uniform. Refused: `symmetric`, if mirroring would not visibly change EVERY tile, so that refusals favour no
answer and no unchanged tile looks mirrored; `blank_tile`; `similar_tiles`; `too_small` pictures. Tiles lose a margin and
are separated by white lines, so that seams cannot be compared pixel by pixel; that an edge of the photo does not continue
in the next tile remains visible. Mirroring moves whole pixels.

From the flip task of Spatial-SSRL (arXiv 2510.27606).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.data.images import difference
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.flip import flipped
from ssl4rl_plugin.tasks.image.tiles import GridLevel, composed, grid_tiles

SYMMETRIC_BELOW = 0.05
"""Mean absolute difference (range [0, 1]) below which a tile counts as equal to its mirror image."""

WORDS = {
    "top-bottom": "mirrored top-bottom (its top and bottom are exchanged)",
    "left-right": "mirrored left-right (its left and right are exchanged)",
}
"""Change -> its name in prompts."""


@dataclass(frozen=True)
class FlippedTileLevel(GridLevel):
    flip: str = "top-bottom"
    """Direction of mirroring: top-bottom or left-right."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flip not in WORDS:
            raise ValueError(f"flip must be one of {', '.join(WORDS)}; got {self.flip!r}")


class FlippedTile(Task[FlippedTileLevel]):
    name = "flipped_tile"
    summary = "which tile of the picture is mirrored"
    reference = "Spatial-SSRL, arXiv 2510.27606"
    levels = {
        f"{n}x{n}_{flip.replace('-', '_')}": FlippedTileLevel(rows=n, cols=n, flip=flip)
        for n in (2, 3)
        for flip in ("top-bottom", "left-right")
    }
    default_level = "2x2_top_bottom"

    def grader(self, level: FlippedTileLevel) -> Choice:
        return Choice(level.letters)

    def generate(self, item: Item, level: FlippedTileLevel, rng: random.Random) -> Sample | Rejection:
        tiles = grid_tiles(item.image, level, rng)
        if isinstance(tiles, Rejection):
            return tiles
        least = min(difference(tile, flipped(tile, level.flip)) for tile in tiles)
        if least < SYMMETRIC_BELOW:
            return Rejection("symmetric", f"mirroring would change a tile by {least:.3f}")
        target = rng.randrange(len(tiles))
        tiles[target] = flipped(tiles[target], level.flip)
        question = (
            f"<image>\nA picture was cut into {len(tiles)} tiles, {level.rows} rows by {level.cols} columns, with white "
            f"lines between them. All tiles are in their right places, but one is {WORDS[level.flip]}. The tiles are: "
            f"{level.places}. Which one is mirrored? Answer with its letter."
        )
        picture = composed(tiles, level.cols, level.side)
        params = {"flip": level.flip, "tile": target + 1}
        return Sample(question, (picture,), level.letters[target], params, options=tuple(tiles))
