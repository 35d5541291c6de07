"""Tables of edges or nodes as columns of strings: delimited text, parquet, JSON and JSON lines.

Each value of a column is kept once. What cannot be a row is refused and counted; too much of that is an error.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ssl4rl_plugin.core.files import JsonError, parse_json
from ssl4rl_plugin.core.files import read_json as read_json_file
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.text import (
    NUMBER,
    Layout,
    Records,
    Refused,
    TextOptions,
    encoding_of,
    lines_of,
    sniff,
)

MOST_ROWS = 2**29
"""Rows of the largest parquet file."""
MOST_COLUMNS = 1000
"""Columns of the widest table: wider ones are matrices of features."""
_KEY = re.compile(r"['\"](\w+)['\"]:")
"""A key of edge data."""
Known = Callable[[list[str]], bool]


@dataclass(frozen=True, eq=False)
class Column:
    """A column of strings."""

    values: list[str]
    """The different values. An empty string stands for no value."""
    codes: np.ndarray
    """For each row, the place of its value in `values` (int64)."""

    @classmethod
    def of(cls, strings: Iterable[str]) -> Column:
        """The column of these strings."""
        place: dict[str, int] = {}
        codes = array("q", (place.setdefault(value, len(place)) for value in strings))
        return cls(list(place), np.frombuffer(codes, np.int64) if codes else np.zeros(0, np.int64))

    def strings(self) -> list[str]:
        """The value of each row."""
        return [self.values[code] for code in self.codes.tolist()]

    @cached_property
    def known(self) -> list[str]:
        """The different values that are not empty."""
        return [value for value in self.values if value]

    @cached_property
    def numbers(self) -> int:
        """How many different values are numbers."""
        return sum(NUMBER.fullmatch(value) is not None for value in self.known)

    @cached_property
    def numeric(self) -> bool:
        """Whether all values that are not empty are numbers, and there are any."""
        return bool(self.known) and all(NUMBER.fullmatch(value) for value in self.known)

    def rows_where(self, wanted: Callable[[str], bool]) -> np.ndarray:
        """For each row, whether its value is wanted (bool)."""
        return np.array([wanted(value) for value in self.values], bool)[self.codes]


@dataclass(eq=False)
class Table:
    """A table of a user."""

    where: str
    """The file, for messages."""
    header: list[str] | None
    """Names of the columns; None if `first` may hold them, or none has a name."""
    first: list[str] | None
    """The first record of a text file. It is not in `columns`: whoever knows the words decides whether it is a header."""
    columns: list[Column]
    lines: np.ndarray
    """Number of each row's line, from 1 (int64)."""
    refused: Refused = field(default_factory=Refused)
    """Lines that are no rows."""
    found: list[str] = field(default_factory=list)
    """What the reader recognised."""
    leading: list[str] = field(default_factory=list)
    """Comment lines before the first record."""
    size: list[str] | None = None
    """The line of sizes of a Matrix Market file."""
    first_line: int = 1
    """Number of the line of `first`."""
    layout: Layout | None = None
    """How the lines of a text file are read."""
    data: tuple[str, ...] = ()
    """Keys of the edge data at the ends of the lines."""

    def __len__(self) -> int:
        return len(self.lines)

    def with_first(self) -> Table:
        """The table with `first` as data."""
        assert self.first is not None
        columns = []
        for column, value in zip(self.columns, self.first, strict=True):
            values = column.values if value in column.values else [*column.values, value]
            columns.append(Column(values, np.insert(column.codes, 0, values.index(value))))
        lines = np.insert(self.lines, 0, self.first_line)
        return replace(self, first=None, columns=columns, lines=lines)

    def only(self, kept: np.ndarray) -> Table:
        """The table with the rows that are kept (bool)."""
        columns = []
        for column in self.columns:
            present, codes = np.unique(column.codes[kept], return_inverse=True)
            columns.append(Column([column.values[place] for place in present.tolist()], codes.astype(np.int64)))
        return replace(self, columns=columns, lines=self.lines[kept])

    def names(self) -> list[str]:
        """The names of the columns, or their numbers from 1."""
        return self.header or [f"column {number}" for number in range(1, len(self.columns) + 1)]


