"""The figures of one record: what its picture is like, or why it cannot be used. The only place that decodes them all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ssl4rl_plugin.data.images import ImageError, ImageInfo, PixelBox, checked_box, contrast, decode, entropy, luma
from ssl4rl_plugin.data.manifest import MEASUREMENTS
from ssl4rl_plugin.data.near_duplicates import signature
from ssl4rl_plugin.data.source import Source

# pyarrow and imagehash (scipy) are imported where they are used: data-loader workers import this module.
if TYPE_CHECKING:
    pass

MIN_SIDE = 28
"""Pixels along the shorter side below which a picture is `too_small`: one visual token of Qwen2.5-VL."""
MAX_ASPECT = 20
"""Longer side over shorter side above which a picture is rejected (`aspect`)."""
BLANK_CONTRAST = 0.01
"""Contrast below which a picture is `blank`: one colour, with faint noise at most. A page with one line has 0.03."""

FIGURE_PIXELS = 256 * 256
"""Perceptual hash, entropy and contrast are those of the picture averaged down to about so many pixels (under four
times as many): they say the same, and cost a fraction of the time on a photograph of many megapixels. A JPEG is first
decoded at a half, a quarter or an eighth of its size where that leaves at least four times as many."""

RecordKey = tuple[str, PixelBox | None]
"""Which record: its ref and its box."""
Measurements = tuple[Any, ...]
"""Values of MEASUREMENTS; None for what is not known."""


class RecordMeasurer:
    """Measures records of one source, one at a time.

    Args:
        source: where they are read from.
        max_source_pixels: pictures that declare more pixels are rejected unread.
    """

    def __init__(self, source: Source, max_source_pixels: int) -> None:
        self.source = source
        self._limit = max_source_pixels
        # A source that looks at more than the picture decodes it by itself, at its full size.
        self._reducible = type(source).inspect is Source.inspect
        self._last: tuple[str, Any] = ("", None)  # crops of one picture come one after another

    def __call__(self, places: Sequence[RecordKey]) -> list[Measurements]:
        """What is found out about each record, be it good or bad. Raises SourceError."""
        return [self._figures(ref, box) for ref, box in places]

    def _figures(self, ref: str, box: PixelBox | None) -> Measurements:
        row: dict[str, Any] = {}
        try:
            # Before the bytes are read: of a file that changes meanwhile, the stamp will not fit the next time.
            row["bytes"], row["mtime_ns"] = self.source.stamp(ref)
            self._measure(ref, box, row)
        except ImageError as error:
            # File names that are not UTF-8 may be part of the text; parquet takes UTF-8 only.
            detail = error.detail[:500].encode("utf-8", "backslashreplace").decode()
            row |= {"reason": error.reason, "detail": detail}
        return tuple(map(row.get, MEASUREMENTS))

    def _measure(self, ref: str, box: PixelBox | None, row: dict[str, Any]) -> None:
        """Fill in `row`. Raises ImageError, after what was found out by then is in `row`."""
        import imagehash

        # More than 16 bits in four channels need: not read at all.
        if self.source.kind == "image" and row["bytes"] > 8 * self._limit + 2**20:
            raise ImageError("too_large", f"{row['bytes']} bytes")
        data = self.source.read(ref)
        row["sha256"] = hashlib.sha256(data).hexdigest()
        info, image = self._decoded(ref, box, row["sha256"], data)
        if box is None:
            part = 0, 0, *image.size
            # A source of its own kind says of itself how large what it shows is.
            width, height = (info.width, info.height) if self._reducible else image.size
        else:
            part = checked_box(box, image)
            width, height = part[2] - part[0], part[3] - part[1]
        row |= {"width": width, "height": height, "mode": info.mode, "exif_orientation": info.orientation}
        if min(width, height) < MIN_SIDE:
            raise ImageError("too_small", f"{width} x {height}, shorter side below {MIN_SIDE} pixels")
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ImageError("aspect", f"{width} x {height}, more than {MAX_ASPECT} to 1")
        pixels = (part[2] - part[0]) * (part[3] - part[1])
        small = image.reduce(max(1, math.isqrt(pixels // FIGURE_PIXELS)), box=part)
        if box is None:  # a crop is not compared with others: a smooth part of a picture looks like many
            row["signature"] = signature(small)
        gray = luma(small)
        bits = imagehash.phash(gray).hash
        row |= {"phash": np.packbits(bits).tobytes().hex(), "entropy": entropy(gray), "contrast": contrast(gray)}
        if row["contrast"] < BLANK_CONTRAST:
            raise ImageError("blank", f"contrast {row['contrast']:.4f} is below {BLANK_CONTRAST}")

    def _decoded(self, ref: str, box: PixelBox | None, sha256: str, data: bytes) -> tuple[ImageInfo, Image.Image]:
        if box is None and self._reducible:
            return decode(data, max_source_pixels=self._limit, least_pixels=4 * FIGURE_PIXELS)
        if box is None:
            return self.source.inspect(ref, data, self._limit)
        if self._last[0] != sha256:
            self._last = sha256, self.source.inspect(ref, data, self._limit)
        return self._last[1]
