"""Read the pictures in the data files of a data set of the Hub: parquet, Arrow and tar files, and image files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from ssl4rl_plugin.data.files import encoded, file_stamp, inside, read_file
from ssl4rl_plugin.data.source import Record, Source, SourceError, splits_used
from ssl4rl_plugin.data_builders.sources.arrow import part_name
from ssl4rl_plugin.data_builders.sources.endings import IMAGES, ending_of, other_files
from ssl4rl_plugin.data_builders.sources.hub.layout import DataFiles
from ssl4rl_plugin.data_builders.sources.parquet import ParquetSource
from ssl4rl_plugin.data_builders.sources.saved import SavedSource
from ssl4rl_plugin.data_builders.sources.webdataset import WebDatasetSource
from ssl4rl_plugin.data_builders.sources.zips import ZipSource

LFS_POINTER = b"version https://git-lfs"
"""The first bytes of the small text that stands for a file that Git LFS did not fetch."""


def reader_of(
    files: DataFiles,
    columns: Sequence[str] | None,
    split_column: str | None,
    use_splits: bool | None,
    root: Sequence[str] | None = None,
) -> Source:
    """The source that reads the files. Its refs begin with a file's path in the data set.

    Raises SourceError if the files are not pictures or tables with pictures, or an option does not fit them.
    """
    _check_fetched(files)
    if files.kind in ("parquet", "arrow"):
        if files.kind == "parquet":
            return ParquetFiles(files, columns, split_column, use_splits, root)
        return SavedSource(files.root, columns, split_column, use_splits, files.splits, root)
    for option, value in (("columns", columns), ("split_column", split_column), ("root", root)):
        if value is not None and (files.kind != "webdataset" or option != "columns"):
            raise SourceError(
                f"source 'hf': {files.repo or files.folder} holds {files.kind} files, not tables: leave out the option "
                f"{option}"
            )
    # `datasets` calls the fields of WebDataset's members columns.
    return TarFiles(files, columns, use_splits) if files.kind == "webdataset" else ImageFiles(files, use_splits)


def _check_fetched(files: DataFiles) -> None:
    """Raise SourceError if a local clone has only pointers in place of its files."""
    path = files.root / files.paths()[0]
    if files.folder is not None and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER):
        raise SourceError(
            f"source 'hf': {path} is a Git LFS pointer, not the file: run `git lfs pull` in {files.root}, or fetch it with "
            "`hf download`"
        )


class ParquetFiles(ParquetSource):
    """The parquet files of a data set. The parts are the files."""

    name: ClassVar[str] = "hf"

    def __init__(
        self,
        files: DataFiles,
        columns: Sequence[str] | None,
        split_column: str | None,
        use_splits: bool | None,
        root: Sequence[str] | None,
    ) -> None:
        self._data = files
        super().__init__(files.root, columns, split_column, use_splits, root)

    def _open(self, place: Path) -> None:
        named = [(part_name(os.fsencode(p)), p, split) for split, paths in self._data.splits.items() for p in paths]
        self.files = {part: place / path for part, path, _ in named}
        self._splits = {part: split for part, _, split in named}
        self._warned = False
        self._pictures(next(iter(self.files)))  # raises SourceError for a file that is not parquet


class TarFiles(WebDatasetSource):
    """The tar files of a data set."""

    name: ClassVar[str] = "hf"

    def __init__(self, files: DataFiles, fields: Sequence[str] | None, use_splits: bool | None) -> None:
        self._data = files
        super().__init__(files.root, fields=fields)
        used = splits_used(use_splits, files.splits)
        split_of = {files.root / path: split for split, paths in files.splits.items() for path in paths}
        self._split = {shard: split_of[file] for shard, file in self.shards.items()} if used else {}

    def _files(self) -> list[Path]:
        self.root = self._data.root
        return [self.root / path for path in self._data.paths()]

    def records(self) -> Iterator[Record]:
        for record in super().records():
            yield replace(record, split=self._split.get(record.ref.partition(":")[0]))


class ZipFiles(ZipSource):
    """ZIP files of images."""

    name: ClassVar[str] = "hf"

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        super().__init__(root)
        self.archives = {_ref(path) + "/": root / path for path in paths}


class ImageFiles(Source):
    """The image files of a data set, and those in its ZIP files. A ref is the path, encoded as in source folder, and in a
    ZIP file that of the archive, `/`, and the member."""

    name: ClassVar[str] = "hf"

    def __init__(self, files: DataFiles, use_splits: bool | None) -> None:
        super().__init__(files.root)
        self._splits = files.splits
        self._use = splits_used(use_splits, files.splits)
        self._zips = {
            path: ZipFiles(files.root, [path]) for path in files.paths() if path.lower().endswith(ZipSource.endings)
        }
        self._others: Counter[str] = Counter()
        assert self.path is not None
        # In the Hub's cache, a snapshot is a folder of links into the folder `blobs` beside it.
        cached = self.path.parent.name == "snapshots" and (self.path.parents[1] / "blobs").is_dir()
        self._allowed = self.path.parents[1] if cached else self.path

    def records(self) -> Iterator[Record]:
        self._others = Counter()
        found = False
        for split, paths in self._splits.items():
            for path in paths:
                for ref in self._pictures(path):
                    found = True
                    yield Record(ref, split if self._use else None)
        if not found:
            others = other_files(self._others, every=True)
            raise SourceError(f"source 'hf': {self.path} has no image files{f'; there are {others}' if others else ''}")

    def _pictures(self, path: str) -> Iterator[str]:
        """The refs of a file: one, or one for each picture in an archive."""
        if path in self._zips:
            yield from (record.ref for record in self._zips[path].records())
        elif os.fsencode(path).lower().endswith(IMAGES):
            yield _ref(path)
        else:
            self._others[ending_of(path)] += 1

    def notes(self) -> list[str]:
        others = other_files(self._others, every=True)
        own = [f"{self.path}: not read: {others}"] if others else []
        return own + [note for archive in self._zips.values() for note in archive.notes()]

    def stamp(self, ref: str) -> tuple[int, int]:
        if (archive := self._archive(ref)) is not None:
            return archive.stamp(ref)
        return file_stamp(self._place(ref), ref)

    def read(self, ref: str) -> bytes:
        if (archive := self._archive(ref)) is not None:
            return archive.read(ref)
        path = self._place(ref)
        file_stamp(path, ref)
        return read_file(path, ref)

    def _archive(self, ref: str) -> ZipFiles | None:
        """The archive of a ref; None for a file of its own."""
        return next((archive for path, archive in self._zips.items() if ref.startswith(_ref(path) + "/")), None)

    def _place(self, ref: str) -> bytes:
        below = unquote_to_bytes(ref)
        if not below or below.startswith(b"/") or b"\0" in below or b".." in below.split(b"/"):
            raise SourceError(f"source 'hf': {ref!r} does not lie below {self.path}")
        return inside(os.fsencode(self._allowed), os.path.join(os.fsencode(self.path or ""), below), ref)


def _ref(path: str) -> str:
    return encoded(os.fsencode(path))
