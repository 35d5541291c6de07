"""Open the manifest of a source, or have the indexer for the source's kind of item make it.

Indexers are found by entry point (group `ssl4rl.indexers`, named after a kind of item), so that training does not import
`data_builders`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.registry import Registry
from ssl4rl_plugin.data.arms import SourceSettings, StreamSettings
from ssl4rl_plugin.data.choose_source import source_of
from ssl4rl_plugin.data.graphs import GraphManifest
from ssl4rl_plugin.data.manifest import Manifest, is_manifest
from ssl4rl_plugin.data.mixture import Mixture
from ssl4rl_plugin.data.source import SourceError, load_source, registry

Indexer = Callable[..., Manifest | GraphManifest]
"""Turns a source into a manifest. Called with a source, the manifest's path or None, and the keyword arguments
val_fraction, seed and progress."""

indexers: Registry[Indexer] = Registry("ssl4rl.indexers", "indexer")


def load_manifest(settings: StreamSettings, progress: bool = False) -> Manifest | GraphManifest | Mixture:
    """The manifest of the source in `settings`, or the mixture of its sources. Raises SourceError.

    If a path is that of a manifest, it is used unchanged; otherwise one is made or updated.
    """
    if not settings.sources:
        return manifest_of(settings.source, settings.seed, progress)
    found = []
    for one in settings.sources:
        try:
            found.append(manifest_of(one, settings.seed, progress))
        except UserError as error:
            chosen = "" if one.name else " (the path chose the source; `source: NAME` in its entry names another)"
            raise SourceError(f"ssl4rl.sources, {one.label!r}: {error}{chosen}") from error
    return Mixture(settings.sources, found)


def picture_manifest(spec: SourceSettings, seed: int, progress: bool = False) -> Manifest:
    """The manifest of a source of pictures or videos. Raises SourceError, also if the source is a graph."""
    manifest = manifest_of(spec, seed, progress)
    if isinstance(manifest, GraphManifest):
        raise SourceError(f"source {spec.name!r} is a graph; here a source of pictures or videos is needed")
    return manifest


def manifest_of(spec: SourceSettings, seed: int, progress: bool = False) -> Manifest | GraphManifest:
    """`load_manifest` for a source and the seed of its split."""
    if spec.path is not None and is_manifest(Path(spec.path)):
        return Manifest.load(spec.path)
    source = load_source(_named(spec), spec.path, **spec.options)
    return indexers.get(source.kind)(
        source,
        Path(spec.manifest) if spec.manifest else None,
        val_fraction=spec.val_fraction,
        seed=seed,
        progress=progress,
    )


def _named(spec: SourceSettings) -> str:
    """The name of the source in `spec`, or of the one that reads its path. Raises UserError.

    `folder` is the recipes' default name, so with it too the path decides, among sources of pictures.
    """
    if not spec.name:
        return _chosen(spec.path)
    if spec.name != "folder" or spec.path is None:
        return spec.name
    place = Path(spec.path).expanduser()
    found = source_of(place) if place.exists() or "{" in place.name else spec.name
    return found if registry.get(found).kind == "image" else spec.name


def _chosen(path: str | None) -> str:
    """The source that reads a path. Raises UserError."""
    place = Path(path or "").expanduser()
    if not place.exists():
        raise SourceError(f"there is no path {path}; name the source if it is none (`ssl4rl sources` lists them)")
    return source_of(place)
