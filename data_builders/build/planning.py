"""Plans a build: its rows, and everything that determines their bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ssl4rl_plugin.data.build_plan import BuildPlan, PlanError, makers
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.data.shards import Codec
from ssl4rl_plugin.training.questions import QuestionRows, questions_digest
from ssl4rl_plugin.training.settings import Settings


def make_plan(
    section: Mapping[str, Any],
    manifest: Manifest,
    store: str = "bytes",
    codec: Codec | None = None,
    shard_rows: int = 512,
) -> BuildPlan:
    """Plan a build.

    Args:
        section: the `ssl4rl` section of a config, with the manifest's source.
        manifest: the indexed images.
        store: one of `STORES`.
        codec: encoding of pictures; None for JPEG of quality 90.
        shard_rows: rows in each shard, except the last one of a split.

    Raises:
        SettingsError, SourceError, SampleError: the settings are wrong, or do not fit the images.
        PlanError: the store, codec or shard size is invalid, or the source is a graph.
    """
    if manifest.source.kind == "graph":
        raise PlanError("a graph is not built beforehand: its samples are made during training (see docs/graphs.md)")
    source = {key: value for key, value in section["source"].items() if key not in ("path", "manifest")}
    indexed = manifest.settings
    source |= {"name": indexed["source"], "options": indexed["options"], "val_fraction": indexed["val_fraction"]}
    kept = {key: value for key, value in section.items() if key not in ("data", "benchmarks", "transductive")}
    kept = json.loads(json.dumps({**kept, "source": source}))
    settings = Settings.from_config(kept)
    rows = {"train": 0, "val": 0, "questions": 0}
    for split in ("train", "val"):
        if manifest.items(split):
            rows[split] = len(SampleStream(settings, manifest, split))
    asked = QuestionRows(manifest, settings.answer_format, settings.benchmark_max_pixels)
    rows["questions"] = len(asked)
    return BuildPlan(
        kept,
        images_digest(manifest),
        questions_digest(asked.questions),
        store,
        codec or Codec(),
        shard_rows,
        rows,
        makers(),
    )


def images_digest(manifest: Manifest) -> str:
    """SHA-256 of the properties of usable images that samples depend on. Paths and times of files are not part of it."""
    import pyarrow.compute as pc

    found = hashlib.sha256()
    table = manifest.table.select(["ref", "sha256", "group", "split", "box", "reason"])
    usable = table.filter(pc.is_null(table["reason"])).combine_chunks()
    for batch in usable.to_batches(max_chunksize=65_536):
        found.update(json.dumps([column.to_pylist() for column in batch.columns[:-1]]).encode())
    return found.hexdigest()
