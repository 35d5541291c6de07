"""Building a manifest: index a source once, and later only what changed.

This is the only time that every picture is decoded. Duplicates and near-duplicates share a group, a group never straddles
the two splits, and what cannot be used stays in the table with its reason.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ssl4rl_plugin.core.files import cache_dir, write_file
from ssl4rl_plugin.data.images import MAX_SOURCE_PIXELS
from ssl4rl_plugin.data.manifest import (
    METADATA_KEY,
    VERSION,
    Manifest,
    counts_of,
    manifest_schema,
    measurements_schema,
    read_manifest,
    settings_of,
)
from ssl4rl_plugin.data.source import Source, SourceError
from ssl4rl_plugin.data_builders.index.checkpoints import BuildCheckpoints
from ssl4rl_plugin.data_builders.index.groups import SIDES, Groups, IntArray, group_and_split, near_pairs
from ssl4rl_plugin.data_builders.index.parallel import default_workers
from ssl4rl_plugin.data_builders.index.records import Listing, Progress, complete, list_records, still_valid

if TYPE_CHECKING:
    import pyarrow as pa

_LISTING_KEY = b"ssl4rl.listing"
_SHARED = ("version", "source", "path", "options", "max_source_pixels")  # settings that the figures depend on
_ROW_GROUP = 65_536
_COPY = "duplicate_of_validation"


def build_manifest(
    source: Source,
    out: Path | None = None,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    max_source_pixels: int = MAX_SOURCE_PIXELS,
    workers: int | None = None,
    progress: bool = False,
) -> Manifest:
    """Index a source, or bring its manifest up to date: only what changed since the last time is read again.

    Columns: ref; bytes and mtime_ns (the source's stamp); sha256 of the encoded picture; width, height (upright, box
    cut out); mode (stored pixel format); exif_orientation; phash (64-bit perceptual hash, hex); signature (what its
    near-duplicates are found by, see `near`; null for a crop); entropy (bits, of the luma) and contrast ([0, 0.5]), see
    FIGURE_PIXELS; group; split (train, val); box; reason (null if usable) and
    detail. The settings are in the schema's metadata. Equal input gives an equal file, byte for byte, whatever the
    workers.

    What has been found out is saved from time to time beside the file: a build that is stopped or killed goes on from
    there when it is started again. Of two builds of the same thing at once, the last to finish wins.

    Groups: pictures of equal content, near-duplicates, and those of one group of the source. A crop (a record with a
    box) is not compared with others.

    Splits: the source's own where it names one (`train...` is train; `val...`, `dev...`, `test...`, `eval...` are
    val). Otherwise a hash of seed and group decides, so that adding pictures moves none of the others, unless they
    join an older one's group. Where a group has training and validation pictures by the source's word, the training
    ones are rejected as `duplicate_of_validation`.

    Args:
        source: what to index.
        out: the parquet file; None for a file in the cache (`$SSL4RL_CACHE` or ~/.cache/ssl4rl).
        val_fraction: share of the groups that become validation where the source does not say, in [0, 1).
        seed: changes which groups those are.
        max_source_pixels: pictures that declare more pixels are rejected unread.
        workers: how many pictures are measured at a time; None for one per available core, at most 8. They are threads
            and, once the work turns out to be long, processes. 1 stays in the caller's thread.
        progress: show a progress bar on work of more than a second.

    Raises:
        SourceError: no usable picture at all (the message counts them by reason), an `out` that is something else or
            cannot be written, a split that is neither training nor validation.
    """
    if not 0 <= val_fraction < 1:
        raise SourceError(f"val_fraction must be in [0, 1), got {val_fraction}")
    settings: dict[str, Any] = {
        "version": VERSION,
        "source": source.name,
        "path": None if source.path is None else str(source.path),
        "options": source.options,
        "max_source_pixels": max_source_pixels,
        "seed": seed,
        "val_fraction": val_fraction,
    }
    settings = json.loads(json.dumps(settings))  # as it will be read back: tuples become lists
    target, previous, stem = _place(settings, out)
    workers = workers or default_workers()
    listing = list_records(source, progress)
    metadata = {METADATA_KEY: json.dumps(settings, sort_keys=True).encode(), _LISTING_KEY: listing.digest.encode()}
    current = previous is not None and target.exists() and previous.schema.metadata == metadata
    known = _figures_of(previous)
    where = still_valid(known, source, listing.places, workers, progress)
    if current and np.array_equal(where, np.arange(len(known))):
        return Manifest(target, source)
    shared = json.dumps({key: settings[key] for key in _SHARED}, sort_keys=True)
    parts = BuildCheckpoints(target.parent, stem, shared)
    if (where < 0).any():
        known, where = complete(known, where, source, listing.places, parts, max_source_pixels, workers, progress)
    reason = known["reason"].take(where)
    usable = np.flatnonzero(reason.is_null())
    if not len(usable):
        listed = ", ".join(f"{name} {count}" for name, count in Counter(counts_of(reason)).most_common())
        first = known.slice(int(where[0]), 1).to_pylist()[0]
        raise SourceError(
            f"source {source.name!r}{f' at {source.path}' if source.path else ''}: none of its {len(where)} images can "
            f"be used ({listed}; the first: {first['ref']}: {first['detail']})"
        )
    groups = _group(known, where, usable, listing, seed, val_fraction, progress)
    if not (current and _equal(previous, _rows(known, where, groups))):
        _write(target, metadata, _rows(known, where, groups))
    parts.clear()
    return Manifest(target, source)


def _figures_of(previous: pa.Table | None) -> pa.Table:
    """Rows of an older manifest as they were before they were compared with one another."""
    import pyarrow.compute as pc

    if previous is None:
        return measurements_schema().empty_table()
    table = previous.select(measurements_schema().names).replace_schema_metadata()
    alone = pc.fill_null(pc.not_equal(table["reason"], _COPY), False)
    for name in ("reason", "detail"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pc.if_else(alone, table[name], None))
    return table


def _group(
    known: pa.Table, where: IntArray, usable: IntArray, listing: Listing, seed: int, val_fraction: float, progress: bool
) -> Groups:
    """Groups and splits of the listed records, whose figures are in the rows `where` of `known`."""
    with Progress("comparing", len(usable), progress) as bar:
        near = near_pairs(known["signature"].take(where), usable, bar.advance)
        return group_and_split(
            usable, known["sha256"].take(where), listing.groups, near, listing.sides, seed, val_fraction
        )


def _rows(known: pa.Table, where: IntArray, groups: Groups) -> Iterator[pa.Table]:
    """The manifest, a row group at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sides = pa.array(SIDES)
    for start in range(0, len(where), _ROW_GROUP):
        block = slice(start, start + _ROW_GROUP)
        table = known.take(where[block])
        columns = {name: table[name] for name in table.column_names}
        columns["group"] = groups.names.take(_or_null(groups.group[block]))
        columns["split"] = sides.take(_or_null(groups.split[block]))
        copied = groups.copied[block]
        if (copied >= 0).any():
            others = known["ref"].take(_or_null(np.where(copied >= 0, where[copied], -1)))
            detail = pc.binary_join_element_wise("shows the same as ", others, "")
            columns["reason"] = pc.if_else(copied >= 0, _COPY, columns["reason"])
            columns["detail"] = pc.if_else(copied >= 0, detail, columns["detail"])
        yield pa.table(columns).select(manifest_schema().names).cast(manifest_schema())


