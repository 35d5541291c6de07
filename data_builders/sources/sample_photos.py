"""The sample-photo source: crops of photographs that come with scikit-image. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from PIL import Image

from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.images import ImageError, PixelBox
from ssl4rl_plugin.data.source import Record, Source, SourceError

PHOTOS: dict[str, str] = {
    "astronaut.png": "train",
    "coffee.png": "train",
    "hubble_deep_field.jpg": "train",
    "ihc.png": "train",
    "retina.jpg": "train",
    "rocket.jpg": "train",
    "chelsea.png": "val",
    "motorcycle_left.png": "val",
}
"""The colour photographs of the package and the split of each. The held-out ones are two everyday scenes with much structure
and colour, unlike the training ones: a cat's face and a motorcycle in a garage. `motorcycle_right.png` is left out because
it shows the same scene. Gray pictures (no colour to alter) and drawings are left out too."""


class SamplePhotosSource(Source):
    """Overlapping square crops of eight photographs; train and held-out crops come from different photographs.

    A ref is `<file>@<left>,<upper>,<right>,<lower>`: a crop has the same ref for all options.

    Args:
        path: None.
        crops: crops cut out of each photograph, 1 to 10,000.
        seed: changes which crops are cut.
        min_side: side of the smallest crop as a fraction of the photograph's shorter side, 0.2 to 0.9.
    """

    name: ClassVar[str] = "sample_photos"
    summary: ClassVar[str] = "crops of the photographs that come with scikit-image"
    schema: ClassVar[str] = "no files of yours: the pictures are inside the installed scikit-image package"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    licence: ClassVar[str] = "public domain or CC0, see skimage.data"
    where: ClassVar[str] = "pip install scikit-image"

    def __init__(self, path: str | Path | None = None, crops: int = 200, seed: int = 0, min_side: float = 0.5) -> None:
        if path is not None:
            raise SourceError(f"source 'sample_photos' takes no path, got {path}; for your own images use 'folder'")
        for name, value, low, high in (("crops", crops, 1, 10_000), ("min_side", min_side, 0.2, 0.9)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise SourceError(f"source 'sample_photos': {name} must be from {low} to {high}, got {value!r}")
        super().__init__(None, crops=int(crops), seed=int(seed), min_side=float(min_side))
        # Found without an import: importing scikit-image takes a second.
        spec = importlib.util.find_spec("skimage")
        if spec is None or spec.origin is None:
            raise SourceError("source 'sample_photos': scikit-image is not installed; pip install scikit-image")
        self.folder = Path(spec.origin).parent / "data"
        missing = [name for name in PHOTOS if not (self.folder / name).is_file()]
        if missing:
            raise SourceError(
                f"source 'sample_photos': {self.folder} lacks {', '.join(missing)}; pip install -U scikit-image"
            )

    def records(self) -> Iterator[Record]:
        for name in sorted(PHOTOS):
            with Image.open(self.folder / name) as photo:  # reads the header only
                size = photo.size
            rng = rng_for(self.options["seed"], "sample_photos", name)
            boxes: set[PixelBox] = set()
            while len(boxes) < self.options["crops"]:
                boxes.add(_box(size, self.options["min_side"], rng))
            for box in sorted(boxes):
                ref = f"{name}@{','.join(map(str, box))}"
                yield Record(ref, split=PHOTOS[name], group=name.partition(".")[0], box=box)

    def stamp(self, ref: str) -> tuple[int, int]:
        try:
            status = self._file(ref).stat()
        except OSError as error:
            raise ImageError("unreadable", str(error)) from error
        return status.st_size, status.st_mtime_ns

    def read(self, ref: str) -> bytes:
        try:
            return self._file(ref).read_bytes()
        except OSError as error:
            raise ImageError("unreadable", str(error)) from error

    def _file(self, ref: str) -> Path:
        name = ref.partition("@")[0]
        if name not in PHOTOS:
            raise SourceError(f"source 'sample_photos': {ref!r} is none of its crops")
        return self.folder / name


def _box(size: tuple[int, int], min_side: float, rng: random.Random) -> PixelBox:
    """A square inside a picture of this size. Its side is a uniform fraction of the shorter side, from `min_side` to 1."""
    width, height = size
    short = min(size)
    side = rng.randint(round(min_side * short), short)
    left, upper = rng.randint(0, width - side), rng.randint(0, height - side)
    return left, upper, left + side, upper + side
