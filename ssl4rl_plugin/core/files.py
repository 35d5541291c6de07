"""Atomic writing of files and folders, locks, and the cache folder."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from ssl4rl_plugin.core.errors import UserError

TEMPORARY = ".tmp"
"""Suffix of files and folders that are being written."""
ABANDONED = 3600.0
"""Age in seconds from which a temporary file counts as left over from a killed process."""


class WriteError(UserError):
    """A file cannot be written; the message names it and the reason."""


def cache_dir() -> Path:
    """`$SSL4RL_CACHE`, or ~/.cache/ssl4rl."""
    return Path(os.environ.get("SSL4RL_CACHE") or "~/.cache/ssl4rl").expanduser().resolve()


def temporary(path: Path) -> Path:
    """A hidden path in the same folder as `path`, unique over all processes and machines."""
    return path.with_name(f".{path.name.removeprefix('.')}.{uuid.uuid4().hex}{TEMPORARY}")


@contextmanager
def writing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing; it appears under its name only if the block ends without an error.

    If two processes write the same file, the last one wins.

    Args:
        path: the file; its folder must exist.
        durable: sync the file and its folder, so that both survive a power cut.

    Raises:
        OSError: the file cannot be written.
    """
    unfinished = temporary(path)
    try:
        with open(unfinished, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(unfinished, path)
        if durable:
            sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def write_file(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file with `writing`, and make its folder if needed. Raises WriteError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as file:
            fill(file)
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written: {error.strerror or error}; correct that and start again. Finished work is kept"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file with `writing`, and make its folder if needed. Raises WriteError."""
    write_file(path, lambda file: file.write(text.encode("utf-8")))


@contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """Make a folder; it appears under its name only if the block ends without an error.

    If another process makes `folder` in the meantime, that one is kept. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary(folder)
    unfinished.mkdir()
    try:
        yield unfinished
        try:
            os.replace(unfinished, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def claimed(lock: Path, busy: UserError) -> Iterator[None]:
    """Hold a lock file while the block runs. The operating system releases it if the process dies.

    Raises `busy` if another process holds it, OSError if the file cannot be created.
    """
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        held.release()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_files(paths: Iterable[Path]) -> None:
    """Make files and their names survive a power cut."""
    folders = set()
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        folders.add(path.parent)
    for folder in sorted(folders):
        sync_folder(folder)


def remove_leftovers(paths: Iterable[Path], older_than: float = 0.0) -> None:
    """Delete temporary files of killed processes, if they are older than `older_than` seconds."""
    for path in paths:
        with suppress(OSError):  # its writer has just finished, or the folder is read-only
            if not older_than or time.time() - path.stat().st_mtime > older_than:
                path.unlink(missing_ok=True)
