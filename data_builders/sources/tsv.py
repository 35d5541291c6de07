"""The TSV source: VLMEvalKit's layout of benchmarks, one row per question with a base64 picture."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import quote

from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import Record, SourceError
from ssl4rl_plugin.data_builders.sources.tables import TableRow, TableSource, from_base64

logger = logging.getLogger(__name__)

MAX_RECORD_BYTES = 256 * 2**20
"""Longest row. A longer one is more likely a quote that is never closed."""

_REFERENCE = re.compile(rb"\s*\d{1,20}\s*")
_PLACE = re.compile(r"@(\d{1,19})\+(\d{1,10})(?:\.(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class _Line:
    """Position of a row, and of its pictures."""

    index: str
    start: int
    length: int
    pictures: int
    """Number of pictures in its image column."""
    target: str | None
    """Index of the row with the pictures; None for the row itself."""
    split: str | None


class TsvSource(TableSource):
    """Rows of a TSV file with the columns `index` and `image` (base64); other columns are allowed.

    A short numeric `image` refers to the picture of the row with that index. A list written as text (`['...', '...']`)
    holds several pictures, which share a group. A ref is `<index>@<byte offset>+<length>` of the row with the picture,
    followed by `.<number>` if there are several: reading one needs neither the rest of the file nor an index in memory.

    Args:
        path: the .tsv file, or a folder with exactly one.
        split_column: the column that names a row's split, e.g. `split`; None lets the manifest choose the splits.
            Benchmarks name all their rows `dev` or `test`, which count as validation: their column leaves nothing to
            train on.
    """

    name: ClassVar[str] = "tsv"
    summary: ClassVar[str] = "a TSV file with base64 images (the VLMEvalKit layout)"
    endings: ClassVar[tuple[str, ...]] = (".tsv",)
    schema: ClassVar[str] = (
        "tab-separated, quoted as CSV; columns index and image (base64, a list of several, or the index of the row that "
        "has the image), and optionally question, hint, A, B, C, D, answer, category, l2-category, split"
    )
    licence: ClassVar[str] = "that of the benchmark"
    where: ClassVar[str] = "give a .tsv file in VLMEvalKit's layout, or the folder that holds one"

    def __init__(self, path: str | Path | None, split_column: str | None = None) -> None:
        super().__init__(path, split_column=split_column)
        place = self.existing_path()
        if place.is_dir():
            files = sorted(f for f in place.iterdir() if f.suffix.lower() == ".tsv" and not f.name.startswith("."))
            if len(files) != 1:
                listed = ", ".join(f.name for f in files[:8])
                raise SourceError(f"source 'tsv': {place} holds {len(files)} .tsv files ({listed}); give one of them")
            place = files[0]
        self.file = place
        with self._open() as file:
            self._header_end, header = _next_record(file, 0, str(place))
        if not header.strip():
            raise SourceError(f"source 'tsv': {place} is empty; {self.where}")
        columns = [_text(name) for name in _fields(header.removeprefix(b"\xef\xbb\xbf"))]
        named = [split_column] if split_column else []
        for needed in ("index", "image", *named):
            if needed not in columns:
                raise SourceError(
                    f"source 'tsv': {place} has no column {needed!r}; its columns are: {', '.join(columns)[:300]}. A list "
                    "of image files is read by source list"
                )
        self._columns = columns
        self._index, self._image = columns.index("index"), columns.index("image")
        self._split = columns.index(split_column) if split_column else None

    def records(self) -> Iterator[Record]:
        """Pictures in the file's order. One pass over the file keeps the position of each row."""
        lines, holders = self._lines()
        seen: set[str] = set()
        for line in lines:
            refs = _refs(line, holders)
            if line.target is not None or line.index in holders:  # only these can repeat a picture
                if refs[0] in seen:
                    logger.warning("%s: index %s occurs twice with the same picture: kept once", self.file, line.index)
                    continue
                seen.add(refs[0])
            for ref in refs:
                yield Record(ref, line.split, refs[0] if len(refs) > 1 else None)

    def rows(self) -> Iterator[TableRow]:
        """Rows in the file's order. A second pass over the file reads their columns."""
        lines, holders = self._lines()
        with self._open() as file:
            for line in lines:
                file.seek(line.start)
                fields = _fields(file.read(line.length))
                if len(fields) == len(self._columns):
                    pairs = zip(self._columns, fields, strict=True)
                    said = {name: _text(field) for name, field in pairs if name != "image"}
                    yield TableRow(_refs(line, holders), said, line.split)

    def _lines(self) -> tuple[list[_Line], dict[str, _Line]]:
        """The rows, and by index those that other rows refer to for their pictures."""
        lines: list[_Line] = []
        with self._open() as file:
            start = self._header_end
            file.seek(start)
            while True:
                length, record = _next_record(file, start, str(self.file))
                if not length:
                    break
                if record.strip():
                    lines.append(self._line(start, length, _fields(record), len(lines) + 1))
                start += length
        if not lines:
            raise SourceError(f"source 'tsv': {self.file} has a header but no rows")
        wanted = {line.target for line in lines if line.target is not None}
        holders: dict[str, _Line] = {}
        for line in lines:
            if line.index in wanted and line.target is None and line.pictures:
                holders.setdefault(line.index, line)
        return lines, holders

    def _line(self, start: int, length: int, fields: Sequence[bytes], number: int) -> _Line:
        if len(fields) != len(self._columns):
            return _Line(f"row{number}", start, length, 0, None, None)
        image = fields[self._image]
        return _Line(
            index=_text(fields[self._index]),
            start=start,
            length=length,
            pictures=1 + (image.count(b",") if _is_list(image) else 0),
            target=_text(image) if _REFERENCE.fullmatch(image) else None,
            split=_text(fields[self._split]) or None if self._split is not None else None,
        )

    def stamp(self, ref: str) -> tuple[int, int]:
        _, length, _ = self._place(ref)
        try:
            return length, self.file.stat().st_mtime_ns
        except OSError as error:
            raise ImageError("unreadable", str(error)) from error

    def read(self, ref: str) -> bytes:
        start, length, number = self._place(ref)
        try:
            with open(self.file, "rb") as file:
                file.seek(start)
                record = file.read(length)
        except OSError as error:
            raise ImageError("unreadable", str(error)) from error
        fields = _fields(record)
        if len(record) != length or len(fields) != len(self._columns):
            raise ImageError("broken_row", f"{len(fields)} columns instead of {len(self._columns)} at byte {start}")
        image = fields[self._image]
        if _is_list(image):
            # Neither commas nor quotes are part of base64.
            images = [text.strip().strip(b"'\"") for text in image.strip()[1:-1].split(b",")]
            if number >= len(images):
                raise ImageError(
                    "broken_row", f"{len(images)} images in the row at byte {start}, number {number} asked"
                )
            image = images[number]
        if not image.strip():
            raise ImageError("zero_bytes", f"no image in the row at byte {start}")
        if _REFERENCE.fullmatch(image):
            raise ImageError("dangling_reference", f"no row with index {_text(image)} holds an image")
        return from_base64(image, f"in the row at byte {start}")

    def _open(self) -> BinaryIO:
        try:
            return open(self.file, "rb")
        except OSError as error:
            raise SourceError(f"source 'tsv': {self.file} cannot be opened: {error.strerror}") from error

    def _place(self, ref: str) -> tuple[int, int, int]:
        """Offset and length of the row, and number of the picture in it."""
        match = _PLACE.fullmatch(ref[ref.rfind("@") :]) if "@" in ref else None
        start, length, number = (int(part or 0) for part in match.groups()) if match else (-1, -1, 0)
        if start < self._header_end or not 0 < length <= MAX_RECORD_BYTES:
            raise SourceError(f"source 'tsv': {ref!r} is not a reference into {self.file}")
        return start, length, number


