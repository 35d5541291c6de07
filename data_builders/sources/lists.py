"""The list source: a CSV file that names image files, or a text file with one path a line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TextIO

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.list_layout import (
    CELL,
    PATH,
    ListLayout,
    cells,
    is_comment,
    is_picture_name,
    layout_of,
    path_and_label,
    path_columns,
    plain_path,
)
from ssl4rl_plugin.data_builders.sources.listed import LONGEST_PATH, ListedFiles

_LOOKED_AT = 200  # lines from which the layout is read


class ListSource(ListedFiles):
    """The pictures that a list names, each once: a CSV file (commas, tabs, semicolons or bars), or one path a line.

    A header is found by its names (`path`, `image`, `file`, `filename`, ...), or since only the lines below hold names of
    pictures. Without a header, the column with names of pictures counts, and its name is its number from 1. Lines that
    begin with `#` and empty lines are comments. A UTF-8 or UTF-16 mark, quotes, and blanks around cells are understood. In a
    list with one path a line, a label may follow after a blank (`cats/1.jpg 3`). The pictures of one line share a group.

    A ref is the path below the list's folder, as in the folder source, or an absolute path. Paths out of that folder and of
    `root` are rejected as `outside_root`. Lines that cannot be read are counted by reason in a warning.

    Args:
        path: the .csv, .txt, .lst or .tsv file, or a folder with exactly one .csv file at its top.
        columns: names of the columns with paths, or their numbers from 1; None finds them.
        image_folder: folder beside the list that the paths are relative to; None finds it: that of the list's own folder,
            `images`, `imgs`, `image`, `all_images` and `root` which has most pictures of the first lines.
        split_column: the column that names a line's split.
        delimiter: the character between columns; None finds it.
        root: folders outside that paths may lead to: a path or a list.
    """

    name: ClassVar[str] = "list"
    summary: ClassVar[str] = "a CSV file or a text file that names image files"
    endings: ClassVar[tuple[str, ...]] = (".csv", ".txt", ".lst")
    schema: ClassVar[str] = (
        "CSV with a column path, image, file, filename, ... (or without a header), or one path a line; paths are relative "
        "to the list's folder; optionally columns question, options or A, B, C, D, answer, category, split"
    )
    licence: ClassVar[str] = "that of the data set"
    where: ClassVar[str] = "give a .csv or .txt file with the images beside it"

    def __init__(
        self,
        path: str | Path | None,
        columns: Sequence[str] | None = None,
        image_folder: str | None = None,
        split_column: str | None = None,
        delimiter: str | None = None,
        root: str | Sequence[str] | None = None,
    ) -> None:
        if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1):
            raise SourceError(f"source 'list': delimiter is one character, got {delimiter!r}")
        wanted = [columns] if isinstance(columns, str | int) else columns
        wanted = wanted and [str(column) for column in wanted]  # a number is read as an integer from YAML
        self._delimiter = delimiter
        self._wanted = wanted
        super().__init__(path, wanted, image_folder, split_column, root, delimiter=delimiter)
        for name in [*(wanted or []), *([split_column] if split_column else [])]:
            if name not in self._layout.columns:
                raise SourceError(
                    f"source 'list': {self.file} has no column {name!r}; its columns are: "
                    f"{', '.join(self._layout.columns)[:300]}"
                )

    def _file(self) -> Path:
        place = self.existing_path()
        if place.is_dir():
            files = sorted(f for f in place.iterdir() if f.suffix.lower() == ".csv" and not f.name.startswith("."))
            if len(files) != 1:
                listed = ", ".join(f.name for f in files[:8])
                raise SourceError(f"source 'list': {place} holds {len(files)} .csv files ({listed}); give one of them")
            place = files[0]
        self._layout = self._read_layout(place)
        return place

    def _read_layout(self, file: Path) -> ListLayout:
        with _opened(file) as text:
            lines = [line for line in islice(text, _LOOKED_AT) if line.strip()]
        try:
            return layout_of(lines, self._delimiter, self._wanted, file.parent)
        except ValueError as error:
            raise SourceError(
                f"source 'list': {file} {error}. It must be {self.schema}; a graph needs --source graph"
            ) from error

    def _path_columns(self, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        try:
            return path_columns(self._layout, [tuple(entry.values()) for entry in entries], self.file.parent)
        except ValueError as error:
            raise SourceError(f"source 'list': {self.file} {error}") from error

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The lines of the list. Others are counted in `_left_out`, with the number of the first."""
        self._first: dict[str, int] = {}
        with _opened(self.file) as text:
            if self._layout.delimiter is None:
                yield from self._plain(text)
            else:
                yield from self._table(text, self._layout.delimiter)

    def _plain(self, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
        header, folder = self._layout.header, self.file.parent
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or is_comment(text, folder):
                continue
            if header:
                header = False
                continue
            path, label = path_and_label(text, folder) if self._layout.labels else (text, None)
            path = path and plain_path(path, folder)
            if path is None or len(path) > LONGEST_PATH:
                self._refuse("not the name of a picture", number)
                continue
            yield {PATH: path} | ({CELL: label} if self._layout.labels else {})

    def _table(self, lines: Iterable[str], delimiter: str) -> Iterator[dict[str, Any]]:
        names, header, folder = self._layout.columns, self._layout.header, self.file.parent
        reader = cells(lines, delimiter)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise SourceError(
                    f"source 'list': {self.file}, line {reader.line_num}: {error}; is a quote opened there or before and "
                    "never closed? Double a quote that belongs to a cell"
                ) from error
            if row is None:
                return
            values = [cell.strip() for cell in row]
            if not any(values) or (is_comment(values[0], folder) and not any(map(is_picture_name, values[1:]))):
                continue
            if header:
                header = False
                continue
            while len(values) > len(names) and not values[-1]:
                values.pop()
            if len(values) != len(names):
                self._refuse(f"not {len(names)} columns", reader.line_num)
                continue
            yield dict(zip(names, values, strict=True))

    def _refuse(self, reason: str, line: int) -> None:
        first = self._first.setdefault(reason, line)
        self._left_out[f"{reason} (line {first}{' first' if line > first else ''})"] += 1
        if line > first:  # one entry for each reason
            self._left_out[f"{reason} (line {first} first)"] += self._left_out.pop(f"{reason} (line {first})", 0)


def _opened(file: Path) -> TextIO:
    """A list as text: UTF-8 or UTF-16 by its mark. Bytes that are not UTF-8 are kept, for names of files."""
    try:
        with open(file, "rb") as binary:
            start = binary.read(4096)
        wide = start.startswith((b"\xff\xfe", b"\xfe\xff"))
        if b"\0" in start and not wide:
            raise SourceError(f"source 'list': {file} is no text file")
        encoding, errors = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
        return open(file, encoding=encoding, errors=errors, newline="")
    except OSError as error:
        raise SourceError(f"source 'list': {file} cannot be read: {error.strerror}") from error
