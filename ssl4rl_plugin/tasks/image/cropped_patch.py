"""Cropped patch: which candidate, right in direction, place and size, belongs into the hole?

Corrupted: a square crop of the photo is shown with a gray square in its middle. Asked: which of 4 or 6 candidates, by
letter, shows the hidden part; they show the same region of the photo, but turned, shifted or zoomed. Exact; a blind
guesser gets 1/4 or 1/6.

The candidates alone do not reveal the true one: they are drawn as frames on the photo (see `holes`), and a uniformly
drawn frame becomes the picture. So if candidates are turned, the picture may be turned too, and the upright candidate is
no likelier; if they are zoomed, the true one may have any zoom. All frames are resized to the pixels of the smallest
one, slightly blurred, and then enlarged by the same factor, so that zooms do not differ in sharpness. Refused,
independent of the truth: `too_small` photos, `blank` candidates, and `symmetric` regions, which look the same after one
of the changes.

From Spatial-SSRL (arXiv 2510.27606), where only the true patch is not resized.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import least_difference
from ssl4rl_plugin.grading import Choice, letters
from ssl4rl_plugin.tasks.image.holes import Frame, candidate, cuts, with_hole
from ssl4rl_plugin.tasks.image.views import is_blank

SYMMETRIC_BELOW = 0.04
"""Mean absolute difference (range [0, 1]) below which two candidates count as equal."""
SHIFT = 0.4
"""Distance of a shifted candidate as a share of the hole's side."""
ZOOM = 1.4
"""Ratio of the sides of neighbouring zooms."""
CANDIDATES = {"turned": 4, "shifted": 4, "zoomed": 4, "mixed": 6}
"""Difference between the candidates -> their number."""

DIFFER = {
    "turned": "turned by different multiples of 90 degrees",
    "shifted": "moved a little in different directions",
    "zoomed": "at different zooms",
    "mixed": "some turned, some moved to a side, some at another zoom",
}
"""Description of the candidates in the question."""


@dataclass(frozen=True)
class CroppedPatchLevel(Level):
    side: int = 336
    change: str = "turned"
    """Difference between the candidates: a key of `CANDIDATES`."""
    hole: float = 0.4
    """Side of the hole as a share of the picture's, in [0.2, 0.5]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.change not in CANDIDATES:
            raise ValueError(f"change must be one of {', '.join(CANDIDATES)}, got {self.change!r}")
        if not 0.2 <= self.hole <= 0.5:
            raise ValueError(f"hole must be in [0.2, 0.5], got {self.hole}")


class CroppedPatch(Task[CroppedPatchLevel]):
    name = "cropped_patch"
    summary = "which of several turned, shifted or zoomed patches belongs into the hole"
    reference = "Spatial-SSRL, arXiv 2510.27606"
    levels = {change: CroppedPatchLevel(change=change) for change in CANDIDATES}
    default_level = "turned"
    cues: ClassVar = {
        "colour": "wider or shifted candidates show some of the surroundings of the hole, and have their colours",
        "sharpness": "detail depends on the zoom, and the right candidate has the zoom of the picture",
    }

    def grader(self, level: CroppedPatchLevel) -> Choice:
        return Choice(tuple(letters(CANDIDATES[level.change])))

    def generate(self, item: Item, level: CroppedPatchLevel, rng: random.Random) -> Sample | Rejection:
        photo = item.image
        frames = self._frames(*photo.size, level, rng)
        if min(frame.side for frame in frames) * level.hole < 12 or not all(f.inside(*photo.size) for f in frames):
            return Rejection("too_small", f"{photo.width} x {photo.height} pixels")
        rng.shuffle(frames)
        views = cuts(photo, frames)
        options = [candidate(view, level.side, level.hole) for view in views]
        if any(is_blank(option) for option in options):
            return Rejection("blank")
        closest = least_difference(options)
        if closest < SYMMETRIC_BELOW:
            return Rejection("symmetric", f"two candidates differ by {closest:.3f}")
        names = letters(len(options))
        true = rng.randrange(len(names))
        shown = " ".join(f"{name}: <image>" for name in names)
        turned = " and may itself be turned" if any(frame.turn for frame in frames) else ""
        question = (
            f"<image>\nThe gray square hides a part of this picture, which is a cut-out of a photo{turned}. Here are "
            f"{len(names)} candidates that show about the same region, {DIFFER[level.change]}; a thin rim of the hidden "
            f"part is left out. {shown}\nWhich of them fits into the gray square as it is, at the same scale as the "
            "picture and without being turned or moved? Answer with its letter."
        )
        drawn = [{"box": list(frame.box()), "turn": frame.turn} for frame in frames]
        images = (with_hole(views[true], level.side, level.hole), *options)
        return Sample(question, images, names[true], {"frames": drawn}, options=tuple(options))

    @staticmethod
    def _frames(width: int, height: int, level: CroppedPatchLevel, rng: random.Random) -> list[Frame]:
        """Frames that differ by the level's `change`."""
        zooms = {"zoomed": (1.0, ZOOM, ZOOM**2, ZOOM**3), "mixed": (1.0, ZOOM, 1 / ZOOM)}.get(level.change, (1.0,))
        reach = {"shifted": SHIFT / 2, "mixed": SHIFT}.get(level.change, 0.0) * level.hole  # of the side
        widest = max(*zooms, 1 + 2 * reach)
        side = (min(width, height) - 4) / widest * rng.uniform(0.8, 1.0)  # 4 pixels of slack for rounding
        room = widest * side / 2 + 1
        x, y = (rng.uniform(room, max(room, length - room)) for length in (width, height))
        if level.change == "turned":
            return [Frame(x, y, side, turn) for turn in (0, 90, 180, 270)]
        step = reach * side
        if level.change == "shifted":
            return [Frame(x + dx, y + dy, side) for dx in (-step, step) for dy in (-step, step)]
        frames = [Frame(x, y, side * zoom) for zoom in zooms]
        if level.change == "mixed":
            frames += [Frame(x, y, side, turn) for turn in rng.sample((90, 180, 270), 2)]
            dx, dy = rng.choice(((step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step)))
            frames.append(Frame(x + dx, y + dy, side))
        return frames
