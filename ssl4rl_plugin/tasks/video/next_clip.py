"""Next clip: which clip continues the shown one?

Corrupted: the video is cut into n parts for n options. Each part's second half is an option; the first half of one part,
drawn uniformly, is shown first. Asked: which option, by letter, continues the shown clip. Exact; a blind guesser gets 1/n.

Every option could be the correct one, as its first half could have been shown. So the options alone, their order in time
and their similarity reveal nothing. The wrong options come from before and after, and the one before ends where the shown
clip begins, so that similarity alone does not decide. At the level `reversed` the video is cut into n / 2 parts, and each
option is also shown backward. All clips have the same length and processing.

Refused, independent of the part: `too_short`, and `similar_clips`, if two options look alike frame by frame.

A clip-level form of predicting what comes next; next-clip questions are among the tasks of self-supervised video
rewards such as VideoSSR (arXiv 2511.06281).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Clip, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice, letters
from ssl4rl_plugin.tasks.video.clips import ALIKE_BELOW, VideoLevel, lettered, nearest, probes, shrunk


@dataclass(frozen=True)
class NextClipLevel(VideoLevel):
    frames: int = 4
    """Frames of each clip shown."""
    options: int = 4
    """Number of clips to choose from."""
    backward: bool = False
    """Make half of the options by playing the other half backward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.options <= 12 or (self.backward and (self.options % 2 or self.options < 4)):
            raise ValueError(
                f"options must be in 2..12, and an even number from 4 on with backward; got {self.options}"
            )


class NextClip(Task[NextClipLevel]):
    name = "next_clip"
    summary = "which clip continues the shown one"
    reference = "after VideoSSR, arXiv 2511.06281"
    levels = {
        "2_options": NextClipLevel(options=2, frames=6),
        "4_options": NextClipLevel(options=4),
        "reversed": NextClipLevel(options=4, backward=True, frames=6),
        "6_options": NextClipLevel(options=6),
    }
    default_level = "4_options"
    kind = "video"

    def grader(self, level: NextClipLevel) -> Choice:
        names = letters(level.options)
        return Choice(tuple(names), {f"Clip {name}": name for name in names})

    def generate(self, item: Item, level: NextClipLevel, rng: random.Random) -> Sample | Rejection:
        clip = item.clip
        names = letters(level.options)
        parts = level.options // 2 if level.backward else level.options
        stride = len(clip.frames) // (parts * 2 * level.frames)
        if stride < 1:
            return Rejection("too_short", f"{len(clip.frames)} frames, {parts * 2 * level.frames} needed")
        # Remaining frames are distributed before, between and after the parts.
        length = 2 * level.frames * stride
        gaps = sorted(rng.randint(0, len(clip.frames) - parts * length) for _ in range(parts))
        starts = [gap + number * length for number, gap in enumerate(gaps)]
        halves = [[start + k * stride for k in range(2 * level.frames)] for start in starts]
        target = rng.randrange(parts)

        options = [shrunk((clip.frames[k] for k in half[level.frames :]), level.side) for half in halves]
        if level.backward:
            options += [option[::-1] for option in options]
        if (close := nearest([probes(option) for option in options])) < ALIKE_BELOW:
            return Rejection("similar_clips", f"two options differ by {close:.3f}")

        order = rng.sample(range(level.options), level.options)  # order[k] is the option of the k-th letter
        truth = names[order.index(target)]
        fps = clip.fps / stride
        before = Clip(shrunk((clip.frames[k] for k in halves[target][: level.frames]), level.side), fps)
        shown = tuple(Clip(options[k], fps) for k in order)
        backward = " Some of them play backward; the right one plays forward." if level.backward else ""
        question = (
            f"First clip: <video>\n{lettered(names)}\nThe first clip is a piece of a video. Clips {', '.join(names[:-1])} "
            f"and {names[-1]} are pieces of the same video, as long as the first; one of them begins right where the first "
            f"one ends, the others come from other moments.{backward} Which clip continues the first one? Answer with its "
            "letter."
        )
        params = {"starts": starts, "stride": stride, "order": order}
        return Sample(question, (), truth, params, videos=(before, *shown), options=shown)
