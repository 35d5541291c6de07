"""Measuring with all cores: threads at first and, once the work turns out to be long, a process behind each thread.

Decoding releases Python's lock, so threads do for a small folder, which should not pay the half second that a process
takes to start. Nor can a source be sent to a process whose class is defined in a script: it stays with threads.
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
"""Seconds of work before processes are started."""
WORTH_PROCESSES = 3.0
"""Seconds of work that must be left for it."""

_MOST = 8


def default_workers() -> int:
    """One for each core that this process may use, at most 8."""
    return min(_MOST, cores())


class ParallelMeasurer:
    """Measures records from any thread; a context manager, at whose end no process is left.

    Args:
        source: where they are read from.
        max_source_pixels: pictures that declare more pixels are rejected unread.
        total: how many records there are in all.
        processes: whether processes may be used.
    """

    def __init__(self, source: Source, max_source_pixels: int, total: int, processes: bool) -> None:
        self._source, self._limit = source, max_source_pixels
        self._done, self._total, self._start = 0, total, time.monotonic()
        self._processes = processes
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._started: list[Process[Sequence[RecordKey], list[Measurements]]] = []

    def __enter__(self) -> ParallelMeasurer:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._started:
            process.end()

    def __call__(self, places: Sequence[RecordKey]) -> list[Measurements]:
        """What is found out about each record. Raises SourceError, also if the process died over it."""
        if not hasattr(self._mine, "work"):
            self._mine.work = RecordMeasurer(self._source, self._limit)
        if self._processes and isinstance(self._mine.work, RecordMeasurer) and self._is_long():
            self._mine.work = self._process(self._mine.work)
        try:
            found: list[Measurements] = self._mine.work(places)
        except WorkerDiedError as error:
            raise SourceError(
                f"source {self._source.name!r}: {error}. It was reading {places[0][0]!r} or one of the {len(places) - 1} "
                "after it; if memory is not short, take the file away that does this"
            ) from error
        with self._lock:
            self._done += len(places)
        return found

    def _is_long(self) -> bool:
        passed, done = time.monotonic() - self._start, self._done
        return done > 0 and passed > THREADS_FIRST and passed / done * (self._total - done) > WORTH_PROCESSES

    def _process(self, meter: RecordMeasurer) -> Any:
        """A process for this thread; the meter itself where that does not work."""
        try:
            process: Process[Sequence[RecordKey], list[Measurements]] = Process(
                RecordMeasurer(self._source, self._limit)
            )
        except Exception:  # pickle raises nearly anything
            self._processes = False
            return meter
        self._started.append(process)
        return process
