"""Builds a manifest: indexes a source once, and later only what changed.

Only the index decodes every picture. Duplicates and near-duplicates share a group. All of a group is in one split. Rejected
pictures stay in the table with their reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ssl4rl_plugin.core.files import cache_dir, write_file
from ssl4rl_plugin.data.files import OUTSIDE, roots_for
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
from ssl4rl_plugin.data_builders.index.depths import depth_figures
from ssl4rl_plugin.data_builders.index.groups import SIDES, Groups, IntArray, group_and_split, near_pairs
from ssl4rl_plugin.data_builders.index.parallel import default_workers
from ssl4rl_plugin.data_builders.index.records import Listing, Progress, complete, list_records, still_valid

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_LISTING_KEY = b"ssl4rl.listing"
_MEASUREMENT_SETTINGS = ("version", "source", "path", "options", "max_source_pixels")
_ROW_GROUP = 65_536
_DUPLICATE = "duplicate_of_validation"


def build_manifest(
    source: Source,
    out: Path | None = None,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    max_source_pixels: int = MAX_SOURCE_PIXELS,
    workers: int | None = None,
    progress: bool = False,
    depth_warning: bool = True,
) -> Manifest:
    """Index a source, or update its manifest. An update reads only what changed.

    Columns: ref; bytes and mtime_ns (the source's stamp); sha256 of the encoded picture; width, height (upright, box
    cut out); mode (stored pixel format); exif_orientation; signature (finds near-duplicates, see
    `ssl4rl_plugin.data.near_duplicates`; null for a crop); entropy (bits, of the luma) and contrast ([0, 0.5]), see
    FIGURE_PIXELS; group; split (train, val); box; reason (null if usable) and detail. The settings are in the schema's
    metadata. For equal input the file is byte-identical, for any number of workers.

    The build saves checkpoints beside the file. A build that was stopped or killed resumes from them. If two builds write
    the same file, the last one wins.

    Groups: pictures of equal content, near-duplicates, and pictures of one group of the source. A crop (a record with a
    box) is not compared with others.

    Splits: the source's own if it states one (`train...` is train; `val...`, `dev...`, `test...`, `eval...` are val).
    Otherwise a hash of seed and group decides, so that new pictures do not move old ones to another split, unless a new
    picture joins their group. If the source states both splits within a group, the training pictures are rejected as
    `duplicate_of_validation`.

    Args:
        source: what to index.
        out: the parquet file; None for a file in the cache (`$SSL4RL_CACHE` or ~/.cache/ssl4rl).
        val_fraction: share of the groups that become validation if the source states no split, in [0, 1).
        seed: changes which groups these are.
        max_source_pixels: pictures that declare more pixels are rejected unread.
        workers: number of pictures measured at a time; None for one per available core, at most 8. Workers are threads,
            and processes if the work takes long. 1 stays in the caller's thread.
        progress: show a progress bar for work of more than a second.
        depth_warning: warn if the depths of a new or changed RGB-D manifest are neither those of a room nor of a street.

    Raises:
        SourceError: no picture is usable (the message counts the reasons), `out` is something else, or a split is
            neither training nor validation.
        WriteError: the manifest or a checkpoint cannot be written.
    """
    import pyarrow.compute as pc

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
    if about := source.about():
        settings["about"] = about
    settings = json.loads(json.dumps(settings))  # as it is read back: tuples become lists
    target, previous, prefix = _target(settings, out)
    workers = workers or default_workers()
    listing = list_records(source, progress)
    metadata = {METADATA_KEY: json.dumps(settings, sort_keys=True).encode(), _LISTING_KEY: listing.digest.encode()}
    current = previous is not None and target.exists() and previous.schema.metadata == metadata
    measured = _measurements_of(previous)
    row_of = still_valid(measured, source, listing.keys, workers, progress)
    if current and np.array_equal(row_of, np.arange(len(measured))):
        return Manifest(target, source)
    key = json.dumps({name: settings[name] for name in _MEASUREMENT_SETTINGS}, sort_keys=True)
    checkpoints = BuildCheckpoints(target.parent, prefix, key)
    if (row_of < 0).any():
        measured, row_of = complete(
            measured, row_of, source, listing.keys, checkpoints, max_source_pixels, workers, progress
        )
    reason = measured["reason"].take(row_of)
    usable = np.flatnonzero(reason.is_null())
    if not len(usable):
        listed = ", ".join(f"{name} {count}" for name, count in Counter(counts_of(reason)).most_common())
        first = measured.slice(int(row_of[0]), 1).to_pylist()[0]
        outside = measured["detail"].take(row_of).filter(pc.equal(reason, OUTSIDE)).to_pylist()
        remedy = "".join(f"; root={folder} allows those outside" for folder in roots_for(outside))
        raise SourceError(
            f"source {source.name!r}{f' at {source.path}' if source.path else ''}: none of its {len(row_of)} images can "
            f"be used ({listed}; the first: {first['ref']}: {first['detail']}){remedy}"
        )
    groups = _group(measured, row_of, usable, listing, seed, val_fraction, progress)
    if not (current and _equal(previous, _rows(measured, row_of, groups))):
        _write(target, metadata, _rows(measured, row_of, groups))
    checkpoints.clear()
    manifest = Manifest(target, source)
    figures = depth_figures(manifest) if depth_warning and source.kind == "rgbd" else None
    if figures and (warning := figures.warning(source.options.get("depth_scale"))):
        logger.warning("%s: %s: %s", source.path or source.name, figures, warning)
    return manifest


def _measurements_of(previous: pa.Table | None) -> pa.Table:
    """The measurements in an older manifest, without the rejections that came from comparing rows."""
    import pyarrow.compute as pc

    if previous is None:
        return measurements_schema().empty_table()
    table = previous.select(measurements_schema().names).replace_schema_metadata()
    own_reason = pc.fill_null(pc.not_equal(table["reason"], _DUPLICATE), False)
    for name in ("reason", "detail"):
        position = table.schema.get_field_index(name)
        table = table.set_column(position, table.schema.field(position), pc.if_else(own_reason, table[name], None))
    return table


def _group(
    measured: pa.Table,
    row_of: IntArray,
    usable: IntArray,
    listing: Listing,
    seed: int,
    val_fraction: float,
    progress: bool,
) -> Groups:
    """Groups and splits of the listed records, whose measurements are the rows `row_of` of `measured`."""
    with Progress("comparing", len(usable), progress) as bar:
        near = near_pairs(measured["signature"].take(row_of), usable, bar.advance)
        return group_and_split(
            usable, measured["sha256"].take(row_of), listing.groups, near, listing.sides, seed, val_fraction
        )


def _rows(measured: pa.Table, row_of: IntArray, groups: Groups) -> Iterator[pa.Table]:
    """The manifest, a row group at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sides = pa.array(SIDES)
    for start in range(0, len(row_of), _ROW_GROUP):
        block = slice(start, start + _ROW_GROUP)
        table = measured.take(row_of[block])
        columns = {name: table[name] for name in table.column_names}
        columns["group"] = groups.names.take(_or_null(groups.group[block]))
        columns["split"] = sides.take(_or_null(groups.split[block]))
        copied = groups.copied[block]
        if (copied >= 0).any():
            others = measured["ref"].take(_or_null(np.where(copied >= 0, row_of[copied], -1)))
            detail = pc.binary_join_element_wise("shows the same as ", others, "")
            columns["reason"] = pc.if_else(copied >= 0, _DUPLICATE, columns["reason"])
            columns["detail"] = pc.if_else(copied >= 0, detail, columns["detail"])
        yield pa.table(columns).select(manifest_schema().names).cast(manifest_schema())


