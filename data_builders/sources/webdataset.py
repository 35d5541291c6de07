"""The webdataset source: pictures inside tar files, read in place without unpacking."""

from __future__ import annotations

import logging
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import quote

from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import Record, Source, SourceError, splits_used, stated_split
from ssl4rl_plugin.data_builders.sources.arrow import part_name
from ssl4rl_plugin.data_builders.sources.folder import EXTENSIONS

logger = logging.getLogger(__name__)

TOO_LARGE = 10**12
"""Bytes. A header that states a size from here on is damaged."""

# Names of members come back as the bytes that the file has, also if they are not UTF-8.
_ENCODING, _ERRORS = "utf-8", "surrogateescape"

_PACKED = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_PLACE = re.compile(r"@(\d{1,16})\+(\d{1,12})")


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a tar file."""

    name: bytes
    offset: int
    """Position of its first byte in the tar file."""
    size: int


class WebDatasetSource(Source):
    """Image files in a `.tar` file, or in all `.tar` files below a folder, in order.

    Members whose names agree up to the first dot (`0001.left.jpg`, `0001.right.jpg`) are one sample. The pictures of a
    sample share a group. A ref is `<shard>:<member>@<offset>+<size>`: a picture is read without the rest of the shard, and
    the member's name is never used as a path. Links, devices and sparse members are left out and counted in a warning. A
    member cut off at the end of a shard is rejected as `truncated`.

    Args:
        path: the .tar file, or a folder with .tar files.
        use_splits: whether to use the splits that the shards' names state; None: if there is a `train` split and another.
    """

    name: ClassVar[str] = "webdataset"
    summary: ClassVar[str] = "tar files of images (WebDataset shards), read in place"
    endings: ClassVar[tuple[str, ...]] = (".tar",)
    schema: ClassVar[str] = (
        "uncompressed .tar files; members NAME.jpg, .png, .webp, ...; others (json, txt, cls) are not used"
    )
    licence: ClassVar[str] = "that of the data set"
    where: ClassVar[str] = "give a .tar file, or the folder that holds the shards"

    def __init__(self, path: str | Path | None, use_splits: bool | None = None) -> None:
        super().__init__(path, use_splits=use_splits)
        place = self.existing_path()
        self.root = place if place.is_dir() else place.parent
        files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if _is_shard(file, place))
        if packed := [file for file in files if _PACKED.search(file.name)]:
            raise SourceError(
                f"source 'webdataset': {packed[0]} is compressed: a picture cannot be read without everything before it; "
                "unpack it to a plain .tar (for gzip: gunzip)"
            )
        if not files:
            raise SourceError(f"source 'webdataset': no .tar files below {place}; {self.where}")
        self.shards = {part_name(os.fsencode(file.relative_to(self.root))).replace(":", "%3A"): file for file in files}

    def records(self) -> Iterator[Record]:
        splits = {shard: stated_split(shard) for shard in self.shards}
        stated = splits_used(self.options["use_splits"], splits.values())
        found = False
        for shard, file in self.shards.items():
            for sample in self._samples(file):
                found = True
                refs = [f"{shard}:{quote(m.name, safe='/')}@{m.offset}+{m.size}" for m in sample]
                for ref in refs:
                    yield Record(ref, splits[shard] if stated else None, refs[0] if len(refs) > 1 else None)
        if not found:
            endings = " ".join(sorted(ending.decode() for ending in EXTENSIONS))
            raise SourceError(f"source 'webdataset': no image in {self.path}; members' names must end in {endings}")

    def _samples(self, file: Path) -> Iterator[list[Member]]:
        """The pictures of a shard, grouped by sample."""
        left_out: Counter[str] = Counter()
        sample: list[Member] = []
        last = b""
        try:
            with open(file, "rb") as shard:
                for member in members(shard, left_out):
                    folder, _, base = member.name.rpartition(b"/")
                    if base.startswith(b".") or not base.lower().endswith(EXTENSIONS):
                        continue
                    key = folder + b"/" + base.partition(b".")[0]
                    if key != last and sample:
                        yield sample
                        sample = []
                    last = key
                    sample.append(member)
        except OSError as error:
            raise SourceError(f"source 'webdataset': {file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise SourceError(f"source 'webdataset': {file} is not a tar file: {error}") from error
        if sample:
            yield sample
        if left_out:
            counts = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common())
            logger.warning("%s: left out: %s", file, counts)

    def stamp(self, ref: str) -> tuple[int, int]:
        file, offset, size = self._place(ref)
        try:
            status = file.stat()
        except OSError as error:
            raise ImageError("unreadable", f"{error.strerror}: {ref}") from error
        if offset + size > status.st_size:
            raise ImageError("truncated", f"{file.name} ends {offset + size - status.st_size} bytes before {ref} does")
        return size, status.st_mtime_ns

    def read(self, ref: str) -> bytes:
        file, offset, size = self._place(ref)
        self.stamp(ref)  # checks that the file is long enough
        try:
            with open(file, "rb") as shard:
                shard.seek(offset)
                return shard.read(size)
        except OSError as error:
            raise ImageError("unreadable", f"{error.strerror}: {ref}") from error

    def _place(self, ref: str) -> tuple[Path, int, int]:
        """Shard, offset and size."""
        member, _, _ = ref.rpartition("@")
        match = _PLACE.fullmatch(ref[len(member) :])
        file = self.shards.get(member.partition(":")[0])
        if match is None or file is None:
            raise SourceError(f"source 'webdataset': {ref!r} is not a reference into {self.path}")
        return file, int(match[1]), int(match[2])


def _is_shard(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and (file.suffix.lower() == ".tar" or bool(_PACKED.search(file.name))) and file.is_file()


def members(shard: BinaryIO, left_out: Counter[str]) -> Iterator[Member]:
    """The regular files of a tar file (ustar, GNU or pax), in order. Their contents are not read.

    Args:
        shard: the file, at its start.
        left_out: counts what is left out: `link`, `device`, `sparse`, `truncated_shard` (the end is missing; later members,
            if any, are lost), `damaged_shard` (the same for a damaged header).

    Raises:
        ValueError: it is not a tar file.
    """
    header = shard.read(tarfile.BLOCKSIZE)
    if packed := next((kind for magic, kind in _MAGIC.items() if header.startswith(magic)), None):
        raise ValueError(f"it is compressed ({packed}), unpack it")
    if header.strip(b"\0"):
        try:
            tarfile.TarInfo.frombuf(header, _ENCODING, _ERRORS)
        except tarfile.HeaderError as error:
            raise ValueError(f"its first header is damaged ({error})") from error
    shard.seek(0)
    end = 0
    try:
        with tarfile.open(fileobj=shard, mode="r:", encoding=_ENCODING, errors=_ERRORS) as tar:
            while (member := tar.next()) is not None:
                if member.size >= TOO_LARGE or tar.offset <= end:  # a negative size would lead back
                    left_out["damaged_shard"] += 1
                    return
                end = tar.offset
                tar.members = []  # type: ignore[attr-defined]  # `tarfile` keeps all members otherwise
                if member.issparse():
                    left_out["sparse"] += 1
                elif member.islnk() or member.issym():
                    left_out["link"] += 1
                elif member.isdev():
                    left_out["device"] += 1
                elif member.isreg():
                    yield Member(member.name.encode(_ENCODING, _ERRORS), member.offset_data, member.size)
            # `tarfile` stops without an error at zeros, at the end of the file and at a damaged header.
            shard.seek(tar.offset)
            header = shard.read(tarfile.BLOCKSIZE)
            if len(header) < tarfile.BLOCKSIZE:
                left_out["truncated_shard"] += 1
            elif header.strip(b"\0"):
                left_out["damaged_shard"] += 1
    except OSError:
        raise
    except Exception:  # `tarfile` raises nearly anything on damaged headers
        left_out["damaged_shard" if shard.read(1) else "truncated_shard"] += 1
