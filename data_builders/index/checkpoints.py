"""Figures that a build has found so far, kept in files beside its output, so that a killed build is not begun anew.

A part is written aside, synced and renamed: there is never half of one. It names what it is part of, and its rows have
refs and stamps, so that it holds for whatever of the source is still the same.
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
"""Seconds of work after which the first part is written; a shorter build leaves none."""
SAVE_SHARE = 0.05
"""Later ones are written after so much of the time passed: no more than this is lost, and there are few of them."""

_KEY = b"ssl4rl.part_of"
_ROWS = 4096  # kept as Python objects before they become compact


class BuildCheckpoints:
    """The rows that a build finds out, in order.

    Args:
        folder: where the parts lie.
        stem: what their names begin with; one for each output.
        key: what they are parts of. Others of the same stem are stale.
    """

    def __init__(self, folder: Path, stem: str, key: str) -> None:
        self._folder, self._stem = folder, stem
        self._schema = measurements_schema().with_metadata({_KEY: key.encode()})
        self._begun = self._saved = time.monotonic()
        self._places: list[RecordKey] = []
        self._figures: list[Measurements] = []
        self._batches: list[pa.RecordBatch] = []  # not in any part yet
        self._parts: list[pa.Table] = []

    def earlier(self) -> pa.Table:
        """Rows that builds before this one left. Takes stale files away."""
        import pyarrow as pa

        remove_leftovers(self._files("tmp"), ABANDONED)
        found = []
        for path in self._files("part"):
            try:
                found.append(self._read(path))
            except (pa.ArrowException, OSError):
                _take_away(path)
        return pa.concat_tables([self._schema.empty_table(), *reversed(found)])

    def add(self, places: Sequence[RecordKey], figures: Sequence[Measurements]) -> None:
        """Append rows, and write a part where it is time. Raises SourceError if that does not work."""
        self._places += places
        self._figures += figures
        if len(self._figures) >= _ROWS:
            self._compact()
        now = time.monotonic()
        if now - self._saved > max(SAVE_AFTER, SAVE_SHARE * (now - self._begun)):
            self.save()

    def save(self) -> None:
        """Write what is in no part yet. Raises SourceError."""
        import pyarrow as pa

        self._compact()
        if self._batches:
            path = self._folder / f".{self._stem}.{time.time_ns():020}-{uuid.uuid4().hex[:8]}.part"
            table = pa.Table.from_batches(self._batches).combine_chunks()

            def fill(file: BinaryIO) -> None:
                with pa.ipc.new_file(file, self._schema) as writer:
                    writer.write_table(table)

            write_file(path, fill)
            with suppress(OSError):  # another build of the same has finished, and taken it away
                table = self._read(path)  # mapped from the disk: the memory is needed for what comes next
            self._parts.append(table)
            self._batches = []
        self._saved = time.monotonic()

    def rescue(self) -> None:
        """Save what there is before the build fails, if it was any work."""
        if time.monotonic() - self._begun > 1:
            with suppress(WriteError):  # the reason that it fails for is the one to tell
                self.save()

    def rows(self) -> pa.Table:
        """All that was added, in order. Raises SourceError."""
        import pyarrow as pa

        if self._parts:
            self.save()
        self._compact()
        return pa.concat_tables([*self._parts, pa.Table.from_batches(self._batches, self._schema)])

    def clear(self) -> None:
        """Take all parts away: what is in them is in the output now."""
        for path in self._files("part"):
            _take_away(path)

    def _compact(self) -> None:
        import pyarrow as pa

        if self._figures:
            refs, boxes = zip(*self._places, strict=True)
            columns = dict(zip(MEASUREMENTS, zip(*self._figures, strict=True), strict=True)) | {
                "ref": refs,
                "box": boxes,
            }
            arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
            self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
            self._places, self._figures = [], []

    def _read(self, path: Path) -> pa.Table:
        """A part, mapped from the disk. Raises ArrowException or OSError if it is damaged, or part of another build."""
        import pyarrow as pa

        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            if reader.schema.metadata != self._schema.metadata or not reader.schema.equals(self._schema):
                raise pa.ArrowInvalid("part of another build")
            table = reader.read_all()
        table.validate(full=True)
        return table

    def _files(self, ending: str) -> list[Path]:
        """This output's files, oldest first."""
        return sorted(self._folder.glob(f".{glob.escape(self._stem)}.*.{ending}"))


def _take_away(path: Path) -> None:
    with suppress(OSError):  # another build has done it, or nothing can be changed here
        path.unlink()
