"""Corruption: what was done to the picture?

Corrupted: a crop of the photo gets noise, blur, JPEG compression, posterization, low contrast, pixelation, brightness or
desaturation. Asked: which of these, from a pair (clean, corrupted) or from the corrupted picture alone. Exact; a blind
guesser gets 1/k of k kinds.

The question is about pixel statistics, so a guesser may use them (`cues`). Nothing else may reveal the answer: all
pictures have the same size and resampling, and only the `compression` kind encodes them. Refused: `no_visible_change`, if
some kind would not be visible or two kinds would look alike (the photo is gray, pale or coarse already), which favours no
answer; `blank`; `too_small`, if the photo would be enlarged more than twice, which blurs it.

The kinds are among those of ImageNet-C (Hendrycks & Dietterich, arXiv 1903.12261).
"""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from PIL import Image, ImageFilter

from ssl4rl_plugin.core import Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.tasks.image.views import is_blank, random_box, resized

_NORMAL = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)], np.float32)


def _pointwise(image: Image.Image, values: np.ndarray) -> Image.Image:
    """The picture with each value v of each channel replaced by `values[v]` (256 numbers)."""
    return image.point(np.clip(np.rint(values), 0, 255).astype(int).tolist() * 3)


def _noise(image: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    drawn = _NORMAL[np.frombuffer(rng.randbytes(pixels.size), np.uint8).reshape(pixels.shape)]
    return Image.fromarray(np.clip(np.rint(pixels + 64 * strength * drawn), 0, 255).astype(np.uint8))


def _blur(image: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(0.025 * strength * max(image.size)))


def _compression(image: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=round(40 * 0.08**strength))
    return Image.fromarray(np.asarray(Image.open(file)))  # pixels only: drops the mark that it was a JPEG


def _posterization(image: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    steps = round(16 * 0.125**strength) - 1
    return _pointwise(image, np.rint(np.arange(256) / 255 * steps) / steps * 255)


def _low_contrast(image: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    return _pointwise(image, 128 + (np.arange(256) - 128) * (1 - 0.85 * strength))


def _pixelation(image: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    block = 1 + 0.07 * strength * max(image.size)
    size = (max(2, round(image.width / block)), max(2, round(image.height / block)))
    return image.resize(size, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def _brightness(image: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    return _pointwise(image, np.arange(256) + 128 * strength)


def _desaturation(image: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    return Image.blend(image, image.convert("L").convert("RGB"), strength)


CORRUPTIONS: dict[str, Callable[[Image.Image, float, random.Random], Image.Image]] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "pixelation": _pixelation,
    "low contrast": _low_contrast,
    "desaturation": _desaturation,
    "posterization": _posterization,
    "compression": _compression,
}
"""Each kind -> function of the picture, a strength in (0, 1] and a random generator."""

IN_WORDS = {
    "noise": "random grain",
    "blur": "out of focus",
    "brightness": "everything brighter",
    "pixelation": "coarse square pixels",
    "low contrast": "everything closer to gray of middle brightness",
    "desaturation": "colours fade towards gray",
    "posterization": "few levels of colour",
    "compression": "strong JPEG compression",
}
"""Each kind -> its description in prompts."""

ALIASES = {
    "gaussian noise": "noise", "gaussian blur": "blur", "brightening": "brightness", "posterisation": "posterization",
    "pixelated": "pixelation", "contrast": "low contrast", "saturation": "desaturation", "jpeg": "compression",
    "jpeg compression": "compression",
}  # fmt: skip
VISIBLE_FROM = 0.012
"""Least mean absolute difference (range [0, 1]) at which a change, or a difference of two changes, counts as visible."""


@dataclass(frozen=True)
class CorruptionLevel(Level):
    side: int = 336
    kinds: int = 8
    """Number of kinds to choose from, 2 to 8: the first ones of `CORRUPTIONS`."""
    strength: float = 0.8
    """Strength of each kind, in (0, 1]."""
    pair: bool = True
    """Show the clean picture beside the corrupted one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.kinds <= len(CORRUPTIONS) and 0 < self.strength <= 1):
            raise ValueError(f"kinds must be in 2..8 and strength in (0, 1], got {self.kinds}, {self.strength}")


def clean_cut(item: Item, side: int, rng: random.Random) -> Image.Image | Rejection:
    """A crop of at least 80 % of the photo's width and height, its longest side at `side` pixels; or a rejection."""
    image = item.image
    cut = image.crop(
        random_box(*image.size, image.width * rng.uniform(0.8, 1), image.height * rng.uniform(0.8, 1), rng)
    )
    if max(cut.size) < side / 2 or min(cut.size) < 28:
        return Rejection("too_small", f"{cut.width} x {cut.height} pixels")
    scale = side / max(cut.size)
    shown = resized(cut, (max(14, round(cut.width * scale)), max(14, round(cut.height * scale))))
    return Rejection("blank") if is_blank(shown) else shown


def sampled(image: Image.Image) -> np.ndarray:
    """Every third pixel in both directions, in [0, 1], for comparisons. Unlike a mean, it keeps noise."""
    return np.asarray(image)[::3, ::3].astype(np.float32) / 255


class Corruption(Task[CorruptionLevel]):
    name = "corruption"
    summary = "which corruption was applied to the picture: noise, blur, compression, ..."
    reference = "kinds after ImageNet-C, arXiv 1903.12261"
    levels = {
        "pair_4": CorruptionLevel(kinds=4),
        "pair": CorruptionLevel(),
        "pair_mild": CorruptionLevel(strength=0.45),
        "single": CorruptionLevel(pair=False),
        "single_mild": CorruptionLevel(strength=0.45, pair=False),
    }
    default_level = "pair"
    cues: ClassVar = {
        "codec": "one of the answers is JPEG compression, and a noisy picture takes more bytes",
        "sharpness": "blur, noise and pixelation are changes of sharpness",
        "colour": "brightness, contrast and saturation are statistics of colour",
        "border": "the corruption includes the border lines of the picture",
    }

    def grader(self, level: CorruptionLevel) -> Choice:
        names = tuple(CORRUPTIONS)[: level.kinds]
        return Choice(names, {alias: name for alias, name in ALIASES.items() if name in names})

    def generate(self, item: Item, level: CorruptionLevel, rng: random.Random) -> Sample | Rejection:
        clean = clean_cut(item, level.side, rng)
        if isinstance(clean, Rejection):
            return clean
        names = self.grader(level).labels
        corrupted = {name: CORRUPTIONS[name](clean, level.strength, rng) for name in names}
        seen = {"nothing": sampled(clean)} | {name: sampled(image) for name, image in corrupted.items()}
        for a, b in itertools.combinations(seen, 2):
            if (apart := float(np.abs(seen[a] - seen[b]).mean())) < VISIBLE_FROM:
                return Rejection("no_visible_change", f"{a} and {b} differ by {apart:.3f}")
        truth = rng.choice(names)
        listed = "; ".join(f"{name} ({IN_WORDS[name]})" for name in names)
        question = (
            "<image><image>\nThe second picture is the first one after it was corrupted. What was done to it?"
            if level.pair
            else "<image>\nThis photo was corrupted. What was done to it?"
        )
        question += f" Possible are: {listed}. Answer with one of: {', '.join(names)}."
        images = (clean, corrupted[truth]) if level.pair else (corrupted[truth],)
        return Sample(question, images, truth, {"kind": truth, "strength": level.strength})
