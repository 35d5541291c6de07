"""Safe image decoding, and the statistics of a picture that tasks and manifests share.

Any file (palette, CMYK, 16-bit, animated, rotated by EXIF, malicious) gives an upright 8-bit RGB picture, or raises an
`ImageError` that names the reason. Nothing here changes Pillow's global settings.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError, features

from ssl4rl_plugin.core.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""The formats that are decoded, beside AVIF and (with pillow-heif) HEIC. Excluded are formats that run programs (EPS) and
rare ones."""

NO_READER = {
    "no_heic_reader": "pip install 'ssl4rl-plugin[heif]'",
    "no_avif_reader": "pip install --upgrade pillow: this build has no AVIF decoder",
}
"""Reasons of pictures whose decoder is not installed -> what to do."""

MAX_SOURCE_PIXELS = 100_000_000
"""Default limit on the pixels that a file declares. Pillow's own limit (about 179 million) always holds too."""

# The first bytes of FORMATS, to distinguish a damaged picture from another kind of file.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"RIFF", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"P1", b"P2", b"P3", b"P4",
          b"P5", b"P6")  # fmt: skip

# Brands of the ISO container (`ftyp`) that HEIC and AVIF share; `mif1` may be either.
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_SHARED_BRANDS = frozenset((b"mif1", b"msf1"))

# The first bytes of files that are often given the name of a picture.
_NOT_IMAGES = {
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file with `git lfs pull`",
    b"<!doctype html": "a web page, perhaps a failed download",
    b"<html": "a web page, perhaps a failed download",
    b"<svg": "SVG: convert it to PNG",
    b"<?xml": "XML",
    b"%pdf": "PDF",
    b"8bps": "Photoshop's PSD: convert it to PNG",
    b"\0\0\0\x0cjp": "JPEG 2000: convert it to PNG or JPEG",
    b"\xff\x4f\xff\x51": "JPEG 2000: convert it to PNG or JPEG",
    b"\xff\x0a": "JPEG XL: convert it to PNG or JPEG",
    b"\0\0\0\x0cjxl ": "JPEG XL: convert it to PNG or JPEG",
}

# EXIF orientation -> operation that turns the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_DIFFERENCE_SIDE = 32


PixelBox = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels of the upright picture; right and lower are exclusive."""


class ImageError(UserError):
    """A picture cannot be used.

    `reason` is a short snake_case name, by which such pictures are counted; `detail` explains it. Reasons of this module:
    `zero_bytes`, `not_an_image`, `truncated`, `broken`, `too_large`, `unsupported_mode`, `unreadable`, and those in
    `NO_READER`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(frozen=True)
class ImageInfo:
    """Properties of a picture, as stored in its file."""

    format: str
    """Pillow's name for the file format, e.g. `JPEG`."""
    mode: str
    """Pillow's name for the stored pixel format, e.g. `CMYK`."""
    width: int
    """Pixels, after the EXIF orientation is applied."""
    height: int
    """Pixels, after the EXIF orientation is applied."""
    orientation: int
    """EXIF orientation, 1 to 8; 1 if it is missing or invalid."""


def open_rgb(
    data: bytes | Path, *, max_source_pixels: int = MAX_SOURCE_PIXELS, max_pixels: int | None = None
) -> Image.Image:
    """Decode a picture to upright 8-bit RGB.

    Transparent pixels are blended with white. 16-bit and float values are scaled, not clipped. An animation gives its
    first frame.

    Args:
        data: the file's bytes, or its path.
        max_source_pixels: files that declare more pixels are refused before decoding.
        max_pixels: a larger picture is shrunk to at most this many pixels and keeps its aspect ratio; None for no limit.

    Raises:
        ImageError: the picture cannot be used; see its `reason`.
    """
    return decode(data, max_source_pixels=max_source_pixels, max_pixels=max_pixels)[1]


