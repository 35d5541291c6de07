"""The folder source: all pictures below a folder."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes

from ssl4rl_plugin.data.choose_source import kinds_of_files
from ssl4rl_plugin.data.files import allowed_folders, encoded, file_stamp, inside, lies_inside, read_file
from ssl4rl_plugin.data.source import Record, Source, SourceError
from ssl4rl_plugin.data_builders.sources.endings import IMAGES, ending_of, other_files

logger = logging.getLogger(__name__)

EXTENSIONS = IMAGES
"""Endings of the listed file names, in lower case. The content is checked when a file is read."""


class FolderSource(Source):
    """All image files below a folder, at any depth. Hidden files and folders are left out.

    A ref is the path below the folder, with `/`. Bytes that are not UTF-8, and `%` itself, are percent-encoded, so any file
    name is possible. Links inside the folder are followed. A link to a file outside is rejected when it is read; a link to
    a folder outside is skipped with a warning. Files with other endings are counted in a warning.

    Args:
        path: the folder.
        root: folders outside that links may lead to, such as the cache of the Hugging Face Hub: a path or a list.
    """

    name: ClassVar[str] = "folder"
    summary: ClassVar[str] = "image files below a folder, recursively"
    schema: ClassVar[str] = "any tree of JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF and (with pillow-heif) HEIC files"
    licence: ClassVar[str] = "that of your files"
    where: ClassVar[str] = "give the folder that holds your images"
    extensions: ClassVar[tuple[bytes, ...]] = EXTENSIONS
    """Endings of the listed file names, in lower case."""
    listed: ClassVar[str] = "image"
    """Word for such files in messages."""

    def __init__(self, path: str | Path | None, root: str | list[str] | None = None) -> None:
        super().__init__(path)
        place = self.existing_path()
        allowed = allowed_folders(self.name, root)
        # Left out where it is not given: manifests of earlier versions stay valid.
        self.options: dict[str, Any] = {"root": allowed} if allowed else {}
        self._allowed = tuple(os.fsencode(folder) for folder in allowed)
        self._others: Counter[str] = Counter()
        if not place.is_dir():
            raise SourceError(
                f"source {self.name!r}: {place} is a file, not a folder; give the folder that holds it"
                f" ({kinds_of_files(place.name)})"
            )
        try:
            with os.scandir(place) as entries:
                empty = next(entries, None) is None
        except OSError as error:
            raise SourceError(f"source {self.name!r}: {place} cannot be listed: {error.strerror}") from error
        if empty:
            raise SourceError(f"source {self.name!r}: {place} is empty; put images into it, or give another folder")

    def records(self) -> Iterator[Record]:
        """Real files first, folder by folder in byte order, then files reached only through links."""
        root = os.fsencode(self.existing_path())
        self._others = Counter()
        seen = {root}
        links: list[bytes] = []
        found = False
        pending = [root]
        while pending or links:
            if not pending:
                # Links to folders come last, so that a real folder is listed under its own name.
                link = links.pop()
                target = os.path.realpath(link)
                if not any(lies_inside(target, folder) for folder in (root, *self._allowed)):
                    logger.warning(
                        "%s is a link to a folder outside of %s: skipped; to allow it, give the option root=%s",
                        os.fsdecode(link), self.path, os.fsdecode(target),
                    )  # fmt: skip
                    continue
                if target in seen:
                    continue
                seen.add(target)
                pending.append(link)
            folder = pending.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                logger.warning("%s cannot be listed (%s): skipped", os.fsdecode(folder), error.strerror)
                continue
            folders: list[bytes] = []
            linked: list[bytes] = []
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    seen.add(os.path.realpath(entry.path))
                    folders.append(entry.path)
                elif entry.is_symlink() and os.path.isdir(entry.path):  # False for a link to itself
                    linked.append(entry.path)
                elif entry.name.lower().endswith(self.extensions):
                    found = True
                    yield Record(encoded(os.path.relpath(entry.path, root)))
                else:
                    self._others[ending_of(os.fsdecode(entry.name))] += 1
            # Both are stacks: the first in order is pushed last.
            pending += reversed(folders)
            links[:0] = reversed(linked)
        if not found:
            endings = " ".join(sorted(ending.decode() for ending in self.extensions))
            others = other_files(self._others, every=True)
            raise SourceError(
                f"source {self.name!r}: no {self.listed} files below {self.path}; file names must end in {endings}"
                f"{f'; there are {others}' if others else ''}"
            )

    def notes(self) -> list[str]:
        others = other_files(self._others)
        return [f"{self.path}: not read: {others}"] if others else []

    def stamp(self, ref: str) -> tuple[int, int]:
        return self._locate(ref)[1]

    def read(self, ref: str) -> bytes:
        path, _ = self._locate(ref)
        return read_file(path, ref)

    def _locate(self, ref: str) -> tuple[bytes, tuple[int, int]]:
        """The real path of a ref, inside the folder, with the file's size and modification time."""
        path = self._resolve(ref)
        return path, file_stamp(path, ref)

    def _resolve(self, ref: str) -> bytes:
        """The real path of a ref, inside the folder."""
        below = unquote_to_bytes(ref)
        if not below or below.startswith(b"/") or b"\0" in below or b".." in below.split(b"/"):
            raise SourceError(f"source {self.name!r}: {ref!r} does not lie below {self.path}")
        return inside(os.fsencode(self.existing_path()), below, ref, self._allowed)
