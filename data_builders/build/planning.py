"""Plans a build: its rows, and everything that determines their bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ssl4rl_plugin.data.build_plan import BuildPlan, PlanError, makers
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.mixture import Mixture, Part, parts_of
from ssl4rl_plugin.data.pools import unused
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.data.shards import Codec
from ssl4rl_plugin.training.questions import questions_digest
from ssl4rl_plugin.training.settings import Settings
from ssl4rl_plugin.training.stored_rows import built_questions


def make_plan(
    section: Mapping[str, Any],
    manifest: Manifest | Mixture,
    store: str = "bytes",
    codec: Codec | None = None,
    shard_rows: int = 512,
) -> BuildPlan:
    """Plan a build.

    Args:
        section: the `ssl4rl` section of a config, with the manifest's source, or with `sources`.
        manifest: the indexed images, of one source or of several.
        store: one of `STORES`.
        codec: encoding of pictures; None for JPEG of quality 90.
        shard_rows: rows in each shard, except the last one of a split.

    Raises:
        SettingsError, SourceError, SampleError: the settings are wrong, or do not fit the images.
        PlanError: the store, codec or shard size is invalid, or the source is a graph.
    """
    if any(not isinstance(one, Manifest) for _, one in parts_of(manifest)):
        raise PlanError("a graph is not built beforehand: its samples are made during training (see docs/graphs.md)")
    kept = {key: value for key, value in section.items() if key not in ("data", "benchmarks", "transductive")}
    if isinstance(manifest, Mixture):
        kept["source"] = {key: value for key, value in section["source"].items() if key not in ("path", "manifest")}
        kept["sources"] = [_entry(part) for part in manifest.parts]
        if (problem := unused(Settings.from_config(kept).arms, manifest)) is not None:
            raise PlanError(problem)
    else:
        source = {key: value for key, value in section["source"].items() if key not in ("path", "manifest")}
        kept.pop("sources", None)  # empty: builds of earlier versions lack the key
        kept["source"] = source | _indexed(manifest)
    kept = json.loads(json.dumps(kept))
    settings = Settings.from_config(kept)
    rows = {"train": 0, "val": 0, "questions": 0}
    for split in ("train", "val"):
        if manifest.items(split):
            rows[split] = len(SampleStream(settings, manifest, split))
    asked = built_questions(settings, manifest)
    rows["questions"] = sum(map(len, asked))
    return BuildPlan(
        kept,
        images_digest(manifest),
        questions_digest([question for one in asked for question in one.questions]),
        store,
        codec or Codec(),
        shard_rows,
        rows,
        makers(),
    )


def _indexed(manifest: Manifest) -> dict[str, Any]:
    """Name, options and share of held-out groups of a manifest's source, as it was indexed."""
    indexed = manifest.settings
    return {"name": indexed["source"], "options": indexed["options"], "val_fraction": indexed["val_fraction"]}


def _entry(part: Part) -> dict[str, Any]:
    """An entry of `ssl4rl.sources`, without the place of the images."""
    assert isinstance(part.manifest, Manifest)
    indexed, settings = _indexed(part.manifest), part.settings
    return {
        "source": indexed["name"], "name": settings.label, "weight": settings.weight, "options": indexed["options"],
        "val_fraction": indexed["val_fraction"], "max_pixels": settings.max_pixels, "train_size": settings.train_size,
    }  # fmt: skip


def images_digest(manifest: Manifest | Mixture) -> str:
    """SHA-256 of the properties of usable images that samples depend on. Paths and times of files are not part of it."""
    found = hashlib.sha256()
    for label, one in parts_of(manifest):
        if label:
            found.update(json.dumps(label).encode())
        assert isinstance(one, Manifest)
        _digest_images(one, found)
    return found.hexdigest()


def _digest_images(manifest: Manifest, found: Any) -> None:
    import pyarrow.compute as pc

    table = manifest.table.select(["ref", "sha256", "group", "split", "box", "reason"])
    usable = table.filter(pc.is_null(table["reason"])).combine_chunks()
    for batch in usable.to_batches(max_chunksize=65_536):
        found.update(json.dumps([column.to_pylist() for column in batch.columns[:-1]]).encode())
