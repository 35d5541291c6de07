"""Odd one out: which cut-out comes from another photo?

Corrupted: 4 to 8 cut-outs of one size are shown, all but one from the same photo, one from a photo of another group; the
hardest level equalises their colours. Asked: which cut-out comes from the other photo, by letter. Exact; a blind guesser
gets 1/n of n cut-outs.

Both photos are first shrunk to squares of the same size, that of the smaller one. All cut-outs have the same size, the
same distribution of positions and the same processing: to equalise colours, every cut-out gets the mean and the spread of
all. Each cut-out of the common photo overlaps another one by at least a quarter of its area, so that shared content shows
where it belongs. Another photo has other colours, sharpness and compression. This is part of the question, so a guesser
may use it (`cues`). The letter of the odd one is uniform and drawn last. Refused: `blank` cut-outs, and `similar_photos`,
if the thumbnails of the two photos are nearly equal.

Odd-one-out learning is due to Fernando et al., arXiv 1611.06646, there with videos.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageStat

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import PixelBox, difference
from ssl4rl_plugin.grading import Choice, letters
from ssl4rl_plugin.tasks.image.views import is_blank, random_box, resized, square_at

SIMILAR_BELOW = 0.06
"""Mean absolute difference (range [0, 1]) below which two photos count as the same."""
SHARED = 0.25
"""Least share of a cut-out's area that another cut-out of its photo also shows."""


@dataclass(frozen=True)
class OddOneOutLevel(Level):
    side: int = 196
    pictures: int = 4
    """Number of cut-outs."""
    cut: float = 0.6
    """Side of a cut-out as a share of the photo's short side, in [0.3, 0.8]."""
    colours_alike: bool = False
    """Give all cut-outs the same mean and spread of colours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (3 <= self.pictures <= 12 and 0.3 <= self.cut <= 0.8):
            raise ValueError(f"pictures must be in 3..12 and cut in [0.3, 0.8], got {self.pictures}, {self.cut}")


class OddOneOut(Task[OddOneOutLevel]):
    name = "odd_one_out"
    summary = "which of several cut-outs comes from another photo"
    reference = "after Fernando et al., arXiv 1611.06646"
    levels = {
        "4_pictures": OddOneOutLevel(pictures=4, cut=0.6),
        "6_pictures": OddOneOutLevel(pictures=6, cut=0.5),
        "8_pictures": OddOneOutLevel(pictures=8, cut=0.4),
        "8_colours_alike": OddOneOutLevel(pictures=8, cut=0.4, colours_alike=True),
    }
    default_level = "4_pictures"
    others_needed = 1
    cues: ClassVar = {
        "colour": "another photo has other colours",
        "sharpness": "another photo has another sharpness and grain",
        "codec": "another photo has another compression and another amount of detail",
    }

    def grader(self, level: OddOneOutLevel) -> Choice:
        return Choice(tuple(letters(level.pictures)))

    def generate(self, item: Item, level: OddOneOutLevel, rng: random.Random) -> Sample | Rejection:
        # Shrink both to the smaller size: no photo is enlarged, and the larger one does not look sharper.
        size = min(round(level.side / level.cut), *item.image.size, *item.others[0].image.size)
        host, other = (square_at(image, size, rng) for image in (item.image, item.others[0].image))
        if (apart := difference(host, other)) < SIMILAR_BELOW:
            return Rejection("similar_photos", f"the two photos differ by {apart:.3f}")
        cut = round(size * level.cut)
        boxes = [*self._linked_boxes(size, cut, level.pictures - 1, rng), random_box(size, size, cut, cut, rng)]
        sources = [host] * (level.pictures - 1) + [other]
        views = [
            resized(source.crop(box), (level.side, level.side)) for source, box in zip(sources, boxes, strict=True)
        ]
        if any(is_blank(view) for view in views):
            return Rejection("blank")
        if level.colours_alike:
            views = colours_alike(views)
        shown = list(range(level.pictures))  # shown[k] is the view of letter k; the last one is the odd one
        rng.shuffle(shown)
        images = tuple(views[k] for k in shown)
        names = letters(level.pictures)
        marks = " ".join(f"{name}: <image>" for name in names)
        changed = " Their colours were made alike." if level.colours_alike else ""
        question = (
            f"{marks}\nAll but one of these {len(names)} pictures were cut out of the same photo, at different places that "
            f"may overlap; one comes from another photo.{changed} Which one? Answer with its letter."
        )
        params = {"boxes": [list(boxes[k]) for k in shown]}
        return Sample(question, images, names[shown.index(level.pictures - 1)], params, options=images)

    @staticmethod
    def _linked_boxes(size: int, cut: int, count: int, rng: random.Random) -> list[PixelBox]:
        """Square boxes at random positions, each of which overlaps an earlier one by at least `SHARED` of its area."""
        boxes = [random_box(size, size, cut, cut, rng)]
        while len(boxes) < count:
            box = random_box(size, size, cut, cut, rng)
            # Terminates: many tries are near an earlier box, even for the smallest cut-outs and a first box in a corner.
            if any(_shared(box, other) >= SHARED * cut * cut for other in boxes):
                boxes.append(box)
        return boxes


def colours_alike(views: list[Image.Image]) -> list[Image.Image]:
    """The pictures after setting the mean and spread of each channel to their averages over all pictures."""
    stats = [ImageStat.Stat(view) for view in views]
    mean, spread = (np.mean(found, axis=0) for found in ([s.mean for s in stats], [s.stddev for s in stats]))
    values = np.arange(256)
    return [
        view.point(
            [
                int(value)
                for c in range(3)
                for value in np.clip(np.rint((values - s.mean[c]) * spread[c] / max(s.stddev[c], 4) + mean[c]), 0, 255)
            ]
        )
        for view, s in zip(views, stats, strict=True)
    ]


def _shared(a: PixelBox, b: PixelBox) -> int:
    """Number of pixels that two boxes share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
