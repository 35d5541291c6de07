"""What graph files say about themselves: comments of SNAP, KONECT, Matrix Market and networkx, first lines of numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.columns import ends_in
from ssl4rl_plugin.data_builders.sources.graphs.tables import Table


@dataclass
class Stated:
    """What a file says about itself."""

    directed: bool | None = None
    """Whether its edges have a direction."""
    found: list[str] = field(default_factory=list)
    """Phrases for the reading."""


def two_readings(where: str, one: str, other: str, option: str) -> NoReturn:
    """Raise SourceError for a file that can be read in two ways."""
    raise SourceError(f"{where} can be read in two ways: {one}, or {other}. Say which with {option}")


def stated_in(table: Table) -> Stated:
    """What the comments before the first edge say. A header in a comment becomes the table's. Raises SourceError."""
    stated = Stated()
    for line in table.leading:
        if table.size is None and table.header is None:
            assert table.layout is not None
            fields = table.layout.split(line.lstrip("#%/ \t"))
            if len(fields) == len(table.columns) and ends_in(fields) is not None:
                table.header = fields
                stated.found.append(f"header {' '.join(fields)} in a comment")
        if re.match(r"#\s*GMT\b", line):
            raise SourceError(f"{table.where} is an adjacency list of networkx, which is not read: use write_edgelist")
        if re.match(r"#.*\b(un)?directed graph\b", line, re.IGNORECASE):
            stated.directed = "undirected" not in line.lower()
            stated.found.append(f"SNAP: {'' if stated.directed else 'un'}directed")
        counts = re.match(r"#\s*Nodes:\s*(\d+)\s+Edges:\s*(\d+)", line, re.IGNORECASE)
        if counts and int(counts[2]) != len(table):
            stated.found.append(f"its comment says {int(counts[2]):,} edges")
        if konect := re.match(r"%\s*(sym|asym|bip)\b", line):
            if konect[1] == "bip":
                raise SourceError(
                    f"{table.where} is a bipartite graph of KONECT, whose two sides use the same numbers: write them "
                    "apart (e.g. u1 and i1), without the first line"
                )
            stated.directed = konect[1] == "asym"
            stated.found.append(f"KONECT: {konect[1]}")
    if table.size is not None:
        _matrix(table, table.leading[0].lower().split(), table.size, stated)
    return stated


def _matrix(table: Table, kind: Sequence[str], size: Sequence[str], stated: Stated) -> None:
    """A Matrix Market file: a square sparse matrix is a graph."""
    if list(kind[1:3]) != ["matrix", "coordinate"] or len(kind) < 5 or not all(part.isdecimal() for part in size):
        raise SourceError(f"{table.where}: of Matrix Market files, only sparse matrices (coordinate) are read")
    rows, columns, entries = (int(part) for part in [*size, "0", "0", "0"][:3])
    if rows != columns:
        raise SourceError(
            f"{table.where} is a matrix of {rows} by {columns}: its rows and columns are different nodes with the same "
            "numbers. Write them apart (e.g. r1 and c1), one edge in each line"
        )
    if entries != len(table) + sum(table.refused.counts.values()):
        raise SourceError(f"{table.where} declares {entries} entries and holds {len(table)}: it is not complete")
    stated.directed = kind[4] == "general"
    stated.found.append(f"Matrix Market, {kind[4]}")


def check_counts(table: Table, first: Sequence[str]) -> None:
    """Refuse a first line that may hold the numbers of nodes and edges, and METIS files, which begin so."""
    if not (len(first) == 2 and all(value.isdecimal() for value in first)):
        return
    nodes, edges = int(first[0]), int(first[1])
    ids = [int(value) for column in table.columns for value in column.known if value.isdecimal()]
    inside = all(column.numeric for column in table.columns) and max(ids, default=nodes + 1) <= nodes
    if inside and len(table) == nodes == edges:
        raise SourceError(
            f"{table.where} looks like METIS (a line for each node, with its neighbours), which is not read, or "
            "begins with the numbers of nodes and edges: write one edge in each line, or set header=false if it is so"
        )
    if inside and len(table) == edges:
        two_readings(
            table.where, f"its first line ({' '.join(first)}) holds the numbers of nodes and edges",
            "its first line is an edge", "header=true or header=false",
        )  # fmt: skip
