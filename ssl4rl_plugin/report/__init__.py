"""`ssl4rl report RUN`: one HTML page that shows whether a run has learnt, and how it went.

What the page says is only what the run recorded; where something was not recorded, it says that instead.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl4rl_plugin import __version__
from ssl4rl_plugin.report.page import Picture, percent, pictures, prompt_parts, readable, render, write
from ssl4rl_plugin.runlog import HOW_TO_RECORD, Accuracy, Response, RunError, RunLog
from ssl4rl_plugin.samples import Made, SampleError

CARDS = 4
"""Questions shown in each section."""
GROUP_ROLLOUTS = 8
"""Rollouts of the training group that are shown."""

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
_SHOWN_SETTINGS = {
    "Model": "actor_rollout_ref.model.path",
    "Advantage": "algorithm.adv_estimator",
    "Learning rate": "actor_rollout_ref.actor.optim.lr",
    "Prompts per step": "data.train_batch_size",
    "Rollouts per prompt": "actor_rollout_ref.rollout.n",
    "Mini-batch": "actor_rollout_ref.actor.ppo_mini_batch_size",
    "Response length": "data.max_response_length",
    "Images": "ssl4rl.source.name",
    "Images from": "ssl4rl.source.path",
    "Answer format": "ssl4rl.answer_format",
    "Format weight": "ssl4rl.format_weight",
    "Partial credit": "ssl4rl.partial_credit",
    "Seed": "ssl4rl.seed",
}
_SECRET = re.compile(
    r"(?im)^(\s*[\w.-]*(?:api_?key|secret|passw(?:or)?d|token)\s*:\s*)(?!\d+$|null$|true$|false$)\S{8,}.*$"
)


@dataclass(frozen=True)
class Reply:
    """A response as it is shown."""

    step: int
    text: str
    score: float
    state: str
    """`right`, `wrong`, `invalid`, or empty if the run did not record it."""
    error: str


@dataclass(frozen=True)
class Card:
    """One question with its pictures and what the model answered."""

    label: str
    sample: str
    prompt: list[str | int]
    pictures: list[Picture]
    no_pictures: str
    """Why there are none; empty if there are."""
    gold: str
    params: str
    replies: list[Reply]


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        run: the run folder (`ssl4rl_plugin.runlog` says what may be in it).
        out: the HTML file; None for `report.html` in the run folder.

    Returns:
        The file written.

    Raises:
        RunError: the folder holds no run.
        OSError: the page cannot be written.
    """
    log = RunLog(run)
    return write(report_html(log), Path(out) if out else log.folder / "report.html")


def report_html(log: RunLog) -> str:
    """The page of a run as text."""
    sections = _sections(log)
    group = _training_group(log)
    return render(
        "report.html.j2",
        name=log.folder.name,
        version=__version__,
        tiles=_tiles(log),
        table=[_line(row) for row in log.headline()],
        figures=_figures(log),
        sections=sections,
        group=group,
        settings=_settings(log),
        tasks=_tasks(log),
        config=_SECRET.sub(r"\1(hidden)", readable(log.config_text, limit=None)),
        notes=_notes(log, [card for _, _, cards in sections for card in cards]),  # last: all files are read by now
    )


def _line(row: Any) -> dict[str, Any]:
    """One line of the result table, with the places of its marks on a scale from 0 to 100."""

    def cell(point: Accuracy | None) -> dict[str, Any] | None:
        if point is None:
            return None
        rate = point.rate
        return {
            "step": point.step,
            "mean": percent(rate.mean),
            "interval": f"{100 * rate.low:.1f} to {100 * rate.high:.1f}" if rate.n else "",
            "n": rate.n,
            "low": round(100 * rate.low, 2),
            "width": round(100 * (rate.high - rate.low), 2) if rate.n else 0,
            "at": round(100 * rate.mean, 2),
        }

    return {
        "task": row.arm.task,
        "level": row.arm.level,
        "options": "" if row.arm.options == "{}" else row.arm.options,
        "chance": row.chance,
        "before": cell(row.before),
        "after": cell(row.after),
        "verdict": row.verdict,
    }


