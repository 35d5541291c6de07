"""Measures records on all cores: in threads at first, and if the work takes long, in one process per thread.

Decoding releases Python's lock, so threads are enough for a small folder, and save the half second that a process takes to
start. A source whose class is defined in a script cannot be pickled: it stays with threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from ssl4rl_plugin.core.processes import Process, WorkerDiedError, cores
from ssl4rl_plugin.data.source import Source, SourceError
from ssl4rl_plugin.data_builders.index.measure import Measurements, RecordKey, RecordMeasurer

THREADS_FIRST = 1.0
"""Seconds of work before processes start."""
WORTH_PROCESSES = 3.0
"""Least seconds of remaining work for which processes start."""

_MAX_WORKERS = 8


def default_workers() -> int:
    """One worker for each core that this process may use, at most 8."""
    return min(_MAX_WORKERS, cores())


class ParallelMeasurer:
    """Measures records; may be called from any thread. A context manager that ends all its processes.

    Args:
        source: the source to read from.
        max_source_pixels: pictures that declare more pixels are rejected unread.
        total: number of records to measure.
        processes: whether processes may be used.
    """

    def __init__(self, source: Source, max_source_pixels: int, total: int, processes: bool) -> None:
        self._source, self._limit = source, max_source_pixels
        self._done, self._total, self._start = 0, total, time.monotonic()
        self._processes = processes
        self._lock = threading.Lock()
        self._local = threading.local()
        self._started: list[Process[Sequence[RecordKey], list[Measurements]]] = []

    def __enter__(self) -> ParallelMeasurer:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._started:
            process.end()

    def __call__(self, keys: Sequence[RecordKey]) -> list[Measurements]:
        """The measurements of each record. Raises SourceError, also if the process died."""
        if not hasattr(self._local, "work"):
            self._local.work = RecordMeasurer(self._source, self._limit)
        if self._processes and isinstance(self._local.work, RecordMeasurer) and self._is_long():
            self._local.work = self._process(self._local.work)
        try:
            measurements: list[Measurements] = self._local.work(keys)
        except WorkerDiedError as error:
            raise SourceError(
                f"source {self._source.name!r}: {error}. It was reading {keys[0][0]!r} or one of the {len(keys) - 1} "
                "after it; if memory is not short, remove the file that causes this"
            ) from error
        with self._lock:
            self._done += len(keys)
        return measurements

    def _is_long(self) -> bool:
        passed, done = time.monotonic() - self._start, self._done
        return done > 0 and passed > THREADS_FIRST and passed / done * (self._total - done) > WORTH_PROCESSES

    def _process(self, measurer: RecordMeasurer) -> Any:
        """A process for this thread; the measurer itself if the source cannot be sent to one."""
        try:
            process: Process[Sequence[RecordKey], list[Measurements]] = Process(
                RecordMeasurer(self._source, self._limit)
            )
        except Exception:  # pickle raises nearly anything
            self._processes = False
            return measurer
        self._started.append(process)
        return process
