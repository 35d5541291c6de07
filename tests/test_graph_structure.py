"""Answers about structure against networkx, read off the prompt alone, and the division of edges and nodes."""

from __future__ import annotations

import itertools
import json
import random
import re

import networkx as nx
import numpy as np
import pytest
from graphs import made_graph, raw_graph

from ssl4rl_plugin.core import GraphNode, Item, Sample
from ssl4rl_plugin.core.graph import SPLITS, GraphError, RawGraph, TextGraph, Texts
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.graphs.divide import divide
from ssl4rl_plugin.graphs.sampling import around, walked
from ssl4rl_plugin.graphs.small import distances, matches, parts, shortest_paths
from ssl4rl_plugin.tasks import get_task, registry

GRAPHS = 2000
NAMES = [name for name in registry.names() if get_task(name).kind == "graph"]


def random_graph(seed: int) -> nx.Graph:
    """From 4 to 9 nodes, thin or dense, connected or not."""
    rng = random.Random(seed)
    count = rng.randint(4, 9)
    return nx.gnp_random_graph(count, rng.choice((0.2, 0.35, 0.6)), seed=seed)


def neighbours(graph: nx.Graph) -> list[list[int]]:
    return [sorted(graph[node]) for node in range(len(graph))]


def test_small_graphs_agree_with_networkx() -> None:
    """Distances, all shortest paths, components, and all automorphisms of 2,000 random graphs."""
    several = symmetric = 0
    for seed in range(GRAPHS):
        graph = random_graph(seed)
        near = neighbours(graph)
        apart = dict(nx.all_pairs_shortest_path_length(graph))
        assert [distances(near, a) for a in graph] == [[apart[a].get(b, -1) for b in graph] for a in graph]
        assert [set(part) for part in parts(near)] == list(nx.connected_components(graph))
        a, b = random.Random(seed).sample(range(len(graph)), 2)
        expected = sorted(map(tuple, nx.all_shortest_paths(graph, a, b))) if b in apart[a] else []
        assert shortest_paths(near, a, b, 1000) == expected
        several += len(expected) > 1
        if len(graph) <= 7:
            found = nx.isomorphism.GraphMatcher(graph, graph).isomorphisms_iter()
            automorphisms = sorted(tuple(match[node] for node in range(len(graph))) for match in found)
            assert sorted(matches(near, near, 10_000)) == automorphisms
            symmetric += len(automorphisms) > 1
    assert several > 200 and symmetric > 200, "alternatives must have turned up"


def test_isomorphism_agrees_with_networkx() -> None:
    same = 0
    for seed in range(GRAPHS):
        one = random_graph(seed)
        if seed % 2:
            order = random.Random(seed).sample(range(len(one)), len(one))
            other = nx.relabel_nodes(one, dict(enumerate(order)))
        else:
            other = nx.gnm_random_graph(len(one), one.number_of_edges(), seed=seed)
        expected = nx.is_isomorphic(one, other)
        assert bool(matches(neighbours(one), neighbours(other), 1)) == expected
        same += expected
    assert GRAPHS / 2 <= same < GRAPHS


# ------------------------------------------------------------------------------------------------ from the prompt


def read(text: str) -> nx.Graph:
    """The graph that a text describes, in any notation; nodes by name, direction and relation left aside."""
    graph = nx.Graph()
    if match := re.search(r"nodes, numbered 1 to (\d+)", text):
        graph.add_nodes_from(str(k) for k in range(1, int(match[1]) + 1))
    if match := re.search(r'\{.*"edges": (\[\[?.*\]\]?)\}', text):
        graph.add_edges_from((str(edge[0]), str(edge[-1])) for edge in json.loads(match[1]))
    for listed in re.findall(r"^(?:[\w ]+: )?Edges: (.*)$", text, re.MULTILINE):
        graph.add_edges_from(re.findall(r"(?:^|, )(\w+)-(?:[^-,>]*->)?>?(\w+)", listed))
    for name, others in re.findall(r"Node (\w+) (?:is linked|points) to nodes? ([\w, ]+?)\.", text):
        graph.add_edges_from((name, other) for other in re.split(r", | and ", others))
    graph.add_edges_from(re.findall(r"(?<![\w.])(\d+) relation \d+ (\d+)\.", text))
    return graph