def _tiles(log: RunLog) -> list[tuple[str, str, str]]:
    """The figures at the top: name, value, small print."""
    tiles: list[tuple[str, str, str]] = []
    rows = [row for row in log.headline() if row.before and row.after]
    if rows:
        before = statistics.fmean(row.before.rate.mean for row in rows if row.before)
        after = statistics.fmean(row.after.rate.mean for row in rows if row.after)
        small = "before → after" if len(rows) == 1 else f"mean of {len(rows)} kinds of question, before → after"
        tiles.append(("Held-out accuracy", f"{100 * before:.0f} % → {100 * after:.0f} %", small))
    steps, rewards = log.curve("critic/score/mean")
    if steps:
        reach = max(1, len(rewards) // 10)
        first, last = statistics.fmean(rewards[:reach]), statistics.fmean(rewards[-reach:])
        tiles.append(("Training reward", f"{first:.2f} → {last:.2f}", "mean of the first and last tenth of the steps"))
    steps, seconds = log.curve("timing_s/step")
    if steps:
        planned = log.setting("trainer.total_training_steps")
        small = f"of {planned:,} planned" if isinstance(planned, int) else ""
        tiles.append(("Training steps", f"{len(steps):,}", small))
        _, testing = log.curve("timing_s/testing")
        small = f"{statistics.median(seconds):.1f} s a step (median)"
        tiles.append(("Time", _duration(sum(seconds) + sum(testing)), small))
    return tiles


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _figures(log: RunLog) -> list[Any]:
    """All drawings for which the run has data."""
    from ssl4rl_plugin.report import figures  # here: matplotlib takes half a second to import

    def named(**names: str) -> dict[str, Any]:
        return {shown.replace("_", " "): log.curve(name) for shown, name in names.items()}

    drawings = figures.accuracy(log.arms)
    drawings += figures.lines("Training reward", "Mean over the rollouts of a step.", named(reward="critic/score/mean"))
    if log.rates:
        note = "Share of the validation's responses in the exact form asked for, and with a possible answer."
        drawings += figures.lines("Form of the answers", note, log.rates, percent=True)
    drawings += figures.lines(
        "Rollout against trainer",
        "How far the engine that generates is from the model that learns; near 0 while weights are in sync.",
        named(k3_KL="rollout_corr/k3_kl", KL="rollout_corr/kl", probability_gap="training/rollout_probs_diff_mean"),
    )
    drawings += figures.lines(
        "Distance from the start",
        "KL divergence from the reference model, as the actor's loss or the reward's penalty sees it.",
        named(KL_loss="actor/kl_loss", KL_penalty="actor/reward_kl_penalty"),
    )
    drawings += figures.lines(
        "Response length",
        "Tokens of a response.",
        named(mean="response_length/mean", longest="response_length/max", shortest="response_length/min"),
    )
    drawings += figures.lines("Entropy", "Of the next token, mean over the responses.", named(entropy="actor/entropy"))
    drawings += figures.lines("Gradient norm", "Before clipping.", named(norm="actor/grad_norm"))
    steps, parts = step_times(log)
    if steps:
        medians = {name: statistics.median(values) for name, values in parts.items()}
        largest = sorted(medians, key=lambda name: -medians[name])[:3]
        total = statistics.median(log.curve("timing_s/step")[1])
        note = "Median step: " + ", ".join(f"{name} {medians[name]:.1f} s" for name in largest) + f", of {total:.1f} s."
        drawings += figures.stacked("Where the time goes", note, steps, parts)
    return drawings


def step_times(log: RunLog) -> tuple[list[int], dict[str, list[float]]]:
    """Steps, and the seconds that each of their parts took, in the order in which they happen.

    The six largest parts are named; `other` is what is left of the step. Validation is not part of a step.
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


def _sections(log: RunLog) -> list[tuple[str, str, list[Card]]]:
    """Held-out questions with the answers before and after: title, explanation, cards."""
    if not log.validations:
        return []
    steps = list(log.validations)
    last = _by_sample(log.validation(steps[-1]))
    first = _by_sample(log.validation(steps[0])) if len(steps) > 1 else {}
    unseen = dict(last)

    def section(title: str, text: str, wanted: Callable[[str], bool], best: bool = True) -> tuple[str, str, list[Card]]:
        rows = [row for key, row in unseen.items() if row.arm and wanted(key)]
        rows.sort(key=lambda row: 0.0 if math.isnan(row.score) else row.score, reverse=best)
        cards = []
        for row in _varied(rows, CARDS):
            del unseen[row.sample]
            cards.append(_card(log, row, [r for r in (first.get(row.sample), row) if r]))
        return title, text, cards

    def right(rows: dict[str, Response], key: str) -> bool:
        return key in rows and rows[key].figures.get("acc") == 1.0

    found = []
    if first:
        found += [
            section("Learnt", f"Wrong at step {steps[0]}, right at step {steps[-1]}.",
                    lambda key: key in first and not right(first, key) and right(last, key)),
            section("Unlearnt", f"Right at step {steps[0]}, wrong at step {steps[-1]}.",
                    lambda key: right(first, key) and not right(last, key), best=False),
        ]  # fmt: skip
    found += [
        section("Best", f"Right at step {steps[-1]}, highest reward first.", lambda key: right(last, key)),
        section("Worst", f"Wrong at step {steps[-1]}, lowest reward first.", lambda key: not right(last, key), False),
    ]
    return [entry for entry in found if entry[2]]


def _by_sample(rows: Iterable[Response]) -> dict[str, Response]:
    """The first response to every sample."""
    found: dict[str, Response] = {}
    for row in rows:
        if row.sample:
            found.setdefault(row.sample, row)
    return found


def _varied(rows: list[Response], count: int) -> list[Response]:
    """The first `count` rows, taking the kinds of question in turn."""
    waiting: dict[Any, list[Response]] = {}
    for row in rows:
        waiting.setdefault(row.arm, []).append(row)
    chosen: list[Response] = []
    while waiting and len(chosen) < count:
        for arm in list(waiting):
            chosen.append(waiting[arm].pop(0))
            if not waiting[arm]:
                del waiting[arm]
    return chosen[:count]


def _training_group(log: RunLog) -> Card | None:
    """The rollouts of one prompt in the last recorded step: the group whose rewards differ most."""
    if not log.rollouts:
        return None
    groups: dict[str, list[Response]] = {}
    for row in log.rollout(list(log.rollouts)[-1]):
        if row.arm and not math.isnan(row.score):
            groups.setdefault(row.group, []).append(row)
    if not groups:
        return None
    rows = max(groups.values(), key=lambda rows: statistics.pstdev(row.score for row in rows))
    rows = sorted(rows, key=lambda row: -row.score)
    if len(rows) > GROUP_ROLLOUTS:
        rows = rows[: GROUP_ROLLOUTS // 2] + rows[-GROUP_ROLLOUTS // 2 :]
    return _card(log, rows[0], rows)


def _card(log: RunLog, row: Response, replies: list[Response]) -> Card:
    """A question with the given replies; without pictures where they cannot be made again."""
    made: Made | None = None
    problem = ""
    try:
        made = log.sample_of(row)
    except (ValueError, SampleError) as error:  # settings, sources and images raise ValueErrors
        problem = str(error)
    return Card(
        label=row.arm.label if row.arm else "",
        sample=row.sample,
        prompt=prompt_parts(made.sample.question) if made else [readable(row.prompt)],
        pictures=pictures(made.sample) if made else [],
        no_pictures=readable(problem, 300),
        gold=readable(row.gold or "unknown", 200),
        params=readable(json.dumps(made.sample.params, sort_keys=True), 300) if made and made.sample.params else "",
        replies=[_reply(reply) for reply in replies],
    )


def _reply(row: Response) -> Reply:
    acc, valid = row.figures.get("acc"), row.figures.get("valid")
    judged = "right" if acc == 1.0 else "invalid" if valid == 0.0 else "wrong"
    state = "" if acc is None else judged
    return Reply(row.step, readable(row.output), row.score, state, readable(row.error, 200))


def _settings(log: RunLog) -> list[tuple[str, str]]:
    """The settings that matter most, as far as the config names them."""
    shown = [(name, log.setting(key)) for name, key in _SHOWN_SETTINGS.items()]
    if log.setting("actor_rollout_ref.actor.use_kl_loss"):
        shown.append(("KL loss", log.setting("actor_rollout_ref.actor.kl_loss_coef")))
    if log.setting("ssl4rl.transductive"):
        shown.append(("Transductive", "yes: images of an evaluated benchmark are trained on, without their labels"))
    known = ((name, value) for name, value in shown if value is not None)
    return [(name, readable(f"{value:g}" if isinstance(value, float) else str(value))) for name, value in known]


def _tasks(log: RunLog) -> str:
    """The tasks and levels trained on, as the config names them."""
    try:
        return ", ".join(f"{arm.task.name}:{arm.level_name}" for arm in log.settings.arms)
    except ValueError:
        return ""


def _notes(log: RunLog, cards: list[Card]) -> list[str]:
    """What is missing or odd about the run, in words."""
    notes: list[str] = []
    metrics = log.metrics
    if not log.metric_files:
        notes.append("There is no metrics file, so there are no training curves.")
    elif not any("timing_s/step" in data for data in metrics.values()):
        notes.append("The metrics hold no finished training step.")
    if not log.validations:
        notes.append(
            "There are no validation dumps, so accuracies have no intervals, levels are not told apart, and no answers "
            "are shown."
        )
    elif 0 not in log.validations:
        notes.append(
            f"There is no validation before the first update (the first is at step {min(log.validations)}), so nothing "
            "says where the model started. trainer.val_before_train=true records it."
        )
    if len(log.validations) == 1:
        notes.append("There is only one validation, so nothing can be compared.")
    elif log.validations and metrics and max(metrics) > max(log.validations):
        notes.append(f"The last validation is at step {max(log.validations)}, the last metrics at step {max(metrics)}.")
    planned, done = log.setting("trainer.total_training_steps"), max(metrics, default=0)
    if isinstance(planned, int) and 0 < done < planned:
        notes.append(f"The run stopped at step {done} of {planned}, or is still going on.")
    if not log.config_file:
        notes.append("There is no config (hydra/.hydra/config.yaml), so pictures cannot be made again.")
    for problem in dict.fromkeys(card.no_pictures for card in cards if card.no_pictures):
        notes.append(f"Pictures are missing: {problem}")
    if log.validations:
        step = max(log.validations)
        rows = log.validation(step)
        of_how_many = f"of {len(rows)} responses of the last validation"
        if errors := [row.error for row in rows if row.error]:
            notes.append(f"{len(errors)} {of_how_many} could not be scored: {errors[0]}")
        if lost := sum(row.figures.get("acc") is None for row in rows):
            notes.append(f"{lost} {of_how_many} carry no accuracy and are not counted.")
        first = min(log.validations)
        if (count := len(log.validation(first))) != len(rows):
            notes.append(f"The validations differ in size: {count} rows at step {first}, {len(rows)} at step {step}.")
    for arm in log.arms:
        if arm.level and arm.chance is None:
            notes.append(f"{arm.label} is not installed here, so its chance level and right answers are unknown.")
    if log.torn_lines:
        notes.append(f"{log.torn_lines} line(s) could not be read, as after a kill, and are left out.")
    if not (log.metric_files and log.validations and log.config_file):
        notes.append(f"What records a full run: {HOW_TO_RECORD}")
    return [readable(note, 600) for note in notes]


__all__ = ["RunError", "report_html", "step_times", "write_report"]
