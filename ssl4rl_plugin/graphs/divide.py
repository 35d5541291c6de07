"""Dividing a graph, once, into edges to show and edges to ask about.

The rule against leaks is kept here and nowhere else: **an edge is for showing or for asking, never both**. A hash of its
two ends decides, so both directions and all relations of a pair of nodes get the same part, and adding an edge moves no
other one. Each edge in `asked` belongs to one split, and no prompt of any split shows it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np

from ssl4rl_plugin.core.graph import MAX_NODES, Arcs, GraphError, Ints, RawGraph, TextGraph, Texts
from ssl4rl_plugin.core.seeding import digest

SMALLEST_CELL = 12
"""Nodes of like degree and text length of which candidates are drawn, at least."""

_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 2048, 4096)
"""Bytes at which a text counts as longer, and shown neighbours at which a node counts as better linked."""


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
