"""`ssl4rl export`: sets and configs for other evaluation tools."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssl4rl_plugin.analysis.evaluation.model import Model, resolve
from ssl4rl_plugin.analysis.export.config import ExportError, data_section, model_section
from ssl4rl_plugin.analysis.export.mcq import unfit, write_set
from ssl4rl_plugin.analysis.export.vlmevalkit import grader_to_json
from ssl4rl_plugin.analysis.terminal import show_json
from ssl4rl_plugin.cli.sources_for import source_for
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.files import write_text
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.training.chat_template import opens_thought
from ssl4rl_plugin.training.settings import Settings, parse_arms

PHOTO_CROPS = 25
"""Crops of each sample photograph, if there is no path."""


def export_vlmevalkit(
    model: str,
    arms: Sequence[str],
    benchmarks: Sequence[str],
    out: Path,
    *,
    path: Path | None,
    source: str | None,
    count: int,
    seed: int,
    val_fraction: float,
    form: str,
    base: str | None,
    max_new_tokens: int,
    as_json: bool,
) -> int:
    """Write sets and config; returns the exit code.

    Args:
        model: a name, a folder or a checkpoint of verl, as for `ssl4rl evaluate`.
        arms: `task`, `task:level` or `task:*`. Arms that are no multiple-choice sets are left out and counted.
        benchmarks: names of benchmarks that VLMEvalKit has.
        out: folder for LMUData/ and config.json.
        path, source: path and source of the pretext tasks' items, as for `ssl4rl preview`.
        count: rows of each set.
        seed: seed of the samples and the split.
        val_fraction: share held out if the source has no splits. The sets are made from the held-out items.
        form: the answer format of the model's training.
        base: class of VLMEvalKit; None to choose it by the model.
        max_new_tokens: maximum length of a response.
        as_json: print a summary as JSON.

    Raises:
        UserError: bad input, or nothing to export; the message says what to do.
    """
    if not arms and not benchmarks:
        raise ExportError("nothing to export: name a pretext task with --task, or a benchmark with --bench")
    parsed = parse_arms(list(arms)) if arms else ()
    left_out = {arm.key: reason for arm in parsed if (reason := unfit(arm)) is not None}
    kept = [arm for arm in parsed if arm.key not in left_out]
    if arms and not kept and not benchmarks:
        reasons = ", ".join(f"{key} ({reason})" for key, reason in left_out.items())
        raise ExportError(f"none of these tasks is a multiple-choice set: {reasons}")
    console = Console(stderr=True)
    form = answer_format(form).name
    found = resolve(model, out, lambda text: console.print(text, highlight=False, soft_wrap=True, markup=False))
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    sets: dict[str, bool] = {}
    graders: dict[str, Any] = {}
    with bar:
        for arm in kept:
            try:
                settings = Settings(
                    seed=seed,
                    arms=(arm,),
                    source=source_for(arm.task.kind, path, source, PHOTO_CROPS, val_fraction),
                    answer_format=answer_format(form),
                    epochs=1,
                    val_samples=count,
                    system_prompt=None,
                )
                job = bar.add_task(arm.key, total=count)
                stream = SampleStream(settings, load_manifest(settings), "val")
                written = write_set(stream, count, out / "LMUData", partial(bar.advance, job))
            except UserError as error:
                raise ExportError(f"{arm.key}: {error}") from error
            sets[written.stem] = arm.task.kind != "graph"
            if (grader := grader_to_json(arm.task.grader(arm.level))) is not None:
                graders[written.stem] = grader
    thinking = _opens_thought(found)
    section = model_section(found, out, base, form, max_new_tokens, thinking, graders)
    config = {"model": section, "data": data_section(sets, benchmarks)}
    write_text(out / "config.json", json.dumps(config, indent=4, ensure_ascii=False) + "\n")
    command = (
        f"LMUData={shlex.quote(str((out / 'LMUData').resolve()))} python -m ssl4rl_plugin.analysis.export.vlmevalkit "
        f"VLMEvalKit/run.py --config {shlex.quote(str((out / 'config.json').resolve()))} --judge exact_matching"
    )
    for reason, number in Counter(left_out.values()).most_common():
        names = ", ".join(key for key, why in left_out.items() if why == reason)
        console.print(f"left out, {reason}: {number} ({names})", highlight=False, soft_wrap=True)
    if as_json:
        show_json({"config": str(out / "config.json"), "sets": list(sets), "left_out": left_out, "command": command})
    else:
        console.print(f"{len(sets)} sets of {count} rows. Start VLMEvalKit with:", highlight=False)
        print(command)
    return 0


def _opens_thought(model: Model) -> bool:
    """Whether the model's chat template opens the thought; False for a model whose tokenizer is not on this machine."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model.path, local_files_only=True)
        return bool(tokenizer.chat_template) and opens_thought(tokenizer, {})
    except (OSError, ValueError):
        return False
