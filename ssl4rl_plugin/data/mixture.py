"""Several sources in one run: their manifests, with groups and splits that hold across all of them.

A picture that two sources share, as equal bytes or as a re-encoded, scaled or cropped copy, is in one group and one split.
If a source holds it out for validation, its copies in the other sources are held out too. The manifests of the sources stay
as they are: `Mixture` computes the changes from their signatures, and keeps them in the cache folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

import numpy as np

from ssl4rl_plugin.core.files import cache_dir, write_file
from ssl4rl_plugin.data.arms import SourceSettings
from ssl4rl_plugin.data.graphs import GraphItem, GraphManifest
from ssl4rl_plugin.data.manifest import Manifest, ManifestItem
from ssl4rl_plugin.data.near_duplicates import near_duplicates, unpack
from ssl4rl_plugin.data.source import Source

# pyarrow is imported where it is used: data-loader workers import this module.
if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
"""Version of how groups are merged across sources."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Changes:
    """What comparing a manifest with those of other sources changes."""

    rows: Array
    """Numbers of rows whose group is merged with one of another source, ascending."""
    groups: Array
    """Name of the merged group of each."""
    held_out: Array
    """Whether the merged group is in `val` (else in `train`)."""


class Regrouped(Manifest):
    """A manifest, seen with merged groups. Its file and its digest stay as they are."""

    def __init__(self, path: Path, source: Source | None, digest: str | None, strict: bool, changes: Changes) -> None:
        super().__init__(path, source, digest, strict)
        self.changes = changes

    @classmethod
    def of(cls, manifest: Manifest, changes: Changes) -> Regrouped:
        """The same manifest with these changes."""
        return cls(manifest.path, manifest.source, manifest.digest, manifest._strict, changes)

    @property
    def table(self) -> pa.Table:
        return self._changed

    @cached_property
    def _changed(self) -> pa.Table:
        return self._with_changes(super().table)

    def with_signatures(self) -> pa.Table:
        return self._with_changes(super().with_signatures())

    @cached_property
    def held_out(self) -> int:
        """Number of pictures that are in `val` only because another source holds out the same."""
        before = super().table["split"].take(self.changes.rows).to_numpy(zero_copy_only=False)
        return int(np.count_nonzero((before == "train") & self.changes.held_out))

    def _with_changes(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        splits = np.where(self.changes.held_out, "val", "train")
        for name, values in (("group", self.changes.groups), ("split", splits)):
            column = table[name].to_numpy(zero_copy_only=False).copy()
            column[self.changes.rows] = values
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(column, pa.string()))
        return table

    def __reduce__(self) -> tuple[Any, ...]:
        return Regrouped, (self.path, self.source, self.digest, self._strict, self.changes)


@dataclass(frozen=True)
class Part:
    """One source of a mixture."""

    settings: SourceSettings
    """Its label names the source."""
    manifest: Manifest | GraphManifest

    @property
    def kind(self) -> str:
        """Kind of its items."""
        return self.manifest.source.kind


class Mixture:
    """The sources of a run that has several.

    Args:
        settings: of each source, with different labels.
        manifests: of each source, in the same order.
    """

    def __init__(self, settings: Sequence[SourceSettings], manifests: Sequence[Manifest | GraphManifest]) -> None:
        pictures = [number for number, one in enumerate(manifests) if isinstance(one, Manifest)]
        together = list(manifests)
        if len(pictures) > 1:
            for number, one in zip(pictures, regrouped([manifests[k] for k in pictures]), strict=True):  # type: ignore[misc]
                together[number] = one
        self.parts = tuple(Part(one, manifest) for one, manifest in zip(settings, together, strict=True))

    @property
    def digest(self) -> str:
        """Hash of the manifests and their labels. Equal digests give equal items, groups and splits."""
        found = [VERSION, *([part.settings.label, part.manifest.digest] for part in self.parts)]
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()

    @property
    def rejected(self) -> Counter[str]:
        """Number of rejected pictures of all sources, by reason."""
        return sum((part.manifest.rejected for part in self.parts), Counter())

    def items(self, split: str) -> Sequence[ManifestItem | GraphItem]:
        """The items of all sources in a split (`train` or `val`), source by source, with the ids of their sources."""
        return Joined([part.manifest.items(split) for part in self.parts])


