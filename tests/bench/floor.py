"""The floor of a build: what nobody can leave out of a row, written down plainly with Pillow, with no check of anything.

Files are decoded and brought to the pixel budget as `open_rgb` does it; cut and resized as the tasks do it; encoded as
builds do it. `tests/bench/building.py` measures builds against it, and starts this file for a floor in several processes:

    python tests/bench/floor.py TASK FIRST ROWS < names of the files
"""

from __future__ import annotations

import io
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

MAX_PIXELS = 1024 * 1024
"""Default of `ssl4rl.source.max_pixels`."""
SIDE = 448
"""Default of a level's `side`."""


def decoded(data: bytes) -> Image.Image:
    """An RGB picture of at most `MAX_PIXELS` pixels. libjpeg shrinks a large JPEG by 2, 4 or 8 while it decodes."""
    image = Image.open(io.BytesIO(data))
    scale = math.sqrt(MAX_PIXELS / (image.width * image.height))
    if scale >= 1:
        return image.convert("RGB")
    size = int(image.width * scale), int(image.height * scale)
    image.draft(None, size)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def resized(image: Image.Image, width: float, height: float) -> Image.Image:
    return image.resize((round(width), round(height)), Image.Resampling.BICUBIC, reducing_gap=3.0)


def fit(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    return resized(image, image.width * scale, image.height * scale)


def cut(image: Image.Image, width: float, height: float, rng: random.Random) -> Image.Image:
    left, upper = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    return image.crop((int(left), int(upper), int(left + width), int(upper + height)))


def rotation(data: bytes, other: bytes, rng: random.Random) -> list[Image.Image]:
    image = decoded(data)
    side = min(image.size) * rng.uniform(0.7, 1)
    square = fit(cut(image, side, side, rng), min(SIDE, int(side)))
    return [square, square.rotate(rng.choice((0, 90, 180, 270)))]


def jigsaw(data: bytes, other: bytes, rng: random.Random) -> list[Image.Image]:
    image = decoded(data)
    keep = rng.uniform(0.85, 1)
    whole = fit(cut(image, image.width * keep, image.height * keep, rng), SIDE)
    w, h = whole.width // 2, whole.height // 2
    boxes = [(x + w // 20, y + h // 20, x + w - w // 20, y + h - h // 20) for y in (0, h) for x in (0, w)]
    rng.shuffle(boxes)
    return [whole.crop(box) for box in boxes]


def position(data: bytes, other: bytes, rng: random.Random) -> list[Image.Image]:
    image = decoded(data)
    side = min(image.size) / 2 * rng.uniform(0.6, 0.9)
    return [fit(image, SIDE), resized(cut(image, side, side, rng), SIDE // 2, SIDE // 2)]


def contrastive(data: bytes, other: bytes, rng: random.Random) -> list[Image.Image]:
    from ssl4rl_plugin.tasks.image.augment import augmented, draw_augmentation

    photos = [decoded(data), decoded(other)]
    size = min(SIDE, *photos[0].size, *photos[1].size)
    squares = [resized(cut(p, min(p.size), min(p.size), rng), size, size) for p in photos]
    views = []
    for square in rng.choice(([squares[0]] * 2, squares)):
        side = size * rng.uniform(0.5, 1)
        view = resized(cut(square, side, side, rng), SIDE // 2, SIDE // 2)
        views.append(augmented(view, draw_augmentation(rng, strong=False)))
    return views


TASKS: dict[str, Callable[[bytes, bytes, random.Random], list[Image.Image]]] = {
    "rotation": rotation, "jigsaw:2x2": jigsaw, "position": position, "contrastive": contrastive,
}  # fmt: skip


def loop(task: str, files: list[Path], first: int, rows: int) -> int:
    """Make `rows` rows, starting at row `first`. Returns the bytes of the encoded pictures."""
    rng, corrupt, size = random.Random(first), TASKS[task], 0
    for number in range(first, first + rows):
        data, other = (files[(number + k) % len(files)].read_bytes() for k in (0, 7))
        for picture in corrupt(data, other, rng):
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=90, subsampling="4:4:4")
            size += file.tell()
    return size


if __name__ == "__main__":
    loop(sys.argv[1], [Path(line) for line in sys.stdin.read().splitlines()], int(sys.argv[2]), int(sys.argv[3]))
