"""Atomic writing of files and folders, locks, and the cache folder."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from ssl4rl_plugin.core.errors import UserError

TEMPORARY = ".tmp"
"""Suffix of files and folders that are being written."""
ABANDONED = 3600.0
"""Age in seconds from which a temporary file counts as left over from a killed process."""


class WriteError(UserError):
    """A file cannot be written; the message names it and the reason."""


LARGEST_JSON = 2**30
"""Bytes of the largest JSON file that `read_json` reads. The parsed values take about ten times as much memory."""


class JsonError(UserError):
    """A JSON file cannot be read; the message names it, the place and the reason."""


def parse_json(text: str | bytes, where: object, unique: bool = False) -> Any:
    """Parse JSON of a user.

    Args:
        text: the JSON text.
        where: name of the file, with a line if it has one, for the message.
        unique: refuse objects that have a key more than once. Python keeps the last value and drops the others.

    Raises:
        JsonError: it is no JSON, nests too deeply, or has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise JsonError(f"{where} cannot be read: its brackets nest too deeply for a file of data") from None
    except ValueError as error:  # also bytes that are no UTF-8, and numbers of thousands of digits
        raise JsonError(f"{where} cannot be read as JSON: {error}") from error


def read_json(path: Path, unique: bool = False, largest: int = LARGEST_JSON) -> Any:
    """Read a JSON file of a user (UTF-8, UTF-16 or UTF-32, with or without a byte order mark).

    Args:
        path: the file.
        unique: see `parse_json`.
        largest: bytes; a larger file is refused before it is read.

    Raises:
        JsonError: as `parse_json`, or the file is missing, unreadable or too large.
    """
    try:
        size = path.stat().st_size
        if size > largest:
            raise JsonError(f"{path} has {size:,} bytes, and a JSON file is read at once up to {largest:,}: split it")
        return parse_json(path.read_bytes(), path, unique)
    except OSError as error:
        raise JsonError(f"{path} cannot be read: {error.strerror or error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"an object has the key {twice[:80]!r} more than once")
    return found


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
