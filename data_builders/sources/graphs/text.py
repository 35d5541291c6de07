"""Delimited text of users: encoding, comment lines, delimiter, quotes, and the records in it.

The sniffer says what it has found. Text that can be read in two ways is refused, with both readings and the option that
decides.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from ssl4rl_plugin.data.source import SourceError

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "blank": ""}
"""Names of the delimiters, in the order in which they are tried. Blank means one or more blanks or tabs."""
PREFIXES = ("#", "%", "//")
"""What a comment line begins with."""
SAMPLE = 1000
"""Lines that the sniffer looks at."""
LONGEST = 2**24
"""Most characters of a line, and of a record with line breaks in quotes."""
EXPANDED = 2**30
"""Bytes up to which a gzipped file may expand by any factor."""
RATIO = 200
"""Largest factor by which a larger gzipped file may expand. Lists of edges expand by 3 to 20."""
JOINED = 10_000
"""Most lines of a record with line breaks in quotes."""
CONSISTENT = 0.8
"""Share of the lines that must have the same number of fields, for a delimiter to count as found."""
NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
"""A number, with a decimal point or comma."""

_DATA = re.compile(r"[\s,;|]*\{.*\}\s*$")
"""The edge data at the end of a line of networkx."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_EXCEL = re.compile(r'"?sep=.?"?\s*')
"""The first line by which Excel is told the delimiter."""
_BINARY = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook: save its sheet as CSV"),
    (b"PAR1", "a parquet file: name it .parquet"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save its sheet as CSV"),
    (b"%PDF", "a PDF"),
    (b"<?xml", "XML: name it .gexf or .graphml"),
)


@dataclass(frozen=True)
class TextOptions:
    """What the user says about a text file; None where the sniffer decides."""

    delimiter: str | None = None
    """A name of `DELIMITERS`, or the character itself."""
    quoting: bool | None = None
    """Whether quotes enclose fields. By default only where commas or semicolons separate fields."""
    comments: bool | None = None
    """Whether lines that begin with #, % or // are comments."""
    encoding: str | None = None
    """Encoding of the text."""
    prefix: str = ""
    """Start of the options' names, for messages: `nodes_` for a table of nodes."""


@dataclass(frozen=True)
class Layout:
    """How the lines of a file are read."""

    delimiter: str
    """The character; empty for blanks."""
    quoting: bool
    """Whether quotes enclose fields."""
    width: int | None
    """Number of fields of a record; None while it is not known."""
    comments: bool | None
    """See `TextOptions`."""
    prefix: str = ""
    """See `TextOptions`."""
    data: bool = False
    """Whether lines end with a dictionary of edge data, as networkx writes them. It is no field."""

    @property
    def name(self) -> str:
        """Name of the delimiter."""
        return next((name for name, sign in DELIMITERS.items() if sign == self.delimiter), repr(self.delimiter))

    def split(self, line: str) -> list[str]:
        """The fields of a line without quotes."""
        if self.data and (found := _DATA.search(line)):
            line = line[: found.start()]
        if self.delimiter:
            return [part.strip() for part in line.split(self.delimiter)]
        return [part for part in line.replace("\t", " ").split(" ") if part]


