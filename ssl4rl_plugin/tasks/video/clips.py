"""Frames of a video that several tasks share: which ones are shown, at what size, and how far apart they look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import Clip, Level
from ssl4rl_plugin.data.images import thumbnail_array
from ssl4rl_plugin.tasks.image.views import fitted

ALIKE_BELOW = 0.015
"""Mean absolute difference (range [0, 1]) of small pictures under which frames, or clips frame by frame, look alike.
What compression and noise add is about 0.003."""
PROBE_SIDE = 32
"""Side of the small pictures that are compared."""

Probes = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class VideoLevel(Level):
    """What every level of every video task has.

    Qwen2.5-VL and its like spend one visual token on 28 x 28 pixels of two frames of a video, or of one picture, so 32
    frames of 168 x 126 pixels are about 430 tokens as video and 860 as pictures.
    """

    side: int = 168
    frames: int = 16
    """Frames of each clip shown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.frames <= 64:
            raise ValueError(f"frames must be in 2..64, got {self.frames}")


def spaced(first: int, last: int, count: int) -> list[int] | None:
    """`count` frame numbers in `first`..`last` at one whole distance, as wide as it goes, in the middle of the room left;
    None if there are not as many frames."""
    if last - first + 1 < count:
        return None
    stride = (last - first) // (count - 1)
    start = first + (last - first - stride * (count - 1)) // 2
    return [start + stride * k for k in range(count)]


def shrunk(frames: Iterable[Image.Image], side: int) -> tuple[Image.Image, ...]:
    """The frames as they are shown: whole, the longest side at `side` pixels, all by the same filter."""
    return tuple(fitted(frame, side) for frame in frames)


def probes(frames: Sequence[Image.Image], side: int = PROBE_SIDE) -> Probes:
    """The frames in small, for comparison: float32 of shape (frames, side, side, 3) in [0, 1]."""
    return np.stack([thumbnail_array(frame, side) for frame in frames])


def apart(one: Probes, other: Probes) -> float:
    """Mean absolute difference of two sequences of small frames, frame by frame, in [0, 1]."""
    return float(np.abs(one - other).mean())


def distances(small: Probes, others: Probes | None = None) -> np.ndarray:
    """Mean absolute difference of every small frame to every (other) one, of shape (frames, other frames)."""
    others = small if others is None else others
    return np.stack([np.abs(others - frame).mean(axis=(1, 2, 3)) for frame in small])


def nearest(clips: Sequence[Probes]) -> float:
    """The smallest difference between any two of several clips of equal length, frame by frame."""
    return min(apart(clips[i], clips[j]) for i in range(len(clips)) for j in range(i))


def step_seconds(clip: Clip, stride: int) -> float:
    """Seconds between shown frames that lie `stride` frames apart."""
    return stride / clip.fps


def lettered(labels: Iterable[str]) -> str:
    """A line with a mark for each clip: `Clip A: <video>`."""
    return "\n".join(f"Clip {label}: <video>" for label in labels)
