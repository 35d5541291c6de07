"""Read files whose paths come from data. Paths must stay inside their root; every failure has a reason that is counted."""

from __future__ import annotations

import os
import re
import stat

from ssl4rl_plugin.data.images import ImageError


def inside(root: bytes, below: bytes, shown: str) -> bytes:
    """The real path of `below` in the folder `root`; `shown` is its name in messages.

    Raises ImageError: `outside_root` if `..`, an absolute path or a link leads out of the folder; `unreadable` for a path
    with a null byte.
    """
    if b"\0" in below:
        raise ImageError("unreadable", f"a null byte in the path {shown}")
    path = os.path.realpath(os.path.join(root, below))
    if not lies_inside(path, root):
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


def lies_inside(path: bytes, root: bytes) -> bool:
    """Whether a real path is the root or lies below it."""
    return path == root or path.startswith(root.rstrip(b"/") + b"/")


def encoded(path: bytes) -> str:
    """Encode a path as valid UTF-8 text; `unquote_to_bytes` is the inverse."""
    text = path.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)
