"""Sample a small piece of a graph: the neighbourhood of some nodes, or the nodes of a random walk.

PyTorch Geometric's own loader needs pyg-lib, which is not on PyPI. The cost here depends only on the size of the piece,
not on the size of the graph or the degrees of its nodes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ssl4rl_plugin.core import GraphNode

RESTART = 0.2
"""Probability that a random walk returns to its start, at each step."""


@dataclass(frozen=True)
class Piece:
    """Some nodes of a graph with the shown edges between them."""

    nodes: tuple[int, ...]
    """Numbers of the nodes in the graph, in the order in which they were found."""
    edges: tuple[tuple[int, int, int], ...]
    """(position of the start in `nodes`, position of the end, relation) of each edge, sorted."""

    def neighbours(self) -> list[list[int]]:
        """Sorted positions of the neighbours of each node, in either direction."""
        return adjacency(len(self.nodes), self.edges)


def adjacency(count: int, edges: Iterable[Sequence[int]]) -> list[list[int]]:
    """The sorted, distinct neighbours of each of `count` nodes. The first two entries of an edge are its ends."""
    found: list[set[int]] = [set() for _ in range(count)]
    for a, b, *_ in edges:
        found[a].add(b)
        found[b].add(a)
    return [sorted(ends) for ends in found]


def piece_of(place: GraphNode, nodes: Sequence[int]) -> Piece:
    """The piece of the given nodes, with all shown edges between them."""
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
    """The seeds and nodes up to `hops` shown edges away from them, nearest first.

    Args:
        place: the graph, and the split that decides which nodes are visible.
        seeds: nodes to start from.
        rng: random generator.
        hops: largest distance from the seeds, in edges.
        fanout: most neighbours of one node.
        most: most nodes.
        without: nodes to exclude.
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
    """Up to `most` nodes that a random walk with restarts visits, in the order of the first visit."""
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
