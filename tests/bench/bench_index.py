"""Pictures per second of the index, against a bare loop that reads, decodes and computes the same figures.

Run with `make bench`. The pictures are those of the folder `SSL4RL_BENCH_PHOTOS`, by default `../shared/data/photos_full`,
or else those that come with scikit-image. `ratio` in the last test is what the index reaches of the bare loop's speed:
medians of several runs, taken in turns, so that a busy machine slows both down alike. One thread each.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import os
import statistics
import time
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from ssl4rl_plugin.data_builders.folder import FolderSource
from ssl4rl_plugin.data_builders.manifest import build_manifest

RUNS = 7
LEAST_RATIO = 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared = Path(__file__).parents[3] / "shared/data/photos_full"
    given = Path(os.environ.get("SSL4RL_BENCH_PHOTOS") or shared)
    if given.is_dir():
        return given
    import skimage

    made = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "retina.jpg"] * 8):
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            image.convert("RGB").save(made / f"{number}.jpg", quality=90 - number % 8)
    return made


def bare(folder: Path) -> None:
    """Nothing but what has to be done: SHA-256, perceptual hash, entropy and contrast."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            hashlib.sha256(data).hexdigest()
            image = Image.open(io.BytesIO(data)).convert("RGB")
            image = image.reduce(max(1, math.isqrt(image.width * image.height // 65_536)))
            str(imagehash.phash(image))
            gray = image.convert("L")
            gray.entropy()
            np.asarray(gray).std()


@pytest.mark.parametrize("workers", [1, 2])
def test_index(benchmark, folder: Path, tmp_path: Path, workers: int) -> None:
    benchmark.group = "one folder"
    outs = (tmp_path / f"{k}.parquet" for k in itertools.count())
    benchmark.pedantic(
        lambda: build_manifest(FolderSource(folder), next(outs), workers=workers), rounds=5, warmup_rounds=1
    )


def test_bare_loop(benchmark, folder: Path) -> None:
    benchmark.group = "one folder"
    benchmark.pedantic(bare, (folder,), rounds=5, warmup_rounds=1)


def test_index_again(benchmark, folder: Path, tmp_path: Path) -> None:
    """Nothing changed."""
    benchmark.group = "one folder again"
    build_manifest(FolderSource(folder), tmp_path / "m.parquet")
    benchmark(lambda: build_manifest(FolderSource(folder), tmp_path / "m.parquet"))


def test_ratio(benchmark, folder: Path, tmp_path: Path) -> None:
    """All of the index (listing, figures, groups, file) against the bare loop, in turns."""
    benchmark.group = "ratio"
    outs = (tmp_path / f"{k}.parquet" for k in itertools.count())
    times: tuple[list[float], list[float]] = [], []

    def both() -> None:
        for taken, call in zip(
            times,
            (lambda: bare(folder), lambda: build_manifest(FolderSource(folder), next(outs), workers=1)),
            strict=True,
        ):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)

    benchmark.pedantic(both, rounds=RUNS, warmup_rounds=1)
    loop, index = (statistics.median(taken[1:]) for taken in times)
    benchmark.extra_info |= {"bare_seconds": round(loop, 4), "index_seconds": round(index, 4), "ratio": loop / index}
    print(f"\nbare loop {loop:.3f} s, index {index:.3f} s: {loop / index:.0%} of the bare loop's speed")
    assert loop / index >= LEAST_RATIO
