"""From what the runs of one model showed to the verdict of each check. Pure functions on JSON values.

passed    as it should be
failed    a defect of this package, of verl or of the installation
unclear   too few steps to tell
not run   this machine or these runs do not have what the check needs
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

CHECKS = ("finished", "metrics", "k3_kl", "weights", "same samples", "throughput", "sampler", "memory", "flash-attn")
"""All checks, in the order of the page."""
K3 = "rollout_corr/k3_kl"
"""Distance between the log-probabilities that rollout and actor give to the sampled tokens."""
K3_BOUND = {"tiny": 1e-3, "real": 5e-3}
"""Largest allowed `K3` of a step by model.

tiny: measured on a CPU with rollout and update in bfloat16, at this learning rate: at most 1.1e-5 in four steps, and
9e-3, 3e-2, 6e-2 at steps 2 to 4 if the rollout keeps its first weights. real: assumed, since deeper models in bfloat16
differ more.
At the recipe's learning rate four steps change a real model too little to show weights that do not arrive; the bound finds
wrong weights, templates or pictures.
"""
METRICS = (
    K3, "critic/score/mean", "actor/pg_loss", "actor/grad_norm", "response_length/mean", "perf/throughput",
    "timing_s/step", "actor/perf/max_memory_allocated_gb",
)  # fmt: skip
"""Metrics of verl's that every step must have, as finite numbers."""
RATIO_BOUND = 1.01
"""Largest allowed ratio of step times, online dataset to verl's own."""
ENOUGH_STEPS = 6
"""Steps after the first from which `throughput` can fail; fewer can exceed the bound by chance."""
SAMPLER_BOUND = 0.01
"""Largest allowed share of a step that the sampler of this package takes."""
MEMORY_SLACK = 1 / 0.9
"""A run may take this much more than the estimate: `ssl4rl doctor` warns above nine tenths of a GPU."""
ONLINE, PLAIN, WITHOUT_FLASH = "online", "plain parquet", "without flash-attn"
"""The ways to train: this package's dataset, verl's own on the same samples, and the first without flash-attn."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check."""

    name: str
    """One of `CHECKS`."""
    status: str
    """passed, failed, unclear or not run."""
    detail: str
    """What was found, with the bound that it was held against."""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def verdicts(case: dict[str, Any]) -> list[Verdict]:
    """All verdicts about one model, from `gpu_check.check_model`'s record of its runs."""
    runs: dict[str, dict[str, Any]] = case["runs"]
    online = runs[ONLINE]
    found = [finished(runs)]
    if online["finished"]:
        found += [
            metrics(online, case["steps"]),
            k3_kl(online, case["name"], case["dtype"]),
            weights(online, case["lora"]),
        ]
        found += [same_samples(runs), throughput(runs), sampler(online), memory(online), flash_attn(runs)]
    by_name = {verdict.name: verdict for verdict in found}
    return [by_name.get(name, Verdict(name, "not run", "the run did not finish")) for name in CHECKS]


def finished(runs: dict[str, dict[str, Any]]) -> Verdict:
    """Every run reached its last step."""
    lost = [f"{way}: {run['error'].strip().splitlines()[0]}" for way, run in runs.items() if not run["finished"]]
    if lost:
        return Verdict("finished", "failed", "; ".join(lost))
    return Verdict("finished", "passed", ", ".join(f"{way} in {run['seconds']:.0f} s" for way, run in runs.items()))


def metrics(run: dict[str, Any], steps: int) -> Verdict:
    """Every step logged every metric in `METRICS`, and each validation its accuracies."""
    short = [name for name in METRICS if len(run["metrics"].get(name, [])) != steps]
    if short:
        return Verdict("metrics", "failed", f"not in each of {steps} steps as a finite number: {', '.join(short)}")
    if not run["validated"]:
        return Verdict("metrics", "failed", "no accuracy of a validation (val-core/ssl4rl/...) was logged")
    return Verdict(
        "metrics", "passed", f"{len(METRICS)} of training in each of {steps} steps, {run['validated']} accuracies"
    )


def k3_kl(run: dict[str, Any], model: str, dtype: str) -> Verdict:
    """Rollout and actor agree about what was sampled, at every step."""
    values, bound = run["metrics"].get(K3, []), K3_BOUND[model]
    if not values:
        return Verdict("k3_kl", "failed", f"{K3} was not logged")
    worst = max(values, key=abs)
    detail = f"at most {worst:.1e} in a step, with a rollout in {dtype}; the bound is {bound:.0e}"
    return Verdict("k3_kl", "passed" if abs(worst) <= bound else "failed", detail)


def weights(run: dict[str, Any], lora: bool) -> Verdict:
    """Training changed tensors of the vision tower and of the text model; with LoRA, the adapters, none of them visual."""
    found = run["weights"]
    if found is None:
        return Verdict("weights", "failed", "the last checkpoint has no weights that can be compared")
    parts = {name: part for name, part in found.items() if part["tensors"]}
    detail = ", ".join(f"{name} {part['changed']} of {part['tensors']} tensors changed" for name, part in parts.items())
    if lora:
        good = found["text"]["changed"] > 0 and not found["visual"]["tensors"]
        return Verdict("weights", "passed" if good else "failed", f"LoRA: {detail}")
    good = all(found[name]["changed"] > 0 for name in ("visual", "text"))
    return Verdict("weights", "passed" if good else "failed", detail)


