"""Playback speed: how fast does the clip play?

Corrupted: a fixed number of frames is taken from the video at one of several intervals, so that the clip seems to play
slower or faster. Asked: the speed. Exact; a blind guesser gets 1/n of n speeds.

With a reference, a first clip at normal speed is also shown. The clip in question begins at the same moment, or a few
frames later (`pair_later`), so that both show common moments, which determine the speed. Without a reference (`single`),
normal speed is that of reality: its frames are about a quarter of a second apart, and the model must know how fast things
move. Start, number of frames and the stated frame rate do not depend on the speed; the plugin shows all clips at one
stated rate.

Refused, independent of the speed: `too_short` for the fastest speed; `too_coarse`, if the frames of the video are more
than a third of a second apart (`single` only); `similar_clips`, if two speeds look alike because nothing moves.

From SpeedNet (Benaim et al., arXiv 2004.06130).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ssl4rl_plugin.core import Clip, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.video.clips import ALIKE_BELOW, VideoLevel, nearest, probes, shrunk

NORMAL_SECONDS = 0.25
"""Approximate seconds between frames at normal speed if there is no reference."""
COARSEST_SECONDS = 1 / 3
"""Largest interval in seconds between a video's frames at which it can show normal speed."""


@dataclass(frozen=True)
class PlaybackSpeedLevel(VideoLevel):
    frames: int = 8
    """Frames of each clip shown."""
    speeds: str = "0.5x,1x,2x,4x"
    """The possible speeds, separated by commas. All are whole multiples of the slowest one."""
    reference: bool = True
    """Show a clip at normal speed first."""
    later: int = 0
    """Largest delay of the clip, in frames of the reference."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            factors = self.factors
        except ValueError:
            raise ValueError(f"speeds must look like '1x,2x,4x', got {self.speeds!r}") from None
        wanted = sorted(set(factors))
        if len(factors) < 2 or factors != wanted or factors[0] <= 0 or 1.0 not in factors:
            raise ValueError(f"speeds must be two or more, growing, and 1x among them; got {self.speeds!r}")
        if any(factor % factors[0] for factor in factors):
            raise ValueError(f"speeds must be whole multiples of the slowest one, got {self.speeds!r}")
        if not 0 <= self.later <= self.frames // 2:
            raise ValueError(f"later must be in 0..{self.frames // 2}, got {self.later}")

    @property
    def names(self) -> tuple[str, ...]:
        """The speeds as answers."""
        return tuple(name.strip() for name in self.speeds.split(","))

    @property
    def factors(self) -> list[float]:
        """The speeds as numbers."""
        return [float(name.removesuffix("x")) for name in self.names]


class PlaybackSpeed(Task[PlaybackSpeedLevel]):
    name = "playback_speed"
    summary = "how fast the clip plays"
    reference = "SpeedNet, arXiv 2004.06130"
    levels = {
        "pair_2": PlaybackSpeedLevel(speeds="1x,4x"),
        "pair_4": PlaybackSpeedLevel(),
        "pair_later": PlaybackSpeedLevel(later=3),
        "single": PlaybackSpeedLevel(speeds="1x,2x,4x", reference=False),
    }
    default_level = "pair_4"
    kind = "video"
    cues: ClassVar = dict.fromkeys(
        ("colour", "sharpness", "border"),
        "the faster a clip plays, the more its last frame differs from its first one in all statistics: the question asks "
        "for this",
    )

    def grader(self, level: PlaybackSpeedLevel) -> Choice:
        return Choice(level.names, {name.removesuffix("x"): name for name in level.names})

    def generate(self, item: Item, level: PlaybackSpeedLevel, rng: random.Random) -> Sample | Rejection:
        clip = item.clip
        truth = self.grader(level).draw(rng)
        # Step between shown frames, in frames of the video, at the slowest speed and at each speed.
        ratios = [round(factor / level.factors[0]) for factor in level.factors]
        unit = ratios[level.factors.index(1.0)]
        if level.reference:  # the largest step that leaves a tenth of the video for the choice of the start
            most = (level.frames - 1) * ratios[-1] + level.later * unit
            slowest = max(1, int(0.9 * (len(clip.frames) - 1)) // most)
        else:
            if clip.fps * COARSEST_SECONDS < 1:
                return Rejection("too_coarse", f"{clip.fps:.2f} frames per second")
            slowest = max(1, round(NORMAL_SECONDS * clip.fps * level.factors[0]))
        strides, normal = [slowest * ratio for ratio in ratios], slowest * unit
        delay = rng.randint(1, level.later) * normal if level.later else 0
        room = len(clip.frames) - delay - (level.frames - 1) * strides[-1]
        if room < 1:
            return Rejection("too_short", f"{len(clip.frames)} frames, {1 - room} more needed")
        start = rng.randrange(room)
        runs = [[start + delay + k * stride for k in range(level.frames)] for stride in strides]
        known = [start + k * normal for k in range(level.frames)]
        used = sorted({place for run in (*runs, known) for place in run})
        pictures = dict(zip(used, shrunk((clip.frames[k] for k in used), level.side), strict=True))
        small = dict(zip(used, probes(list(pictures.values())), strict=True))
        if (close := nearest([np.stack([small[k] for k in run]) for run in runs])) < ALIKE_BELOW:
            return Rejection("similar_clips", f"two speeds differ by {close:.3f}")

        # Every clip states the frame rate of normal speed: the true one would reveal the answer.
        run = runs[level.names.index(truth)]
        asked = Clip(tuple(pictures[k] for k in run), clip.fps / normal)
        options = ", ".join(level.names)
        if level.reference:
            begins = "a little later than clip 1" if level.later else "at the same moment as clip 1"
            question = (
                "Clip 1: <video>\nClip 2: <video>\nBoth clips show the same video, and both have "
                f"{level.frames} frames. Clip 1 plays at normal speed (1x). Clip 2 begins {begins} and plays at an "
                f"unknown speed: at 2x, twice as much happens from one frame to the next. How fast does clip 2 play? "
                f"Answer with one of: {options}."
            )
            videos: tuple[Clip, ...] = (Clip(tuple(pictures[k] for k in known), clip.fps / normal), asked)
        else:
            question = (
                f"<video>\nThis clip shows {level.frames} frames of a video. At normal speed (1x) about "
                f"{NORMAL_SECONDS:g} seconds pass from one frame to the next; at 2x it is twice as long, so that "
                f"everything seems to happen faster. How fast does it play? Answer with one of: {options}."
            )
            videos = (asked,)
        return Sample(question, (), truth, {"places": run, "reference": known}, videos=videos)
