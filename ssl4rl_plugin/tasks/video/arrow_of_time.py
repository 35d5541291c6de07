"""Arrow of time: does the clip play forward or backward?

Corrupted: frames at equal intervals are taken from the whole video or a part of it, and shown in the order of time or in
reverse. Asked, with two clips of the same frames: which of them, A or B, plays forward; with one clip: forward or
backward. Exact; a blind guesser gets 1/2.

The frames are the same in both directions, so only the events reveal the answer: things fall down, break, spread, mix and
come to rest, and not the opposite. Refused, independent of the direction: `too_short`, and `symmetric`, if the sequence is
close to its own reverse (nothing moves, or everything moves there and back). A motion that physics allows in both
directions, such as a camera that glides past a still scene, looks the same reversed. It is not refused: on such videos a
model stays at chance.

From Pickup et al., "Seeing the Arrow of Time" (CVPR 2014) and Wei et al., "Learning and Using the Arrow of Time" (CVPR
2018).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Clip, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.video.clips import ALIKE_BELOW, VideoLevel, apart, distances, lettered, probes, shrunk, spaced

SYMMETRIC_SHARE = 0.5
"""Least difference of a sequence from its reverse, as a share of the difference between its frames."""


@dataclass(frozen=True)
class ArrowOfTimeLevel(VideoLevel):
    pair: bool = True
    """Show both directions and ask which one is forward, instead of showing one."""
    share: float = 1.0
    """Share of the video that is shown, in (0, 1]; its position is uniform."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share}")


class ArrowOfTime(Task[ArrowOfTimeLevel]):
    name = "arrow_of_time"
    summary = "whether the clip plays forward or backward"
    reference = "Pickup et al., CVPR 2014; Wei et al., CVPR 2018"
    levels = {
        "pair": ArrowOfTimeLevel(),
        "pair_short": ArrowOfTimeLevel(frames=8, share=0.4),
        "single": ArrowOfTimeLevel(pair=False),
        "single_short": ArrowOfTimeLevel(frames=8, share=0.4, pair=False),
    }
    default_level = "pair"
    kind = "video"

    def grader(self, level: ArrowOfTimeLevel) -> Choice:
        if level.pair:
            return Choice(("A", "B"), {"Clip A": "A", "Clip B": "B"})
        return Choice(("forward", "backward"), {"forwards": "forward", "backwards": "backward", "reversed": "backward"})

    def generate(self, item: Item, level: ArrowOfTimeLevel, rng: random.Random) -> Sample | Rejection:
        clip = item.clip
        truth = self.grader(level).draw(rng)
        length = max(level.frames, round(len(clip.frames) * level.share))
        first = rng.randint(0, max(0, len(clip.frames) - length))
        places = spaced(first, min(first + length, len(clip.frames)) - 1, level.frames)
        if places is None:
            return Rejection("too_short", f"{len(clip.frames)} frames, {level.frames} needed")
        pictures = shrunk((clip.frames[k] for k in places), level.side)
        small = probes(pictures)
        least = max(ALIKE_BELOW, SYMMETRIC_SHARE * float(distances(small).mean()))
        if (close := apart(small, small[::-1])) < least:
            return Rejection("symmetric", f"differs by {close:.3f} from its reverse, {least:.3f} needed")

        fps = clip.fps / (places[1] - places[0])
        forward, backward = Clip(pictures, fps), Clip(pictures[::-1], fps)
        params = {"places": places}
        if level.pair:
            clips = (forward, backward) if truth == "A" else (backward, forward)
            question = (
                f"{lettered('AB')}\nBoth clips show the same {level.frames} frames of a video: one in the order in which "
                "they were filmed, the other in the reverse order. Which clip plays forward? Answer with its letter."
            )
            return Sample(question, (), truth, params, videos=clips, options=clips)
        question = (
            f"<video>\nThis clip shows {level.frames} frames of a video, either in the order in which they were filmed or "
            "in the reverse order. Does it play forward or backward? Answer with one of: forward, backward."
        )
        return Sample(question, (), truth, params, videos=(forward if truth == "forward" else backward,))
