"""The manifest: one row per picture of a source, saying where it is, what it is like, and whether and where it is used.

Building it is the only time that every picture is decoded. Duplicates and near-duplicates share a group, a group never
straddles the two splits, and what cannot be used stays in the table with its reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import RGBD, Clip
from ssl4rl_plugin.data_builders.figures import checked, figures_schema
from ssl4rl_plugin.data_builders.gather import Listing, Progress, complete, list_records, still_valid
from ssl4rl_plugin.data_builders.groups import SIDES, Groups, Numbers, group_and_split, near_pairs
from ssl4rl_plugin.data_builders.parts import Parts, write_aside
from ssl4rl_plugin.data_builders.source import Box, Source, SourceError, load_source
from ssl4rl_plugin.data_builders.workers import default_workers
from ssl4rl_plugin.images import MAX_SOURCE_PIXELS, open_rgb, shrink

# pyarrow is imported where it is used: data-loader workers import this module.
if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Manifest", "ManifestItem", "build_manifest", "cache_dir", "is_manifest"]

VERSION = 2
"""Of the table's layout and of every figure in it; raised whenever either changes, so that no old row is reused."""

_METADATA_KEY = b"ssl4rl.manifest"
_LISTING_KEY = b"ssl4rl.listing"
_SHARED = ("version", "source", "path", "options", "max_source_pixels")  # settings that the figures depend on
_ROW_GROUP = 65_536
_COPY = "duplicate_of_validation"


def _schema() -> pa.Schema:
    import pyarrow as pa

    names = (
        "ref", "bytes", "mtime_ns", "sha256", "width", "height", "mode", "exif_orientation", "phash", "signature",
        "entropy", "contrast", "group", "split", "box", "reason", "detail",
    )  # fmt: skip
    found = {field.name: field for field in figures_schema()}
    return pa.schema([found.get(name) or pa.field(name, pa.string()) for name in names])


@dataclass(frozen=True)
class ManifestItem:
    """One usable picture."""

    id: str
    """Stable identity inside the source; the same text as `ref`."""
    ref: str
    """Where the source finds the bytes."""
    group: str
    """Pictures of the same thing share a group; groups never straddle splits."""
    split: str
    """`train` or `val`."""
    width: int
    """Pixels of the upright picture, after `box` is cut out."""
    height: int
    """Pixels of the upright picture, after `box` is cut out."""
    box: Box | None
    """The part of the upright picture that is the item; None for all of it."""
    sha256: str = ""
    """Of the encoded picture, in hex, when it was indexed."""


