"""The depths of an indexed RGB-D source, in metres: whether they can be those of a room or a street.

Files do not state their scale. A wrong `depth_scale` keeps the order of depths, but not the distances in metres that tasks
need between points, so the user has to see the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl4rl_plugin.core import RGBD
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.manifest import Manifest

PICTURES = 64
"""Pictures that are read, at equal distances in the manifest."""
PIXELS = 4096
"""Most depths taken of each."""
SCALES = (100.0, 256.0, 500.0, 1000.0, 4000.0, 5000.0, 6553.5, 10_000.0)
"""Values per metre of published data sets: Virtual KITTI, KITTI, ..., millimetres, Redwood, TUM RGB-D, ..., 0.1 mm."""


@dataclass(frozen=True)
class DepthFigures:
    """Percentiles of the known depths in a sample of the pictures."""

    pictures: int
    known: float
    """Share of the pixels with known depth."""
    low: float
    """The 1st percentile, in metres."""
    median: float
    """In metres."""
    high: float
    """The 99th percentile, in metres."""

    @property
    def plausible(self) -> bool:
        """Whether a room or a street has such depths."""
        return _is_room(self.low, self.median, self.high) or _is_street(self.low, self.median, self.high)

    def __str__(self) -> str:
        return (
            f"depth in metres: median {self.median:.3g}, 1st percentile {self.low:.3g}, 99th percentile {self.high:.3g}; "
            f"known in {self.known:.0%} of the pixels of {self.pictures} pictures"
        )

    def warning(self, scale: float | None) -> str | None:
        """What to try if the depths are not plausible; None if they are.

        Args:
            scale: the source's `depth_scale`; None for a source without one.
        """
        if self.plausible:
            return None
        text = "neither a room nor a street has such depths"
        if scale is None:
            return text
        fits = []
        for other in SCALES:
            low, median, high = (value * scale / other for value in (self.low, self.median, self.high))
            kinds = [kind for kind, test in (("room", _is_room), ("street", _is_street)) if test(low, median, high)]
            if other != scale and kinds:
                fits.append(f"{other:g} (median {median:.2g} m, a {kinds[0]})")
        likely = f"; depth_scale={', or '.join(fits)}, would fit" if fits else ""
        return (
            f"{text}: check the option depth_scale, values per metre of the PNG files, which is {scale:g}{likely}. "
            "NPY files hold metres"
        )


def depth_figures(manifest: Manifest) -> DepthFigures | None:
    """The figures of an RGB-D manifest; None if no sampled picture can be read any more."""
    items = [*manifest.items("train"), *manifest.items("val")]
    taken = [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(PICTURES, len(items))).astype(int))]
    depths, known, count = [], 0.0, 0
    for item in taken:
        try:
            data = manifest.open(item, None)
        except ImageError:  # gone since it was indexed
            continue
        if isinstance(data, RGBD):
            finite = data.depth[np.isfinite(data.depth)]
            depths.append(finite[:: max(1, finite.size // PIXELS)])
            known += finite.size / data.depth.size
            count += 1
    if not count or not sum(map(len, depths)):
        return None
    low, median, high = np.percentile(np.concatenate(depths), (1, 50, 99)).tolist()
    return DepthFigures(count, known / count, low, median, high)


def _is_room(low: float, median: float, high: float) -> bool:
    return low >= 0.05 and 0.8 <= median <= 6 and 2 <= high <= 12


def _is_street(low: float, median: float, high: float) -> bool:
    # A street begins at the car's own bonnet or the photographer's feet, and is open to the far end: a room that is blown up
    # five or ten times begins farther away, or ends sooner.
    return 0.5 <= low <= 12 and 4 <= median <= 80 and 30 <= high <= 600 and (high >= 10 * low or high >= 3 * median)
