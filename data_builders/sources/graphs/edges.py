"""Edges from a table: which line is the header, and which columns hold the ends, the relation and the weight.

A table that can be read in two ways is refused, with both readings and the option that decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.columns import (
    DATE,
    DIRECTIONS,
    FILLERS,
    RELATIONS,
    ROLES,
    TIMES,
    WEIGHTS,
    WHOLE,
    ends_in,
    is_header,
    missing_words,
    two_kinds,
    whole_numbers,
    word,
)
from ssl4rl_plugin.data_builders.sources.graphs.statements import check_counts, stated_in, two_readings
from ssl4rl_plugin.data_builders.sources.graphs.tables import Column, Table, check_refused
from ssl4rl_plugin.data_builders.sources.graphs.text import NUMBER, Refused

_QUANTITY = re.compile(r"[^\w\s]{0,2}\s?[+-]?\d[\d.,]*\s?[^\W\d]{0,3}[^\w\s]?")
"""A number with a unit: 50 %, $5, 3 km."""


@dataclass(frozen=True)
class EdgeOptions:
    """What the user says about a table of edges; None where the reader decides."""

    header: bool | None = None
    """Whether the first line names the columns."""
    third: str | None = None
    """What the third of three columns is, one of `THIRDS`."""
    columns: tuple[str, ...] | None = None
    """What each column is, each one of `ROLES`."""
    relation_column: str | None = None
    """Name of the column of relations."""
    directed: bool | None = None
    """Whether edges have a direction."""


@dataclass(eq=False)
class Edges:
    """Edges between named nodes."""

    names: list[str]
    """The different names of nodes."""
    sources: np.ndarray
    """Place in `names` of each edge's start (int64)."""
    targets: np.ndarray
    """Place in `names` of each edge's end (int64)."""
    relations: np.ndarray | None = None
    """Place in `relation_names` of each edge's relation (int32)."""
    relation_names: list[str] = field(default_factory=list)
    directed: bool | None = None
    """Whether the file says that edges have a direction; None if it says nothing."""
    weights: bool = False
    """Whether the file has weights. No task uses them."""
    refused: Counter[str] = field(default_factory=Counter)
    """Number of lines that are no edges, by reason."""
    found: list[str] = field(default_factory=list)
    """What the reader recognised, in short phrases."""
    unused: list[str] = field(default_factory=list)
    """Columns that nothing was read from."""
    lines: bool = True
    """Whether the file has one line or row for each edge."""


def edges_of(table: Table, options: EdgeOptions) -> Edges:
    """The edges in a table. Raises SourceError if it can be read in two ways, or most of it cannot be read."""
    return _EdgeReader(table, options).edges()


