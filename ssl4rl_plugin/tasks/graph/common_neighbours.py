"""Common neighbours: how many nodes are linked to both of two nodes?

Shown: a connected piece of the graph, its nodes numbered at random. Asked: how many nodes share an edge with both of two
nodes. A number from 0 to m, where m is 1, 2 or 3; graded by the relative error; a blind guesser gets 1 in m + 1 right.

The number is drawn first, then a pair with this number of common neighbours. So every number is equally likely, and the
piece shown does not depend on it. Refused: pieces without a pair for one of the numbers (`lacks_a_number`), and nodes with
too few others within reach (`small_neighbourhood`).

Common neighbours are the oldest predictor of links (Liben-Nowell and Kleinberg, CIKM 2003); G1 (arXiv 2505.18499) uses
them as a problem for language models.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import ClassVar

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Counts
from ssl4rl_plugin.graphs.words import GraphLevel, numbered
from ssl4rl_plugin.tasks.graph.pieces import connected_piece, told


@dataclass(frozen=True)
class CommonNeighboursLevel(GraphLevel):
    nodes: int = 8
    tokens: int = 0
    highest: int = 1
    """Largest possible answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.highest <= self.nodes - 2:
            raise ValueError(f"highest must be in 1..{self.nodes - 2}, got {self.highest}")


class CommonNeighbours(Task[CommonNeighboursLevel]):
    name = "common_neighbours"
    summary = "how many nodes are linked to both of two nodes"
    reference = "Liben-Nowell and Kleinberg, CIKM 2003; G1, arXiv 2505.18499"
    kind = "graph"
    levels = {
        "up_to_1": CommonNeighboursLevel(),
        "up_to_2": CommonNeighboursLevel(nodes=12, highest=2),
        "up_to_2_texts": CommonNeighboursLevel(nodes=12, highest=2, tokens=12),
        "up_to_3": CommonNeighboursLevel(nodes=16, highest=3),
    }
    default_level = "up_to_1"
    cues: ClassVar = {"mentions": "nodes that are named often have more neighbours, so more common ones"}

    def grader(self, level: CommonNeighboursLevel) -> Counts:
        return Counts(1, 0, level.highest)

    def generate(self, item: Item, level: CommonNeighboursLevel, rng: random.Random) -> Sample | Rejection:
        piece = connected_piece(item, level, rng)
        if isinstance(piece, Rejection):
            return piece
        near = [set(ends) for ends in piece.neighbours()]
        sharing: dict[int, list[tuple[int, int]]] = {}
        for a, b in itertools.combinations(range(level.nodes), 2):
            sharing.setdefault(len(near[a] & near[b]), []).append((a, b))
        if lacking := [n for n in range(level.highest + 1) if n not in sharing]:
            return Rejection("lacks_a_number", f"no two nodes have {lacking[0]} common neighbours")
        names = numbered(level.nodes, rng)
        text = told(item, level, rng, piece.nodes, piece.edges, names)
        number = rng.randint(0, level.highest)
        a, b = rng.sample(rng.choice(sharing[number]), 2)
        question = (
            f"{text}\nHow many nodes share an edge with node {names[a]} and also with node {names[b]}? Answer with a number "
            f"from 0 to {level.highest}."
        )
        return Sample(
            question, (), [number], {"nodes": [piece.nodes[a], piece.nodes[b]], "asked": [names[a], names[b]]}
        )
