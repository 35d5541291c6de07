"""Node degree: how many neighbours has a node?

Shown: a connected piece of the graph, its nodes numbered at random. Asked: the number of nodes that share an edge with
the named one. A number from 1 to m, where m is 3, 4 or 5; graded by the relative error; a blind guesser gets 1 in m right.

The number is drawn first, then a node with this number of neighbours. So every number is equally likely, and the piece
shown does not depend on it. Refused: pieces without a node for one of the numbers (`lacks_a_degree`), and nodes with too
few others within reach (`small_neighbourhood`).

Among the basic skills of GraphQA (Fatemi et al., "Talk like a graph", arXiv 2310.04560).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Counts
from ssl4rl_plugin.graphs.words import GraphLevel, numbered
from ssl4rl_plugin.tasks.graph.pieces import connected_piece, told


@dataclass(frozen=True)
class NodeDegreeLevel(GraphLevel):
    nodes: int = 8
    tokens: int = 0
    highest: int = 3
    """Largest possible answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.highest < self.nodes:
            raise ValueError(f"highest must be in 2..{self.nodes - 1}, got {self.highest}")


class NodeDegree(Task[NodeDegreeLevel]):
    name = "node_degree"
    summary = "how many neighbours a node has"
    reference = "GraphQA, arXiv 2310.04560"
    kind = "graph"
    levels = {
        "up_to_3": NodeDegreeLevel(),
        "up_to_4": NodeDegreeLevel(nodes=12, highest=4),
        "up_to_4_texts": NodeDegreeLevel(nodes=12, highest=4, tokens=12),
        "up_to_5": NodeDegreeLevel(nodes=20, highest=5),
    }
    default_level = "up_to_3"
    cues: ClassVar = {"mentions": "the question asks how often a node is named in the edges"}

    def grader(self, level: NodeDegreeLevel) -> Counts:
        return Counts(1, 1, level.highest)

    def generate(self, item: Item, level: NodeDegreeLevel, rng: random.Random) -> Sample | Rejection:
        piece = connected_piece(item, level, rng)
        if isinstance(piece, Rejection):
            return piece
        having: dict[int, list[int]] = {}
        for place, ends in enumerate(piece.neighbours()):
            having.setdefault(len(ends), []).append(place)
        if lacking := [n for n in range(1, level.highest + 1) if n not in having]:
            return Rejection("lacks_a_degree", f"no node has {lacking[0]} neighbours")
        names = numbered(level.nodes, rng)
        text = told(item, level, rng, piece.nodes, piece.edges, names)
        degree = rng.randint(1, level.highest)
        asked = rng.choice(having[degree])
        question = (
            f"{text}\nWith how many other nodes does node {names[asked]} share an edge? Answer with a number from 1 to "
            f"{level.highest}."
        )
        return Sample(question, (), [degree], {"node": piece.nodes[asked], "asked": names[asked]})
