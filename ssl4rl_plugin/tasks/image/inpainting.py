"""Inpainting: which candidate fills the hole in the picture?

Corrupted: a square part of the photo is shown with a gray square in its middle. Asked: which of 3, 4 or 6 candidates, by
letter, shows the hidden part; the others come from elsewhere in the same photo. Exact; a blind guesser gets 1/3, 1/4 or
1/6.

The candidates are the middles of squares of equal size, none of which shows any part of another candidate; a uniformly
drawn square becomes the picture (see `holes`). So no candidate can be excluded by finding it in the picture, none is
nearer to the photo's centre by design, and all have the same resampling and scale. The candidates lack a rim of the hole,
so that seams do not match pixel by pixel. Candidates are not blank and differ from each other. Refused, independent of
the truth: `too_small` photos, and `few_places`, if no such candidates are found.

The hidden part has similar colours and texture to its surroundings. This belongs to the question, so a guesser may use it
(`cues`): the candidate with the nearest mean colour beats chance.

From context encoders (Pathak et al., arXiv 1604.07379).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import difference
from ssl4rl_plugin.grading import Choice, letters
from ssl4rl_plugin.tasks.image.holes import Frame, candidate, cuts, with_hole
from ssl4rl_plugin.tasks.image.views import is_blank

SIMILAR_BELOW = 0.08
"""Mean absolute difference (range [0, 1]) below which two candidates count as equal."""
SHARES = (0.55, 0.5, 0.45, 0.4, 0.35, 0.3)
"""Sides of the picture shown, as shares of the photo's short side. The largest one that leaves enough room is used."""
SMALLEST = 12
"""Least side of the hole in pixels of the photo."""


@dataclass(frozen=True)
class InpaintingLevel(Level):
    side: int = 336
    candidates: int = 4
    """Number of candidates."""
    hole: float = 0.3
    """Side of the hole as a share of the picture's, in [0.2, 0.5]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.candidates <= 8 and 0.2 <= self.hole <= 0.5):
            raise ValueError(f"candidates must be in 2..8 and hole in [0.2, 0.5], got {self.candidates}, {self.hole}")


class Inpainting(Task[InpaintingLevel]):
    name = "inpainting"
    summary = "which candidate fills the hole in the picture"
    reference = "Pathak et al., arXiv 1604.07379"
    levels = {
        "3_candidates": InpaintingLevel(candidates=3, hole=0.25),
        "4_candidates": InpaintingLevel(candidates=4, hole=0.3),
        "6_candidates": InpaintingLevel(candidates=6, hole=0.35),
    }
    default_level = "3_candidates"
    cues: ClassVar = {
        "colour": "the hidden part has similar colours to its surroundings",
        "sharpness": "the hidden part has similar focus and texture to its surroundings",
        "codec": "the hidden part has a similar amount of detail to its surroundings",
    }

    def grader(self, level: InpaintingLevel) -> Choice:
        return Choice(tuple(letters(level.candidates)))

    def generate(self, item: Item, level: InpaintingLevel, rng: random.Random) -> Sample | Rejection:
        photo = item.image
        if min(photo.size) * SHARES[0] * level.hole < SMALLEST:
            return Rejection("too_small", f"{photo.width} x {photo.height} pixels")
        frames = self._frames(photo, level, rng)
        if frames is None:
            return Rejection("few_places")
        views = cuts(photo, frames)
        options = [candidate(view, level.side, level.hole) for view in views]
        names = letters(level.candidates)
        true = rng.randrange(len(names))
        shown = " ".join(f"{name}: <image>" for name in names)
        question = (
            "<image>\nThe gray square hides a part of this picture, which was cut out of a larger photo. "
            f"Here are {len(names)} candidates at the same scale, cut out of the same photo; a thin rim of the hidden "
            f"part is left out. {shown}\nWhich of them is what the gray square hides? Answer with its letter."
        )
        boxes = [list(frame.box()) for frame in frames]
        images = (with_hole(views[true], level.side, level.hole), *options)
        return Sample(question, images, names[true], {"boxes": boxes}, options=tuple(options))

    @staticmethod
    def _frames(photo: Image.Image, level: InpaintingLevel, rng: random.Random) -> list[Frame] | None:
        """Squares of one size with different middles, none of which reaches into the hole of another; None if too few are
        found."""
        for share in SHARES:
            side = share * min(photo.size)
            if side * level.hole < SMALLEST:
                break
            least = side * (1 + level.hole) / 2 + 2  # half a picture, half a hole, and slack for rounding
            frames: list[Frame] = []
            middles: list[Image.Image] = []
            for _ in range(20 * level.candidates):
                x, y = (rng.uniform(side / 2 + 1, length - side / 2 - 1) for length in photo.size)
                if any(max(abs(x - other.x), abs(y - other.y)) < least for other in frames):
                    continue
                middle = photo.crop(Frame(x, y, side * level.hole).box())
                if is_blank(middle) or any(difference(middle, other) < SIMILAR_BELOW for other in middles):
                    continue
                frames.append(Frame(x, y, side))
                middles.append(middle)
                if len(frames) == level.candidates:
                    rng.shuffle(frames)  # the first ones have more freedom than the last
                    return frames
        return None
