"""The parquet source: pictures inside parquet files, or at paths named there."""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ssl4rl_plugin.data.source import SourceError, stated_split
from ssl4rl_plugin.data_builders.sources.arrow import BATCH, ArrowSource, Cell, part_name, part_path

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

CACHE_BYTES = 128 * 2**20
"""Bytes of decoded row groups that a process keeps. The last one is always kept."""

HUGE_GROUP = 256 * 2**20
"""Bytes of pictures in one row group above which reading single pictures is slow."""


class ParquetSource(ArrowSource):
    """All `.parquet` files below a folder, in order of their paths, or one file. Names that begin with `.` or `_` are left
    out. For columns, refs and options see `ArrowSource`.

    Reading a picture decodes its column of the row group (Hugging Face writes about 100 rows into each). The last few row
    groups are cached: reading in order decodes each once, reading at random decodes one for every picture.
    """

    name: ClassVar[str] = "parquet"
    summary: ClassVar[str] = "parquet files with images in them, as on the Hugging Face Hub, or with paths to images"
    endings: ClassVar[tuple[str, ...]] = (".parquet",)
    schema: ClassVar[str] = (
        "image columns: struct of bytes and path, binary, base64 or a path below the file's folder, or lists of these; "
        "other columns are allowed (question, options or A, B, C, D, answer, category, ...)"
    )
    licence: ClassVar[str] = "that of the data set"
    where: ClassVar[str] = "give a .parquet file, or the folder that holds such files"

    def _open(self, place: Path) -> None:
        root = self._root()
        found = parquet_files(place) if place.is_dir() else [place]
        if not found:
            raise SourceError(f"source 'parquet': no .parquet files below {place}; {self.where}")
        self.files = {part_name(os.fsencode(file.relative_to(root))): file for file in found}
        self._splits = {part: stated_split(part) for part in self.files}
        self._warned = False
        self._pictures(next(iter(self.files)))  # raises SourceError for a file that is not parquet

    def _parts(self) -> dict[str, str | None]:
        return self._splits

    def _schema(self, part: str) -> pa.Schema:
        return self._footer(part)[1]

    def _length(self, part: str) -> int:
        return self._footer(part)[0].num_rows

    def _modified(self, part: str) -> int:
        return os.stat(self.files[part]).st_mtime_ns

    def _folder(self, part: str) -> Path:
        return self._root() / os.fsdecode(os.path.dirname(part_path(part)))

    def _footer(self, part: str) -> tuple[pq.FileMetaData, pa.Schema, list[int]]:
        """The file's metadata, its schema, and the first row of each row group, followed by the number of rows."""
        import pyarrow as pa

        file = self.files[part]
        try:
            return _footer(str(file), self._modified(part))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error

    def _batches(self, part: str, pictures: Sequence[str], others: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        footer, _, _ = self._footer(part)
        self._warn_of_huge_groups(part, footer, pictures)
        needed = [leaf for column in pictures if (leaf := _presence(footer, column)) is not None]
        rows = (
            BATCH if all(leaf.endswith(".path") for leaf in needed) else BATCH // 64
        )  # otherwise pictures may be read
        try:
            with pq.ParquetFile(self.files[part], metadata=footer) as file:
                yield from file.iter_batches(rows, columns=[*needed, *others], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.files[part], error) from error

    def _scalar(self, cell: Cell) -> pa.Scalar:
        import pyarrow.parquet as pq

        footer, _, starts = self._footer(cell.part)
        group = bisect_right(starts, cell.row) - 1
        file = self.files[cell.part]

        def load() -> pa.ChunkedArray:
            with pq.ParquetFile(file, metadata=footer) as opened:
                return opened.read_row_group(group, columns=[cell.column], use_threads=False).column(cell.column)

        key = (str(file), self._modified(cell.part), group, cell.column)
        return _GROUPS.get(key, load)[cell.row - starts[group]]

    def _size(self, cell: Cell) -> int:
        footer, _, starts = self._footer(cell.part)
        group = bisect_right(starts, cell.row) - 1
        # The average over the rows of a group, rounded up. A list counts as one picture.
        return -(-_bytes(footer, group, cell.column) // max(1, starts[group + 1] - starts[group]))

    def _warn_of_huge_groups(self, part: str, footer: pq.FileMetaData, pictures: Sequence[str]) -> None:
        largest = max(
            (_bytes(footer, g, column) for g in range(footer.num_row_groups) for column in pictures), default=0
        )
        if largest > HUGE_GROUP and not self._warned:
            self._warned = True
            logger.warning(
                "%s has a row group with %d MiB of images, and reading one decodes them all. Rewrite it: "
                "python -c \"import pyarrow.parquet as pq; pq.write_table(pq.read_table('IN'), 'OUT', row_group_size=100)\"",
                self.files[part], largest >> 20,
            )  # fmt: skip


def _damaged(file: Path, error: Exception) -> SourceError:
    return SourceError(
        f"source 'parquet': {file} cannot be read as a parquet file ({error}); fetch it again (a Git LFS pointer is a "
        "small text in place of the file), or remove it"
    )


def parquet_files(folder: Path) -> list[Path]:
    """All parquet files below a folder, in order of their paths."""
    found = []
    for file in folder.rglob("*.parquet"):
        if not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts) and file.is_file():
            found.append(file)
    return sorted(found)


@lru_cache(maxsize=512)
def _footer(file: str, mtime_ns: int) -> tuple[pq.FileMetaData, pa.Schema, list[int]]:
    import pyarrow.parquet as pq

    footer = pq.read_metadata(file)
    starts = [0]
    for group in range(footer.num_row_groups):
        starts.append(starts[-1] + footer.row_group(group).num_rows)
    return footer, footer.schema.to_arrow_schema(), starts


def _leaves(footer: pq.FileMetaData, column: str) -> list[int]:
    """Numbers of the physical columns of a column."""
    paths = (footer.schema.column(number).path for number in range(footer.num_columns))
    return [number for number, path in enumerate(paths) if path == column or path.startswith(f"{column}.")]


def _bytes(footer: pq.FileMetaData, group: int, column: str) -> int:
    """Decompressed bytes of a column in a row group."""
    return sum(footer.row_group(group).column(leaf).total_uncompressed_size for leaf in _leaves(footer, column))


def _presence(footer: pq.FileMetaData, column: str) -> str | None:
    """The cheapest physical column that shows how many pictures each row has; None if each row has one.

    Only for lists of plain bytes this column holds the pictures themselves.
    """
    paths = {leaf: footer.schema.column(leaf).path for leaf in _leaves(footer, column)}
    beside = [path for path in paths.values() if path.endswith(".path")]
    if beside:
        return beside[0]
    (leaf, path), *_ = paths.items()
    if footer.schema.column(leaf).max_repetition_level > 0:
        return path
    groups = [footer.row_group(group).column(leaf) for group in range(footer.num_row_groups)]
    nulls = [group.statistics.null_count if group.statistics else None for group in groups]
    # If the file does not count its nulls, a row without a picture is found when it is read.
    return path if any(nulls) and _is_small(groups) else None


def _is_small(groups: Sequence[Any]) -> bool:
    return sum(group.total_uncompressed_size for group in groups) < HUGE_GROUP


class _Groups:
    """Cache of the last decoded row groups, at most `limit` bytes in all. Threads wait for a row group being decoded."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[Any, ...], pa.ChunkedArray] = OrderedDict()
        self._loading: dict[tuple[Any, ...], threading.Lock] = {}
        self._bytes = 0

    def get(self, key: tuple[Any, ...], load: Callable[[], pa.ChunkedArray]) -> pa.ChunkedArray:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            turn = self._loading.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._held:
                    return self._held[key]
            column = load()
            with self._lock:
                if key not in self._held:
                    self._held[key] = column
                    self._bytes += column.nbytes
                while self._bytes > self.limit and len(self._held) > 1:
                    self._bytes -= self._held.popitem(last=False)[1].nbytes
                self._loading.pop(key, None)
            return column


_GROUPS = _Groups(CACHE_BYTES)
# A lock held by a thread of the parent would stay locked forever in a data-loader worker.
os.register_at_fork(after_in_child=_GROUPS.clear)
