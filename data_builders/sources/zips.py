"""The zip source: pictures inside ZIP files, read in place without unpacking."""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from ssl4rl_plugin.data.files import encoded
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import Record, Source, SourceError, splits_used, stated_split
from ssl4rl_plugin.data_builders.sources.endings import IMAGES, ending_of, other_files

logger = logging.getLogger(__name__)

BOMB_BYTES, BOMB_RATIO = 32 * 2**20, 200
"""Bytes, and size through compressed size. A member that exceeds both is rejected unread (`too_large`)."""

_ENCRYPTED = 0x1  # flag bit of a member
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_OPEN = 15  # further archives that a thread keeps open
_HEADER = 30  # least bytes of a member's own header


class ZipSource(Source):
    """Image files in a `.zip` file, at any depth of folders, or in all `.zip` files below a folder, in order.

    Nothing is unpacked: a picture is read by its position. A ref is the member's name, after the archive's path and `/` if a
    folder was given; the name is never used as a path. Members that begin with `.`, or lie in `__MACOSX`, are hidden files.
    Where a name occurs twice, the last one counts, as in unpacking. Links and members with other endings are counted in a
    warning.

    Reasons for rejection: `encrypted`; `unsupported_compression`; `too_large`, also for a member that was compressed more
    than 200 times; `truncated` or `broken`, the archive ends before, or the checksum differs. An archive whose members
    overlap is refused.

    Args:
        path: the .zip file, or a folder with .zip files.
        use_splits: whether the folders at the top of the archive are splits (`train`, `val`, ...); None: if all of them have
            such names, with `train` and another.
    """

    name: ClassVar[str] = "zip"
    summary: ClassVar[str] = "ZIP files of images, read in place"
    endings: ClassVar[tuple[str, ...]] = (".zip",)
    schema: ClassVar[str] = ".zip files with images in any folders; others (txt, json) are not used; no passwords"
    licence: ClassVar[str] = "that of the data set"
    where: ClassVar[str] = "give a .zip file, or the folder that holds some"

    def __init__(self, path: str | Path | None, use_splits: bool | None = None) -> None:
        super().__init__(path, use_splits=use_splits)
        place = self.existing_path()
        root = place if place.is_dir() else None
        files = [place] if root is None else sorted(file for file in place.rglob("*") if _is_archive(file, place))
        if not files:
            raise SourceError(f"source 'zip': no .zip files below {place}; {self.where}")
        self.archives = {"" if root is None else encoded(os.fsencode(f.relative_to(root))) + "/": f for f in files}
        self._others: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._local = threading.local()

    def records(self) -> Iterator[Record]:
        self._others, self._left_out = Counter(), Counter()
        found = False
        for prefix, file in self.archives.items():
            names = [name for name, member in self._members(file).items() if self._is_picture(name, member)]
            splits = _splits(names)
            used = splits_used(self.options["use_splits"], splits.values())
            for name in names:
                found = True
                yield Record(prefix + _encoded(name), splits[name] if used else None)
        if not found:
            endings = " ".join(sorted(ending.decode() for ending in IMAGES))
            others = other_files(self._others, every=True)
            raise SourceError(
                f"source 'zip': no image in {self.path}; members' names must end in {endings}"
                f"{f'; there are {others}' if others else ''}"
            )

    def notes(self) -> list[str]:
        counts = ", ".join(f"{reason} {count}" for reason, count in self._left_out.most_common())
        others = other_files(self._others)
        left_out = [f"{self.path}: members left out: {counts}"] if counts else []
        return left_out + ([f"{self.path}: not read: {others}"] if others else [])

    def stamp(self, ref: str) -> tuple[int, int]:
        file, member = self._member(ref)
        return member.file_size, _modified(file, ref)

    def read(self, ref: str) -> bytes:
        file, member = self._member(ref)
        if member.flag_bits & _ENCRYPTED:
            raise ImageError("encrypted", f"{ref} needs a password: unpack the archive, and give the folder")
        if member.compress_type not in _METHODS:
            method = f"method {member.compress_type} of the ZIP format"
            raise ImageError("unsupported_compression", f"{ref} is packed with {method}: pack it again with Deflate")
        if member.file_size >= BOMB_BYTES and member.file_size > BOMB_RATIO * member.compress_size:
            raise ImageError("too_large", f"{ref} would grow from {member.compress_size} to {member.file_size} bytes")
        try:
            # Reads at most `file_size` bytes, and checks the checksum.
            with self._opened(file).open(member) as content:
                data: bytes = content.read()
        except EOFError as error:
            raise ImageError("truncated", f"{file.name} ends before {ref} does") from error
        except OSError as error:
            raise ImageError("unreadable", f"{error.strerror or error}: {ref}") from error
        # A damaged member raises errors of zipfile and of each decompressor.
        except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, RuntimeError) as error:
            raise ImageError("broken", f"{ref}: {error}") from error
        except Exception as error:
            raise ImageError("broken", f"{ref}: {type(error).__name__}: {error}") from error
        if len(data) != member.file_size:
            raise ImageError("broken", f"{ref} has {len(data)} bytes, and the archive declares {member.file_size}")
        return data

    def _is_picture(self, name: str, member: zipfile.ZipInfo) -> bool:
        """Whether a member is listed. Counts the others."""
        parts = [part for part in re.split(r"[/\\]", name) if part]
        if member.is_dir() or not parts or any(part.startswith(".") and part != ".." for part in parts):
            return False
        if parts[0] == "__MACOSX":
            return False
        if stat.S_ISLNK(member.external_attr >> 16):
            self._left_out["link"] += 1
            return False
        if not name.lower().encode("utf-8", "replace").endswith(IMAGES):
            self._others[ending_of(parts[-1])] += 1
            return False
        return True

    def _members(self, file: Path) -> dict[str, zipfile.ZipInfo]:
        """The members of an archive by name. Raises SourceError for an archive that cannot be one."""
        listed = self._opened(file).infolist()
        members = {member.filename: member for member in listed}  # the last of equal names
        if again := sum(not member.is_dir() for member in listed) - sum(not m.is_dir() for m in members.values()):
            self._left_out["older copy of the same name"] += again
        end = 0
        for member in sorted(listed, key=lambda m: m.header_offset):
            if member.header_offset < end:
                raise SourceError(
                    f"source 'zip': {file} is refused: its members overlap ({member.filename}), as in a bomb"
                )
            end = member.header_offset + _HEADER + member.compress_size
        return members

    def _member(self, ref: str) -> tuple[Path, zipfile.ZipInfo]:
        """The archive and the member of a ref."""
        for prefix, file in self.archives.items():
            if ref.startswith(prefix):
                try:
                    return file, self._opened(file).getinfo(_decoded(ref[len(prefix) :]))
                except KeyError:
                    continue
                except SourceError as error:  # it was there when it was listed
                    raise ImageError("unreadable", str(error)) from error
        raise SourceError(f"source 'zip': {ref!r} is not a member of {self.path}")

    def _opened(self, file: Path) -> zipfile.ZipFile:
        """The archive, opened once in each thread of each process: they must not share a position in the file."""
        try:
            key = file, os.getpid(), file.stat().st_mtime_ns
            opened: dict[Any, zipfile.ZipFile] = self._local.__dict__.setdefault("opened", {})
            if key not in opened:
                old = [other for other in opened if other[0] == file or other[1] != os.getpid()]
                for other in old or [*opened][:-_OPEN]:
                    del opened[other]
                opened[key] = zipfile.ZipFile(file)
            return opened[key]
        except OSError as error:
            raise SourceError(f"source 'zip': {file} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # on a damaged directory, zipfile raises nearly anything
            raise SourceError(
                f"source 'zip': {file} is no whole ZIP file ({error}): it may be cut off in a download; fetch it again"
            ) from error


def _splits(names: list[str]) -> dict[str, str | None]:
    """The split of each member, by the folder at the top, or below a single one there; None if they are no splits."""
    parts = {name: name.replace("\\", "/").split("/") for name in names}
    depth = 0 if len({part[0] for part in parts.values()}) > 1 else 1
    tops = {part[depth] for part in parts.values() if len(part) > depth + 1}
    stated = {top: stated_split(f"{top}/") for top in tops}
    if None in stated.values():
        return dict.fromkeys(names)
    return {name: stated.get(part[depth]) if len(part) > depth + 1 else None for name, part in parts.items()}


def _is_archive(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and file.suffix.lower() == ".zip" and file.is_file()


def _encoded(name: str) -> str:
    """A member's name as a ref: valid UTF-8."""
    return encoded(name.encode("utf-8", "surrogatepass"))


def _decoded(ref: str) -> str:
    return unquote(ref, errors="surrogatepass")


def _modified(file: Path, ref: str) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError as error:
        raise ImageError("unreadable", f"{error.strerror}: {ref}") from error
