"""The report of a build, as JSON and as a page: rows, rejections by reason, sizes, prompt lengths, results of the audit.

Everything is read from the finished files, so a resumed build has the same report as an uninterrupted one.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl4rl_plugin.analysis.report.page import card, readable, render
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.files import writing
from ssl4rl_plugin.data.build_plan import SPLITS
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.mixture import Mixture, parts_of
from ssl4rl_plugin.data.rows import Row
from ssl4rl_plugin.data_builders.build.builder import FinishedBuild
from ssl4rl_plugin.training.stored_rows import StoredRows, built_questions, plan_settings

JSON, HTML = "report.json", "report.html"
SHOWN = 3
"""Rows of each kind on the page."""
MEASURED = 48
"""Rows of each kind whose prompts are measured."""


def report(
    built: FinishedBuild,
    manifest: Manifest | Mixture,
    tokens: Mapping[str, Any] | None,
    audit: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The report of a finished build, as JSON values.

    Args:
        built: the build.
        manifest: its indexed images, of one source or several.
        tokens: result of `prompt_lengths`; None if not measured.
        audit: result of the audit (`ssl4rl audit --json`); None if not audited.
    """
    plan, settings = built.plan, plan_settings(built.plan)
    total = built.tally(*SPLITS)
    left_out: Counter[str] = sum((one.left_out for one in built_questions(settings, manifest)), Counter())
    sources = [{"name": label, **_source(one)} for label, one in parts_of(manifest)]
    return {
        "folder": str(built.folder),
        "plan": plan.id,
        **({"sources": sources} if plan.mixed else {"source": _source(manifest)}),
        "seed": settings.seed,
        "answer_format": settings.answer_format.name,
        "stored": {"as": plan.store, "format": plan.codec.format, "quality": plan.codec.quality},
        "made_with": plan.made_with,
        "made_by": dict(Counter(done.node or "this machine" for done in built.shards if not done.kept)),
        "images": {
            "train": len(manifest.items("train")),
            "val": len(manifest.items("val")),
            "left_out": dict(manifest.rejected.most_common()),
        },
        "questions_left_out": dict(left_out.most_common()),
        "splits": {
            split: {
                "rows": plan.rows[split],
                "files": sum(done.shard.split == split for done in built.shards),
                "bytes": sum(done.size for done in built.shards if done.shard.split == split),
            }
            for split in SPLITS
        },
        "pictures": {
            "count": total.pictures,
            "bytes": total.picture_bytes,
            "mean_bytes": total.picture_bytes / max(1, total.pictures),
            "mean_pixels": total.pixels / max(1, total.pictures),
            "longest_side": total.longest_side,
        },
        "kinds": _kinds(built),
        "tokens": tokens,
        "audit": audit,
    }


def _source(manifest: Any) -> dict[str, Any]:
    """Name, path and options of a manifest's source."""
    return {key: manifest.settings[key] for key in ("source", "path", "options")}


def _kinds(built: FinishedBuild) -> list[dict[str, Any]]:
    """One entry for every arm and benchmark."""
    total = built.tally(*SPLITS)
    by_split = {split: built.tally(split).rows for split in SPLITS}
    refused, answers = _by_kind(total.refused), _by_kind(total.answers)
    chances = {arm.key: arm.task.chance(arm.level) for arm in plan_settings(built.plan).arms}
    found = []
    for kind, rows in sorted(total.rows.items()):
        lost = sum(refused[kind].values())
        found.append(
            {
                "kind": kind,
                "rows": {split: by_split[split][kind] for split in SPLITS if by_split[split][kind]},
                "chance": chances.get(kind),
                "refused": dict(refused[kind].most_common()),
                "refused_share": lost / (lost + rows),
                "answers": dict(sorted(answers[kind].items())),
            }
        )
    return found


def _by_kind(counts: Mapping[str, int]) -> dict[str, Counter[str]]:
    """Regroup `kind: what` -> number as kind -> what -> number. (A kind may contain colons, but not colon and space.)"""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for key, number in counts.items():
        kind, _, what = key.rpartition(": ") if "{" in key else key.partition(": ")
        found[kind][what] += number
    return found


def prompt_lengths(
    built: FinishedBuild, model: str, limit: int, advance: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Lengths of prompts in tokens of a model, from some rows of each kind.

    Args:
        built: the build.
        model: folder or hub name of a model with a processor that verl knows.
        limit: most tokens of a prompt (`data.max_prompt_length`).
        advance: called after each row.

    Raises:
        UserError: there is no processor, or verl does not know it.
    """
    from verl.utils import hf_processor

    from ssl4rl_plugin.training.verl.dataset import shows_video
    from ssl4rl_plugin.training.verl.prompts import prompt_length

    processor = hf_processor(model)
    if processor is None:
        raise UserError(f"--processor {model}: verl finds no processor there (`ssl4rl doctor --model {model}`)")
    settings = plan_settings(built.plan)
    found: dict[str, list[int]] = defaultdict(list)
    for rows in _splits(built):
        as_video = shows_video(rows.held_out(), settings, processor)
        for row in _spread(rows, MEASURED):
            found[row.kind].append(prompt_length(row, settings, processor, processor.tokenizer, as_video).tokens)
            advance()
    return {
        "model": model,
        "limit": limit,
        "kinds": {
            kind: {
                "n": len(counts),
                "min": min(counts),
                "median": statistics.median(counts),
                "max": max(counts),
                "over_limit": sum(count > limit for count in counts),
            }
            for kind, counts in sorted(found.items())
        },
    }


def _splits(built: FinishedBuild) -> list[StoredRows]:
    return [StoredRows(built.folder, split) for split in SPLITS if built.plan.rows[split]]


def _spread(rows: StoredRows, each: int) -> list[Row]:
    """Up to `each` rows of every kind, spread over the split."""
    kinds = max(1, len(rows.settings.arms)) if rows.split != "questions" else 1
    step = max(1, len(rows) // (each * kinds))
    taken: Counter[str] = Counter()
    found = []
    for index in range(0, len(rows), step):
        row = rows[index]
        if taken[row.kind] < each:
            taken[row.kind] += 1
            found.append(row)
    return found


def write_report(built: FinishedBuild, values: Mapping[str, Any]) -> Path:
    """Write both files into the build's folder; returns the page. Raises OSError."""
    with writing(built.folder / JSON) as file:
        file.write(json.dumps(values, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    with writing(built.folder / HTML) as file:
        file.write(_page(built, values).encode("utf-8", "replace"))
    return built.folder / HTML


def _page(built: FinishedBuild, values: Mapping[str, Any]) -> str:
    sections: dict[str, list[dict[str, Any]]] = {}
    for rows in _splits(built):
        for row in _spread(rows, SHOWN):
            sections.setdefault(row.kind, []).append(
                card(row, row.prompt, row.info["gold"], row.info["params"], f"{row.info['sample']}, {row.info['item']}")
            )
    return render(
        "build.html.j2",
        values=values,
        sections=[{"kind": kind, "cards": cards[: 2 * SHOWN]} for kind, cards in sorted(sections.items())],
        answers={line["kind"]: _bars(line["answers"]) for line in values["kinds"] if line["answers"]},
        size=size_text,
    )


def _bars(answers: Mapping[str, int]) -> Sequence[tuple[str, int, float]]:
    """Answer, number, and length of its bar as a share of the longest."""
    most = max(answers.values())
    return [(readable(answer, 40), number, number / most) for answer, number in answers.items()]


def size_text(count: float) -> str:
    """1234567 bytes as `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"
