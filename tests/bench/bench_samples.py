"""Samples per second of every task at its default level, against decoding and resizing the same photo.

Run with `make bench`. The floor is what any loader has to do: decode the JPEG, bring it to the task's size. Each task gets
items of its kind: images, images with depth, videos, nodes of a graph.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graphs import made_graph
from pictures import clip, photo, rgbd
from PIL import Image

from ssl4rl_plugin.core import RGBD, GraphNode, Item, Sample
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


def images() -> Callable[[int], Any]:
    """Data of item `number`, decoded on each call."""
    files = jpegs()
    return lambda number: open_rgb(files[number % len(files)])


def images_with_depth() -> Callable[[int], Any]:
    """The same, with a depth map, which is decoded on each call too."""
    image, depths = images(), [pngs(rgbd(seed, 640, 480).depth) for seed in range(4)]

    def data(number: int) -> RGBD:
        depth = np.asarray(Image.open(io.BytesIO(depths[number % len(depths)])), np.float32) / 1000
        return RGBD(image(number), np.where(depth > 0, depth, np.nan))

    return data


def videos() -> Callable[[int], Any]:
    """Clips whose frames are decoded once, beforehand."""
    clips = [clip(seed) for seed in range(4)]
    return lambda number: clips[number % len(clips)]


def nodes() -> Callable[[int], Any]:
    """Nodes of one graph with texts and named relations."""
    graph = made_graph()
    train = graph.nodes_of("train").tolist()
    return lambda number: GraphNode(graph, train[number % len(train)], "train")


KINDS = {"image": images, "rgbd": images_with_depth, "video": videos, "graph": nodes}


@pytest.mark.parametrize("name", registry.names())
def test_sample(benchmark, name: str) -> None:
    """Refused draws count: a sample is what comes out, whatever it took."""
    benchmark.group = "one sample"
    task = get_task(name)
    level, data = task.level(), KINDS[task.kind]()
    numbers = itertools.count()

    def make() -> Sample:
        for number in itertools.islice(numbers, 1000):
            first, *rest = (data(number + k) for k in range(1 + task.others_needed))
            item = Item(str(number), first, "a", tuple(Item(f"o{k}", one, f"g{k}") for k, one in enumerate(rest)))
            made = task.generate(item, level, rng_for(0, name, number))
            if isinstance(made, Sample):
                return made
        pytest.fail("the task refuses nearly everything")

    assert task.gold(benchmark(make).truth, level)