def parts_of(manifest: Manifest | GraphManifest | Mixture) -> list[tuple[str, Manifest | GraphManifest]]:
    """The label and the manifest of each source; the label of a run's only source is empty."""
    if isinstance(manifest, Mixture):
        return [(part.settings.label, part.manifest) for part in manifest.parts]
    return [("", manifest)]


class Joined(Sequence[ManifestItem | GraphItem]):
    """Sequences of items, concatenated."""

    def __init__(self, parts: Sequence[Sequence[ManifestItem | GraphItem]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @overload
    def __getitem__(self, index: int) -> ManifestItem | GraphItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[ManifestItem | GraphItem]: ...
    def __getitem__(self, index: int | slice) -> ManifestItem | GraphItem | list[ManifestItem | GraphItem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        for part in self._parts:
            if place < len(part):
                return part[place]
            place -= len(part)
        raise IndexError(index)


def regrouped(manifests: Sequence[Manifest]) -> list[Manifest]:
    """The same manifests, with groups merged where pictures of two of them show the same. Unchanged ones stay.

    Raises SourceError: a manifest cannot be read any more.
    """
    key = json.dumps([VERSION, *(one.digest for one in manifests)])
    path = cache_dir() / "mixtures" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    found = _read(path, len(manifests))
    if found is None:
        found = merged(manifests)
        _write(path, found)
    return [
        Regrouped.of(one, changes) if len(changes.rows) else one for one, changes in zip(manifests, found, strict=True)
    ]


def merged(manifests: Sequence[Manifest]) -> list[Changes]:
    """What merging groups across manifests changes in each of them."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    columns = ["sha256", "group", "split", "signature"]
    owner, row, tables = [], [], []
    for number, one in enumerate(manifests):
        table = one.with_signatures()
        usable = np.flatnonzero(pc.is_null(table["reason"]).to_numpy())
        owner.append(np.full(len(usable), number))
        row.append(usable)
        tables.append(table.select(columns).take(usable))
    owners, rows = np.concatenate(owner), np.concatenate(row)
    table = pa.concat_tables(tables)
    names = table["group"].combine_chunks().dictionary_encode()
    # A group's name is unique in its manifest only.
    own = np.unique(names.indices.to_numpy() * len(manifests) + owners, return_inverse=True)[1]
    content = table["sha256"].combine_chunks().dictionary_encode().indices.to_numpy()
    compared = np.flatnonzero(table["signature"].is_valid().to_numpy())  # crops have no signature
    near = list(near_duplicates(unpack(table["signature"].take(compared))))
    pairs = compared[np.array(near, np.int64).reshape(-1, 2)]
    ones = np.concatenate([np.arange(len(rows)), np.arange(len(rows)), pairs[:, 0]])
    others = np.concatenate([_first_equal(own), _first_equal(content), pairs[:, 1]])
    edges = coo_array((np.ones(len(ones), np.int8), (ones, others)), shape=(len(rows), len(rows)))
    count, label = connected_components(edges, directed=False)
    # Of interest are groups with pictures of several sources.
    least, most = np.full(count, len(manifests)), np.full(count, -1)
    np.minimum.at(least, label, owners)
    np.maximum.at(most, label, owners)
    across = least[label] < most[label]
    held_out = np.zeros(count, bool)
    held_out[label[pc.equal(table["split"], "val").to_numpy()]] = True
    # A merged group has the smallest of the names, so the order of its members does not matter.
    text, rank = np.unique(np.array(names.dictionary.to_pylist()), return_inverse=True)
    smallest = np.full(count, len(text))
    np.minimum.at(smallest, label, rank[names.indices.to_numpy()])
    found = []
    for number in range(len(manifests)):
        here = across & (owners == number)
        found.append(Changes(rows[here], text[smallest[label[here]]], held_out[label[here]]))
    return found


def _first_equal(values: Array) -> Array:
    """For every value, the position of the first equal value."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _write(path: Path, found: Sequence[Changes]) -> None:
    def fill(file: BinaryIO) -> None:
        arrays = {
            f"{name}{number}": getattr(one, name)
            for number, one in enumerate(found)
            for name in ("rows", "groups", "held_out")
        }
        data = io.BytesIO()
        np.savez_compressed(data, **arrays)
        file.write(data.getvalue())

    write_file(path, fill)


def _read(path: Path, count: int) -> list[Changes] | None:
    """The changes in a file of the cache; None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return [
                Changes(*(file[f"{name}{number}"] for name in ("rows", "groups", "held_out")))
                for number in range(count)
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
