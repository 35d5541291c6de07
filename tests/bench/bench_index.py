"""Pictures per second of the index, against a bare loop that reads, decodes and computes the same figures.

Run with `make bench`; the photos are those of tests/photos.py. `ratio` in the last test is what the index reaches of the
bare loop's speed (goal: 0.7): medians of several runs, taken in turns, so that a busy machine slows both down alike. One
thread each.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from photos import photographs
from PIL import Image

from ssl4rl_plugin.data.near_duplicates import signature
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.folder import FolderSource

RUNS = 7


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with photographs() as found:
        yield found


def bare(folder: Path) -> None:
    """Nothing but what has to be done: SHA-256, signature, entropy and contrast."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            hashlib.sha256(data).hexdigest()
            image = Image.open(io.BytesIO(data)).convert("RGB")
            image = image.reduce(max(1, math.isqrt(image.width * image.height // 65_536)))
            signature(image)
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

    both()
    benchmark.pedantic(both, rounds=RUNS)
    loop, index = (statistics.median(taken[1:]) for taken in times)
    benchmark.extra_info |= {"bare_seconds": round(loop, 4), "index_seconds": round(index, 4), "ratio": loop / index}
    print(f"\nbare loop {loop:.3f} s, index {index:.3f} s: {loop / index:.0%} of the bare loop's speed")
