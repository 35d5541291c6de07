"""Graphs that tests make for themselves (on the path of every test, see pyproject)."""

from __future__ import annotations

import random
from functools import cache

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, TextGraph, Texts
from ssl4rl_plugin.graphs.divide import divide

WORDS = (
    "river", "stone", "cloud", "forest", "garden", "window", "letter", "market", "engine", "bridge", "island", "winter",
    "summer", "silver", "copper", "velvet", "candle", "mirror", "lantern", "harbour", "meadow", "valley", "thunder",
    "feather", "marble", "ribbon", "basket", "pepper", "ginger", "walnut", "saddle", "anchor", "compass", "ladder",
    "hammer", "needle", "thread", "canvas", "violin", "trumpet",
)  # fmt: skip


def raw_graph(seed: int, nodes: int = 240, links: int = 4, relations: int = 4, name: str = "made") -> RawGraph:
    """A typed graph with triangles: each node is linked to some before it, and to some of their neighbours."""
    rng = random.Random(seed)
    edges: list[tuple[int, int]] = []
    near: list[list[int]] = [[] for _ in range(nodes)]
    for node in range(1, nodes):
        for _ in range(min(node, links)):
            other = rng.randrange(max(0, node - 40), node)
            if near[other] and rng.random() < 0.5:
                other = rng.choice(near[other])
            if other != node:
                edges.append((node, other) if rng.random() < 0.5 else (other, node))
                near[node].append(other)
                near[other].append(node)
    texts = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 9))) for _ in range(nodes)]
    ends = np.array(edges, np.int64)
    kinds = np.array([rng.randrange(relations) for _ in edges], np.int32) if relations else None
    return RawGraph(
        name,
        ends[:, 0],
        ends[:, 1],
        Texts.of(texts),
        directed=bool(relations),
        relations=kinds,
        relation_names=tuple(f"relation {k}" for k in range(relations)),
        labels=np.array([k % 3 for k in range(nodes)], np.int32),
        label_names=("physics", "botany", "law"),
    )


@cache
def made_graph(seed: int = 0, relations: int = 4) -> TextGraph:
    """The same, divided."""
    return divide(raw_graph(seed, relations=relations), seed=seed)