class Records:
    """The records of lines, one at a time. Blank lines and comments are counted; each other line is a record or refused.

    Args:
        lines: the lines, without line breaks at their ends.
        layout: how to read them.
        known: whether fields are the names of columns.
        where: name of the file, for messages.
    """

    def __init__(self, lines: Iterable[str], layout: Layout, known: Callable[[list[str]], bool], where: str) -> None:
        self.layout = layout
        self.comments = 0
        self.leading: list[str] = []
        """Comment lines before the first record."""
        self._source = enumerate(lines, 1)
        self._waiting: deque[tuple[int, str]] = deque()
        self._known = known
        self._where = where
        self._begun = False

    def __iter__(self) -> Iterator[tuple[int, list[str] | str]]:
        """Number of the line and its fields, or the reason for which it is refused."""
        split, quoting = self.layout.split, self.layout.quoting
        while True:
            number, line = self._waiting.popleft() if self._waiting else next(self._source, (0, ""))
            if not number:
                return
            if not line or line.isspace():
                continue
            stripped = line.lstrip(" \t")
            if (stripped.startswith(PREFIXES) and self._is_comment(number, line.strip(" \t"))) or (
                number == 1 and _EXCEL.fullmatch(stripped)
            ):
                self.comments += 1
                if not self._begun:
                    self.leading.append(line.strip())
                continue
            self._begun = True
            if "\0" in line:
                yield number, "null character"
            elif quoting and '"' in line:
                yield number, self._quoted(line)
            else:
                yield number, split(line)

    def _is_comment(self, number: int, line: str) -> bool:
        """Whether a line that begins like a comment is one. Raises SourceError if it may as well be data."""
        if self.layout.comments is not None:
            return self.layout.comments
        rest = line.removeprefix("//") if line.startswith("//") else line[1:]
        if not rest or rest[0].isspace() or rest[0] in "#%/" or self.layout.width is None:
            return True
        fields = self.layout.split(line)
        if len(fields) != self.layout.width or (not self._begun and self._known(self.layout.split(rest))):
            return True
        raise SourceError(
            f"{self._where}, line {number}: {line[:80]!r} can be a comment, or data that begins with {line[0]!r}: say so "
            f"with the option {self.layout.prefix}comments=true or {self.layout.prefix}comments=false"
        )

    def _quoted(self, line: str) -> list[str] | str:
        """The fields of a record that begins with a line with quotes, or the reason for which that line is refused."""
        parts, quotes, size = [line], line.count('"'), len(line)
        taken: list[tuple[int, str]] = []
        while True:
            if quotes % 2 == 0 or len(parts) == 1:
                try:
                    csv.field_size_limit(LONGEST)
                    sign = self.layout.delimiter or " "
                    found = next(csv.reader(["\n".join(parts)], delimiter=sign, strict=True, skipinitialspace=True))
                except csv.Error as error:
                    if len(parts) > 1 or "end of data" not in str(error):
                        break
                else:
                    if len(parts) > 1 and self.layout.width not in (None, len(found)):
                        break  # two stray quotes, not a record of several lines
                    return [part.strip() for part in found if part or self.layout.delimiter]
            if len(parts) == JOINED or size > LONGEST:
                break
            number, more = self._waiting.popleft() if self._waiting else next(self._source, (0, ""))
            if not number:
                break
            taken.append((number, more))
            parts.append(more)
            quotes += more.count('"')
            size += len(more)
        self._waiting.extendleft(reversed(taken))
        return "stray quotes"


@dataclass
class Refused:
    """Lines or rows that are left out, by reason, with the first of each."""

    counts: Counter[str] = field(default_factory=Counter)
    """Number of lines of each reason."""
    first: dict[str, int] = field(default_factory=dict)
    """The first line of each reason."""

    def add(self, reason: str, line: int, count: int = 1) -> None:
        """Count lines of which `line` is the first."""
        if count:
            self.counts[reason] += count
            self.first.setdefault(reason, line)

    def places(self) -> list[str]:
        """`first too few fields in line 7` for each reason."""
        return [f"first {reason} in line {line}" for reason, line in self.first.items()]

    def told(self) -> str:
        """`3 lines with too few fields (first: line 7)` for each reason."""
        return ", ".join(f"{count} with {reason} (first: line {self.first[reason]})" for reason, count in
                         self.counts.items())  # fmt: skip


