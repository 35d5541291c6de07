"""The folder source: every picture below a folder."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from ssl4rl_plugin.data_builders.source import Record, Source, SourceError
from ssl4rl_plugin.images import ImageError

logger = logging.getLogger(__name__)

EXTENSIONS = (b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".webp", b".gif", b".bmp", b".tif", b".tiff", b".ppm",
              b".pgm", b".pbm", b".pnm", b".apng")  # fmt: skip
"""File names that are listed, in lower case; what they really contain shows when they are read."""


class FolderSource(Source):
    """All image files below a folder, however deep. Hidden files and folders are left out.

    A ref is the path below the folder, with `/`; bytes that are not UTF-8, and `%` itself, are percent-encoded, so
    that any file name survives. Links are followed as long as they stay inside the folder: a link to a file outside is
    rejected (and counted) when it is read, one to a folder outside is reported and skipped.
    """

    name: ClassVar[str] = "folder"
    summary: ClassVar[str] = "image files below a folder, recursively"
    schema: ClassVar[str] = "any tree of JPEG, PNG, WebP, GIF, BMP, TIFF and PPM files"
    licence: ClassVar[str] = "that of your files"
    where: ClassVar[str] = "give the folder that holds your images"
    extensions: ClassVar[tuple[bytes, ...]] = EXTENSIONS
    """Endings of the file names that are listed, in lower case."""
    listed: ClassVar[str] = "image"
    """What such files are, in messages."""

    def __init__(self, path: str | Path | None) -> None:
        super().__init__(path)
        root = self.existing_path()
        if not root.is_dir():
            raise SourceError(f"source {self.name!r}: {root} is a file, not a folder; give the folder that holds it")
        try:
            with os.scandir(root) as entries:
                empty = next(entries, None) is None
        except OSError as error:
            raise SourceError(f"source {self.name!r}: {root} cannot be listed: {error.strerror}") from error
        if empty:
            raise SourceError(f"source {self.name!r}: {root} is empty; put images into it, or give another folder")

    def records(self) -> Iterator[Record]:
        """Real files first, folder by folder in byte order, then what is only reached through links."""
        root = os.fsencode(self.existing_path())
        seen = {root}
        links: list[bytes] = []
        found = False
        pending = [root]
        while pending or links:
            if not pending:
                # Links to folders come last: a real folder is then listed under its own name, whatever links to it.
                link = links.pop()
                target = os.path.realpath(link)
                if not _inside(target, root):
                    logger.warning("%s is a link to a folder outside of %s: skipped", os.fsdecode(link), self.path)
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
            # Both are stacks, so the first in order goes on last.
            pending += reversed(folders)
            links[:0] = reversed(linked)
        if not found:
            endings = " ".join(sorted(ending.decode() for ending in self.extensions))
            raise SourceError(
                f"source {self.name!r}: no {self.listed} files below {self.path}; file names must end in {endings}"
            )

    def stamp(self, ref: str) -> tuple[int, int]:
        return self._locate(ref)[1]

    def read(self, ref: str) -> bytes:
        path, _ = self._locate(ref)
        return read_file(path, ref)

    def _locate(self, ref: str) -> tuple[bytes, tuple[int, int]]:
        """The real path of a file's ref, inside the folder, with its size and modification time."""
        path = self._resolve(ref)
        return path, file_stamp(path, ref)

    def _resolve(self, ref: str) -> bytes:
        """The real path of a ref, which lies inside the folder."""
        below = unquote_to_bytes(ref)
        if not below or below.startswith(b"/") or b"\0" in below or b".." in below.split(b"/"):
            raise SourceError(f"source {self.name!r}: {ref!r} does not lie below {self.path}")
        return inside(os.fsencode(self.existing_path()), below, ref)


def inside(root: bytes, below: bytes, shown: str) -> bytes:
    """The real path of what lies at `below` in the folder `root`; `shown` names it in messages.

    Raises ImageError: `outside_root` where `..`, an absolute path or a link leads out of the folder, `unreadable`.
    """
    if b"\0" in below:
        raise ImageError("unreadable", f"a null byte in the path {shown}")
    path = os.path.realpath(os.path.join(root, below))
    if not _inside(path, root):
        raise ImageError("outside_root", f"{shown} leads to {os.fsdecode(path)}")
    return path


def file_stamp(path: bytes, shown: str) -> tuple[int, int]:
    """Size and modification time (ns) of a regular file. Raises ImageError (`unreadable`)."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ImageError("unreadable", f"{error.strerror}: {shown}") from error
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
        raise ImageError("unreadable", f"not a regular file: {shown}")
    return status.st_size, status.st_mtime_ns


def read_file(path: bytes, shown: str) -> bytes:
    """A file's bytes. Raises ImageError (`unreadable`)."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ImageError("unreadable", f"{error.strerror}: {shown}") from error


def _inside(path: bytes, root: bytes) -> bool:
    return path == root or path.startswith(root.rstrip(b"/") + b"/")


def encoded(path: bytes) -> str:
    """A path as valid UTF-8 text that `unquote_to_bytes` turns back."""
    text = path.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)
