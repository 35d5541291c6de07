"""For the tasks about the structure of a graph: sample a connected piece and describe it in text."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ssl4rl_plugin.core import Item, Rejection
from ssl4rl_plugin.graphs.sampling import Piece, piece_of, walked
from ssl4rl_plugin.graphs.words import GraphLevel, cut, graph_text, notation

Edges = Sequence[tuple[int, int, int]]


def connected_piece(item: Item, level: GraphLevel, rng: random.Random) -> Piece | Rejection:
    """A connected piece of exactly `level.nodes` nodes around the item's, with at most one edge for each pair."""
    place = item.graph
    nodes = walked(place, rng, level.nodes)
    if len(nodes) < level.nodes:
        return Rejection("small_neighbourhood", f"{len(nodes)} of {level.nodes} nodes are within reach")
    pairs = {(min(a, b), max(a, b)) for a, b, _ in piece_of(place, nodes).edges}
    return Piece(tuple(nodes), tuple((a, b, 0) for a, b in sorted(pairs)))


def told(
    item: Item, level: GraphLevel, rng: random.Random, nodes: Sequence[int], edges: Edges, names: Sequence[int]
) -> str:
    """Description of a piece in a prompt: the number of nodes, their texts if the level shows any, and the edges."""
    share = level.share(len(nodes))
    texts = [cut(item.graph.graph, node, share) for node in nodes] if level.tokens else []
    opening = f"A graph has {len(nodes)} nodes, numbered 1 to {len(nodes)}. Its edges have no direction."
    return f"{opening}\n{graph_text(edges, names, notation(level, rng), rng, texts=texts)}"