def lines_of(path: Path, encoding: str | None = None) -> Iterator[str]:
    """The lines of a text file, gzipped or not, without line breaks (LF, CR LF or CR). Raises SourceError."""
    number = 0
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            plain = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
            head = plain.read(4096)
            plain.seek(0)
            with io.TextIOWrapper(plain, encoding or encoding_of(head, path), newline=None) as file:
                while line := file.readline(LONGEST):
                    number += 1
                    if not line.endswith("\n") and len(line) >= LONGEST:
                        raise SourceError(
                            f"{path}, line {number} has more than {LONGEST:,} characters: no table of text"
                        )
                    if packed and number % 4096 == 0 and plain.tell() > max(EXPANDED, RATIO * path.stat().st_size):
                        raise SourceError(
                            f"{path} expands to more than {plain.tell():,} bytes: unpack it, if that is meant"
                        )
                    line = line.removesuffix("\n")
                    yield line.removeprefix("\ufeff") if number == 1 else line
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist") from None
    except UnicodeError as error:
        raise SourceError(
            f"{path}, near line {number + 1}: {error}: save it as UTF-8, or name its encoding with the option encoding, "
            "e.g. encoding=latin-1 or encoding=utf-16"
        ) from error
    except LookupError:
        raise SourceError(f"there is no encoding {encoding!r}: e.g. utf-8, utf-16, latin-1, cp1252, gb18030") from None
    except (OSError, EOFError) as error:  # EOFError: a gzip file that was cut off
        raise SourceError(f"{path} cannot be read: {error}") from error


def encoding_of(head: bytes, path: Path) -> str:
    """The encoding of a file by its first bytes: by its byte order mark, or UTF-8. Raises SourceError for binary files."""
    for start, what in _BINARY:
        if head.startswith(start):
            raise SourceError(f"{path} is no table of text but {what}")
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if b"\0" in head[:200]:
        even, odd = head[0:200:2].count(0), head[1:200:2].count(0)
        guess = "utf-16-le" if odd > 10 * even else "utf-16-be" if even > 10 * odd else None
        remedy = f"it looks like UTF-16: set the option encoding={guess}" if guess else "it is no text"
        raise SourceError(f"{path} holds null bytes: {remedy}")
    return "utf-8"


def sniff(path: Path, options: TextOptions, known: Callable[[list[str]], bool], lacks: str) -> Layout:
    """How the lines of a file are read.

    Args:
        path: the file.
        options: what the user says about it.
        known: whether fields are the names of columns.
        lacks: what a file with one field in each line lacks, for the message.

    Raises:
        SourceError: it has no delimiter, or can be read in two ways; the message names the option that decides.
    """
    sample = list(islice(lines_of(path, options.encoding), SAMPLE + 1))
    cut = len(sample) > SAMPLE
    lines = [line for line in sample if line.strip() and not line.lstrip().startswith(PREFIXES)]
    data = not options.prefix and bool(lines) and all(_DATA.search(line) for line in lines)
    if any(line.strip().startswith("'") and line.strip().endswith("'") for line in lines[:1]):
        raise SourceError(f"{path}: its fields are in single quotes: write double quotes, or none")
    if options.delimiter is not None:
        sign = DELIMITERS.get(options.delimiter, options.delimiter)
        sign = {"\\t": "\t", " ": "", "space": "", "blanks": ""}.get(sign, sign)
        if len(sign) > 1 or sign in ('"', "\n", "\r"):
            raise SourceError(f"option {options.prefix}delimiter={options.delimiter!r}: choose one of {_names()}")
        given: tuple[str, ...] = (sign,)
    else:
        given = tuple(DELIMITERS.values())
    tried = {}
    for sign in given:
        quoting = sign in (",", ";") if options.quoting is None else options.quoting
        quoting = quoting and not data
        layout = Layout(sign, quoting, None, options.comments, options.prefix, data)
        found = [fields for _, fields in Records(sample[:SAMPLE], layout, known, str(path))]
        if cut and found and isinstance(found[-1], str):
            found.pop()  # the sample ends within a record
        rows = [fields for fields in found if not isinstance(fields, str)]
        # The header may have another number of fields (R writes no name for the column of row names).
        rest = found[1:] or found
        counts = Counter(len(fields) for fields in rest if not isinstance(fields, str))
        width = max((n for n in counts if n > 1), key=lambda n: (counts[n], n), default=0)
        if width:
            tried[sign] = _Tried(sign, quoting, width, counts[width] / len(rest), rows)
    if not tried:
        first = next((line.strip() for line in sample if line.strip()), "")
        if not first:
            raise SourceError(f"{path} is empty")
        raise SourceError(
            f"{path} has one field in each line (first: {first[:60]!r}), so it {lacks}: a delimiter other than "
            f"{_names()} is named with the option {options.prefix}delimiter"
        )
    chosen = _chosen(tried, path, options, known)
    quoting = chosen.quoting
    if options.quoting is None and not quoting and all(_enclosed(fields) for fields in chosen.rows):
        raise SourceError(
            f"{path}: every line has its fields in quotes, which can be part of the names or enclose them: set the option "
            f"{options.prefix}quoting=true (they enclose) or {options.prefix}quoting=false (they are part of the names)"
        )
    return Layout(chosen.sign, quoting, chosen.width, options.comments, options.prefix, data)


