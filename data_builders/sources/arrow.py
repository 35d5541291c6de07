"""Base of sources over Arrow tables: finds the columns with pictures, lists the pictures, and reads one."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, unquote_to_bytes

from ssl4rl_plugin.data.files import allowed_folders, encoded, file_stamp, inside, read_file
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import Record, SourceError, splits_used
from ssl4rl_plugin.data_builders.sources.endings import is_photograph
from ssl4rl_plugin.data_builders.sources.tables import IMAGE_NAME, LONGEST_NAME, TableRow, TableSource, from_base64

# pyarrow is imported where it is used: data-loader workers import this module.
if TYPE_CHECKING:
    import pyarrow as pa

_REF = re.compile(r"(.*)#(\d{1,15})/([^/.]*)(?:\.(\d{1,6}))?", re.DOTALL)

BATCH = 4096
"""Rows listed at a time."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table with a picture, or one picture of a list."""

    part: str
    """File or split."""
    row: int
    """Row number in the part."""
    column: str
    position: int | None
    """Position in the list; None if the column holds one picture a row."""


class ArrowSource(TableSource):
    """Rows of one or more Arrow tables with pictures in some columns. The tables (files or splits) are called parts.

    A picture is a struct of `bytes` and `path` (as Hugging Face stores it), binary data, a path, base64 text, or a list of
    these. The pictures of one row share a group. Paths are relative to the part's folder and must stay inside `path` or
    `root`. A ref is `<part>#<row>/<column>`, followed by `.<position>` for a list. A row without a picture is listed once,
    and rejected as `no_image` when it is read.

    Args:
        path: the files.
        columns: names of the columns with pictures; None finds them: structs with `bytes`, else binary columns, else
            text columns with a name like `image` or `image_path`. Columns whose names stand for masks, depth maps and the
            like are left out beside others, and named in a warning.
        split_column: the column that names a row's split.
        use_splits: whether to use the splits that the parts state; None: if there is a `train` split and another.
        root: folders outside that paths of pictures may lead to: a path or a list.
    """

    def __init__(
        self,
        path: str | Path | None,
        columns: Sequence[str] | None = None,
        split_column: str | None = None,
        use_splits: bool | None = None,
        root: str | Sequence[str] | None = None,
    ) -> None:
        columns = [columns] if isinstance(columns, str) else columns and list(columns)
        super().__init__(path, columns=columns, split_column=split_column, use_splits=use_splits)
        allowed = allowed_folders(self.name, root)
        if allowed:  # left out where it is not given: manifests of earlier versions stay valid
            self.options["root"] = allowed
        self._allowed = tuple(os.fsencode(folder) for folder in allowed)
        self._wanted = columns
        self._split_column = split_column
        self._found: dict[str, list[str]] = {}
        self._open(self.existing_path())

    @abstractmethod
    def _open(self, place: Path) -> None:
        """Check that the files are there, and prepare for reading. Raises SourceError."""

    @abstractmethod
    def _parts(self) -> dict[str, str | None]:
        """The parts in order, each with its stated split."""

    @abstractmethod
    def _schema(self, part: str) -> pa.Schema: ...

    def first_schema(self) -> pa.Schema:
        """Columns, types and header of the first part."""
        return self._schema(next(iter(self._parts())))

    @abstractmethod
    def _length(self, part: str) -> int:
        """Number of rows."""

    @abstractmethod
    def _batches(self, part: str, pictures: Sequence[str], others: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, in batches: the columns `others`, and of `pictures` what `_counts` needs. A column of pictures may be
        missing if each of its rows holds one."""

    @abstractmethod
    def _scalar(self, cell: Cell) -> pa.Scalar:
        """The value of an existing cell."""

    @abstractmethod
    def _size(self, cell: Cell) -> int:
        """Approximate bytes of the picture, without reading it."""

    @abstractmethod
    def _modified(self, part: str) -> int:
        """The part's modification time in ns. Raises OSError."""

    @abstractmethod
    def _folder(self, part: str) -> Path:
        """The folder that paths in the part are relative to."""

    def records(self) -> Iterator[Record]:
        holds = bool(self._split_column) or splits_used(self.options["use_splits"], self._parts().values())
        for refs, split, _ in self._walk(said=False):
            for ref in refs:
                yield Record(ref, split if holds else None, refs[0] if len(refs) > 1 else None)

    def rows(self) -> Iterator[TableRow]:
        for refs, split, values in self._walk(said=True):
            yield TableRow(refs, values, split)

    def _walk(self, said: bool) -> Iterator[tuple[tuple[str, ...], str | None, dict[str, Any]]]:
        """Refs, stated split and, with `said`, the other columns of every row."""
        parts = self._parts()
        with_pictures = [part for part in parts if self._pictures(part)]
        if not with_pictures:
            raise SourceError(self._no_pictures(next(iter(parts))))
        found = False
        for part in with_pictures:
            names = self._schema(part).names
            others = [f.name for f in self._schema(part) if not _has_binary(f.type)] if said else []
            others = [name for name in others if name not in self._pictures(part)]
            if self._split_column and self._split_column not in others:
                if self._split_column not in names:
                    raise SourceError(
                        f"{self._named(part)} has no column {self._split_column!r}; {shown_columns(self._schema(part))}"
                    )
                others.append(self._split_column)
            first = 0
            for batch in self._batches(part, self._pictures(part), others):
                values = batch.select(others).to_pylist() if others else [{}] * batch.num_rows
                for refs, said_here in zip(self._refs(part, first, batch), values, strict=True):
                    split = said_here[self._split_column] if self._split_column else parts[part]
                    yield refs, str(split) if split else None, said_here
                first += batch.num_rows
                found = found or batch.num_rows > 0
        if not found:
            raise SourceError(f"source {self.name!r}: {self.path} has no rows")

    def _refs(self, part: str, first: int, batch: pa.RecordBatch) -> Iterator[tuple[str, ...]]:
        """The refs of each row of a batch. `first` is the number of its first row in the part."""
        schema, pictures = self._schema(part), self._pictures(part)
        lists = {column: _is_list(schema.field(column).type) for column in pictures}
        names = {column: _column_name(column) for column in pictures}
        counts = {column: _counts(batch.column(column)) for column in pictures if column in batch.schema.names}
        for i in range(batch.num_rows):
            refs: list[str] = []
            for column in pictures:
                ref = f"{part}#{first + i}/{names[column]}"
                count = counts[column][i] if column in counts else 1
                refs += [f"{ref}.{n}" for n in range(count)] if lists[column] else [ref] * min(count, 1)
            if not refs:
                refs = [f"{part}#{first + i}/{names[pictures[0]]}" + (".0" if lists[pictures[0]] else "")]
            yield tuple(refs)

    def notes(self) -> list[str]:
        taken = dict.fromkeys(name for part in self._parts() for name in self._pictures(part))
        masks = dict.fromkeys(name for part in self._parts() for name in self._masks(part))
        if not masks:
            return []
        left_out = f"left out, as masks or the like: {', '.join(masks)} (option columns)"
        return [f"{self.path}: columns of pictures taken: {', '.join(taken)}; {left_out}"]

    def _masks(self, part: str) -> list[str]:
        """The columns of pictures that are left out for their names."""
        if self._wanted is not None:
            return []
        taken = self._pictures(part)
        return [f.name for f in self._schema(part) if f.name not in taken and _is_picture(_element(f.type))]

    def stamp(self, ref: str) -> tuple[int, int]:
        """Embedded pictures have their average size: Parquet does not store the size of each."""
        cell = self._place(ref)
        try:
            size, modified = self._size(cell), self._modified(cell.part)
        except OSError as error:
            raise ImageError("unreadable", f"{error.strerror}: {ref}") from error
        if size <= LONGEST_NAME:  # too small for a picture: it is a path
            content = self._content(cell)
            if isinstance(content, str) and not _is_base64(content):
                return file_stamp(self._file(cell, content), content)
        return size, modified

    def read(self, ref: str) -> bytes:
        cell = self._place(ref)
        content = self._content(cell)
        if content is None:
            raise ImageError("no_image", f"no picture at {ref}")
        if isinstance(content, bytes):
            return content
        if _is_base64(content):
            return from_base64(content.encode(), f"at {ref}")
        path = self._file(cell, content)
        file_stamp(path, content)
        return read_file(path, content)

    def _content(self, cell: Cell) -> bytes | str | None:
        """The picture's bytes, path or base64 text; None for an empty cell."""
        import pyarrow as pa

        try:
            found = self._scalar(cell)
            if cell.position is not None:
                values = found.values
                found = values[cell.position] if values is not None and cell.position < len(values) else None
            value = None if found is None else found.as_py()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ImageError("unreadable", f"{cell.part} row {cell.row}: {error}") from error
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        return value or None

    def _file(self, cell: Cell, path: str) -> bytes:
        """The real path of a file that a cell names."""
        below = os.path.join(os.fsencode(self._folder(cell.part)), path.encode())
        return inside(os.fsencode(self._root()), below, path, self._allowed)

    def _root(self) -> Path:
        """The folder that all paths must stay inside."""
        place = self.existing_path()
        return place if place.is_dir() else place.parent

    def _place(self, ref: str) -> Cell:
        match = _REF.fullmatch(ref)
        try:
            if match and match[1] in self._parts() and int(match[2]) < self._length(match[1]):
                part, row, column, position = match[1], int(match[2]), unquote(match[3]), match[4]
                if column in self._pictures(part) or column in self._masks(part):  # masks: in older manifests
                    listed = _is_list(self._schema(part).field(column).type)
                    if listed == (position is not None):
                        return Cell(part, row, column, None if position is None else int(position))
        except SourceError as error:  # it was there when it was listed
            raise ImageError("unreadable", str(error)) from error
        raise SourceError(f"source {self.name!r}: {ref!r} is not a reference into {self.path}")

    def _pictures(self, part: str) -> list[str]:
        """Names of the columns with pictures; empty if the part has none."""
        if part not in self._found:
            self._found[part] = picture_columns(self._schema(part), self._wanted)
        return self._found[part]

    def _no_pictures(self, part: str) -> str:
        wanted = f"any column {' or '.join(map(repr, self._wanted))}" if self._wanted else "a column with images"
        return (
            f"{self._named(part)} does not have {wanted}; {shown_columns(self._schema(part))}. "
            f"Name the columns with images in the option `columns`: {self.schema}"
        )

    def _named(self, part: str) -> str:
        return f"source {self.name!r}: {self.path}" + (f", {part}," if len(self._parts()) > 1 else "")


def picture_columns(schema: pa.Schema, wanted: Sequence[str] | None) -> list[str]:
    """The columns with pictures: those of `wanted` that are there, or if it is None, those found by type and name."""
    if wanted is not None:
        return [name for name in wanted if name in schema.names]
    one = {field.name: _element(field.type) for field in schema}
    for kind in (_is_picture, _is_binary, _is_text):
        found = [n for n, t in one.items() if kind(t) and (kind is not _is_text or IMAGE_NAME.fullmatch(n))]
        if found:
            return [name for name in found if is_photograph(name)] or found
    return []


def part_name(path: bytes) -> str:
    """A file's path, encoded for refs."""
    return encoded(path).replace("#", "%23")


def part_path(name: str) -> bytes:
    """The path that `part_name` encoded."""
    return unquote_to_bytes(name)


def _column_name(column: str) -> str:
    """A column, encoded for refs, in which a dot precedes a position."""
    return quote(column, safe="").replace(".", "%2E")


def _counts(column: pa.Array) -> list[int]:
    """Number of pictures in each row: 0 or 1, or the length of a list."""
    import pyarrow.compute as pc

    counts = pc.list_value_length(column).fill_null(0) if _is_list(column.type) else pc.is_valid(column)
    return [int(count) for count in counts.to_pylist()]


def _is_base64(text: str) -> bool:
    return len(text) > LONGEST_NAME and "." not in text


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow.types as pt

    return pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)


def _element(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_list(kind) else kind


def _is_picture(kind: pa.DataType) -> bool:
    import pyarrow.types as pt

    return pt.is_struct(kind) and any(field.name == "bytes" and _is_binary(field.type) for field in kind)


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow.types as pt

    return pt.is_binary(kind) or pt.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as pt

    return pt.is_string(kind) or pt.is_large_string(kind)


def _has_binary(kind: pa.DataType) -> bool:
    return _is_binary(kind) or any(_has_binary(kind.field(i).type) for i in range(kind.num_fields))


def shown_columns(schema: pa.Schema) -> str:
    """The columns and their types, for messages."""
    return "its columns are: " + (", ".join(f"{field.name} ({field.type})" for field in schema) or "(none)")[:600]
