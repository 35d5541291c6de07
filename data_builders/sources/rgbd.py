"""The RGB-D source: a folder of pictures, each with a depth map."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import RGBD
from ssl4rl_plugin.data.depth import MAX_DEPTH, metres, resampled
from ssl4rl_plugin.data.images import MAX_SOURCE_PIXELS, ImageError, ImageInfo, decode
from ssl4rl_plugin.data.source import Record, SourceError
from ssl4rl_plugin.data_builders.sources.folder import FolderSource

PICTURE_FOLDERS = ("rgb", "image", "images", "color")
"""Folders of pictures that may have a folder `depth` beside them, with depth maps of the same stems."""

DEPTH_SUFFIX = "_depth"
"""Suffix of a depth map in the same folder, after the picture's stem."""
DEPTH_FIELD, COLOUR_FIELD = ".depth", ".color"
"""Suffixes of a depth map and its picture in 7-Scenes: `frame-000000.depth.png`, `frame-000000.color.png`."""

DEPTH_ENDINGS = (".npy", ".png", ".tif", ".tiff")
"""Endings of depth maps, in the order in which they are tried."""
NOT_READ = (".exr", ".pfm", ".h5", ".mat", ".dpt", ".raw", ".bin", ".npz", ".pgm", ".jpg")
"""Endings of depth maps that are not read. A rejection names such a file."""

MIN_VALID = 0.3
"""Least share of pixels with known depth."""

_LENGTH_BYTES = 8  # bytes at the end of `read` that hold the length of the picture
_BYTES_PER_PIXEL = 8  # of a depth map: a double
_ANY_PICTURE = 2 * MAX_SOURCE_PIXELS  # more than Pillow opens: the index has checked the limit already


