"""Data sets in Arrow files of the library `datasets`, memory-mapped: from `save_to_disk`, or single files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.arrow import BATCH, ArrowSource, Cell, part_name

if TYPE_CHECKING:
    import pyarrow as pa

WHOLE = "all"
"""The only part of a data set without splits."""


class SavedSource(ArrowSource):
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote. The parts are the splits of a `DatasetDict`.
    For columns, refs and options see `ArrowSource`.

    Pictures are read as stored bytes. The library decodes nothing and runs no code of the data set.

    Args:
        path: the folder.
        columns, split_column, use_splits, root: see `ArrowSource`.
        files: single Arrow files below the folder instead, by split. The parts are then the files.
    """

    name: ClassVar[str] = "hf"
    summary: ClassVar[str] = "a Hugging Face data set saved with save_to_disk"
    schema: ClassVar[str] = (
        "a folder with dataset_dict.json, or with state.json and dataset_info.json; columns of type Image, binary or "
        "text, or lists of these"
    )
    licence: ClassVar[str] = "that of the data set"
    where: ClassVar[str] = "give the folder that Dataset.save_to_disk or DatasetDict.save_to_disk wrote"

    def __init__(
        self,
        path: str | Path | None,
        columns: Sequence[str] | None = None,
        split_column: str | None = None,
        use_splits: bool | None = None,
        files: Mapping[str, Sequence[str]] | None = None,
        root: Sequence[str] | None = None,
    ) -> None:
        self._files = None if files is None else {
            part_name(name.encode()): (name, split) for split, names in files.items() for name in names
        }  # fmt: skip
        super().__init__(path, columns, split_column, use_splits, root)

    def _open(self, place: Path) -> None:
        if self._files is None and not is_saved(place):
            raise SourceError(f"source 'hf': {place} is not a data set saved to disk; {self.where}")
        self._opened: dict[str, Any] | None = None
        self._views: dict[tuple[str, str], Any] = {}
        self._changed: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None, "_views": {}}

    def _tables(self) -> dict[str, Any]:
        """The `datasets.Dataset` of each part, as Arrow tables."""
        if self._opened is None:
            try:
                found = self._load()
            except Exception as error:  # on a damaged data set the library raises nearly anything
                raise SourceError(
                    f"source 'hf': {self.path} cannot be opened: {type(error).__name__}: {error}"
                ) from error
            self._opened = {name: table.with_format("arrow") for name, table in found.items()}
        return self._opened

    def _load(self) -> dict[str, Any]:
        from datasets import Dataset, load_from_disk

        if self._files is not None:
            return {part: Dataset.from_file(str(self._folder(part) / name)) for part, (name, _) in self._files.items()}
        found = load_from_disk(str(self.path))
        return {WHOLE: found} if isinstance(found, Dataset) else dict(found)

    def _parts(self) -> dict[str, str | None]:
        if self._files is not None:
            return {part: split for part, (_, split) in self._files.items()}
        return {name: None if name == WHOLE else name for name in self._tables()}

    def _schema(self, part: str) -> pa.Schema:
        return self._tables()[part].data.schema

    def _length(self, part: str) -> int:
        return len(self._tables()[part])

    def _batches(self, part: str, pictures: Sequence[str], others: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # Slices of the mapped table: the bytes of the pictures are not read.
        for table in self._tables()[part].select_columns([*pictures, *others]).iter(BATCH):
            yield from table.combine_chunks().to_batches()

    def _scalar(self, cell: Cell) -> pa.Scalar:
        return self._column(cell)[0]

    def _size(self, cell: Cell) -> int:
        return self._column(cell).nbytes

    def _column(self, cell: Cell) -> pa.ChunkedArray:
        """The cell, as a column of one row."""
        key = cell.part, cell.column
        if key not in self._views:  # creating a view costs more than reading through it
            self._views[key] = self._tables()[cell.part].select_columns([cell.column])
        return self._views[key][cell.row : cell.row + 1].column(0)

    def _modified(self, part: str) -> int:
        if part not in self._changed:
            folder = self._folder(part)
            files = folder.glob("*.arrow") if self._files is None else [folder / self._files[part][0]]
            self._changed[part] = max(file.stat().st_mtime_ns for file in files)
        return self._changed[part]

    def _folder(self, part: str) -> Path:
        return self.existing_path() / ("" if part == WHOLE or self._files is not None else part)


def is_saved(place: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (place / "dataset_dict.json").is_file() or (
        (place / "state.json").is_file() and (place / "dataset_info.json").is_file()
    )
