"""Choose the source that reads a path, from the ending of a file or the content of a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.registry import RegistryError
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import Source, SourceError, load_source, registry

_IN_FOLDERS = ("folder", "video", "parquet", "webdataset", "zip", "tsv", "hf")  # in the order in which they are tried
_TRIED = 20  # maximum number of files opened to check whether a folder holds items of a kind
_PACKED_TAR = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz|tzst)$")
_BASE64_HEADER = {b"index", b"image"}  # columns of a .tsv file with its pictures inside


def source_of(path: Path) -> str:
    """The source that reads a path, from the ending of a file or the content of a folder.

    Raises UserError: no source reads files with this ending (the message lists those that are read), or several do.
    """
    if path.is_dir():
        return next((name for name in _IN_FOLDERS if holds(name, path)), "folder")
    found = _sources_of_ending(path.name)
    if len(found) > 1:
        raise UserError(f"{path.name} could be read by {' and '.join(found)}: choose one with --source")
    if found == ["tsv"] and _lists_paths(path):
        return "list"
    if not found and path.is_file():
        raise UserError(f"{path.name}: {kinds_of_files(path.name)}")
    return found[0] if found else "folder"


def kinds_of_files(name: str) -> str:
    """Which source reads a file of this name, or that none does and which kinds of files are read; for messages."""
    if found := _sources_of_ending(name):
        return (
            f"source {' or '.join(found)} reads it: name it with ssl4rl.source.name={found[0]} or --source {found[0]}"
        )
    known = " ".join(sorted({ending for kind in _kinds() for ending in kind.endings}))
    return f"unknown kind of file; known: {known}, and folders of images or videos; a graph: source graph"


def _sources_of_ending(name: str) -> list[str]:
    """The sources that claim the ending of a file name (`Source.endings`)."""
    # A packed tar file is left to the source of tar files, which says what to do.
    name = _PACKED_TAR.sub(".tar", name.lower())
    return sorted({kind.name for kind in _kinds() if name.endswith(kind.endings)})


def _kinds() -> Iterator[type[Source]]:
    for name in registry.names():
        try:
            yield registry.get(name)
        except RegistryError:  # a broken package does not stand in the way of another source
            continue


def _lists_paths(path: Path) -> bool:
    """Whether a .tsv file has no column of pictures in base64, so that it can only name files."""
    try:
        with open(path, "rb") as file:
            header = file.readline(65536).removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return False
    columns = {column.strip().strip(b'"') for column in header.split(b"\t")}
    return bool(header.strip()) and not columns >= _BASE64_HEADER


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