class RgbdSource(FolderSource):
    """All pictures below a folder that have a depth map of the same size.

    The depth map of `NAME.jpg` (or .png, ...) is the first of these files that exists:

    - `NAME_depth.npy`, `.png`, `.tif` or `.tiff` in the same folder; an optional `NAME_depth_mask.npy` is 0 where the depth
      is not valid (the layout of DIODE);
    - `NAME.depth.png` (or .npy, .tif, .tiff) in the same folder, for a picture `NAME.color.png` or `NAME.jpg` (7-Scenes);
    - `NAME.npy` in the same folder;
    - `NAME.npy`, `.png`, `.tif` or `.tiff` in a folder `depth`, where the picture is in a folder `rgb`, `image`, `images` or
      `color` beside it (`scene/rgb/a.jpg` and `scene/depth/a.png`).

    NPY files hold metres: float16, 32 or 64 of shape (height, width) or (height, width, 1). PNG files have one channel
    of 16 bits; 8 bits are rejected, since their unit is unknown. TIFF files have one channel of 16-bit integers, or of
    floats in metres. Depth that is 0, negative, NaN, infinite, the largest value of its type (65535 in 7-Scenes and Kinect)
    or beyond `max_depth` counts as unknown: no task compares it. Refs, links and hidden files are those of the folder
    source.

    Reasons for rejection: `no_depth_file`; `depth_size`, not the picture's size; `bad_depth`, unreadable or of another
    type; `no_depth`, known in under 30 % of the pixels; `orientation`, EXIF turns the picture but not its depth map.

    Args:
        path: the folder.
        depth_scale: integer values per metre: 1000 for millimetres, 5000 for TUM RGB-D, 256 for KITTI. `ssl4rl index` prints
            the depths that it gives, and warns if they fit neither a room nor a street.
        max_depth: metres. Depths beyond are unknown: the sky, or a sensor's mark for no measurement.
        root: see the folder source.
    """

    name: ClassVar[str] = "rgbd"
    kind: ClassVar[str] = "rgbd"
    summary: ClassVar[str] = "image files below a folder with a depth map beside each"
    schema: ClassVar[str] = (
        "NAME.jpg with NAME_depth.npy, NAME_depth.png or NAME.npy, or rgb/NAME.jpg with depth/NAME.png; PNG or TIFF of 16 "
        "bits (depth_scale values per metre), NPY or TIFF of floats (metres); 0, NaN or the largest value where unknown"
    )
    where: ClassVar[str] = "give the folder that holds your images and depth maps"

    def __init__(
        self,
        path: str | Path | None,
        depth_scale: float = 1000.0,
        max_depth: float = MAX_DEPTH,
        root: str | list[str] | None = None,
    ) -> None:
        if not _is_positive(depth_scale):
            raise SourceError(
                f"source 'rgbd': depth_scale is the PNG value of one metre, a number above 0; got {depth_scale!r}"
            )
        if not _is_positive(max_depth):
            raise SourceError(f"source 'rgbd': max_depth is a number of metres above 0; got {max_depth!r}")
        super().__init__(path, root)
        self.options |= {"depth_scale": float(depth_scale), "max_depth": float(max_depth)}

    def records(self) -> Iterator[Record]:
        """The pictures, without the depth maps."""
        found = False
        for record in super().records():
            path = PurePosixPath(record.ref)
            if not (path.stem.endswith((DEPTH_SUFFIX, DEPTH_FIELD)) or "depth" in path.parts[:-1]):
                found = True
                yield record
        if not found:
            raise SourceError(f"source 'rgbd': below {self.path} there are depth maps only; {self.schema}")

    def stamp(self, ref: str) -> tuple[int, int]:
        """Sums over all files of the item, so that a change of any file is noticed."""
        stamps = [self._locate(part)[1] for part in self._files(ref)]
        return sum(size for size, _ in stamps), sum(time for _, time in stamps) % 2**63

    def read(self, ref: str) -> bytes:
        """The picture, its depth files, and the picture's length. Image decoders stop at the end of the picture."""
        name, *rest = self._files(ref)
        picture, depth = super().read(name), [self._bounded(part, _ANY_PICTURE) for part in rest]
        return b"".join([picture, *depth, len(picture).to_bytes(_LENGTH_BYTES, "big")])

    def inspect(self, ref: str, data: bytes, max_source_pixels: int) -> tuple[ImageInfo, Image.Image]:
        # Otherwise bytes of the depth map would complete a truncated picture.
        length = int.from_bytes(data[-_LENGTH_BYTES:], "big")
        info, image = decode(data[:length], max_source_pixels=max_source_pixels)
        if info.orientation != 1:
            raise ImageError("orientation", f"EXIF orientation {info.orientation}; turn picture and depth map upright")
        depth = self._depth(ref, max_source_pixels, image.size)
        known = float(np.isfinite(depth).mean())
        if known < MIN_VALID:
            raise ImageError(
                "no_depth",
                f"known in {known:.1%} of the pixels, {MIN_VALID:.0%} are needed; {self._stored(ref, max_source_pixels)}",
            )
        return info, image

    def item(self, ref: str, picture: Callable[[], Image.Image], max_pixels: int | None) -> RGBD:
        image = picture()
        depth = self._depth(ref, _ANY_PICTURE)
        if depth.shape[0] < image.height or depth.shape[1] < image.width:
            raise ImageError("depth_size", f"{ref}: the depth map changed since it was indexed")
        return RGBD(image, resampled(depth, image.size))

    def _files(self, ref: str) -> list[str]:
        """Refs of the picture, its depth map and, if there is one, the mask of valid pixels."""
        self._locate(ref)  # errors of the picture itself come first
        path = PurePosixPath(ref)
        stem = str(path.parent / path.stem)
        first = f"{stem}{DEPTH_SUFFIX}"
        field = f"{stem.removesuffix(COLOUR_FIELD)}{DEPTH_FIELD}"
        bases = [first, field]
        options = [f"{base}{ending}" for base in bases for ending in DEPTH_ENDINGS] + [f"{stem}.npy"]
        above = [number for number, part in enumerate(path.parts[:-1]) if part in PICTURE_FOLDERS]
        if above:
            beside = PurePosixPath(*path.parts[: above[-1]], "depth", *path.parts[above[-1] + 1 : -1], path.stem)
            bases.append(str(beside))
            options += [f"{beside}{ending}" for ending in DEPTH_ENDINGS]
        for depth in options:
            if self._exists(depth):
                mask = f"{stem}{DEPTH_SUFFIX}_mask.npy"
                return [ref, depth, mask] if self._exists(mask) else [ref, depth]
        unread = [f"{base}{ending}" for base in bases for ending in NOT_READ if self._exists(f"{base}{ending}")]
        remedy = f"; {unread[0]} is not read: convert it to NPY in metres or to PNG of 16 bits" if unread else ""
        raise ImageError("no_depth_file", f"none of {', '.join(options)}{remedy}")

    def _exists(self, ref: str) -> bool:
        """Whether a file exists. True also for a link that leads outside, so that reading it raises the error."""
        try:
            self._locate(ref)
        except ImageError as error:
            return error.reason == "outside_root"
        return True

    def _depth(self, ref: str, limit: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Depth in metres, float32 (height, width), NaN where unknown. At most `limit` pixels, and of `size` if given."""

        def check(width: int, height: int) -> None:
            """Check before decoding: a small file may declare a very large map."""
            if width * height > limit:
                raise ImageError("too_large", f"depth of {width} x {height} pixels, limit {limit} in all")
            if size not in (None, (width, height)):
                raise ImageError("depth_size", f"depth of {width} x {height} pixels, picture of {size}")

        _, name, *mask_name = self._files(ref)
        stored = self._values(name, limit, check)
        scale = 1.0 if stored.dtype.kind == "f" else self.options["depth_scale"]
        depth = metres(stored, scale, self.options["max_depth"])
        if mask_name:
            mask = _from_npy(self._bounded(mask_name[0], limit), "fbiu", check)
            if mask.shape != depth.shape:
                raise ImageError("depth_size", f"mask of shape {mask.shape}, depth of shape {depth.shape}")
            depth[~(mask > 0)] = np.nan
        return depth

    def _values(self, name: str, limit: int, check: Callable[[int, int], None]) -> np.ndarray:
        """The values (height, width) of a depth file, as stored: integers, or floats in metres."""
        data = self._bounded(name, limit)
        if name.endswith(".npy"):
            return _from_npy(data, "f", check)
        return _from_picture(data, "PNG" if name.endswith(".png") else "TIFF", check)

    def _stored(self, ref: str, limit: int) -> str:
        """The range of the stored values and how they are read, for messages."""
        name = self._files(ref)[1]
        values = self._values(name, limit, lambda width, height: None)
        seen = values[np.isfinite(values) & (values > 0)]
        if not seen.size:
            return f"{name} has no value above 0"
        unit = (
            "metres" if values.dtype.kind == "f" else f"values, {self.options['depth_scale']:g} a metre (depth_scale)"
        )
        return (
            f"{name} holds {seen.min():g} to {seen.max():g} {unit}; unknown are the largest value of its type and all "
            f"beyond max_depth={self.options['max_depth']:g} metres"
        )

    def _bounded(self, ref: str, limit: int) -> bytes:
        """The bytes of a depth file. Raises ImageError if it is larger than `limit` pixels need."""
        size = self._locate(ref)[1][0]
        if size > _BYTES_PER_PIXEL * limit + 2**16:
            raise ImageError("too_large", f"{ref} has {size} bytes")
        return super().read(ref)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9


def _from_picture(data: bytes, form: str, check: Callable[[int, int], None]) -> np.ndarray:
    """The values of a PNG or TIFF file with one channel of 16 bits (uint16), or of a TIFF file with one channel of floats.
    `check` gets its width and height before decoding."""
    try:
        with Image.open(io.BytesIO(data), formats=(form,)) as image:
            check(*image.size)
            # Pillow's mode for 16-bit gray is "I;16", and "I" before version 11; "F" for floats.
            if form == "TIFF" and image.mode == "F":
                return np.asarray(image, np.float32)
            if not image.mode.startswith("I") or (form == "TIFF" and not image.mode.startswith("I;16")):
                raise ImageError("bad_depth", f"{form} of mode {image.mode}; one channel of 16 bits is needed")
            return np.asarray(image).astype(np.uint16)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", str(error)) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageError("bad_depth", f"{type(error).__name__}: {error}") from error


def _from_npy(data: bytes, kinds: str, check: Callable[[int, int], None]) -> np.ndarray:
    """The array (height, width) of an NPY file with a `dtype.kind` in `kinds`. The header is checked before the values are
    read. Nothing is unpickled."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
    except Exception as error:  # a damaged header raises nearly anything
        raise ImageError("bad_depth", f"no NPY header: {error}") from error
    if dtype.kind not in kinds or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 1) or min(shape) < 1:
        raise ImageError("bad_depth", f"an array of {dtype} and shape {shape}; (height, width) of floats is needed")
    check(shape[1], shape[0])
    if shape[0] * shape[1] * dtype.itemsize != len(data) - stream.tell():
        raise ImageError("bad_depth", f"{len(data)} bytes do not hold shape {shape} of {dtype}")
    stream.seek(0)
    return np.load(stream, allow_pickle=False).reshape(shape[:2])