class _EdgeReader:
    """Reads one table."""

    def __init__(self, table: Table, options: EdgeOptions) -> None:
        self.table = table
        self.options = options
        self.found = list(table.found)
        self.unused: list[str] = []
        self.directed: bool | None = None
        self.guessed = False
        """Whether the column of relations was chosen by its content."""

    def edges(self) -> Edges:
        """Decide on the header and the columns, and read the edges."""
        if self.table.size is None:
            self._header()
        stated = stated_in(self.table)
        self.directed = stated.directed
        self.found += stated.found
        roles = self._roles()
        return self._read(roles)

    def _two(self, one: str, other: str, option: str) -> NoReturn:
        two_readings(self.table.where, one, other, option)

    # -------------------------------------------------------------------------------------------- header

    def _header(self) -> None:
        """Decide whether the first record names the columns."""
        table, first = self.table, self.table.first
        if first is None:
            return
        if ends_in(first) is not None and self.options.header is not False:
            again = np.ones(len(table), bool)
            for column, value in zip(table.columns, first, strict=True):
                again &= column.rows_where(value.__eq__)
            rest = table.only(~again) if again.any() else table
            if again.any() and not any({*first[:2]} & {*column.values} for column in rest.columns):
                # Files that were joined: the header stands before each part.
                table.refused.add("the header again", int(table.lines[int(again.argmax())]), int(again.sum()))
                self.table = table = rest
        if self._names_columns(first):
            table.header = [name.strip("\"' ") for name in first]
            self.found.append(f"header {' '.join(table.header)}")
        else:
            self.table = table.with_first()

    def _names_columns(self, first: list[str]) -> bool:
        if self.options.header is not None:
            return self.options.header
        columns = self.table.columns
        kinds = [_shape(value) if re.search(r"\d", value) else None for value in first[:2]]
        known = (value for column in columns[:3] for value in column.known)
        if None not in kinds and not columns[0].numeric and any(_shape(value) in kinds for value in known):
            return False  # names like p1 and p2, among others of this kind
        ids = {value for column in columns[:3] if not column.numeric for value in column.known}
        there = any(value in ids for value in first[:3] if value)
        if is_header(first):
            if there and all(value in ids for value in first[:2]):
                self._two(
                    "its first line names the columns", "its first line is an edge", "header=true or header=false"
                )
            return True
        if not len(self.table):
            return ends_in(first) is not None
        if any(NUMBER.fullmatch(value) for value in first):
            if not self.options.columns:
                check_counts(self.table, first)
            return False
        if not first[0] and len(first) > 2:  # a table that was saved with its index
            return True
        if there:
            return False
        if any(column.numeric and value for column, value in zip(columns, first, strict=True)):
            return True
        named = not any(re.search(r"\d", value) for value in first[:2])
        if named and all(re.search(r"\d", value) for column in columns[:2] for value in column.known):
            return True
        letters = all(len(value) == 1 for column in columns[:2] for value in column.known)
        if ends_in(first) is not None and not letters:
            return True
        self._two(
            f"its first line ({', '.join(first)[:80]}) names the columns", "its first line is an edge",
            "header=true or header=false",
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------- columns

    def _roles(self) -> list[str]:
        """What each column is, one of `ROLES`."""
        table, options = self.table, self.options
        width = len(table.columns)
        if options.columns is not None:
            given = [*options.columns, *["-"] * (width - len(options.columns))]
            if (
                len(given) > width
                or not {*given} <= {*ROLES}
                or (given.count("source"), given.count("target")) != (1, 1)
            ):
                raise SourceError(
                    f"option columns={list(options.columns)}: give one of {', '.join(ROLES)} for each of the {width} "
                    f"columns ({', '.join(table.names())}), source and target once each"
                )
            if given.count("relation") > 1:
                raise SourceError("option columns names more than one relation")
            return given
        if width < 2:
            raise SourceError(f"{table.where}: a table with columns {', '.join(table.names())} lacks a column target")
        if table.header is not None and width > 2 and {*table.header[1:]} == {*table.columns[0].values}:
            raise SourceError(f"{table.where} is an adjacency matrix, which is not read: write one edge in each line")
        roles = ["-"] * width
        pair = ends_in(table.header) if table.header is not None else None
        if pair is None:
            self._guess(roles)
        else:
            roles[pair[0]], roles[pair[1]] = "source", "target"
            self._named(roles)
        if options.relation_column is not None:
            lower = [name.lower() for name in table.names()]
            if options.relation_column.lower() not in lower:
                raise SourceError(
                    f"{table.where} has no column {options.relation_column!r} (option relation_column); it has "
                    f"{', '.join(table.names())}"
                )
            roles = ["-" if role == "relation" else role for role in roles]
            roles[lower.index(options.relation_column.lower())] = "relation"
        return roles

    def _named(self, roles: list[str]) -> None:
        """The other columns of a table whose ends have names."""
        table = self.table
        assert table.header is not None
        words = [word(name) for name in table.header]
        for place, (name, column) in enumerate(zip(words, table.columns, strict=True)):
            if roles[place] != "-":
                continue
            if name == "type" and column.known and all(value.lower() in DIRECTIONS for value in column.known):
                self._direction(column)
                roles[place] = "direction"
            elif (name in RELATIONS or name == "type") and column.known and "relation" not in roles:
                roles[place] = "relation"
            elif name in WEIGHTS and column.numeric:
                roles[place] = "weight"
            elif name in TIMES:
                roles[place] = "time"
        if (roles[0], roles[-1]) == ("source", "target") and len(roles) == 3 and roles[1] == "-":
            if table.columns[1].numeric and words[1] not in ("r", "p"):
                self._two("its second column is the relation", "its second column is not used", "the option columns")
            roles[1] = "relation"
        free = [place for place, role in enumerate(roles) if role == "-"]
        if len(roles) == 3 and free and self.options.third in ("weight", "relation"):
            roles[free[0]] = self.options.third
        elif len(roles) == 3 and free and table.columns[free[0]].numeric and words[free[0]] not in (*FILLERS, ""):
            roles[free[0]] = "weight"

    def _direction(self, column: Column) -> None:
        """Gephi's column Type."""
        kinds = {DIRECTIONS[value.lower()] for value in column.known}
        if len(kinds) > 1 and self.options.directed is None:
            counts = Counter(value.lower() for value in column.strings() if value)
            told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            raise SourceError(
                f"{self.table.where} has directed and undirected edges ({told}): set directed=true or directed=false to "
                "read all in the same way"
            )
        self.directed = kinds == {True}
        self.found.append(f"Type {'directed' if self.directed else 'undirected'}")

    def _guess(self, roles: list[str]) -> None:
        """The columns of a table without names that tell, by their place and content."""
        table, columns = self.table, self.table.columns
        start = 0
        if table.header is not None and not table.header[0] and len(columns) > 2:
            if not _counting(columns[0]):
                raise SourceError(
                    f"{table.where} has a first column without a name: it is an adjacency matrix, which is not read, or a "
                    "table with names of its rows: say what each column is with columns=[-,source,target]"
                )
            start = 1
            self.found.append("first column counts the rows")
        names = table.names()
        if columns[start].numeric and columns[start + 1].numeric and two_kinds(names[start], names[start + 1]):
            self._two(
                f"numbers in {names[start]} and {names[start + 1]} are the same nodes", "they are two kinds of nodes",
                "columns=[source,target] (the same), or write them apart, like u1 and i1",
            )  # fmt: skip
        width = len(columns) - start
        if width > 4:
            raise SourceError(
                f"{table.where} has {width} columns without names that tell ({', '.join(table.names())[:200]}): say what "
                "each is with the option columns, e.g. columns=[source,target,-,weight,-]"
            )
        roles[start] = "source"
        if width == 2 or table.size is not None:
            roles[start + 1] = "target"
            roles[start + 2 :] = ["weight"] * (width - 2)
            return
        third = columns[start + 2]
        if width == 4:
            last = columns[start + 3]
            if not last.numeric and not all(DATE.fullmatch(value) for value in last.known):
                raise SourceError(
                    f"{table.where} has a fourth column of text: say what each column is with the option columns, e.g. "
                    "columns=[source,relation,target,-]"
                )
            roles[start + 3] = "time"
        self.guessed = self.options.third is None
        kind = self.options.third or self._third(columns[start], columns[start + 1], third)
        if kind == "target":
            roles[start + 1], roles[start + 2] = "relation", "target"
            self.found.append("triples: second column is the relation")
        else:
            roles[start + 1], roles[start + 2] = "target", kind
            self.found.append("third column is empty" if kind == "-" else f"third column is a {kind}")

    def _third(self, start: Column, second: Column, third: Column) -> str:
        """What the third column is: `weight`, `time`, `relation`, or `target` of a triple."""
        if not third.known:
            return "-"
        if all(DATE.fullmatch(value) for value in third.known):
            return "time"
        if all(_QUANTITY.fullmatch(value) and not NUMBER.fullmatch(value) for value in third.known):
            self._two("its third column holds quantities with units", "its third column holds relations",
                      "columns=[source,target,-] or third=relation")  # fmt: skip
        share = third.numbers / len(third.known)
        if share == 1:
            stamps = all(value.isdecimal() and 9 <= len(value) <= 13 for value in third.known[:1000])
            return "time" if stamps and len(third.known) > 1 else "weight"
        if share >= 0.9 and not (set(third.values) & set(start.values)):
            return "weight"
        if second.known and not any(re.search(r"\w", value) for value in second.known):
            self._two(f"its second column ({second.known[0]}) joins the ends and says nothing", "it is the relation",
                      "columns=[source,-,target] or columns=[source,relation,target]")  # fmt: skip
        one, two, three = (set(column.known) for column in (start, second, third))
        triple, typed = len(one & three), len(one & two)
        if triple > 10 * typed and not two & (one | three):
            return "target"
        if typed > 10 * triple and not three & (one | two):
            return "relation"
        if not triple and not typed:
            if 2 * len(two) <= len(three):
                return "target"
            if 2 * len(three) <= len(two):
                return "relation"
        self._two(
            "source, relation, target (triples)", "source, target and a third column of relations",
            "third=target (triples), third=relation or third=weight",
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------- rows

    def _read(self, roles: list[str]) -> Edges:
        table = self.table
        refused: Refused = table.refused
        start, end = (table.columns[roles.index(role)] for role in ("source", "target"))
        kind = table.columns[roles.index("relation")] if "relation" in roles else None
        kept = np.ones(len(table), bool)

        def refuse(bad: np.ndarray, reason: str) -> None:
            bad &= kept
            if bad.any():
                refused.add(reason, int(table.lines[int(bad.argmax())]), int(bad.sum()))
                kept[bad] = False

        for column in (start, end):
            words = missing_words(column)
            missing = {value for value in column.values if not value.strip() or value.lower() in words}
            refuse(column.rows_where(missing.__contains__), "an empty end")
            if table.layout is None:  # JSON and parquet
                refuse(column.rows_where(lambda value: value[:1] in "[{"), "an end that is no text or number")
        for place, role in enumerate(roles):
            if role == "weight":
                bad = table.columns[place].rows_where(lambda value: bool(value) and not NUMBER.fullmatch(value))
                refuse(bad, "a weight that is no number")
        if kind is not None:
            refuse(kind.rows_where(lambda value: not value.strip()), "an empty relation")
        used = int(kept.sum())
        check_refused(refused, used, table.where)
        self.found += refused.places()
        if not used:
            raise SourceError(f"{table.where} has no edges: there is nothing to ask about")
        names, (sources, targets) = self._joined([start, end], kept)
        relations, relation_names = None, list[str]()
        if kind is not None:
            present, relations = np.unique(kind.codes[kept], return_inverse=True)
            relation_names = [kind.values[place] for place in present.tolist()]
            if self.guessed and used >= 20 and 2 * len(relation_names) > used:
                raise SourceError(
                    f"{table.where}: the column of relations has {len(relation_names)} different values in {used} lines, so "
                    "they are hardly relations: say what the columns are with third=target (triples) or third=relation, or "
                    "leave the column out with columns=[source,target,-]"
                )
            relations = relations.astype(np.int32)
        names_of_columns = table.names()
        self.unused += [names_of_columns[place] for place, role in enumerate(roles) if role in ("-", "time")]
        return Edges(
            names, sources, targets, relations, relation_names, self.directed,
            "weight" in roles or "weight" in table.data, refused.counts, self.found,
            [*(name for name in self.unused if name), *(f"edge data {key}" for key in table.data if key != "weight")],
        )  # fmt: skip

    def _joined(self, columns: Sequence[Column], kept: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
        """The different names in several columns, and their places for the rows that are kept."""
        place: dict[str, int] = {}
        numbers = []
        for column in columns:
            codes = column.codes[kept]
            present = np.unique(codes).tolist()
            spelled = [column.values[code] for code in present]
            if whole := whole_numbers(spelled):
                spelled = whole
                self.found.append("ids like 1.0 are read as 1")
            number = np.zeros(len(column.values), np.int64)
            number[present] = [place.setdefault(name, len(place)) for name in spelled]
            numbers.append(number[codes])
        written = (WHOLE.fullmatch(name) for name in place if ".0" in name)
        doubtful = [match[0] for match in written if match and match[1] in place]
        if doubtful:
            raise SourceError(
                f"{self.table.where} names nodes {doubtful[0]!r} and {doubtful[0].partition('.')[0]!r}, which can be one "
                "node or two: write numbers of nodes in one way"
            )
        return list(place), numbers


def _shape(name: str) -> str:
    """A name with its numbers replaced: names of one kind have one shape."""
    return re.sub(r"\d+", "0", name)


def _counting(column: Column) -> bool:
    """Whether a column counts its rows from 0 or 1."""
    found = column.strings()
    return any(found == [str(number + first) for number in range(len(found))] for first in (0, 1))
