"""Crops and resizes that several image tasks share, each one drawn from a given generator."""

from __future__ import annotations

import random

from PIL import Image

from ssl4rl_plugin.images import contrast

BLANK_CONTRAST = 0.02
"""Pictures whose luma varies less than this (standard deviation, range [0, 0.5]) show nothing to ask about."""


def is_blank(image: Image.Image) -> bool:
    """Whether a picture shows nothing: contrast below `BLANK_CONTRAST`."""
    return contrast(image) < BLANK_CONTRAST


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at `size` (width, height), by the one filter used everywhere, whether it shrinks or grows."""
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The whole picture with its longest side at exactly `side` pixels; the aspect ratio stays."""
    scale = side / max(image.size)
    return resized(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def random_box(width: int, height: int, crop_w: float, crop_h: float, rng: random.Random) -> tuple[int, int, int, int]:
    """A box of the given size (pixels, cut to the picture) at a uniform place: (left, upper, right, lower)."""
    w, h = max(1, min(width, round(crop_w))), max(1, min(height, round(crop_h)))
    left, upper = rng.randint(0, width - w), rng.randint(0, height - h)
    return left, upper, left + w, upper + h


def random_square(image: Image.Image, rng: random.Random, smallest: float = 0.7) -> Image.Image:
    """A square cut of side between `smallest` and 1 times the picture's short side, at a uniform place."""
    side = min(image.size) * rng.uniform(smallest, 1.0)
    return image.crop(random_box(image.width, image.height, side, side, rng))


def grid_boxes(width: int, height: int, rows: int, cols: int) -> list[tuple[int, int, int, int]]:
    """Boxes of equal size in reading order; width and height must be multiples of cols and rows."""
    if width % cols or height % rows:
        raise ValueError(f"{width} x {height} pixels do not divide into {rows} rows of {cols} columns")
    w, h = width // cols, height // rows
    return [(c * w, r * h, (c + 1) * w, (r + 1) * h) for r in range(rows) for c in range(cols)]


def place_names(rows: int, cols: int) -> tuple[str, ...]:
    """Names of the places of a grid in reading order: `top-left`, ..., `row 2 column 3` where words run out."""
    vertical = {1: [""], 2: ["top", "bottom"], 3: ["top", "middle", "bottom"]}.get(rows)
    horizontal = {1: [""], 2: ["left", "right"], 3: ["left", "center", "right"]}.get(cols)
    if vertical is None or horizontal is None:
        return tuple(f"row {r + 1} column {c + 1}" for r in range(rows) for c in range(cols))
    names = ("-".join(word for word in (v, h) if word) for v in vertical for h in horizontal)
    return tuple("center" if name == "middle-center" else name for name in names)