def same_samples(runs: dict[str, dict[str, Any]]) -> Verdict:
    """Each step of the two datasets trained on the same samples, without which their times say nothing."""
    name = "same samples"
    if PLAIN not in runs or not runs[PLAIN]["finished"]:
        return Verdict(name, "not run", "no finished run on verl's own dataset")
    one, other = runs[ONLINE]["samples"], runs[PLAIN]["samples"]
    if not one or one != other:
        return Verdict(name, "failed", "the plugin's dataset and verl's own gave the steps different samples")
    return Verdict(name, "passed", f"{sum(map(len, one))} samples in {len(one)} steps")


def throughput(runs: dict[str, dict[str, Any]]) -> Verdict:
    """The median step with the online dataset takes at most `RATIO_BOUND` of one with verl's own."""
    if PLAIN not in runs or not runs[PLAIN]["finished"]:
        return Verdict("throughput", "not run", "no finished run on verl's own dataset")
    found = ratio(runs[ONLINE]["step_s"], runs[PLAIN]["step_s"])
    if found is None:
        return Verdict("throughput", "unclear", "fewer than two steps after the first: raise STEPS")
    detail = (
        f"{found.ratio:.3f} of the step time with verl's own dataset (medians {found.one:.2f} and {found.other:.2f} s), "
        f"95 % interval {found.low:.3f} to {found.high:.3f}; the bound is {RATIO_BOUND}"
    )
    if found.ratio <= RATIO_BOUND:
        return Verdict("throughput", "passed", detail)
    if found.low > RATIO_BOUND and min(len(run["step_s"]) for run in runs.values() if run["step_s"]) > ENOUGH_STEPS:
        return Verdict("throughput", "failed", detail)
    return Verdict("throughput", "unclear", f"{detail}: raise STEPS")


@dataclass(frozen=True)
class Ratio:
    """Two medians in seconds, and their ratio with its interval."""

    one: float
    other: float
    ratio: float
    low: float
    high: float


def ratio(one: Sequence[float], other: Sequence[float], draws: int = 2000) -> Ratio | None:
    """The ratio of two medians without the first step of each, with a 95 % bootstrap interval.

    None if either has fewer than two steps after the first. With three or four steps the interval is too narrow.
    """
    kept, against = list(one[1:]), list(other[1:])
    if min(len(kept), len(against)) < 2:
        return None
    rng = random.Random(0)

    def drawn(values: list[float]) -> float:
        return statistics.median(rng.choices(values, k=len(values)))

    ratios = sorted(drawn(kept) / drawn(against) for _ in range(draws))
    middle, base = statistics.median(kept), statistics.median(against)
    return Ratio(middle, base, middle / base, ratios[round(0.025 * draws)], ratios[round(0.975 * draws) - 1])


def sampler(run: dict[str, Any]) -> Verdict:
    """What the sampler of this package adds to a step; both ways of `throughput` use it."""
    costs = run["metrics"].get("curriculum/cost_s", [])
    if not costs or len(costs) != len(run["step_s"]):
        return Verdict("sampler", "failed", "curriculum/cost_s was not logged in every step")
    share = statistics.median(cost / step for cost, step in zip(costs, run["step_s"], strict=True))
    detail = f"{1000 * statistics.median(costs):.1f} ms, {share:.2%} of a step; the bound is {SAMPLER_BOUND:.0%}"
    return Verdict("sampler", "passed" if share <= SAMPLER_BOUND else "failed", detail)


def memory(run: dict[str, Any]) -> Verdict:
    """The peak of the trainer and of the whole card, against the estimate of `ssl4rl doctor --recipe`."""
    held = comparisons(run)
    if not held:
        return Verdict("memory", "not run", "no GPU")
    detail = "; ".join(f"{what}: {measured:.1f} GiB, estimated {estimated:.1f}" for what, measured, estimated in held)
    good = all(measured <= MEMORY_SLACK * estimated for _, measured, estimated in held)
    return Verdict("memory", "passed" if good else "failed", detail)


def comparisons(run: dict[str, Any]) -> list[tuple[str, float, float]]:
    """What was measured, the measured and the estimated GiB; empty without a GPU or an estimate."""
    measured, estimate = run["memory"], run["estimate"]
    if measured["card_peak"] is None or estimate is None:
        return []
    allocated = max(run["metrics"].get("actor/perf/max_memory_allocated_gb", []), default=math.nan)
    return [
        ("trainer (PyTorch)", allocated, estimate["trainer"]),
        ("whole card", measured["card_peak"] - measured["card_idle"], estimate["peak"]),
    ]


def host(run: dict[str, Any]) -> tuple[float, float] | None:
    """Main memory that the run added at its peak, and the doctor's estimate, in GiB. Not judged: the estimate counts only
    pictures and offloaded tensors, and other programs run beside."""
    used = run["metrics"].get("actor/perf/cpu_memory_used_gb", [])
    if not used or run["estimate"] is None or run["memory"]["host_idle"] is None:
        return None
    return max(used) - run["memory"]["host_idle"], run["estimate"]["host"]


def flash_attn(runs: dict[str, dict[str, Any]]) -> Verdict:
    """Step times with and without flash-attn. Informs only: either may be faster on short sequences."""
    if WITHOUT_FLASH not in runs:
        return Verdict("flash-attn", "not run", "flash-attn is not installed, so all runs use sdpa")
    if not runs[WITHOUT_FLASH]["finished"]:
        return Verdict("flash-attn", "failed", "the run without flash-attn did not finish")
    found = ratio(runs[ONLINE]["step_s"], runs[WITHOUT_FLASH]["step_s"])
    if found is None:
        return Verdict("flash-attn", "unclear", "fewer than two steps after the first: raise STEPS")
    detail = f"medians {found.one:.2f} s with it and {found.other:.2f} s without"
    return Verdict("flash-attn", "passed", detail)
