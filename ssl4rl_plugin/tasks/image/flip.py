"""Flip: was the picture mirrored, and which way?

Corrupted: a square cut of the photo is left as it is, mirrored left-right, mirrored top-bottom, or both (which is a turn
by 180 degrees), each with the same probability. Asked: which, from a pair (upright, changed), or from the changed
picture alone. Exact; a blind guesser gets 1/4, and 1/2 where only top-bottom is possible. From the pair the answer is
always to be seen. From the picture alone top and bottom are plain in most photos, but left and right only where there
is writing, a hand or a known place: expect no model to come near 1 on `single`.

Nothing but the content should tell. All views are squares of one size; the photo's pixels are mirrored first and
shrunk second, so that what shrinking leaves behind is never mirrored; every view is shrunk by a quarter at least, so
that 8x8 blocks of the photo's own compression do not keep their size; sides are multiples of 8, so that no view ends in
part of a block when it is compressed again; and noise of at most 2 of 255 levels, drawn anew for each view, keeps an
unchanged pair from being equal byte for byte. Refused: `blank` pictures, `symmetric` ones, which look the same under
one of the possible changes, and pictures that are `too_small`.

The whole-picture form of the flip task of Spatial-SSRL (arXiv 2510.27606), after RotNet (Gidaris et al., arXiv
1803.07728), where the change to be named is a turn.
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
"""The answers, and what each does to the picture; any two of these after each other are a third."""

MEANINGS = {
    "none": "the picture is unchanged",
    "left-right": "left and right are exchanged, as in a mirror beside the picture",
    "top-bottom": "top and bottom are exchanged, as in a mirror below the picture",
    "both": "left and right as well as top and bottom are exchanged",
}
"""How prompts explain the answers."""

SYMMETRIC_BELOW = 0.03
"""Mean absolute difference (range [0, 1]) under which a picture counts as equal to its mirrored self."""
SHRUNK_TO = 0.75
"""The largest view, as a share of the cut's side in the photo."""


def flipped(image: Image.Image, how: str) -> Image.Image:
    """The picture after the change that `how`, a key of `FLIPS`, names."""
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