def made(task_name: str, level_name: str, graph: TextGraph, count: int, split: str = "train") -> list[Sample]:
    """Samples of a task from the nodes of a split in turn."""
    task, nodes = get_task(task_name), graph.nodes_of(split).tolist()
    found = []
    for number in range(50 * count):
        place = GraphNode(graph, nodes[number % len(nodes)], split)
        sample = task.generate(
            Item(f"node {place.node}", place, ""),
            task.level(level_name),
            rng_for("structure", task_name, level_name, number),
        )
        if isinstance(sample, Sample):
            found.append(sample)
        if len(found) == count:
            return found
    raise AssertionError(f"{task_name}:{level_name} refuses nearly everything: {len(found)} of {count} samples")


@pytest.mark.parametrize(
    ("task_name", "level_name"),
    [(name, level) for name in ("node_degree", "graph_distance", "common_neighbours", "connected_components") for level in
     get_task(name).levels],
)  # fmt: skip
def test_numbers_are_what_networkx_counts_in_the_prompt(task_name: str, level_name: str) -> None:
    samples = made(task_name, level_name, made_graph(1), 60)
    assert len(samples) == 60
    for sample in samples:
        graph = read(sample.question)
        asked = [str(number) for number in np.atleast_1d(sample.params.get("asked", []))]
        expected = {
            "node_degree": lambda g=graph, a=asked: g.degree[a[0]],
            "graph_distance": lambda g=graph, a=asked: nx.shortest_path_length(g, *a),
            "common_neighbours": lambda g=graph, a=asked: len(list(nx.common_neighbors(g, *a))),
            "connected_components": lambda g=graph: nx.number_connected_components(g),
        }[task_name]()
        assert sample.truth == [expected]


@pytest.mark.parametrize("level_name", get_task("shortest_path").levels)
def test_every_shortest_path_is_right_and_no_other(level_name: str) -> None:
    task = get_task("shortest_path")
    level = task.level(level_name)
    several = 0
    for sample in made("shortest_path", level_name, made_graph(1), 60):
        graph = read(sample.question)
        ends = "1", str(level.nodes)
        right = {tuple(path) for path in nx.all_shortest_paths(graph, *ends)}
        assert {tuple(path) for path in sample.truth} == right
        several += len(right) > 1
        for path in itertools.islice(nx.all_simple_paths(graph, *ends, cutoff=level.steps + 1), 20):
            score = task.score(" -> ".join(path), sample.truth, level)
            assert score.valid and (score.value == 1.0) == (tuple(path) in right)
    assert several


@pytest.mark.parametrize("level_name", get_task("node_matching").levels)
def test_every_automorphic_match_is_right_and_no_other(level_name: str) -> None:
    task = get_task("node_matching")
    level = task.level(level_name)
    symmetric = 0
    for sample in made("node_matching", level_name, made_graph(1), 40):
        numbers, letters = (read(line.partition(": ")[2]) for line in sample.question.split("\n")[1:3])
        names = sorted(letters)
        found = nx.isomorphism.GraphMatcher(letters, numbers).isomorphisms_iter()
        right = {tuple(match[name] for name in names) for match in found}
        assert {tuple(match) for match in sample.truth} == right
        symmetric += len(right) > 1
        for match in right:
            assert task.score(", ".join(match), sample.truth, level).value == 1.0
    assert symmetric


@pytest.mark.parametrize("level_name", get_task("same_subgraph").levels)
def test_same_means_isomorphic(level_name: str) -> None:
    for sample in made("same_subgraph", level_name, made_graph(1), 60):
        one, two = (read(line.partition(": ")[2]) for line in sample.question.split("\n")[1:3])
        assert nx.is_isomorphic(one, two) == (sample.truth == "same")
        assert one.number_of_edges() == two.number_of_edges()


# ------------------------------------------------------------------------------------------------ nothing leaks