class Manifest:
    """An indexed source, read from its parquet file.

    Pickling one costs a few hundred bytes: the copy reads the file again when it is first used, and refuses if the
    file is no longer the same.

    Args:
        path: the parquet file.
        source: the source it was built from; None opens the one that the file names.
        digest: SHA-256 that the file must have, where it is known.
        strict: refuse a picture whose content has changed since it was indexed.
    """

    def __init__(
        self, path: Path, source: Source | None = None, digest: str | None = None, strict: bool = False
    ) -> None:
        self.path = path
        self._expected = digest
        self._strict = strict
        self.source = source or self._open_source()

    @classmethod
    def load(cls, path: str | Path, strict: bool = False) -> Manifest:
        """Open a manifest and the source that it names.

        Raises:
            SourceError: no manifest there, one of another version, or its source is gone.
        """
        return cls(Path(path).resolve(), strict=strict)

    @property
    def digest(self) -> str:
        """SHA-256 of the file: the same digest, the same items in the same order."""
        return self._content[1]

    @property
    def table(self) -> pa.Table:
        """All rows, rejected ones included, and all columns but the signatures; see `build_manifest`."""
        return self._content[0]

    def with_signatures(self) -> pa.Table:
        """The table with the signatures, which take most of its memory: read anew, and not kept.

        Raises SourceError.
        """
        return self._checked(*_read(self.path, _schema().names))[0]

    @property
    def settings(self) -> dict[str, Any]:
        """What it was built with: version, source, path, options, seed, val_fraction, max_source_pixels."""
        return _settings_of(self.table)

    @cached_property
    def rejected(self) -> Counter[str]:
        """How many pictures are left out, by reason."""
        return Counter(_counts(self.table["reason"]))

    def items(self, split: str) -> Sequence[ManifestItem]:
        """The usable pictures of a split (`train` or `val`), in the source's order; made one at a time when asked for.

        Raises ValueError for any other name.
        """
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        return _Items(self, split)

    def open(self, item: ManifestItem, max_pixels: int | None = None) -> Image.Image | RGBD | Clip:
        """What a task gets as `Item.data`: a picture, or what else the source's kind of item is.

        Raises:
            ImageError: it was good when it was indexed, but cannot be read now.
        """
        return self.source.item(item.ref, lambda: self.picture(item, max_pixels), max_pixels)

    def picture(self, item: ManifestItem, max_pixels: int | None = None) -> Image.Image:
        """The item's picture: upright RGB, its box cut out, shrunk to at most `max_pixels` pixels where given.

        Raises:
            ImageError: it was good when it was indexed, but cannot be read now.
            SourceError: the manifest is strict, and the picture is not the one that was indexed.
        """
        data = self.source.read(item.ref)
        if self._strict and hashlib.sha256(data).hexdigest() != item.sha256:
            raise SourceError(
                f"source {self.source.name!r}: {item.ref} has changed since it was indexed: index it again, and build into "
                "another folder"
            )
        limit = self._limit
        if item.box is None:
            return open_rgb(data, max_source_pixels=limit, max_pixels=max_pixels)
        image = _whole(data, limit)
        return shrink(image.crop(checked(item.box, image)), max_pixels)

    @cached_property
    def _limit(self) -> int:
        return int(self.settings["max_source_pixels"])

    @cached_property
    def _content(self) -> tuple[pa.Table, str]:
        return self._checked(*_read(self.path, [name for name in _schema().names if name != "signature"]))

    def _checked(self, table: pa.Table, digest: str) -> tuple[pa.Table, str]:
        if self._expected not in (None, digest):
            raise SourceError(f"{self.path} was rebuilt while it was in use; start the run again")
        return table, digest

    def _open_source(self) -> Source:
        settings = self.settings
        return load_source(settings["source"], settings["path"], **settings["options"])

    def __reduce__(self) -> tuple[Any, ...]:
        return Manifest, (self.path, self.source, self.digest, self._strict)


@lru_cache(maxsize=2)
def _whole(data: bytes, limit: int) -> Image.Image:
    """A picture that many boxes are cut out of, decoded once; not to be changed in place."""
    return open_rgb(data, max_source_pixels=limit)


