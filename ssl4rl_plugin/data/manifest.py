"""Read manifests. A manifest has one row for each picture of a source: its ref, measurements, group, split, and rejection.

`ssl4rl_plugin.data_builders.index` builds it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import RGBD, Clip
from ssl4rl_plugin.data.images import PixelBox, checked_box, open_rgb, shrink
from ssl4rl_plugin.data.near_duplicates import column_type
from ssl4rl_plugin.data.source import Source, SourceError, load_source

# pyarrow is imported where it is used: data-loader workers import this module.
if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 3
"""Version of the table's columns and of how each is measured. A new version prevents that old rows are reused."""

METADATA_KEY = b"ssl4rl.manifest"

MEASUREMENTS = {
    "bytes": "int64", "mtime_ns": "int64", "sha256": "string", "width": "int32", "height": "int32", "mode": "string",
    "exif_orientation": "int8", "signature": "signature", "entropy": "float", "contrast": "float",
    "reason": "string", "detail": "string",
}  # fmt: skip
"""The measurements of a record, in order -> Arrow type (`signature`: see `near_duplicates.column_type`)."""


def measurements_schema() -> pa.Schema:
    """Columns of a table of measured records: ref, box and the measurements."""
    import pyarrow as pa

    types = {"ref": pa.string(), "box": pa.list_(pa.int32())}
    for name, alias in MEASUREMENTS.items():
        types[name] = column_type() if alias == "signature" else pa.type_for_alias(alias)
    return pa.schema(types)


def manifest_schema() -> pa.Schema:
    """Columns of a manifest; see `ssl4rl_plugin.data_builders.index.indexer`."""
    import pyarrow as pa

    names = (
        "ref", "bytes", "mtime_ns", "sha256", "width", "height", "mode", "exif_orientation", "signature",
        "entropy", "contrast", "group", "split", "box", "reason", "detail",
    )  # fmt: skip
    found = {field.name: field for field in measurements_schema()}
    return pa.schema([found.get(name) or pa.field(name, pa.string()) for name in names])


@dataclass(frozen=True)
class ManifestItem:
    """One usable picture."""

    id: str
    """Stable identity within the source; equal to `ref`."""
    ref: str
    """Where the source finds the bytes."""
    group: str
    """Pictures of the same thing share a group. All pictures of a group are in one split."""
    split: str
    """`train` or `val`."""
    width: int
    """Pixels of the upright picture, after `box` is cut out."""
    height: int
    """Pixels of the upright picture, after `box` is cut out."""
    box: PixelBox | None
    """The part of the upright picture that is the item; None for all of it."""
    sha256: str = ""
    """SHA-256 of the encoded picture when it was indexed, in hex."""


class Manifest:
    """An indexed source, read from its parquet file.

    A pickle has a few hundred bytes: the copy reads the file again on first use, and raises SourceError if the file has
    changed.

    Args:
        path: the parquet file.
        source: the source that it was built from; None to open the source that the file names.
        digest: SHA-256 that the file must have; None for no check.
        strict: raise SourceError for a picture that has changed since it was indexed.
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
            SourceError: there is no manifest, it has another version, or its source does not exist any more.
        """
        return cls(Path(path).resolve(), strict=strict)

    @property
    def digest(self) -> str:
        """SHA-256 of the file. Equal digests mean equal items in equal order."""
        return self._content[1]

    @property
    def table(self) -> pa.Table:
        """All rows, rejected ones included, with all columns except the signatures; see `build_manifest`."""
        return self._content[0]

    def with_signatures(self) -> pa.Table:
        """The table with the signatures. Reads them from the file on each call, as they take most of the memory.

        Raises SourceError.
        """
        return self._checked(*read_manifest(self.path, manifest_schema().names))[0]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its build: version, source, path, options, seed, val_fraction, max_source_pixels;
        for a data set of the Hub also `about` (see `Source.about`)."""
        return settings_of(self.table)

    @cached_property
    def rejected(self) -> Counter[str]:
        """Number of rejected pictures, by reason."""
        return Counter(counts_of(self.table["reason"]))

    def items(self, split: str) -> Sequence[ManifestItem]:
        """The usable pictures of a split (`train` or `val`), in the source's order. Each item is made on access.

        Raises ValueError for another split.
        """
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        return _Items(self, split)

    def open(self, item: ManifestItem, max_pixels: int | None = None) -> Image.Image | RGBD | Clip:
        """The `Item.data` for tasks: a picture, an RGB-D pair or a clip, depending on the source's kind.

        Raises:
            ImageError: the item was readable when it was indexed, but is not now.
        """
        return self.source.item(item.ref, lambda: self.picture(item, max_pixels), max_pixels)

    def picture(self, item: ManifestItem, max_pixels: int | None = None) -> Image.Image:
        """The item's picture: upright RGB, its box cut out, shrunk to at most `max_pixels` pixels if given.

        Raises:
            ImageError: the item was readable when it was indexed, but is not now.
            SourceError: the manifest is strict, and the picture has changed since it was indexed.
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
        image = _decoded(data, limit)
        return shrink(image.crop(checked_box(item.box, image)), max_pixels)

    @cached_property
    def _limit(self) -> int:
        return int(self.settings["max_source_pixels"])

    @cached_property
    def _content(self) -> tuple[pa.Table, str]:
        return self._checked(
            *read_manifest(self.path, [name for name in manifest_schema().names if name != "signature"])
        )

    def _checked(self, table: pa.Table, digest: str) -> tuple[pa.Table, str]:
        if self._expected not in (None, digest):
            raise SourceError(f"{self.path} was rebuilt while it was in use; start the run again")
        return table, digest

    def _open_source(self) -> Source:
        settings = self.settings
        return load_source(settings["source"], settings["path"], **settings["options"])

    def __reduce__(self) -> tuple[Any, ...]:
        return Manifest, (self.path, self.source, self.digest, self._strict)


