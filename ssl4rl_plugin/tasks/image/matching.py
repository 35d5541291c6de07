"""Matching: which candidate shows the same photo as the first picture?

Corrupted: two overlapping square views of a photo are cropped and augmented as in `contrastive`; one is shown first, the
other among views of 2, 3 or 5 photos of other groups. Asked: which candidate comes from the first picture's photo, by
letter. Exact; a blind guesser gets 1/3, 1/4 or 1/6.

All photos are first shrunk to squares of the same size, that of the smallest one. The candidates are cropped at the same
box of each photo, and their augmentations are drawn from the same distribution. So zoom, overlap, size and augmentation
reveal nothing. (Views of one photo are similar in colours, sharpness and compression: this counts as content, see
`cues`.) The letter is uniform and drawn last. Refused: `blank` views, and `similar_photos`, if the thumbnail of another
photo is nearly equal to that of the first.

To find the other view of a photo among views of other photos is the objective of CPC (van den Oord et al., arXiv
1807.03748) and SimCLR (Chen et al., arXiv 2002.05709).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import difference
from ssl4rl_plugin.grading import Choice, letters
from ssl4rl_plugin.tasks.image.augment import augmented, draw_augmentation
from ssl4rl_plugin.tasks.image.views import is_blank, overlapping_boxes, resized, square_at

SIMILAR_BELOW = 0.06
"""Mean absolute difference (range [0, 1]) below which two photos count as the same."""
MOST = 6
"""Largest number of candidates of a level."""


@dataclass(frozen=True)
class MatchingLevel(Level):
    side: int = 196
    candidates: int = 3
    """Number of candidates."""
    smallest: float = 0.5
    """Least side of a view as a share of the photo's, in (0, 1]."""
    overlap: float = 0.3
    """Least intersection over union of the two boxes, in [0, 1)."""
    strong: bool = False
    """Strong augmentation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.candidates <= MOST:
            raise ValueError(f"candidates must be in 2..{MOST}, got {self.candidates}")
        if not (0 < self.smallest <= 1 and 0 <= self.overlap < 1):
            raise ValueError(f"smallest must be in (0, 1] and overlap in [0, 1), got {self.smallest}, {self.overlap}")


class Matching(Task[MatchingLevel]):
    name = "matching"
    summary = "which candidate shows the same photo as the first picture"
    reference = "CPC, arXiv 1807.03748; SimCLR, arXiv 2002.05709"
    levels = {
        "3_candidates": MatchingLevel(candidates=3),
        "4_candidates": MatchingLevel(candidates=4),
        "6_candidates": MatchingLevel(candidates=6, smallest=0.35, overlap=0.2),
        "6_strong": MatchingLevel(candidates=6, smallest=0.35, overlap=0.2, strong=True),
    }
    default_level = "3_candidates"
    others_needed = MOST - 1
    cues: ClassVar = {
        "colour": "two views of one photo have similar colours",
        "sharpness": "two views of one photo have similar sharpness and grain",
        "codec": "two views of one photo have the same compression and a similar amount of detail",
    }

    def grader(self, level: MatchingLevel) -> Choice:
        return Choice(tuple(letters(level.candidates)))

    def generate(self, item: Item, level: MatchingLevel, rng: random.Random) -> Sample | Rejection:
        pictures = [item.image, *(other.image for other in item.others[: level.candidates - 1])]
        # Shrink all to the smallest size: no photo is enlarged, and larger ones do not look sharper.
        size = min(level.side * 2, *(length for picture in pictures for length in picture.size))
        squares = [square_at(picture, size, rng) for picture in pictures]
        apart = min(difference(squares[0], other) for other in squares[1:])
        if apart < SIMILAR_BELOW:
            return Rejection("similar_photos", f"two photos differ by {apart:.3f}")
        boxes = overlapping_boxes(size, level.smallest, level.overlap, rng)
        cuts = [squares[0].crop(boxes[0]), *(square.crop(boxes[1]) for square in squares)]
        drawn = [draw_augmentation(rng, level.strong) for _ in cuts]
        anchor, *views = (
            augmented(resized(cut, (level.side, level.side)), how) for cut, how in zip(cuts, drawn, strict=True)
        )
        if any(is_blank(view) for view in (anchor, *views)):
            return Rejection("blank")
        shown = list(range(level.candidates))  # shown[k] is the view that letter k stands for; view 0 is the true one
        rng.shuffle(shown)
        options = tuple(views[k] for k in shown)
        names = letters(level.candidates)
        marks = " ".join(f"{name}: <image>" for name in names)
        question = (
            f"<image>\nThis is a cut-out of a photo. Here are {len(names)} more cut-outs; one of them comes from the same "
            f"photo, each of the others from another one. {marks}\nEach may have been changed in colours, mirrored or "
            "blurred. Which one was cut from the same photo as the first picture? Answer with its letter."
        )
        how = [drawn[0], *(drawn[1 + k] for k in shown)]
        params = {"boxes": [list(box) for box in boxes], "views": how}
        return Sample(question, (anchor, *options), names[shown.index(0)], params, options=options)