def decode(
    data: bytes | Path,
    *,
    max_source_pixels: int = MAX_SOURCE_PIXELS,
    max_pixels: int | None = None,
    least_pixels: int | None = None,
) -> tuple[ImageInfo, Image.Image]:
    """`open_rgb`, together with the picture's properties (width and height are those before shrinking).

    `least_pixels` is for measurements: a JPEG is decoded at the smallest of 1, 1/2, 1/4 or 1/8 of its size that keeps
    at least this many pixels. The file is still read to its end, so damage is found.
    """
    if isinstance(data, Path):
        try:
            data = data.read_bytes()
        except OSError as error:
            raise ImageError("unreadable", str(error)) from error
    if not data:
        raise ImageError("zero_bytes", "the file is empty")
    try:
        with _opened(data) as image:
            return _decode(image, max_source_pixels, max_pixels, least_pixels)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", str(error)) from error
    # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        if isinstance(error, UnidentifiedImageError):
            if not data.startswith(_MAGIC) and not _container(data):
                raise ImageError("not_an_image", _seen(data)) from error
            detail = f"damaged header, {len(data)} bytes"
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise ImageError("truncated" if truncated else "broken", detail) from error


def _opened(data: bytes) -> ImageFile.ImageFile:
    """Open a picture with Pillow, or with pillow-heif, which is imported only for a HEIC picture."""
    kind = _container(data)
    if kind == "HEIF":
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            raise ImageError("no_heic_reader", f"a HEIC picture: {NO_READER['no_heic_reader']}") from error
        heif: ImageFile.ImageFile = HeifImageFile(io.BytesIO(data))
        return heif
    if kind == "AVIF" and not features.check("avif"):
        raise ImageError("no_avif_reader", f"an AVIF picture: {NO_READER['no_avif_reader']}")
    # Pillow before 11.3 does not know the name AVIF, so it is not among FORMATS.
    return Image.open(io.BytesIO(data), formats=(kind,) if kind else FORMATS)


def _container(data: bytes) -> str | None:
    """HEIF or AVIF by the brands in the file's first box; None for other files."""
    if data[4:8] != b"ftyp":
        return None
    box = data[8 : max(16, min(int.from_bytes(data[:4], "big"), 256))]
    brands = {box[:4], *(box[start : start + 4] for start in range(8, len(box), 4))}
    # Files of several pictures name both; the first brand is the main one.
    if box[:4] in _AVIF_BRANDS or (brands & _AVIF_BRANDS and not brands & _HEIF_BRANDS):
        return "AVIF"
    return "HEIF" if brands & (_HEIF_BRANDS | _SHARED_BRANDS) else None


