"""A text-attributed graph in memory, stored in flat arrays: the cost of a sample does not grow with the graph.

`ssl4rl_plugin.graphs.divide` turns a `RawGraph` into a `TextGraph`: it divides the edges into edges to show and edges to
ask about. Prompts show only edges of `shown`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ssl4rl_plugin.core.errors import UserError

SPLITS = ("train", "val", "test")
"""The splits of nodes and of asked edges. `TextGraph.roles` holds positions in this tuple."""
MAX_NODES = 2**31 - 1
SCANNED = 64
"""Longest row of neighbours that is read completely. Longer rows are sampled at random positions."""
Ints = np.ndarray


class GraphError(UserError):
    """A graph cannot be used. The message says what is wrong, where, and what to do."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Many texts in one buffer."""

    data: Ints
    """All texts in UTF-8, concatenated (uint8)."""
    offsets: Ints
    """Start of each text, then the end of the last one (int64, one entry more than texts)."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Pack texts. Replaces lone surrogates."""
        parts = [text.encode("utf-8", "replace") for text in texts]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(parts), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def start(self, number: int, limit: int) -> str:
        """At most the first `limit` bytes of a text. Does not read the rest."""
        begin, end = int(self.offsets[number]), int(self.offsets[number + 1])
        return self.data[begin : min(end, begin + limit)].tobytes().decode("utf-8", "ignore")


