"""Pictures that tests make for themselves (on the path of every test, see pyproject)."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def photo(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A picture with large coloured shapes and texture everywhere, different for every seed."""
    rng = random.Random(seed)
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(width), rng.randrange(height)
        colour = tuple(rng.randrange(256) for _ in range(3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape([x, y, x + rng.randrange(20, width // 2), y + rng.randrange(20, height // 2)], fill=colour)
    image = Image.blend(image, Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST), 0.4)
    return image.filter(ImageFilter.GaussianBlur(0.6))
