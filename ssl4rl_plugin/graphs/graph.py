"""A text-attributed graph in memory, divided once and for all into edges to show and edges to ask about.

The one rule against leaks is kept here and nowhere else: **an edge is for showing or for asking, never both**. A hash of
its two ends decides, so that both directions and all relations of a pair of nodes fare alike, and an added edge moves no
other one. Contexts are drawn from `shown` alone; the edges in `asked` belong to one split each, and no prompt of any
split shows one.

Everything is a flat array: a million nodes are no million objects, and no sample's cost grows with the graph.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ssl4rl_plugin.seeding import digest

SPLITS = ("train", "val", "test")
"""Of nodes and of asked edges; a node's number here is its entry in `TextGraph.roles`."""
MAX_NODES = 2**31 - 1
SCANNED = 64
"""Neighbours up to which a node's row is read as a whole; of a longer one random places are."""
SMALLEST_CELL = 12
"""Nodes of like degree and text length of which candidates are drawn, at least."""

_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 2048, 4096)
"""Bytes at which a text counts as longer, and shown neighbours at which a node counts as better linked."""

Ints = np.ndarray


class GraphError(ValueError):
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


def divide(
    raw: RawGraph,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    ask_fraction: float = 0.2,
    edge_fraction: float = 0.1,
    inductive: bool = False,
    tokenizer: str | None = None,
) -> TextGraph:
    """Check a graph, put right what can be, and divide its nodes and edges.

    Self-loops are left out and edges that are listed twice are kept once, both counted; an undirected graph may list
    each edge in one direction or in both. Isolated nodes, empty texts and texts of any length are kept.

    Args:
        raw: the graph.
        seed: changes which nodes and edges are in which split.
        val_fraction: share of the nodes held out for validation, where the graph itself has no splits.
        test_fraction: share of the nodes held out for evaluation, where the graph itself has no splits.
        ask_fraction: share of the edges that training asks about and never shows.
        edge_fraction: share of the edges held out for validation, and as many again for evaluation.
        inductive: prompts of a split show only its own nodes and those of the splits before it.
        tokenizer: see `TextGraph.tokenizer`.

    Raises:
        GraphError: numbers that are out of range or do not fit one another, no edges, no texts.
    """
    nodes = len(raw.texts)
    _check(raw, nodes)
    if not (ask_fraction > 0 and edge_fraction >= 0 and ask_fraction + 2 * edge_fraction <= 0.9):
        raise GraphError(
            f"graph {raw.name!r}: ask_fraction must be above 0 and, with twice edge_fraction, at most 0.9; got "
            f"{ask_fraction} and {edge_fraction}"
        )
    counted = Counter(raw.counted)
    typed = raw.directed or raw.relations is not None
    kinds = 2 * max(1, len(raw.relation_names)) if typed else 1
    keys = _arc_keys(raw, nodes, kinds, counted)
    limits = np.cumsum([edge_fraction, edge_fraction, ask_fraction])
    part = np.empty(len(keys), np.int8)  # 0: test, 1: val, 2: train, 3: shown
    for start in range(0, len(keys), _CHUNK):
        pairs = keys[start : start + _CHUNK] // kinds
        one, other = pairs // nodes, pairs % nodes
        drawn = _hashed(np.minimum(one, other) << 32 | np.maximum(one, other), "edge", seed)
        part[start : start + _CHUNK] = np.searchsorted((limits * 2**32).astype(np.uint64), drawn, side="right")
    shown = _arcs(keys[part == 3], nodes, kinds)
    asked = {
        split: _arcs(keys[part == number], nodes, kinds) for number, split in ((2, "train"), (1, "val"), (0, "test"))
    }
    order, cells = _cells(np.diff(shown.indptr), np.diff(raw.texts.offsets))
    linked = np.diff(shown.indptr) + sum(np.diff(arcs.indptr) for arcs in asked.values())
    counted["isolated_nodes"] = int(np.count_nonzero(linked == 0))
    counted["empty_texts"] = int(np.count_nonzero(np.diff(raw.texts.offsets) == 0))
    return TextGraph(
        name=raw.name,
        texts=raw.texts,
        shown=shown,
        asked=asked,
        roles=_roles(raw, nodes, seed, val_fraction, test_fraction),
        directed=typed,
        relation_names=raw.relation_names,
        labels=raw.labels,
        label_names=raw.label_names,
        inductive=inductive,
        repeated=_repeated(raw.texts),
        order=order,
        cells=cells,
        counted=+counted,
        tokenizer=tokenizer,
    )


_CHUNK = 2**20


