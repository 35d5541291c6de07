"""Patch distance: which cut-outs lie nearer to the reference in the photo?

Corrupted: squares are cut out of the photo and enlarged: a reference R and 3, 4 or 5 others with letters; the hardest
level changes the colours of each separately. Asked: the letters in order of distance from R in the photo, which is also
shown, nearest first. Distances are between centres. Graded by Kendall's tau; a blind guesser gets 1 in n! right.

The letters are shuffled last, so every order is equally likely. The squares do not overlap, and any two distances differ
by at least `gap` of the photo's diagonal. Squares are chosen at random positions; they are not blank, and no other
position in the photo (more than half their side away, compared at low resolution) matches them nearly as well. Refused:
`too_small` photos, and `few_places`, if no such squares are found. Near parts of a photo look similar, so a guesser may
use similarity without the whole photo (`cues`).

Ours; after context prediction (Doersch et al., arXiv 1505.05192), which asks for the direction.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, ClassVar

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import PixelBox
from ssl4rl_plugin.grading import Ordering, letters
from ssl4rl_plugin.tasks.image.augment import draw_colours, recoloured
from ssl4rl_plugin.tasks.image.views import best_matches_elsewhere, fitted, is_blank, random_box, resized

AMBIGUOUS_BELOW = 0.04
"""Mean absolute difference (range [0, 1]) below which a cut-out also matches another position."""
PLACES = 28
"""Number of random positions from which the cut-outs are chosen."""
TRIES = 30
"""Number of references that are tried."""


@dataclass(frozen=True)
class PatchDistanceLevel(Level):
    cutouts: int = 3
    """Number of cut-outs to order."""
    cut: float = 0.3
    """Side of a cut-out as a share of the photo's short side, in [0.1, 0.4]."""
    gap: float = 0.12
    """Least difference of two distances as a share of the photo's diagonal, in [0.02, 0.2]."""
    augment: bool = False
    """Change the cut-outs' colours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.cutouts <= 7 and 0.1 <= self.cut <= 0.4 and 0.02 <= self.gap <= 0.2):
            raise ValueError(f"expected cutouts in 2..7, cut in [0.1, 0.4] and gap in [0.02, 0.2], got {self}")


class PatchDistance(Task[PatchDistanceLevel]):
    name = "patch_distance"
    summary = "which cut-outs lie nearer to a reference cut-out in the photo"
    reference = "ours; after Doersch et al., arXiv 1505.05192"
    levels = {
        "3_cutouts": PatchDistanceLevel(cutouts=3, cut=0.3, gap=0.12),
        "4_cutouts": PatchDistanceLevel(cutouts=4, cut=0.25, gap=0.08),
        "5_cutouts": PatchDistanceLevel(cutouts=5, cut=0.22, gap=0.06),
        "5_augmented": PatchDistanceLevel(cutouts=5, cut=0.22, gap=0.06, augment=True),
    }
    default_level = "3_cutouts"
    cues: ClassVar = {
        "colour": "near parts of a photo have similar colours",
        "sharpness": "near parts of a photo have similar texture and focus",
    }

    def grader(self, level: PatchDistanceLevel) -> Ordering:
        return Ordering(tuple(letters(level.cutouts)))

    def generate(self, item: Item, level: PatchDistanceLevel, rng: random.Random) -> Sample | Rejection:
        photo = item.image
        side = round(min(photo.size) * level.cut)
        if side < 14:
            return Rejection("too_small", f"a cut-out would have {side} pixels")
        tried = [random_box(*photo.size, side, side, rng) for _ in range(PLACES)]
        fits = best_matches_elsewhere(photo, tried)
        usable = [
            box
            for box, fit in zip(tried, fits, strict=True)
            if fit >= AMBIGUOUS_BELOW and not is_blank(photo.crop(box))
        ]
        chosen = self._chosen(usable, level, math.hypot(*photo.size), rng)
        if chosen is None:
            return Rejection("few_places", f"{len(usable)} of {PLACES} places are usable")
        reference, *ordered = chosen
        names = rng.sample(letters(level.cutouts), level.cutouts)  # names[k] is the letter of the k-th nearest
        boxes = [reference, *(box for _, box in sorted(zip(names, ordered, strict=True)))]
        cuts = [resized(photo.crop(box), (level.side // 4, level.side // 4)) for box in boxes]
        params: dict[str, Any] = {"boxes": [list(box) for box in boxes]}
        if level.augment:
            params["colours"] = [draw_colours(rng, strength=0.4) for _ in cuts]
            cuts = [recoloured(cut, colours) for cut, colours in zip(cuts, params["colours"], strict=True)]
        shown = " ".join(f"{name}: <image>" for name in sorted(names))
        changed = " with changed colours" if level.augment else ""
        question = (
            f"<image> R: <image> {shown}\nThe pictures with letters are enlarged cut-outs of the first picture{changed}. "
            f"Put {', '.join(sorted(names))} in order of how far the middle of each cut-out is from the middle of R in the "
            f"first picture, nearest to R first. Answer with the {len(names)} letters separated by commas."
        )
        return Sample(question, (fitted(photo, level.side), *cuts), names, params)

    @staticmethod
    def _chosen(
        usable: list[PixelBox], level: PatchDistanceLevel, diagonal: float, rng: random.Random
    ) -> list[PixelBox] | None:
        """A reference box, then other boxes in order of distance from it, without overlaps; None if none are found."""
        for _ in range(TRIES if usable else 0):
            reference, *others = rng.sample(usable, len(usable))
            chosen: list[tuple[float, PixelBox]] = [(0.0, reference)]
            side = reference[2] - reference[0]
            for box in others:
                distance = math.dist(box[:2], reference[:2])
                if all(
                    max(abs(box[0] - other[0]), abs(box[1] - other[1])) >= side
                    and (other is reference or abs(distance - taken) >= level.gap * diagonal)
                    for taken, other in chosen
                ):
                    chosen.append((distance, box))
                    if len(chosen) == level.cutouts + 1:
                        return [box for _, box in sorted(chosen)]
        return None
