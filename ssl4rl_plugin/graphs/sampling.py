"""Cut a small piece out of a graph: the neighbourhood of some nodes, or where a random walk leads.

PyTorch Geometric's own loader needs pyg-lib, which PyPI does not carry. Everything here costs what the piece has, however
large the graph is and however many neighbours a node has.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ssl4rl_plugin.core import GraphNode

RESTART = 0.2
"""Probability with which a walk goes back to where it began, at every step."""


@dataclass(frozen=True)
class Piece:
    """Some nodes of a graph with the shown edges between them."""

    nodes: tuple[int, ...]
    """Numbers in the graph, in the order in which they were found."""
    edges: tuple[tuple[int, int, int], ...]
    """Place of the start in `nodes`, place of the end, relation; in order."""

    def neighbours(self) -> list[list[int]]:
        """For each place the places next to it, in order, whatever the direction."""
        return adjacency(len(self.nodes), self.edges)


def adjacency(count: int, edges: Iterable[Sequence[int]]) -> list[list[int]]:
    """For each of `count` nodes those next to it, in order, each once; of an edge the first two entries count."""
    found: list[set[int]] = [set() for _ in range(count)]
    for a, b, *_ in edges:
        found[a].add(b)
        found[b].add(a)
    return [sorted(ends) for ends in found]


def piece_of(place: GraphNode, nodes: Sequence[int]) -> Piece:
    """Some nodes with all shown edges between them."""
    return Piece(tuple(nodes), tuple(place.graph.shown.among(nodes)))


def around(
    place: GraphNode,
    seeds: Sequence[int],
    rng: random.Random,
    *,
    hops: int = 2,
    fanout: int = 8,
    most: int = 30,
    without: Iterable[int] = (),
) -> list[int]:
    """The seeds and what lies up to `hops` shown edges from them, nearest first.

    Args:
        place: the graph, and the split that decides what may be seen.
        seeds: nodes to start from.
        rng: decides.
        hops: how far.
        fanout: neighbours of one node at most.
        most: nodes at most.
        without: nodes that are left out.
    """
    found = dict.fromkeys(seeds)
    banned = [*without]
    frontier = list(seeds)
    for _ in range(hops):
        reached: list[int] = []
        for node in frontier:
            wanted = min(fanout, most - len(found))
            if wanted <= 0:
                return list(found)
            ends = place.neighbours(place.graph.shown, node, wanted, rng, (*found, *banned))
            found |= dict.fromkeys(ends)
            reached += ends
        frontier = reached
    return list(found)


def walked(place: GraphNode, rng: random.Random, most: int, without: Iterable[int] = ()) -> list[int]:
    """Up to `most` nodes that a random walk with restarts meets, in the order in which it does."""
    banned = [*without]
    found = dict.fromkeys([place.node])
    here = place.node
    for _ in range(6 * most):
        if len(found) == most:
            break
        step = place.neighbours(place.graph.shown, here, 1, rng, banned)
        here = place.node if not step or rng.random() < RESTART else step[0]
        found[here] = None
    return list(found)
