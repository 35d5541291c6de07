"""Choose the source of a command from the user's path, or the built-in samples."""

from __future__ import annotations

import inspect
from pathlib import Path

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.registry import RegistryError
from ssl4rl_plugin.data.arms import SourceSettings
from ssl4rl_plugin.data.choose_source import holds, source_of
from ssl4rl_plugin.data.source import registry
from ssl4rl_plugin.data_builders.sources.shard_names import braces

SAMPLES = {"image": "sample_photos", "rgbd": "sample_depth", "video": "sample_videos", "graph": "les_miserables"}
"""The built-in sample source for each kind of item."""
MAX_PIXELS = 1024 * 1024
"""Maximum number of pixels of a source picture, as in the base recipe. Larger ones are shrunk."""


def source_for(kind: str, path: Path | None, name: str | None, crops: int, val_fraction: float = 0.0) -> SourceSettings:
    """The source of items of a kind (one of `core.KINDS`).

    A named source is used if its items are of that kind; items of all kinds but graphs serve as images. Without a name, the
    path decides. Without a path, or if it has no items of that kind, the built-in samples are used.

    Args:
        kind: the kind of items that a task needs.
        path: the user's path.
        name: the user's name of a source.
        crops: crops of each sample picture.
        val_fraction: share of the groups held out.

    Raises:
        UserError: there is no such source, or it has items of another kind.
    """
    if name is not None:
        of = registry.get(name).kind
        if kind != of and not (kind == "image" and of != "graph"):
            raise UserError(
                f"it needs items of kind {kind!r}, and source {name!r} has items of kind {of!r}: choose a source that "
                "fits (`ssl4rl sources` lists each one's kind)"
            )
        chosen = name
    elif path is None:
        chosen = SAMPLES[kind]
    elif kind == "image":
        chosen = source_of(path)
    elif kind == "graph":
        chosen = "planetoid" if path.is_dir() else "graph"
    else:
        chosen = kind if holds(kind, path) else SAMPLES[kind]
    try:
        accepted = inspect.signature(registry.get(chosen)).parameters
    except RegistryError as error:
        raise UserError(f"it needs a source of kind {kind!r}: {error}") from error
    return SourceSettings(
        name=chosen,
        path=None if path is None or chosen in SAMPLES.values() else str(path),
        options={"crops": crops} if chosen in SAMPLES.values() and "crops" in accepted else {},
        manifest=None,
        val_fraction=val_fraction,
        max_pixels=MAX_PIXELS,
    )


def named_source(what: str, path: Path | None, source: str | None) -> tuple[str, Path | None]:
    """Name and path of the source that the user gave as a name (with --path), or as a path alone.

    Raises UserError.
    """
    if source is None and what in registry.names():
        if path is None and Path(what).exists():
            raise UserError(f"{what!r} is a source and a path: write ./{what} for the path, or --path for the source's")
        return what, path
    if path is not None:
        raise UserError(f"{what!r} is no source (`ssl4rl sources` lists them); if it is a path, leave out --path")
    place = Path(what).expanduser()
    if not place.exists() and not braces(what):  # `{000..012}.tar` is several files
        hub = f"; a data set of the Hub: hf --path {what}" if what.count("/") == 1 and what[0] not in "./~" else ""
        raise UserError(f"there is no path {what}, and no such source{hub}; sources are: {', '.join(registry.names())}")
    return source or source_of(place), place


def described(source: SourceSettings) -> str:
    """Description of a source for a page."""
    if source.path:
        return source.path
    return {
        "sample_photos": "the photographs that come with scikit-image",
        "sample_depth": "the stereo scene that comes with scikit-image",
        "les_miserables": "the characters of Les Misérables (networkx)",
    }.get(source.name, f"source {source.name}")
