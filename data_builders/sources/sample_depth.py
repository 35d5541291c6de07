"""The sample-depth source: crops of a photograph with depth that comes with scikit-image. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import io
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import RGBD
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.depth import resampled
from ssl4rl_plugin.data.images import ImageError, PixelBox
from ssl4rl_plugin.data.source import Record, Source, SourceError

PICTURE, DISPARITY = "motorcycle_left.png", "motorcycle_disp.npz"

FOCAL_LENGTH = 994.978
"""Pixels. `skimage.data.stereo_motorcycle` states this and the next two for its picture, which has a quarter of the
original's size (original: 3979.911 px, and 124.343 px between the principal points)."""
BASELINE = 0.193001
"""Metres between the two cameras."""
PRINCIPAL_OFFSET = 31.086
"""Pixels between the principal points of the two cameras."""

HALVES = {"left": "train", "right": "val"}
"""The halves of the picture and the split of each."""


class SampleDepthSource(Source):
    """Overlapping crops of the Motorcycle scene of the Middlebury 2014 stereo benchmark, with depth from its disparity.

    One scene is only enough to try the depth tasks. Train crops come from the left half of the picture, held-out crops
    from the right half. Depth is focal length x baseline / (disparity + offset of the principal points), 2 to 5 metres.
    From Scharstein et al., "High-resolution stereo datasets with subpixel-accurate ground truth", GCPR 2014. The held-out
    pictures of `sample_photos` include this picture: do not train on this source and test on that one.

    A ref is `<half>@<left>,<upper>,<right>,<lower>`, in pixels of the half.

    Args:
        path: None.
        crops: crops cut out of each half, 1 to 10,000.
        seed: changes which crops are cut.
        min_side: width and height of the smallest crop as a fraction of the half's, 0.4 to 0.9.
    """

    name: ClassVar[str] = "sample_depth"
    kind: ClassVar[str] = "rgbd"
    summary: ClassVar[str] = "crops of the stereo scene that comes with scikit-image, with depth"
    schema: ClassVar[str] = "no files of yours: the picture and its disparity are inside the scikit-image package"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    licence: ClassVar[str] = "Middlebury 2014 stereo benchmark, for research; see skimage.data.stereo_motorcycle"
    where: ClassVar[str] = "pip install scikit-image"

    def __init__(self, path: str | Path | None = None, crops: int = 200, seed: int = 0, min_side: float = 0.6) -> None:
        if path is not None:
            raise SourceError(f"source 'sample_depth' takes no path, got {path}; for your own images use 'rgbd'")
        for name, value, low, high in (("crops", crops, 1, 10_000), ("min_side", min_side, 0.4, 0.9)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise SourceError(f"source 'sample_depth': {name} must be from {low} to {high}, got {value!r}")
        super().__init__(None, crops=int(crops), seed=int(seed), min_side=float(min_side))
        spec = importlib.util.find_spec("skimage")  # found without an import, which takes a second
        if spec is None or spec.origin is None:
            raise SourceError("source 'sample_depth': scikit-image is not installed; pip install scikit-image")
        self.folder = Path(spec.origin).parent / "data"
        missing = [name for name in (PICTURE, DISPARITY) if not (self.folder / name).is_file()]
        if missing:
            raise SourceError(
                f"source 'sample_depth': {self.folder} lacks {', '.join(missing)}; pip install -U scikit-image"
            )

    def records(self) -> Iterator[Record]:
        for half, split in HALVES.items():
            width, height = _half(self.folder, half)[0].size
            rng = rng_for(self.options["seed"], "sample_depth", half)
            boxes: set[PixelBox] = set()
            while len(boxes) < self.options["crops"]:
                boxes.add(_box(width, height, self.options["min_side"], rng))
            for box in sorted(boxes):
                yield Record(f"{half}@{','.join(map(str, box))}", split=split, group=half, box=box)

    def stamp(self, ref: str) -> tuple[int, int]:
        self._half(ref)
        try:
            found = [(self.folder / name).stat() for name in (PICTURE, DISPARITY)]
        except OSError as error:
            raise ImageError("unreadable", str(error)) from error
        return sum(status.st_size for status in found), sum(status.st_mtime_ns for status in found) % 2**63

    def read(self, ref: str) -> bytes:
        """One half of the picture as PPM, then the same half of the depth, so that the two groups differ in content."""
        image, depth = self._half(ref)
        file = io.BytesIO()
        image.save(file, "PPM")
        return file.getvalue() + depth.tobytes()

    def item(self, ref: str, picture: Callable[[], Image.Image], max_pixels: int | None) -> RGBD:
        depth = self._half(ref)[1]
        try:
            left, upper, right, lower = (int(edge) for edge in ref.partition("@")[2].split(","))
        except ValueError:
            raise SourceError(f"source 'sample_depth': {ref!r} is none of its crops") from None
        image = picture()
        return RGBD(image, resampled(depth[upper:lower, left:right], image.size))

    def _half(self, ref: str) -> tuple[Image.Image, np.ndarray]:
        half = ref.partition("@")[0]
        if half not in HALVES:
            raise SourceError(f"source 'sample_depth': {ref!r} is none of its crops")
        return _half(self.folder, half)


@lru_cache(maxsize=4)
def _half(folder: Path, half: str) -> tuple[Image.Image, np.ndarray]:
    """A half of the picture and its depth. Do not modify them in place: they are cached."""
    try:
        with Image.open(folder / PICTURE, formats=("PNG",)) as file:
            picture = file.convert("RGB")
        with np.load(folder / DISPARITY, allow_pickle=False) as arrays:
            disparity = arrays["arr_0"].astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise ImageError("unreadable", f"{folder}: {error}") from error
    known = np.isfinite(disparity) & (disparity > 0)
    depth = np.where(known, FOCAL_LENGTH * BASELINE / (np.where(known, disparity, 1) + PRINCIPAL_OFFSET), np.nan)
    middle = picture.width // 2
    left, right = (0, middle) if half == "left" else (middle, picture.width)
    return picture.crop((left, 0, right, picture.height)), depth[:, left:right].astype(np.float32)


def _box(width: int, height: int, min_side: float, rng: random.Random) -> PixelBox:
    """A box inside a picture of this size. Each side is a uniform fraction of the picture's, from `min_side` to 1."""
    w, h = rng.randint(round(min_side * width), width), rng.randint(round(min_side * height), height)
    left, upper = rng.randint(0, width - w), rng.randint(0, height - h)
    return left, upper, left + w, upper + h
