"""`ssl4rl build`: write a folder of parquet files that verl trains on, with a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssl4rl_plugin.analysis.audit import AuditSubject, audit, needs_sklearn
from ssl4rl_plugin.analysis.audit.draw import ManifestPool
from ssl4rl_plugin.analysis.terminal import show_json, table
from ssl4rl_plugin.cli.audit import as_value
from ssl4rl_plugin.cli.section import section_for
from ssl4rl_plugin.cli.sources_for import named_source
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.processes import cores
from ssl4rl_plugin.data.build_plan import SPLITS, BuildPlan
from ssl4rl_plugin.data.indexing import load_manifest, picture_manifest
from ssl4rl_plugin.data.manifest import Manifest, is_manifest
from ssl4rl_plugin.data.mixture import Mixture, Part
from ssl4rl_plugin.data.pools import serving
from ssl4rl_plugin.data.shards import Codec
from ssl4rl_plugin.data_builders.build.builder import FinishedBuild, FinishedShard, build, plain_errors
from ssl4rl_plugin.data_builders.build.planning import make_plan
from ssl4rl_plugin.data_builders.build.report import prompt_lengths, report, size_text, write_report
from ssl4rl_plugin.training.settings import Settings
from ssl4rl_plugin.training.source_notes import source_notes


def run_build(
    where: str | None,
    tasks: Sequence[str],
    out: Path,
    *,
    path: Path | None,
    source: str | None,
    options: dict[str, Any],
    changes: dict[str, Any],
    store: str,
    codec: Codec,
    shard_rows: int,
    engine: str,
    workers: int | None,
    address: str | None,
    processor: str | None,
    audit_count: int | None,
    as_json: bool,
) -> int:
    """Build, write the report, print a summary; returns the exit code: 1 if the audit found a leak, else 0.

    Args:
        where: folder, file or manifest, or the name of a source; None if `changes` has `sources`.
        tasks: `task`, `task:level` or `task:*`.
        out: the folder to write.
        path: path of a named source.
        source: name of the source if `where` is a path; None to choose it by the path.
        options: options of the source.
        changes: dotted keys of the `ssl4rl` section -> new values.
        store, codec, shard_rows, engine, workers, address: see `make_plan` and `build`.
        processor: model for which prompt lengths are measured; None for none.
        audit_count: samples of each level for the audit; None for none.
        as_json: print the report as JSON.

    Raises:
        UserError: bad input, or a build that cannot continue; the message says what to do.
    """
    if audit_count is not None:
        needs_sklearn()
    console = Console(stderr=True)
    section = section_for(*_place(where, path, source, changes), tasks, options, changes)
    settings = Settings.from_config(section)
    manifest = _manifest(settings, console)
    plan = make_plan(section, manifest, store, codec, shard_rows)
    out = out.expanduser().resolve()
    built = _with_progress(console, plan, manifest, out, engine=engine, workers=workers, address=address)
    tokens = prompt_lengths(built, processor, 1024) if processor else None
    found = _audit(settings, manifest, audit_count, workers) if audit_count else None
    values = report(built, manifest, tokens, found)
    with plain_errors(built):
        page = write_report(built, values)
    if as_json:
        show_json(values)
    else:
        _show(console, values, built)
        print(page)
    return int(found is not None and not found["passed"])


def _manifest(settings: Settings, console: Console) -> Manifest | Mixture:
    """The indexed images, of one source or of several. Raises SourceError."""
    if not settings.sources:
        return picture_manifest(settings.source, settings.seed, progress=console.is_terminal)
    found = load_manifest(settings, progress=console.is_terminal)
    assert isinstance(found, Mixture)
    for note in source_notes(found):
        console.print(escape(note), soft_wrap=True, highlight=False)
    return found


def _place(
    where: str | None, path: Path | None, source: str | None, changes: dict[str, Any]
) -> tuple[str, Path | None]:
    """Name and path of the source; for a manifest, its source and its own path. Raises UserError."""
    if changes.get("sources"):
        if where is not None or path is not None or source is not None:
            raise UserError("--sources names all sources: leave out WHERE, --path and --source")
        return "folder", None
    if where is None:
        raise UserError("say where the images are: a folder, a file, a source's name, or --sources for several")
    if is_manifest(Path(where)):
        if path is not None or source is not None:
            raise UserError(f"{where} is a manifest, which names its source: leave out --path and --source")
        return Manifest.load(where).source.name, Path(where)
    return named_source(where, path, source)


def _with_progress(
    console: Console, plan: BuildPlan, manifest: Manifest | Mixture, out: Path, **engine: Any
) -> FinishedBuild:
    """Build with a progress bar over rows; finished shards count too."""
    columns = (TextColumn("building"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        job = bar.add_task("building", total=sum(plan.rows.values()))

        def advance(done: FinishedShard) -> None:
            bar.advance(job, done.shard.stop - done.shard.start)

        try:
            built = build(plan, manifest, out, advance=advance, **engine)
        except KeyboardInterrupt:
            console.print("interrupted; repeat the same command to resume")
            raise
    kept = sum(done.kept for done in built.shards)
    if kept:
        console.print(f"{kept} of {len(built.shards)} files were already finished")
    return built


def _audit(settings: Settings, manifest: Manifest | Mixture, count: int, workers: int | None) -> dict[str, Any]:
    """The audit's findings on these images, as in `ssl4rl audit --json`; each arm on each of its sources."""
    parts = manifest.parts if isinstance(manifest, Mixture) else (Part(settings.source, manifest),)
    subjects = []
    for arm in settings.arms:
        for number in serving(arm.task.kind, [part.kind for part in parts]):
            part = parts[number]
            assert isinstance(part.manifest, Manifest)
            pool = ManifestPool(part.manifest, part.settings.max_pixels)
            subjects.append(AuditSubject(arm, pool, part.settings.label or part.manifest.source.name))
    arms = audit(subjects, count, settings.seed, min(workers or cores(), 2 * len(subjects)))
    failed = any(arm.failed for arm in arms)
    return as_value(
        [arm for arm in arms if not arm.skipped], [(arm.key, arm.skipped) for arm in arms if arm.skipped], {}, count,
        settings.seed, failed,
    )  # fmt: skip


def _show(console: Console, values: dict[str, Any], built: FinishedBuild) -> None:
    """Print a line for every kind of row, and the images and questions left out."""
    made = table("kind", "rows", "refused draws", "reasons")
    for line in values["kinds"]:
        rows = ", ".join(f"{split} {line['rows'][split]:,}" for split in SPLITS if split in line["rows"])
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in line["refused"].items())
        made.add_row(escape(line["kind"]), rows, f"{line['refused_share']:.1%}", escape(reasons))
    console.print(made)
    left = {**values["images"]["left_out"], **values["questions_left_out"]}
    if left:
        console.print("left out: " + escape(", ".join(f"{reason} {number:,}" for reason, number in left.items())))
    size = sum(done.size for done in built.shards)
    console.print(
        f"{values['pictures']['count']:,} pictures, {size_text(values['pictures']['bytes'])}; {len(built.shards)} files, "
        f"{size_text(size)}; train on them with ssl4rl.data={escape(str(built.folder))}",
        soft_wrap=True,
    )