class _Decoded:
    """Decoded pictures: many boxes may be cut out of one. The least recently used goes when they are too many pixels."""

    PIXELS = 16_000_000
    """Most pixels to keep: 48 MB. The last picture is kept at any size."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[bytes, int], Image.Image] = OrderedDict()
        self._lock = Lock()

    def __call__(self, data: bytes, limit: int) -> Image.Image:
        """The picture in `data`; do not change it in place."""
        with self._lock:
            image = self._kept.pop((data, limit), None)
        if image is None:
            image = open_rgb(data, max_source_pixels=limit)
        with self._lock:
            self._kept[data, limit] = image
            while len(self._kept) > 1 and sum(one.width * one.height for one in self._kept.values()) > self.PIXELS:
                self._kept.popitem(last=False)
        return image


_decoded = _Decoded()


class _Items(Sequence[ManifestItem]):
    """The usable rows of one split, read from the manifest's columns."""

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


def read_manifest(path: Path, columns: Sequence[str]) -> tuple[pa.Table, str]:
    """Some columns of a manifest, and the SHA-256 of its file. Raises SourceError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Open the file once, so that content and digest match even if another process replaces the file. With a file of
        # Python's, Arrow's threads would call back into Python, which aborts the process if Python is just exiting.
        with pa.OSFile(os.fsencode(path)) as file:
            digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
            file.seek(0)
            parquet = pq.ParquetFile(file)
            found = json.loads((parquet.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}")).get("version")
            if found == VERSION and parquet.schema_arrow.equals(manifest_schema()):
                return parquet.read(columns=list(columns), use_threads=False), digest.hexdigest()
    except (pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f"{path} is not a parquet file, or its metadata is damaged ({error})") from error
    except OSError as error:
        problem = os.strerror(error.errno) if error.errno else error
        raise SourceError(
            f"manifest {path} cannot be read: {problem}; a run makes its manifest if the file is missing"
        ) from error
    if found is None:
        raise SourceError(
            f"{path} is a parquet file, but not a manifest; name another file, or delete it and the run makes one"
        )
    raise SourceError(f"manifest {path} has version {found}, this package reads {VERSION}; delete and rebuild it")


def is_manifest(path: Path) -> bool:
    """Whether `build_manifest` wrote the file, in any version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return path.suffix == ".parquet" and METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def settings_of(table: pa.Table) -> dict[str, Any]:
    """The settings in a manifest table's metadata; see `Manifest.settings`."""
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    return json.loads(metadata) if metadata else {}


def counts_of(reasons: pa.ChunkedArray) -> dict[str, int]:
    """Number of occurrences of each value of a column, without nulls."""
    return {row["values"]: row["counts"] for row in reasons.drop_null().value_counts().to_pylist()}
