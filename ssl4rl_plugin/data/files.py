"""Read files whose paths come from data. Paths must stay inside their root; every failure has a reason that is counted."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import SourceError

OUTSIDE = "outside_root"
"""The reason of a path that leads out of all folders that the user has allowed."""

_LEADS_TO = " leads to "
_REMEDY = "; to allow it, give the option root="


def inside(root: bytes, below: bytes, shown: str, allowed: Sequence[bytes] | None = None) -> bytes:
    """The real path of `below` in the folder `root`; `shown` is its name in messages.

    Args:
        root: the folder, a real path.
        below: a path, relative to it or absolute.
        shown: its name in messages.
        allowed: further folders that the path may lead to (the option `root` of a source); None if there is no such option.

    Raises ImageError: `outside_root` if `..`, an absolute path or a link leads out of these folders; `unreadable` for a path
    with a null byte.
    """
    if b"\0" in below:
        raise ImageError("unreadable", f"a null byte in the path {shown}")
    path = os.path.realpath(os.path.join(root, below))
    if not any(lies_inside(path, folder) for folder in (root, *(allowed or ()))):
        remedy = "" if allowed is None else f"{_REMEDY}{os.fsdecode(os.path.dirname(path))}"
        raise ImageError(OUTSIDE, f"{shown}{_LEADS_TO}{os.fsdecode(path)}{remedy}")
    return path


def roots_for(details: Iterable[str]) -> list[str]:
    """The folders to give as option `root` so that these rejections (`outside_root`) go away: their common one, if any."""
    folders = {detail.rpartition(_REMEDY)[2] for detail in details if _REMEDY in detail}
    common = os.path.commonpath(folders) if folders else ""
    # Not the root of the file system: it would allow everything.
    return sorted({os.sep.join(f.split(os.sep)[:3]) for f in folders}) if common == os.sep else [common] * bool(folders)


def allowed_folders(source: str, root: Any) -> list[str]:
    """The real paths of the folders in an option `root`: a path, a list of paths, or None. Raises SourceError."""
    given = root if isinstance(root, list | tuple) else [] if root is None else [root]
    found = []
    for folder in given:
        if not isinstance(folder, str | Path) or not str(folder):
            raise SourceError(f"source {source!r}: root is a folder or a list of folders, got {root!r}")
        path = Path(folder).expanduser().resolve()
        if not path.is_dir():
            raise SourceError(f"source {source!r}: root={folder} is not a folder; give the folder that holds the files")
        found.append(str(path))
    return found


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


def lies_inside(path: bytes, root: bytes) -> bool:
    """Whether a real path is the root or lies below it."""
    return path == root or path.startswith(root.rstrip(b"/") + b"/")


def encoded(path: bytes) -> str:
    """Encode a path as valid UTF-8 text; `unquote_to_bytes` is the inverse."""
    text = path.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)
