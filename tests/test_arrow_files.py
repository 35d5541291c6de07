"""Arrow reads files itself: its threads must not call into a Python that is ending, which would abort the process."""

from __future__ import annotations

import builtins
import io
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.manifest import manifest_schema, read_manifest
from ssl4rl_plugin.training.settings import Settings

READS = """
import collections, os, sys, threading
from pathlib import Path
from ssl4rl_plugin.data.manifest import manifest_schema, read_manifest
import pyarrow, pyarrow.parquet

codes, running = collections.Counter(), 0
def wait():
    codes[os.waitstatus_to_exitcode(os.wait()[1])] += 1
for _ in range(100):
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        threading.Thread(target=lambda: [sum(range(100)) for _ in iter(int, 1)], daemon=True).start()  # wants the GIL
        read_manifest(Path(sys.argv[1]), manifest_schema().names)
        for thread in os.listdir("/proc/self/task"):
            if int(thread) != os.getpid():
                os.setpriority(os.PRIO_PROCESS, int(thread), 19)  # Arrow's thread is late, as under load
        read_manifest(Path(sys.argv[1]), ["ref"])
        break  # to the end of the program, as after a command
    running += 1
    if running - codes.total() >= 6:
        wait()
else:
    while codes.total() < running:
        wait()
    print(dict(codes))
"""


@pytest.fixture(scope="module")
def manifest(photo_folder: Path) -> Path:
    section = {"name": "folder", "path": str(photo_folder), "options": {}, "val_fraction": 0.3, "max_pixels": 250_000}
    common = {"tasks": ["rotation"], "seed": 0, "epochs": 1, "val_samples": 4, "answer_format": "think_answer"}
    return load_manifest(Settings.from_config({**common, "source": section})).path


def test_no_thread_of_arrow_calls_into_python(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file of Python's, one of Arrow's own threads read it, and could still be at it when `ssl4rl index` ended.
    In the test below that ended 1 of 300 processes with SIGABRT."""
    callers: set[str] = set()

    class Told(io.FileIO):
        def read(self, size: int | None = -1) -> Any:
            callers.add(threading.current_thread().name)
            return super().read(size)

    monkeypatch.setattr(builtins, "open", lambda path, *_, **__: Told(path))
    assert len(read_manifest(manifest, manifest_schema().names)[0])
    assert callers <= {threading.current_thread().name}


@pytest.mark.slow
def test_a_process_that_has_read_a_manifest_ends_well_100_times(manifest: Path) -> None:
    done = subprocess.run([sys.executable, "-c", READS, str(manifest)], capture_output=True, text=True, timeout=500)
    assert done.stdout.split() == ["{0:", "100}"], done.stdout + done.stderr


def test_a_manifest_may_have_any_name(manifest: Path, tmp_path: Path) -> None:
    odd = tmp_path / "m\udcff.parquet"  # not UTF-8
    odd.write_bytes(manifest.read_bytes())
    table, digest = read_manifest(odd, ["ref"])
    assert isinstance(table, pa.Table) and digest == read_manifest(manifest, ["ref"])[1]
