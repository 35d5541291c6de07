"""Speed of building and of reading, each against the bare work; medians and ratios.

    python tests/bench/building.py [TASK ...] [--rounds 5] [--rows 1000] [--once]        (make bench-build)

The photos are those of SSL4RL_BENCH_PHOTOS, or the photographs of scikit-image. The floor of a build is what nobody can
leave out (tests/bench/floor.py), in as many processes. Floor and build alternate, so that a change in the machine's load
falls on both; the ratio of processor times depends on it least. `--once` makes a few rows once, to see that this works.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import floor
from photos import photographs

from ssl4rl_plugin.cli.section import section_for
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import OnlineRows
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.data_builders.build.builder import build
from ssl4rl_plugin.data_builders.build.planning import make_plan
from ssl4rl_plugin.training.settings import Settings

GOAL = 1.3
"""Most times the floor's time that a build may take."""
SPEEDUP = 1.8
"""What two workers have to be faster than one."""
DATASET = 1.2
"""Most times the time of decoding and corrupting that the online dataset may take."""
SHARD_ROWS = 64


@dataclass
class Times:
    """Seconds of each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Of this process and of the children that it has waited for."""

    def measure(self, work: Callable[[], Any]) -> None:
        gc.collect()
        before, start = os.times(), time.perf_counter()
        work()
        after = os.times()
        self.wall.append(time.perf_counter() - start)
        self.cpu.append(sum(after[:4]) - sum(before[:4]))


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def run_floor(task: str, files: list[Path], rows: int, workers: int) -> None:
    """The floor in this process, or in several ones, each with its part of the rows."""
    if workers == 1:
        floor.loop(task, files, 0, rows)
        return
    names, part = "\n".join(map(str, files)), -(-rows // workers)
    running = []
    for first in range(0, rows, part):
        command = [sys.executable, floor.__file__, task, str(first), str(min(part, rows - first))]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, text=True))
        assert running[-1].stdin is not None
        running[-1].stdin.write(names)
        running[-1].stdin.close()
    failed = [one.args for one in running if one.wait()]
    assert not failed, failed


def bench_task(task: str, photos: Path, rounds: int, rows: int) -> None:
    """Print a task's lines: with one worker (in this process) and with two, then the online dataset."""
    section = section_for("folder", photos, [task], {}, {"source.val_fraction": 0.0, "epochs": 1})
    manifest = load_manifest(Settings.from_config(section))
    items = len(manifest.items("train"))
    # Whole shards for each of two workers, and whole epochs: the stream has no other length.
    section["epochs"] = -(-rows // items)
    settings = Settings.from_config(section)
    plan = make_plan(section, manifest, shard_rows=SHARD_ROWS)
    rows = plan.rows["train"]
    files = [photos / item.ref for item in manifest.items("train")]
    stream = SampleStream(settings, manifest, "train")
    online = OnlineRows(stream)
    numbers = range(0, rows, max(1, rows // 300))

    floors, builds = {1: Times(), 2: Times()}, {1: Times(), 2: Times()}
    made, read = Times(), Times()
    for _ in range(rounds):
        for workers in (1, 2):
            floors[workers].measure(lambda workers=workers: run_floor(task, files, rows, workers))
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                builds[workers].measure(lambda out=out, workers=workers: build(plan, manifest, out, workers=workers))
        made.measure(lambda: [stream[number] for number in numbers])
        read.measure(lambda: [online[number] for number in numbers])

    for workers, bare in floors.items():
        ours = builds[workers]
        found = ratio(ours.cpu, bare.cpu)
        speeds = [rows / statistics.median(times.wall) for times in (bare, ours)]
        print(
            f"{task:12} workers {workers}, rows {rows}: floor {speeds[0]:4.0f} rows/s, build {speeds[1]:4.0f} rows/s; "
            f"{ratio(ours.wall, bare.wall):.2f} x the floor's time, {found:.2f} x its processor time (goal {GOAL})",
            flush=True,
        )
    print(
        f"{task:12} two workers {ratio(builds[1].wall, builds[2].wall):.2f} x as fast as one (goal {SPEEDUP}), start of "
        f"each {statistics.median(two - one for one, two in zip(builds[1].cpu, builds[2].cpu, strict=True)) / 2:.1f} s of "
        f"processor time; dataset "
        f"{ratio(read.cpu, made.cpu):.3f} x decode and corrupt (goal {DATASET}); refused draws "
        f"{sum(len(stream[number].refused) for number in numbers) / len(numbers):.2f} a row",
        flush=True,
    )


def bench_import(repetitions: int) -> None:
    """Import of the dataset's module where verl is loaded, as it is wherever verl asks for it, and without verl."""
    cases = {
        "ssl4rl_plugin.training.verl.dataset, after verl's own dataset": (
            "verl.utils.dataset.rl_dataset",
            "ssl4rl_plugin.training.verl.dataset",
        ),
        "ssl4rl_plugin.data.rows (no verl, no torch)": ("sys", "ssl4rl_plugin.data.rows"),
    }
    for name, (first, module) in cases.items():
        code = f"import {first}, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        command = [sys.executable, "-c", code]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(repetitions)]
        found = [float(run.stdout.split()[-1]) for run in runs]
        print(f"import {name}: {1000 * statistics.median(found):.0f} ms (goal 300)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(floor.TASKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--once", action="store_true", help="one round of a few rows: is everything there?")
    given = parser.parse_args()
    if unknown := set(given.tasks) - set(floor.TASKS):
        parser.error(f"no floor for {', '.join(sorted(unknown))}: choose from {', '.join(floor.TASKS)}")
    rounds, rows = (1, 24) if given.once else (given.rounds, given.rows)
    with photographs() as photos:
        print(f"medians of {rounds} rounds over {photos.name}", flush=True)
        for task in given.tasks or floor.TASKS:
            bench_task(task, photos, rounds, rows)
    bench_import(rounds)


if __name__ == "__main__":
    main()
