"""The audit as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl4rl_plugin.analysis.audit import ALPHA, CHANCE, GROUPS, SUSPECT, ArmAudit, JudgedGuesser
from ssl4rl_plugin.analysis.audit.baselines import GuesserResult
from ssl4rl_plugin.analysis.audit.duplicates import Duplicates
from ssl4rl_plugin.analysis.audit.text import TEXT_GROUPS
from ssl4rl_plugin.analysis.report.page import render

_WIDTH, _HEIGHT = 180, 22  # of a bar, CSS pixels


def audit_html(
    arms: Sequence[ArmAudit],
    skipped: Sequence[tuple[str, str]],
    copies: Mapping[str, Duplicates],
    count: int,
    seed: int,
) -> str:
    """One self-contained page: the verdict, how to read it, a table for each arm, refusals, and duplicates."""
    verdicts = [arm.verdict for arm in arms]
    straddling = sum(len(found.straddling) for found in copies.values())
    return render(
        "audit.html.j2",
        arms=[_arm(arm) for arm in sorted(arms, key=lambda arm: not arm.failed)],
        counts={verdict: verdicts.count(verdict) for verdict in ("leak", "error", "declared", "content", CHANCE)},
        failed=bool(straddling or any(arm.failed for arm in arms)),
        baselines=sum(len(arm.rows) for arm in arms),
        suspects=sum(row.suspected for arm in arms for row in arm.rows),
        skipped=skipped,
        copies=copies,
        straddling=straddling,
        groups={**GROUPS, **TEXT_GROUPS},
        suspect=SUSPECT,
        alpha=ALPHA,
        count=count,
        seed=seed,
    )


def _arm(arm: ArmAudit) -> dict[str, Any]:
    found = [row for row in arm.rows if row.verdict != CHANCE]
    return {
        "key": arm.key,
        "summary": arm.summary,
        "where": arm.where,
        "chance": arm.chance,
        "verdict": arm.verdict,
        "failed": arm.failed,
        "error": arm.error,
        "cues": arm.cues,
        "found": [_judged(row) for row in found],
        "quiet": [_judged(row) for row in arm.rows if row.verdict == CHANCE],
        "samples": arm.samples,
        "draws": arm.draws,
        "repeats": arm.repeats,
        "refused": arm.refused.most_common(),
        "control_samples": arm.control_samples,
        "control_refused": arm.control_refused.most_common(),
    }


def _judged(judged: JudgedGuesser) -> dict[str, Any]:
    return {
        "name": judged.name,
        "part": judged.row.part,
        "verdict": judged.verdict,
        "reason": judged.reason,
        "suspected": judged.suspected,
        "looks": [_look(judged.source), _look(judged.control)],
    }


def _look(row: GuesserResult | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "share": row.share,
        "n": row.n,
        "low": row.low,
        "high": row.high,
        "chance": row.chance,
        "p": f"{row.p:.2g}" if row.p >= 1e-4 else f"{row.p:.0e}",
        "width": _WIDTH,
        "height": _HEIGHT,
        "x": {
            name: round(_WIDTH * min(1.0, max(0.0, getattr(row, name))), 1)
            for name in ("low", "high", "share", "chance")
        },
    }
