"""Inserted frame: which frame does not belong?

Corrupted: one frame of a clip, at a uniform position, is replaced by a frame of another video, or at the hard level by a
frame of the same video from another time. Asked: its number. Exact; a blind guesser gets 1/n of n frames.

Both videos are first cropped to the same aspect ratio and resized to the size of the smaller one; then all frames have
the same resizing, so that neither size nor scale reveals the answer. A frame of another video has other colours, sharpness
and grain: this counts as content, and it is what the question asks for. A frame of the same video has the same.

Refused, independent of the position: `too_short` and `too_small` videos; `similar_frames`, if the new frame looks like
one of the clip's; `ambiguous`, if a frame of the clip itself differs from its neighbours nearly as much as the new one
would (cuts, flashes).

After frame insertion and odd-one-out learning (Fernando et al., arXiv 1611.06646).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import Clip, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.views import resized
from ssl4rl_plugin.tasks.video.clips import VideoLevel, distances, probes, shrunk

COARSE_SIDE = 8
"""Side in pixels of the thumbnails that are compared: so coarse that a moving camera changes little."""
SIMILAR_BELOW = 0.04
"""Mean absolute difference (range [0, 1]) of thumbnails below which the new frame looks like one of the clip's."""
STANDS_OUT = 1.4
"""Least ratio of the new frame's difference from the clip to any other frame's difference from its neighbours."""
NEIGHBOURS = 2
"""Frames on each side with which a frame is compared. With 1, the frame beside the new one would stand out too."""


@dataclass(frozen=True)
class InsertedFrameLevel(VideoLevel):
    stride: int = 1
    """Largest step between shown frames, in frames of the video. A smaller step makes the new frame stand out more."""
    same_video: bool = False
    """Take the frame from another time of the same video."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.stride <= 64:
            raise ValueError(f"stride must be in 1..64, got {self.stride}")


class InsertedFrame(Task[InsertedFrameLevel]):
    name = "inserted_frame"
    summary = "which frame of the clip does not belong"
    reference = "after odd-one-out learning, arXiv 1611.06646"
    levels = {
        "8_frames": InsertedFrameLevel(frames=8, stride=2),
        "16_frames": InsertedFrameLevel(frames=16),
        "24_frames": InsertedFrameLevel(frames=24),
        "same_video": InsertedFrameLevel(frames=12, same_video=True),
    }
    default_level = "8_frames"
    kind = "video"
    others_needed = 1
    cues: ClassVar = {
        "colour": "a frame of another video has other colours, and the question asks for it",
        "sharpness": "a frame of another video differs in detail, and the question asks for it",
        "codec": "a frame of another video takes more or fewer bytes, and the question asks for it",
        "halves": "the halves of a frame of another video differ from the clip's, and the question asks for it",
        "border": "the border lines of a frame of another video differ, and the question asks for it",
    }

    def grader(self, level: InsertedFrameLevel) -> Choice:
        return Choice(tuple(str(number) for number in range(1, level.frames + 1)))

    def generate(self, item: Item, level: InsertedFrameLevel, rng: random.Random) -> Sample | Rejection:
        clip, other = item.clip, item.others[0].clip
        truth = self.grader(level).draw(rng)
        # A frame of the same video comes from outside the clip, so half of the video is left for it.
        usable = len(clip.frames) // 2 if level.same_video else len(clip.frames)
        stride = min(level.stride, (usable - 1) // (level.frames - 1))
        if stride < 1:
            return Rejection("too_short", f"{usable} frames, {level.frames} needed")
        length = stride * (level.frames - 1) + 1
        start = rng.randint(0, len(clip.frames) - length)
        places = range(start, start + length, stride)
        outside = [*range(start), *range(start + length, len(clip.frames))]
        source, number = (clip, rng.choice(outside)) if level.same_video else (other, rng.randrange(len(other.frames)))
        width, height = _common_size(clip.frames[0].size, source.frames[0].size)
        if min(width, height) < 28:
            return Rejection("too_small", f"{width} x {height} pixels in common")
        *frames, alien = shrunk(
            (_cut(frame, width, height) for frame in (*(clip.frames[k] for k in places), source.frames[number])),
            level.side,
        )

        between = distances(probes([*frames, alien], COARSE_SIDE))
        if (close := float(between[-1, :-1].min())) < SIMILAR_BELOW:
            return Rejection("similar_frames", f"the new frame differs by {close:.3f} from one of the clip")
        odd = max(_oddness(between, level.frames, place) for place in range(level.frames))
        if odd * STANDS_OUT > close:
            return Rejection(
                "ambiguous", f"a frame differs by {odd:.3f} from its neighbours, the new one by {close:.3f}"
            )

        frames[int(truth) - 1] = alien
        shown = Clip(tuple(frames), clip.fps / stride)
        origin = "the same video, but from another time" if level.same_video else "another video"
        question = (
            f"<video>\nThis clip has {level.frames} frames, numbered from 1 to {level.frames} in the order shown. One of "
            f"them was replaced by a frame from {origin}. Which one? Answer with its number."
        )
        # Each frame of the clip is an option.
        return Sample(
            question, (), truth, {"places": list(places), "frame": number}, videos=(shown,), options=tuple(frames)
        )


def _common_size(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The largest size with the aspect ratio of the first that fits into both."""
    scale = min(1.0, other[0] / one[0], other[1] / one[1])
    return max(1, int(one[0] * scale)), max(1, int(one[1] * scale))


def _cut(frame: Image.Image, width: int, height: int) -> Image.Image:
    """The largest centre crop of the frame with the aspect ratio of (width, height), resized to this size."""
    scale = min(frame.width / width, frame.height / height)
    w, h = min(frame.width, round(width * scale)), min(frame.height, round(height * scale))
    left, upper = (frame.width - w) // 2, (frame.height - h) // 2
    return resized(frame.crop((left, upper, left + w, upper + h)), (width, height))


def _oddness(between: np.ndarray, count: int, replaced: int) -> float:
    """Largest distance of a frame to the nearest of its neighbours, over all frames except the `replaced` one."""
    there = [k for k in range(count) if k != replaced]
    return max(
        min(float(between[k, j]) for j in there if j != k and abs(j - k) <= NEIGHBOURS) for k in there
    )  # fmt: skip
