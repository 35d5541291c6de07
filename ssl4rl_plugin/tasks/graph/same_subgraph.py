"""Same subgraph: do two descriptions show the same graph?

Shown: a connected piece of the graph with numbers for nodes; and with letters for nodes either the same piece or a changed
one: one edge is moved, or two edges exchange ends, so that every node keeps its degree. Asked: same or different. Exact; a
blind guesser gets 1/2.

The changed graph is made for both answers, so no refusal depends on the answer. It is not isomorphic to the first, and has
the same number of nodes and edges. Refused: pieces for which no such change is found (`no_other_graph`), and nodes with
too few others within reach (`small_neighbourhood`).

The objective of graph contrastive learning (GraphCL, You et al., arXiv 2010.13902), on structure alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice, letters
from ssl4rl_plugin.graphs.sampling import adjacency
from ssl4rl_plugin.graphs.small import matches
from ssl4rl_plugin.graphs.words import GraphLevel, graph_text, notation, numbered
from ssl4rl_plugin.tasks.graph.pieces import Edges, connected_piece

TRIES = 20
"""Number of changes that are tried."""


@dataclass(frozen=True)
class SameSubgraphLevel(GraphLevel):
    nodes: int = 6
    tokens: int = 0
    exchange: bool = False
    """Exchange the ends of two edges, which keeps all degrees; otherwise move one edge."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 4 <= self.nodes <= 16:
            raise ValueError(f"nodes must be in 4..16, got {self.nodes}")
        if self.tokens:
            raise ValueError("tokens must be 0: texts would tell which nodes are the same")


class SameSubgraph(Task[SameSubgraphLevel]):
    name = "same_subgraph"
    summary = "whether two descriptions show the same graph"
    reference = "GraphCL, arXiv 2010.13902"
    kind = "graph"
    levels = {
        "6_moved": SameSubgraphLevel(),
        "8_moved": SameSubgraphLevel(nodes=8),
        "8_exchanged": SameSubgraphLevel(nodes=8, exchange=True),
        "12_exchanged": SameSubgraphLevel(nodes=12, exchange=True),
    }
    default_level = "6_moved"

    def grader(self, level: SameSubgraphLevel) -> Choice:
        return Choice(("same", "different"), {"yes": "same", "no": "different"})

    def generate(self, item: Item, level: SameSubgraphLevel, rng: random.Random) -> Sample | Rejection:
        piece = connected_piece(item, level, rng)
        if isinstance(piece, Rejection):
            return piece
        near = piece.neighbours()
        for _ in range(TRIES):
            changed = exchanged(piece.edges, rng) if level.exchange else moved(level.nodes, piece.edges, rng)
            if changed and not matches(near, adjacency(level.nodes, changed), 1):
                break
        else:
            return Rejection("no_other_graph", f"{TRIES} changes gave the same graph or none")
        names, marks = numbered(level.nodes, rng), rng.sample(letters(level.nodes), level.nodes)
        how = notation(level, rng)
        same = rng.random() < 0.5
        one = graph_text(piece.edges, names, how, rng)
        two = graph_text(piece.edges if same else changed, marks, how, rng)
        question = (
            f"Here are two graphs of {level.nodes} nodes; their edges have no direction.\nFirst: {one}\nSecond: {two}\nAre "
            "they the same graph but for the names of the nodes? Answer with one of: same, different."
        )
        return Sample(question, (), "same" if same else "different", {"nodes": list(piece.nodes)})


def moved(count: int, edges: Edges, rng: random.Random) -> Edges:
    """The graph with one edge moved; empty if the graph is complete."""
    linked = {(a, b) for a, b, _ in edges}
    free = [(a, b, 0) for a in range(count) for b in range(a + 1, count) if (a, b) not in linked]
    kept = rng.sample(edges, len(edges) - 1)
    return sorted([*kept, rng.choice(free)]) if free else []


def exchanged(edges: Edges, rng: random.Random) -> Edges:
    """The graph with the ends of two edges exchanged; empty if this would repeat an edge."""
    if len(edges) < 2:
        return []
    (a, b, _), (c, d, _) = rng.sample(edges, 2)
    if rng.random() < 0.5:
        c, d = d, c
    new = {(min(a, d), max(a, d)), (min(c, b), max(c, b))}
    kept = {(x, y) for x, y, _ in edges} - {(min(a, b), max(a, b)), (min(c, d), max(c, d))}
    if len({a, b, c, d}) < 4 or new & kept:
        return []
    return [(x, y, 0) for x, y in sorted(kept | new)]
