"""What a run says about its sources before it starts: what each holds, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator

from ssl4rl_plugin.data.graphs import GraphManifest
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.mixture import Mixture, Regrouped, parts_of


def source_notes(loaded: Manifest | GraphManifest | Mixture) -> Iterator[str]:
    """One line for each fact, with the source's name if the run has several."""
    for label, manifest in parts_of(loaded):
        of = f"source {label!r}: " if label else ""
        if isinstance(manifest, GraphManifest):
            yield f"{of}{manifest.summary()}"
            continue
        if label:
            counts = ", ".join(f"{split} {len(manifest.items(split)):,}" for split in ("train", "val"))
            yield f"{of}{manifest.source.name}, items of kind {manifest.source.kind}: {counts}"
        if about := manifest.source.about():
            yield of + ", ".join(f"{key} {value}" for key, value in about.items())
        if manifest.rejected:
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(manifest.rejected.items()))
            yield f"{of}{sum(manifest.rejected.values())} images are left out: {counts}"
        if isinstance(manifest, Regrouped) and manifest.held_out:
            yield f"{of}{manifest.held_out} training images are held out, since another source validates on the same"


def shows_evaluated_texts(loaded: Manifest | GraphManifest | Mixture) -> str | None:
    """The setting that keeps the texts of evaluated nodes out of training prompts, where it is needed; else None."""
    for label, manifest in parts_of(loaded):
        if isinstance(manifest, GraphManifest) and not manifest.graph.inductive:
            if label:
                return f"`inductive: true` in the options of source {label!r}"
            return "+ssl4rl.source.options.inductive=true"
    return None
