"""The video source: all video files below a folder, and all folders of numbered pictures.

A video is decoded once. The frames that tasks may use are kept as small JPEG pictures in the cache folder, so that training
decodes no video. Missing or damaged files in the cache are made again, with the same content.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
import statistics
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import Clip
from ssl4rl_plugin.core.files import cache_dir, writing
from ssl4rl_plugin.data.files import encoded
from ssl4rl_plugin.data.images import MAX_SOURCE_PIXELS, ImageError, ImageInfo, decode, open_rgb, shrink
from ssl4rl_plugin.data.source import Record, SourceError
from ssl4rl_plugin.data_builders.sources import folder
from ssl4rl_plugin.data_builders.sources.endings import VIDEOS
from ssl4rl_plugin.data_builders.sources.folder import FolderSource
from ssl4rl_plugin.tasks.image.views import fitted
from ssl4rl_plugin.tasks.video.clips import distances, probes

logger = logging.getLogger(__name__)

EXTENSIONS = VIDEOS
"""Endings of the file names listed as videos, in lower case."""
CONTAINERS = "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,mpegts,ogg,flv,asf"
"""FFmpeg's names of the accepted container formats. Playlists, which name other files and addresses, are excluded."""

LEAST_FRAMES = 16
"""Least number of different frames in the used part of a video."""
LEAST_SECONDS = 1.0
"""Shortest duration of a video."""
LEAST_PICTURES = 8
"""Least number of numbered pictures in a folder that is a video."""
MAX_FRAME_PIXELS = 8192 * 4320
"""Videos whose frames declare more are rejected before decoding."""
MAX_KEPT_SIDE = 2048
"""Largest option `max_side`, in pixels."""
MAX_PACKETS = 400_000
"""Most frames of a file: over an hour at 100 frames per second."""

STATIC_BELOW = 0.008
"""A video is static if the mean absolute difference (range [0, 1], small frames) is below this at every distance in time."""
LOOPS_BELOW = 0.3
"""A video loops if the difference at some distance in time is below this share of the largest one at shorter distances."""
CUT_FROM = 0.15
"""Difference from one sampled frame to the next that counts as a cut."""
MOST_CUTS = 0.25
"""Largest share of cuts among the steps between sampled frames. More is a slide show, or too long a video."""

_VERSION = 1  # of the frames in the cache; part of the file names there
_QUALITY = 92
_NUMBERED = re.compile(rb"(.*?)([0-9]+)\.[^.]*", re.DOTALL)
_SIGNATURES = (b"ftyp", b"moov", b"mdat", b"\x1a\x45\xdf\xa3", b"AVI ", b"OggS", b"FLV\x01", b"\x00\x00\x01\xba")