@dataclass(frozen=True)
class _Tried:
    """A delimiter, tried on the sample."""

    sign: str
    quoting: bool
    width: int
    """The most frequent number of fields."""
    share: float
    """Share of the lines with that number."""
    rows: list[list[str]]

    def told(self) -> str:
        """The first row as this delimiter reads it."""
        name = next((name for name, sign in DELIMITERS.items() if sign == self.sign), self.sign)
        return f"delimiter={name} ({' | '.join(part[:30] for part in self.rows[0][:6])})"


def _chosen(tried: dict[str, _Tried], path: Path, options: TextOptions, known: Callable[[list[str]], bool]) -> _Tried:
    """The delimiter that explains the lines. Raises SourceError if two do."""
    if options.delimiter is not None:
        return next(iter(tried.values()))
    named = [one for one in tried.values() if one.rows and known(one.rows[0])]
    if named:
        return named[0]
    good = [one for one in tried.values() if one.share >= CONSISTENT]
    if not good:
        best = max(one.share for one in tried.values())
        good = [one for one in tried.values() if one.share == best]
        if best < 0.5:
            raise SourceError(
                f"{path}: the lines have different numbers of fields for every delimiter: it is no table with one edge or "
                "node in each line (adjacency lists are not read). Another delimiter is named with the option "
                f"{options.prefix}delimiter"
            )
    signs = [one for one in good if one.sign]
    blank = next((one for one in good if not one.sign), None)
    if not signs:
        assert blank is not None
        return blank
    first = signs[0]
    if len(signs) > 1 and first.sign != "\t":
        decimal = [one for one in signs if one.sign != "," and _decimal(one)]
        if len(decimal) != 1:
            _refuse(path, signs[0], signs[1], options)
        first = decimal[0]
    if blank is not None:
        if first.sign == "," and _decimal(blank):
            return blank
        inner = [part for row in first.rows for part in row if " " in part]
        glued = all(first.sign in part.strip(first.sign) for row in blank.rows for part in row)
        numbers = bool(inner) and all(NUMBER.fullmatch(word) for part in inner for word in part.split())
        if (first.sign != "\t" and glued) or (blank.width > first.width and numbers):
            _refuse(path, first, blank, options)
    return first


def _decimal(one: _Tried) -> bool:
    """Whether commas occur only in numbers with decimal commas, after the two ends of an edge."""
    found = [(place, part) for row in one.rows for place, part in enumerate(row) if "," in part]
    return bool(found) and all(place >= 2 and NUMBER.fullmatch(part) for place, part in found)


def _refuse(path: Path, one: _Tried, other: _Tried, options: TextOptions) -> None:
    raise SourceError(
        f"{path} can be read in two ways, {one.told()} or {other.told()}: say which with the option "
        f"{options.prefix}delimiter"
    )


def _enclosed(fields: list[str]) -> bool:
    return len(fields[0]) > 1 and fields[0][0] == fields[0][-1] == '"'


def _names() -> str:
    return ", ".join(DELIMITERS)