def _refs(line: _Line, holders: Mapping[str, _Line]) -> tuple[str, ...]:
    """The refs of a row's pictures."""
    # A reference to a missing row keeps its own position; reading it raises the error.
    holder = line if line.target is None else holders.get(line.target, line)
    place = f"{quote(line.index, safe='')}@{holder.start}+{holder.length}"
    return tuple(f"{place}.{n}" for n in range(holder.pictures)) if holder.pictures > 1 else (place,)


def _is_list(image: bytes) -> bool:
    return image.startswith(b"[") and image.rstrip().endswith(b"]")


def _next_record(file: BinaryIO, start: int, name: str) -> tuple[int, bytes]:
    """The row at the file's position `start`: its length in bytes (0 at the end of the file) and its bytes.

    A row ends at a line break outside quotes.
    """
    parts: list[bytes] = []
    length, quoted = 0, False
    while True:
        line = file.readline(MAX_RECORD_BYTES + 1)
        parts.append(line)
        length += len(line)
        if length > MAX_RECORD_BYTES:
            raise SourceError(
                f"{name}: the row at byte {start} is longer than {MAX_RECORD_BYTES >> 20} MiB; "
                "is a quote opened there and never closed?"
            )
        quoted = _in_quotes(line, quoted)
        if not quoted or not line:
            return length, b"".join(parts)


def _in_quotes(line: bytes, quoted: bool) -> bool:
    """Whether a quoted field is open after `line`; `quoted` says whether one was open before it.

    As in Python's and pandas's readers, a quote opens a field only as its first character, and closes it unless it is
    doubled. A quote inside an unquoted field is plain text.
    """
    place = 0
    if not quoted and line.startswith(b'"'):
        quoted, place = True, 1
    while True:
        if quoted:
            place = line.find(b'"', place)
            if place < 0:
                return True
            if line.startswith(b'""', place):
                place += 2
                continue
            quoted = False
        place = line.find(b'\t"', place)
        if place < 0:
            return False
        quoted, place = True, place + 2


def _fields(record: bytes) -> list[bytes]:
    """The columns of a row, without their quotes. (Python's csv module has a global size limit.)"""
    record = record.rstrip(b"\r\n")
    fields: list[bytes] = []
    place = 0
    while True:
        inside = b""
        if record.startswith(b'"', place):
            close = place + 1
            while (close := record.find(b'"', close)) >= 0 and record.startswith(b'""', close):
                close += 2
            if close < 0:  # never closed: the end of the file came first
                close = len(record)
            inside = record[place + 1 : close].replace(b'""', b'"')
            place = close + 1
        end = record.find(b"\t", place)
        if end < 0:
            return [*fields, inside + record[place:]]
        fields.append(inside + record[place:end])
        place = end + 1


def _text(field: bytes) -> str:
    return field.decode("utf-8", "replace").strip()
