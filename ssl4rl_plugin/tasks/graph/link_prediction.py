"""Link prediction: is there an edge between two nodes, or which candidate is at its other end?

Shown: the neighbourhoods of the nodes in question, with or without texts. Asked: whether two nodes share an edge that is
not shown (yes or no; a blind guesser gets 1/2); or n candidates in order, the likeliest neighbour first, where n is 4, 6
or 10 (graded by the reciprocal rank of the correct one; a blind guesser ranks it first in 1 of n cases).

The edge is an asked one: no prompt shows it, in either direction. A negative node is drawn for both answers. It is
similar to the correct one in the number of shown neighbours and in the length of its text, it is drawn in proportion to
its asked edges, and no edge of any split links it to the first node. No edge between the nodes in question is shown.
Refused: nodes without asked edges (`few_asked_edges`) or without enough negative nodes (`no_alternatives`), and candidates
with equal texts (`same_text`).

SSL4RL's third graph task (arXiv 2510.16416); link prediction as in VGAE (Kipf and Welling, arXiv 1611.07308).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.core import Grader, GraphNode, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice, Ranking, letters
from ssl4rl_plugin.graphs.sampling import around
from ssl4rl_plugin.graphs.words import GraphLevel, graph_text, notation, numbered, opening
from ssl4rl_plugin.tasks.graph.neighbour_prediction import unlinked_candidates
from ssl4rl_plugin.tasks.graph.options import listed, texts_of

FANOUT = 4
"""Most neighbours that are shown for each node in question."""


@dataclass(frozen=True)
class LinkPredictionLevel(GraphLevel):
    nodes: int = 12
    candidates: int = 0
    """Number of candidates to order; 0 asks about one pair, yes or no."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.candidates == 0 or 2 <= self.candidates <= min(26, self.nodes - 1)):
            raise ValueError(f"candidates must be 0 or in 2..{min(26, self.nodes - 1)}, got {self.candidates}")


class LinkPrediction(Task[LinkPredictionLevel]):
    name = "link_prediction"
    summary = "whether two nodes are linked, or which candidate a node is linked to"
    reference = "SSL4RL, arXiv 2510.16416; VGAE, arXiv 1611.07308"
    kind = "graph"
    levels = {
        "pair": LinkPredictionLevel(),
        "pair_no_texts": LinkPredictionLevel(nodes=20, tokens=0),
        "rank_4": LinkPredictionLevel(nodes=16, candidates=4),
        "rank_6": LinkPredictionLevel(nodes=20, candidates=6),
        "rank_10": LinkPredictionLevel(nodes=30, candidates=10, tokens=16),
    }
    default_level = "pair"

    def grader(self, level: LinkPredictionLevel) -> Grader[Any]:
        return Ranking(level.candidates) if level.candidates else Choice(("yes", "no"))

    def generate(self, item: Item, level: LinkPredictionLevel, rng: random.Random) -> Sample | Rejection:
        place = item.graph
        right = place.neighbours(place.asked, place.node, 1, rng)
        if not right:
            return Rejection("few_asked_edges")
        wrong = unlinked_candidates(place, right, max(1, level.candidates - 1), rng)
        if len(wrong) < max(1, level.candidates - 1):
            return Rejection("no_alternatives")
        if not level.candidates:
            linked = rng.random() < 0.5
            end = right[0] if linked else wrong[0]
            text, names, _ = pair_text(place, [place.node, end], level, rng)
            question = (
                f"{text}\nNot all edges are shown. Is there an edge between node {names[0]} and node {names[1]}? Answer "
                "with one of: yes, no."
            )
            return Sample(question, (), "yes" if linked else "no", {"nodes": [place.node, end]})
        order = rng.sample(range(level.candidates), level.candidates)
        ends = [[*right, *wrong][k] for k in order]
        text, names, texts = pair_text(place, [place.node, *ends], level, rng)
        if level.tokens and len(set(texts)) < len(texts):
            return Rejection("same_text")
        marks = [f"node {name}" for name in names[1 : len(ends) + 1]]
        question = (
            f"{text}\nNot all edges are shown. Node {names[0]} has an edge to one of these nodes:\n{listed(marks)}\nAnswer "
            "with all letters, the likeliest first, separated by commas."
        )
        truth = letters(level.candidates)[order.index(0)]
        options = tuple(f"{mark}: {words}" for mark, words in zip(marks, texts or [""] * len(marks), strict=True))
        return Sample(question, (), truth, {"nodes": [place.node, *ends]}, options=options)


def pair_text(
    place: GraphNode, asked: list[int], level: LinkPredictionLevel, rng: random.Random
) -> tuple[str, list[int], list[str]]:
    """The neighbourhoods of `asked` in text, the numbers of all nodes, and the texts of `asked` except the first."""
    nodes = around(place, rng.sample(asked, len(asked)), rng, hops=1, fanout=FANOUT, most=level.nodes)
    nodes = [*asked, *(node for node in nodes if node not in asked)]
    edges = [edge for edge in place.graph.shown.among(nodes) if max(edge[:2]) >= len(asked)]
    names = numbered(len(nodes), rng)
    texts = texts_of(place, nodes, level.share(len(nodes))) if level.tokens else []
    text = graph_text(edges, names, notation(level, rng), rng, place.graph, texts)
    return f"{opening(place.graph, len(nodes))}\n{text}", names, texts[1 : len(asked)]
