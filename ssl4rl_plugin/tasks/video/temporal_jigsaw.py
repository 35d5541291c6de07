"""Temporal jigsaw: in which order do the shuffled clips make the video?

Corrupted: the video is cut into 4, 6 or 8 clips of equal length. 5 to 10 % are cut off at both ends of each (the same
share for all), so that no clip ends where the next begins. They are shown in a uniformly random order, each with the same
number of frames at the same interval. Within a clip, time runs forward. Asked: the letters in the order of time. Graded
by the share of pairs in the correct order; a blind guesser solves 1 in K! of K clips.

Refused, independent of the order: `too_short` for the number of frames; `similar_clips`, if two clips look alike frame by
frame (also if nothing moves); `looping`, if the end of the video is as similar to its beginning as the end of a clip is
to the beginning of the next, so that the video could begin elsewhere. All frames have the same resizing, and none is
shown twice.

From Visual Jigsaw (arXiv 2509.25190), which trims each clip and rewards partly right orders, and VideoSSR (arXiv
2511.06281).
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Clip, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Ordering, letters
from ssl4rl_plugin.tasks.video.clips import ALIKE_BELOW, VideoLevel, apart, lettered, nearest, probes, shrunk, spaced


@dataclass(frozen=True)
class TemporalJigsawLevel(VideoLevel):
    frames: int = 4
    """Frames of each clip shown."""
    clips: int = 4
    """Number of clips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 3 <= self.clips <= 12:
            raise ValueError(f"clips must be in 3..12, got {self.clips}")


class TemporalJigsaw(Task[TemporalJigsawLevel]):
    name = "temporal_jigsaw"
    summary = "in which order the shuffled clips make the video"
    reference = "Visual Jigsaw, arXiv 2509.25190; VideoSSR, arXiv 2511.06281"
    levels = {f"{clips}_clips": TemporalJigsawLevel(clips=clips) for clips in (4, 6, 8)}
    default_level = "4_clips"
    kind = "video"

    def grader(self, level: TemporalJigsawLevel) -> Ordering:
        return Ordering(tuple(letters(level.clips)))

    def generate(self, item: Item, level: TemporalJigsawLevel, rng: random.Random) -> Sample | Rejection:
        clip = item.clip
        length = len(clip.frames) / level.clips
        trimmed = rng.uniform(0.05, 0.10)
        truth = list(self.grader(level).draw(rng))  # truth[k] is the letter of the k-th clip in time

        parts = []
        for number in range(level.clips):
            first, last = (number + trimmed) * length, (number + 1 - trimmed) * length
            parts.append(spaced(math.ceil(first), math.floor(last) - 1, level.frames))
        places = [part for part in parts if part is not None]
        if len(places) < level.clips:
            return Rejection("too_short", f"{len(clip.frames)} frames for {level.clips} clips of {level.frames}")
        # Some clips may have room for a larger step than others, by a frame: all take the smaller one.
        stride = min(part[1] - part[0] for part in places)
        places = [[part[0] + stride * k for k in range(level.frames)] for part in places]

        pictures = [shrunk((clip.frames[k] for k in part), level.side) for part in places]
        small = [probes(part) for part in pictures]
        if (close := nearest(small)) < ALIKE_BELOW:
            return Rejection("similar_clips", f"two clips differ by {close:.3f}")
        joins = [apart(one[-1], other[0]) for one, other in itertools.pairwise(small)]
        if (back := apart(small[-1][-1], small[0][0])) < max(ALIKE_BELOW, *joins):
            return Rejection(
                "looping", f"end and beginning differ by {back:.3f}, the clips' joins by up to {max(joins):.3f}"
            )

        by_letter = {letter: Clip(part, clip.fps / stride) for letter, part in zip(truth, pictures, strict=True)}
        names = letters(level.clips)
        question = (
            f"{lettered(names)}\nA video was cut into {level.clips} clips of equal length, and a little was left out "
            f"between them. They are shown in a shuffled order, {level.frames} frames of each; within each clip time runs "
            f"forward. In which order do they follow each other in the video? Answer with the {level.clips} letters from "
            f"the earliest clip to the latest, separated by commas, such as: {', '.join(names[::-1])}."
        )
        return Sample(
            question, (), truth, {"places": dict(zip(truth, places, strict=True))},
            videos=tuple(by_letter[name] for name in names),
        )  # fmt: skip
