"""Contrastive: do two augmented views show the same photo or different ones?

Corrupted: two square views are cropped and augmented (colours, gray, blur, mirroring; `strong`: more of each, and
solarising). Asked: same photo or different. Exact; a blind guesser gets 1/2.

Both answers get the same corruption. One pair of overlapping boxes is drawn; the second box is cropped from the same
photo, or from a photo of another group. Both photos are first shrunk to squares of the same size, that of the smaller
one. So zoom, overlap, size and augmentation reveal nothing, and the views of a `same` pair always share content. (Views
of one photo are similar in sharpness, grain and colours: this counts as content.) Refused: `blank` views, and
`similar_photos`, if the thumbnails of the two photos are nearly equal.

From SimCLR (Chen et al., arXiv 2002.05709); as a reward in SSL4RL (arXiv 2510.16416).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import PixelBox, difference
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.augment import augmented, draw_augmentation
from ssl4rl_plugin.tasks.image.views import is_blank, overlapping_boxes, resized, square_at

SIMILAR_BELOW = 0.06
"""Mean absolute difference (range [0, 1]) below which two photos count as the same."""
LITTLE = 64
"""Side in pixels of the small squares on which photos and views are checked."""


@dataclass(frozen=True)
class ContrastiveLevel(Level):
    side: int = 224
    smallest: float = 0.5
    """Least side of a view as a share of the photo's, in (0, 1]."""
    overlap: float = 0.3
    """Least intersection over union of the two boxes, in [0, 1)."""
    strong: bool = False
    """Strong augmentation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.smallest <= 1 and 0 <= self.overlap < 1):
            raise ValueError(f"smallest must be in (0, 1] and overlap in [0, 1), got {self.smallest}, {self.overlap}")


class Contrastive(Task[ContrastiveLevel]):
    name = "contrastive"
    summary = "whether two augmented views come from the same photo"
    reference = "SimCLR, arXiv 2002.05709; SSL4RL, arXiv 2510.16416"
    levels = {
        "standard": ContrastiveLevel(),
        "standard_small": ContrastiveLevel(smallest=0.35, overlap=0.2),
        "strong": ContrastiveLevel(strong=True),
        "strong_small": ContrastiveLevel(smallest=0.35, overlap=0.2, strong=True),
    }
    default_level = "standard"
    others_needed = 1
    cues = {"colour": "two views of one photo share its colours as far as the augmentation keeps them: this is content"}

    def grader(self, level: ContrastiveLevel) -> Choice:
        return Choice(("same", "different"), {"yes": "same", "no": "different"})

    def generate(self, item: Item, level: ContrastiveLevel, rng: random.Random) -> Sample | Rejection:
        same = rng.random() < 0.5
        # Shrink both to the smaller size: no photo is enlarged, and the larger one does not look sharper.
        size = min(level.side * 2, *item.image.size, *item.others[0].image.size)
        first = square_at(item.image, size, rng)
        # Crop and compare the other photo for both answers, so that refusals do not depend on the answer.
        other = square_at(item.others[0].image, size, rng)
        little, little_other = (resized(photo, (LITTLE, LITTLE)) for photo in (first, other))
        if (apart := difference(little, little_other)) < SIMILAR_BELOW:
            return Rejection("similar_photos", f"the two photos differ by {apart:.3f}")
        boxes = overlapping_boxes(size, level.smallest, level.overlap, rng)
        drawn = [draw_augmentation(rng, level.strong) for _ in boxes]
        # Check small copies of all three possible views, so that refusals do not depend on the answer.
        for photo, box, how in (
            (little, boxes[0], drawn[0]),
            (little, boxes[1], drawn[1]),
            (little_other, boxes[1], drawn[1]),
        ):
            left, upper, right, lower = (round(edge * LITTLE / size) for edge in box)
            if is_blank(view(photo, (left, upper, right, lower), how, LITTLE // 2)):
                return Rejection("blank")
        one = view(first, boxes[0], drawn[0], level.side)
        two = view(first if same else other, boxes[1], drawn[1], level.side)
        question = (
            "<image><image>\nEach picture is a cut-out of a photo, with changed colours and perhaps mirrored or blurred. "
            "Were both cut from the same photo? Answer with one of: same, different."
        )
        params = {"views": [{"box": list(box), **how} for box, how in zip(boxes, drawn, strict=True)]}
        return Sample(question, (one, two), "same" if same else "different", params)


def view(photo: Image.Image, box: PixelBox, how: dict[str, Any], side: int) -> Image.Image:
    """A box of a photo, augmented, as a square of `side` pixels."""
    return augmented(resized(photo.crop(box), (side, side)), how)
