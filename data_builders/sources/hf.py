"""The hf source: a data set that the library `datasets` saved to disk, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.arrow import BATCH, ArrowSource, Cell

if TYPE_CHECKING:
    import pyarrow as pa

WHOLE = "all"
"""The only part of a data set without splits."""


class HfSource(ArrowSource):
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote. The parts are the splits of a `DatasetDict`.
    For columns, refs and options see `ArrowSource`.

    Pictures are read as stored bytes. The library decodes nothing and runs no code of the data set.
    """

    name: ClassVar[str] = "hf"
    summary: ClassVar[str] = "a Hugging Face data set saved with save_to_disk"
    schema: ClassVar[str] = (
        "a folder with dataset_dict.json, or with state.json and dataset_info.json; columns of type Image, binary or "
        "text, or lists of these"
    )
    licence: ClassVar[str] = "that of the data set"
    where: ClassVar[str] = "give the folder that Dataset.save_to_disk or DatasetDict.save_to_disk wrote"

    def _open(self, place: Path) -> None:
        if not is_saved(place):
            raise SourceError(
                f"source 'hf': {place} is not a data set saved to disk; {self.where} (for files of the Hub: source parquet)"
            )
        self._opened: dict[str, Any] | None = None
        self._views: dict[tuple[str, str], Any] = {}
        self._changed: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None, "_views": {}}

    def _tables(self) -> dict[str, Any]:
        """The `datasets.Dataset` of each part, as Arrow tables."""
        if self._opened is None:
            from datasets import Dataset, load_from_disk

            try:
                found = load_from_disk(str(self.path))
            except Exception as error:  # on a damaged data set the library raises nearly anything
                raise SourceError(
                    f"source 'hf': {self.path} cannot be opened: {type(error).__name__}: {error}"
                ) from error
            tables = {WHOLE: found} if isinstance(found, Dataset) else dict(found)
            self._opened = {name: table.with_format("arrow") for name, table in tables.items()}
        return self._opened

    def _parts(self) -> dict[str, str | None]:
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
            self._changed[part] = max(file.stat().st_mtime_ns for file in folder.glob("*.arrow"))
        return self._changed[part]

    def _folder(self, part: str) -> Path:
        return self.existing_path() / ("" if part == WHOLE else part)


def is_saved(place: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (place / "dataset_dict.json").is_file() or (
        (place / "state.json").is_file() and (place / "dataset_info.json").is_file()
    )
