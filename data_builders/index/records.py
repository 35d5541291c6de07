"""From a source to a table of figures: list its records, keep what is known of them, and measure the rest."""

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
_BLOCK = 4096  # records that are Python objects at a time
_UNSTABLE = ("unreadable", "outside_root")  # reasons that say nothing about the bytes

_T = TypeVar("_T")


@dataclass(frozen=True)
class Listing:
    """What a source lists, a row for each record."""

    places: pa.Table
    """Columns ref and box."""
    groups: pa.ChunkedArray
    """The source's own groups; null for none."""
    sides: IntArray
    """The side of the split that the source has it on; -1 where it does not say."""
    digest: str
    """Of all that the source said."""


def list_records(source: Source, progress: bool) -> Listing:
    """List a source. Raises SourceError if there is nothing, a ref twice, or a split that is neither of the two."""
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
            side_of |= {split: _side(split) for split in set(splits) - side_of.keys()}
            sides = np.array([side_of[split] for split in splits], np.int8)
            made = pa.array(refs, pa.string()), pa.array(boxes, box), pa.array(groups, pa.string()), sides
            for column, part in zip(columns, made, strict=True):
                column.append(part)
            bar.advance(len(block))
    if not columns[0]:
        raise SourceError(f"source {source.name!r} lists no images{f' at {source.path}' if source.path else ''}")
    places = pa.table({"ref": pa.chunked_array(columns[0]), "box": pa.chunked_array(columns[1])}).combine_chunks()
    if pc.count_distinct(places["ref"]).as_py() < len(places):
        counts = places["ref"].value_counts()
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise SourceError(f"source {source.name!r} lists {twice!r} more than once; refs are unique")
    return Listing(places, pa.chunked_array(columns[2]), np.concatenate(columns[3]), digest.hexdigest())


def still_valid(known: pa.Table, source: Source, places: pa.Table, workers: int, progress: bool) -> IntArray:
    """For every listed record, the number of the row of `known` that still holds for it; -1 where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.fill_null(pc.index_in(places["ref"], value_set=known["ref"].combine_chunks()), -1).to_numpy().copy()
    unstable = pc.is_in(known["reason"], value_set=pa.array(_UNSTABLE)).to_numpy()
    there = np.flatnonzero(found >= 0)
    there = there[~unstable[found[there]]]
    valid = np.full(len(places), -1)

    def unchanged(rows: IntArray) -> tuple[IntArray, IntArray]:
        then = known.select(["bytes", "mtime_ns", "box"]).take(found[rows])
        now = np.array([_stamp(source, ref) for ref in places["ref"].take(rows).to_pylist()])
        same = (now[:, 0] == then["bytes"].to_numpy()) & (now[:, 1] == then["mtime_ns"].to_numpy())
        return rows, same & (_corners(then["box"]) == _corners(places["box"].take(rows))).all(axis=1)

    blocks = np.array_split(there, -(-len(there) // _BLOCK)) if len(there) else []
    with Progress("checking", len(there), progress) as bar:
        for rows, same in each(unchanged, blocks, min(workers, len(blocks))):
            valid[rows[same]] = found[rows[same]]
            bar.advance(len(rows))
    return valid


def complete(
    known: pa.Table,
    where: IntArray,
    source: Source,
    places: pa.Table,
    parts: BuildCheckpoints,
    max_source_pixels: int,
    workers: int,
    progress: bool,
) -> tuple[pa.Table, IntArray]:
    """Measure the records that are in no row yet (`where` is -1), unless a part has them.

    Returns `known` with the new rows behind the old ones, and for every record the number of its row.
    """
    import pyarrow as pa

    where = where.copy()
    missing = np.flatnonzero(where < 0)
    earlier = parts.earlier()
    row = still_valid(earlier, source, places.take(missing), workers, progress)
    where[missing[row >= 0]] = len(known) + row[row >= 0]
    missing = missing[row < 0]
    known = pa.concat_tables([known, earlier.replace_schema_metadata()])
    order = _measure(missing, source, places, parts, max_source_pixels, workers, progress)
    where[order] = len(known) + np.arange(len(order))
    return pa.concat_tables([known, parts.rows().replace_schema_metadata()]), where


def _measure(
    missing: IntArray,
    source: Source,
    places: pa.Table,
    parts: BuildCheckpoints,
    max_source_pixels: int,
    workers: int,
    progress: bool,
) -> IntArray:
    """Measure records into `parts`; returns which, in the order in which they went there."""
    # A video takes so long that even one is worth a call, and an interrupt waits for the calls under way.
    size = 1 if source.kind == "video" else max(1, min(_CHUNK, len(missing) // (4 * workers)))
    threads = min(workers, -(-len(missing) // size))
    order = [missing[:0]]
    with (
        ParallelMeasurer(source, max_source_pixels, len(missing), processes=threads > 1) as measurer,
        Progress("indexing", len(missing), progress) as bar,
        closing(each(lambda job: (*job, measurer(job[1])), _jobs(missing, places, size), threads)) as results,
    ):
        try:
            for rows, chunk, figures in results:
                parts.add(chunk, figures)
                order.append(rows)
                bar.advance(len(rows))
        except BaseException as error:
            parts.rescue()
            if isinstance(error, KeyboardInterrupt):
                logger.warning("indexing was stopped; start it again, and it goes on from here")
            raise
    return np.concatenate(order)


def _jobs(missing: IntArray, places: pa.Table, size: int) -> Iterator[tuple[IntArray, list[RecordKey]]]:
    """Records in chunks: their row numbers and places."""
    for start in range(0, len(missing), _BLOCK):
        rows = missing[start : start + _BLOCK]
        block = places.take(rows)
        listed = [
            (ref, None if box is None else tuple(box))
            for ref, box in zip(block["ref"].to_pylist(), block["box"].to_pylist(), strict=True)
        ]
        for i in range(0, len(rows), size):
            yield rows[i : i + size], listed[i : i + size]


def _stamp(source: Source, ref: str) -> tuple[int, int]:
    try:
        return source.stamp(ref)
    except ImageError:
        return -1, -1  # fits no row


def _corners(boxes: pa.ChunkedArray) -> IntArray:
    """Boxes as an array (n, 4), -1 where there is none."""
    corners = np.full((len(boxes), 4), -1)
    some = boxes.is_valid().to_numpy()
    corners[some] = boxes.combine_chunks().flatten().to_numpy().reshape(-1, 4)
    return corners


def _blocks(values: Iterable[_T]) -> Iterator[list[_T]]:
    values = iter(values)
    while block := list(islice(values, _BLOCK)):
        yield block


def _side(split: str) -> int:
    """TRAIN or VAL for a source's name of a split. Raises SourceError."""
    name = split.lower()
    if name.startswith("train"):
        return TRAIN
    if name.startswith(("val", "dev", "test", "eval", "heldout", "held_out", "minival")):
        return VAL
    raise SourceError(
        f"split {split!r} is neither training (train...) nor validation (val..., dev..., test..., eval...); "
        "rename it in the source, or tell the source not to use its splits (leave split_column away for tsv)"
    )


class Progress:
    """A progress bar on stderr that appears after a second, or nothing: how many, how fast, how much time is left.

    Args:
        what: what is going on, in a word.
        total: how many there are; None where that is not known.
        wanted: whether to show anything.
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
        """So many more are done."""
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
