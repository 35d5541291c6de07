"""What this package's online dataset costs a training step, against verl's own dataset on the same samples as parquet.

Run `python tests/bench/dataset_overhead.py OUT` on a quiet machine without a GPU (about fifteen minutes). Three measures, as
medians, printed and written to OUT/dataset_overhead.json:

- a row, with pictures of the GPU recipes' size: the work of a loader process;
- a batch that the loader has made beforehand: what the trainer waits for if its steps are longer than the loader's work;
- a step of the tiny model, trained with both datasets. Its steps are short, and loader and trainer share the cores.
  With `--steps 0` nothing is trained.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "gpu"))

import gpu_check
from gpu_verdicts import ONLINE, PLAIN, ratio

from ssl4rl_plugin.demo import run as demo

BATCH = 128
"""Prompts of a step in ssl4rl/hardware=gpu_1x80gb."""
FETCHES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=BATCH)
    given = parser.parse_args()
    out = given.out.resolve()
    if given.steps:
        gpu_check.models(out, "cpu", None)  # makes the tiny model
    else:
        random_model(out / "model")
    found: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "workers": given.workers,
    }
    found["rows"] = row_times(out, given.rows, given.workers, given.batch)
    print(f"{found['cores']} cores, load {found['load']:.1f} at the start; milliseconds, medians")
    for name, times in found["rows"].items():
        print(f"  {name:16}" + "".join(f"{what} {1000 * seconds:9.1f}   " for what, seconds in times.items()))
    (out / "dataset_overhead.json").write_text(json.dumps(found, indent=1))
    if not given.steps:
        return

    extra = (f"data.dataloader_num_workers={given.workers}",)
    (case,) = gpu_check.check(out, "cpu", steps=given.steps, extra=extra)["cases"]
    runs = case["runs"]
    steps = ratio(runs[ONLINE]["step_s"], runs[PLAIN]["step_s"])
    assert steps is not None, "a run did not finish: see the logs in OUT/tiny"
    same = runs[ONLINE]["samples"] == runs[PLAIN]["samples"]
    found["steps"] = {**vars(steps), "number": given.steps, "same samples": same}
    (out / "dataset_overhead.json").write_text(json.dumps(found, indent=1))
    print(
        f"seconds a step, medians of {given.steps - 1} steps of the tiny model: online {steps.one:.2f}, plain parquet "
        f"{steps.other:.2f}, ratio {steps.ratio:.3f} (95 % interval {steps.low:.3f} to {steps.high:.3f})"
    )


def random_model(folder: Path) -> None:
    """The tiny model as it is before its warm-up: enough for what reads rows, which needs tokenizer and processor."""
    from ssl4rl_plugin.demo.model import build_model, save, train_tokenizer

    tokenizer = train_tokenizer(["user assistant system picture answer"])
    save(build_model(tokenizer, 0), tokenizer, folder)


def row_times(out: Path, count: int, workers: int, batch: int) -> dict[str, dict[str, float]]:
    """Median seconds by dataset: of a row, of its pictures for each rollout, and of a batch made beforehand."""
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
        dataset = kind(config.train_files, tokenizer, config, processor)
        times[name] = medians(kind, dataset, config, count)
        times[name]["batch made beforehand"] = fetch_time(dataset, workers, batch, times[name]["row"])
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
    return {"row": statistics.median(rows), "pictures for a rollout": statistics.median(pictures)}


def fetch_time(dataset: Any, workers: int, batch: int, row: float) -> float:
    """Median seconds that the trainer waits for a batch of `batch` rows which the loader has made beforehand."""
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.utils.dataset.rl_dataset import collate_fn

    batches = iter(StatefulDataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=collate_fn))
    next(batches)
    waits = []
    for _ in range(FETCHES):
        time.sleep(2 + 3 * batch * row)  # each worker makes one batch at a time
        began = time.perf_counter()
        next(batches)
        waits.append(time.perf_counter() - began)
    return statistics.median(waits)


if __name__ == "__main__":
    main()
