"""The charts of a report: which of verl's metrics are drawn, for one run or for several."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ssl4rl_plugin.analysis.report.plots import AccuracyCurve, Curve, Drawing, accuracy, lines, stacked
from ssl4rl_plugin.analysis.runlog import BenchmarkKey, KindT, RunLog

PER_FIGURE = 6
"""Maximum number of a benchmark's categories in one chart."""

# The parts of timing_s/step, in the order in which they happen.
_PARTS = {
    "gen": "generation",
    "reward": "reward",
    "old_log_prob": "old log-probs",
    "ref": "reference log-probs",
    "values": "values",
    "adv": "advantages",
    "update_critic": "critic update",
    "update_actor": "actor update",
    "update_weights": "weight sync",
    "save_checkpoint": "checkpoint",
}


@dataclass(frozen=True)
class ChartPlan:
    """A chart of verl's metrics."""

    title: str
    note: str
    metrics: Mapping[str, str]
    """Name of the curve -> metric."""
    percent: bool = False


TRAINING = (
    ChartPlan("Training reward", "Mean over the rollouts of a step.", {"reward": "critic/score/mean"}),
    ChartPlan(
        "Response length",
        "Tokens of a response.",
        {"mean": "response_length/mean", "longest": "response_length/max", "shortest": "response_length/min"},
    ),
    ChartPlan(
        "Cut off", "Share of responses that reached the length limit.", {"share": "response_length/clip_ratio"}, True
    ),
    ChartPlan("Entropy", "Of the next token, mean over the responses.", {"entropy": "actor/entropy"}),
    ChartPlan(
        "Rollout against trainer",
        "Distance between the engine that generates and the model that trains; near 0 while their weights are in sync.",
        {
            "KL": "rollout_corr/kl",
            "k3 KL": "rollout_corr/k3_kl",
            "k3 KL, in the update": "actor/rollout_corr/k3_kl",  # with rollout_correction.bypass_mode
            "probability gap": "training/rollout_probs_diff_mean",
        },
    ),
    ChartPlan(
        "Distance from the start",
        "KL divergence from the reference model, as used in the actor's loss or the reward's penalty.",
        {"KL loss": "actor/kl_loss", "KL penalty": "actor/reward_kl_penalty"},
    ),
    ChartPlan("Size of an update", "KL divergence between the policy before and after.", {"PPO KL": "actor/ppo_kl"}),
    ChartPlan("Gradient norm", "Before clipping.", {"norm": "actor/grad_norm"}),
)
FORM = (
    ("format", "Exact form", "Share of validation responses in exactly the requested form."),
    ("valid", "Possible answers", "Share of validation responses with a possible answer."),
    ("degenerate", "Loops", "Share of validation responses that repeat themselves."),
)


def of_tasks(logs: Mapping[str, RunLog]) -> list[Drawing]:
    """Held-out accuracy: a chart for each task with its levels; for several runs, one for each level."""
    if len(logs) > 1:
        return _compared("Held-out accuracy", {name: log.arms for name, log in logs.items()})
    (arms,) = (log.arms for log in logs.values())
    drawings: list[Drawing] = []
    for task in dict.fromkeys(arm.task for arm in arms):
        rated = [
            AccuracyCurve(arm.level or task, points, arm.chance) for arm, points in arms.items() if arm.task == task
        ]
        drawings += accuracy(f"Held-out accuracy: {task}", rated)
    return drawings


def of_benchmarks(logs: Mapping[str, RunLog]) -> tuple[list[Drawing], list[Drawing]]:
    """Accuracy on benchmarks, and on their categories. For several runs, each category has a chart of its own."""
    found = {name: log.benchmarks for name, log in logs.items()}
    if len(logs) > 1:
        whole = {name: {kind: of for kind, of in kinds.items() if not kind.name} for name, kinds in found.items()}
        parts = {name: {kind: of for kind, of in kinds.items() if kind.name} for name, kinds in found.items()}
        return _compared("Benchmark", whole), _compared("Benchmark", parts)
    (kinds,) = found.values()
    drawings: tuple[list[Drawing], list[Drawing]] = ([], [])
    for benchmark, place in dict.fromkeys((kind.benchmark, kind.place) for kind in kinds):
        rated = [
            AccuracyCurve(_in_benchmark(kind), points, None)
            for kind, points in kinds.items()
            if (kind.benchmark, kind.place) == (benchmark, place)
        ]
        title = f"Benchmark: {benchmark}" + ("", ", l2-categories", ", categories")[place]
        drawings[place > 0].extend(accuracy(title, rated, PER_FIGURE))
    return drawings


def _in_benchmark(kind: BenchmarkKey) -> str:
    return (kind.name or "all questions") + (", circular" if kind.circular else "")


