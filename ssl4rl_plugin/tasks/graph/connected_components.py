"""Connected components: how many connected components does the graph have?

Shown: a piece of the graph without the edges that would join its components, nodes numbered at random. Asked: the number
of connected components. A number from 1 to m, where m is 3, 4 or 5; graded by the relative error; a blind guesser gets 1
in m right.

The number n is uniform. n - 1 edges of a random spanning tree of the piece are removed, and so is every other edge
between two of the resulting components; so no piece is refused because of the number. A graph with more components has
fewer edges, which a guesser may use (`cues`). Refused: nodes with too few others within reach (`small_neighbourhood`).

Among the problems of NLGraph (Wang et al., arXiv 2305.10037).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Counts
from ssl4rl_plugin.graphs.sampling import adjacency
from ssl4rl_plugin.graphs.small import parts
from ssl4rl_plugin.graphs.words import GraphLevel, numbered
from ssl4rl_plugin.tasks.graph.pieces import Edges, connected_piece, told


@dataclass(frozen=True)
class ConnectedComponentsLevel(GraphLevel):
    nodes: int = 8
    tokens: int = 0
    most: int = 3
    """Largest number of connected components."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.most <= self.nodes:
            raise ValueError(f"most must be in 2..{self.nodes}, got {self.most}")


class ConnectedComponents(Task[ConnectedComponentsLevel]):
    name = "connected_components"
    summary = "in how many connected parts a graph falls"
    reference = "NLGraph, arXiv 2305.10037"
    kind = "graph"
    levels = {
        "up_to_3": ConnectedComponentsLevel(),
        "up_to_4": ConnectedComponentsLevel(nodes=12, most=4),
        "up_to_4_texts": ConnectedComponentsLevel(nodes=12, most=4, tokens=12),
        "up_to_5": ConnectedComponentsLevel(nodes=18, most=5),
    }
    default_level = "up_to_3"
    cues: ClassVar = {
        "length": "a graph with more components has fewer edges, so its description is shorter",
        "mentions": "a graph with more components has fewer edges, so its nodes are named less often",
    }

    def grader(self, level: ConnectedComponentsLevel) -> Counts:
        return Counts(1, 1, level.most)

    def generate(self, item: Item, level: ConnectedComponentsLevel, rng: random.Random) -> Sample | Rejection:
        piece = connected_piece(item, level, rng)
        if isinstance(piece, Rejection):
            return piece
        number = rng.randint(1, level.most)
        edges = split_up(level.nodes, piece.edges, number, rng)
        names = numbered(level.nodes, rng)
        text = told(item, level, rng, piece.nodes, edges, names)
        question = (
            f"{text}\nInto how many connected components does this graph fall? (A node without edges is one by itself.) "
            f"Answer with a number from 1 to {level.most}."
        )
        return Sample(question, (), [number], {"edges": len(edges)})


def split_up(count: int, edges: Edges, number: int, rng: random.Random) -> Edges:
    """Divide a connected graph into `number` components at random; return the edges within them."""
    part = list(range(count))

    def of(node: int) -> int:
        while part[node] != node:
            node = part[node]
        return node

    tree = []
    for edge in rng.sample(edges, len(edges)):
        one, other = of(edge[0]), of(edge[1])
        if one != other:
            part[one] = other
            tree.append(edge)
    rng.shuffle(tree)
    found = parts(adjacency(count, tree[number - 1 :]))
    place = {node: number for number, members in enumerate(found) for node in members}
    return [edge for edge in edges if place[edge[0]] == place[edge[1]]]
