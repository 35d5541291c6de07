"""Samples per second of every task at its default level, against decoding and resizing the same photo.

Run with `make bench`. The floor is what any loader has to do: decode the JPEG, bring it to the task's size.
"""

from __future__ import annotations

import io
import itertools

import pytest
from pictures import photo
from PIL import Image

from ssl4rl_plugin.core import Item
from ssl4rl_plugin.images import open_rgb
from ssl4rl_plugin.seeding import rng_for
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


@pytest.mark.parametrize("name", registry.names())
def test_sample(benchmark, name: str) -> None:
    benchmark.group = "one sample"
    task = get_task(name)
    level = task.level()
    files = jpegs()
    numbers = itertools.count()

    def make() -> None:
        number = next(numbers)
        first, *rest = (open_rgb(files[(number + k) % len(files)]) for k in range(1 + task.others_needed))
        item = Item(str(number), first, "a", tuple(Item(f"o{k}", image, f"g{k}") for k, image in enumerate(rest)))
        task.generate(item, level, rng_for(0, name, number))

    benchmark(make)
