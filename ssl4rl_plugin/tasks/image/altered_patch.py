"""Altered patch: which cell of the picture was changed?

Corrupted: one cell of a 2x2 or 3x3 grid over a square crop of the photo is masked with flat gray, inverted, turned gray,
blurred, or has two colour channels swapped. With a `strength` below 1, the change is blended with the original cell.
Asked: which cell, by letter. Exact; a blind guesser gets 1/4 or 1/9.

The changed cell is uniform. Refused: pictures in which the same change would not be visible in EVERY cell
(`no_visible_change`), and pictures with a cell that shows nothing (`blank_cell`). So an unchanged cell never looks like a
changed one: in a gray photo every cell is gray, in a blank sky every cell looks masked. The demo uses the easy levels: a
model of less than a million parameters learns them from scratch in minutes, unlike rotation.

Localising a corrupted region goes back to context encoders (Pathak et al., arXiv 1604.07379).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageFilter, ImageOps, ImageStat

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice, letters
from ssl4rl_plugin.tasks.image.views import grid_boxes, is_blank, place_names, random_square, resized

MASK_GRAY = 128
"""Value of all three channels of a masked cell."""


def _swapped(cell: Image.Image) -> Image.Image:
    red, green, blue = cell.split()
    return Image.merge("RGB", (blue, red, green))


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mask": lambda cell: Image.new("RGB", cell.size, (MASK_GRAY,) * 3),
    "invert": ImageOps.invert,
    "gray": lambda cell: ImageOps.grayscale(cell).convert("RGB"),
    "swap": _swapped,
    "blur": lambda cell: cell.filter(ImageFilter.GaussianBlur(max(1.5, cell.width / 24))),
}
"""The changes of a cell, from easy to hard to see."""

VISIBLE_FROM = {"mask": 0.05, "invert": 0.08, "gray": 0.03, "swap": 0.03, "blur": 0.015}
"""Least mean absolute difference (range [0, 1]) at which each change counts as visible."""


@dataclass(frozen=True)
class AlteredPatchLevel(Level):
    side: int = 336
    grid: int = 2
    """Cells per side."""
    change: str = "mask"
    """One of mask, invert, gray, swap, blur."""
    strength: float = 1.0
    """Weight of the changed cell, in (0, 1]; it is blended with the original cell."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.change not in ALTERATIONS:
            raise ValueError(f"change must be one of {', '.join(ALTERATIONS)}; got {self.change!r}")
        if not 2 <= self.grid <= 5:
            raise ValueError(f"grid must be in 2..5, got {self.grid}")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be in (0, 1], got {self.strength}")

    def altered(self, cell: Image.Image) -> Image.Image:
        """A cell (RGB) after the level's change."""
        return Image.blend(cell, ALTERATIONS[self.change](cell), float(self.strength))


def visible_change(before: Image.Image, after: Image.Image) -> float:
    """Mean absolute difference of two pictures of equal size over all pixels and channels, in [0, 1]."""
    return sum(ImageStat.Stat(ImageChops.difference(before, after)).mean) / 3 / 255


class AlteredPatch(Task[AlteredPatchLevel]):
    name = "altered_patch"
    summary = "which cell of the picture was masked, inverted, turned gray, recoloured or blurred"
    reference = "after context encoders, arXiv 1604.07379"
    levels = {
        f"{grid}x{grid}_{change}": AlteredPatchLevel(grid=grid, change=change)
        for change in ALTERATIONS
        for grid in (2, 3)
    }
    default_level = "2x2_mask"
    cues = {
        "codec": "a masked or blurred cell has less detail and takes fewer bytes; that is the change to find",
        "border": "most cells touch the edge of the picture, and a changed cell changes the values along it",
        "sharpness": "a masked or blurred cell has less fine detail than the others; that is the change to find",
        "colour": "a masked, inverted, gray or recoloured cell has other colours than the others; that is the change",
    }

    def grader(self, level: AlteredPatchLevel) -> Choice:
        return Choice(tuple(letters(level.grid**2)))

    def generate(self, item: Item, level: AlteredPatchLevel, rng: random.Random) -> Sample | Rejection:
        side = level.side - level.side % level.grid  # cells of whole pixels
        picture = resized(random_square(item.image, rng, smallest=0.5), (side, side))
        target = rng.randrange(level.grid**2)
        boxes = grid_boxes(side, side, level.grid, level.grid)
        for box in boxes:
            cell = picture.crop(box)
            if is_blank(cell):
                return Rejection("blank_cell")
            if (seen := visible_change(cell, level.altered(cell))) < VISIBLE_FROM[level.change]:
                return Rejection("no_visible_change", f"{level.change} would change a cell by {seen:.3f}")
        picture.paste(level.altered(picture.crop(boxes[target])), boxes[target][:2])
        names = letters(level.grid**2)
        places = ", ".join(f"{a} {b}" for a, b in zip(names, place_names(level.grid, level.grid), strict=True))
        question = (
            f"<image>\nOne of the {len(names)} equal cells of this picture was changed. The cells are: {places}. "
            "Which one was changed? Answer with its letter."
        )
        return Sample(question, (picture,), names[target], {"box": list(boxes[target]), "change": level.change})