@dataclass(frozen=True, eq=False)
class Arcs:
    """Edges in compressed sparse rows. Each edge is stored as two arcs, one in the row of each of its ends."""

    indptr: Ints
    """Start of each node's row, then the end of the last one (int64)."""
    indices: Ints
    """The other end of each arc (int32), ascending within a row."""
    kinds: Ints | None = None
    """2 * relation, plus 1 if the arc runs against the direction of its edge (int32). None if the graph has neither
    directions nor relations."""

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def by_kind(self) -> tuple[Ints, Ints]:
        """All arcs sorted by kind, and the start of each kind. Computed on first use."""
        if self.kinds is None:
            return np.zeros(0, np.int32), np.zeros(1, np.int64)
        order = np.argsort(self.kinds, kind="stable").astype(np.int32 if len(self) < MAX_NODES else np.int64)
        return order, np.concatenate([[0], np.cumsum(np.bincount(self.kinds))])

    def degree(self, node: int) -> int:
        """Number of arcs in a node's row."""
        return int(self.indptr[node + 1]) - int(self.indptr[node])

    def row(self, node: int) -> Ints:
        """The other ends of a node's arcs."""
        return self.indices[int(self.indptr[node]) : int(self.indptr[node + 1])]

    def kinds_between(self, one: int, other: int) -> list[int]:
        """The kinds of all arcs from one node to another; 0 for each arc if `kinds` is None."""
        start = int(self.indptr[one])
        row = self.row(one)
        first, last = (int(np.searchsorted(row, other, side)) for side in ("left", "right"))
        return [0] * (last - first) if self.kinds is None else self.kinds[start + first : start + last].tolist()

    def linked(self, one: int, other: int) -> bool:
        """Whether an edge links two nodes. Searches the shorter of the two rows."""
        if self.degree(other) < self.degree(one):
            one, other = other, one
        row = self.row(one)
        place = int(np.searchsorted(row, other))
        return place < len(row) and int(row[place]) == other

    def among(self, nodes: Sequence[int]) -> list[tuple[int, int, int]]:
        """All edges among `nodes`, sorted, as (position of the start in `nodes`, position of the end, relation).

        The cost of a long row is logarithmic in its length. An undirected edge starts at the earlier position.
        """
        place = {node: number for number, node in enumerate(nodes)}
        wanted = np.array(sorted(place), np.int32)
        found = []
        for a, node in enumerate(nodes):
            begin, row = int(self.indptr[node]), self.row(node)
            if len(row) <= SCANNED:
                hits = [(begin + k, place[end]) for k, end in enumerate(row.tolist()) if end in place]
            else:
                first, last = np.searchsorted(row, wanted, "left"), np.searchsorted(row, wanted, "right")
                hits = [
                    (begin + k, place[int(wanted[entry])])
                    for entry in np.flatnonzero(last > first).tolist()
                    for k in range(int(first[entry]), int(last[entry]))
                ]
            for arc, b in hits:
                kind = 0 if self.kinds is None else int(self.kinds[arc])
                if (self.kinds is None and a < b) or (self.kinds is not None and kind % 2 == 0):
                    found.append((a, b, kind // 2))
        return sorted(found)


@dataclass(frozen=True)
class Reading:
    """What a source found in its files, for the one line that ends every reading (`GraphManifest.summary`)."""

    found: tuple[str, ...] = ()
    """What the reader recognised, as short phrases: `delimiter ;`, `header Source;Target`, `3 comment lines`."""
    lines_used: int | None = None
    """Lines or rows of edges that became edges; None where the file has no lines."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Number of lines, rows or entries that were left out, by reason."""
    weights: bool = False
    """Whether the edges have weights. No task uses them."""
    splits: str = ""
    """Where the nodes' splits come from: `masks of the file, column 0 of 10`; empty for the default (a hash)."""
    labels: str = ""
    """Where the classes come from: `column category of nodes.csv`; empty if the source does not say."""
    missing_texts: int = 0
    """Number of nodes that the file gives no text."""
    unused: tuple[str, ...] = ()
    """Keys, columns or attributes of the files that nothing used."""

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "refused": dict(self.refused)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reading:
        """The reading that `as_json` has written."""
        return cls(**{**value, "found": tuple(value["found"]), "unused": tuple(value["unused"])})


@dataclass(frozen=True, eq=False)
class RawGraph:
    """A graph as a source reads it, neither checked nor divided."""

    name: str
    sources: Ints
    """Number of the node at the start of each edge."""
    targets: Ints
    """Number of the node at the end of each edge."""
    texts: Texts
    """One for each node, in order."""
    directed: bool = False
    relations: Ints | None = None
    """Number of each edge's relation."""
    relation_names: tuple[str, ...] = ()
    labels: Ints | None = None
    """Number of each node's label; -1 for none. Only evaluation reads it."""
    label_names: tuple[str, ...] = ()
    roles: Ints | None = None
    """Number of each node's split; None to split by hash."""
    counted: Counter[str] = field(default_factory=Counter)
    """Number of things that the source has corrected or left out, by reason."""
    reading: Reading = field(default_factory=Reading)
    """What the source found in its files."""


@dataclass(frozen=True, eq=False)
class TextGraph:
    """A graph after `divide` has checked and divided it."""

    name: str
    texts: Texts
    shown: Arcs
    """Edges that prompts may show."""
    asked: dict[str, Arcs]
    """Split -> edges that the split asks about. No prompt shows them."""
    roles: Ints
    """Number of each node's split (int8)."""
    directed: bool
    relation_names: tuple[str, ...]
    labels: Ints | None
    label_names: tuple[str, ...]
    inductive: bool
    """Whether training prompts show no node of another split, and validation prompts no node of the test split."""
    repeated: Ints
    """Whether another node has the same text (bool)."""
    order: Ints
    """All nodes, sorted into cells of similar degree and text length (int32)."""
    cells: Ints
    """Start of each cell in `order`, then the end of the last one (int32)."""
    counted: Counter[str]
    """Number of things that were corrected or left out, by reason."""
    tokenizer: str | None = None
    """Model or file whose tokenizer counts the tokens of texts; None to estimate them with `words.tokens_in`."""
    reading: Reading = field(default_factory=Reading)
    """What the source found in its files."""

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def edges(self) -> int:
        """Number of edges, shown or asked, of all splits. Each relation between two nodes counts as one edge."""
        return (len(self.shown) + sum(map(len, self.asked.values()))) // 2

    @cached_property
    def cell_of(self) -> Ints:
        """The number of each node's cell (int32)."""
        found = np.empty(len(self), np.int32)
        found[self.order] = np.repeat(np.arange(len(self.cells) - 1, dtype=np.int32), np.diff(self.cells))
        return found

    def linked(self, one: int, other: int) -> bool:
        """Whether any edge, shown or asked, links two nodes."""
        return self.shown.linked(one, other) or any(arcs.linked(one, other) for arcs in self.asked.values())

    def nodes_of(self, split: str) -> Ints:
        """The nodes of a split, in order."""
        return np.flatnonzero(self.roles == SPLITS.index(split))


@dataclass(frozen=True, eq=False)
class GraphNode:
    """A node in its graph, as seen by one split: the `Item.data` of graph tasks."""

    graph: TextGraph
    node: int
    split: str

    @property
    def asked(self) -> Arcs:
        """The edges that this split asks about."""
        return self.graph.asked[self.split]

    def visible(self, node: int) -> bool:
        """Whether prompts of this split may show a node."""
        return not self.graph.inductive or int(self.graph.roles[node]) <= SPLITS.index(self.split)

    def neighbours(
        self, arcs: Arcs, node: int, count: int, rng: random.Random, without: Iterable[int] = ()
    ) -> list[int]:
        """Up to `count` distinct visible neighbours of a node, drawn uniformly. Never reads a long row completely."""
        start, degree = int(arcs.indptr[node]), arcs.degree(node)
        seen = dict.fromkeys(without)
        found: list[int] = []
        if degree <= SCANNED:
            row = list(dict.fromkeys(arcs.row(node).tolist()))
            rng.shuffle(row)
            drawn: Iterable[int] = row
        else:
            drawn = (int(arcs.indices[start + rng.randrange(degree)]) for _ in range(4 * count))
        for end in drawn:
            if len(found) == count:
                break
            if end not in seen and self.visible(end):
                seen[end] = None
                found.append(end)
        return found

    def alike(
        self, node: int, count: int, rng: random.Random, without: Iterable[int] = (), asked: bool = False
    ) -> list[int]:
        """Up to `count` visible nodes from the cell of `node`: with a similar number of shown neighbours and text length.

        Args:
            node: the node to compare with; never in the result.
            count: most nodes to return; fewer if the draws run out.
            rng: random generator.
            without: nodes to exclude.
            asked: draw in proportion to the number of asked edges, as an end of a random asked edge is distributed.
        """
        graph, arcs = self.graph, self.asked
        cell = int(graph.cell_of[node])
        start, stop = int(graph.cells[cell]), int(graph.cells[cell + 1])
        seen = {node, *without}
        found: list[int] = []
        # Rejection sampling in proportion to asked edges, capped at a number that few nodes of the cell reach.
        most = 4 * max(1, arcs.degree(node))
        for _ in range(64 + 16 * count):
            if len(found) == count:
                break
            other = int(graph.order[start + rng.randrange(stop - start)])
            if asked and rng.randrange(most) >= arcs.degree(other):
                continue
            if other not in seen and self.visible(other):
                seen.add(other)
                found.append(other)
        return found
