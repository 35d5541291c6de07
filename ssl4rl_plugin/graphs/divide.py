"""Divide a graph into edges to show and edges to ask about.

This module alone enforces the rule against leaks: **an edge is either shown or asked about, never both**. A hash of its
two ends decides. So both directions and all relations of a pair of nodes get the same part, and adding an edge does not
move another. Each edge in `asked` belongs to one split, and no prompt of any split shows it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from dataclasses import replace

import numpy as np

from ssl4rl_plugin.core.graph import MAX_NODES, SPLITS, Arcs, GraphError, Ints, RawGraph, TextGraph, Texts
from ssl4rl_plugin.core.seeding import digest
from ssl4rl_plugin.graphs.words import plain

SMALLEST_CELL = 12
"""Least number of nodes in a cell of nodes with similar degree and text length."""
NO_NAME = frozenset(("", "nan", "none", "null", "<na>", "nat"))
"""Names of classes, in lower case, that only stand for a missing value."""

_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 2048, 4096)
"""Bin edges for the lengths of texts in bytes, and for the numbers of shown neighbours."""


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
    """Check and clean a graph, and divide its nodes and edges into splits.

    Drops self-loops and repeated edges, and counts both. An undirected graph may list each edge in one direction or in
    both. Keeps isolated nodes, empty texts, and texts of any length.

    Args:
        raw: the graph.
        seed: changes the split of each node and edge.
        val_fraction: share of the nodes held out for validation, if the graph itself has no splits.
        test_fraction: share of the nodes held out for evaluation, if the graph itself has no splits.
        ask_fraction: share of the edges that training asks about. No prompt shows them.
        edge_fraction: share of the edges held out for validation; the same share again is held out for evaluation.
        inductive: prompts of a split show only its own nodes and those of the splits before it.
        tokenizer: see `TextGraph.tokenizer`.

    Raises:
        GraphError: numbers are out of range or contradict each other, or there are no edges or no texts.
    """
    nodes = len(raw.texts)
    _check(raw, nodes)
    if not (ask_fraction > 0 and edge_fraction >= 0 and ask_fraction + 2 * edge_fraction <= 0.9):
        raise GraphError(
            f"graph {raw.name!r}: ask_fraction must be above 0 and, with twice edge_fraction, at most 0.9; got "
            f"{ask_fraction} and {edge_fraction}"
        )
    counted = Counter(raw.counted)
    raw = _named_relations(raw)
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
    roles, splits = _roles(raw, nodes, seed, val_fraction, test_fraction)
    labels, label_names = _named_labels(raw, counted)
    return TextGraph(
        name=raw.name,
        texts=raw.texts,
        shown=shown,
        asked=asked,
        roles=roles,
        directed=typed,
        relation_names=raw.relation_names,
        labels=labels,
        label_names=label_names,
        inductive=inductive,
        repeated=_repeated(raw.texts),
        order=order,
        cells=cells,
        counted=+counted,
        tokenizer=tokenizer,
        reading=replace(raw.reading, splits=splits),
    )


_CHUNK = 2**20


def _check(raw: RawGraph, nodes: int) -> None:
    """Raise GraphError for anything that cannot be corrected."""
    where = f"graph {raw.name!r}"
    if not 2 <= nodes <= MAX_NODES:
        raise GraphError(f"{where} has {nodes} nodes; a graph needs 2 to {MAX_NODES}")
    if len(raw.sources) != len(raw.targets):
        raise GraphError(f"{where}: {len(raw.sources)} edges have a start and {len(raw.targets)} have an end")
    if not len(raw.sources):
        raise GraphError(f"{where} has no edges: there is nothing to ask about")
    for ends in (raw.sources, raw.targets):
        if ends.dtype.kind not in "iu":
            raise GraphError(f"{where}: the ends of edges must be integers, got {ends.dtype}")
        for place in (int(ends.argmin()), int(ends.argmax())):
            if not 0 <= int(ends[place]) < nodes:
                raise GraphError(f"{where}: edge {place} names node {int(ends[place])}; the nodes are 0 to {nodes - 1}")
    for what, values, names, lowest in (
        ("relation", raw.relations, raw.relation_names, 0),
        ("label", raw.labels, raw.label_names, -1),
    ):
        if values is not None and len(values) and not lowest <= int(values.min()) <= int(values.max()) < len(names):
            raise GraphError(
                f"{where}: {what}s are numbered {values.min()} to {values.max()}, and there are names for {len(names)}"
            )
    for what, values, count in (
        ("relations", raw.relations, len(raw.sources)), ("labels", raw.labels, nodes), ("splits", raw.roles, nodes),
    ):  # fmt: skip
        if values is not None and len(values) != count:
            raise GraphError(f"{where}: {len(values)} {what} for {count} {'edges' if what == 'relations' else 'nodes'}")
    if not int(raw.texts.offsets[-1]):
        raise GraphError(
            f"{where}: all texts are empty. Tasks need texts at the nodes: give texts, or features with names "
            "(a vocabulary), or attributes"
        )


def _arc_keys(raw: RawGraph, nodes: int, kinds: int, counted: Counter[str]) -> Ints:
    """Two integers for each edge, one from each of its ends, that encode (from, to, kind); sorted and unique (int64)."""
    if nodes * nodes * kinds > 2**63 - 1:
        raise GraphError(f"graph {raw.name!r}: {nodes} nodes with {kinds // 2} relations are too many")
    loops = raw.sources == raw.targets
    count = len(loops) - int(np.count_nonzero(loops))
    counted["self_loops"] += len(loops) - count
    if not count:
        raise GraphError(f"graph {raw.name!r} has only self-loops as edges: there is nothing to ask about")
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
    elif distinct != count:  # equal if an undirected graph lists each edge in both directions: nothing is repeated
        counted["repeated_edges"] += max(0, count - distinct // 2 if distinct > count else count - distinct)
    return keys if distinct == len(keys) else keys[first]


def _arcs(keys: Ints, nodes: int, kinds: int) -> Arcs:
    """The rows of sorted keys made by `_arc_keys`."""
    kind = (keys % kinds).astype(np.int32) if kinds > 1 else None
    pairs = keys // kinds if kinds > 1 else keys
    indptr = np.zeros(nodes + 1, np.int64)
    np.cumsum(np.bincount(pairs // nodes, minlength=nodes), out=indptr[1:])
    return Arcs(indptr, (pairs % nodes).astype(np.int32), kind)


def _hashed(values: Ints, what: str, seed: int) -> Ints:
    """A 32-bit hash of each value with a purpose and a seed (SplitMix64; Steele et al., OOPSLA 2014)."""
    salt = np.uint64(int.from_bytes(digest("graph", what, seed)[:8], "big"))
    x = values.astype(np.uint64) ^ salt
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(32)


def _named_relations(raw: RawGraph) -> RawGraph:
    """The graph with one relation for each name as prompts show it. Raises GraphError if a used relation has no name."""
    if raw.relations is None:
        return raw
    shown = [plain(name) for name in raw.relation_names]
    for number in np.unique(raw.relations).tolist():
        if shown[number].casefold() in NO_NAME:
            edge = int((raw.relations == number).argmax())
            raise GraphError(
                f"graph {raw.name!r}: relation {number} of edge {edge} has no name ({raw.relation_names[number]!r}): name "
                "it, or leave its edges out"
            )
    place: dict[str, int] = {}
    merged = np.array([place.setdefault(name, len(place)) for name in shown], np.int32)
    if len(place) == len(shown):
        return raw
    names = [raw.relation_names[shown.index(name)] for name in place]
    return replace(raw, relations=merged[raw.relations], relation_names=tuple(names))


def _named_labels(raw: RawGraph, counted: Counter[str]) -> tuple[Ints | None, tuple[str, ...]]:
    """The nodes' labels and the classes' names, without classes that no answer could name.

    A class has no usable name if its name is empty, stands for a missing value, or equals another one except for case
    and blanks. Its nodes become unlabelled and are counted. With fewer than two classes left there is nothing to ask.
    """
    if raw.labels is None:
        return None, ()
    shown = [plain(name).casefold() for name in raw.label_names]
    often = Counter(shown)
    usable = np.array([name not in NO_NAME and often[name] == 1 for name in shown], bool)
    if usable.all() and len(usable) > 1:
        return raw.labels, raw.label_names
    number = np.where(usable, np.cumsum(usable) - 1, -1).astype(np.int32)
    labels = np.where(raw.labels < 0, -1, np.append(number, np.int32(-1))[raw.labels]).astype(np.int32)
    counted["labels_without_a_name_of_their_own"] += int(np.count_nonzero((raw.labels >= 0) & (labels < 0)))
    if usable.sum() < 2:
        counted["labels_of_one_class"] += int(np.count_nonzero(labels >= 0))
        return None, ()
    return labels, tuple(name for name, good in zip(raw.label_names, usable.tolist(), strict=True) if good)


def _roles(raw: RawGraph, nodes: int, seed: int, val_fraction: float, test_fraction: float) -> tuple[Ints, str]:
    """The split of each node, and where it comes from: the graph itself, or a hash of the node's number.

    The hash also fills a split without nodes.
    """
    own = "" if raw.roles is None else raw.reading.splits or "the files"
    hashed = []
    roles = np.zeros(nodes, np.int8) if raw.roles is None else raw.roles.astype(np.int8)
    drawn = _hashed(np.arange(nodes), "node", seed)
    below = 0.0
    for role, share in ((1, val_fraction), (2, test_fraction)):
        limits = np.array([below, below + share]) * 2**32
        if not (roles == role).any():
            roles[(roles == 0) & (drawn >= limits[0]) & (drawn < limits[1])] = role
            hashed.append(SPLITS[role])
        below += share
    if not own:
        return roles, "hash"
    return roles, f"{own}, {' and '.join(hashed)} by hash" if hashed else own


def _cells(degrees: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """All nodes sorted by degree and text length, and the start of each cell. Merges cells below SMALLEST_CELL."""
    steps = np.array(_LENGTHS)
    keys = np.searchsorted(steps, degrees, "right") * (len(steps) + 1) + np.searchsorted(steps, lengths, "right")
    order = np.argsort(keys, kind="stable").astype(np.int32)
    starts = [0]
    for start in [*(np.flatnonzero(np.diff(keys[order])) + 1).tolist(), len(order)]:
        if start - starts[-1] >= SMALLEST_CELL:
            starts.append(start)
    if len(starts) > 1:
        starts[-1] = len(order)  # the nodes left at the end join the last cell
    else:
        starts.append(len(order))
    return order, np.array(starts, np.int32)


def _repeated(texts: Texts) -> Ints:
    """Whether each text occurs more than once (bool)."""
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
