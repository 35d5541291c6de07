"""Node matching: two descriptions of one graph, which nodes are the same?

Shown: a connected piece of the graph twice, once with numbers and once with letters for nodes, edges shuffled. Asked: for
each letter in order, the number of the same node. An answer is correct if it maps the edges of one description to the
edges of the other. A symmetric graph has several correct answers (automorphisms).

The numbers and the letters are drawn at random, so every order is equally likely; a blind guesser gets at most 2 in n!
right. Refused: graphs with more than two correct answers (`too_symmetric`), and nodes with too few others within reach
(`small_neighbourhood`).

Graph isomorphism, as in graph matching networks (Li et al., arXiv 1904.12787).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Sequences, letters
from ssl4rl_plugin.graphs.small import matches
from ssl4rl_plugin.graphs.words import GraphLevel, graph_text, notation, numbered
from ssl4rl_plugin.tasks.graph.pieces import connected_piece


@dataclass(frozen=True)
class NodeMatchingLevel(GraphLevel):
    nodes: int = 5
    tokens: int = 0
    most: int = 2
    """Largest number of correct answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (4 <= self.nodes <= 12 and 1 <= self.most <= 8):
            raise ValueError(f"expected nodes in 4..12 and most in 1..8, got {self.nodes} and {self.most}")
        if self.tokens:
            raise ValueError("tokens must be 0: texts would tell which nodes are the same")


class NodeMatching(Task[NodeMatchingLevel]):
    name = "node_matching"
    summary = "which nodes of two descriptions of one graph are the same"
    reference = "graph matching networks, arXiv 1904.12787"
    kind = "graph"
    levels = {
        "5_nodes": NodeMatchingLevel(),
        "6_nodes": NodeMatchingLevel(nodes=6),
        "8_nodes": NodeMatchingLevel(nodes=8),
    }
    default_level = "5_nodes"

    def grader(self, level: NodeMatchingLevel) -> Sequences:
        return Sequences(tuple(str(number) for number in range(1, level.nodes + 1)), level.nodes, level.most)

    def generate(self, item: Item, level: NodeMatchingLevel, rng: random.Random) -> Sample | Rejection:
        piece = connected_piece(item, level, rng)
        if isinstance(piece, Rejection):
            return piece
        near = piece.neighbours()
        same = matches(near, near, level.most + 1)
        if len(same) > level.most:
            return Rejection("too_symmetric", f"the piece can be laid on itself in more than {level.most} ways")
        names, marks = numbered(level.nodes, rng), rng.sample(letters(level.nodes), level.nodes)
        how = notation(level, rng)
        one, two = (graph_text(piece.edges, called, how, rng) for called in (names, marks))
        place = {mark: k for k, mark in enumerate(marks)}
        order = [place[mark] for mark in letters(level.nodes)]
        rng.shuffle(same)
        truth = [[str(names[match[k]]) for k in order] for match in same]
        question = (
            f"The same graph of {level.nodes} nodes is described twice; its edges have no direction.\nWith numbers: {one}\n"
            f"With letters: {two}\nWhich number is each letter? Answer with the numbers of "
            f"{', '.join(letters(level.nodes))} in this order, separated by commas."
        )
        return Sample(question, (), truth, {"nodes": list(piece.nodes), "matches": len(same)})