def _compared(title: str, kinds_of: Mapping[str, Mapping[KindT, Sequence[object]]]) -> list[Drawing]:
    """A chart for each kind of question, with a curve for each run that has it."""
    drawings: list[Drawing] = []
    for kind in sorted({kind for kinds in kinds_of.values() for kind in kinds}):
        rated = [
            AccuracyCurve(name, kinds.get(kind, ()), getattr(kind, "chance", None))  # type: ignore[arg-type]
            for name, kinds in kinds_of.items()
        ]
        drawings += accuracy(f"{title}: {kind.label}", rated, len(rated))
    return drawings


def of_training(logs: Mapping[str, RunLog]) -> list[Drawing]:
    """verl's training metrics, and the time of the parts of a step."""
    drawings: list[Drawing] = []
    for plan in TRAINING:
        curves = {
            shown: {name: log.curve(metric, gaps=True) for name, log in logs.items()}
            for shown, metric in plan.metrics.items()
        }
        drawings += _one_or_each(plan.title, plan.note, curves, plan.percent)
    if len(logs) == 1:
        return drawings + _times(*logs.values())
    curves = {"": {name: log.curve("timing_s/step", gaps=True) for name, log in logs.items()}}
    return drawings + _one_or_each("Seconds a step", "Validation is not part of a step.", curves)


def of_form(logs: Mapping[str, RunLog]) -> list[Drawing]:
    """The form of the answers in validations, by task."""
    drawings: list[Drawing] = []
    for figure, title, note in FORM:
        by_run = {name: log.task_figure(figure) for name, log in logs.items()}
        drawings += _one_or_each(title, note, _turned(by_run), percent=True)
    consistent = {name: _consistency(log) for name, log in logs.items()}
    note = "Share of validation responses whose answer is the last possible answer named in the reasoning, if one is named."
    return drawings + _one_or_each("Reasoning and answer agree", note, _turned(consistent), percent=True)


def _turned(by_run: Mapping[str, Mapping[str, Curve]]) -> dict[str, dict[str, Curve]]:
    """Run -> task -> curve as task -> run -> curve."""
    tasks = dict.fromkeys(task for tasks in by_run.values() for task in tasks)
    return {task: {name: tasks.get(task, ((), ())) for name, tasks in by_run.items()} for task in tasks}


def _one_or_each(
    title: str, note: str, curves: Mapping[str, Mapping[str, Curve]], percent: bool = False
) -> list[Drawing]:
    """For one run, a chart with all curves; for several runs, a chart for each curve.

    Args:
        curves: name of the curve -> run -> curve.
    """
    if all(len(by_run) == 1 for by_run in curves.values()):
        return lines(
            title, note, {shown: curve for shown, by_run in curves.items() for curve in by_run.values()}, percent
        )
    drawings: list[Drawing] = []
    for shown, by_run in curves.items():
        drawings += lines(f"{title}: {shown}" if shown and len(curves) > 1 else title, note, by_run, percent)
    return drawings


def _consistency(log: RunLog) -> dict[str, Curve]:
    """Task -> steps and share of responses whose reasoning agrees with the answer, among those that can be compared."""
    agree, differ = log.task_figure("consistent"), log.task_figure("inconsistent")
    curves: dict[str, Curve] = {}
    for task in agree.keys() & differ.keys():
        other = dict(zip(*differ[task], strict=True))
        points = [
            (step, value / (value + other[step]))
            for step, value in zip(*agree[task], strict=True)
            if step in other and value + other[step] > 0
        ]
        curves[task] = [step for step, _ in points], [share for _, share in points]
    return dict(sorted(curves.items()))


def _times(log: RunLog) -> list[Drawing]:
    steps, parts = step_times(log)
    if not steps:
        return []
    medians = {name: statistics.median(values) for name, values in parts.items()}
    largest = sorted(medians, key=lambda name: -medians[name])[:3]
    total = statistics.median(log.curve("timing_s/step")[1])
    note = "Median step: " + ", ".join(f"{name} {medians[name]:.1f} s" for name in largest) + f", of {total:.1f} s."
    return stacked("Where the time goes", note, steps, parts)


def step_times(log: RunLog) -> tuple[list[int], dict[str, list[float]]]:
    """Steps, and the seconds of their parts, in the order of execution.

    The six largest parts are named; `other` is the rest of the step. Validation is not part of a step.
    """
    rows = {step: data for step, data in log.metrics.items() if "timing_s/step" in data}
    parts = {
        shown: [data.get(f"timing_s/{name}", 0.0) for data in rows.values()]
        for name, shown in _PARTS.items()
        if any(f"timing_s/{name}" in data for data in rows.values())
    }
    kept = sorted(parts, key=lambda name: -sum(parts[name]))[:6]
    split = {name: values for name, values in parts.items() if name in kept}
    rest = [
        max(0.0, data["timing_s/step"] - sum(values[i] for values in split.values()))
        for i, data in enumerate(rows.values())
    ]
    return list(rows), split | ({"other": rest} if rows else {})


def drawn_metrics() -> Iterable[str]:
    """The metrics that `of_training` draws."""
    return [metric for plan in TRAINING for metric in plan.metrics.values()] + ["timing_s/step"]
