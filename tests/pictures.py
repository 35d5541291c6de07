"""Pictures that tests make for themselves (on the path of every test, see pyproject)."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ssl4rl_plugin.core import RGBD, Clip


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


def rgbd(seed: int, width: int = 320, height: int = 240) -> RGBD:
    """A picture with a depth map: boxes at different distances before a wall that slants away; some depth is unknown."""
    rng = random.Random(seed)
    image = photo(seed, width, height)
    draw = ImageDraw.Draw(image)
    tilt_x, tilt_y = rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    depth = (6 + tilt_x * x + tilt_y * y).astype(np.float32)
    for _ in range(6):
        left, upper = rng.randrange(width - 40), rng.randrange(height - 40)
        right, lower = left + rng.randrange(40, width // 2), upper + rng.randrange(40, height // 2)
        distance = rng.uniform(1, 5)
        nearer = depth[upper:lower, left:right] > distance
        depth[upper:lower, left:right][nearer] = distance
        draw.rectangle([left, upper, right, lower], outline=tuple(rng.randrange(256) for _ in range(3)), width=2)
    depth[rng.randrange(height - 8) :, : rng.randrange(1, 20)] = np.nan
    return RGBD(image, depth)


def clip(seed: int, frames: int = 64, width: int = 160, height: int = 120) -> Clip:
    """A video: the camera pans over a picture at changing speed while a ball falls and stays down."""
    rng = random.Random(seed)
    wide = photo(seed, width * 3, height * 2)
    start, end = (rng.randrange(width * 2), rng.randrange(height)), (rng.randrange(width * 2), rng.randrange(height))
    if abs(start[0] - end[0]) < width // 2:
        end = ((start[0] + width) % (width * 2), end[1])
    bend, colour = rng.uniform(0.6, 1.6), tuple(rng.randrange(256) for _ in range(3))
    shown = []
    for k in range(frames):
        t = k / (frames - 1)
        left, upper = (round(a + (b - a) * t**bend) for a, b in zip(start, end, strict=True))
        frame = wide.crop((left, upper, left + width, upper + height))
        ball = min(1.0, (1.6 * t) ** 2) * (height - 20)
        ImageDraw.Draw(frame).ellipse([20 + 60 * t, ball, 40 + 60 * t, ball + 20], fill=colour)
        shown.append(frame)
    return Clip(tuple(shown), fps=8.0)
