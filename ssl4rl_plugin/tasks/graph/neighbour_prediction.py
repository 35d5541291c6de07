"""Neighbour prediction: which of the candidates are neighbours of a node?

Shown: the texts of a node and its neighbourhood. Asked: which k of m candidates share an edge with it, by letter, where k
is 1, 2 or 3 and m is 4, 6 or 8. Graded by F1; a blind guesser gets all right in one of C(m, k) cases.

The correct candidates are ends of asked edges, which no prompt shows. Each wrong candidate is similar to one of them in the
number of shown neighbours and in the length of its text, is drawn in proportion to its asked edges, and no edge of any
split links it to the node. No candidate is in the neighbourhood shown, and the letters are drawn last. Refused: nodes with
too few asked edges (`few_asked_edges`), without neighbours to show (`isolated`) or without enough wrong candidates
(`no_alternatives`), and candidates with equal texts (`same_text`) or without a text (`no_text`).

SSL4RL's second graph task (arXiv 2510.16416); after context prediction (Hu et al., arXiv 1905.12265).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import GraphNode, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import LabelSet, letters
from ssl4rl_plugin.graphs.sampling import around, piece_of
from ssl4rl_plugin.graphs.words import NO_TEXT, GraphLevel, graph_text, notation, numbered, opening
from ssl4rl_plugin.tasks.graph.options import listed, texts_of


@dataclass(frozen=True)
class NeighbourPredictionLevel(GraphLevel):
    hops: int = 1
    """Radius of the neighbourhood, in edges."""
    candidates: int = 4
    """Number of candidates."""
    right: int = 1
    """Number of candidates that are neighbours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (1 <= self.hops <= 3 and 1 <= self.right < self.candidates <= 12 and self.tokens):
            raise ValueError(f"expected hops in 1..3, 1 <= right < candidates <= 12 and tokens from 1, got {self}")


class NeighbourPrediction(Task[NeighbourPredictionLevel]):
    name = "neighbour_prediction"
    summary = "which of the candidates are neighbours of a node"
    reference = "SSL4RL, arXiv 2510.16416; context prediction, arXiv 1905.12265"
    kind = "graph"
    levels = {
        "1_of_4": NeighbourPredictionLevel(nodes=8),
        "2_of_6": NeighbourPredictionLevel(nodes=12, candidates=6, right=2),
        "3_of_8": NeighbourPredictionLevel(nodes=14, hops=2, candidates=8, right=3),
    }
    default_level = "1_of_4"

    def grader(self, level: NeighbourPredictionLevel) -> LabelSet:
        return LabelSet(tuple(letters(level.candidates)), level.right)

    def generate(self, item: Item, level: NeighbourPredictionLevel, rng: random.Random) -> Sample | Rejection:
        place = item.graph
        graph = place.graph
        right = place.neighbours(place.asked, place.node, level.right, rng)
        if len(right) < level.right:
            return Rejection("few_asked_edges", f"{len(right)} of {level.right}")
        wrong = unlinked_candidates(place, right, level.candidates - level.right, rng)
        if len(wrong) < level.candidates - level.right:
            return Rejection("no_alternatives")
        nodes = around(place, [place.node], rng, hops=level.hops, most=level.nodes, without=(*right, *wrong))
        if len(nodes) < 2:
            return Rejection("isolated")
        share = level.share(len(nodes) + level.candidates)
        options = texts_of(place, [*right, *wrong], share)
        if NO_TEXT in options:
            return Rejection("no_text")
        if len({option.casefold() for option in options}) < len(options):
            return Rejection("same_text")
        names = numbered(len(nodes), rng)
        text = graph_text(
            piece_of(place, nodes).edges, names, notation(level, rng), rng, graph, texts_of(place, nodes, share)
        )
        order = rng.sample(range(level.candidates), level.candidates)
        many = f"{level.right} of these {level.candidates} nodes are" if level.right > 1 else "One of these nodes is"
        question = (
            f"{opening(graph, len(nodes))}\n{text}\nNot all nodes and edges are shown. {many} linked to node {names[0]} "
            f"too. Which?\n{listed([options[k] for k in order])}\nAnswer with "
            f"{'the letters, separated by commas' if level.right > 1 else 'the letter'}."
        )
        truth = [name for name, k in zip(letters(level.candidates), order, strict=True) if k < level.right]
        params = {"node": place.node, "candidates": [[*right, *wrong][k] for k in order]}
        return Sample(question, (), truth, params, options=tuple(options[k] for k in order))


def unlinked_candidates(place: GraphNode, right: list[int], count: int, rng: random.Random) -> list[int]:
    """Up to `count` nodes that no edge links to the place's node, each similar to one of the correct ones in turn."""
    found: list[int] = []
    for number in range(count):
        like = right[number % len(right)]
        drawn = place.alike(like, 4, rng, (place.node, *right, *found), asked=True)
        found += next(([node] for node in drawn if not place.graph.linked(place.node, node)), [])
    return found
