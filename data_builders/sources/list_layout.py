"""The layout of a list of image files: its delimiter, its header, and the columns with paths.

A list that can be read in two ways is refused, with the option that decides.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl4rl_plugin.data_builders.sources.endings import IMAGES
from ssl4rl_plugin.data_builders.sources.tables import IMAGE_NAME

PATH, CELL = "path", "label"
"""Names of the columns of a list with one path a line, and of what follows the path."""

DELIMITERS = ("\t", ",", ";", "|")
"""Characters between columns, in the order in which they are tried."""

LONGEST_CELL = 100_000
"""Characters. The module `csv` refuses a cell from 131,072 on."""

_ENDINGS = tuple(ending.decode() for ending in IMAGES)
_NAMES = re.compile(
    r"(?:full|rel|relative|abs|absolute|local)?_?paths?|f_?names?|(?:image|img|picture|photo|file) ?index|(?:image|img)_?id|"
    r"(?:image|img|picture|photo|file)[ _-]?(?:rel|full|abs)?[ _-]?(?:path|file|name|uri|url|location)s?|"
    r"(?:image|img|picture|photo)[ _-]?\d+|uri|url",
    re.IGNORECASE,
)
_SHARE = 0.5  # of the lines that a reading must explain


@dataclass(frozen=True)
class ListLayout:
    """How a list is read."""

    delimiter: str | None
    """The character between columns; None for one path a line."""
    columns: tuple[str, ...]
    """Names of the columns; without a header, their numbers from 1."""
    header: bool
    """Whether the first line names the columns."""
    labels: bool = False
    """Whether something follows the path, after a blank."""


def layout_of(lines: Sequence[str], delimiter: str | None, wanted: Sequence[str] | None, folder: Path) -> ListLayout:
    """The layout of a list.

    Args:
        lines: its first lines that are not blank.
        delimiter: the user's delimiter; None to find it.
        wanted: the user's columns with paths; None to find them.
        folder: the list's folder.

    Raises:
        ValueError: it is no list of image files, or can be read in two ways. The text says why, after the file's name.
    """
    texts = [line.strip() for line in lines]
    while len(texts) > 1 and is_comment(texts[0], folder):
        texts.pop(0)
    if not texts:
        raise ValueError("is empty")
    if any(len(text) > LONGEST_CELL for text in texts):
        raise ValueError(
            f"has a line of more than {LONGEST_CELL:,} characters: pictures in base64 belong into a .tsv file (source tsv) "
            "or parquet"
        )
    if delimiter is None and (plain := _plain(texts, folder)) is not None:
        return plain
    tables = [found for d in ([delimiter] if delimiter else DELIMITERS) if (found := _table(texts, d, wanted))]
    if len({table.delimiter for table in tables}) > 1:
        shown = " or ".join(f"{len(table.columns)} columns with {table.delimiter!r}" for table in tables)
        raise ValueError(f"can be read as {shown}: choose one with the option delimiter")
    if tables:
        return tables[0]
    open_quote = next((text for text in texts if text.count('"') % 2), None)
    quote = f", and {open_quote[:100]!r} has a quote that does not close" if open_quote else ""
    raise ValueError(f"does not look like a list of image files: its first line is {texts[0][:100]!r}{quote}")


def path_columns(layout: ListLayout, rows: Sequence[Sequence[Any]], folder: Path) -> list[str]:
    """The columns with paths. Raises ValueError if several could be meant."""
    if layout.delimiter is None:
        return [PATH]
    named = {name: [str(row[k]) for row in rows if k < len(row) and row[k]] for k, name in enumerate(layout.columns)}
    pictures = [name for name, values in named.items() if _share(values) > _SHARE]
    known = [name for name in layout.columns if layout.header and is_path_name(name) and named[name]]
    found = [name for name in known if name in pictures] or known or pictures
    numbered = {re.sub(r"[ _-]?\d+$", "", name.lower()) for name in found}
    if len(found) > 1 and not (layout.header and len(numbered) == 1):
        # Two columns may name the same files, one with the folder and one without.
        existing = [name for name in found if any(os.path.isfile(folder / value) for value in named[name])]
        if len(existing) != 1:
            raise ValueError(
                f"names images in the columns {', '.join(found)}: choose with the option `columns` (a name, or a list of "
                "names for several pictures a line)"
            )
        found = existing
    return found


def is_path_name(name: str) -> bool:
    """Whether a column's name says that it holds paths of pictures."""
    return bool(IMAGE_NAME.fullmatch(name) or _NAMES.fullmatch(name))


