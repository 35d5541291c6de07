"""Video counting: how many times does a shape appear?

Corrupted: plain circles, squares and triangles with a black and white outline are pasted into the frames of a clip. Each
appearance stays in one position for 1 to 3 consecutive frames. A frame has at most one shape, and there is at least one
frame without a shape between two appearances, so that none hides or continues another. Asked: how many times each of the
named kinds appears. The counts are uniform and independent. Graded by the relative error; `ssl4rl_plugin.grading.Counts`
computes what a blind guesser gets. At the hard levels, shapes of other kinds appear too.

The frames with shapes are uniform among all arrangements that fit. All shapes of a clip have one colour, and all kinds the
same distribution of sizes, so neither reveals the kind; the outline makes shapes visible on every background. Refused:
`too_short` and `too_small` clips.

From VideoSSR (arXiv 2511.06281), where shapes may hide one another.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image, ImageDraw

from ssl4rl_plugin.core import Clip, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Counts
from ssl4rl_plugin.tasks.video.clips import VideoLevel, shrunk, spaced

KINDS = ("circle", "square", "triangle")
LONGEST = 3
"""Most frames of one appearance."""
SMALLEST_SIDE = 20
"""Least short side of the shown frames in pixels at which shapes can be distinguished."""
_FINER = 4  # shapes are drawn this many times larger and then shrunk, for smooth edges


@dataclass(frozen=True)
class VideoCountingLevel(VideoLevel):
    kinds: int = 1
    """Number of kinds of shapes to count, 1 to 3."""
    low: int = 1
    """Least appearances of each kind."""
    high: int = 4
    """Most appearances of each kind."""
    others: int = 0
    """Most appearances of all other kinds together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (1 <= self.kinds <= len(KINDS) and 0 <= self.low < self.high and self.others >= 0):
            raise ValueError(f"expected 1 <= kinds <= 3, 0 <= low < high and others >= 0, got {self}")
        if self.others and self.kinds == len(KINDS):
            raise ValueError("with all kinds asked about there are no other shapes")
        # Each appearance takes at least a frame, with a frame without shapes between two.
        if (most := 2 * (self.kinds * self.high + self.others) - 1) > self.frames:
            raise ValueError(f"the appearances need {most} frames, and the clip has {self.frames}")


