"""Checkpoints of an index build, so that a killed build can resume.

Each is a file beside the output. It is written to a temporary file, synced and renamed: a partial checkpoint never exists.
It names the build that it belongs to. Its rows have refs and stamps, so that rows of unchanged records can be reused.
"""

from __future__ import annotations

import glob
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ssl4rl_plugin.core.files import ABANDONED, WriteError, remove_leftovers, write_file
from ssl4rl_plugin.data.manifest import MEASUREMENTS, measurements_schema
from ssl4rl_plugin.data_builders.index.measure import Measurements, RecordKey

if TYPE_CHECKING:
    import pyarrow as pa

SAVE_AFTER = 5.0
"""Seconds until the first checkpoint. A shorter build writes none."""
SAVE_SHARE = 0.05
"""Share of the elapsed time between later checkpoints. A crash loses at most this share of the work."""

_METADATA_KEY = b"ssl4rl.part_of"
_ROWS = 4096  # kept as Python objects until they become an Arrow batch


class BuildCheckpoints:
    """The rows that a build has measured, in order.

    Args:
        folder: folder of the checkpoints.
        prefix: start of their file names, one for each output.
        key: identifies the build. Checkpoints with the same prefix and another key are stale.
    """

    def __init__(self, folder: Path, prefix: str, key: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._schema = measurements_schema().with_metadata({_METADATA_KEY: key.encode()})
        self._started_at = self._saved_at = time.monotonic()
        self._keys: list[RecordKey] = []
        self._measurements: list[Measurements] = []
        self._batches: list[pa.RecordBatch] = []  # not in any checkpoint yet
        self._saved_tables: list[pa.Table] = []

    def earlier(self) -> pa.Table:
        """Rows that earlier builds saved. Deletes stale files."""
        import pyarrow as pa

        remove_leftovers(self._files("tmp"), ABANDONED)
        tables = []
        for path in self._files("part"):
            try:
                tables.append(self._read(path))
            except (pa.ArrowException, OSError):
                _delete(path)
        return pa.concat_tables([self._schema.empty_table(), *reversed(tables)])

    def add(self, keys: Sequence[RecordKey], measurements: Sequence[Measurements]) -> None:
        """Append rows, and write a checkpoint if one is due. Raises WriteError."""
        self._keys += keys
        self._measurements += measurements
        if len(self._measurements) >= _ROWS:
            self._compact()
        now = time.monotonic()
        if now - self._saved_at > max(SAVE_AFTER, SAVE_SHARE * (now - self._started_at)):
            self.save()

    def save(self) -> None:
        """Write the rows that are in no checkpoint yet. Raises WriteError."""
        import pyarrow as pa

        self._compact()
        if self._batches:
            path = self._folder / f".{self._prefix}.{time.time_ns():020}-{uuid.uuid4().hex[:8]}.part"
            table = pa.Table.from_batches(self._batches).combine_chunks()

            def fill(file: BinaryIO) -> None:
                with pa.ipc.new_file(file, self._schema) as writer:
                    writer.write_table(table)

            write_file(path, fill)
            with suppress(OSError):  # another build of the same source has finished and deleted it
                table = self._read(path)  # mapped from disk, to free the memory
            self._saved_tables.append(table)
            self._batches = []
        self._saved_at = time.monotonic()

    def rescue(self) -> None:
        """Save the rows of a build that is about to fail, if it ran for more than a second."""
        if time.monotonic() - self._started_at > 1:
            with suppress(WriteError):  # report the error that stopped the build, not this one
                self.save()

    def rows(self) -> pa.Table:
        """All rows added, in order. Raises WriteError."""
        import pyarrow as pa

        if self._saved_tables:
            self.save()
        self._compact()
        return pa.concat_tables([*self._saved_tables, pa.Table.from_batches(self._batches, self._schema)])

    def clear(self) -> None:
        """Delete all checkpoints: their rows are in the output now."""
        for path in self._files("part"):
            _delete(path)

    def _compact(self) -> None:
        import pyarrow as pa

        if self._measurements:
            refs, boxes = zip(*self._keys, strict=True)
            columns = dict(zip(MEASUREMENTS, zip(*self._measurements, strict=True), strict=True)) | {
                "ref": refs,
                "box": boxes,
            }
            arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
            self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
            self._keys, self._measurements = [], []

    def _read(self, path: Path) -> pa.Table:
        """A checkpoint, mapped from disk. Raises ArrowException or OSError if it is damaged or belongs to another build."""
        import pyarrow as pa

        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            if reader.schema.metadata != self._schema.metadata or not reader.schema.equals(self._schema):
                raise pa.ArrowInvalid("a checkpoint of another build")
            table = reader.read_all()
        table.validate(full=True)
        return table

    def _files(self, ending: str) -> list[Path]:
        """The output's files with this ending, oldest first."""
        return sorted(self._folder.glob(f".{glob.escape(self._prefix)}.*.{ending}"))


def _delete(path: Path) -> None:
    with suppress(OSError):  # another build deleted it, or the folder is read-only
        path.unlink()
