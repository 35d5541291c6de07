"""Graph distance: how many steps lie between two nodes?

Shown: a connected piece of the graph, its nodes numbered at random. Asked: the number of edges on a shortest path between
two nodes. A number from 1 to m, where m is 3, 4 or 5; graded by the relative error; a blind guesser gets 1 in m right.

The distance is drawn first, then a pair at this distance. So every distance is equally likely, and the piece shown does
not depend on it. Refused: pieces without a pair at one of the distances (`lacks_a_distance`), and nodes with too few
others within reach (`small_neighbourhood`).

Among the problems of NLGraph (Wang et al., arXiv 2305.10037) and GraphQA (arXiv 2310.04560).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Counts
from ssl4rl_plugin.graphs.small import distances
from ssl4rl_plugin.graphs.words import GraphLevel, numbered
from ssl4rl_plugin.tasks.graph.pieces import connected_piece, told


@dataclass(frozen=True)
class GraphDistanceLevel(GraphLevel):
    nodes: int = 8
    tokens: int = 0
    farthest: int = 3
    """Largest possible answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.farthest < self.nodes:
            raise ValueError(f"farthest must be in 2..{self.nodes - 1}, got {self.farthest}")


class GraphDistance(Task[GraphDistanceLevel]):
    name = "graph_distance"
    summary = "how many steps lie between two nodes"
    reference = "NLGraph, arXiv 2305.10037; GraphQA, arXiv 2310.04560"
    kind = "graph"
    levels = {
        "up_to_2": GraphDistanceLevel(farthest=2),
        "up_to_3": GraphDistanceLevel(nodes=12),
        "up_to_3_texts": GraphDistanceLevel(nodes=12, tokens=12),
        "up_to_4": GraphDistanceLevel(nodes=18, farthest=4),
    }
    default_level = "up_to_2"
    cues: ClassVar = {"mentions": "nodes that are named often have more edges, so they are near to more others"}

    def grader(self, level: GraphDistanceLevel) -> Counts:
        return Counts(1, 1, level.farthest)

    def generate(self, item: Item, level: GraphDistanceLevel, rng: random.Random) -> Sample | Rejection:
        piece = connected_piece(item, level, rng)
        if isinstance(piece, Rejection):
            return piece
        near = piece.neighbours()
        apart: dict[int, list[tuple[int, int]]] = {}
        for a in range(level.nodes):
            for b, steps in enumerate(distances(near, a)):
                apart.setdefault(steps, []).append((a, b))
        if lacking := [n for n in range(1, level.farthest + 1) if n not in apart]:
            return Rejection("lacks_a_distance", f"no two nodes are {lacking[0]} steps apart")
        names = numbered(level.nodes, rng)
        text = told(item, level, rng, piece.nodes, piece.edges, names)
        steps = rng.randint(1, level.farthest)
        a, b = rng.choice(apart[steps])
        question = (
            f"{text}\nHow many edges does a shortest path between node {names[a]} and node {names[b]} have? Answer with a "
            f"number from 1 to {level.farthest}."
        )
        return Sample(question, (), [steps], {"nodes": [piece.nodes[a], piece.nodes[b]], "asked": [names[a], names[b]]})
