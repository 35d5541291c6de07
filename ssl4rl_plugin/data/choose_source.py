"""Choose the source that reads a path, from the ending of a file or the content of a folder."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.registry import RegistryError
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import SourceError, load_source, registry

_IN_FOLDERS = ("hf", "folder", "video", "parquet", "webdataset", "tsv")  # in the order in which they are tried
_TRIED = 20  # maximum number of files opened to check whether a folder holds items of a kind


def source_of(path: Path) -> str:
    """The source that reads a path, from the ending of a file or the content of a folder."""
    if not path.is_dir():
        return _source_of_ending(path.suffix.lower())
    return next((name for name in _IN_FOLDERS if holds(name, path)), "folder")


def _source_of_ending(ending: str) -> str:
    """The source that claims an ending of file names (`Source.endings`). Raises UserError if several do."""
    found = []
    for name in registry.names():
        try:
            if ending in registry.get(name).endings:
                found.append(name)
        except RegistryError:  # a broken package does not stand in the way of another source
            continue
    if len(found) > 1:
        raise UserError(f"files with the ending {ending} are read by {' and '.join(found)}: choose one with --source")
    return found[0] if found else "folder"


def holds(name: str, path: Path) -> bool:
    """Whether a source finds a readable item at the path."""
    try:
        source = load_source(name, path)
        for record in islice(source.records(), _TRIED):
            try:
                source.read(record.ref)
                return True
            except ImageError:
                continue
    except (SourceError, RegistryError):
        pass
    return False
