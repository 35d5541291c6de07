"""Where the time of a run's start and end goes on the CPU: processor seconds by process, and the clock by phase.

Run `python tests/bench/start_time.py` on a quiet machine: trains `recipe=cpu_demo` for one step, with a validation before
and after it and a checkpoint, and prints two tables. `--set OVERRIDE` adds Hydra overrides, for example to compare with
settings of before. `--model FOLDER` uses a model that a run has made; otherwise one is made first. About two minutes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil

from ssl4rl_plugin.demo import run as demo

PHASES = (
    ("imports of the driver", "ssl4rl: starting"),
    ("checks of the run", "ray init kwargs"),
    ("Ray", "Started a local Ray instance"),
    ("task runner", "TaskRunner"),
    ("data", "worker group kwargs|WorkerDict pid"),
    ("actor's worker and model", "vLLMHttpServer pid|CpuServer pid"),
    ("vLLM", "LLMServerManager:"),
    ("validation before training", "Initial validation metrics"),
    ("the step, checkpoint, validation", "Final validation metrics"),
    ("end", ""),
)
"""Each phase, and what the log shows at its end; the last one ends with the run."""
NAMES = (
    ("ssl4rl::fork_server", "fork server"),
    ("import main; import sys; main(sys", "fork server"),
    ("fork_client", "clients of the fork server"),
    ("VLLM::EngineCore", "vLLM's engine"),
    ("ssl4rl::spawned", "vLLM's engine"),
    ("multiprocessing", "helpers of multiprocessing"),
    ("torchinductor", "C++ compiler"),
    ("/cc1plus", "C++ compiler"),
    ("/ld ", "C++ compiler"),
    ("/collect2", "C++ compiler"),
    ("gcs_server", "Ray's daemons"),
    ("raylet/raylet", "Ray's daemons"),
    ("Agent", "Ray's daemons"),
    ("log_monitor", "Ray's daemons"),
    ("dashboard", "Ray's daemons"),
    ("worker.py", "workers without a task"),
    ("IDLE", "workers without a task"),
    ("main_ppo", "driver (main_ppo)"),
)
"""Parts of command lines, and the rows that they are counted in. Other workers are named after their actor."""
VAGUE = ("", "clients of the fork server", "workers without a task", "fork server", "helpers of multiprocessing")


class Sampler(threading.Thread):
    """Notes the processor time of all processes below this one, and when marks appear in the log."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._done = threading.Event()
        self._used: dict[tuple[int, float], tuple[str, float]] = {}
        self.start_time = time.monotonic()
        self.seen: dict[str, float] = {}
        self.peak = 0

    def run(self) -> None:
        while not self._done.wait(0.25):
            self._sample()
            self._read_log()

    def stop(self) -> None:
        self._done.set()
        self.join()
        self.seen[PHASES[-1][0]] = time.monotonic() - self.start_time

    def _sample(self) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                with process.oneshot():
                    used = process.cpu_times()
                    name = _name(" ".join(process.cmdline()))
                    key = (process.pid, process.create_time())
            except psutil.Error:
                continue
            before = self._used.get(key, ("", 0.0))[0]
            # A worker that has not begun, or ends, has a name that says less.
            keep = before if before and name in VAGUE else name
            self._used[key] = (keep, used.user + used.system)

    def _read_log(self) -> None:
        logs = list(self._folder.glob("train-*.log"))
        text = logs[0].read_text(errors="replace") if logs else ""
        for phase, mark in PHASES[:-1]:
            if phase not in self.seen and re.search(mark, text):
                self.seen[phase] = time.monotonic() - self.start_time

    def processes(self) -> list[tuple[str, int, float]]:
        """Name, number of processes, and processor seconds, the largest first."""
        rows: dict[str, list[float]] = defaultdict(list)
        for name, used in self._used.values():
            rows[name].append(used)
        return sorted(((name, len(used), sum(used)) for name, used in rows.items()), key=lambda row: -row[2])


def _name(command: str) -> str:
    actor = re.search(r"ray::(?!IDLE|\w+Agent)(\w+)", command)
    if actor:
        return actor[1]
    return next((row for part, row in NAMES if part in command), command[:35])  # empty for one that has ended


def measure(model: Path, overrides: list[str]) -> Sampler:
    """One run of one step."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        out.mkdir()
        shutil.copytree(model, out / "model")
        sampler = Sampler(out)
        sampler.start()
        short = ["trainer.total_training_steps=1", "trainer.test_freq=1", "trainer.save_freq=1"]
        try:
            demo.run_trainer("cpu_demo", out, [*short, *overrides], 1)
        finally:
            sampler.stop()
    return sampler


def show(sampler: Sampler) -> None:
    print(f"{'process':36}{'number':>8}{'CPU s':>8}")
    for name, count, used in sampler.processes():
        print(f"{name:36}{count:8}{used:8.1f}")
    print(
        f"{'all':36}{sum(row[1] for row in sampler.processes()):8}{sum(row[2] for row in sampler.processes()):8.1f}\n"
    )
    print(f"{'phase':36}{'s':>8}{'until':>8}")
    before = 0.0
    for phase, _ in PHASES:
        if phase in sampler.seen:
            print(f"{phase:36}{sampler.seen[phase] - before:8.1f}{sampler.seen[phase]:8.1f}")
            before = sampler.seen[phase]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a tiny model; made if it is not given")
    parser.add_argument("--set", action="append", default=[], metavar="OVERRIDE", help="a Hydra override")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        chosen = options.model or Path(place) / "model"
        if options.model is None:
            demo.prepare_model(demo.compose("cpu_demo", [f"actor_rollout_ref.model.path={chosen}"]), chosen, seed=0)
        show(measure(chosen, options.set))