def _or_null(positions: np.ndarray[Any, Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array(positions, mask=positions < 0)


def _place(settings: Mapping[str, Any], out: Path | None) -> tuple[Path, pa.Table | None, str]:
    """Where the manifest goes, an older table of the same source and limits, if there is one, and what the names of the
    parts begin with."""
    if out is not None:
        out = Path(out).expanduser().resolve()
        if not out.exists():
            return out, None, out.name
        table = read_manifest(out, manifest_schema().names)[0]
        there = settings_of(table)
        if any(there[key] != settings[key] for key in ("source", "path", "options")):
            raise SourceError(
                f"{out} is the manifest of source {there['source']!r} at {there['path']} with options "
                f"{there['options']}; choose another output, or delete it"
            )
        return out, table if there["max_source_pixels"] == settings["max_source_pixels"] else None, out.name
    # Runs that divide the same source differently must not overwrite each other's file, but they share the figures.
    prefix = f"{settings['source']}-{_short_hash({key: settings[key] for key in _SHARED})}"
    target = cache_dir() / "manifests" / f"{prefix}-{_short_hash(dict(settings))}.parquet"
    for candidate in [target, *sorted(target.parent.glob(f"{prefix}-*.parquet"))]:
        try:
            return target, read_manifest(candidate, manifest_schema().names)[0], prefix
        except SourceError:
            continue  # missing or damaged: the cache is ours to rebuild
    return target, None, prefix


def _short_hash(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _write(target: Path, metadata: Mapping[bytes, bytes], tables: Iterable[pa.Table]) -> None:
    import pyarrow.parquet as pq

    def fill(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, manifest_schema().with_metadata(dict(metadata)), compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)

    write_file(target, fill)


def _equal(table: pa.Table, others: Iterable[pa.Table]) -> bool:
    """Whether a table is the others, one after another."""
    start = 0
    for other in others:
        if not table.slice(start, len(other)).equals(other):
            return False
        start += len(other)
    return start == len(table)
