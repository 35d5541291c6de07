"""`ssl4rl evaluate`: make the evaluation set from the options, show progress, print the table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssl4rl_plugin.analysis.benchmark_results import OVERALL, SCOPES
from ssl4rl_plugin.analysis.evaluation.evaluation_set import EvaluationRequest, requested_set, set_of_run
from ssl4rl_plugin.analysis.evaluation.results import GroupResult, ModelComparison
from ssl4rl_plugin.analysis.evaluation.run import base_lines, evaluate, results
from ssl4rl_plugin.analysis.statistics import Proportion
from ssl4rl_plugin.analysis.terminal import show, show_json, table
from ssl4rl_plugin.cli.section import section_for
from ssl4rl_plugin.cli.sources_for import source_for
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.source import registry as sources
from ssl4rl_plugin.training.settings import parse_arms

CROPS = 200
"""Crops of each sample photograph, as in the recipes."""


def run_evaluate(
    model: str,
    request: EvaluationRequest,
    *,
    run: Path | None,
    base: str | None,
    out: Path | None,
    path: Path | None,
    source: str | None,
    changes: dict[str, Any],
    as_json: bool,
) -> None:
    """Evaluate, print the table and the path of the results.

    Args:
        model: name, folder or checkpoint.
        request: the options for questions, sampling and engines.
        run: folder of the run whose validation is repeated; None for none.
        base: another model, or the folder of its evaluation; None for none.
        out: folder to write; None to derive it from the model's name.
        path: path of the items of tasks.
        source: name of their source.
        changes: dotted keys of the `ssl4rl` section -> new values.
        as_json: print the results as JSON.

    Raises:
        UserError: bad input, or an evaluation that cannot continue; the message says what to do.
    """
    console = Console(stderr=True)
    if run is not None:
        if path is not None or source is not None or changes:
            raise UserError("--run has a config of its own: leave out --path, --source and --set")
        evaluation_set = set_of_run(run, request)
    else:
        evaluation_set = requested_set(request, lambda tasks: _sections(tasks, path, source, changes))
    out = (out or Path("evaluations") / _slug(model)).expanduser().resolve()

    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True, highlight=False)

    theirs = None
    try:
        lines = _with_bar(
            console, len(evaluation_set.rows), lambda advance: evaluate(model, evaluation_set, out, say, advance)
        )
        if base is not None:
            say(f"the base model: {base}")
            theirs = _with_bar(
                console, len(evaluation_set.rows), lambda advance: base_lines(base, evaluation_set, out, say, advance)
            )
    except KeyboardInterrupt:
        say("interrupted; repeat the same command to resume")
        raise
    groups, value = results(model, evaluation_set, out, lines, base, theirs)
    _say_what_failed(say, lines)
    if as_json:
        show_json(value)
        return
    show(results_table(groups))
    print(out / "results.json")


def _sections(
    tasks: Sequence[str], path: Path | None, source: str | None, changes: dict[str, Any]
) -> list[dict[str, Any]]:
    """A section for each source that the tasks need, in the order of the tasks."""
    if not tasks:
        return [
            section_for("folder", None, ["rotation"], {}, changes)
        ]  # for benchmarks alone; source and task are not used
    found: dict[str, tuple[Any, list[str]]] = {}
    for name in tasks:
        kind = parse_arms([name])[0].task.kind
        chosen = source_for(kind, path, source, CROPS)
        found.setdefault(chosen.name, (chosen, []))[1].append(name)
    return [
        section_for(chosen.name, chosen.path and Path(chosen.path), names, chosen.options, changes)
        for chosen, names in found.values()
    ]


def benchmark(text: str) -> tuple[str, str]:
    """`NAME=PATH` of `--bench`. Raises UserError."""
    name, sign, path = text.partition("=")
    if not sign or not path:
        raise UserError(f"--bench {text}: write it as NAME=PATH, e.g. mmbench=/data/MMBench_DEV_EN.tsv")
    sources.get(name)  # raises for an unknown name before anything is loaded
    return name, path


def _slug(model: str) -> str:
    """A folder name for a model: its name, or the last two parts of its path."""
    parts = [part for part in re.split(r"[/\\]", model) if part not in ("", ".", "..", "~")]
    return re.sub(r"[^\w.-]", "_", "-".join(parts[-2:])) or "model"


def _with_bar(console: Console, total: int, work: Any) -> Any:
    """Work with a progress bar over rows."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        job = bar.add_task("loading the questions", total=total)
        return work(lambda count, text: bar.update(job, advance=count, description=text))


def results_table(groups: Sequence[GroupResult]) -> Any:
    """The table for the terminal: a line for each benchmark or task, followed by its categories."""
    circular = any(group.circular for group in groups)
    compared = any(group.against for group in groups)
    made = table(
        "asked", "questions", "accuracy (95 %)",
        *(("circular (95 %)",) if circular else ()),
        "chance", "format", "lenient", "lenient only",
        *(("base (95 %)", "difference (95 %)", "McNemar p") if compared else ()),
    )  # fmt: skip
    for group in groups:
        indent = "  " * SCOPES.index(group.scope)
        made.add_row(
            escape(indent + (group.name or group.kind)),
            str(group.accuracy.n),
            _rate(group.accuracy),
            *((_rate(group.circular) if group.circular else "",) if circular else ()),
            "" if group.chance is None else f"{group.chance:.3f}",
            f"{group.means['format']:.3f}",
            f"{group.means['lenient']:.3f}",
            f"{group.means['lenient_only']:.3f}",
            *(_against(group.against) if compared else ()),
            style="bold" if group.scope == OVERALL else None,
        )
    return made


def _rate(rate: Proportion) -> str:
    return f"{rate.mean:.3f} ({rate.low:.3f} to {rate.high:.3f})"


def _against(found: ModelComparison | None) -> tuple[str, str, str]:
    if found is None:
        return "", "", ""
    change = found.change
    sure = f" ({change.low:+.3f} to {change.high:+.3f})" if change.groups > 1 else ""
    return _rate(found.base), f"{change.mean:+.3f}{sure}", "" if found.p is None else f"{found.p:.3g}"


def _say_what_failed(say: Any, lines: Sequence[dict[str, Any]]) -> None:
    """Print the number of questions that were not asked or not scored, with the first error."""
    failed = [line for line in lines if line["error"]]
    if failed:
        say(
            f"{len(failed)} answers count as wrong because of an error; the first: {failed[0]['id']}: {failed[0]['error']}"
        )