class VideoCounting(Task[VideoCountingLevel]):
    name = "video_counting"
    summary = "how many times shapes appear in the clip"
    reference = "VideoSSR, arXiv 2511.06281"
    levels = {
        "1_kind": VideoCountingLevel(),
        "1_kind_others": VideoCountingLevel(frames=20, others=4),
        "2_kinds": VideoCountingLevel(frames=20, kinds=2, low=0, high=4),
        "3_kinds": VideoCountingLevel(frames=28, kinds=3, low=0, high=4),
    }
    default_level = "1_kind"
    kind = "video"
    cues: ClassVar = {
        "colour": "the more shapes appear, the more frames have their colour, and the question asks for their number",
        "sharpness": "a shape adds edges and hides detail, and the question asks for the number of shapes",
        "codec": "a shape changes the bytes of a frame, and the question asks for the number of shapes",
    }

    def grader(self, level: VideoCountingLevel) -> Counts:
        return Counts(level.kinds, level.low, level.high)

    def generate(self, item: Item, level: VideoCountingLevel, rng: random.Random) -> Sample | Rejection:
        clip = item.clip
        truth = self.grader(level).draw(rng)
        places = spaced(0, len(clip.frames) - 1, level.frames)
        if places is None:
            return Rejection("too_short", f"{len(clip.frames)} frames, {level.frames} needed")
        frames = list(shrunk((clip.frames[k] for k in places), level.side))
        short = min(frames[0].size)
        if short < SMALLEST_SIDE:
            return Rejection("too_small", f"frames of {frames[0].width} x {frames[0].height} pixels")

        kinds = rng.sample(KINDS, len(KINDS))  # the question asks about the first ones
        asked, rest = kinds[: level.kinds], kinds[level.kinds :]
        appearing = [kind for kind, count in zip(asked, truth, strict=True) for _ in range(count)]
        appearing += [rng.choice(rest) for _ in range(rng.randint(0, level.others))] if level.others else []
        rng.shuffle(appearing)
        colour = tuple(rng.randint(60, 230) for _ in range(3))
        appearances: list[dict[str, Any]] = []
        for kind, (first, last) in zip(appearing, runs(level.frames, len(appearing), rng), strict=True):
            side = round(short * rng.uniform(0.3, 0.4))
            left, upper = (rng.randint(2, length - side - 2) for length in frames[0].size)
            stamp = shape(kind, side, colour)
            for k in range(first, last + 1):
                frames[k].paste(stamp, (left, upper), stamp)
            appearances.append({"kind": kind, "frames": [first + 1, last + 1], "box": [left, upper, side]})

        other = (
            f" Shapes of other kinds ({', '.join(sorted(rest))}) may appear too; leave them out."
            if level.others
            else ""
        )
        names = [f"a {kind}" for kind in asked]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        form = "the number" if len(names) == 1 else f"the {len(names)} numbers in this order, separated by commas"
        each = "" if len(names) == 1 else ", each"
        question = (
            f"<video>\nPlain shapes of one colour, with a black and white edge, were pasted into some of the {level.frames} "
            f"frames of this clip. An appearance of a shape lasts 1 to {LONGEST} frames in a row at the same place and "
            "counts once; before the next appearance of any shape there is at least one frame without one. How many times "
            f"does {listed} appear{each}?{other} Each count is from {level.low} to {level.high}. "
            f"Answer with {form}."
        )
        params = {"appearances": appearances, "asked": asked, "places": places}
        shown = Clip(tuple(frames), clip.fps / (places[1] - places[0]))
        return Sample(question, (), list(truth), params, videos=(shown,))


def runs(frames: int, count: int, rng: random.Random) -> list[tuple[int, int]]:
    """First and last frame (from 0) of `count` runs of 1 to 3 frames, in order, with a free frame between any two."""
    lengths = [rng.randint(1, LONGEST) for _ in range(count)]
    while sum(lengths) + count - 1 > frames:
        lengths[rng.choice([k for k, length in enumerate(lengths) if length > 1])] -= 1
    free = frames - sum(lengths) - max(0, count - 1)
    # The other free frames are distributed before, between and after the runs, all ways equally likely.
    bars = sorted(rng.sample(range(free + count), count))
    return [
        (bar - k + sum(lengths[:k]) + k, bar - k + sum(lengths[: k + 1]) + k - 1) for k, bar in enumerate(bars)
    ]  # fmt: skip


def shape(kind: str, side: int, colour: tuple[int, ...]) -> Image.Image:
    """A shape in a square of `side` pixels, RGBA, transparent around it."""
    size = side * _FINER
    canvas = Image.new("RGBA", (size, size))
    draw = ImageDraw.Draw(canvas)
    line = max(1.0, side / 14) * _FINER
    for inset, fill in ((0.0, "black"), (line, "white"), (2 * line, (*colour, 255))):
        if kind == "circle":
            draw.ellipse([inset, inset, size - 1 - inset, size - 1 - inset], fill=fill)
        elif kind == "square":
            edge = size * 0.06 + inset  # makes the areas of the shapes more similar
            draw.rectangle([edge, edge, size - 1 - edge, size - 1 - edge], fill=fill)
        else:
            # Moving the sides of an equilateral triangle inwards by `inset` moves its corners by twice that.
            reach = size / math.sqrt(3) * 0.99 - 2 * inset
            middle = (size / 2, size * 0.62)
            corners = [
                (middle[0] + reach * math.sin(turn), middle[1] - reach * math.cos(turn))
                for turn in (0, 2 * math.pi / 3, 4 * math.pi / 3)
            ]
            draw.polygon(corners, fill=fill)
    return canvas.resize((side, side), Image.Resampling.BOX)
