"""Memory of a large build, all its processes together, over time (goal: under 700 MB, and flat from 20,000 rows on).

    python tests/bench/build_memory.py [rows] [workers]

The photos are those of tests/photos.py, each used as often as the rows ask for. Counted is resident memory, what
processes share counted for each of them; in brackets what they share counted once.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent))

from photos import photographs

EVERY = 20_000
"""Rows between two lines of output."""


def memory(process: psutil.Process) -> tuple[float, float]:
    """Resident and proportional memory of a process and all below it, in MB."""
    resident = proportional = 0
    for one in (process, *process.children(recursive=True)):
        try:
            found = one.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        resident += found.rss
        proportional += found.pss
    return resident / 1e6, proportional / 1e6


def main(rows: int, workers: int) -> None:
    with photographs() as photos, tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        epochs = -(-rows // sum(1 for path in photos.iterdir() if path.is_file()))
        command = [
            Path(sys.executable).with_name("ssl4rl"), "build", photos, "-t", "rotation", "--epochs", str(epochs),
            "--out", out, "--set", "options.side=112", "--set", "source.val_fraction=0.0",
            "--workers", str(workers),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        begun, peak, since = time.monotonic(), (0.0, 0.0), (0.0, 0.0)
        done = shown = 0
        counted: set[str] = set()
        while process.poll() is None:
            now = memory(psutil.Process(process.pid))
            peak, since = max(peak, now), max(since, now)
            for path in out.glob("train-*.parquet"):
                if path.name not in counted:
                    counted.add(path.name)
                    done += pq.read_metadata(path).num_rows
            if done // EVERY > shown:
                shown = done // EVERY
                print(f"{done:8,} rows: at most {since[0]:.0f} MB ({since[1]:.0f}) since the last line", flush=True)
                since = (0.0, 0.0)
            time.sleep(0.5)
        if process.returncode:
            sys.exit(f"the build ended with exit code {process.returncode}: its memory says nothing")
        seconds = time.monotonic() - begun
        print(f"{done:,} rows by {workers} workers in {seconds:.0f} s: peak {peak[0]:.0f} MB ({peak[1]:.0f})")


if __name__ == "__main__":
    main(*(int(argument) for argument in (*sys.argv[1:], *("200000", "2")[len(sys.argv) - 1 :])))
