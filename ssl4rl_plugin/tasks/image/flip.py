"""Flip: was the picture mirrored, and which way?

Corrupted: a square crop of the photo is unchanged, mirrored left-right, mirrored top-bottom, or both (a turn by 180
degrees), each with the same probability. Asked: which, from a pair (upright, changed), or from the changed picture
alone. Exact; a blind guesser gets 1/4, or 1/2 if only top-bottom is possible. A pair always determines the answer. From
one picture, top and bottom are clear in most photos, but left and right only if there is writing, a hand or a known
place: no model will come near 1 on `single`.

Only the content may reveal the answer. All views are squares of the same size. Pixels are mirrored before shrinking, so
that the traces of shrinking are never mirrored. Each view is shrunk by at least a quarter, so that the 8x8 blocks of the
photo's own JPEG compression change their size. Sides are multiples of 8, so that no view ends in a partial block when it
is compressed again. Each view gets new noise of at most 2 of 255 levels, so that an unchanged pair is not equal byte for
byte. Refused: `blank` pictures, `symmetric` ones, which look the same under one of the possible changes, and `too_small`
ones.

The whole-picture form of the flip task of Spatial-SSRL (arXiv 2510.27606), after RotNet (Gidaris et al., arXiv
1803.07728), which asks for a rotation.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import difference
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.rotation import as_image, as_planes, noise
from ssl4rl_plugin.tasks.image.views import is_blank, random_square, resized

FLIPS: dict[str, Image.Transpose | None] = {
    "none": None,
    "left-right": Image.Transpose.FLIP_LEFT_RIGHT,
    "top-bottom": Image.Transpose.FLIP_TOP_BOTTOM,
    "both": Image.Transpose.ROTATE_180,
}
"""Answer -> change of the picture. The four changes form a group."""

MEANINGS = {
    "none": "the picture is unchanged",
    "left-right": "left and right are exchanged, as in a mirror beside the picture",
    "top-bottom": "top and bottom are exchanged, as in a mirror below the picture",
    "both": "left and right as well as top and bottom are exchanged",
}
"""Answer -> explanation in prompts."""

SYMMETRIC_BELOW = 0.03
"""Mean absolute difference (range [0, 1]) below which a picture counts as equal to its mirror image."""
SHRUNK_TO = 0.75
"""Largest side of a view, as a share of the crop's side in the photo."""


def flipped(image: Image.Image, how: str) -> Image.Image:
    """The picture after the change `how`, a key of `FLIPS`."""
    transpose = FLIPS[how]
    return image if transpose is None else image.transpose(transpose)


@dataclass(frozen=True)
class FlipLevel(Level):
    pair: bool = True
    """Show the upright picture beside the changed one."""
    vertical_only: bool = False
    """Leave out left-right and both."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The possible answers."""
        return ("none", "top-bottom") if self.vertical_only else tuple(FLIPS)


class Flip(Task[FlipLevel]):
    name = "flip"
    summary = "whether the picture was mirrored, and which way"
    reference = "after RotNet, arXiv 1803.07728; Spatial-SSRL, arXiv 2510.27606"
    levels = {
        "pair": FlipLevel(),
        "single_vertical": FlipLevel(pair=False, vertical_only=True),
        "single": FlipLevel(pair=False),
    }
    default_level = "pair"

    def grader(self, level: FlipLevel) -> Choice:
        return Choice(level.labels)

    def generate(self, item: Item, level: FlipLevel, rng: random.Random) -> Sample | Rejection:
        square = random_square(item.image, rng)
        side = min(level.side, int(square.width * SHRUNK_TO))
        if side < 28:
            return Rejection("too_small", f"{side} pixels would be left")
        side -= side % 8
        probe = resized(square, (64, 64))
        if is_blank(probe):
            return Rejection("blank")
        for other in level.labels[1:]:
            if (apart := difference(probe, flipped(probe, other))) < SYMMETRIC_BELOW:
                return Rejection("symmetric", f"differs by {apart:.3f} from itself mirrored: {other}")
        how = rng.choice(level.labels)
        views = [as_planes(resized(flipped(square, change), (side, side))) for change in ("none", how)]
        before, after = (as_image(view + noise(view.shape, rng)) for view in views)
        meanings = "; ".join(f"{label} ({MEANINGS[label]})" for label in level.labels)
        if level.pair:
            question = (
                "<image><image>\nThe second picture shows the first one, perhaps mirrored. How was it changed? "
                f"Answer with one of: {meanings}. Give the name only, without the explanation."
            )
        else:
            question = (
                "<image>\nThis picture was perhaps mirrored. How was it changed from its upright original? Answer with "
                f"one of: {meanings}. Give the name only, without the explanation."
            )
        return Sample(question, (before, after) if level.pair else (after,), how, {"flip": how})
