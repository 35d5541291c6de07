"""Samples per second of every task at its default level, against decoding and resizing the same photo.

Run with `make bench`. The floor is what any loader has to do: decode the JPEG, bring it to the task's size.
"""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from pictures import clip, photo, rgbd
from PIL import Image

from ssl4rl_plugin.core import RGBD, Item
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.images import open_rgb
from ssl4rl_plugin.tasks import get_task, registry


def jpegs(count: int = 16) -> list[bytes]:
    found = []
    for seed in range(count):
        buffer = io.BytesIO()
        photo(seed, 640, 480).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def test_floor_decode_and_resize(benchmark) -> None:
    benchmark.group = "one sample"
    files = itertools.cycle(jpegs())
    benchmark(lambda: Image.open(io.BytesIO(next(files))).convert("RGB").resize((448, 448), Image.Resampling.BICUBIC))


def pngs(depth: np.ndarray) -> bytes:
    """A depth map as a 16-bit PNG in millimetres."""
    buffer = io.BytesIO()
    Image.fromarray(np.nan_to_num(depth * 1000).astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", registry.names())
def test_sample(benchmark, name: str) -> None:
    """Decoding is part of it for images and depth maps; the frames of a video are decoded once, beforehand."""
    benchmark.group = "one sample"
    task = get_task(name)
    level = task.level()
    files = jpegs()
    depths = [pngs(rgbd(seed, 640, 480).depth) for seed in range(4)] if task.kind == "rgbd" else []
    clips = [clip(seed) for seed in range(4)] if task.kind == "video" else []
    numbers = itertools.count()

    def data(number: int) -> Any:
        if clips:
            return clips[number % len(clips)]
        image = open_rgb(files[number % len(files)])
        if not depths:
            return image
        depth = np.asarray(Image.open(io.BytesIO(depths[number % len(depths)])), np.float32) / 1000
        return RGBD(image, np.where(depth > 0, depth, np.nan))

    def make() -> None:
        number = next(numbers)
        first, *rest = (data(number + k) for k in range(1 + task.others_needed))
        item = Item(str(number), first, "a", tuple(Item(f"o{k}", one, f"g{k}") for k, one in enumerate(rest)))
        task.generate(item, level, rng_for(0, name, number))

    benchmark(make)
