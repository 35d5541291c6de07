"""Crops, resizes and checks that several image tasks share. Random ones draw from a given generator."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from ssl4rl_plugin.data.images import PixelBox, contrast

BLANK_CONTRAST = 0.02
"""Standard deviation of the luma (range [0, 0.5]) below which a picture is blank."""


def is_blank(image: Image.Image) -> bool:
    """Whether the contrast of a picture is below `BLANK_CONTRAST`."""
    return contrast(image) < BLANK_CONTRAST


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture resized to `size` (width, height). All tasks use this filter, to shrink and to enlarge."""
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The picture resized so that its longest side has `side` pixels; keeps the aspect ratio."""
    scale = side / max(image.size)
    return resized(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def random_box(width: int, height: int, crop_w: float, crop_h: float, rng: random.Random) -> tuple[int, int, int, int]:
    """A box of the given size (pixels, at most the picture's) at a uniform position: (left, upper, right, lower)."""
    w, h = max(1, min(width, round(crop_w))), max(1, min(height, round(crop_h)))
    left, upper = rng.randint(0, width - w), rng.randint(0, height - h)
    return left, upper, left + w, upper + h


def random_square(image: Image.Image, rng: random.Random, smallest: float = 0.7) -> Image.Image:
    """A square crop at a uniform position; its side is uniform in `smallest` to 1 times the picture's short side."""
    side = min(image.size) * rng.uniform(smallest, 1.0)
    return image.crop(random_box(image.width, image.height, side, side, rng))


def grid_boxes(width: int, height: int, rows: int, cols: int) -> list[tuple[int, int, int, int]]:
    """Boxes of equal size in reading order; width and height must be multiples of cols and rows."""
    if width % cols or height % rows:
        raise ValueError(f"{width} x {height} pixels do not divide into {rows} rows of {cols} columns")
    w, h = width // cols, height // rows
    return [(c * w, r * h, (c + 1) * w, (r + 1) * h) for r in range(rows) for c in range(cols)]


def place_names(rows: int, cols: int) -> tuple[str, ...]:
    """Names of the places of a grid in reading order: `top-left`, ..., or `row 2 column 3` in grids above 3 x 3."""
    vertical = {1: [""], 2: ["top", "bottom"], 3: ["top", "middle", "bottom"]}.get(rows)
    horizontal = {1: [""], 2: ["left", "right"], 3: ["left", "center", "right"]}.get(cols)
    if vertical is None or horizontal is None:
        return tuple(f"row {r + 1} column {c + 1}" for r in range(rows) for c in range(cols))
    names = ("-".join(word for word in (v, h) if word) for v in vertical for h in horizontal)
    return tuple("center" if name == "middle-center" else name for name in names)


PROBE_SIDE = 40
"""Longest side of the small picture on which cut-outs are compared."""


def cell_cuts(picture: Image.Image, grid: int, side: int, rng: random.Random) -> list[PixelBox]:
    """A square of `side` pixels in each cell of a `grid` x `grid` grid, at the same random position in each cell."""
    cell_w, cell_h = picture.width / grid, picture.height / grid
    inner = random_box(int(cell_w), int(cell_h), side, side, rng)
    return [
        (left + inner[0], upper + inner[1], left + inner[2], upper + inner[3])
        for upper in (round(row * cell_h) for row in range(grid))
        for left in (round(col * cell_w) for col in range(grid))
    ]


def slid_over(
    picture: Image.Image, boxes: Sequence[PixelBox], little: Image.Image | None = None
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Compare cut-outs of one size with all windows of that size in the picture, at low resolution.

    Args:
        picture: RGB.
        boxes: the cut-outs, all of one size.
        little: a smaller copy of the picture, for speed.

    Returns:
        For each box, its mean absolute difference, in [0, 1], to each window, of shape (rows, cols); then the vertical and
        the horizontal centres of the windows, as shares of the picture's height and width. If the picture is too narrow
        to compare, one window outside the picture with difference 0.
    """
    from scipy.spatial.distance import cdist  # a third of a second, which tasks without this check do not need

    small = fitted(little or picture, min(PROBE_SIDE, max(picture.size)))
    scale = small.width / picture.width
    whole = (np.asarray(small, np.float32) / 255).astype(np.float64)  # what cdist computes with
    (left, upper, right, lower), (height, width) = boxes[0], whole.shape[:2]
    h, w = max(3, round((lower - upper) * scale)), max(3, round((right - left) * scale))
    if h > height or w > width:
        return [np.zeros((1, 1), np.float32) for _ in boxes], np.array([-1.0]), np.array([-1.0])
    # Every second pixel of a window is enough to distinguish positions. Shape (rows, cols, 3, h / 2, w / 2).
    windows = sliding_window_view(whole, (h, w), axis=(0, 1))[..., ::2, ::2]  # type: ignore[call-overload]
    rows, cols = windows.shape[:2]
    flat = windows.reshape(rows * cols, -1)  # contiguous: much faster than strided windows
    at = [min(round(box[1] * scale), rows - 1) * cols + min(round(box[0] * scale), cols - 1) for box in boxes]
    apart = [found.reshape(rows, cols) for found in cdist(flat[at], flat, "cityblock") / flat.shape[1]]
    return apart, (np.arange(rows) + h / 2) / height, (np.arange(cols) + w / 2) / width


def best_matches_elsewhere(picture: Image.Image, boxes: Sequence[PixelBox], away: float = 0.5) -> list[float]:
    """For each box, all of one size, the smallest mean absolute difference, in [0, 1], to a window at another position.

    Another position means that the centres are more than `away` times the box's width or height apart.
    """
    maps, y, x = slid_over(picture, boxes)
    found = []
    for (left, upper, right, lower), apart in zip(boxes, maps, strict=True):
        far_x = np.abs(x * picture.width - (left + right) / 2) > away * (right - left)
        far_y = np.abs(y * picture.height - (upper + lower) / 2) > away * (lower - upper)
        found.append(float(apart[far_y[:, None] | far_x[None, :]].min(initial=1.0)))
    return found


def square_at(image: Image.Image, side: int, rng: random.Random) -> Image.Image:
    """A square crop of the photo's short side, resized to `side` pixels, so that it reveals no aspect ratio or size."""
    short = min(image.size)
    return resized(image.crop(random_box(*image.size, short, short, rng)), (side, side))


def overlapping_boxes(side: int, smallest: float, overlap: float, rng: random.Random) -> tuple[PixelBox, PixelBox]:
    """Two square boxes in a square of `side` pixels. Each has at least `smallest` of its side, and their intersection over
    union is at least `overlap`."""
    for _ in range(100):
        one, two = (
            random_box(side, side, size, size, rng)
            for size in (side * rng.uniform(smallest, 1.0), side * rng.uniform(smallest, 1.0))
        )
        if box_iou(one, two) >= overlap:
            return one, two
    return one, one  # practically never; a full overlap satisfies the condition


def box_iou(a: PixelBox, b: PixelBox) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    inner = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return inner / (areas - inner)