def check_refused(refused: Refused, used: int, where: str) -> None:
    """Raise SourceError if more than a small share of the lines was refused."""
    bad = sum(refused.counts.values())
    if 2 * bad > used + bad or bad > max(20, (used + bad) // 10):
        raise SourceError(
            f"{where}: {bad} of {used + bad} lines cannot be used: {refused.told()}. Repair these lines, or remove them; "
            "the options delimiter, header, columns and quoting say how lines are read"
        )


def read_json(path: Path) -> Any:
    """A JSON file. Raises SourceError."""
    try:
        return read_json_file(path, unique=True)
    except JsonError as error:
        raise SourceError(str(error)) from error


def names_of(path: Path) -> Any:
    """The names of features: a list, or a mapping from a feature's key. Raises SourceError."""
    if path.suffix.lower() == ".json":
        return read_json(path)
    names = [line.strip() for line in lines_of(path)]
    while names and not names[-1]:  # an empty line at the end names no feature
        names.pop()
    return names


def read_table(path: Path, options: TextOptions, known: Known, lacks: str) -> Table:
    """Read a table.

    Args:
        path: .parquet, .json, .jsonl or delimited text, gzipped or not.
        options: what the user says about a text file.
        known: whether fields are the names of columns.
        lacks: what a file with one column lacks, for the message.

    Raises:
        SourceError: it cannot be read, or in two ways; the message says what to do.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _parquet(path)
    if ending == ".json":
        content = read_json(path)
        if not isinstance(content, list) or not content:
            raise SourceError(f"{path} must hold a list of edges or nodes")
        return table_of(enumerate(content, 1), str(path))
    if ending in (".jsonl", ".ndjson"):
        return table_of(_json_lines(path, options), str(path))
    return _text(path, options, known, lacks)


def _text(path: Path, options: TextOptions, known: Known, lacks: str) -> Table:
    layout = sniff(path, options, known, lacks)
    width = layout.width
    assert width is not None
    if width > MOST_COLUMNS:
        raise SourceError(f"{path} has {width} columns: that is a matrix, not a table of edges or nodes")
    records = Records(lines_of(path, options.encoding), layout, known, str(path))
    refused, numbers = Refused(), array("q")
    first: list[str] | None = None
    first_line, size = 1, None
    places: list[dict[str, int]] = [{} for _ in range(width)]
    codes = [array("q") for _ in range(width)]
    adding = [(place.setdefault, place.__len__, code.append) for place, code in zip(places, codes, strict=True)]
    for number, fields in records:
        if isinstance(fields, str):
            refused.add(fields, number)
            continue
        if first is None and size is None and records.leading and _is_matrix(records.leading):
            size = fields
            continue
        if len(fields) != width:
            if first is None and len(fields) == width - 1 and known(fields):  # R names no column of row names
                first, first_line = ["", *fields], number
                continue
            if len(fields) < width or any(fields[width:]):
                refused.add("too few fields" if len(fields) < width else "too many fields", number)
                continue
        if first is None and size is None:
            first, first_line = fields[:width], number
            continue
        numbers.append(number)
        for (place, count, add), value in zip(adding, fields, strict=False):
            add(place(value, count()))
    data: tuple[str, ...] = ()
    if layout.data:
        data = tuple(sorted({key for line in lines_of(path, options.encoding) for key in _KEY.findall(line)}))
    columns = [
        Column(list(place), np.frombuffer(code, np.int64) if code else np.zeros(0, np.int64))
        for place, code in zip(places, codes, strict=True)
    ]
    found = [f"delimiter {layout.name}"]
    with open(path, "rb") as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b":
        found.append("gzip")
    elif options.encoding or encoding_of(head, path) != "utf-8":
        found.append(
            f"encoding {options.encoding or encoding_of(head, path).replace('-sig', ' with a byte order mark')}"
        )
    if records.comments:
        found.append(f"{records.comments:,} comment lines")
    return Table(
        str(path), None, first, columns, np.frombuffer(numbers, np.int64) if numbers else np.zeros(0, np.int64), refused,
        found, records.leading, size, first_line, layout, data,
    )  # fmt: skip


def _is_matrix(leading: Sequence[str]) -> bool:
    return leading[0].lower().startswith("%%matrixmarket")


def _json_lines(path: Path, options: TextOptions) -> Iterator[tuple[int, Any]]:
    """Number and value of each line; the value of a broken line is None."""
    for number, line in enumerate(lines_of(path, options.encoding), 1):
        if line.strip():
            try:
                yield number, parse_json(line, f"{path}, line {number}", unique=True)
            except JsonError:
                yield number, None


def table_of(rows: Iterable[tuple[int, Any]], where: str) -> Table:
    """A table of rows that are all objects, or all lists. Others are refused. Raises SourceError if there are no rows."""
    refused, lines = Refused(), array("q")
    names: dict[str, int] = {}
    kept: list[list[str]] = []
    kind: type | None = None
    width = 0
    for number, row in rows:
        if kind is None and isinstance(row, dict | list) and row:
            kind, width = type(row), len(row)
        if kind is None or not isinstance(row, kind) or not isinstance(row, dict | list):
            refused.add("no row of the table" if row is not None else "no JSON", number)
            continue
        if isinstance(row, dict):
            for name in row:
                names.setdefault(str(name), len(names))
            if len(names) > MOST_COLUMNS:
                raise SourceError(f"{where} has more than {MOST_COLUMNS} keys: that is no table of edges or nodes")
            cells = [""] * len(names)
            for name, value in row.items():
                cells[names[str(name)]] = cell(value)
        else:
            if len(row) != width:
                refused.add("too few fields" if len(row) < width else "too many fields", number)
                continue
            cells = [cell(value) for value in row]
        lines.append(number)
        kept.append(cells)
    if kind is None:
        raise SourceError(f"{where} holds no row: expected a list of objects or of lists")
    count = len(names) if kind is dict else width
    columns = [Column.of(row[k] if k < len(row) else "" for row in kept) for k in range(count)]
    numbers = np.frombuffer(lines, np.int64) if lines else np.zeros(0, np.int64)
    if kind is dict:
        return Table(where, list(names), None, columns, numbers, refused)
    first = kept[0]  # a list of lists may begin with the names of its columns
    rest = [Column.of(row[k] for row in kept[1:]) for k in range(count)]
    return Table(where, None, first, rest, numbers[1:], refused, first_line=int(numbers[0]))


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = pq.read_metadata(path)
        if about.num_rows > MOST_ROWS or about.num_columns > MOST_COLUMNS:
            raise SourceError(
                f"{path} declares {about.num_rows:,} rows and {about.num_columns:,} columns: no table of edges or nodes"
            )
        content = pq.read_table(path)
        columns = []
        for column in content.columns:
            try:
                encoded = column.combine_chunks().dictionary_encode()
            except pa.ArrowNotImplementedError:  # lists and structs
                columns.append(Column.of(map(cell, column.to_pylist())))
                continue
            encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
            values = [cell(value) for value in encoded.dictionary.to_pylist()]
            codes = encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False).astype(np.int64)
            columns.append(_merged([*values, ""], codes))
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} cannot be read as parquet: {error}") from error
    return Table(str(path), content.column_names, None, columns, np.arange(1, len(content) + 1))


def _merged(values: Sequence[str], codes: np.ndarray) -> Column:
    """A column in which each value occurs once."""
    place: dict[str, int] = {}
    number = np.array([place.setdefault(value, len(place)) for value in values], np.int64)
    return Column(list(place), number[codes])


def cell(value: Any) -> str:
    """A value of JSON, parquet or networkx as a string; empty for no value."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
