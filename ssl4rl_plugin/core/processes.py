"""Worker processes that run jobs for the caller and end with it.

A worker is a new interpreter that talks to the caller through pipes. Unlike a fork, it shares no thread, lock or CUDA
context with the caller. Unlike a spawned process of `multiprocessing`, it does not import the caller's main module
again (which may import verl, or may lack a main guard). If the caller is killed, the pipe closes and the worker ends.
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
from ssl4rl_plugin.core.safe_path import environment, run_code

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

_AHEAD = 2  # jobs running or queued, for each worker
_BOOT = "import pickle; sys.path[:] = pickle.load(sys.stdin.buffer); from {0} import serve; serve()"


class WorkerDiedError(UserError):
    """Something killed a worker process, most often the system because memory ran out."""


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Process(Generic[JobT, ResultT]):
    """One worker process that calls a function. Only one thread may use it at a time.

    Args:
        work: the function; must be picklable.

    Raises:
        pickle.PicklingError and others: `work` is not picklable.
        RuntimeError: the worker cannot load `work`, for example because a script defines it.
        WorkerDiedError: the worker was killed.
    """

    def __init__(self, work: Callable[[JobT], ResultT]) -> None:
        pickled = pickle.dumps(work)
        # One core per worker: libraries get one thread. A new session: Ctrl-C reaches only the caller.
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            run_code(_BOOT.format(__name__)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment(**alone), start_new_session=True,
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
            raise answer  # outside of the `try`: the function itself may raise EOFError
        return answer

    def _died(self) -> WorkerDiedError:
        self._process.kill()  # its pipe may hold half a message: do not read from it again
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return WorkerDiedError(
            f"a worker process {how}, most likely because memory ran out: start again with fewer workers; finished work "
            "is kept"
        )

    def end(self) -> None:
        """Kill the worker at once: it holds no state that could be lost."""
        self._process.kill()
        self._process.wait()

    def _answer(self, *messages: Any) -> tuple[bool, Any]:
        """Send messages and read one reply: (True, result) or (False, exception)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        for message in messages:
            pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)


def serve() -> None:
    """Main loop of a worker. It ends when the caller's end of the pipe closes, also if the caller was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output that libraries print must not mix with the answers
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
        except BaseException as error:  # `sys.exit` in another package's code: no reason to end, here or in the caller
            reply = _failure(RuntimeError(f"{type(error).__name__}: {error}"))
        answers.write(reply)
        answers.flush()


def _failure(error: Exception) -> bytes:
    """The pickled reply for an exception; only its text if the exception does not survive pickling."""
    try:
        reply = pickle.dumps((False, error))
        pickle.loads(reply)
        return reply
    except Exception:  # another package's exception class may raise anything here
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def each(call: Callable[[JobT], ResultT], jobs: Iterable[JobT], threads: int) -> Generator[ResultT]:
    """Call a function on jobs from several threads; yield the results as they complete.

    Takes only a few jobs ahead of the threads. The first exception stops everything and is raised. With one thread, the
    caller's own thread does the work.
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
    """Run jobs in several processes; yield the results in order of completion.

    Args:
        work: the function; must be picklable.
        jobs: taken one at a time, a few ahead of the workers.
        workers: number of processes; with 1, this process does the work.

    Raises:
        WorkerDiedError: a worker was killed.
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
