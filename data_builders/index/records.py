"""From a source to a table of measurements: list the records, reuse the valid measurements, measure the rest."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ssl4rl_plugin.core.processes import each
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.manifest import measurements_schema
from ssl4rl_plugin.data.source import Source, SourceError
from ssl4rl_plugin.data_builders.index.checkpoints import BuildCheckpoints
from ssl4rl_plugin.data_builders.index.groups import TRAIN, VAL, IntArray
from ssl4rl_plugin.data_builders.index.measure import RecordKey
from ssl4rl_plugin.data_builders.index.parallel import ParallelMeasurer

# pyarrow and rich are imported where they are used: data-loader workers import this module.
if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_CHUNK = 32  # records measured by one call of a worker
_BLOCK = 4096  # records converted to Python objects at a time
# These may go away although the stamp stays the same: with another mount, or when a decoder is installed.
_UNSTABLE = ("unreadable", "outside_root", "no_heic_reader", "no_avif_reader")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Listing:
    """The records of a source, one row each."""

    keys: pa.Table
    """Columns ref and box."""
    groups: pa.ChunkedArray
    """The source's own group; null for none."""
    sides: IntArray
    """Position in `SIDES` of the split that the source states; -1 for none."""
    digest: str
    """SHA-256 of the listing."""


def list_records(source: Source, progress: bool) -> Listing:
    """List a source. Raises SourceError if it is empty, repeats a ref, or names a split that is neither of the two."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: tuple[list[Any], ...] = [], [], [], []
    side_of: dict[str | None, int] = {None: -1}
    digest = hashlib.sha256()
    box = measurements_schema().field("box").type
    with Progress("listing", None, progress) as bar:
        for block in _blocks(source.records()):
            refs, splits, groups, boxes = zip(*((r.ref, r.split, r.group, r.box) for r in block), strict=True)
            digest.update(json.dumps([refs, splits, groups, boxes]).encode())
            side_of |= {split: _side_of_split(split) for split in set(splits) - side_of.keys()}
            sides = np.array([side_of[split] for split in splits], np.int8)
            arrays = pa.array(refs, pa.string()), pa.array(boxes, box), pa.array(groups, pa.string()), sides
            for column, array in zip(columns, arrays, strict=True):
                column.append(array)
            bar.advance(len(block))
    for note in source.notes():
        logger.warning("%s", note)
    if not columns[0]:
        raise SourceError(f"source {source.name!r} lists no images{f' at {source.path}' if source.path else ''}")
    keys = pa.table({"ref": pa.chunked_array(columns[0]), "box": pa.chunked_array(columns[1])}).combine_chunks()
    if pc.count_distinct(keys["ref"]).as_py() < len(keys):
        counts = keys["ref"].value_counts()
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise SourceError(f"source {source.name!r} lists {twice!r} more than once; refs are unique")
    return Listing(keys, pa.chunked_array(columns[2]), np.concatenate(columns[3]), digest.hexdigest())


def still_valid(measured: pa.Table, source: Source, keys: pa.Table, workers: int, progress: bool) -> IntArray:
    """For every listed record, the row of `measured` that is still valid; -1 for none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.fill_null(pc.index_in(keys["ref"], value_set=measured["ref"].combine_chunks()), -1).to_numpy().copy()
    unstable = pc.is_in(measured["reason"], value_set=pa.array(_UNSTABLE)).to_numpy()
    listed_before = np.flatnonzero(found >= 0)
    listed_before = listed_before[~unstable[found[listed_before]]]
    valid = np.full(len(keys), -1)

    def unchanged(rows: IntArray) -> tuple[IntArray, IntArray]:
        before = measured.select(["bytes", "mtime_ns", "box"]).take(found[rows])
        now = np.array([_stamp(source, ref) for ref in keys["ref"].take(rows).to_pylist()])
        same = (now[:, 0] == before["bytes"].to_numpy()) & (now[:, 1] == before["mtime_ns"].to_numpy())
        return rows, same & (_corners(before["box"]) == _corners(keys["box"].take(rows))).all(axis=1)

    blocks = np.array_split(listed_before, -(-len(listed_before) // _BLOCK)) if len(listed_before) else []
    with Progress("checking", len(listed_before), progress) as bar:
        for rows, same in each(unchanged, blocks, min(workers, len(blocks))):
            valid[rows[same]] = found[rows[same]]
            bar.advance(len(rows))
    return valid


def complete(
    measured: pa.Table,
    row_of: IntArray,
    source: Source,
    keys: pa.Table,
    checkpoints: BuildCheckpoints,
    max_source_pixels: int,
    workers: int,
    progress: bool,
) -> tuple[pa.Table, IntArray]:
    """Measure the records without a row (`row_of` is -1) that no checkpoint has.

    Returns `measured` with the new rows appended, and the row of every record.
    """
    import pyarrow as pa

    row_of = row_of.copy()
    missing = np.flatnonzero(row_of < 0)
    earlier = checkpoints.earlier()
    row = still_valid(earlier, source, keys.take(missing), workers, progress)
    row_of[missing[row >= 0]] = len(measured) + row[row >= 0]
    missing = missing[row < 0]
    measured = pa.concat_tables([measured, earlier.replace_schema_metadata()])
    order = _measure(missing, source, keys, checkpoints, max_source_pixels, workers, progress)
    row_of[order] = len(measured) + np.arange(len(order))
    return pa.concat_tables([measured, checkpoints.rows().replace_schema_metadata()]), row_of


def _measure(
    missing: IntArray,
    source: Source,
    keys: pa.Table,
    checkpoints: BuildCheckpoints,
    max_source_pixels: int,
    workers: int,
    progress: bool,
) -> IntArray:
    """Measure records into `checkpoints`. Returns their numbers in the order in which they were added."""
    # One video takes long enough for a call of its own, and an interrupt waits until running calls end.
    size = 1 if source.kind == "video" else max(1, min(_CHUNK, len(missing) // (4 * workers)))
    threads = min(workers, -(-len(missing) // size))
    order = [missing[:0]]
    with (
        ParallelMeasurer(source, max_source_pixels, len(missing), processes=threads > 1) as measurer,
        Progress("indexing", len(missing), progress) as bar,
        closing(each(lambda job: (*job, measurer(job[1])), _jobs(missing, keys, size), threads)) as results,
    ):
        try:
            for rows, chunk, measurements in results:
                checkpoints.add(chunk, measurements)
                order.append(rows)
                bar.advance(len(rows))
        except BaseException as error:
            checkpoints.rescue()
            if isinstance(error, KeyboardInterrupt):
                logger.warning("indexing was stopped; start it again, and it resumes from here")
            raise
    return np.concatenate(order)


def _jobs(missing: IntArray, keys: pa.Table, size: int) -> Iterator[tuple[IntArray, list[RecordKey]]]:
    """The missing records in chunks: their numbers and keys."""
    for start in range(0, len(missing), _BLOCK):
        rows = missing[start : start + _BLOCK]
        block = keys.take(rows)
        block_keys = [
            (ref, None if box is None else tuple(box))
            for ref, box in zip(block["ref"].to_pylist(), block["box"].to_pylist(), strict=True)
        ]
        for i in range(0, len(rows), size):
            yield rows[i : i + size], block_keys[i : i + size]


def _stamp(source: Source, ref: str) -> tuple[int, int]:
    try:
        return source.stamp(ref)
    except ImageError:
        return -1, -1  # equals no stored stamp


def _corners(boxes: pa.ChunkedArray) -> IntArray:
    """Boxes as an array (n, 4), -1 for none."""
    corners = np.full((len(boxes), 4), -1)
    present = boxes.is_valid().to_numpy()
    corners[present] = boxes.combine_chunks().flatten().to_numpy().reshape(-1, 4)
    return corners


def _blocks(values: Iterable[_T]) -> Iterator[list[_T]]:
    values = iter(values)
    while block := list(islice(values, _BLOCK)):
        yield block


def _side_of_split(split: str) -> int:
    """TRAIN or VAL for the name of a split. Raises SourceError."""
    name = split.lower()
    if name.startswith("train"):
        return TRAIN
    if name.startswith(("val", "dev", "test", "eval", "heldout", "held_out", "minival")):
        return VAL
    raise SourceError(
        f"split {split!r} is neither training (train...) nor validation (val..., dev..., test..., eval...); "
        "rename it in the source, name the splits to read (option split of source hf), or do not use its splits "
        "(use_splits=false; leave out split_column for tsv)"
    )


class Progress:
    """A progress bar on stderr that appears after a second: count, speed and remaining time.

    Args:
        what: the activity, in a word.
        total: number of steps; None if unknown.
        wanted: whether to show the bar.
    """

    def __init__(self, what: str, total: int | None, wanted: bool) -> None:
        self._what, self._total, self._wanted = what, total, wanted
        self._done = 0
        self._start = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Add to the count of finished steps."""
        self._done += count
        passed = time.monotonic() - self._start
        if self._bar is None:
            if not self._wanted or passed < 1:
                return
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn(self._what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:,.0f}/s"),
                TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._bar.add_task(self._what, total=self._total, rate=0.0)
        self._bar.update(self._bar.task_ids[0], completed=self._done, rate=self._done / passed)
