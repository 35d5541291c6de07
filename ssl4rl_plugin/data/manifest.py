"""The manifest, read: one row per picture of a source, with its place, its measurements, its group, split and rejection.

`ssl4rl_plugin.data_builders.index` builds it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
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

VERSION = 2
"""Of the table's layout and of every figure in it; raised whenever either changes, so that no old row is reused."""

METADATA_KEY = b"ssl4rl.manifest"


MEASUREMENTS = {
    "bytes": "int64", "mtime_ns": "int64", "sha256": "string", "width": "int32", "height": "int32", "mode": "string",
    "exif_orientation": "int8", "phash": "string", "signature": "signature", "entropy": "float", "contrast": "float",
    "reason": "string", "detail": "string",
}  # fmt: skip
"""What is found out about a record, in this order, and its Arrow type (`signature`: that of `near.column_type`)."""


def measurements_schema() -> pa.Schema:
    """Columns of a table of measured records: ref, box and the figures."""
    import pyarrow as pa

    types = {"ref": pa.string(), "box": pa.list_(pa.int32())}
    for name, alias in MEASUREMENTS.items():
        types[name] = column_type() if alias == "signature" else pa.type_for_alias(alias)
    return pa.schema(types)


def manifest_schema() -> pa.Schema:
    """Columns of a manifest; see `ssl4rl_plugin.data_builders.index.indexer`."""
    import pyarrow as pa

    names = (
        "ref", "bytes", "mtime_ns", "sha256", "width", "height", "mode", "exif_orientation", "phash", "signature",
        "entropy", "contrast", "group", "split", "box", "reason", "detail",
    )  # fmt: skip
    found = {field.name: field for field in measurements_schema()}
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
    box: PixelBox | None
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
        return self._checked(*read_manifest(self.path, manifest_schema().names))[0]

    @property
    def settings(self) -> dict[str, Any]:
        """What it was built with: version, source, path, options, seed, val_fraction, max_source_pixels."""
        return settings_of(self.table)

    @cached_property
    def rejected(self) -> Counter[str]:
        """How many pictures are left out, by reason."""
        return Counter(counts_of(self.table["reason"]))

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


def read_manifest(path: Path, columns: Sequence[str]) -> tuple[pa.Table, str]:
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
            found = json.loads((parquet.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}")).get("version")
            if found == VERSION and parquet.schema_arrow.equals(manifest_schema()):
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
        return path.suffix == ".parquet" and METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def settings_of(table: pa.Table) -> dict[str, Any]:
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    return json.loads(metadata) if metadata else {}


def counts_of(reasons: pa.ChunkedArray) -> dict[str, int]:
    """How often each value of a column occurs; nulls are not counted."""
    return {row["values"]: row["counts"] for row in reasons.drop_null().value_counts().to_pylist()}
