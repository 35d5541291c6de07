"""For the video tasks: choose the frames to show, resize them, and compare frames and clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import Level
from ssl4rl_plugin.data.images import thumbnail_array
from ssl4rl_plugin.tasks.image.views import fitted

ALIKE_BELOW = 0.015
"""Mean absolute difference (range [0, 1]) of thumbnails below which frames, or clips frame by frame, look alike.
Compression and noise add about 0.003."""
PROBE_SIDE = 32
"""Side in pixels of the thumbnails that are compared."""

Probes = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class VideoLevel(Level):
    """Base of the levels of all video tasks.

    Qwen2.5-VL and similar models spend one visual token on 28 x 28 pixels of two frames of a video, or of one image. So 32
    frames of 168 x 126 pixels are about 430 tokens as video and 860 as images.
    """

    side: int = 168
    frames: int = 16
    """Frames of each clip shown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.frames <= 64:
            raise ValueError(f"frames must be in 2..64, got {self.frames}")


def spaced(first: int, last: int, count: int) -> list[int] | None:
    """`count` equally spaced frame numbers in `first`..`last`, with the largest possible step, centred; None if there are
    fewer frames."""
    if last - first + 1 < count:
        return None
    stride = (last - first) // (count - 1)
    start = first + (last - first - stride * (count - 1)) // 2
    return [start + stride * k for k in range(count)]


def shrunk(frames: Iterable[Image.Image], side: int) -> tuple[Image.Image, ...]:
    """The frames as shown: resized to a longest side of `side` pixels, all with the same filter."""
    return tuple(fitted(frame, side) for frame in frames)


def probes(frames: Sequence[Image.Image], side: int = PROBE_SIDE) -> Probes:
    """Thumbnails of the frames for comparisons: float32 of shape (frames, side, side, 3) in [0, 1]."""
    return np.stack([thumbnail_array(frame, side) for frame in frames])


def apart(one: Probes, other: Probes) -> float:
    """Mean absolute difference of two sequences of thumbnails, frame by frame, in [0, 1]."""
    return float(np.abs(one - other).mean())


def distances(small: Probes, others: Probes | None = None) -> np.ndarray:
    """Mean absolute difference of each thumbnail to each other one, or to each of `others`; shape (frames, others)."""
    others = small if others is None else others
    return np.stack([np.abs(others - frame).mean(axis=(1, 2, 3)) for frame in small])


def nearest(clips: Sequence[Probes]) -> float:
    """The smallest frame-by-frame difference between any two of several clips of equal length."""
    return min(apart(clips[i], clips[j]) for i in range(len(clips)) for j in range(i))


def lettered(labels: Iterable[str]) -> str:
    """A line with the mark of each clip: `Clip A: <video>`."""
    return "\n".join(f"Clip {label}: <video>" for label in labels)
