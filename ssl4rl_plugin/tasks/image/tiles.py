"""Grids of tiles for the jigsaw family: cut them out of a photo, check them, and compose them into one picture."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ssl4rl_plugin.core import Level, Rejection
from ssl4rl_plugin.data.images import least_difference
from ssl4rl_plugin.grading import letters
from ssl4rl_plugin.tasks.image.views import PROBE_SIDE, grid_boxes, is_blank, place_names, random_box, resized

SIMILAR_BELOW = 0.03
"""Mean absolute difference (range [0, 1]) below which two tiles count as interchangeable."""
SMALLEST_TILE = 14
"""Least side of a tile in pixels, both in the photo and resized, before its margins are cut off."""
SMALLEST_CUT = 0.85
"""Least share of the photo's width and height that a grid covers."""


@dataclass(frozen=True)
class GridLevel(Level):
    """Base of the levels of all tasks on one grid of tiles."""

    rows: int = 2
    """Rows of the grid."""
    cols: int = 2
    """Columns of the grid."""
    margin: float = 0.05
    """Share of a tile cut off at each of its sides, in [0, 0.3]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_margin(self.margin)
        if self.rows < 1 or self.cols < 1 or not 2 <= self.rows * self.cols <= 26:
            raise ValueError(f"a grid has between 2 and 26 tiles, got {self.rows} x {self.cols}")
        if self.side // max(self.rows, self.cols) < SMALLEST_TILE:
            raise ValueError(f"side {self.side} leaves tiles under {SMALLEST_TILE} pixels")

    @property
    def letters(self) -> tuple[str, ...]:
        """The labels of the places, in reading order."""
        return tuple(letters(self.rows * self.cols))

    @property
    def places(self) -> str:
        """The labels with their meaning, for prompts: `A top-left, B top-right, ...`."""
        names = zip(self.letters, place_names(self.rows, self.cols), strict=True)
        return ", ".join(f"{letter} {name}" for letter, name in names)


def check_margin(margin: float) -> None:
    """Raise ValueError unless `margin` (share of a tile cut off at each side) is in [0, 0.3]."""
    if not 0 <= margin <= 0.3:
        raise ValueError(f"margin must be in [0, 0.3], got {margin}")


def cut_tiles(
    picture: Image.Image,
    rows: int,
    cols: int,
    side: int,
    margin: float,
    rng: random.Random,
    smallest: float = SMALLEST_CUT,
) -> list[Image.Image]:
    """Tiles of equal size, in reading order, of a crop of the picture at a uniform position.

    Args:
        picture: RGB.
        rows: rows of the grid.
        cols: columns of the grid.
        side: pixels along the longest side of the whole grid, before margins are cut off.
        margin: share of a tile cut off at each of its sides, so that seams cannot be matched pixel by pixel.
        rng: draws the crop.
        smallest: least share of the picture's width and height in the crop.
    """
    keep = rng.uniform(smallest, 1.0)
    box = random_box(*picture.size, picture.width * keep, picture.height * keep, rng)
    # All tiles have the same whole number of pixels. The aspect ratio is kept up to 2:1 and 1:2.
    width, height = box[2] - box[0], box[3] - box[1]
    scale = side / max(width, height)
    tile_w = max(SMALLEST_TILE, round(max(width * scale, side / 2) / cols))
    tile_h = max(SMALLEST_TILE, round(max(height * scale, side / 2) / rows))
    whole = resized(picture.crop(box), (tile_w * cols, tile_h * rows))
    cut_x, cut_y = round(tile_w * margin), round(tile_h * margin)
    return [
        whole.crop((left + cut_x, upper + cut_y, right - cut_x, lower - cut_y))
        for left, upper, right, lower in grid_boxes(*whole.size, rows, cols)
    ]


def unclear(tiles: Sequence[Image.Image]) -> Rejection | None:
    """A rejection if the answer would not be unique: `blank_tile` or `similar_tiles`; None otherwise."""
    # Smaller copies give the same result much faster.
    small = [tile.reduce(max(1, min(tile.size) // PROBE_SIDE)) for tile in tiles]
    if any(is_blank(tile) for tile in small):
        return Rejection("blank_tile")
    closest = least_difference(small)
    return Rejection("similar_tiles", f"two tiles differ by {closest:.3f}") if closest < SIMILAR_BELOW else None


def too_small(picture: Image.Image, rows: int, cols: int, smallest: float = SMALLEST_CUT) -> Rejection | None:
    """`too_small` if a tile of the smallest crop has a side of fewer than `SMALLEST_TILE` pixels in the photo."""
    pixels = int(smallest * min(picture.width / cols, picture.height / rows))
    return Rejection("too_small", f"a tile would have {pixels} pixels") if pixels < SMALLEST_TILE else None


def grid_tiles(picture: Image.Image, level: GridLevel, rng: random.Random) -> list[Image.Image] | Rejection:
    """The tiles of a level's grid in reading order, or a rejection: `too_small`, `blank_tile` or `similar_tiles`."""
    if (refused := too_small(picture, level.rows, level.cols)) is not None:
        return refused
    tiles = cut_tiles(picture, level.rows, level.cols, level.side, level.margin, rng)
    return unclear(tiles) or tiles


def composed(tiles: Sequence[Image.Image], cols: int, side: int) -> Image.Image:
    """One picture of the tiles in reading order, with white lines between them. `side` determines the lines' width."""
    (w, h), gap = tiles[0].size, max(2, side // 64)
    rows = len(tiles) // cols
    canvas = Image.new("RGB", (cols * (w + gap) - gap, rows * (h + gap) - gap), "white")
    for k, tile in enumerate(tiles):
        canvas.paste(tile, ((k % cols) * (w + gap), (k // cols) * (h + gap)))
    return canvas
