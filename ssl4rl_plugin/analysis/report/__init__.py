"""`ssl4rl report RUN...`: one HTML page that shows whether runs have learnt, how they went, and how they differ.

The page shows only what the runs recorded, and notes what is missing.

    results      accuracy before and after
    curves       the charts of verl's metrics
    plots        drawing of charts
    reading      how answers were read, strictly and leniently
    left_out     questions that were not asked
    curriculum   what was drawn at which step, and why
    cards        single questions with their pictures and answers
    settings     the config
    page         templates, pictures and safe text
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from ssl4rl_plugin import __version__
from ssl4rl_plugin.analysis.report import cards, curriculum, left_out, reading, results, settings
from ssl4rl_plugin.analysis.report.page import readable, render, short_names, write
from ssl4rl_plugin.analysis.runlog import COLLAPSED_FROM, HOW_TO_RECORD, RunError, RunLog
from ssl4rl_plugin.analysis.statistics import FEWEST_GROUPS
from ssl4rl_plugin.core.errors import UserError

MOST_RUNS = 8
"""Maximum number of runs on one page: the number of colours."""
NOTED = 4
"""Maximum number of notes about metrics that were no finite numbers."""
CARDS = 4
"""Questions in each section of a page with one run. With several runs, each has half as many."""


def write_report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the page of a run, or of several on one page.

    Args:
        runs: run folders, or files of metrics (see `ssl4rl_plugin.analysis.runlog`).
        out: the HTML file. None for `report.html` in the run's folder, `NAME.html` beside a file of metrics, or for
            several runs `report.html` in the working directory.

    Returns:
        The file written.

    Raises:
        RunError: one of them holds no run, or there are more than `MOST_RUNS`.
        WriteError: the page cannot be written.
    """
    logs = [RunLog(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    html = report_html(*logs)
    if out is None:
        alone = logs[0].path.with_suffix(".html") if logs[0].path.is_file() else logs[0].folder / "report.html"
        out = alone if len(logs) == 1 else "report.html"
    return write(html, Path(out))


def report_html(*runs: RunLog) -> str:
    """The page of one run or several as text. Raises RunError: the same run twice, or more than `MOST_RUNS`."""
    from ssl4rl_plugin.analysis.report import curves  # here: matplotlib takes half a second to import

    if len({run.path for run in runs}) < len(runs):
        raise RunError("the same run is named twice")
    if not 1 <= len(runs) <= MOST_RUNS:
        raise RunError(f"{len(runs)} runs do not fit on one page: give 1 to {MOST_RUNS}")
    logs = dict(zip(short_names([run.path for run in runs]), runs, strict=True))
    logs = {readable(name, 80): log for name, log in logs.items()}
    (name, first), several = next(iter(logs.items())), len(logs) > 1
    of_benchmarks, of_categories = curves.of_benchmarks(logs)
    single = {run: cards.held_out(log, CARDS // 2 if several else CARDS) for run, log in logs.items()}
    shown = {run: [card for section in sections for card in section.cards] for run, sections in single.items()}
    arms = {run: curriculum.arms_of(log) for run, log in logs.items()}
    return render(
        "report.html.j2",
        name=name,
        version=__version__,
        several=several,
        fewest=FEWEST_GROUPS,
        collapsed=COLLAPSED_FROM,
        tasks={run: _tasks(log) for run, log in logs.items()},
        tiles={run: _tiles(log) for run, log in logs.items()},
        task_lines=results.task_lines(logs),
        source_lines=results.source_lines(logs),
        benchmark_lines=results.benchmark_lines(logs),
        of_tasks=curves.of_tasks(logs),
        of_benchmarks=of_benchmarks,
        of_categories=of_categories,
        of_training=curves.of_training(logs),
        of_form=curves.of_form(logs),
        curricula=[
            {
                "run": run if several else "",
                "steered": any(arm.probability is not None for arm in drawn),
                "figures": curriculum.draw(drawn),
                "table": curriculum.table(logs[run], drawn),
            }
            for run, drawn in arms.items()
            if drawn
        ],
        reading={run: reading.reading_lines(log) for run, log in logs.items()},
        left_out={run: left_out.lines(log) for run, log in logs.items()},
        unread={run: reading.unread_texts(log) for run, log in logs.items()},
        apart=cards.apart(logs, 2 * CARDS) if several else [],
        sections=single,
        group=None if several else cards.training_group(first),
        settings={run: settings.settings(log) for run, log in logs.items()},
        config={run: settings.config(log) for run, log in logs.items()},
        differences=settings.differences(logs) if several else [],
        notes=[  # last, when all files have been read
            f"{run}: {note}" if several else note for run, log in logs.items() for note in _notes(log, shown[run])
        ],
    )


def _tiles(log: RunLog) -> dict[str, tuple[str, str]]:
    """The tiles at the top: title -> value and caption."""
    tiles: dict[str, tuple[str, str]] = {}
    rows = [row for row in log.headline() if row.before and row.after]
    if rows:
        before = statistics.fmean(row.before.rate.mean for row in rows if row.before)
        after = statistics.fmean(row.after.rate.mean for row in rows if row.after)
        small = "before → after" if len(rows) == 1 else f"mean of {len(rows)} kinds of question, before → after"
        tiles["Held-out accuracy"] = f"{100 * before:.0f} % → {100 * after:.0f} %", small
    steps, rewards = log.curve("critic/score/mean")
    if steps:
        reach = max(1, len(rewards) // 10)
        start, end = statistics.fmean(rewards[:reach]), statistics.fmean(rewards[-reach:])
        tiles["Training reward"] = f"{start:.2f} → {end:.2f}", "mean of the first and last tenth of the steps"
    steps, seconds = log.curve("timing_s/step")
    if steps:
        planned = log.setting("trainer.total_training_steps")
        small = f"of {planned:,} planned" if isinstance(planned, int) else ""
        tiles["Training steps"] = f"{len(steps):,}", small
        _, testing = log.curve("timing_s/testing")
        small = f"{statistics.median(seconds):.1f} s a step (median)"
        tiles["Time"] = _duration(sum(seconds) + sum(testing)), small
    return tiles


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _tasks(log: RunLog) -> str:
    """The tasks and levels trained on, from the config."""
    try:
        return ", ".join(f"{arm.task.name}:{arm.level_name}" for arm in log.settings.arms)
    except UserError:
        return ""


def _notes(log: RunLog, shown: Sequence[cards.QuestionCard]) -> list[str]:
    """Notes about missing or unusual records of the run."""
    notes: list[str] = []
    metrics = log.metrics
    if not log.metric_files:
        notes.append("There is no metrics file, so there are no training curves.")
    elif not any("timing_s/step" in data for data in metrics.values()):
        notes.append("The metrics hold no finished training step.")
    notes += _not_finite(log)
    for metric, wrong in list(log.impossible.items())[:NOTED]:
        where = ", ".join(map(str, wrong[:5])) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        notes.append(f"{metric} is outside of its range at step {where} and left out there.")
    if len(log.impossible) > NOTED:
        notes.append(f"{len(log.impossible) - NOTED:,} more metrics are outside of their range at some step.")
    if not log.validations:
        notes.append(
            "There are no validation dumps, so accuracies have no intervals and no levels, and no answers are shown."
        )
    elif 0 not in log.validations:
        notes.append(
            f"There is no validation before the first update (the first is at step {min(log.validations)}), so the accuracy "
            "before training is unknown. trainer.val_before_train=true records it."
        )
    if len(log.validations) == 1:
        notes.append("There is only one validation, so nothing can be compared.")
    elif log.validations and metrics and max(metrics) > max(log.validations):
        notes.append(f"The last validation is at step {max(log.validations)}, the last metrics at step {max(metrics)}.")
    planned, done = log.setting("trainer.total_training_steps"), max(metrics, default=0)
    if isinstance(planned, int) and 0 < done < planned:
        notes.append(f"The run stopped at step {done} of {planned}, or is still running.")
    if not log.config_file:
        notes.append("There is no config (hydra/.hydra/config.yaml), so pictures cannot be made again.")
    if log.config.problem:
        notes.append(f"The config is left out: {log.config.problem}.")
    for problem in dict.fromkeys(card.no_pictures for card in shown if card.no_pictures):
        notes.append(f"Pictures are missing: {problem}")
    if log.validations:
        step = max(log.validations)
        rows = log.validation(step)
        of_how_many = f"of {len(rows)} responses of the last validation"
        if errors := [row.error for row in rows if row.error]:
            notes.append(f"{len(errors)} {of_how_many} could not be scored: {errors[0]}")
        if lost := sum(row.figures.get("acc") is None for row in rows):
            notes.append(f"{lost} {of_how_many} have no accuracy and are not counted.")
        first = min(log.validations)
        if (count := len(log.validation(first))) != len(rows):
            notes.append(f"The validations differ in size: {count} rows at step {first}, {len(rows)} at step {step}.")
    for arm in log.arms:
        if arm.level and arm.chance is None:
            notes.append(f"{arm.label} is not installed here, so its chance level and right answers are unknown.")
    if log.torn_lines:
        notes.append(f"{log.torn_lines} line(s) could not be read, as after a kill, and are left out.")
    if not (log.metric_files and log.validations and log.config_file):
        notes.append(f"To record a full run: {HOW_TO_RECORD}")
    return [readable(note, 600) for note in notes]


def _not_finite(log: RunLog) -> list[str]:
    """Notes about metrics that were no finite numbers; drawn metrics come first."""
    from ssl4rl_plugin.analysis.report.curves import drawn_metrics

    drawn = set(drawn_metrics())
    # A level that was not drawn in a step has no accuracy.
    found = {name: steps for name, steps in log.gaps.items() if not name.startswith("curriculum/")}
    by_steps: dict[tuple[int, ...], list[str]] = {}
    for name in sorted(found, key=lambda name: (name not in drawn, name)):
        by_steps.setdefault(tuple(found[name]), []).append(name)
    notes = []
    for steps, names in list(by_steps.items())[:NOTED]:
        where = ", ".join(map(str, steps[:5])) + (f" and {len(steps) - 5} more" if len(steps) > 5 else "")
        which = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        notes.append(
            f"No usable number (NaN, infinite, or far too large) at step {where}, a gap in the curves: {which}."
        )
    if len(by_steps) > NOTED:
        notes.append(
            f"{sum(map(len, list(by_steps.values())[NOTED:])):,} more metrics have no usable number at some step."
        )
    return notes


__all__ = ["RunError", "report_html", "write_report"]
