"""A text-attributed graph in memory: flat arrays, so that the cost of a sample does not grow with the graph.

`ssl4rl_plugin.graphs.divide` makes a `TextGraph` out of a `RawGraph`: it divides the edges into edges to show and edges
to ask about. Contexts are drawn from `shown` alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ssl4rl_plugin.core.errors import UserError

SPLITS = ("train", "val", "test")
"""Of nodes and of asked edges; a node's number here is its entry in `TextGraph.roles`."""
MAX_NODES = 2**31 - 1
SCANNED = 64
"""Neighbours up to which a node's row is read as a whole; of a longer one random places are."""
Ints = np.ndarray


class GraphError(UserError):
    """A graph that cannot be used; says what is wrong, where, and what to do."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Many texts in one buffer."""

    data: Ints
    """All texts in UTF-8, one behind the other (uint8)."""
    offsets: Ints
    """Where each starts, and the last one ends (int64, one more than there are texts)."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Pack texts; lone surrogates are replaced."""
        parts = [text.encode("utf-8", "replace") for text in texts]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(parts), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def start(self, number: int, limit: int) -> str:
        """At most the first `limit` bytes of a text: what lies behind costs nothing, however long it is."""
        begin, end = int(self.offsets[number]), int(self.offsets[number + 1])
        return self.data[begin : min(end, begin + limit)].tobytes().decode("utf-8", "ignore")


@dataclass(frozen=True, eq=False)
class Arcs:
    """Edges seen from both of their ends, as compressed sparse rows."""

    indptr: Ints
    """Where the row of each node starts, and the last one ends (int64)."""
    indices: Ints
    """The other end of every arc (int32), ascending within a row."""
    kinds: Ints | None = None
    """Twice the relation, plus 1 where the arc runs against its edge (int32); None where edges are all alike."""

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def by_kind(self) -> tuple[Ints, Ints]:
        """All arcs in order of their kinds, and where each kind starts; made once, when it is first needed."""
        if self.kinds is None:
            return np.zeros(0, np.int32), np.zeros(1, np.int64)
        order = np.argsort(self.kinds, kind="stable").astype(np.int32 if len(self) < MAX_NODES else np.int64)
        return order, np.concatenate([[0], np.cumsum(np.bincount(self.kinds))])

    def degree(self, node: int) -> int:
        """Arcs in a node's row."""
        return int(self.indptr[node + 1]) - int(self.indptr[node])

    def row(self, node: int) -> Ints:
        """The ends of a node's arcs."""
        return self.indices[int(self.indptr[node]) : int(self.indptr[node + 1])]

    def kinds_between(self, one: int, other: int) -> list[int]:
        """The kinds of all arcs from one node to another; 0 stands for an arc of no kind."""
        start = int(self.indptr[one])
        row = self.row(one)
        first, last = (int(np.searchsorted(row, other, side)) for side in ("left", "right"))
        return [0] * (last - first) if self.kinds is None else self.kinds[start + first : start + last].tolist()

    def linked(self, one: int, other: int) -> bool:
        """Whether there is an arc from one node to another; looks into the shorter of the two rows."""
        if self.degree(other) < self.degree(one):
            one, other = other, one
        row = self.row(one)
        place = int(np.searchsorted(row, other))
        return place < len(row) and int(row[place]) == other

    def among(self, nodes: Sequence[int]) -> list[tuple[int, int, int]]:
        """All edges between some nodes, as (place of its start, place of its end, relation), in order.

        Costs the logarithm of a long row, not its length. An edge without direction starts at the earlier place.
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


@dataclass(frozen=True, eq=False)
class RawGraph:
    """A graph as a source reads it, before anything is checked or divided."""

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
    """Number of each node's label; -1 for none. Read by evaluation alone."""
    label_names: tuple[str, ...] = ()
    roles: Ints | None = None
    """Number of each node's split; None where a hash is to decide."""
    counted: Counter[str] = field(default_factory=Counter)
    """What the source has put right or left out, by reason."""


@dataclass(frozen=True, eq=False)
class TextGraph:
    """A graph, checked and divided; see `divide`."""

    name: str
    texts: Texts
    shown: Arcs
    """Edges that contexts may show."""
    asked: dict[str, Arcs]
    """Split -> edges that are asked about in it, and shown nowhere."""
    roles: Ints
    """Number of each node's split (int8)."""
    directed: bool
    relation_names: tuple[str, ...]
    labels: Ints | None
    label_names: tuple[str, ...]
    inductive: bool
    """Training prompts show no node of another split, and validation prompts none of the test split."""
    repeated: Ints
    """Whether another node has the same text (bool)."""
    order: Ints
    """All nodes, those of like degree and text length side by side (int32)."""
    cells: Ints
    """Where each stretch of like nodes starts in `order`, and the last one ends (int32)."""
    counted: Counter[str]
    """What was put right or left out, by reason."""
    tokenizer: str | None = None
    """Model or file whose tokenizer measures texts; None for the rule of `words.tokens_in`."""

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def edges(self) -> int:
        """Edges of all splits, shown or asked; those between the same nodes with other relations count for themselves."""
        return (len(self.shown) + sum(map(len, self.asked.values()))) // 2

    @cached_property
    def cell_of(self) -> Ints:
        """The number of each node's stretch of like nodes (int32)."""
        found = np.empty(len(self), np.int32)
        found[self.order] = np.repeat(np.arange(len(self.cells) - 1, dtype=np.int32), np.diff(self.cells))
        return found

    def linked(self, one: int, other: int) -> bool:
        """Whether there is any edge between two nodes, shown or asked."""
        return self.shown.linked(one, other) or any(arcs.linked(one, other) for arcs in self.asked.values())

    def nodes_of(self, split: str) -> Ints:
        """The nodes of a split, in order."""
        return np.flatnonzero(self.roles == SPLITS.index(split))


@dataclass(frozen=True, eq=False)
class GraphNode:
    """A node in its graph, as one split may see it: what a graph task gets as `Item.data`."""

    graph: TextGraph
    node: int
    split: str

    @property
    def asked(self) -> Arcs:
        """The edges that this split is asked about."""
        return self.graph.asked[self.split]

    def visible(self, node: int) -> bool:
        """Whether prompts of the split may show a node."""
        return not self.graph.inductive or int(self.graph.roles[node]) <= SPLITS.index(self.split)

    def neighbours(
        self, arcs: Arcs, node: int, count: int, rng: random.Random, without: Iterable[int] = ()
    ) -> list[int]:
        """Up to `count` visible ends of a node's arcs, drawn without bias, each once; never reads a long row as a whole."""
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
        """Up to `count` visible nodes with about as many shown neighbours and as long a text as `node`.

        Args:
            node: what they are to be like.
            count: how many at most; fewer where the draws run out.
            rng: decides.
            without: nodes that are not wanted; `node` itself never is.
            asked: draw in proportion to the number of asked edges, as the end of a random asked edge is drawn.
        """
        graph, arcs = self.graph, self.asked
        cell = int(graph.cell_of[node])
        start, stop = int(graph.cells[cell]), int(graph.cells[cell + 1])
        seen = {node, *without}
        found: list[int] = []
        # A node counts as often as it has asked edges, up to a number that few of its like have.
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
