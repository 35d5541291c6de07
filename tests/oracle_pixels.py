"""Solvers of the pixel tasks that see only what the model sees: the question and the pictures.

There is none for depth_order and relative_3d, whose truth is depth that no picture shows; test_pixels_tasks.py checks
those on the depth that the sample was made of.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from scipy.fft import dctn
from scipy.ndimage import find_objects, label, laplace
from scipy.spatial import ConvexHull

from ssl4rl_plugin.core import Sample


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32)


def luma(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), np.float32)


def equal_neighbours(image: Image.Image) -> float:
    """Share of pixels that are exactly like the one to their right."""
    values = np.asarray(image)
    return float((values[:, 1:] == values[:, :-1]).all(axis=2).mean())


def grain(image: Image.Image) -> float:
    """Median of the finest detail, which edges hardly change."""
    return float(np.median(np.abs(laplace(luma(image)))))


def filled_coefficients(image: Image.Image) -> float:
    """Share of the coefficients of JPEG's 8 x 8 blocks that are not about 0."""
    gray = luma(image)
    height, width = (n - n % 8 for n in gray.shape)
    blocks = gray[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
    return float((np.abs(dctn(blocks, axes=(2, 3), norm="ortho")) > 2).mean())


def saturation(image: Image.Image) -> float:
    values = pixels(image)
    return float((values.max(axis=2) - values.min(axis=2)).mean())


def colours_used(image: Image.Image) -> int:
    return max(len(np.unique(plane)) for plane in np.asarray(image).transpose(2, 0, 1))


# ------------------------------------------------------------------------------------------------------- corruption


def as_corrupted(clean: Image.Image, strength: float) -> dict[str, Image.Image]:
    """The clean picture after each corruption that draws nothing, written down a second time from their description."""
    values = pixels(clean)
    half_gray = values @ np.array([299, 587, 114], np.float32)[:, None] / 1000
    file = io.BytesIO()
    clean.save(file, "JPEG", quality=round(40 * 0.08**strength))
    steps = round(16 * 0.125**strength) - 1
    block = 1 + 0.07 * strength * max(clean.size)
    coarse = clean.resize([max(2, round(n / block)) for n in clean.size], Image.Resampling.BOX)  # type: ignore[arg-type]
    made = {
        "brightness": values + 128 * strength,
        "low contrast": 128 + (values - 128) * (1 - 0.85 * strength),
        "desaturation": values + (half_gray - values) * strength,
        "posterization": np.rint(np.rint(values / 255 * steps) / steps * 255),
    }
    return {name: Image.fromarray(np.clip(v, 0, 255).astype(np.uint8)) for name, v in made.items()} | {
        "blur": clean.filter(ImageFilter.GaussianBlur(0.025 * strength * max(clean.size))),
        "pixelation": coarse.resize(clean.size, Image.Resampling.NEAREST),
        "compression": Image.open(file).convert("RGB"),
    }


def corruption(sample: Sample, level: Any) -> str | None:
    """Pairs only, and clear single pictures: a mild change of an unknown photo has no certain sign."""
    if level.pair:
        clean, shown = sample.images
        apart = {
            name: float(np.abs(pixels(image) - pixels(shown)).mean())
            for name, image in as_corrupted(clean, level.strength).items()
        }
        nearest = min(apart, key=apart.__getitem__)
        return nearest if apart[nearest] < 1.5 else "noise"
    if level.strength < 0.8:
        return None
    (shown,) = sample.images
    values = np.asarray(shown)
    reach = 128 * (1 - 0.85 * level.strength) + 1
    if colours_used(shown) <= round(16 * 0.125**level.strength):
        return "posterization"
    if values.min() >= 128 - reach and values.max() <= 128 + reach:
        return "low contrast"
    if values.min() >= round(128 * level.strength):
        return "brightness"
    if (values[1:] == values[:-1]).all(axis=(1, 2)).mean() > 0.8:  # whole rows
        return "pixelation"
    apart = values[..., 0].astype(np.float32) - values[..., 1]
    if np.median(np.abs(laplace(apart))) > 25:  # no photo has such grain that differs between channels
        return "noise"
    # Blur leaves nothing fine anywhere; compression leaves steps between blocks.
    if np.percentile(np.abs(laplace(luma(shown))), 99) < 12:
        return "blur"
    rows = np.abs(np.diff(luma(shown), axis=1)).mean(axis=0)
    seams = rows[7::8].mean() / (np.delete(rows, np.s_[7::8]).mean() + 0.1)
    return "compression" if seams > 1.5 else "desaturation"


MORE: dict[str, Callable[[Image.Image], float]] = {
    "noise": grain,
    "blur": lambda image: -float(np.abs(laplace(luma(image))).mean()),
    "brightness": lambda image: float(pixels(image).mean()),
    "pixelation": equal_neighbours,
    "low contrast": lambda image: -float(pixels(image).std()),
    "desaturation": lambda image: -saturation(image),
    "posterization": lambda image: -colours_used(image),
    "compression": lambda image: -filled_coefficients(image),
}
"""What grows with the strength of each kind."""


def corruption_order(sample: Sample, level: Any) -> list[str]:
    found = re.search(r"The corruption is: ([a-z ]+) \(", sample.question)
    assert found
    more = MORE[found[1]]
    by_label = dict(zip("ABCDEF", sample.images, strict=False))
    return sorted(by_label, key=lambda name: more(by_label[name]))


# ---------------------------------------------------------------------------------------------------- channel order


def channel_order(sample: Sample, level: Any) -> str | None:
    """Pairs only: what colour things have is not in the picture."""
    if not level.pair:
        return None
    before, after = (pixels(image) for image in sample.images)
    orders = {"".join("RGB"[k] for k in order): before[..., list(order)] for order in itertools.permutations(range(3))}
    return min(orders, key=lambda name: float(np.abs(orders[name] - after).mean()))


# ------------------------------------------------------------------------------------------------------ scale order


def scale_order(sample: Sample, level: Any) -> list[str]:
    """The order in which each cut looks like the middle of the one before."""
    by_label = dict(zip("ABCDEF", sample.images, strict=False))

    def misfit(wide: Image.Image, narrow: Image.Image) -> float:
        edge = wide.width * (1 - 1 / level.ratio) / 2
        box = (edge, edge, wide.width - edge, wide.width - edge)
        middle = wide.resize((32, 32), Image.Resampling.BOX, box=box)
        return float(np.abs(pixels(middle) - pixels(narrow.resize((32, 32), Image.Resampling.BOX))).mean())

    cost = {(a, b): misfit(by_label[a], by_label[b]) for a, b in itertools.permutations(by_label, 2)}
    return list(
        min(itertools.permutations(by_label), key=lambda order: sum(cost[pair] for pair in itertools.pairwise(order)))
    )


# --------------------------------------------------------------------------------------------------------- counting

# Colours of the shapes, as one sees them, and of their outlines.
PAINTS = ((228, 26, 28), (255, 221, 0), (30, 120, 255), (40, 190, 60), (255, 127, 0), (230, 60, 220), (0, 220, 220),
          (250, 250, 250), (20, 20, 20))  # fmt: skip


def shape_of(mask: np.ndarray) -> str | None:
    """The kind of a filled shape by how it fills its hull, and its hull the circle around it; None if it is no shape."""
    y, x = np.nonzero(mask)
    if len(x) < 12 or min(np.ptp(x), np.ptp(y)) < 3:
        return None
    hull = ConvexHull(np.stack([x, y], axis=1))
    grown = hull.volume + hull.area / 2 + 1  # the pixels' outer edges instead of their middles
    if len(x) / grown < 0.83:
        return "other"
    corners = np.stack([x, y], axis=1)[hull.vertices]
    middle = np.array([x.mean(), y.mean()])
    radius = np.hypot(*(corners - middle).T).max() + 0.5
    filled = grown / (np.pi * radius**2)
    return "triangle" if filled < 0.53 else "square" if filled < 0.8 else "circle"


def counting(sample: Sample, level: Any) -> list[int]:
    picture = np.asarray(sample.images[0]).astype(int)
    smallest = 0.2 * 0.7 * level.size * level.side / 6
    found = {"circle": 0, "square": 0, "triangle": 0, "other": 0}
    for paint in PAINTS:
        of_paint = (picture == paint).all(axis=2)
        rim = 0 if sum(paint) > 240 else 255
        parts, _ = label(of_paint)
        for number, box in enumerate(find_objects(parts), 1):
            mask = parts[box] == number
            if min(mask.shape) < smallest:
                continue
            grown = tuple(slice(max(0, part.start - 2), part.stop + 2) for part in box)
            around = picture[grown][parts[grown] != number]
            kind = shape_of(mask)
            if kind is not None and (np.abs(around - rim).max(axis=1) < 40).mean() > 0.1:
                found[kind] += 1
    asked = re.search(r"How many (circle|square|triangle)s are there", sample.question)
    return [found[asked[1]]] if asked else [found[kind] for kind in ("circle", "square", "triangle")]


ORACLES: dict[str, Callable[[Sample, Any], Any]] = {
    "corruption": corruption,
    "corruption_order": corruption_order,
    "channel_order": channel_order,
    "scale_order": scale_order,
    "counting": counting,
}
