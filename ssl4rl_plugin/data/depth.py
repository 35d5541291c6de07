"""Depth maps: float32 of shape (height, width), metres from the camera plane, NaN where unknown."""

from __future__ import annotations

import numpy as np


def resampled(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample a depth map to `size` (width, height) with nearest neighbours: interpolation would invent depths at edges."""
    columns, rows = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for new, old in zip(size, depth.shape[::-1], strict=True)
    )
    return np.ascontiguousarray(depth[rows[:, None], columns[None, :]], np.float32)