class VideoSource(FolderSource):
    """All video files below a folder, and all folders below it with one numbered picture per frame.

    A folder is a video if it holds at least 8 image files whose names end in a number, with the same text before it
    (`frame_0001.jpg`, ...). Its ref is its path with `/` at the end. A folder with several such series is skipped with a
    warning. Refs, links and hidden files are those of the folder source.

    Frames are taken at equal distances in time, by the time stamps in the file, from the part of the video between `trim`
    and 1 - `trim` of its duration. They are turned upright as the file states, and shrunk.

    Reasons for rejection: `not_a_video`, no video file or no frames in it; `broken` or `truncated`, not decodable up to the
    last frame taken; `too_short`, under a second, or fewer than 16 different frames in the used part; `too_long`;
    `too_large`; `mixed_sizes`, pictures of one folder differ in size; `static`, nothing moves; `looping`, it repeats itself,
    or plays forward and then backward; `scene_cuts`, more than a quarter of the steps are cuts.

    Args:
        path: the folder.
        frames: most frames taken of each video, 16 to 512.
        trim: share of the duration left out at both ends, in [0, 0.4].
        max_side: pixels along the longer side of the kept frames; larger frames are shrunk.
        frame_rate: frames per second of folders of pictures.
        max_seconds: longest duration. All frames up to the last one taken have to be decoded.
        max_gigabytes: largest file.
        root: see the folder source.
    """

    name: ClassVar[str] = "video"
    kind: ClassVar[str] = "video"
    summary: ClassVar[str] = "video files and folders of numbered frames below a folder, recursively"
    schema: ClassVar[str] = (
        "any tree of MP4, MOV, MKV, WebM, AVI, MPEG, OGV, FLV and WMV files that FFmpeg can decode, and of folders with "
        "at least 8 numbered pictures each"
    )
    where: ClassVar[str] = "give the folder that holds your videos"
    extensions: ClassVar[tuple[bytes, ...]] = EXTENSIONS + folder.EXTENSIONS
    listed: ClassVar[str] = "video"

    def __init__(
        self,
        path: str | Path | None,
        frames: int = 64,
        trim: float = 0.05,
        max_side: int = 336,
        frame_rate: float = 8.0,
        max_seconds: float = 600.0,
        max_gigabytes: float = 4.0,
        root: str | list[str] | None = None,
    ) -> None:
        for name, value, low, high in (
            ("frames", frames, LEAST_FRAMES, 512), ("trim", trim, 0, 0.4), ("max_side", max_side, 28, MAX_KEPT_SIDE),
            ("frame_rate", frame_rate, 0.1, 240), ("max_seconds", max_seconds, 1, 86_400),
            ("max_gigabytes", max_gigabytes, 1e-6, 1000),
        ):  # fmt: skip
            whole = name in ("frames", "max_side")
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else int | float)
                or not low <= value <= high
            ):
                kind = "a whole number" if whole else "a number"
                raise SourceError(f"source {self.name!r}: {name} must be {kind} from {low} to {high}, got {value!r}")
        super().__init__(path, root)
        self._in_no_series = 0
        self.options |= {
            "frames": frames, "trim": float(trim), "max_side": max_side, "frame_rate": float(frame_rate),
            "max_seconds": float(max_seconds), "max_gigabytes": float(max_gigabytes),
        }  # fmt: skip

    def records(self) -> Iterator[Record]:
        """Video files and folders of pictures, in the order of the folder source."""
        found = False
        self._in_no_series = 0
        for parent, listed in itertools.groupby(super().records(), key=lambda record: _parent(record.ref)):
            pictures = []
            for record in listed:
                if record.ref.lower().encode().endswith(EXTENSIONS):
                    found = True
                    _av()  # raises now if PyAV is missing
                    yield record
                else:
                    pictures.append(record.ref)
            series = _series(pictures)
            self._in_no_series += len(pictures) - sum(map(len, series))
            if len(series) > 1:
                logger.warning("%s%s holds several series of numbered pictures: skipped", self.path, f"/{parent}")
            elif series:
                found = True
                yield Record(parent)
        if not found:
            raise SourceError(
                f"source 'video': no video files below {self.path}, and no folder with at least {LEAST_PICTURES} "
                "numbered pictures (frame_0001.jpg, ...)"
            )

    def notes(self) -> list[str]:
        count = self._in_no_series
        pictures = f"{count} picture{'s are' if count > 1 else ' is'} in no series of numbered frames: not read"
        return super().notes() + ([f"{self.path}: {pictures}"] if count else [])

    def stamp(self, ref: str) -> tuple[int, int]:
        """Sums over all files of the item, so that a change of any file is noticed."""
        stamps = [self._locate(part)[1] for part in self._parts(ref)]
        return sum(size for size, _ in stamps), sum(time for _, time in stamps) % 2**63

    def read(self, ref: str) -> bytes:
        """A digest of the file, or of the names and contents of a folder's pictures. A video need not fit into memory."""
        limit = self.options["max_gigabytes"]
        if (size := self.stamp(ref)[0]) > limit * 1e9:
            raise ImageError("too_large", f"{size / 1e9:.2f} GB, limit {limit:g}")
        if size == 0:
            raise ImageError("zero_bytes", "the file is empty")
        digest = hashlib.sha256()
        for part in self._parts(ref):
            path, _ = self._locate(part)
            try:
                one = _file_digest(path)
            except OSError as error:
                raise ImageError("unreadable", f"{error.strerror}: {part}") from error
            digest.update(one if part == ref else os.path.basename(part).encode() + b"\0" + one)
        data = digest.hexdigest().encode()
        self._note(ref, data)
        return data

    def inspect(self, ref: str, data: bytes, max_source_pixels: int) -> tuple[ImageInfo, Image.Image]:
        """The middle frame, after all checks of the frames that tasks may use."""
        info, clip = self._film(ref, data, max_source_pixels)
        return info, clip.frames[len(clip.frames) // 2]

    def item(self, ref: str, picture: Callable[[], Image.Image], max_pixels: int | None) -> Clip:
        _, clip = self._film(ref, self._known(ref) or self.read(ref), MAX_SOURCE_PIXELS)
        return Clip(tuple(shrink(frame, max_pixels) for frame in clip.frames), clip.fps)

    # ------------------------------------------------------------------------------------------------ files

    def _parts(self, ref: str) -> list[str]:
        """Refs of the files of an item, in order."""
        if not ref.endswith("/"):
            return [ref]
        path = self._resolve(ref)
        try:
            names = [name for name in os.listdir(path) if not name.startswith(b".")]
        except OSError as error:
            raise ImageError("unreadable", f"{error.strerror}: {ref}") from error
        refs = [ref + encoded(name) for name in names if name.lower().endswith(folder.EXTENSIONS)]
        series = _series(refs)
        if len(series) != 1:
            raise ImageError("unreadable", f"{ref} no longer holds one series of numbered pictures")
        return series[0]

    # ------------------------------------------------------------------------------------------------ cache

    def _note(self, ref: str, data: bytes) -> None:
        """Store the digest of a file, so that the file is not read again for its frames."""
        _write(self._note_path(ref), data)

    def _known(self, ref: str) -> bytes | None:
        """The stored digest of a file that has not changed; None without one."""
        try:
            data = self._note_path(ref).read_bytes()
        except OSError:
            return None
        return data if re.fullmatch(b"[0-9a-f]{64}", data) else None

    def _note_path(self, ref: str) -> Path:
        return _cache_path(os.fsencode(str(self.path)).hex(), ref, self.stamp(ref)).with_suffix(".txt")

    def _film(self, ref: str, data: bytes, max_source_pixels: int) -> tuple[ImageInfo, Clip]:
        """The frames, from the cache if possible."""
        options = {key: self.options[key] for key in ("frames", "trim", "max_side", "frame_rate", "max_seconds")}
        path = _cache_path(_VERSION, data.decode(), ref.endswith("/"), options).with_suffix(".zip")
        limit = min(max_source_pixels, MAX_FRAME_PIXELS)
        try:
            info, clip = _load(path)
        except _DamagedError:
            packed = _packed(*(self._pictures if ref.endswith("/") else self._video)(ref, limit))
            info, clip = _unpacked(packed)  # decoded again, so that they equal the frames in the cache
            _check(clip.frames)
            _write(path, packed)
        _check_size(info.width, info.height, limit)
        return info, clip

    def _video(self, ref: str, limit: int) -> tuple[ImageInfo, list[Image.Image], float]:
        """What the cache holds of a video file: its info, frames, and frames per second."""
        path, _ = self._locate(ref)
        times = _time_stamps(path, limit, self.options["trim"])
        longest = self.options["max_seconds"]
        if times[-1] - times[0] > longest:
            raise ImageError("too_long", f"{times[-1] - times[0]:.0f} seconds, limit {longest:g} (option max_seconds)")
        step = statistics.median(b - a for a, b in itertools.pairwise(times)) if len(times) > 1 else 0.0
        moments = self._moments(times, step)
        info, frames = _decoded(path, times, moments, step, limit, self.options["max_side"])
        return info, frames, 1 / (moments[1] - moments[0])

    def _pictures(self, ref: str, limit: int) -> tuple[ImageInfo, list[Image.Image], float]:
        """What the cache holds of a folder of pictures: info of the first, frames, and frames per second."""
        parts = self._parts(ref)
        step = 1 / self.options["frame_rate"]
        times = [k * step for k in range(len(parts))]
        moments = self._moments(times, step)
        first: ImageInfo | None = None
        frames: list[Image.Image] = []
        for moment in moments:
            part = parts[bisect.bisect(times, moment) - 1]
            path, _ = self._locate(part)
            try:
                info, image = decode(Path(os.fsdecode(path)), max_source_pixels=limit)
            except ImageError as error:
                raise ImageError(error.reason, f"{part}: {error.detail}") from error
            first = first or info
            if (info.width, info.height) != (first.width, first.height):
                raise ImageError(
                    "mixed_sizes", f"{part}: {info.width} x {info.height}, the first {first.width} x {first.height}"
                )
            frames.append(fitted(image, min(self.options["max_side"], max(image.size))))
        assert first is not None  # there are at least LEAST_FRAMES moments
        return first, frames, 1 / (moments[1] - moments[0])

    def _moments(self, times: Sequence[float], step: float) -> list[float]:
        """The moments at which frames are taken, in seconds. `times` are the starts of all frames.

        Raises ImageError(`too_short`).
        """
        begin, end = times[0], times[-1] + step
        if end - begin < LEAST_SECONDS - step / 2:
            raise ImageError("too_short", f"{end - begin:.2f} seconds, {LEAST_SECONDS:g} needed")
        margin = self.options["trim"] * (end - begin)
        inside = sum(begin + margin <= time < end - margin for time in times)
        count = min(self.options["frames"], inside)
        moments = [begin + margin + (end - begin - 2 * margin) * (k + 0.5) / max(1, count) for k in range(count)]
        different = len({bisect.bisect(times, moment) for moment in moments})
        if different < LEAST_FRAMES:
            raise ImageError("too_short", f"{different} different frames, {LEAST_FRAMES} needed")
        return moments


# ---------------------------------------------------------------------------------------------------- files


def _parent(ref: str) -> str:
    """The ref of a file's folder."""
    return f"{ref.rpartition('/')[0] or '.'}/"


def _series(refs: Sequence[str]) -> list[list[str]]:
    """The series of numbered pictures among the files of one folder, each in numeric order."""
    found: dict[bytes, list[tuple[int, bytes, str]]] = defaultdict(list)
    for ref in refs:
        name = unquote_to_bytes(ref.rpartition("/")[2])
        if match := _NUMBERED.fullmatch(name):
            found[match[1]].append((int(match[2][:18]), name, ref))
    return [[ref for *_, ref in sorted(series)] for series in found.values() if len(series) >= LEAST_PICTURES]


def _file_digest(path: bytes) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()


# ---------------------------------------------------------------------------------------------------- decoding


def _av() -> Any:
    """PyAV. Raises SourceError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise SourceError(
            f"source 'video': video files need PyAV ({error}): pip install 'ssl4rl-plugin[video]'"
        ) from error
    return av


@contextmanager
def _opened(path: bytes) -> Iterator[Any]:
    """The container. FFmpeg's errors, here or in the block, become ImageErrors."""
    av = _av()
    try:
        # A file object, not a name: FFmpeg then opens no other file that this one names.
        with open(path, "rb") as file:
            head = file.read(4096)
            file.seek(0)
            try:
                container = av.open(
                    file,
                    container_options={"format_whitelist": CONTAINERS},
                    metadata_errors="replace",
                    buffer_size=2**18,
                )
            except av.error.FFmpegError as error:
                reason = "broken" if any(sign in head[:64] for sign in _SIGNATURES) else "not_a_video"
                raise ImageError(reason, f"{error.strerror}; starts with {head[:16]!r}") from error
            with container:
                yield container
    except av.error.FFmpegError as error:
        raise ImageError("broken", str(error.strerror)) from error
    except OSError as error:
        raise ImageError("unreadable", str(error)) from error


def _stream(container: Any, limit: int) -> Any:
    """The video stream. Checks its declared size."""
    if not container.streams.video:
        raise ImageError("not_a_video", "no pictures in the file")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ImageError("broken", "no decoder for the pictures")
    _check_size(stream.codec_context.width, stream.codec_context.height, limit)
    return stream


def _check_size(width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise ImageError("too_large", f"{width} x {height} pixels a frame, limit {limit} in all")


def _time_stamps(path: bytes, limit: int, trim: float) -> list[float]:
    """The start of each frame in seconds, in order. Decodes none. Raises ImageError, also if the file ends before the
    duration that it declares."""
    times: list[float] = []
    end = 0.0  # of all streams
    with _opened(path) as container:
        stream = _stream(container, limit)
        for packet in container.demux():
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or not packet.size:
                continue
            time = float(stamp * packet.time_base)
            end = max(end, time + float((packet.duration or 0) * packet.time_base))
            if packet.stream.index == stream.index:
                times.append(time)
                if len(times) > MAX_PACKETS:
                    raise ImageError("too_long", f"more than {MAX_PACKETS} frames")
        told = stream.frames
        # Other formats only estimate their duration.
        exact = container.duration and {"mov", "matroska"} & set(container.format.name.split(","))
        seconds = (container.duration + max(0, container.start_time or 0)) / 1e6 if exact else 0.0
    if not times:
        raise ImageError("truncated" if told else "not_a_video", "no frame in the file")
    if len(times) < told * (1 - trim) - 1 or end < seconds * (1 - trim) - 0.1:
        raise ImageError("truncated", f"{len(times)} of {told or '?'} frames, {end:.2f} of {seconds:.2f} seconds")
    return sorted(times)


def _decoded(
    path: bytes, times: Sequence[float], moments: Sequence[float], step: float, limit: int, max_side: int
) -> tuple[ImageInfo, list[Image.Image]]:
    """The frames shown at the given moments, upright and shrunk."""
    found: list[Image.Image] = []
    with _opened(path) as container:
        stream = _stream(container, limit)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 2
        # A later frame may declare more pixels than the file; this rejects it before memory is allocated.
        stream.codec_context.options = {"max_pixels": str(limit)}
        last, picture, begun = None, None, 0.0
        for number, frame in enumerate(container.decode(stream)):
            _check_size(frame.width, frame.height, limit)
            now = frame.time if frame.time is not None else times[min(number, len(times) - 1)]
            while last is not None and len(found) < len(moments) and now > moments[len(found)]:
                picture = picture or _upright(last, stream, max_side)
                found.append(picture)
            if len(found) == len(moments):
                break
            last, picture, begun = frame, None, now
        while last is not None and len(found) < len(moments) and moments[len(found)] <= begun + 2 * step:
            picture = picture or _upright(last, stream, max_side)
            found.append(picture)
        if len(found) < len(moments):
            raise ImageError("truncated", f"only {len(found)} of {len(moments)} frames could be decoded")
        width, height = stream.codec_context.width, stream.codec_context.height
        turned = _turn(last)
        if turned in (90, 270):
            width, height = height, width
        info = ImageInfo(
            container.format.name.partition(",")[0], str(stream.codec_context.pix_fmt), width, height,
            {0: 1, 90: 8, 180: 3, 270: 6}[turned],
        )  # fmt: skip
    return info, found


def _turn(frame: Any) -> int:
    """Degrees counter-clockwise that turn a frame upright: 0, 90, 180 or 270."""
    return round(getattr(frame, "rotation", 0) / 90) % 4 * 90


def _upright(frame: Any, stream: Any, max_side: int) -> Image.Image:
    """A frame as an upright picture with square pixels, at most `max_side` along its longer side."""
    shape = float(stream.codec_context.sample_aspect_ratio or 1)
    wide = frame.width * (shape if 0.1 < shape < 10 else 1.0)
    scale = min(1.0, max_side / max(wide, frame.height))
    image = frame.to_image(
        width=max(1, round(wide * scale)), height=max(1, round(frame.height * scale)), interpolation="AREA"
    )
    turn = _turn(frame)
    return image.transpose(_TURNS[turn]) if turn else image


_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


# ---------------------------------------------------------------------------------------------------- checks


def _check(frames: Sequence[Image.Image]) -> None:
    """Raise ImageError for a video that tasks about time cannot use."""
    small = probes(frames, 16)
    between = distances(small)
    count = len(frames)
    # Mean difference of frames at each distance in time.
    by_lag = np.array([0.0, *(float(np.diagonal(between, lag).mean()) for lag in range(1, 2 * count // 3))])
    if by_lag.max() < STATIC_BELOW:
        raise ImageError("static", f"frames differ by at most {by_lag.max():.4f} at any distance in time")
    steps = np.diagonal(between, 1)
    if (cuts := int((steps > CUT_FROM).sum())) > MOST_CUTS * len(steps):
        raise ImageError("scene_cuts", f"{cuts} cuts in {len(steps)} steps")
    reached = np.maximum.accumulate(by_lag)
    if (again := np.flatnonzero(by_lag[1:] < LOOPS_BELOW * reached[1:])).size:
        raise ImageError("looping", f"repeats itself after {again[0] + 1} of {count} sampled frames")
    if float(np.diagonal(between[:, ::-1]).mean()) < LOOPS_BELOW * by_lag.max():
        raise ImageError("looping", "plays forward and then backward")


# ---------------------------------------------------------------------------------------------------- cache


class _DamagedError(Exception):
    """A file of the cache is missing or damaged."""


def _cache_path(*key: Any) -> Path:
    return cache_dir() / "frames" / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40]


def _write(path: Path, data: bytes) -> None:
    """Write a file of the cache. Failure is only a warning: without the cache everything works, but slower."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path, durable=False) as file:
            file.write(data)
    except OSError as error:
        logger.warning("frames cannot be kept in %s (%s): they will be decoded again", path.parent, error.strerror)


def _packed(info: ImageInfo, frames: Sequence[Image.Image], fps: float) -> bytes:
    """A ZIP file with the frames as JPEG pictures and `clip.json`. Equal frames give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        facts = {"info": asdict(info), "fps": fps, "frames": len(frames)}
        archive.writestr(zipfile.ZipInfo("clip.json"), json.dumps(facts, sort_keys=True))
        for number, frame in enumerate(frames):
            picture = io.BytesIO()
            frame.save(picture, "JPEG", quality=_QUALITY)
            archive.writestr(zipfile.ZipInfo(f"{number:04}.jpg"), picture.getvalue())
    return buffer.getvalue()


def _unpacked(data: bytes) -> tuple[ImageInfo, Clip]:
    """Unpack what `_packed` made. Raises _DamagedError for other bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # `_packed` stores entries uncompressed, so no entry is larger than the file.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed")
            facts = json.loads(archive.read("clip.json"))
            frames = tuple(
                open_rgb(archive.read(f"{number:04}.jpg"), max_source_pixels=MAX_KEPT_SIDE**2)
                for number in range(facts["frames"])
            )
        info, fps = ImageInfo(**facts["info"]), facts["fps"]
        numbers = (info.width, info.height, info.orientation)
        if not (all(type(number) is int for number in numbers) and type(fps) is float and 0 < fps < math.inf):
            raise ValueError(f"not written by `_packed`: {facts}")
        if len(frames) < LEAST_FRAMES or len({frame.size for frame in frames}) > 1:
            raise ValueError(f"{len(frames)} frames, or frames of several sizes")
        return info, Clip(frames, fps)
    # RuntimeError: an encrypted entry, or JSON nested too deep.
    except (zipfile.BadZipFile, ImageError, ValueError, TypeError, KeyError, EOFError, OSError, RuntimeError) as error:
        raise _DamagedError(str(error)) from error


@functools.lru_cache(maxsize=8)
def _load(path: Path) -> tuple[ImageInfo, Clip]:
    """Frames in the cache. Those of the last few videos stay in memory. Raises _DamagedError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _DamagedError(str(error)) from error
    return _unpacked(data)
