"""Worker processes: results and exceptions come back, and whoever dies is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from ssl4rl_plugin.core.processes import Process, WorkerDiedError, as_completed


def test_results_come_back_from_several_processes() -> None:
    assert sorted(as_completed(abs, range(-20, 0), 3)) == list(range(1, 21))
    assert list(as_completed(abs, [-1], 1)) == [1]
    assert not [child for child in psutil.Process().children() if "serve()" in " ".join(child.cmdline())]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_exception_ends_it(workers: int) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(as_completed(int, ["1", "2", "x", *["3"] * 50], workers))


@pytest.mark.parametrize(
    ("call", "kind"), [("raise EOFError('own')", EOFError), ("raise BrokenPipeError('own')", OSError)]
)
def test_an_exception_of_the_work_is_no_death(call: str, kind: type[Exception]) -> None:
    """A file that ends too early says EOFError, as a pipe does whose other end is gone."""
    process = Process(exec)
    try:
        with pytest.raises(kind, match="own"):
            process(call)
        assert process("pass") is None
    finally:
        process.end()


def test_an_exception_that_cannot_be_sent_comes_as_text() -> None:
    process = Process(exec)
    try:
        with pytest.raises(RuntimeError, match="Odd: strange"):
            process("class Odd(Exception): pass\nraise Odd('strange')")
    finally:
        process.end()


def test_a_worker_that_dies_is_noticed() -> None:
    process = Process(os._exit)
    with pytest.raises(WorkerDiedError, match="exit code 3"):
        process(3)
    process = Process(signal.raise_signal)
    with pytest.raises(WorkerDiedError, match="signal 9"):
        process(signal.SIGKILL)


def test_workers_end_with_whoever_started_them() -> None:
    code = (
        "import time; from ssl4rl_plugin.core.processes import Process\n"
        "process = Process(abs); print(process._process.pid, flush=True); time.sleep(60)"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    worker = psutil.Process(int(caller.stdout.readline()))
    caller.kill()
    caller.wait()
    end = time.monotonic() + 20
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
