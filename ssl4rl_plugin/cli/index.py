"""`ssl4rl index`: make or update the manifest of a source, and print a summary of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape

from ssl4rl_plugin.analysis.terminal import show_json, table
from ssl4rl_plugin.cli.sources_for import named_source
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.files import OUTSIDE, roots_for
from ssl4rl_plugin.data.graphs import GraphManifest, GraphSource
from ssl4rl_plugin.data.images import NO_READER
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.source import load_source
from ssl4rl_plugin.data_builders.index.depths import depth_figures
from ssl4rl_plugin.data_builders.index.groups import SIDES
from ssl4rl_plugin.data_builders.index.indexer import build_manifest


def run_index(
    what: str,
    path: Path | None,
    source: str | None,
    options: dict[str, Any],
    *,
    download: bool,
    out: Path | None,
    workers: int | None,
    val_fraction: float,
    seed: int,
    as_json: bool,
) -> None:
    """Index a source, and print a summary and the path of its manifest. A graph is read and divided: one line tells it.

    Args:
        what: name of a source, or a path.
        path: path of a named source's files; with `download`, the parent of the new folder (None: the Hub's cache).
        source: name of the source if `what` is a path; None to choose it by the path.
        options: options of the source.
        download: download the files of a named source first.
        out, workers, val_fraction, seed: see `build_manifest`.
        as_json: print JSON instead.

    Raises:
        UserError: bad input, or no usable picture; the message says what to do.
    """
    console = Console(stderr=True)
    name, path = named_source(what, path, source)
    if download:
        if what != name:
            raise UserError(f"--download needs the name of a source (`ssl4rl sources`), and {what!r} is a path")
        from ssl4rl_plugin.data_builders.sources.download import download as fetch

        path = fetch(name, path)
    opened = load_source(name, path, **options)
    if isinstance(opened, GraphSource):
        if out is not None:
            raise UserError("--out is for sources of pictures and videos: a graph has no manifest file")
        graph = GraphManifest(opened, val_fraction, seed)
        if as_json:
            show_json(graph.facts())
        else:
            print(graph.summary())
        return
    manifest = build_manifest(
        opened, out, val_fraction=val_fraction, seed=seed, workers=workers,
        progress=console.is_terminal, depth_warning=False,  # `_show` prints it, also where nothing has changed
    )  # fmt: skip
    found = summary(manifest)
    if as_json:
        show_json(found)
        return
    _show(console, found)
    print(manifest.path)


def summary(manifest: Manifest) -> dict[str, Any]:
    """Summary of a manifest as JSON."""
    columns = manifest.table.select(["sha256", "group", "split", "box", "reason"])
    good = columns.filter(columns["reason"].is_null())
    whole = good.filter(good["box"].is_null())
    sides = {side: good.filter(pc.equal(good["split"], side)) for side in SIDES}
    contents = _different(whole["sha256"])
    return {
        "manifest": str(manifest.path),
        "source": manifest.settings["source"],
        "path": manifest.settings["path"],
        "images": len(columns),
        "splits": {side: {"images": len(rows), "groups": _different(rows["group"])} for side, rows in sides.items()},
        "copies": {"equal": len(whole) - contents, "alike": contents - _different(whole["group"])},
        "left_out": dict(manifest.rejected.most_common()),
        "remedies": remedies(manifest),
        "notes": manifest.source.notes(),
        "about": manifest.source.about(),
        "depth": _depth(manifest),
    }


def remedies(manifest: Manifest) -> dict[str, str]:
    """What to do about the images left out, by reason, where there is something to do."""
    found = {reason: remedy for reason, remedy in NO_READER.items() if reason in manifest.rejected}
    if OUTSIDE in manifest.rejected:
        details = manifest.table.filter(pc.equal(manifest.table["reason"], OUTSIDE))["detail"].to_pylist()
        found[OUTSIDE] = " ".join(f"--option root={folder}" for folder in roots_for(details))
    return {reason: remedy for reason, remedy in found.items() if remedy}


def _depth(manifest: Manifest) -> dict[str, Any] | None:
    """The depths of an RGB-D source in metres, with a warning if its scale is hardly right; None for other sources."""
    figures = depth_figures(manifest) if manifest.source.kind == "rgbd" else None
    if figures is None:
        return None
    warning = figures.warning(manifest.source.options.get("depth_scale"))
    return {**asdict(figures), "text": str(figures), "warning": warning}


def _different(column: Any) -> int:
    return int(pc.count_distinct(column).as_py())


def _show(console: Console, found: dict[str, Any]) -> None:
    """Print the splits, the images left out by reason with what to do, the number of duplicates, and the depths."""
    used = table("split", "images", "groups")
    for side, counts in found["splits"].items():
        used.add_row(side, f"{counts['images']:,}", f"{counts['groups']:,}")
    console.print(used)
    if found["left_out"]:
        # Folders are too long for a column.
        short = {reason: text for reason, text in found["remedies"].items() if reason != OUTSIDE}
        left = table("left out", "images", *(["what to do"] if short else []))
        for reason, count in found["left_out"].items():
            left.add_row(escape(reason), f"{count:,}", *([escape(short.get(reason, ""))] if short else []))
        console.print()
        console.print(left)
        if roots := found["remedies"].get(OUTSIDE):
            console.print(f"\nto read those {OUTSIDE}: {escape(roots)}", soft_wrap=True, highlight=False)
    if found["about"]:
        stated = ", ".join(f"{key} {value}" for key, value in found["about"].items())
        console.print(f"\n{escape(stated)}", soft_wrap=True, highlight=False)
    good = sum(counts["images"] for counts in found["splits"].values())
    console.print(
        f"\n{good:,} of {found['images']:,} images of source {escape(found['source'])} can be used; "
        f"{found['copies']['equal']:,} are files equal to another, and {found['copies']['alike']:,} more are in a group "
        "with others",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    if found["depth"]:
        console.print(escape(found["depth"]["text"]), soft_wrap=True, highlight=False)
        if found["depth"]["warning"]:
            console.print(
                f"[bold yellow]warning:[/] {escape(found['depth']['warning'])}", soft_wrap=True, highlight=False
            )
