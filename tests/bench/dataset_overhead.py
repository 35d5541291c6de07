"""What this package's online dataset costs a training step, against verl's own dataset on the same samples as parquet.

Run `python tests/bench/dataset_overhead.py OUT [--steps 12] [--rows 200]` on a quiet machine without a GPU (about fifteen
minutes). First it times single rows, with pictures of the GPU recipes' size. Then it trains the tiny model with both
datasets. Prints medians, and writes them to OUT/dataset_overhead.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "gpu"))

import gpu_check
from gpu_verdicts import ONLINE, PLAIN, ratio

from ssl4rl_plugin.demo import run as demo

LOADED = 128
"""Prompts of a step in ssl4rl/hardware=gpu_1x80gb."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=200)
    given = parser.parse_args()
    record = gpu_check.check(given.out, "cpu", steps=given.steps)
    (case,) = record["cases"]
    runs = case["runs"]
    steps = ratio(runs[ONLINE]["step_s"], runs[PLAIN]["step_s"])
    assert steps is not None, "a run did not finish: see the logs in OUT/tiny"
    found = {
        "rows": row_times(given.out.resolve(), given.rows),
        "steps": {
            **vars(steps),
            "number": given.steps,
            "same samples": runs[ONLINE]["samples"] == runs[PLAIN]["samples"],
        },
    }
    (given.out / "dataset_overhead.json").write_text(json.dumps(found, indent=1))
    print(f"milliseconds a row, medians of {given.rows} rows of the recipe's four tasks, one process")
    for name, times in found["rows"].items():
        print(f"  {name:16}" + "".join(f"{what} {1000 * seconds:8.1f}   " for what, seconds in times.items()))
    rows = found["rows"]
    extra = LOADED * (rows["online"]["row"] - rows["plain parquet"]["row"])
    print(f"  {LOADED} rows, one loader process: {extra:+.1f} s; with four: {extra / 4:+.1f} s, beside the step before")
    print(
        f"seconds a step, medians of {given.steps - 1} steps of the tiny model: online {steps.one:.2f}, plain parquet "
        f"{steps.other:.2f}, ratio {steps.ratio:.3f} (95 % interval {steps.low:.3f} to {steps.high:.3f})"
    )


def row_times(out: Path, count: int) -> dict[str, dict[str, float]]:
    """Median seconds of a row, and of what the agent loop does with its pictures for each rollout."""
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from ssl4rl_plugin.training.verl.dataset import SSLDataset

    path = str(out / "model")
    model = gpu_check.Model("rows", path, gpu_check.REAL_TASKS, {}, ("data.max_prompt_length=4096",))
    built = gpu_check.build(model, out / "rows")
    online = gpu_check.overrides(model, "cpu", None, 2, flash=False)
    tokenizer, processor = hf_tokenizer(path), hf_processor(path)
    times = {}
    for name, extra in ((ONLINE, []), (PLAIN, gpu_check.plain_parquet(built))):
        config = demo.compose(gpu_check.RECIPE, [*online, *extra]).data
        kind = SSLDataset if name == ONLINE else RLHFDataset
        times[name] = medians(kind, kind(config.train_files, tokenizer, config, processor), config, count)
    return times


def medians(kind: Any, dataset: Any, config: Any, count: int) -> dict[str, float]:
    """Median seconds of `dataset[i]`, and of its pictures as the agent loop reads them."""
    rows, pictures = [], []
    for index in range(count):
        began = time.perf_counter()
        row = dataset[index]
        read = time.perf_counter()
        asyncio.run(kind.process_multi_modal_info(row["raw_prompt"], image_patch_size=14, config=config))
        rows.append(read - began)
        pictures.append(time.perf_counter() - read)
    return {"row": statistics.median(rows), "pictures": statistics.median(pictures)}


if __name__ == "__main__":
    main()
