"""Features of a sample that ignore what its pictures show: sizes, bytes, border lines, sharpness, colours.

Every picture becomes a few dozen numbers, in six groups. Nothing here depends on tasks or answers.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops
from scipy.fft import dctn

from ssl4rl_plugin.core import Clip, Sample

GROUPS: Mapping[str, str] = {
    "layout": "number of pictures and clips, width, height, aspect ratio, pixel format, frames, length of the prompt",
    "codec": "traces of 8x8 blocks, and the size of each picture in bytes as JPEG and PNG",
    "border": "the outermost lines: steps towards the next lines, flatness, share of black and white",
    "sharpness": "energy of the fine detail, independent of direction",
    "colour": "mean and spread of each channel and of the saturation, clipped values",
    "halves": "differences between halves of the picture in brightness, colour and fine detail",
}
"""Groups of features -> description."""
COMPARED = {"layout": 0, "border": 24, "sharpness": 0, "colour": 0}
"""Groups by which whole pictures are compared -> how many of their first numbers the comparison skips.

The skipped numbers belong to one side, corner or direction. They would match a picture to a turned or shifted copy, which is
what many tasks ask for. The other numbers do not change when a picture is turned or mirrored."""

JPEG_SIDE, PNG_SIDE = 224, 80
"""Maximum sides of the central crop whose bytes are measured. Encoding is slow, and a larger crop adds nothing."""
MAX_BLOCKS = 256
"""Maximum number of 8x8 blocks whose cosine transform is computed."""

FloatArray = np.ndarray


@dataclass(frozen=True)
class SampleFeatures:
    """The features of one sample."""

    prompt: FloatArray
    """Features of the whole sample; part of `layout`."""
    shown: dict[str, FloatArray]
    """Group -> one row for each picture; a clip gives its first, middle and last frame."""
    options: dict[str, FloatArray] | None
    """Group -> one row for each option; None if the sample has no options."""


def describe(sample: Sample) -> SampleFeatures:
    """The features of a sample with pictures."""
    known: dict[int, dict[str, FloatArray]] = {}  # most options are pictures that are shown

    def of(picture: Image.Image) -> dict[str, FloatArray]:
        if id(picture) not in known:
            known[id(picture)] = of_picture(picture)
        return known[id(picture)]

    shown = [of(image) for image in sample.images]
    shown += [of(frame) for clip in sample.videos for frame in _frames(clip)]
    options = []
    for option in sample.options:
        if isinstance(option, Clip):
            parts = [of(frame) for frame in _frames(option)]
            row = {group: np.concatenate([part[group] for part in parts]) for group in GROUPS}
            row["layout"] = np.concatenate([row["layout"], _timing(option)])
            options.append(row)
        elif isinstance(option, Image.Image):
            options.append(of(option))
    prompt = [
        len(sample.question),
        len(sample.question.split()),
        zlib.crc32(sample.question.encode("utf-8", "replace")) / 2**32,  # tells texts of equal length apart
        len(sample.images),
        len(sample.videos),
    ]
    timing = [_timing(clip) for clip in sample.videos]
    return SampleFeatures(
        np.concatenate([np.array(prompt, np.float32), *timing]),
        _stacked(shown),
        _stacked(options) if options else None,
    )


def of_picture(image: Image.Image) -> dict[str, FloatArray]:
    """The features of one picture of any size and mode, by group. Their number is fixed."""
    layout = [
        image.width,
        image.height,
        image.width / image.height,
        sum(map(ord, image.mode)),
        image.format is not None,
        len(image.info),
    ]
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    luma = np.asarray(rgb.convert("L"), np.float32)
    if min(luma.shape) < 20:  # every statistic below needs 20 pixels a side
        luma = np.pad(luma, [(0, max(0, 20 - side)) for side in luma.shape], mode="edge")
    across, down = np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=0))
    columns, rows = across.mean(axis=0), down.mean(axis=1)
    inner = luma[1:-1, 1:-1]
    laplacian = np.abs(4 * inner - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:])
    step = max(1, min(rgb.size) // 96)
    few = np.ascontiguousarray(np.asarray(rgb)[::step, ::step].transpose(2, 0, 1)).astype(np.float32)
    found = {
        "layout": layout,
        "codec": _codec(luma, columns, rows, rgb),
        "border": _border(luma, columns, rows),
        "sharpness": _sharpness(luma, laplacian, float(columns.mean() + rows.mean())),
        "colour": _colour(rgb),
        "halves": _halves(few, laplacian),
    }
    # Rounded: the order of summation differs between machines.
    return {group: np.round(np.array(numbers, np.float32), 3) for group, numbers in found.items()}


def _frames(clip: Clip) -> list[Image.Image]:
    return [clip.frames[0], clip.frames[len(clip.frames) // 2], clip.frames[-1]]


def _timing(clip: Clip) -> FloatArray:
    return np.array([len(clip.frames), clip.fps], np.float32)


def _stacked(rows: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    return {group: np.stack([row[group] for row in rows]) if rows else np.zeros((0, 0), np.float32) for group in GROUPS}


def _codec(luma: FloatArray, columns: FloatArray, rows: FloatArray, rgb: Image.Image) -> list[float]:
    across, down = _blocks(columns), _blocks(rows)
    return [*across, *down, *(max(pair) for pair in zip(across, down, strict=True)), *_cosines(luma), *_bytes(rgb)]


def _blocks(steps: FloatArray) -> list[float]:
    """How far the steps between neighbouring lines exceed their surroundings at every eighth line: from line 8, and any."""
    excess = steps[1:-1] - (steps[:-2] + steps[2:]) / 2
    phase = np.arange(len(excess)) % 8
    phases = np.bincount(phase, excess, 8) / np.bincount(phase, minlength=8) / (float(steps.mean()) + 0.1)
    highest = float(phases.max())
    return [float(phases[6]), highest, highest - float(phases.mean())]  # excess[6] belongs to lines 7 | 8


def _cosines(luma: FloatArray) -> list[float]:
    """Share of near-zero cosine coefficients in three bands, on the 8x8 grid from the corner, and minus a shifted grid's."""
    found = []
    for shift in (0, 4):
        part = luma[shift:, shift:]
        h, w = part.shape[0] // 8, part.shape[1] // 8
        blocks = part[: h * 8, : w * 8].reshape(h, 8, w, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
        blocks = blocks[:: max(1, len(blocks) // MAX_BLOCKS)]
        small = np.abs(dctn(blocks, axes=(1, 2), norm="ortho")) < 1.0
        found.append([float(small[:, band].mean()) for band in _BANDS])
    here, there = found
    return [*here, *(a - b for a, b in zip(here, there, strict=True))]


_ORDER = np.add.outer(np.arange(8), np.arange(8))
_BANDS = [np.isin(_ORDER, list(range(first, last + 1))) for first, last in ((1, 3), (4, 6), (7, 14))]


def _bytes(rgb: Image.Image) -> list[float]:
    """Logarithm of the bytes per pixel as JPEG and as PNG."""
    found = []
    for side, form, how in ((JPEG_SIDE, "JPEG", {"quality": 90}), (PNG_SIDE, "PNG", {"compress_level": 1})):
        w, h = min(rgb.width, side), min(rgb.height, side)
        left, upper = (rgb.width - w) // 2, (rgb.height - h) // 2
        buffer = io.BytesIO()
        rgb.crop((left, upper, left + w, upper + h)).save(buffer, form, **how)
        found.append(math.log(buffer.tell() / (w * h)))
    return found


def _border(luma: FloatArray, columns: FloatArray, rows: FloatArray) -> list[float]:
    """Six numbers for each side, then their maxima and minima over the sides."""
    spread = float(luma.std()) + 1.0
    usual_row, usual_column = float(np.median(rows)) + 1.0, float(np.median(columns)) + 1.0
    sides = []
    for steps, line, usual in (
        (rows, luma[0], usual_row),
        (rows[::-1], luma[-1], usual_row),
        (columns, luma[:, 0], usual_column),
        (columns[::-1], luma[:, -1], usual_column),
    ):
        sides.append(
            [
                math.log((float(steps[0]) + 1.0) / usual),
                math.log((float(steps[1]) + 1.0) / usual),
                math.log((float(steps[:8].max()) + 1.0) / usual),  # a frame of several pixels ends further inside
                float(line.std()) / spread,
                float((line < 8).mean()),
                float((line > 247).mean()),
            ]
        )
    by_side = np.array(sides)
    return [*by_side.ravel(), *by_side.max(axis=0), *by_side.min(axis=0)]


def _sharpness(luma: FloatArray, laplacian: FloatArray, near: float) -> list[float]:
    far = float(np.abs(luma[:, 2:] - luma[:, :-2]).mean() + np.abs(luma[2:] - luma[:-2]).mean())
    fine = float(laplacian.mean())
    return [
        math.log(fine + 0.1),
        math.log(near + 0.1),
        math.log((near + 0.1) / (far + 0.1)),
        math.log((fine + 0.1) / (near + 0.1)),
        math.log(float(np.sqrt(laplacian).mean()) + 0.1),
        math.log(float(np.square(laplacian).mean()) + 1.0),
    ]


def _colour(rgb: Image.Image) -> list[float]:
    red, green, blue = rgb.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    counts = np.array([*rgb.histogram(), *ImageChops.subtract(highest, lowest).histogram()], np.float64).reshape(4, 256)
    counts /= rgb.width * rgb.height
    mean = counts @ _VALUES
    spread = np.sqrt(np.maximum(0.0, counts @ _VALUES**2 - mean**2))
    return [*mean, *spread, float(counts[:3, 0].mean()), float(counts[:3, 255].mean())]


_VALUES = np.arange(256.0)


def _halves(few: FloatArray, laplacian: FloatArray) -> list[float]:
    """Differences in colour and in fine detail between top and bottom, left and right."""
    found: list[float] = []
    for plane in (*few, np.log(laplacian[::2, ::2] + 0.5)):
        for means in (plane.mean(axis=1), plane.mean(axis=0)):
            half = max(1, len(means) // 2)
            found.append(float(means[:half].mean()) - float(means[-half:].mean()))
    return found
