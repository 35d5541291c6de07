"""What the demo's models learn, for several seeds: the table and the picture of README and docs/cpu.md.

    python tests/bench/demo_seeds.py runs/seeds [--seeds 0-4] [--recipe cpu_demo] [--photos FOLDER]    (make demo-seeds)

Each seed is a run of the demo in OUT/<recipe>-<seed>. Finished runs are not repeated, and stopped ones go on. At the
end there are OUT/<recipe>.json with the results and OUT/<recipe>.png with the curves. `--docs` also writes them to docs/.
Runs at the same time (`--at-once`) slow each other down, so the durations are then those of a busy machine.
`--control` pays random rewards instead, in OUT/<recipe>-control-<seed>: nothing should be learnt.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainings import ASSETS, ROOT, missing_text, replace_between, seeds_of, table

from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training.override_hints import quoted

COLOURS = ("#3b62d6", "#c2571a", "#2f855a", "#8a3ffc")
"""Of the tasks in the picture."""
FACTOR = 1.5
"""The goal: the interval of each task's accuracy lies above this many times chance."""
PARTS = ("model", "start", "training", "validation", "end", "report")
RUN = (
    "import sys; from pathlib import Path; from ssl4rl_plugin.demo.run import main; "
    "main(Path(sys.argv[1]), sys.argv[2], seed=int(sys.argv[3]), extra=tuple(sys.argv[4:]))"
)


@dataclass(frozen=True)
class Way:
    """What the seeds of a bench have in common."""

    recipe: str
    control: bool = False
    """Random rewards."""
    photos: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.recipe}-control" if self.control else self.recipe

    def overrides(self) -> list[str]:
        """Of the recipe."""
        found = []
        if self.photos:
            found += demo.photographs(self.photos)
        if self.control:
            path = Path(__file__).with_name("random_reward.py")
            found += [f"reward.custom_reward_function.path={quoted(str(path))}"]
        return found

    def folder(self, out: Path, seed: int) -> Path:
        return out / f"{self.name}-{seed}"

    def train(self, out: Path, seed: int) -> None:
        """Run the demo, unless it has been run. A failure is printed, and the seed stays missing."""
        folder = self.folder(out, seed)
        if (folder / "summary.json").is_file():
            return
        done = subprocess.run([sys.executable, "-c", RUN, str(folder), self.recipe, str(seed), *self.overrides()])
        if done.returncode:
            print(f"{self.name}, seed {seed}, ended with exit code {done.returncode}", flush=True)

    def results(self, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
        """The content of the JSON file: the summaries of the runs, and what is missing."""
        files = {seed: self.folder(out, seed) / "summary.json" for seed in seeds}
        return {
            "way": self.name,
            "runs": [json.loads(file.read_text()) for file in files.values() if file.is_file()],
            "missing": [{"way": self.name, "seed": seed} for seed, file in files.items() if not file.is_file()],
        }


def _point(point: Mapping[str, Any]) -> str:
    return f"{point['accuracy']:.2f} [{point['low']:.2f}, {point['high']:.2f}]"


def reached(run: Mapping[str, Any]) -> bool:
    """Whether the intervals of all tasks end above `FACTOR` x chance."""
    return all(task["after"]["low"] > FACTOR * task["chance"] for task in run["tasks"].values())


def risen(run: Mapping[str, Any]) -> bool:
    """Whether the interval of the change of accuracy lies above 0 for all tasks."""
    return all(
        (task["change"] or {}).get("low") is not None and task["change"]["low"] > 0 for task in run["tasks"].values()
    )


def report(made: Mapping[str, Any]) -> str:
    """The results in Markdown."""
    runs = made["runs"]
    if not runs:
        return missing_text(made)
    tasks = list(runs[0]["tasks"])
    rows = [
        [
            str(run["seed"]),
            *(f"{_point(run['tasks'][task]['before'])} to {_point(run['tasks'][task]['after'])}" for task in tasks),
            f"{run['largest_k3_kl']:.0e}",
            " + ".join(f"{run['parts'].get(part, 0):.0f}" for part in PARTS),
            f"{run['seconds'] // 60}:{run['seconds'] % 60:02}",
        ]
        for run in runs
    ]
    chances = [f"`{task}` (chance {runs[0]['tasks'][task]['chance']:.2f})" for task in tasks]
    head = ["Seed", *chances, "Largest `k3_kl`", "Seconds", "In all"]
    return (
        f"{table(head, rows)}\n\n{missing_text(made)} Of {len(runs)}, {sum(map(reached, runs))} end with the intervals of "
        f"all tasks above {FACTOR} x chance, and in {sum(map(risen, runs))} all tasks have risen (95 % interval of the "
        "change above 0). Seconds are those of model and warm-up, start, training, validations, end, and report."
    )


def draw(made: Mapping[str, Any], file: Path) -> None:
    """Held-out accuracy over the steps: one line for each task and seed, and chance."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    count = len(made["runs"])
    for colour, task in zip(COLOURS, made["runs"][0]["tasks"], strict=False):
        for number, run in enumerate(made["runs"]):
            curve = run["tasks"][task]["validation"]
            label = f"{task}, {count} seed{'s' * (count > 1)}" if number == 0 else None
            axes.plot(curve["steps"], curve["accuracy"], "o-", color=colour, markersize=3, alpha=0.75, label=label)
        axes.axhline(made["runs"][0]["tasks"][task]["chance"], color=colour, linestyle=":", label="its chance")
    axes.set(xlabel="step", ylabel="held-out accuracy", ylim=(0, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="0-4", type=seeds_of)
    parser.add_argument("--recipe", default="cpu_demo")
    parser.add_argument("--photos", type=Path, help="folder of photographs, as for ssl4rl demo")
    parser.add_argument("--control", action="store_true", help="pay random rewards")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time; each takes about 6 GB")
    parser.add_argument("--summary", action="store_true", help="train nothing, read what OUT holds")
    parser.add_argument("--docs", action="store_true", help="write table and picture of docs/cpu.md")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    way = Way(given.recipe, given.control, given.photos)
    if not given.summary:
        with ThreadPoolExecutor(given.at_once) as pool:
            list(pool.map(functools.partial(way.train, given.out), given.seeds))
    made = way.results(given.out, given.seeds)
    text = report(made)
    print(text)
    (given.out / f"{way.name}.json").write_text(json.dumps(made) + "\n")
    if made["runs"]:
        draw(made, given.out / f"{way.name}.png")
    if given.docs and made["runs"]:
        draw(made, ASSETS / f"{way.name}_curves.png")
        page = ROOT / "docs" / "cpu.md"
        page.write_text(replace_between(page.read_text(), {way.name: text}))


if __name__ == "__main__":
    main()
