"""Depth maps: float32 of shape (height, width), metres from the camera plane, NaN where unknown."""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_DEPTH = 1000.0
"""Metres. Default of the farthest depth that counts as measured: farther values stand for the sky, or for nothing."""


def metres(values: np.ndarray[Any, Any], scale: float = 1.0, max_depth: float = MAX_DEPTH) -> np.ndarray[Any, Any]:
    """Stored values as a depth map, NaN where the depth is unknown.

    Unknown are 0, negative values, NaN, infinity, the largest value of the type (65535 in a PNG of 7-Scenes or Kinect, the
    largest float), and depths beyond `max_depth`. Such a value is never a distance, so nothing may be compared with it.

    Args:
        values: integers or floats of shape (height, width), as stored.
        scale: stored values per metre.
        max_depth: metres.
    """
    limits = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite: unknown
        depth = values.astype(np.float32) / np.float32(scale)
    known = (values < limits.max) & np.isfinite(depth) & (depth > 0) & (depth <= max_depth)
    # The largest float32 is also what a double has where a single was filled in.
    known &= depth < np.finfo(np.float32).max
    return np.where(known, depth, np.float32("nan"))


def resampled(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample a depth map to `size` (width, height) with nearest neighbours: interpolation would invent depths at edges."""
    columns, rows = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size, depth.shape[::-1], strict=True)
    )
    return np.ascontiguousarray(depth[rows[:, None], columns[None, :]], np.float32)
