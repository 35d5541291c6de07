"""Anomaly grounding: from which frame to which was the clip tampered with?

Corrupted: one run of consecutive frames of a clip is changed, all in the same way: turned gray, inverted, mirrored,
turned by 180 degrees, zoomed, blurred, covered with noise, put into reverse order, or two colour channels swapped. Asked:
first and last changed frame. Graded by the intersection over union; 0.9 counts as correct. The run's length is uniform,
and its start is uniform given the length; `ssl4rl_plugin.grading.Interval` computes what a blind guesser gets.

The kind of change is uniform among those of the level. Refused: `no_visible_change`, unless the same change would be
visible on EVERY frame of the clip (for the reverse order: unless all frames of a possible run look different), so that
refusals do not depend on the run and both of its ends are visible; `blank` and `too_short` clips. A run is shorter than
half of the clip: for example, mirrored frames are recognised because they are fewer.

From VideoSSR (arXiv 2511.06281).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageOps

from ssl4rl_plugin.core import Clip, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Interval
from ssl4rl_plugin.tasks.image.altered_patch import ALTERATIONS, VISIBLE_FROM, visible_change
from ssl4rl_plugin.tasks.image.views import is_blank, resized
from ssl4rl_plugin.tasks.video.clips import ALIKE_BELOW, VideoLevel, distances, probes, shrunk, spaced

ZOOM = 1.5
NOISE = 0.5
"""Range of the uniform noise as a share of the range of values; its standard deviation is 37 of 255 levels."""


def _zoomed(frame: Image.Image, rng: random.Random) -> Image.Image:
    w, h = round(frame.width / ZOOM), round(frame.height / ZOOM)
    left, upper = (frame.width - w) // 2, (frame.height - h) // 2
    return resized(frame.crop((left, upper, left + w, upper + h)), frame.size)


def _noisy(frame: Image.Image, rng: random.Random) -> Image.Image:
    values = np.asarray(frame, np.float32)
    added = np.frombuffer(rng.randbytes(values.size), np.uint8).reshape(values.shape)
    return Image.fromarray(np.clip(values + NOISE * (added - 127.5), 0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "invert": lambda frame, rng: ALTERATIONS["invert"](frame),
    "gray": lambda frame, rng: ALTERATIONS["gray"](frame),
    "swap": lambda frame, rng: ALTERATIONS["swap"](frame),
    "blur": lambda frame, rng: ALTERATIONS["blur"](frame),
    "rot180": lambda frame, rng: frame.transpose(Image.Transpose.ROTATE_180),
    "mirror": lambda frame, rng: ImageOps.mirror(frame),
    "zoom": _zoomed,
    "noise": _noisy,
}
"""The changes of a frame."""
REVERSE = "reverse"
"""The change of the order of frames: the run plays backward."""

LEAST_CHANGE = {**VISIBLE_FROM, "rot180": 0.06, "mirror": 0.05, "zoom": 0.04, "noise": 0.04}
"""Least mean absolute difference (range [0, 1]) at which each change of a frame counts as visible."""


@dataclass(frozen=True)
class AnomalyGroundingLevel(VideoLevel):
    changes: str = "invert,gray,swap,rot180"
    """The possible changes, separated by commas: any of invert, gray, swap, blur, rot180, mirror, zoom, noise, reverse."""
    shortest: int = 4
    """Frames of the shortest run."""
    longest: int = 7
    """Frames of the longest run. Less than half of the clip, so that the rest cannot be taken for the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kinds or (wrong := sorted(set(self.kinds) - {*CHANGES, REVERSE})):
            raise ValueError(f"changes must be some of {', '.join((*CHANGES, REVERSE))}; got {', '.join(wrong)!r}")
        if not 2 <= self.shortest <= self.longest < self.frames / 2:
            raise ValueError(f"expected 2 <= shortest <= longest < frames / 2, got {self.shortest}, {self.longest}")

    @property
    def kinds(self) -> list[str]:
        """The possible changes."""
        return [kind.strip() for kind in self.changes.split(",") if kind.strip()]


class AnomalyGrounding(Task[AnomalyGroundingLevel]):
    name = "anomaly_grounding"
    summary = "from which frame to which the clip was tampered with"
    reference = "VideoSSR, arXiv 2511.06281"
    levels = {
        "plain": AnomalyGroundingLevel(),
        "geometry": AnomalyGroundingLevel(changes="rot180,mirror,zoom"),
        "subtle": AnomalyGroundingLevel(frames=24, changes="swap,blur,noise,mirror", longest=11),
        "reverse": AnomalyGroundingLevel(changes="reverse"),
    }
    default_level = "plain"
    kind = "video"
    cues: ClassVar = {
        "colour": "frames that are gray, inverted or have swapped channels differ in colour, and the question asks for them",
        "sharpness": "blurred, noisy and zoomed frames differ in detail, and the question asks for them",
        "codec": "noisy and blurred frames take another number of bytes, and the question asks for them",
        "halves": "mirroring and turning swap the halves of the frames that the question asks for",
        "border": "the change includes the border lines of the frames that the question asks for",
    }

    def grader(self, level: AnomalyGroundingLevel) -> Interval:
        return Interval(level.frames, level.shortest, level.longest)

    def generate(self, item: Item, level: AnomalyGroundingLevel, rng: random.Random) -> Sample | Rejection:
        clip = item.clip
        first, last = self.grader(level).draw(rng)
        kind = rng.choice(level.kinds)
        places = spaced(0, len(clip.frames) - 1, level.frames)
        if places is None:
            return Rejection("too_short", f"{len(clip.frames)} frames, {level.frames} needed")
        frames = list(shrunk((clip.frames[k] for k in places), level.side))
        if all(is_blank(frame) for frame in frames):
            return Rejection("blank")
        run = slice(first - 1, last)
        if kind == REVERSE:
            between = distances(probes(frames))
            near = [between[i, j] for i in range(len(frames)) for j in range(max(0, i - level.longest + 1), i)]
            if (close := min(near)) < ALIKE_BELOW:
                return Rejection("no_visible_change", f"two frames of a possible run differ by {close:.3f}")
            frames[run] = frames[run][::-1]
        else:
            altered = [CHANGES[kind](frame, rng) for frame in frames]
            seen = min(visible_change(*pair) for pair in zip(frames, altered, strict=True))
            if seen < LEAST_CHANGE[kind]:
                return Rejection("no_visible_change", f"{kind} would change a frame by {seen:.3f}")
            frames[run] = altered[run]

        question = (
            f"<video>\nThis clip has {level.frames} frames, numbered from 1 to {level.frames} in the order shown. One run "
            f"of {level.shortest} to {level.longest} consecutive frames was tampered with, all of them in the same way: "
            f"{_named(level.kinds)}. The other frames are as they were filmed. "
            "Which is the first and which the last frame of that run? Answer with the two "
            f"numbers, such as 2-{1 + level.longest}."
        )
        stride = places[1] - places[0]
        params = {"change": kind, "places": places}
        return Sample(question, (), [first, last], params, videos=(Clip(tuple(frames), clip.fps / stride),))


_NAMES = {
    "invert": "inverted in brightness",
    "gray": "without colour",
    "swap": "in wrong colours",
    "blur": "blurred",
    "rot180": "upside down",
    "mirror": "mirrored left to right",
    "zoom": "enlarged",
    "noise": "noisy",
    REVERSE: "put into reverse order",
}


def _named(kinds: list[str]) -> str:
    names = [_NAMES[kind] for kind in kinds]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
