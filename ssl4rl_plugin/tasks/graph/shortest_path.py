"""Shortest path: which path between two nodes has the fewest edges?

Shown: a connected piece of the graph. The path goes from node 1 to the node with the highest number; all others are
numbered at random. Asked: the nodes of a shortest path, in order. Every shortest path is correct.

A level has a fixed distance of two, three or four edges, which the question does not state. Chance is that of a blind
guesser who knows the distance and puts random nodes in between, for the largest number of shortest paths that the level
allows. Refused: pieces without two nodes at this distance with so few shortest paths (`no_such_pair`), and nodes with too
few others within reach (`small_neighbourhood`).

Among the problems of NLGraph (Wang et al., arXiv 2305.10037) and G1 (arXiv 2505.18499).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Sequences
from ssl4rl_plugin.graphs.small import distances, shortest_paths
from ssl4rl_plugin.graphs.words import GraphLevel
from ssl4rl_plugin.tasks.graph.pieces import connected_piece, told


@dataclass(frozen=True)
class ShortestPathLevel(GraphLevel):
    nodes: int = 12
    tokens: int = 0
    steps: int = 2
    """Number of edges of a shortest path."""
    most: int = 2
    """Largest number of shortest paths."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.steps <= self.nodes - 2 and 1 <= self.most <= 6):
            raise ValueError(
                f"expected steps in 2..{self.nodes - 2} and most in 1..6, got {self.steps} and {self.most}"
            )


class ShortestPath(Task[ShortestPathLevel]):
    name = "shortest_path"
    summary = "which way between two nodes takes the fewest steps"
    reference = "NLGraph, arXiv 2305.10037; G1, arXiv 2505.18499"
    kind = "graph"
    levels = {
        "2_steps": ShortestPathLevel(),
        "3_steps": ShortestPathLevel(nodes=14, steps=3),
        "3_steps_texts": ShortestPathLevel(nodes=14, steps=3, tokens=12),
        "4_steps": ShortestPathLevel(nodes=18, steps=4, most=4),
    }
    default_level = "2_steps"

    def grader(self, level: ShortestPathLevel) -> Sequences:
        labels = tuple(str(number) for number in range(1, level.nodes + 1))
        return Sequences(labels, level.steps + 1, level.most, shortest=2, ends=(labels[0], labels[-1]))

    def generate(self, item: Item, level: ShortestPathLevel, rng: random.Random) -> Sample | Rejection:
        piece = connected_piece(item, level, rng)
        if isinstance(piece, Rejection):
            return piece
        near = piece.neighbours()
        pairs = [
            (a, b) for a in range(level.nodes) for b, steps in enumerate(distances(near, a)) if steps == level.steps
        ]
        rng.shuffle(pairs)
        for start, end in pairs:
            paths = shortest_paths(near, start, end, level.most + 1)
            if len(paths) <= level.most:
                break
        else:
            return Rejection("no_such_pair", f"no two nodes are {level.steps} steps apart on at most {level.most} ways")
        between = iter(rng.sample(range(2, level.nodes), level.nodes - 2))
        names = [1 if k == start else level.nodes if k == end else next(between) for k in range(level.nodes)]
        text = told(item, level, rng, piece.nodes, piece.edges, names)
        rng.shuffle(paths)
        question = (
            f"{text}\nFind a shortest path from node 1 to node {level.nodes}. Answer with its nodes in order, both ends "
            f"included, separated by commas."
        )
        truth = [[str(names[k]) for k in path] for path in paths]
        return Sample(question, (), truth, {"nodes": [piece.nodes[start], piece.nodes[end]], "paths": len(paths)})