def _seen(data: bytes) -> str:
    """What a file is that is no picture, as far as its first bytes tell."""
    start = data[:64].lstrip().lower() if data[:1].isspace() or data[:1] == b"<" else data[:64].lower()
    kind = next((kind for magic, kind in _NOT_IMAGES.items() if start.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        kind = "a video or audio file (source video reads videos)"
    return f"{kind}; starts with {data[:16]!r}" if kind else f"starts with {data[:16]!r}"


def _decode(
    image: ImageFile.ImageFile, max_source_pixels: int, max_pixels: int | None, least_pixels: int | None
) -> tuple[ImageInfo, Image.Image]:
    """The part of `decode` between opening and closing the file."""
    width, height = image.size
    if width * height > max_source_pixels:
        raise ImageError("too_large", f"{width} x {height} pixels, limit {max_source_pixels} in all")
    name, mode = (image.format or "").replace("MPO", "JPEG"), image.mode
    # Read it after loading for PNG: `getexif` would load the picture here. Read it before loading for other formats:
    # on loading a TIFF, Pillow turns the picture and drops the value (`image.size` above is that of the turned picture).
    orientation = 1 if name == "PNG" else _orientation(image)
    if max_pixels is not None and name == "JPEG":
        # libjpeg shrinks by 2, 4 or 8 while it decodes: faster, and only detail is lost that the result cannot show.
        image.draft(None, fitted_size(width, height, max_pixels))
    elif least_pixels is not None and name == "JPEG":
        scale = max(1, math.isqrt(width * height // least_pixels))  # Pillow rounds down to 1, 2, 4 or 8
        image.draft(None, (max(1, width // scale), max(1, height // scale)))
    image.load()
    if name == "PNG":
        orientation = _orientation(image)
    rgb = _to_rgb(image)
    if max_pixels is not None:
        target = fitted_size(width, height, max_pixels)
        if target != rgb.size:
            rgb = rgb.resize(target, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if name != "TIFF":
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
        if orientation >= 5:
            width, height = height, width
    rgb.info = {}  # metadata of the file, which every crop and resize would copy
    return ImageInfo(name, mode, width, height, orientation), rgb


def shrink(image: Image.Image, max_pixels: int | None) -> Image.Image:
    """The picture shrunk to at most `max_pixels` pixels with the same aspect ratio; unchanged if it is small enough."""
    if max_pixels is None:
        return image
    size = fitted_size(*image.size, max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def fitted_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """The largest size with the same aspect ratio and at most `max_pixels` pixels, never larger than the given size."""
    if max_pixels < 1:
        raise ValueError(f"max_pixels must be at least 1, got {max_pixels}")
    if width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    wide, high = max(1, int(width * scale)), max(1, int(height * scale))
    # A side of one pixel cannot shrink, so the other side does.
    return min(wide, max_pixels // high or 1), min(high, max_pixels // wide or 1)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 if it is missing, damaged or out of range."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # Pillow raises nearly anything on a damaged EXIF block; the picture is still usable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture of any mode as 8-bit RGB."""
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    try:
        if not image.has_transparency_data:
            # Always a copy: the caller closes the file of `image`.
            return image.copy() if image.mode == "RGB" else image.convert("RGB")
        rgba = image.convert("RGBA")
    except ValueError as error:
        raise ImageError("unsupported_mode", f"mode {image.mode}: {error}") from error
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _to_8_bit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scale integer or float pixel values (h, w) to uint8 according to their range.

    Integers up to 65535 are divided by 257 (which maps 0 to 0 and 65535 to 255). Floats in [0, 1] are multiplied by
    255, floats up to 255 kept, floats up to 65535 divided by 257. Other values are stretched from [minimum, maximum] to
    [0, 255]. Values that are not finite count as 0.
    """
    flat = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(flat.min()), float(flat.max())
    real = values.dtype.kind == "f"
    if low < 0 or high > 65535:
        flat = (flat - low) * (255.0 / (high - low)) if high > low else np.zeros_like(flat)
    elif real and high <= 1.0:
        flat = flat * 255.0
    elif not real or high > 255:
        flat = flat / 257.0
    return np.rint(flat).astype(np.uint8)


def _as_image(picture: Image.Image | np.ndarray[Any, Any]) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise TypeError(f"expected a uint8 array of shape (h, w, 3), got {picture.dtype} {picture.shape}")
    return Image.fromarray(picture)


def thumbnail_array(image: Image.Image | np.ndarray[Any, Any], side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The picture resized to a square: float32 of shape (side, side, 3), values in [0, 1].

    Args:
        image: RGB picture, or uint8 array of shape (h, w, 3).
        side: pixels along each side of the result.
    """
    small = _as_image(image).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def luma(image: Image.Image | np.ndarray[Any, Any]) -> Image.Image:
    """The picture in gray (mode L); unchanged if it is gray already."""
    return image if isinstance(image, Image.Image) and image.mode == "L" else _as_image(image).convert("L")


def contrast(image: Image.Image | np.ndarray[Any, Any]) -> float:
    """Standard deviation of the luma, in [0, 0.5]: 0 for one gray value everywhere, 0.5 for half black, half white."""
    histogram = np.asarray(luma(image).histogram(), dtype=np.float64)
    levels = np.arange(256) / 255.0
    weights = histogram / histogram.sum()
    mean = float(weights @ levels)
    return min(0.5, math.sqrt(float(weights @ (levels - mean) ** 2)))


def entropy(image: Image.Image | np.ndarray[Any, Any]) -> float:
    """Entropy of the luma's histogram in bits, in [0, 8]: 0 for a picture of one gray value."""
    return max(0.0, luma(image).entropy())


def difference(a: Image.Image | np.ndarray[Any, Any], b: Image.Image | np.ndarray[Any, Any]) -> float:
    """Mean absolute difference of two pictures' 32 x 32 thumbnails, in [0, 1]; their sizes may differ."""
    return float(np.abs(thumbnail_array(a, _DIFFERENCE_SIDE) - thumbnail_array(b, _DIFFERENCE_SIDE)).mean())


def least_difference(pictures: Sequence[Image.Image]) -> float:
    """The smallest `difference` of any two of several pictures. Resizes each picture once."""
    small = [thumbnail_array(picture, _DIFFERENCE_SIDE) for picture in pictures]
    return min(float(np.abs(a - b).mean()) for a, b in combinations(small, 2))


def checked_box(box: PixelBox, image: Image.Image) -> PixelBox:
    """Return the box. Raises ImageError (`bad_box`) if it does not lie inside the picture."""
    left, upper, right, lower = box
    if not (0 <= left < right <= image.width and 0 <= upper < lower <= image.height):
        raise ImageError("bad_box", f"box {box} does not lie inside {image.width} x {image.height} pixels")
    return box
