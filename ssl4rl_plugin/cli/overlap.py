"""`ssl4rl overlap`: which images two data sets share."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ssl4rl_plugin.analysis.terminal import show, show_json, table
from ssl4rl_plugin.cli.sources_for import source_for
from ssl4rl_plugin.data.indexing import picture_manifest
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.overlap import overlap

LISTED = 50
"""Maximum number of pairs in the table."""


def run_overlap(one: Path, other: Path, source: str | None, other_source: str | None, as_json: bool) -> int:
    """Print the images that two data sets share; returns the exit code: 1 if there are any, else 0.

    Raises UserError: one of them cannot be read.
    """
    console = Console(stderr=True)
    manifests = _manifest(one, source, console), _manifest(other, other_source, console)
    shared = overlap(*manifests)
    sizes = [len(manifest.items("train")) + len(manifest.items("val")) for manifest in manifests]
    if as_json:
        show_json({"images": sizes, "shared": [asdict(pair) for pair in shared]})
        return int(bool(shared))
    if shared:
        made = table("image", "the same in the other", "how")
        for pair in shared[:LISTED]:
            made.add_row(escape(pair.one), escape(pair.other), pair.how)
        show(made)
    more = f" ({LISTED} shown; --json lists all)" if len(shared) > LISTED else ""
    console.print(f"{len(shared):,} of {sizes[0]:,} images of {escape(str(one))} are among the {sizes[1]:,} of "
                  f"{escape(str(other))}{more}", soft_wrap=True, highlight=False)  # fmt: skip
    return int(bool(shared))


def _manifest(path: Path, source: str | None, console: Console) -> Manifest:
    return picture_manifest(source_for("image", path, source, crops=0), seed=0, progress=console.is_terminal)
