"""Run every bench once, at its smallest size, so that none can rot. It measures nothing.

    python tests/bench/once.py [NAME ...]        (make bench-once)

What costs hours, gigabytes or a training is only asked for its `--help`, which imports what it needs and builds its options.
Stops with an error if a file of this folder is not listed here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent))

from photos import photographs  # noqa: E402

LIMIT = 600
"""Seconds for each; a busy machine takes several times what a quiet one does."""
PYTEST = ["-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--benchmark-disable"]
BENCHES = sorted(path.name for path in BENCH.glob("bench_*.py"))
SCRIPTS: dict[str, list[str]] = {
    "import_time.py": ["--once"],
    "building.py": ["--once"],
    "build_memory.py": ["20", "1"],
    "near_duplicates.py": ["{photos}", "--million", "2000"],
    "oracles.py": ["{photos}", "flip", "jigsaw_pair", "temporal_jigsaw", "anomaly_grounding", "-n", "1"],
    "curriculum_simulated.py": ["--once"],
    "exploration.py": ["--out={out}.json", "--seeds=1", "--steps=10", "--jobs=1", "--only=no entropy bonus"],
    "dataset_overhead.py": ["{out}", "--rows", "4", "--batch", "8", "--steps", "0"],
}
"""The arguments of each script's smallest run."""
HELP = {
    "start_time.py": "a training; the end-to-end tests start several",
    "step_time.py": "three trainings; the end-to-end tests run both ways of rollout",
    "demo_seeds.py": "five demos; the end-to-end tests run one",
    "curriculum.py": "72 trainings, hours; tests/test_bench_trainings.py reads results of its form",
    "transfer.py": "15 trainings, hours; the same test",
    "other_versions.py": "7 GB of another environment",
    "image_install.py": "a clone of verl, and versions from the package index",
}
"""What is only asked for its help, and why."""
PARTS = {
    "floor.py": "building.py",
    "trainings.py": "curriculum.py, demo_seeds.py, exploration.py, transfer.py",
    "random_reward.py": "demo_seeds.py",
    Path(__file__).name: "make bench-once",
}
"""Files that others run."""


def commands(photos: Path, out: Path) -> dict[str, list[str]]:
    """The command of each bench, by name."""
    found = {"bench_*.py": [*PYTEST, *(str(BENCH / name) for name in BENCHES)]}
    for name, arguments in SCRIPTS.items():
        found[name] = [str(BENCH / name), *(part.format(photos=photos, out=out) for part in arguments)]
    return found | {name: [str(BENCH / name), "--help"] for name in HELP}


def main(names: list[str]) -> None:
    listed = {*BENCHES, *SCRIPTS, *HELP, *PARTS}
    if different := listed ^ {path.name for path in BENCH.glob("*.py")}:
        sys.exit(f"{', '.join(sorted(different))}: in tests/bench but not in once.py, or the other way round")
    with tempfile.TemporaryDirectory() as folder, photographs(crops=1) as photos:
        environment = {**os.environ, "SSL4RL_BENCH_PHOTOS": str(photos), "SSL4RL_CACHE": f"{folder}/cache"}
        todo = commands(photos, Path(folder) / "out")
        if unknown := set(names) - set(todo):
            sys.exit(f"no bench {', '.join(sorted(unknown))}: choose from {', '.join(todo)}")
        failed = []
        for name, command in todo.items():
            if names and name not in names:
                continue
            began = time.monotonic()
            try:
                done = subprocess.run(
                    [sys.executable, *command], env=environment, cwd=BENCH.parents[1], timeout=LIMIT,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                )  # fmt: skip
                output, good = done.stdout, done.returncode == 0
            except subprocess.TimeoutExpired as error:
                output, good = f"{(error.output or b'').decode()}\nstill running after {LIMIT} s", False
            how = f"only --help: {HELP[name]}" if name in HELP else "runs"
            print(f"{'ok' if good else 'FAILED':6} {name:24} {time.monotonic() - began:4.0f} s  {how}", flush=True)
            if not good:
                failed.append(name)
                print(output[-6000:], flush=True)
        if failed:
            sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