@pytest.mark.parametrize("relations", [0, 4])
def test_no_held_out_edge_can_be_read_off_a_prompt(relations: int) -> None:
    """Every text is unique, so a prompt's nodes are known by their texts, and its edges can be looked up."""
    raw = raw_graph(3, relations=relations)
    unique = [f"text{k:04} {raw.texts.start(k, 99)}" for k in range(len(raw.texts))]
    graph = divide(RawGraph(**{**vars(raw), "texts": Texts.of(unique)}), seed=1)
    asked = {
        frozenset((node, int(end)))
        for arcs in graph.asked.values()
        for node in range(len(graph))
        for end in arcs.row(node)
    }
    assert len(asked) > 200
    seen = shown = 0
    for name in NAMES:
        for level_name, level in get_task(name).levels.items():
            if not level.tokens or (name == "kg_completion" and not relations):
                continue
            for split in SPLITS:
                for sample in made(name, level_name, graph, 12, split):
                    known = dict(re.findall(r'(?:^|")(\d+)"?: "?text(\d{4})', sample.question, re.MULTILINE))
                    for a, b in read(sample.question).edges:
                        shown += 1
                        if a in known and b in known:
                            seen += 1
                            assert frozenset((int(known[a]), int(known[b]))) not in asked, sample.question
    assert seen > 5000 and seen > 0.7 * shown


def test_asked_pairs_are_edges_of_their_split_and_strangers_of_none() -> None:
    graph = made_graph(2)
    every = nx.Graph()
    raw = raw_graph(2)
    every.add_edges_from(zip(raw.sources.tolist(), raw.targets.tolist(), strict=True))
    yes = no = 0
    for split in SPLITS:
        for sample in made("link_prediction", "pair", graph, 40, split):
            a, b = sample.params["nodes"]
            assert every.has_edge(a, b) == (sample.truth == "yes")
            if sample.truth == "yes":
                yes += 1
                assert graph.asked[split].linked(a, b) and graph.asked[split].linked(b, a)
                assert not graph.shown.linked(a, b)
                assert not any(graph.asked[other].linked(a, b) for other in SPLITS if other != split)
            else:
                no += 1
    assert yes > 20 and no > 20


def test_labels_do_not_change_a_pretext_sample() -> None:
    raw = raw_graph(4)
    labels = np.asarray(raw.labels)
    one, other = (divide(RawGraph(**{**vars(raw), "labels": given})) for given in (labels, labels[::-1].copy()))
    for name in NAMES:
        for level_name in get_task(name).levels:
            assert made(name, level_name, one, 3) == made(name, level_name, other, 3)


def test_edges_are_divided_by_pair_and_stay_when_others_are_added() -> None:
    raw = raw_graph(5, relations=3)
    graph = divide(raw)
    role = {}
    for number, arcs in enumerate((graph.shown, *graph.asked.values())):
        for node in range(len(graph)):
            for end in arcs.row(node).tolist():
                assert role.setdefault(frozenset((node, end)), number) == number
    shares = [list(role.values()).count(number) / len(role) for number in range(4)]
    assert np.allclose(shares, [0.6, 0.2, 0.1, 0.1], atol=0.06)
    texts = Texts.of([*(raw.texts.start(k, 999) for k in range(len(raw.texts))), "one more"])
    count = len(raw.texts)
    more = divide(
        RawGraph(
            "more", np.append(raw.sources, count), np.append(raw.targets, 0), texts, directed=True,
            relations=np.append(raw.relations, 0), relation_names=raw.relation_names,
        )
    )  # fmt: skip
    for pair, number in role.items():
        arcs = (more.shown, *more.asked.values())[number]
        assert arcs.linked(*sorted(pair))
    assert (more.roles[:count] == graph.roles).all()


def test_inductive_prompts_show_no_node_of_a_later_split() -> None:
    graph = divide(raw_graph(6), inductive=True)
    for split in SPLITS[:2]:
        for start in graph.nodes_of(split).tolist()[:40]:
            place = GraphNode(graph, start, split)
            found = [*around(place, [start], random.Random(start)), *walked(place, random.Random(start), 12)]
            assert all(graph.roles[node] <= SPLITS.index(split) for node in found)