class _Items(Sequence[ManifestItem]):
    """The usable rows of one split, as a sequence over the manifest's columns."""

    def __init__(self, manifest: Manifest, split: str) -> None:
        self._manifest = manifest
        self._split = split

    @cached_property
    def _rows(self) -> np.ndarray[Any, Any]:
        """Row numbers in the table."""
        import pyarrow.compute as pc

        table = self._manifest.table
        good = pc.and_(pc.is_null(table["reason"]), pc.equal(table["split"], self._split))
        return np.flatnonzero(pc.fill_null(good, False).to_numpy())

    @cached_property
    def _columns(self) -> list[Any]:
        table = self._manifest.table
        return [table[name].combine_chunks() for name in ("ref", "group", "width", "height", "box", "sha256")]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> ManifestItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[ManifestItem]: ...
    def __getitem__(self, index: int | slice) -> ManifestItem | list[ManifestItem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = int(self._rows[index])
        ref, group, width, height, box, sha256 = (column[row].as_py() for column in self._columns)
        return ManifestItem(
            ref, ref, group, self._split, width, height, tuple(box) if box is not None else None, sha256
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _Items, (self._manifest, self._split)


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
    metadata = {_METADATA_KEY: json.dumps(settings, sort_keys=True).encode(), _LISTING_KEY: listing.digest.encode()}
    current = previous is not None and target.exists() and previous.schema.metadata == metadata
    known = _figures_of(previous)
    where = still_valid(known, source, listing.places, workers, progress)
    if current and np.array_equal(where, np.arange(len(known))):
        return Manifest(target, source)
    shared = json.dumps({key: settings[key] for key in _SHARED}, sort_keys=True)
    parts = Parts(target.parent, stem, shared)
    if (where < 0).any():
        known, where = complete(known, where, source, listing.places, parts, max_source_pixels, workers, progress)
    reason = known["reason"].take(where)
    usable = np.flatnonzero(reason.is_null())
    if not len(usable):
        listed = ", ".join(f"{name} {count}" for name, count in Counter(_counts(reason)).most_common())
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
        return figures_schema().empty_table()
    table = previous.select(figures_schema().names).replace_schema_metadata()
    alone = pc.fill_null(pc.not_equal(table["reason"], _COPY), False)
    for name in ("reason", "detail"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pc.if_else(alone, table[name], None))
    return table


def _group(
    known: pa.Table, where: Numbers, usable: Numbers, listing: Listing, seed: int, val_fraction: float, progress: bool
) -> Groups:
    """Groups and splits of the listed records, whose figures are in the rows `where` of `known`."""
    with Progress("comparing", len(usable), progress) as bar:
        near = near_pairs(known["signature"].take(where), usable, bar.advance)
        return group_and_split(
            usable, known["sha256"].take(where), listing.groups, near, listing.sides, seed, val_fraction
        )


def _rows(known: pa.Table, where: Numbers, groups: Groups) -> Iterator[pa.Table]:
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
        yield pa.table(columns).select(_schema().names).cast(_schema())


def _or_null(positions: np.ndarray[Any, Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array(positions, mask=positions < 0)


def _counts(reasons: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in reasons.drop_null().value_counts().to_pylist()}


# ---------------------------------------------------------------------------------------------------- the file


def _place(settings: Mapping[str, Any], out: Path | None) -> tuple[Path, pa.Table | None, str]:
    """Where the manifest goes, an older table of the same source and limits, if there is one, and what the names of the
    parts begin with."""
    if out is not None:
        out = Path(out).expanduser().resolve()
        if not out.exists():
            return out, None, out.name
        table = _read(out, _schema().names)[0]
        there = _settings_of(table)
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
            return target, _read(candidate, _schema().names)[0], prefix
        except SourceError:
            continue  # missing or damaged: the cache is ours to rebuild
    return target, None, prefix


def cache_dir() -> Path:
    """`$SSL4RL_CACHE`, or ~/.cache/ssl4rl."""
    return Path(os.environ.get("SSL4RL_CACHE") or "~/.cache/ssl4rl").expanduser().resolve()


def _short_hash(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path, columns: Sequence[str]) -> tuple[pa.Table, str]:
    """Columns of a manifest, and the SHA-256 of its file. Raises SourceError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # One open file: whatever takes its name meanwhile, content and digest are of the same one.
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
            file.seek(0)
            # In this thread alone: a thread of Arrow's that is still reading when Python ends would abort the process.
            parquet = pq.ParquetFile(file)
            found = json.loads((parquet.schema_arrow.metadata or {}).get(_METADATA_KEY, b"{}")).get("version")
            if found == VERSION and parquet.schema_arrow.equals(_schema()):
                return parquet.read(columns=list(columns), use_threads=False), digest.hexdigest()
    except pa.ArrowException as error:
        raise SourceError(f"{path} is not a parquet file ({error})") from error
    except OSError as error:
        raise SourceError(
            f"manifest {path} cannot be read: {error.strerror or error}; every run makes the one that it needs"
        ) from error
    if found is None:
        raise SourceError(
            f"{path} is a parquet file, but not a manifest; name another file, or delete it and the run makes one"
        )
    raise SourceError(f"manifest {path} has version {found}, this package reads {VERSION}; delete and rebuild it")


def is_manifest(path: Path) -> bool:
    """Whether the path is a file that `build_manifest` wrote, of whatever version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return path.suffix == ".parquet" and _METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _settings_of(table: pa.Table) -> dict[str, Any]:
    metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
    return json.loads(metadata) if metadata else {}


def _write(target: Path, metadata: Mapping[bytes, bytes], tables: Iterable[pa.Table]) -> None:
    import pyarrow.parquet as pq

    def fill(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, _schema().with_metadata(dict(metadata)), compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)

    write_aside(target, fill)


def _equal(table: pa.Table, others: Iterable[pa.Table]) -> bool:
    """Whether a table is the others, one after another."""
    start = 0
    for other in others:
        if not table.slice(start, len(other)).equals(other):
            return False
        start += len(other)
    return start == len(table)
