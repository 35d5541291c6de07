"""For the RGB-D tasks: choose points of a picture with reliable depth, and draw marks on them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl4rl_plugin.core import RGBD, Rejection
from ssl4rl_plugin.data.depth import resampled
from ssl4rl_plugin.tasks.image.views import fitted, is_blank

MARK_RADIUS = 0.028
"""Radius of a mark as a share of the picture's longest side, and at least `SMALLEST_RADIUS`."""
SMALLEST_RADIUS = 5
STEADY_WITHIN = 0.12
"""Largest relative range of depth under a mark: (maximum - minimum) / minimum. Floors stay below, edges are above."""
KNOWN_AROUND = 0.9
"""Least share of the pixels under a mark with known depth. The depth at the centre must always be known."""
MIN_KNOWN = 0.2
"""Least share of all pixels with known depth."""
MIN_RANGE = 1.2
"""Least ratio of the 95th to the 5th percentile of depth. Below it, the picture counts as flat."""
TRIED = 400
"""Number of random positions that are tried."""


def mark_radius(side: int) -> int:
    """Radius in pixels of a mark on a picture whose longest side is `side`."""
    return max(SMALLEST_RADIUS, round(MARK_RADIUS * side))


def steady_points(data: RGBD, side: int, rng: random.Random) -> tuple[Image.Image, np.ndarray] | Rejection:
    """Resize the picture to a longest side of `side` pixels, and find points on it that lie on one surface each.

    Tries 400 uniform positions with room for a mark. Keeps those with known depth at the point, known depth nearly
    everywhere under the mark, and little variation there.

    Returns:
        The picture, and the points as a float array of shape (n, 3): x, y in pixels and depth in metres. Or a rejection:
        `blank`, `too_small`, `no_depth` or `flat_depth`.
    """
    picture = fitted(data.image, side)
    if is_blank(picture):
        return Rejection("blank")
    depth = resampled(data.depth, picture.size)
    reach = mark_radius(side) + 1
    window = 2 * reach + 1
    if min(picture.size) < 3 * window:
        return Rejection("too_small", f"{picture.width} x {picture.height} pixels do not hold the marks")
    known = depth[np.isfinite(depth)]
    if known.size < MIN_KNOWN * depth.size:
        return Rejection("no_depth", f"known in {known.size / depth.size:.0%} of the pixels")
    near, far = np.percentile(known[:: max(1, known.size // 10_000)], (5, 95))
    if far < MIN_RANGE * near:
        return Rejection("flat_depth", f"from {near:.2f} to {far:.2f} metres")
    places = np.array([(rng.random(), rng.random()) for _ in range(TRIED)])
    x, y = (places * (np.array(picture.size) - 2 * reach)).astype(int).T
    offsets = np.arange(0, window, 2)  # every second pixel is enough
    around = depth[(y[:, None] + offsets)[:, :, None], (x[:, None] + offsets)[:, None, :]]
    known_around = np.isfinite(around)
    low = np.where(known_around, around, np.inf).min(axis=(1, 2))
    high = np.where(known_around, around, 0).max(axis=(1, 2))
    steady = (high <= (1 + STEADY_WITHIN) * low) & (known_around.mean(axis=(1, 2)) >= KNOWN_AROUND)
    steady &= np.isfinite(depth[y + reach, x + reach])
    x, y = x[steady] + reach, y[steady] + reach
    return picture, np.stack([x, y, depth[y, x]], axis=1)


def marked(picture: Image.Image, points: Mapping[str, tuple[int, int]]) -> Image.Image:
    """A copy of the picture with a mark at each point (x, y): a white disc with a black outline and the label."""
    radius = mark_radius(max(picture.size))
    return _drawn(picture, points, radius, ImageFont.load_default(size=1.5 * radius))


def _drawn(picture: Image.Image, points: Mapping[str, tuple[int, int]], radius: int, font: Any) -> Image.Image:
    shown = picture.copy()
    draw = ImageDraw.Draw(shown)
    for label, (x, y) in points.items():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="white", outline="black")
        draw.text((x, y), label, fill="black", font=font, anchor="mm")
    return shown