def _or_null(positions: np.ndarray[Any, Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array(positions, mask=positions < 0)


def _target(settings: Mapping[str, Any], out: Path | None) -> tuple[Path, pa.Table | None, str]:
    """Path of the manifest, an older table of the same source and limits if there is one, and the prefix of the checkpoints'
    file names."""
    if out is not None:
        out = Path(out).expanduser().resolve()
        if not out.exists():
            return out, None, out.name
        table = read_manifest(out, manifest_schema().names)[0]
        stored = settings_of(table)
        if any(stored[key] != settings[key] for key in ("source", "path", "options")):
            raise SourceError(
                f"{out} is the manifest of source {stored['source']!r} at {stored['path']} with options "
                f"{stored['options']}; choose another output, or delete it"
            )
        return out, table if stored["max_source_pixels"] == settings["max_source_pixels"] else None, out.name
    # Runs that split the same source differently need different files, but share the measurements.
    prefix = f"{settings['source']}-{_short_hash({key: settings[key] for key in _MEASUREMENT_SETTINGS})}"
    target = cache_dir() / "manifests" / f"{prefix}-{_short_hash(dict(settings))}.parquet"
    for candidate in [target, *sorted(target.parent.glob(f"{prefix}-*.parquet"))]:
        try:
            return target, read_manifest(candidate, manifest_schema().names)[0], prefix
        except SourceError:
            continue  # missing or damaged: it is rebuilt
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
    """Whether a table equals the concatenation of the others."""
    start = 0
    for other in others:
        if not table.slice(start, len(other)).equals(other):
            return False
        start += len(other)
    return start == len(table)
