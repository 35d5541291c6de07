"""The webdataset source: pictures inside of tar files, read in place; nothing is ever unpacked."""

from __future__ import annotations

import logging
import os
import re
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

BLOCK = 512  # bytes; a header, and what members are padded to
MAX_HEADER = 2**20
"""Bytes of a long name or a list of attributes that are believed."""

_PACKED = re.compile(r"\.(?:tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_PLACE = re.compile(r"@(\d{1,16})\+(\d{1,12})")
_ATTRIBUTE = re.compile(rb"(\d{1,7}) ([^=\n]{1,256})=")


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside of a tar file."""

    name: bytes
    offset: int
    """Where its bytes begin in the tar file."""
    size: int


class WebDatasetSource(Source):
    """Image files in a `.tar` file, or in all of them below a folder, in order.

    Members whose names agree up to the first dot (`0001.left.jpg`, `0001.right.jpg`) are one sample: where it has several
    pictures, they share a group. A ref is `<shard>:<member>@<offset>+<size>`, so a picture is read without a look at
    the rest of the shard. Names of members are only names here. Links, devices and sparse members are left out and
    counted in a warning; a member that is cut off at the end of a shard is rejected as `truncated`.

    Args:
        path: the .tar file, or a folder with such files.
        use_splits: whether the splits that the shards' names state hold; None: where there is a `train` one and another.
    """

    name: ClassVar[str] = "webdataset"
    summary: ClassVar[str] = "tar files of images (WebDataset shards), read in place"
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
                f"source 'webdataset': {packed[0]} is compressed, so that no picture can be read without all before it; "
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
        """The pictures of a shard, those of one sample together."""
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
            raise SourceError(f"source 'webdataset': {file} is no tar file: {error}") from error
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
        self.stamp(ref)  # a size that the file does not have is not asked for
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
            raise SourceError(f"source 'webdataset': {ref!r} is no reference into {self.path}")
        return file, int(match[1]), int(match[2])


def _is_shard(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and (file.suffix.lower() == ".tar" or bool(_PACKED.search(file.name))) and file.is_file()


def members(shard: BinaryIO, left_out: Counter[str]) -> Iterator[Member]:
    """The regular files of a tar file (ustar, GNU or pax), in order, without reading what is in them.

    The module `tarfile` does the same, five times slower, and keeps every member in memory.

    Args:
        shard: the file, at its start.
        left_out: here is counted what is left out: `link`, `device`, `sparse`, `truncated_shard` (the end is missing:
            members after it, if there were any, are lost), `damaged_shard` (the same for a header that is wrong).

    Raises:
        ValueError: the file is no tar file at all.
    """
    end = os.fstat(shard.fileno()).st_size
    place = 0
    long_name: bytes | None = None
    attributes: dict[bytes, bytes] = {}
    while True:
        shard.seek(place)
        header = shard.read(BLOCK)
        if not header.strip(b"\0"):
            # Zeros are the end; without them the writer was cut off between two members.
            if len(header) < BLOCK:
                left_out["truncated_shard"] += 1
            return
        size = _number(header[124:136])
        if len(header) < BLOCK or size is None or not _is_sound(header):
            if not place:
                packed = next((kind for magic, kind in _MAGIC.items() if header.startswith(magic)), None)
                raise ValueError(f"it is compressed ({packed}), unpack it" if packed else "its first header is damaged")
            left_out["truncated_shard" if len(header) < BLOCK else "damaged_shard"] += 1
            return
        kind = header[156:157]
        if kind in b"xgLK":
            body = shard.read(min(size, MAX_HEADER))
            if kind == b"L":
                long_name = body.rstrip(b"\0")
            elif kind == b"x":
                attributes = _attributes(body)
        else:
            if len(stated := attributes.get(b"size", b"")) < 13 and stated.isdigit():
                size = int(stated)  # one that the header has no room for
            if kind == b"S" or any(name.startswith(b"GNU.sparse") for name in attributes):
                left_out["sparse"] += 1
                more = kind == b"S" and header[482:483] != b"\0"
                while more:  # the map of the holes goes on
                    place += BLOCK
                    shard.seek(place)
                    more = shard.read(BLOCK)[504:505] not in (b"\0", b"")
            elif kind in b"12":
                left_out["link"] += 1
                size = 0
            elif kind in b"346":
                left_out["device"] += 1
                size = 0
            elif kind in b"0\x007":
                yield Member(attributes.get(b"path") or long_name or _name(header), place + BLOCK, size)
            long_name, attributes = None, {}
        place += BLOCK + -(-size // BLOCK) * BLOCK
        if place > end:
            left_out["truncated_shard"] += 1
            return


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int | None:
    """A number of a header, octal or in GNU's base 256; None where it is none, or larger than any file."""
    if field[:1] == b"\x80":
        value = int.from_bytes(field[1:], "big")
    else:
        digits = field.partition(b"\0")[0].strip() or b"0"
        value = int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else -1
    return value if 0 <= value < 10**12 else None


def _is_sound(header: bytes) -> bool:
    """Whether the header's checksum is right; some writers summed signed bytes."""
    stated = _number(header[148:156])
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if stated == total:
        return True
    return stated == total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


def _attributes(body: bytes) -> dict[bytes, bytes]:
    """The attributes of a pax header: lines of `<length> <name>=<value>`."""
    found: dict[bytes, bytes] = {}
    place = 0
    while match := _ATTRIBUTE.match(body, place):
        length = int(match[1])
        if length <= len(match[0]) or place + length > len(body):
            break
        found[match[2]] = body[match.end() : place + length - 1]
        place += length
    return found
