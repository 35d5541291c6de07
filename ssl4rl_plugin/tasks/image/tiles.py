"""Grids of tiles: cut out of a photo, refused where they would not do, and shown side by side; for the jigsaw family."""

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
"""Mean absolute difference (range [0, 1]) under which two tiles count as interchangeable."""
SMALLEST_TILE = 14
"""Pixels: neither side of a tile is shorter, in the photo and as resized, before its margins are cut off."""
SMALLEST_CUT = 0.85
"""A grid is cut out of at least this share of the photo's width and height."""


@dataclass(frozen=True)
class GridLevel(Level):
    """What all levels of tasks on one grid of tiles have."""

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
        """What the labels mean, for prompts: `A top-left, B top-right, ...`."""
        names = zip(self.letters, place_names(self.rows, self.cols), strict=True)
        return ", ".join(f"{letter} {name}" for letter, name in names)


def check_margin(margin: float) -> None:
    """Raise ValueError unless `margin` (share of a tile cut off at each side) leaves enough of a tile."""
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
    """Tiles of one size, in reading order, of a cut of the picture at a uniform place.

    Args:
        picture: RGB.
        rows: rows of the grid.
        cols: columns of the grid.
        side: pixels along the longest side of all the tiles together, before margins are cut off.
        margin: share of a tile cut off at each of its sides, so that seams cannot be matched pixel by pixel.
        rng: draws the cut.
        smallest: least share of the picture's width and height in the cut.
    """
    keep = rng.uniform(smallest, 1.0)
    box = random_box(*picture.size, picture.width * keep, picture.height * keep, rng)
    # Tiles are whole pixels and all alike, and the picture keeps its aspect ratio up to 2:1 either way.
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
    """Why a puzzle of these tiles has no certain answer: `blank_tile` or `similar_tiles`; None if it has one."""
    # Half the pixels a side say the same at a fraction of the time; small tiles stay as they are.
    little = [tile.reduce(max(1, min(tile.size) // PROBE_SIDE)) for tile in tiles]
    if any(is_blank(tile) for tile in little):
        return Rejection("blank_tile")
    closest = least_difference(little)
    return Rejection("similar_tiles", f"two tiles differ by {closest:.3f}") if closest < SIMILAR_BELOW else None


def too_small(picture: Image.Image, rows: int, cols: int, smallest: float = SMALLEST_CUT) -> Rejection | None:
    """`too_small` where a tile of the smallest cut would hold fewer than `SMALLEST_TILE` pixels of the photo a side."""
    pixels = int(smallest * min(picture.width / cols, picture.height / rows))
    return Rejection("too_small", f"a tile would have {pixels} pixels") if pixels < SMALLEST_TILE else None


def grid_tiles(picture: Image.Image, level: GridLevel, rng: random.Random) -> list[Image.Image] | Rejection:
    """The tiles of a level's grid in reading order, or `too_small`, `blank_tile` or `similar_tiles`."""
    if (refused := too_small(picture, level.rows, level.cols)) is not None:
        return refused
    tiles = cut_tiles(picture, level.rows, level.cols, level.side, level.margin, rng)
    return unclear(tiles) or tiles


def composed(tiles: Sequence[Image.Image], cols: int, side: int) -> Image.Image:
    """One picture of the tiles in reading order, white lines between them; `side` sets how wide the lines are."""
    (w, h), gap = tiles[0].size, max(2, side // 64)
    rows = len(tiles) // cols
    canvas = Image.new("RGB", (cols * (w + gap) - gap, rows * (h + gap) - gap), "white")
    for k, tile in enumerate(tiles):
        canvas.paste(tile, ((k % cols) * (w + gap), (k // cols) * (h + gap)))
    return canvas
