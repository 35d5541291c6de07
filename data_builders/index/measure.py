"""Measures one record: the properties of its picture, or the reason for its rejection."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ssl4rl_plugin.data.images import ImageError, ImageInfo, PixelBox, checked_box, contrast, decode, entropy, luma
from ssl4rl_plugin.data.manifest import MEASUREMENTS
from ssl4rl_plugin.data.near_duplicates import signature
from ssl4rl_plugin.data.source import Source

MIN_SIDE = 28
"""Pixels along the shorter side below which a picture is `too_small`: one visual token of Qwen2.5-VL."""
MAX_ASPECT = 20
"""Longer side over shorter side above which a picture is rejected (`aspect`)."""
BLANK_CONTRAST = 0.01
"""Contrast below which a picture is `blank`: one colour, with faint noise at most. A page with one line has 0.03."""

FIGURE_PIXELS = 256 * 256
"""Entropy, contrast and signature are computed from the picture averaged down to this number of pixels or up to four
times as many. The values hardly change, and a large photograph takes a fraction of the time. A JPEG is decoded at a half, a
quarter or an eighth of its size if that leaves at least four times this number."""

RecordKey = tuple[str, PixelBox | None]
"""A record's ref and box."""
Measurements = tuple[Any, ...]
"""Values of MEASUREMENTS, in order; None for an unknown one."""


class RecordMeasurer:
    """Measures records of one source, one at a time.

    Args:
        source: the source to read from.
        max_source_pixels: pictures that declare more pixels are rejected unread.
    """

    def __init__(self, source: Source, max_source_pixels: int) -> None:
        self.source = source
        self._limit = max_source_pixels
        # A source with its own `inspect` decodes the picture itself, at full size.
        self._reducible = type(source).inspect is Source.inspect
        self._last: tuple[str, Any] = ("", None)  # crops of one picture come one after another

    def __call__(self, keys: Sequence[RecordKey]) -> list[Measurements]:
        """The measurements of each record, usable or not. Raises SourceError."""
        return [self._measured(ref, box) for ref, box in keys]

    def _measured(self, ref: str, box: PixelBox | None) -> Measurements:
        row: dict[str, Any] = {}
        try:
            # Stamp first: if the file changes while it is read, the stamp no longer fits, and it is measured again.
            row["bytes"], row["mtime_ns"] = self.source.stamp(ref)
            self._measure(ref, box, row)
        except ImageError as error:
            # The text may hold a file name that is not UTF-8; parquet takes UTF-8 only.
            detail = error.detail[:500].encode("utf-8", "backslashreplace").decode()
            row |= {"reason": error.reason, "detail": detail}
        return tuple(map(row.get, MEASUREMENTS))

    def _measure(self, ref: str, box: PixelBox | None, row: dict[str, Any]) -> None:
        """Fill in `row`. On ImageError `row` keeps the values so far."""
        # More bytes than four channels of 16 bits need: rejected unread.
        if self.source.kind == "image" and row["bytes"] > 8 * self._limit + 2**20:
            raise ImageError("too_large", f"{row['bytes']} bytes")
        data = self.source.read(ref)
        row["sha256"] = hashlib.sha256(data).hexdigest()
        info, image = self._decoded(ref, box, row["sha256"], data)
        if box is None:
            part = 0, 0, *image.size
            # With its own `inspect`, the source decides on the size.
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
        if box is None:  # a crop is not compared: smooth parts of pictures look alike
            row["signature"] = signature(small)
        gray = luma(small)
        row |= {"entropy": entropy(gray), "contrast": contrast(gray)}
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
