"""Graph samples per second, and memory, on a generated graph of 10^6 nodes and 10^7 edges with some large hubs.

Run with `make bench`. Every task at its hardest neighbourhood: two hops, at most 30 nodes. Figures are for one core.
`make bench-once`, which measures nothing, takes a hundredth of the graph.
"""

from __future__ import annotations

import itertools
import resource
import sys
from functools import cache

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ssl4rl_plugin.core import GraphNode, Item, Rejection
from ssl4rl_plugin.core.graph import RawGraph, TextGraph, Texts
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.graphs.divide import divide
from ssl4rl_plugin.tasks import get_task, registry

NODES, EDGES, RELATIONS = 10**6, 10**7, 4
LEAST = 300
"""Samples a second and core that are promised."""
NAMES = [name for name in registry.names() if get_task(name).kind == "graph"]


@cache
def power_law(typed: bool = False, part: int = 1) -> tuple[TextGraph, int]:
    """The graph, or one with 1 / `part` of its nodes and edges, and bytes of its bare edge list and texts. Ends are drawn
    with density 1/x, and most edges go to a node nearby, so that there are triangles."""
    nodes, edges = NODES // part, EDGES // part
    rng = np.random.default_rng(0)
    ends = np.empty((2, edges), np.int64)
    for side in ends:
        np.minimum(nodes ** rng.random(edges), nodes - 1, out=side, casting="unsafe")
    plain = rng.random(edges) < 0.7
    ends[0, plain] = rng.integers(0, nodes, int(plain.sum()))
    ends[1, plain] = (ends[0, plain] + rng.integers(1, 50, int(plain.sum()))) % nodes  # near ones: triangles
    letters = rng.integers(0, 26, (5000, 6)) + ord("a")
    words = np.array(["".join(map(chr, row)) for row in letters])
    drawn = words[rng.integers(0, len(words), (nodes, 6))]
    texts = Texts.of(" ".join(row) for row in drawn)
    del drawn
    bare = ends.nbytes + len(texts.data)
    kinds = rng.integers(0, RELATIONS, edges).astype(np.int32) if typed else None
    names = tuple(f"relation {k}" for k in range(RELATIONS)) if typed else ()
    before = peak()
    graph = divide(
        RawGraph("power law", ends[0], ends[1], texts, directed=typed, relations=kinds, relation_names=names)
    )
    print(
        f"\nbare edge_index and texts {bare / 2**20:.0f} MiB; held {held(graph) / bare:.2f} times that; peak while dividing "
        f"{(peak() - before) / bare:.2f} times that on top; largest degree {np.diff(graph.shown.indptr).max():,}",
        file=sys.stderr,
    )
    return graph, bare


def part(benchmark: BenchmarkFixture) -> int:
    """What part of the graph a run takes."""
    return 1 if benchmark.enabled else 100


def peak() -> int:
    """Most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def held(graph: TextGraph) -> int:
    """Bytes of all arrays of a graph."""
    arcs = (graph.shown, *graph.asked.values())
    arrays = [
        graph.texts.data, graph.texts.offsets, graph.roles, graph.repeated, graph.order, graph.cells, graph.cell_of,
        *(array for one in arcs for array in (one.indptr, one.indices, one.kinds) if array is not None),
    ]  # fmt: skip
    return sum(array.nbytes for array in arrays)


def test_memory(benchmark: BenchmarkFixture) -> None:
    """Below four times the bare graph."""
    benchmark.group = "graphs: memory"
    graph, bare = benchmark.pedantic(power_law, (False, part(benchmark)), rounds=1)
    assert held(graph) < 4 * bare


@pytest.mark.parametrize(("name", "level_name"), [(n, level) for n in NAMES for level in get_task(n).levels])
def test_sample(benchmark: BenchmarkFixture, name: str, level_name: str) -> None:
    """Refused draws count: a sample is what comes out, whatever it took."""
    benchmark.group = "graphs: one sample"
    graph, _ = power_law(name == "kg_completion", part(benchmark))
    task, level = get_task(name), get_task(name).level(level_name)
    nodes = graph.nodes_of("train")
    numbers = itertools.count()

    def make() -> None:
        for _ in range(10_000):
            number = next(numbers)
            node = int(nodes[(number * 7919) % len(nodes)])
            item = Item(f"node {node}", GraphNode(graph, node, "train"))
            if not isinstance(task.generate(item, level, rng_for(0, name, number)), Rejection):
                return
        pytest.fail("the task refuses nearly everything")

    make()  # what is made once, is made now
    benchmark.pedantic(make, rounds=30, iterations=10, warmup_rounds=2)
    if benchmark.enabled:
        assert benchmark.stats.stats.median < 1 / LEAST
