"""The photographs that benches work on (on the path of every test, see pyproject)."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def photographs(crops: int = 12) -> Iterator[Path]:
    """A folder of photographs: what SSL4RL_BENCH_PHOTOS names, or else `crops` of each photograph of scikit-image."""
    if named := os.environ.get("SSL4RL_BENCH_PHOTOS"):
        yield Path(named)
        return
    from ssl4rl_plugin.data_builders.index.indexer import build_manifest
    from ssl4rl_plugin.data_builders.sources.sample_photos import SamplePhotosSource

    with tempfile.TemporaryDirectory() as folder:
        manifest = build_manifest(SamplePhotosSource(crops=crops), Path(folder) / "index.parquet", val_fraction=0.0)
        photos = Path(folder) / "photos"
        photos.mkdir()
        for number, item in enumerate([*manifest.items("train"), *manifest.items("val")]):
            image = manifest.open(item)
            image.save(photos / f"{number:03}.jpg", quality=90)  # type: ignore[union-attr]
        yield photos
