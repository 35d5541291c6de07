"""Channel order: how were the red, green and blue channels of the picture swapped?

Corrupted: the three colour channels of a square crop of the photo are permuted. The order is one of all six or, at the
easy levels, of the three cyclic ones; both include the unchanged order. Asked: the order, from a pair (original,
permuted) or from the permuted picture alone. A label such as BRG names the channels of the original that became red,
green and blue, in that order; the prompt explains this with an example. Exact; a blind guesser gets 1/6 or 1/3.

Colours are what is asked about (see `cues`). A pair determines the answer; a single picture needs knowledge of the
colours of things. JPEG must not reveal it instead: JPEG stores red and blue more coarsely than green, which marks the old
channels. So crops are shrunk to at most half their size, all channels get the fine detail of their mean, and their
differences are kept at a quarter of the resolution. This weakens the trace but does not remove it: in JPEG pictures
without content, special measurements still beat chance.

Refused: `no_visible_change`, if two possible orders look alike (the photo is gray, or two channels are nearly equal),
which does not depend on the answer; `blank` crops; `too_small` ones, of which fewer than 28 pixels would be left.

Colour as the signal of a pretext task goes back to colourisation (Zhang et al., arXiv 1603.08511).
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.images import thumbnail_array
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.views import is_blank, random_square, resized

CYCLIC = ("RGB", "GBR", "BRG")
ALL = ("RGB", "GBR", "BRG", "RBG", "GRB", "BGR")
PLANES = "RGB"
VISIBLE_FROM = 0.03
"""Least mean absolute difference (range [0, 1]) of two channels at which exchanging them counts as visible. The cyclic
levels move all three channels and compare the mean over all pairs."""

SHRUNK_TO = 0.5
"""Largest side of a view, as a share of the crop's side in the photo."""
COARSER = 4
"""Factor by which the differences between channels have a lower resolution than the view."""


@dataclass(frozen=True)
class ChannelOrderLevel(Level):
    side: int = 224
    cyclic: bool = False
    """Use only the three cyclic orders: all channels move, or none."""
    pair: bool = True
    """Show the original beside the permuted picture."""


class ChannelOrder(Task[ChannelOrderLevel]):
    name = "channel_order"
    summary = "how the red, green and blue channels of the picture were permuted"
    reference = "after colour as a pretext signal, arXiv 1603.08511"
    levels = {
        "pair_3": ChannelOrderLevel(cyclic=True),
        "pair": ChannelOrderLevel(),
        "single_3": ChannelOrderLevel(cyclic=True, pair=False),
        "single": ChannelOrderLevel(pair=False),
    }
    default_level = "pair_3"
    cues: ClassVar = {
        "colour": "the colours of the picture are what is asked about",
        "border": "steps between lines are measured on the luma, in which the channels have different weights",
        "codec": "JPEG codes luma and colour differences, in which the channels have different weights",
        "sharpness": "fine detail is measured on the luma, in which the channels have different weights",
    }

    def grader(self, level: ChannelOrderLevel) -> Choice:
        labels = CYCLIC if level.cyclic else ALL
        return Choice(labels, {separator.join(label): label for label in labels for separator in (" ", ",", ", ")})

    def generate(self, item: Item, level: ChannelOrderLevel, rng: random.Random) -> Sample | Rejection:
        square = random_square(item.image, rng)
        side = min(level.side, int(square.width * SHRUNK_TO))
        if side < 28:
            return Rejection("too_small", f"{side} pixels would be left")
        original = _with_common_detail(resized(square, (side, side)))
        if is_blank(original):
            return Rejection("blank")
        small = thumbnail_array(original, 32)
        apart = [float(np.abs(small[..., a] - small[..., b]).mean()) for a, b in itertools.combinations(range(3), 2)]
        if (least := sum(apart) / 3 if level.cyclic else min(apart)) < VISIBLE_FROM:
            return Rejection("no_visible_change", f"channels differ by {least:.3f}")
        labels = self.grader(level).labels
        truth = rng.choice(labels)
        planes = dict(zip(PLANES, original.split(), strict=True))
        permuted = Image.merge("RGB", [planes[channel] for channel in truth])
        shown = (
            "<image><image>\nThe second picture is the first one after its colour channels red (R), green (G) and blue (B) "
            "were put into an order, perhaps the old one. In which order?"
            if level.pair
            else "<image>\nThe colour channels red (R), green (G) and blue (B) of a photo were put into an order, perhaps "
            "the old one; this is the result. In which order?"
        )
        question = (
            f"{shown} The order is written as the three channels of the original that became the new red, green and blue. "
            "For example, GBR means that the new red is the old green, the new green is the old blue, and the new blue is "
            f"the old red; RGB means that nothing changed. Answer with one of: {', '.join(labels)}."
        )
        return Sample(question, (original, permuted) if level.pair else (permuted,), truth, {"order": truth})


def _with_common_detail(picture: Image.Image) -> Image.Image:
    """The picture with the fine detail of the channels' mean in each channel. Treats all channels alike."""
    pixels = np.asarray(picture, np.float32)
    mean = pixels.mean(axis=2)
    coarse = (picture.width // COARSER, picture.height // COARSER)
    planes = [
        mean
        + np.asarray(
            Image.fromarray(pixels[..., k] - mean)
            .resize(coarse, Image.Resampling.BOX)
            .resize(picture.size, Image.Resampling.BICUBIC)
        )
        for k in range(3)
    ]
    return Image.fromarray(np.clip(np.rint(np.stack(planes, axis=-1)), 0, 255).astype(np.uint8))
