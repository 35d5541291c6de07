"""The webdataset source: pictures inside tar files, read in place without unpacking."""

from __future__ import annotations

import logging
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import quote

from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import Record, Source, SourceError, splits_used, stated_split
from ssl4rl_plugin.data_builders.sources.arrow import part_name
from ssl4rl_plugin.data_builders.sources.endings import IMAGES, is_photograph
from ssl4rl_plugin.data_builders.sources.shard_names import braces, expanded

logger = logging.getLogger(__name__)

TOO_LARGE = 10**12
"""Bytes. A header that states a size from here on is damaged."""

# Names of members come back as the bytes that the file has, also if they are not UTF-8.
_ENCODING, _ERRORS = "utf-8", "surrogateescape"

MOST_PICTURES = 32
"""Pictures of one sample. More with one key have names with dots (`IMG.0001.jpg`, `IMG.0002.jpg`): each is a sample."""

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
    """Image files in a `.tar` file, in the files of a pattern (`shards/{000..012}.tar`), or in all `.tar` files below a
    folder, in order.

    Members whose names agree up to the first dot (`0001.left.jpg`, `0001.right.jpg`) are one sample. The pictures of a
    sample share a group. The rest of the name is the field, in lower case and without parts that are numbers only. Fields
    that are an ending of pictures (`jpg`, `png`, `webp`, ...) are taken. Others that end so (`left.jpg`, `seg.png`) are
    taken only if the sample has none of the former, and if no word in the name stands for something else than a photograph
    (`seg`, `mask`, `depth`, ...). A warning counts the fields taken and left out.

    A ref is `<shard>:<member>@<offset>+<size>`: a picture is read without the rest of the shard, and
    the member's name is never used as a path. Links, devices and sparse members are left out and counted in a warning. A
    member cut off at the end of a shard is rejected as `truncated`.

    Args:
        path: the .tar file, a pattern with `{000..012}` or `{a,b}`, or a folder with .tar files.
        use_splits: whether to use the splits that the shards' names state; None: if there is a `train` split and another.
        fields: fields of the pictures, such as `jpg` or `left.png`; None chooses them as above.
    """

    name: ClassVar[str] = "webdataset"
    summary: ClassVar[str] = "tar files of images (WebDataset shards), read in place"
    endings: ClassVar[tuple[str, ...]] = (".tar",)
    schema: ClassVar[str] = (
        "uncompressed .tar files; members NAME.jpg, .png, .webp, ...; others (json, txt, cls) are not used"
    )
    licence: ClassVar[str] = "that of the data set"
    where: ClassVar[str] = "give a .tar file, or the folder that holds the shards"

    def __init__(
        self, path: str | Path | None, use_splits: bool | None = None, fields: str | Sequence[str] | None = None
    ) -> None:
        super().__init__(path, use_splits=use_splits)
        fields = [fields] if isinstance(fields, str) else fields
        if fields is not None:  # left out where it is not given: manifests of earlier versions stay valid
            if not fields or not all(isinstance(field, str) and field for field in fields):
                raise SourceError(f"source {self.name!r}: fields is a field or a list of fields, got {fields!r}")
            self.options["fields"] = [field.lower().lstrip(".") for field in fields]
        self._wanted = frozenset(self.options.get("fields", ()))
        self._taken: Counter[str] = Counter()
        self._not_taken: Counter[str] = Counter()
        files = self._files()
        if packed := [file for file in files if _PACKED.search(file.name)]:
            raise SourceError(
                f"source 'webdataset': {packed[0]} is compressed: a picture cannot be read without everything before it; "
                "unpack it to a plain .tar (for gzip: gunzip)"
            )
        if not files:
            raise SourceError(f"source 'webdataset': no .tar files below {self.path}; {self.where}")
        self.shards = {part_name(os.fsencode(file.relative_to(self.root))).replace(":", "%3A"): file for file in files}

    def _files(self) -> list[Path]:
        """The shards in order. Sets `root`, the folder that holds them all. Raises SourceError."""
        if self.path is not None and braces(str(self.path)) and not self.path.exists():
            try:
                files = [Path(name) for name in expanded(str(self.path))]
            except ValueError as error:
                raise SourceError(f"source {self.name!r}: {self.path}: {error}") from error
            if missing := [file for file in files if not file.is_file()]:
                raise SourceError(
                    f"source {self.name!r}: {len(missing)} of the {len(files)} files of {self.path} do not exist; the "
                    f"first: {missing[0]}"
                )
            self.root = Path(os.path.commonpath([file.parent for file in files]))
            return files
        place = self.existing_path()
        self.root = place if place.is_dir() else place.parent
        return [place] if place.is_file() else sorted(file for file in place.rglob("*") if _is_shard(file, place))

    def records(self) -> Iterator[Record]:
        self._taken, self._not_taken = Counter(), Counter()
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
            endings = " ".join(sorted(ending.decode() for ending in IMAGES))
            held = (
                f" Fields in it: {_counted(self._not_taken)}: choose with the option fields." if self._not_taken else ""
            )
            raise SourceError(
                f"source {self.name!r}: no image in {self.path}; members' names must end in {endings}.{held}"
            )
        if unknown := sorted(self._wanted - set(self._taken)):
            raise SourceError(
                f"source {self.name!r}: {self.path} has no field {' or '.join(unknown)}; its fields are: "
                f"{_counted(self._taken + self._not_taken)}"
            )

    def notes(self) -> list[str]:
        pictures = {field: count for field, count in self._not_taken.items() if _is_image(field)}
        if not pictures and len(self._taken) < 2 and set(self._taken) <= _PLAIN:
            return []
        left = f"; left out: {_counted(self._not_taken)} (option fields)" if self._not_taken else ""
        return [f"{self.path}: fields taken: {_counted(self._taken)}{left}"]

    def _samples(self, file: Path) -> Iterator[list[Member]]:
        """The pictures of a shard that are taken, grouped by sample."""
        left_out: Counter[str] = Counter()
        sample: list[tuple[str, Member]] = []
        last = b""
        try:
            with open(file, "rb") as shard:
                for member in members(shard, left_out):
                    folder, _, base = member.name.rpartition(b"/")
                    if base.startswith(b"."):
                        continue
                    stem, field = _key_and_field(base)
                    key = folder + b"/" + stem
                    if key != last or len(sample) >= _MOST_MEMBERS:
                        yield from self._chosen(sample)
                        sample = []
                    last = key
                    sample.append((field, member))
        except OSError as error:
            raise SourceError(f"source {self.name!r}: {file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise SourceError(f"source {self.name!r}: {file} is not a tar file: {error}") from error
        yield from self._chosen(sample)
        if left_out:
            counts = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common())
            logger.warning("%s: left out: %s", file, counts)

    def _chosen(self, sample: list[tuple[str, Member]]) -> Iterator[list[Member]]:
        """The pictures of a sample that are taken; each on its own if they are too many for one sample."""
        if self._wanted:
            taken = [field in self._wanted for field, _ in sample]
        else:
            plain = any(field in _PLAIN for field, _ in sample)
            taken = [field in _PLAIN if plain else _is_image(field) and is_photograph(field) for field, _ in sample]
        for (field, _), use in zip(sample, taken, strict=True):
            (self._taken if use else self._not_taken)[field] += 1
        pictures = [member for (_, member), use in zip(sample, taken, strict=True) if use]
        if len(pictures) > MOST_PICTURES:
            yield from ([member] for member in pictures)
        elif pictures:
            yield pictures

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
            raise SourceError(f"source {self.name!r}: {ref!r} is not a reference into {self.path}")
        return file, int(match[1]), int(match[2])


_PLAIN = frozenset(ending.decode().lstrip(".") for ending in IMAGES)
_MOST_MEMBERS = 4096  # members with one key that are looked at together
_SHOWN = 12


def _is_image(field: str) -> bool:
    return field.rpartition(".")[2] in _PLAIN


def _key_and_field(base: bytes) -> tuple[bytes, str]:
    """A member's name without folders, in its key and its field: `0001.Left.JPG` is `0001` and `left.jpg`.

    Parts that are numbers only belong to no field: `0001.0.jpg` and `0001.1.jpg` are two pictures of the field `jpg`.
    """
    key, _, rest = base.partition(b".")
    *inner, last = rest.decode("utf-8", "replace").lower().split(".")
    return key, ".".join([*(part for part in inner if not part.isdecimal()), last])


def _counted(fields: Counter[str]) -> str:
    listed = ", ".join(f"{field or '(none)'} {count:,}" for field, count in fields.most_common(_SHOWN))
    return listed + (f", and {len(fields) - _SHOWN} others" if len(fields) > _SHOWN else "")


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
