"""`ssl4rl audit`: choose arms and sources, run the audit, print and write the findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from ssl4rl_plugin.analysis.audit import CHANCE, ArmAudit, AuditSubject, audit, needs_sklearn
from ssl4rl_plugin.analysis.audit.draw import ItemPool, pool_of
from ssl4rl_plugin.analysis.audit.duplicates import Duplicates, duplicates
from ssl4rl_plugin.analysis.audit.page import audit_html
from ssl4rl_plugin.analysis.report.page import write
from ssl4rl_plugin.analysis.terminal import show, show_json, table
from ssl4rl_plugin.cli.sources_for import described, source_for
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.processes import cores
from ssl4rl_plugin.core.registry import RegistryError
from ssl4rl_plugin.data.graphs import GraphManifest
from ssl4rl_plugin.data.indexing import manifest_of
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.tasks import registry
from ssl4rl_plugin.training.settings import parse_arms

CROPS = 50
"""Crops of each sample photograph."""
VAL_FRACTION = 0.1
"""Share of the groups held out, as in the base recipe. Duplicates are searched across these splits."""


def run_audit(
    arms: Sequence[str],
    everything: bool,
    path: Path | None,
    source: str | None,
    count: int,
    seed: int,
    out: Path,
    workers: int | None,
    as_json: bool,
) -> int:
    """Audit, write the page, print a summary, and return the exit code: 1 if a check failed, else 0.

    Raises:
        UserError: bad input, or the page cannot be written; the message says what to do.
    """
    if bool(arms) == everything:
        raise UserError("name the tasks to audit, e.g. `ssl4rl audit rotation jigsaw:3x3`, or all of them with --all")
    if out.suffix.lower() != ".html":
        raise UserError(f"--out {out}: the name must end in .html")
    needs_sklearn()
    console = Console(stderr=True)
    skipped: list[tuple[str, str]] = []
    manifests: dict[str, tuple[str, Manifest | GraphManifest, ItemPool]] = {}
    subjects: list[AuditSubject] = []
    for name in [f"{name}:*" for name in registry.names()] if everything else arms:
        try:
            chosen = parse_arms([name])
        except UserError as error:
            if not (everything and isinstance(error.__cause__, RegistryError)):
                raise
            skipped.append((name.partition(":")[0], str(error.__cause__)))
            continue
        try:
            found = source_for(chosen[0].task.kind, path, source, CROPS, VAL_FRACTION)
            if found.name not in manifests:
                manifest = manifest_of(found, seed=0, progress=console.is_terminal)
                manifests[found.name] = (described(found), manifest, pool_of(manifest, found.max_pixels))
        except UserError as error:
            # With --all, other kinds of items may be missing; unusable pictures are a mistake of the user.
            if not everything or (chosen[0].task.kind == "image" and source is None):
                raise UserError(f"task {name}: {error}") from error
            skipped.append((name.partition(":")[0], str(error)))
            continue
        where, _, pool = manifests[found.name]
        subjects += [AuditSubject(arm, pool, where) for arm in chosen if arm.key not in {s.arm.key for s in subjects}]
    if not subjects:
        raise UserError(f"nothing to audit: {'; '.join(f'{name}: {reason}' for name, reason in skipped[:3])}")
    copies = {where: duplicates(found) for where, found, _ in manifests.values() if isinstance(found, Manifest)}
    workers = min(workers or min(cores(), 8), max(1, 2 * len(subjects)))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        job = bar.add_task(f"auditing {len(subjects)} levels", total=2 * len(subjects))
        found_out = audit(
            subjects, count, seed, workers, lambda done, total: bar.update(job, completed=done, total=total)
        )
    if not everything and (dropped := [arm for arm in found_out if arm.skipped]):
        raise UserError(f"task {dropped[0].key} cannot be audited with these pictures: {dropped[0].skipped}")
    skipped += [(arm.key, arm.skipped) for arm in found_out if arm.skipped]
    audited = [arm for arm in found_out if not arm.skipped]
    if not audited:
        raise UserError(f"no task could be audited with these pictures; {skipped[-1][0]}: {skipped[-1][1]}")
    failed = any(arm.failed for arm in audited) or any(found.straddling for found in copies.values())
    page = write(audit_html(audited, skipped, copies, count, seed), out)
    if as_json:
        show_json(as_value(audited, skipped, copies, count, seed, failed))
        console.print(escape(str(page.resolve())), soft_wrap=True, highlight=False)
    else:
        _show(audited, skipped, copies, failed)
        print(page.resolve())
    return int(failed)


def as_value(
    arms: Sequence[ArmAudit],
    skipped: Sequence[tuple[str, str]],
    copies: dict[str, Duplicates],
    count: int,
    seed: int,
    failed: bool,
) -> dict[str, Any]:
    """All findings as JSON."""
    return {
        "passed": not failed,
        "samples": count,
        "seed": seed,
        "arms": [
            {
                **{key: value for key, value in asdict(arm).items() if key not in ("rows", "skipped", "seconds")},
                "refused": dict(arm.refused),  # asdict would turn a Counter into pairs
                "control_refused": dict(arm.control_refused),
                "verdict": arm.verdict,
                "baselines": [
                    dict(zip(("kind", "group", "part"), judged.row.key, strict=True)) | asdict(judged)
                    for judged in arm.rows
                ],
            }
            for arm in arms
        ],
        "not_audited": [{"arm": name, "reason": reason} for name, reason in skipped],
        "duplicates": {where: asdict(found) for where, found in copies.items()},
    }


_COLOURS = {"leak": "bold red", "error": "bold red", "declared": "cyan", "content": "yellow", CHANCE: "green"}


def _show(
    arms: Sequence[ArmAudit], skipped: Sequence[tuple[str, str]], copies: dict[str, Duplicates], failed: bool
) -> None:
    """Print a line for each arm, and a line for each failure."""
    made = table("arm", "chance", "best blind guesser", "gets (95 %)", "refused", "verdict")
    for arm in arms:
        best = arm.best
        row = best.source if best else None
        refused = sum(arm.refused.values()) / max(1, arm.draws)
        made.add_row(
            escape(arm.key),
            f"{arm.chance:.3g}",
            f"{best.name}, {escape(row.part)}" if best and row else "",
            f"{row.share:.3f} ({row.low:.3f} to {row.high:.3f}), chance {row.chance:.3f}" if row else "",
            f"{refused:.0%}",
            f"[{_COLOURS[arm.verdict]}]{arm.verdict}[/]",
        )
    show(made)
    console = Console(soft_wrap=True, highlight=False, emoji=False)  # keep `scale_order:three:` as text
    for arm in arms:
        for judged in arm.having("leak"):
            console.print(f"[bold red]leak[/] {escape(arm.key)}: {judged.name}: {escape(judged.reason)}")
        if arm.error:
            console.print(f"[bold red]error[/] {escape(arm.key)}: {escape(arm.error)}")
    for where, found in copies.items():
        for what in found.straddling[:5]:
            console.print(f"[bold red]in both splits[/] {escape(where)}: {escape(what)}")
    for name, reason in skipped:
        console.print(f"[yellow]not audited[/] {escape(name)}: {escape(reason)}")
    bad = sum(arm.failed for arm in arms)
    console.print(
        f"{len(arms)} levels audited: {bad} with leaks or errors, {len(arms) - bad} without"
        + ("" if failed else "; only the content of the pictures gives answers")
    )
