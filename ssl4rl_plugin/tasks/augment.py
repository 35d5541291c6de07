"""Colour and blur augmentations, drawn first and applied second, as contrastive learning uses them.

Strengths follow SimCLR (Chen et al., arXiv 2002.05709, appendix A): brightness, contrast and saturation factors from
[1 - 0.8 s, 1 + 0.8 s], grayscale and Gaussian blur with given probabilities.
"""

from __future__ import annotations

import random
from typing import Any

from PIL import Image, ImageEnhance, ImageFilter, ImageOps


def colour_changed(image: Image.Image, rng: random.Random, strength: float) -> tuple[Image.Image, dict[str, Any]]:
    """Brightness, contrast and saturation changed, each by a factor from [1 - 0.8 s, 1 + 0.8 s], s = `strength` in [0, 1].

    Returns the picture and the factors drawn.
    """
    low, high = 1 - 0.8 * strength, 1 + 0.8 * strength
    factors = {name: round(rng.uniform(low, high), 4) for name in ("brightness", "contrast", "saturation")}
    image = ImageEnhance.Brightness(image).enhance(factors["brightness"])
    image = ImageEnhance.Contrast(image).enhance(factors["contrast"])
    return ImageEnhance.Color(image).enhance(factors["saturation"]), factors


def augmented(image: Image.Image, rng: random.Random, strong: bool) -> tuple[Image.Image, dict[str, Any]]:
    """One view of contrastive learning: mirrored, recoloured, perhaps gray or blurred; strong adds solarising.

    Returns the picture and the parameters drawn.
    """
    # All draws happen whatever they decide, so that one choice never shifts the next.
    mirror, recolour = rng.random() < 0.5, rng.random() < (1.0 if strong else 0.8)
    gray, blur = rng.random() < 0.2, rng.random() < 0.5
    solarise = rng.random() < 0.2 and strong
    sigma = round(rng.uniform(0.1, 2.0) * image.width / 224, 4)  # in pixels of a 224-pixel view
    coloured, factors = colour_changed(image, rng, strength=1.0 if strong else 0.5)
    params: dict[str, Any] = {"mirror": mirror, "gray": gray, "blur": sigma if blur else 0, "solarise": solarise}
    if recolour:
        image = coloured
        params |= factors
    if mirror:
        image = ImageOps.mirror(image)
    if gray:
        image = ImageOps.grayscale(image).convert("RGB")
    if solarise:
        image = ImageOps.solarize(image, 128)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(sigma))
    return image, params
