"""Processes of this machine that do jobs for this one, and end when it does.

A process is a fresh interpreter at the other end of a pipe: it shares no thread, lock or CUDA context with the caller (a
fork would), and does not import the caller's main module again (a spawned process of `multiprocessing` would, and with
it verl, or a script without a main guard). When the caller is killed the pipe closes, and the process ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

from ssl4rl_plugin.core.errors import UserError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

_AHEAD = 2  # jobs under way or waiting, for each worker
_BOOT = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from {0} import serve; serve()"


class WorkerDiedError(UserError):
    """A worker process was ended from outside, most often because memory ran out."""


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Process(Generic[JobT, ResultT]):
    """One process that calls a function; used by one thread at a time.

    Args:
        work: the function, which must be picklable.

    Raises:
        pickle.PicklingError and others: it is not.
        RuntimeError: the process cannot load it, as a function that is defined in a script.
        WorkerDiedError: the process was killed meanwhile.
    """

    def __init__(self, work: Callable[[JobT], ResultT]) -> None:
        pickled = pickle.dumps(work)
        # Each process has one core, so libraries need no threads of their own; and Ctrl-C is for the caller alone.
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT.format(__name__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, **alone}, start_new_session=True,
        )  # fmt: skip
        try:
            loaded, problem = self._answer(sys.path, pickled)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
            raise self._died() from error
        if not loaded:
            self.end()
            raise RuntimeError(f"a worker process cannot load {work!r}: {problem}") from problem

    def __call__(self, job: JobT) -> ResultT:
        """The function's result, or its exception. Raises WorkerDiedError."""
        try:
            worked, answer = self._answer(job)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
            raise self._died() from error
        if not worked:
            raise answer  # outside of the block above: the function itself may run into an EOFError
        return answer

    def _died(self) -> WorkerDiedError:
        self._process.kill()  # nothing that it says can be trusted any more
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return WorkerDiedError(
            f"a worker process {how}, most likely because memory ran out: start again with fewer workers; what is finished "
            "stays"
        )

    def end(self) -> None:
        """Stop at once: a process holds nothing that could be lost."""
        self._process.kill()
        self._process.wait()

    def _answer(self, *messages: Any) -> tuple[bool, Any]:
        """Whether it worked, and the result or the exception."""
        assert self._process.stdin is not None and self._process.stdout is not None
        for message in messages:
            pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)


def serve() -> None:
    """The life of a process; it ends when the caller's end of the pipe closes, whatever became of the caller."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    work: Callable[[Any], Any] | None = None
    while True:
        try:
            message = pickle.load(questions)
        except EOFError:
            return
        try:
            if work is None:
                work, answer = pickle.loads(message), None
            else:
                answer = work(message)
            reply = pickle.dumps((True, answer))
        except Exception as error:
            reply = _failure(error)
        answers.write(reply)
        answers.flush()


def _failure(error: Exception) -> bytes:
    """An exception for the way back; its text alone where it cannot be sent as it is."""
    try:
        reply = pickle.dumps((False, error))
        pickle.loads(reply)
        return reply
    except Exception:  # a stranger's exception class may do anything
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def each(call: Callable[[JobT], ResultT], jobs: Iterable[JobT], threads: int) -> Generator[ResultT]:
    """Results as they are done, called from several threads, a few jobs ahead; an exception ends it and is raised.

    One thread means the caller's own.
    """
    if threads <= 1:
        yield from map(call, jobs)
        return
    left = iter(jobs)
    with ThreadPoolExecutor(threads, "ssl4rl-pool") as pool:
        waiting: set[Future[ResultT]] = set()
        try:
            while True:
                while len(waiting) < _AHEAD * threads and (job := next(left, _NONE)) is not _NONE:
                    waiting.add(pool.submit(call, job))  # type: ignore[arg-type]
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in waiting:
                future.cancel()


_NONE = object()


def as_completed(work: Callable[[JobT], ResultT], jobs: Iterable[JobT], workers: int) -> Generator[ResultT]:
    """Results of jobs done in several processes, in the order in which they are done.

    Args:
        work: the function; picklable.
        jobs: taken one at a time, a few ahead of the workers.
        workers: processes; 1 means this one.

    Raises:
        WorkerDiedError: a process was killed.
        Exception: the first one that a job raises.
    """
    if workers <= 1:
        yield from map(work, jobs)
        return
    mine = threading.local()
    started: list[Process[JobT, ResultT]] = []

    def call(job: JobT) -> ResultT:
        if not hasattr(mine, "process"):
            mine.process = Process(work)
            started.append(mine.process)
        result: ResultT = mine.process(job)
        return result

    try:
        yield from each(call, jobs, workers)
    finally:
        for process in started:
            process.end()