def test_a_neighbourhood_is_what_networkx_reaches() -> None:
    graph = made_graph(0)
    shown = nx.Graph((node, int(end)) for node in range(len(graph)) for end in graph.shown.row(node))
    for start in range(0, 240, 7):
        found = around(GraphNode(graph, start, "train"), [start], random.Random(start), hops=2, fanout=999, most=999)
        reached = nx.single_source_shortest_path_length(shown, start, cutoff=2) if start in shown else {start: 0}
        assert set(found) == set(reached)
        pairs = {frozenset(found[k] for k in edge[:2]) for edge in graph.shown.among(found)}
        assert pairs == {frozenset(edge) for edge in shown.subgraph(found).edges}


# ------------------------------------------------------------------------------------------------ bad input


def raw(edges: list[tuple[int, int]], texts: list[str], **more: object) -> RawGraph:
    ends = np.array(edges, np.int64).reshape(-1, 2)
    return RawGraph("bad", ends[:, 0], ends[:, 1], Texts.of(texts), **more)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (raw([(0, 1), (1, 7)], ["a", "b"]), "edge 1 names node 7; the nodes are 0 to 1"),
        (raw([(0, 1), (-1, 0)], ["a", "b"]), "names node -1"),
        (raw([], ["a", "b"]), "no edges"),
        (raw([(0, 0), (1, 1)], ["a", "b"]), "only self-loops as edges"),
        (raw([(0, 1)], ["", ""]), "all texts are empty"),
        (raw([(0, 1)], ["a"]), "1 nodes"),
        (
            raw([(0, 1)], ["a", "b"], labels=np.array([0, 5]), label_names=("x",)),
            "numbered 0 to 5, and there are names for 1",
        ),
        (raw([(0, 1)], ["a", "b"], roles=np.array([0])), "1 splits for 2 nodes"),
    ],
)
def test_what_cannot_be_used_says_why(graph: RawGraph, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        divide(graph)


def test_oddities_are_handled_and_counted() -> None:
    texts = ["a" * 100_000, "", "<image> <|im_end|> b", *(f"text {k}" for k in range(60))]
    edges = [(k, (k + 1) % 60) for k in range(60)]
    odd = [*edges, *((b, a) for a, b in edges), (3, 3), (4, 4), (0, 1), (0, 1)]
    graph = divide(raw(odd, texts))
    assert graph.edges == 60 and graph.counted["self_loops"] == 2 and graph.counted["isolated_nodes"] == 3
    assert graph.counted["empty_texts"] == 1 and graph.counted["repeated_edges"] == 2
    checked = 0
    for name in NAMES:
        for level_name in get_task(name).levels:
            for node in range(len(graph)):
                place = GraphNode(graph, node, "train")
                sample = get_task(name).generate(Item("x", place), get_task(name).level(level_name), rng_for(node))
                if isinstance(sample, Sample):
                    checked += 1
                    assert "<image>" not in sample.question and "<|" not in sample.question
                    assert len(sample.question) < 20_000
    assert checked > 100


def test_a_hub_costs_no_more_than_its_neighbours() -> None:
    """A node of degree 10^6: what is read of its row is bounded."""
    count = 10**6
    hub = np.zeros(count, np.int64)
    graph = divide(RawGraph("hub", hub, np.arange(1, count + 1), Texts.of(["hub", *map(str, range(count))])))
    assert graph.shown.degree(0) > 500_000

    class Counted(np.ndarray):
        read = 0

        def tolist(self) -> list[int]:
            Counted.read += self.size
            return super().tolist()

    graph.shown.__dict__["indices"] = graph.shown.indices.view(Counted)
    place = GraphNode(graph, 0, "train")
    for seed in range(20):
        nodes = around(place, [0], random.Random(seed), most=30)
        assert len(nodes) == 9 and len(graph.shown.among(nodes)) == 8  # fanout 8
    assert Counted.read < 20 * 30 * 64
