"""The tables of OGB's data sets: whole numbers, labels, and texts with their ids, in CSV, TSV or lines of JSON."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl4rl_plugin.data.source import SourceError

KEYS = ("paper id", "paper_id", "paperid", "asin", "uid", "mag_id")
"""Columns with the name of a paper or product, as in the mapping."""
NODES = ("node idx", "node_idx", "nodeidx", "node id", "node_id", "nid", "idx", "index", "node", "id")
"""Columns with the number of the node."""
PARTS = ("text", "raw_text", "title", "abs", "abstract", "content", "description")
"""Columns with texts."""
MISSING = ("", "nan", "NaN", "NULL", "None", "<NA>")
"""How tables write that a value is missing."""


class Table:
    """A file of texts: its rows, and which columns hold the id, the number of the node, and the texts.

    Args:
        path: .csv or .tsv, with or without a header, or lines of JSON; also gzipped.

    Raises:
        SourceError: the file cannot be read, or its columns can be read two ways.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key: int | None = None
        self.node: int | None = None
        endings = path.suffixes
        if ".json" in endings or ".jsonl" in endings:
            header, self.rows = _json_rows(path)
        else:
            rows = list(read_rows(path))
            header = [cell.strip().lower() for cell in rows[0]] if rows else []
            if {*header} & {*PARTS, *KEYS, *NODES}:
                self.rows = rows[1:]
            else:
                header, self.rows = [], rows
        if not self.rows:
            raise SourceError(f"{path} has no rows")
        if not header:
            if ".tsv" not in endings:
                raise SourceError(f"{path} has no header: name the columns, for example `node_idx,text`")
            header = ["paper id", "title", "abs"]  # titleabs.tsv has no header
        self.key = next((header.index(name) for name in KEYS if name in header), None)
        self.node = next((header.index(name) for name in NODES if name in header), None)
        if self.key is not None and self.node is not None and header[self.node] == "id":
            self.node = None
        self.parts = [header.index(name) for name in PARTS if name in header]
        if not self.parts:
            raise SourceError(
                f"{path} has no column of texts ({', '.join(PARTS)}); its columns are {', '.join(header)}"
            )
        self._unnamed(header)

    def _unnamed(self, header: Sequence[str]) -> None:
        """A first column without a name is the index that pandas writes. Raises SourceError if it is not in order."""
        if self.key is None and self.node is None and header[0] in ("", "unnamed: 0"):
            found = [row[0].strip() if row else "" for row in self.rows]
            if found != [str(place) for place in range(len(found))]:
                raise SourceError(
                    f"{self.path} has a first column without a name, which is not 0, 1, 2, ...: the texts can be in the "
                    "order of the rows or of this column; name it node_idx if it holds the nodes' numbers, or remove it"
                )

    def text(self, row: Sequence[str]) -> str:
        """The texts of a row, joined; "" if there is none."""
        cells = (row[place].strip() if place < len(row) else "" for place in self.parts)
        return ". ".join(cell for cell in cells if cell not in MISSING)

    def by_key(self, counted: Counter[str]) -> Iterator[tuple[str, str]]:
        """Id and text of each row. Counts rows without an id, or with more or fewer cells than the header."""
        assert self.key is not None
        for row in self.rows:
            key = row[self.key].strip() if self.key < len(row) else ""
            if not key or len(row) < 2:
                counted["rows_of_texts_without_an_id"] += 1
            else:
                yield key, self.text(row)

    def by_node(self, count: int) -> Iterator[tuple[int, str]]:
        """Number of the node and text of each row. Raises SourceError for a node that does not exist, or comes twice."""
        assert self.node is not None
        seen = np.zeros(count, bool)
        for place, row in enumerate(self.rows):
            cell = row[self.node] if self.node < len(row) else ""
            node = number_in(cell)
            if node is None or node >= count or seen[node]:
                raise SourceError(
                    f"{self.path}, row {place}: {cell[:40]!r} is no number of a node from 0 to {count - 1}, or comes twice"
                )
            seen[node] = True
            yield node, self.text(row)


def _json_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a file with a JSON object in each line."""
    rows = []
    header: dict[str, None] = {}
    objects: list[dict[str, Any]] = []
    for place, line in enumerate(_lines(path)):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path}, line {place + 1} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise SourceError(f"{path}, line {place + 1} must hold an object, got {type(found).__name__}")
        objects.append(found)
        header.update(dict.fromkeys(key for key in found if key.lower() in (*KEYS, *NODES, *PARTS)))
    for found in objects:
        cells = (found.get(key) for key in header)
        rows.append([cell if isinstance(cell, str) else "" if cell is None else str(cell) for cell in cells])
    return [key.lower() for key in header], rows


def read_labels(path: Path, counted: Counter[str]) -> np.ndarray:
    """The number of each node's class (int64, -1 for none), with or without a header."""
    found = []
    for place, row in enumerate(read_rows(path)):
        cell = row[0].strip() if len(row) == 1 else None
        number = None if cell is None else number_in(cell.removesuffix(".0"))
        if number is not None:
            found.append(number)
        elif cell is not None and (cell in MISSING or cell == "-1"):
            counted["labels_missing"] += 1
            found.append(-1)
        elif place or is_number(row[0] if row else ""):
            raise SourceError(f"{path}, row {place + 1}: one number of a class is expected, got {row[:5]}")
    if not found:
        raise SourceError(f"{path} has no rows")
    return np.array(found, np.int64)


def numbers(path: Path, columns: int) -> np.ndarray:
    """A table of whole numbers (.csv.gz), with or without a header, as int64. Raises SourceError."""
    import pyarrow as pa
    import pyarrow.csv

    first = next(iter(read_rows(path)), [])
    names = [str(column) for column in range(columns)]
    if len(first) != columns:
        raise SourceError(f"{path} must hold {columns} whole number(s) in each row, got {first[:5]}")
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=names, skip_rows=0 if any(map(is_number, first)) else 1),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.int64()), null_values=[]),
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path} must hold {columns} whole number(s) in each row: {error}") from error
    return np.stack([table[name].to_numpy() for name in names], 1)


def number_in(cell: str) -> int | None:
    """The number from 0 in a cell; None if the cell holds something else."""
    cell = cell.strip()
    return int(cell) if cell.isascii() and cell.isdecimal() and len(cell) < 18 else None


def is_number(cell: str) -> bool:
    """Whether a cell is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV or TSV file, gzipped or not, with its header. TSV has no quotes. Raises SourceError."""
    if ".tsv" in path.suffixes:
        yield from (line.split("\t") for line in _lines(path) if line)
        return
    csv.field_size_limit(2**30)
    try:
        yield from (row for row in csv.reader(_lines(path, ends=True), strict=True) if row)
    except csv.Error as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def _lines(path: Path, ends: bool = False) -> Iterator[str]:
    """The lines of a text file, gzipped or not. OGB's titleabs.tsv is a tar archive of one file: its content is read."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            head = file.peek(512)[:512]
            file_or_member: Any = file
            if head[257:262] == b"ustar":
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    member = next((entry for entry in archive if entry.isfile()), None)
                    file_or_member = archive.extractfile(member) if member is not None else io.BytesIO()
                    yield from _decoded(file_or_member, ends)
                return
            yield from _decoded(file_or_member, ends)
    except (OSError, EOFError, UnicodeDecodeError, tarfile.TarError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _decoded(file: Any, ends: bool) -> Iterator[str]:
    for line in io.TextIOWrapper(file, encoding="utf-8-sig", newline="" if ends else "\n"):
        yield line if ends else line.rstrip("\r\n")