def _check(raw: RawGraph, nodes: int) -> None:
    """Raises GraphError for what cannot be put right."""
    where = f"graph {raw.name!r}"
    if not 2 <= nodes <= MAX_NODES:
        raise GraphError(f"{where} has {nodes} nodes; from 2 to {MAX_NODES} are possible")
    if len(raw.sources) != len(raw.targets):
        raise GraphError(f"{where}: {len(raw.sources)} edges start and {len(raw.targets)} end")
    if not len(raw.sources):
        raise GraphError(f"{where} has no edges: there is nothing to ask about")
    for ends in (raw.sources, raw.targets):
        if ends.dtype.kind not in "iu":
            raise GraphError(f"{where}: edges must be whole numbers of nodes, got {ends.dtype}")
        for place in (int(ends.argmin()), int(ends.argmax())):
            if not 0 <= int(ends[place]) < nodes:
                raise GraphError(f"{where}: edge {place} names node {int(ends[place])}, and nodes are 0 to {nodes - 1}")
    for what, values, names in (
        ("relation", raw.relations, raw.relation_names),
        ("label", raw.labels, raw.label_names),
    ):
        if values is not None and len(values) and not -1 <= int(values.min()) <= int(values.max()) < len(names):
            raise GraphError(
                f"{where}: {what}s are numbered {values.min()} to {values.max()}, and {len(names)} are named"
            )
    for what, values, count in (
        ("relations", raw.relations, len(raw.sources)), ("labels", raw.labels, nodes), ("splits", raw.roles, nodes),
    ):  # fmt: skip
        if values is not None and len(values) != count:
            raise GraphError(f"{where}: {len(values)} {what} for {count} {'edges' if what == 'relations' else 'nodes'}")
    if not int(raw.texts.offsets[-1]):
        raise GraphError(
            f"{where}: every text is empty. A task needs words at the nodes: give texts, or features with names "
            "(a vocabulary), or attributes"
        )


def _arc_keys(raw: RawGraph, nodes: int, kinds: int, counted: Counter[str]) -> Ints:
    """Every edge seen from both ends as one number, (from, to, kind), ascending and without repetitions (int64)."""
    if nodes * nodes * kinds > 2**63 - 1:
        raise GraphError(f"graph {raw.name!r}: {nodes} nodes with {kinds // 2} relations are too many")
    loops = raw.sources == raw.targets
    count = len(loops) - int(np.count_nonzero(loops))
    counted["self_loops"] += len(loops) - count
    if not count:
        raise GraphError(f"graph {raw.name!r} has no edges but self-loops: there is nothing to ask about")
    kept = slice(None) if count == len(loops) else ~loops
    keys = np.empty(2 * count, np.int64)
    for half, start, end, against in (
        (keys[:count], raw.sources, raw.targets, 0), (keys[count:], raw.targets, raw.sources, 1),
    ):  # fmt: skip
        half[:] = start[kept]
        half *= nodes
        half += end[kept]
        if kinds > 1:
            half *= kinds
            half += against
            if raw.relations is not None:
                half += 2 * raw.relations[kept].astype(np.int64)
    keys.sort()
    first = np.empty(len(keys), bool)
    first[0] = True
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    distinct = int(np.count_nonzero(first))
    if kinds > 1:
        counted["repeated_edges"] += count - distinct // 2
    elif distinct != count:  # an undirected graph that lists each edge in both directions has just `count`
        counted["repeated_edges"] += max(0, count - distinct // 2 if distinct > count else count - distinct)
    return keys if distinct == len(keys) else keys[first]


def _arcs(keys: Ints, nodes: int, kinds: int) -> Arcs:
    """Sorted numbers of `_arc_keys` as rows."""
    kind = (keys % kinds).astype(np.int32) if kinds > 1 else None
    pairs = keys // kinds if kinds > 1 else keys
    indptr = np.zeros(nodes + 1, np.int64)
    np.cumsum(np.bincount(pairs // nodes, minlength=nodes), out=indptr[1:])
    return Arcs(indptr, (pairs % nodes).astype(np.int32), kind)


def _hashed(values: Ints, what: str, seed: int) -> Ints:
    """32 bits that depend on each value, the purpose and the seed (SplitMix64; Steele et al., OOPSLA 2014)."""
    salt = np.uint64(int.from_bytes(digest("graph", what, seed)[:8], "big"))
    x = values.astype(np.uint64) ^ salt
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(32)


def _roles(raw: RawGraph, nodes: int, seed: int, val_fraction: float, test_fraction: float) -> Ints:
    """The graph's own splits, or those that a hash of the node's number gives; the hash also fills a missing one in."""
    roles = np.zeros(nodes, np.int8) if raw.roles is None else raw.roles.astype(np.int8)
    drawn = _hashed(np.arange(nodes), "node", seed)
    below = 0.0
    for role, share in ((1, val_fraction), (2, test_fraction)):
        limits = np.array([below, below + share]) * 2**32
        if not (roles == role).any():
            roles[(roles == 0) & (drawn >= limits[0]) & (drawn < limits[1])] = role
        below += share
    return roles


def _cells(degrees: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Nodes in order of degree and text length, and where stretches of like ones start; short stretches are joined."""
    steps = np.array(_LENGTHS)
    keys = np.searchsorted(steps, degrees, "right") * (len(steps) + 1) + np.searchsorted(steps, lengths, "right")
    order = np.argsort(keys, kind="stable").astype(np.int32)
    starts = [0]
    for start in [*(np.flatnonzero(np.diff(keys[order])) + 1).tolist(), len(order)]:
        if start - starts[-1] >= SMALLEST_CELL:
            starts.append(start)
    if len(starts) > 1:
        starts[-1] = len(order)  # what is left at the end joins the last one
    else:
        starts.append(len(order))
    return order, np.array(starts, np.int32)


def _repeated(texts: Texts) -> Ints:
    """Which texts are not the only ones of their kind."""
    data, ends = texts.data, texts.offsets.tolist()
    marks = np.fromiter(
        (
            int.from_bytes(hashlib.blake2b(data[start:end].data, digest_size=8).digest(), "big", signed=True)
            for start, end in itertools.pairwise(ends)
        ),
        np.int64,
        len(texts),
    )  # fmt: skip
    _, place, count = np.unique(marks, return_inverse=True, return_counts=True)
    return (count > 1)[place]
