"""The plan of a build: everything that its bytes depend on, and how its rows are divided into shards.

The plan is a file in the output, written before any shard. A build that is started again must have the same plan, each
shard names it, and whoever reads the rows learns from it what they are.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssl4rl_plugin.data_builders.manifest import Manifest
from ssl4rl_plugin.data_builders.shards import FORMATS, STORES, Codec
from ssl4rl_plugin.questions import QuestionRows, questions_digest
from ssl4rl_plugin.rows import OnlineRows, Rows
from ssl4rl_plugin.samples import SampleStream
from ssl4rl_plugin.settings import Settings

FILE = "build.json"
MANIFEST = "manifest.parquet"
SPLITS = ("train", "val", "questions")
VERSION = 1
"""Of the rows' layout."""

_MAKERS = ("ssl4rl-plugin", "pillow", "numpy", "scipy", "pyarrow")
"""Packages whose version may change a byte."""


class PlanError(ValueError):
    """A folder that holds no build, another build, or one that does not fit what is asked; says what to do."""


@dataclass(frozen=True)
class Shard:
    """One file of a build."""

    split: str
    number: int
    of: int
    start: int
    """First row of the split that it holds."""
    stop: int
    """Row behind its last one."""

    @property
    def name(self) -> str:
        """File name, in the Hugging Face convention."""
        return f"{self.split}-{self.number:05}-of-{self.of:05}.parquet"


@dataclass(frozen=True, eq=False)
class Plan:
    """What is built; plans of equal `id` give equal bytes."""

    section: dict[str, Any]
    """The `ssl4rl` section of the config, without paths."""
    images: str
    """Hash of the usable images: what they are, and how they are grouped and split."""
    questions: str
    """Hash of the questions, where the source is a benchmark."""
    store: str
    codec: Codec
    shard_rows: int
    rows: dict[str, int]
    """Split -> number of rows."""
    made_with: dict[str, str]
    """Package -> version."""
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.store not in STORES:
            raise PlanError(f"pictures can be stored as {', '.join(STORES)}, not {self.store!r}")
        if self.codec.format not in FORMATS or not 1 <= self.codec.quality <= 100:
            raise PlanError(
                f"pictures are {' or '.join(FORMATS)} of quality 1 to 100, not {self.codec.format!r} of {self.codec.quality}"
            )
        if self.shard_rows < 1:
            raise PlanError(f"a shard needs at least one row, got {self.shard_rows}")

    @functools.cached_property
    def id(self) -> str:
        """Hash of all of it."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        """As it is written to the build's folder; see `read_plan`."""
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode()

    def shards(self) -> list[Shard]:
        """All files, in order."""
        found = []
        for split in SPLITS:
            rows = self.rows.get(split, 0)
            count = -(-rows // self.shard_rows)
            found += [
                Shard(split, k, count, k * self.shard_rows, min(rows, (k + 1) * self.shard_rows)) for k in range(count)
            ]
        return found

    def stamp(self, shard: Shard) -> dict[str, Any]:
        """What a shard's footer says it is."""
        return {"plan": self.id, "name": shard.name, "rows": shard.stop - shard.start}

    def settings(self) -> Settings:
        """The settings that the rows are made with; the source's path is that of the manifest."""
        return Settings.from_config(self.section)

    def rows_of(self, split: str, folder: Path) -> Rows:
        """The rows of a split, to be made (not read), from the manifest in the build's folder.

        Raises SourceError or SampleError.
        """
        manifest = _manifest(folder / MANIFEST)
        settings = self.settings()
        if split == "questions":
            return QuestionRows(manifest, settings.answer_format, settings.source.max_pixels)
        return OnlineRows(SampleStream(settings, manifest, split))


@functools.lru_cache(maxsize=2)
def _manifest(path: Path) -> Manifest:
    return Manifest.load(path, strict=True)


def make_plan(
    section: Mapping[str, Any],
    manifest: Manifest,
    store: str = "bytes",
    codec: Codec | None = None,
    shard_rows: int = 512,
) -> Plan:
    """Plan a build.

    Args:
        section: the `ssl4rl` section of a config; its source is the one of the manifest.
        manifest: the indexed images.
        store: one of `STORES`.
        codec: how pictures are encoded; None for JPEG of quality 90.
        shard_rows: rows of each shard but the last of a split.

    Raises:
        SettingsError, SourceError, SampleError: the settings are wrong, or do not fit the images.
        PlanError: an impossible store, codec or size.
    """
    if manifest.source.kind == "graph":
        raise PlanError("a graph is not built beforehand: its samples are made while training (see docs/graphs.md)")
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
    asked = QuestionRows(manifest, settings.answer_format, settings.source.max_pixels)
    rows["questions"] = len(asked)
    return Plan(
        kept,
        images_digest(manifest),
        questions_digest(asked.questions),
        store,
        codec or Codec(),
        shard_rows,
        rows,
        makers(),
    )


def makers() -> dict[str, str]:
    """The installed versions of the packages that may change a byte."""
    return {name: version(name) for name in _MAKERS}


def images_digest(manifest: Manifest) -> str:
    """SHA-256 over what samples depend on of the usable images; the same wherever the files are, and whenever."""
    import pyarrow.compute as pc

    found = hashlib.sha256()
    table = manifest.table.select(["ref", "sha256", "group", "split", "box", "reason"])
    usable = table.filter(pc.is_null(table["reason"])).combine_chunks()
    for batch in usable.to_batches(max_chunksize=65_536):
        found.update(json.dumps([column.to_pylist() for column in batch.columns[:-1]]).encode())
    return found.hexdigest()


def read_plan(folder: Path) -> Plan:
    """The plan of the build in a folder. Raises PlanError."""
    try:
        return plan_from((folder / FILE).read_bytes())
    except FileNotFoundError:
        raise PlanError(f"{folder} holds no build ({FILE} is missing): make one with `ssl4rl build`") from None
    except OSError as error:
        raise PlanError(f"{folder / FILE} cannot be read: {error.strerror}") from error
    except PlanError as error:
        raise PlanError(f"{folder / FILE} {error}: build anew") from error


def plan_from(data: bytes) -> Plan:
    """The inverse of `Plan.to_json`. Raises PlanError."""
    try:
        values = json.loads(data)
        if values["version"] != VERSION:
            raise PlanError(f"has version {values['version']}, this package reads {VERSION}")
        return Plan(**values | {"codec": Codec(**values["codec"])})
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise PlanError(f"is damaged ({type(error).__name__}: {error})") from error
