"""What the demo's models learn, for several seeds: the table and the picture of README and docs/cpu.md.

    python tests/bench/demo_seeds.py runs/seeds [--seeds 0-4] [--recipe cpu_demo] [--photos FOLDER]    (make demo-seeds)

Each seed is a run of `ssl4rl demo` in OUT/<recipe>-<seed>. Finished runs are not repeated, and stopped ones go on. At the
end there are OUT/<recipe>.json with the results and OUT/<recipe>.png with the curves. `--docs` also writes them to docs/.
Runs at the same time (`--at-once`) slow each other down, so the durations are then those of a busy machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainings import ASSETS, ROOT, missing_text, replace_between, seeds_of, table

COLOURS = ("#3b62d6", "#c2571a", "#2f855a", "#8a3ffc")
"""Of the tasks in the picture."""
FACTOR = 1.5
"""The goal: the interval of each task's accuracy lies above this many times chance."""
PARTS = ("model", "start", "training", "validation", "end", "report")


def train(recipe: str, seed: int, out: Path, photos: Path | None) -> None:
    """Run the demo, unless it has been run. A failure is printed, and the seed stays missing."""
    folder = out / f"{recipe}-{seed}"
    if (folder / "summary.json").is_file():
        return
    command = ["ssl4rl", "demo", "--recipe", recipe, "--seed", str(seed), "--out", str(folder)]
    command[0] = str(Path(sys.executable).with_name("ssl4rl"))
    if photos:
        command += ["--photos", str(photos)]
    if code := subprocess.run(command).returncode:
        print(f"{recipe}, seed {seed}, ended with exit code {code}", flush=True)


def results(recipe: str, seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """The content of the JSON file: the summaries of the runs, and what is missing."""
    files = {seed: out / f"{recipe}-{seed}" / "summary.json" for seed in seeds}
    return {
        "recipe": recipe,
        "runs": [json.loads(file.read_text()) for file in files.values() if file.is_file()],
        "missing": [{"way": recipe, "seed": seed} for seed, file in files.items() if not file.is_file()],
    }


def _point(point: Mapping[str, Any]) -> str:
    return f"{point['accuracy']:.2f} [{point['low']:.2f}, {point['high']:.2f}]"


def reached(run: Mapping[str, Any]) -> bool:
    """Whether the intervals of all tasks end above `FACTOR` x chance."""
    return all(task["after"]["low"] > FACTOR * task["chance"] for task in run["tasks"].values())


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
    good = sum(map(reached, runs))
    return (
        f"{table(head, rows)}\n\n{missing_text(made)} Of {len(runs)}, {good} end with the intervals of all tasks above "
        f"{FACTOR} x chance. Seconds are those of model and warm-up, start, training, validations, end, and report."
    )


def draw(made: Mapping[str, Any], file: Path) -> None:
    """Held-out accuracy over the steps: one line for each task and seed, and chance."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for colour, task in zip(COLOURS, made["runs"][0]["tasks"], strict=False):
        for number, run in enumerate(made["runs"]):
            curve = run["tasks"][task]["validation"]
            label = f"{task}, {len(made['runs'])} seeds" if number == 0 else None
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
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time; each takes about 6 GB")
    parser.add_argument("--summary", action="store_true", help="train nothing, read what OUT holds")
    parser.add_argument("--docs", action="store_true", help="write table and picture of docs/cpu.md")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.summary:
        with ThreadPoolExecutor(given.at_once) as pool:
            list(pool.map(lambda seed: train(given.recipe, seed, given.out, given.photos), given.seeds))
    made = results(given.recipe, given.seeds, given.out)
    text = report(made)
    print(text)
    (given.out / f"{given.recipe}.json").write_text(json.dumps(made) + "\n")
    if made["runs"]:
        draw(made, given.out / f"{given.recipe}.png")
    if given.docs and made["runs"]:
        draw(made, ASSETS / f"{given.recipe}_curves.png")
        page = ROOT / "docs" / "cpu.md"
        page.write_text(replace_between(page.read_text(), {given.recipe: text}))


if __name__ == "__main__":
    main()