def is_picture_name(text: str) -> bool:
    """Whether a text ends as a picture's file name does."""
    return text.strip().lower().endswith(_ENDINGS)


def is_comment(text: str, folder: Path) -> bool:
    """Whether a line is a comment: it begins with `#`, and is not the name of a file (`#1.jpg`)."""
    if not text.startswith("#"):
        return False
    named = text[1:2] not in ("", " ", "\t", "#") and is_picture_name(text)
    return not named and not _is_file(folder / text)


def plain_path(text: str, folder: Path) -> str | None:
    """The path in a line of its own, without quotes; None if it is no name of a picture, and no file has this name."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return text if is_picture_name(text) or ("\0" not in text and _is_file(folder / text)) else None


def path_and_label(text: str, folder: Path) -> tuple[str | None, str | None]:
    """The path in a line, and what follows it after a blank; the path is None if the line has none."""
    if plain_path(text, folder) is not None:
        return text, None
    found = re.fullmatch(r"(.*\S)\s+(\S+)", text)
    return (found[1], found[2]) if found and plain_path(found[1], folder) is not None else (None, None)


def cells(lines: Iterable[str], delimiter: str) -> Any:
    """The rows of a delimited text, as a reader of the module `csv`, which refuses quotes that do not close."""
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _share(values: Sequence[str]) -> float:
    return sum(map(is_picture_name, values)) / len(values) if values else 0.0


def _plain(texts: Sequence[str], folder: Path) -> ListLayout | None:
    """The layout of one path a line; None if it is another one."""
    header = len(texts) > 1 and is_path_name(texts[0].strip("\"'"))
    below = [text for text in texts[header:] if not is_comment(text, folder)]
    whole = [text for text in below if plain_path(text, folder) is not None]
    if any(d in text for text in whole for d in DELIMITERS) and not any(_is_file(folder / t) for t in whole[:20]):
        return None  # `a.jpg,b.jpg` are two pictures, unless there are files of that name
    if len(whole) > _SHARE * len(below) and len(whole) > 0:
        return ListLayout(None, (PATH,), header)
    if any(d in text for text in below for d in DELIMITERS):
        return None
    labelled = [text for text in below if path_and_label(text, folder)[0] is not None]
    if len(labelled) > _SHARE * len(below) and not header:
        return ListLayout(None, (PATH, CELL), header, labels=True)
    return None


def _table(texts: Sequence[str], delimiter: str, wanted: Sequence[str] | None) -> ListLayout | None:
    """The layout with a delimiter; None if there are no columns with names of pictures."""
    rows = []
    reader = cells([text + "\n" for text in texts], delimiter)
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            break  # perhaps a quoted cell that goes on after the lines looked at; the reading of all lines tells
        if row is None:
            break
        while len(row) > 1 and not row[-1].strip():
            row.pop()
        rows.append([cell.strip() for cell in row])
    # Delimiters at the ends of lines make empty cells: most lines decide.
    if not rows or max(map(len, rows)) < 2:
        return None
    first, below = rows[0], rows[1:]
    if not any(map(is_picture_name, first)) and below:
        width = Counter(map(len, below)).most_common(1)[0][0]
        names = [name or str(k) for k, name in enumerate(first, 1)]  # pandas leaves the name of its index empty
        named = any(map(is_path_name, names)) or any(name in names for name in wanted or ())
        held = any(_share([row[k] for row in below if k < len(row)]) > _SHARE for k in range(width))
        if (named or held) and len(set(names)) == len(names) and len(names) > 1:
            return ListLayout(delimiter, tuple(names), True)
        return None
    width = Counter(map(len, rows)).most_common(1)[0][0]
    if width > 1 and any(_share([row[k] for row in rows if k < len(row)]) > _SHARE for k in range(width)):
        return ListLayout(delimiter, tuple(str(k) for k in range(1, width + 1)), False)
    return None
