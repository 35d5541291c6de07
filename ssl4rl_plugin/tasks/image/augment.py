"""The augmentations of contrastive learning: draw the parameters first, apply them second.

Strengths follow SimCLR (Chen et al., arXiv 2002.05709, appendix A): brightness, contrast and saturation factors from
[1 - 0.8 s, 1 + 0.8 s], grayscale and Gaussian blur with given probabilities.
"""

from __future__ import annotations

import random
from typing import Any

from PIL import Image, ImageEnhance, ImageFilter, ImageOps


def draw_colours(rng: random.Random, strength: float) -> dict[str, float]:
    """Factors for brightness, contrast and saturation, each from [1 - 0.8 s, 1 + 0.8 s], s = `strength` in [0, 1]."""
    low, high = 1 - 0.8 * strength, 1 + 0.8 * strength
    return {name: round(rng.uniform(low, high), 4) for name in ("brightness", "contrast", "saturation")}


def recoloured(image: Image.Image, factors: dict[str, Any]) -> Image.Image:
    """The picture after applying the factors of `draw_colours`."""
    image = ImageEnhance.Brightness(image).enhance(factors["brightness"])
    image = ImageEnhance.Contrast(image).enhance(factors["contrast"])
    return ImageEnhance.Color(image).enhance(factors["saturation"])


def draw_augmentation(rng: random.Random, strong: bool) -> dict[str, Any]:
    """Draw the parameters of one view: mirroring, colours, grayscale, blur; with `strong`, also solarisation.

    `blur` is the standard deviation in pixels for a picture of 224 pixels width.
    """
    # Draw all numbers in any case, so that one choice does not shift the next.
    drawn = {
        "mirror": rng.random() < 0.5,
        "recolour": rng.random() < (1.0 if strong else 0.8),
        "gray": rng.random() < 0.2,
    }
    blurred, solarised, sigma = rng.random() < 0.5, rng.random() < 0.2, round(rng.uniform(0.1, 2.0), 4)
    factors = draw_colours(rng, strength=1.0 if strong else 0.5)
    return {**drawn, "blur": sigma if blurred else 0.0, "solarise": solarised and strong, **factors}


def augmented(image: Image.Image, drawn: dict[str, Any]) -> Image.Image:
    """The picture after applying the parameters of `draw_augmentation`."""
    if drawn["recolour"]:
        image = recoloured(image, drawn)
    if drawn["mirror"]:
        image = ImageOps.mirror(image)
    if drawn["gray"]:
        image = ImageOps.grayscale(image).convert("RGB")
    if drawn["solarise"]:
        image = ImageOps.solarize(image, 128)
    if drawn["blur"]:
        image = image.filter(ImageFilter.GaussianBlur(drawn["blur"] * image.width / 224))
    return image
