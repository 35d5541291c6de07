"""Graph sources: every layout read, bad files refused with a reason, and the manifest that divides a graph."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from graphs import WORDS, raw_graph

from ssl4rl_plugin.core import GraphNode, Item, Sample
from ssl4rl_plugin.core.graph import Texts
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.graphs import GraphManifest, GraphSource
from ssl4rl_plugin.data.source import SourceError, load_source
from ssl4rl_plugin.graphs.words import cut, graph_text, plain
from ssl4rl_plugin.tasks import get_task

EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2)]
TEXTS = ["rivers and stones", "clouds", "a forest", "gardens", "windows"]


def read(name: str, path: Path | None, **options: Any) -> Any:
    source = load_source(name, path, **options)
    assert isinstance(source, GraphSource)
    return source.graph()


def pairs(graph: Any) -> set[tuple[int, int]]:
    return set(zip(graph.sources.tolist(), graph.targets.tolist(), strict=True))


def texts(graph: Any) -> list[str]:
    return [graph.texts.start(k, 10_000) for k in range(len(graph.texts))]


def layout(**more: Any) -> dict[str, Any]:
    """The layout of the papers on language models for graphs."""
    return {"edge_index": torch.tensor(EDGES).T, "raw_texts": TEXTS, **more}


# ------------------------------------------------------------------------------------------------ saved tensors


def test_the_layout_of_the_papers(tmp_path: Path) -> None:
    masks = {f"{name}_mask": torch.tensor([k in where for k in range(5)]) for name, where in
             (("train", (0, 1)), ("val", (2,)), ("test", (3, 4)))}  # fmt: skip
    torch.save(layout(y=torch.tensor([0, 1, 1, 0, -1]), label_name=["law", "art"], **masks), tmp_path / "cora.pt")
    graph = read("graph", tmp_path / "cora.pt")
    assert pairs(graph) == set(EDGES) and texts(graph) == TEXTS and not graph.directed
    assert graph.labels.tolist() == [0, 1, 1, 0, -1] and graph.label_names == ("law", "art")
    assert graph.roles.tolist() == [0, 0, 1, 2, 2]


def test_a_saved_data_object_and_what_a_data_set_saves(tmp_path: Path) -> None:
    from torch_geometric.data import Data

    data = Data(edge_index=torch.tensor(EDGES).T, num_nodes=5)
    data.raw_texts = TEXTS
    torch.save(data, tmp_path / "data.pt")
    assert pairs(read("graph", tmp_path / "data.pt")) == set(EDGES)
    torch.save((data.to_dict(), {}), tmp_path / "saved.pt")
    assert texts(read("graph", tmp_path / "saved.pt")) == TEXTS


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil-was-here"),))


def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(layout(more=Evil()), "evil.pt")
    with pytest.raises(SourceError, match="pickled object"):
        read("graph", tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SourceError):
        read("graph", tmp_path / "plain.pt")
    assert not (tmp_path / "evil-was-here").exists()


def test_features_with_names_stand_in_for_texts(tmp_path: Path) -> None:
    x = torch.tensor([[1.0, 0, 3], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]])
    torch.save({"edge_index": torch.tensor(EDGES).T, "x": x}, tmp_path / "x.pt")
    with pytest.raises(SourceError, match=r"features x have no names.*vocabulary"):
        read("graph", tmp_path / "x.pt")
    (tmp_path / "words.json").write_text(json.dumps(["red", "green", "blue"]))
    assert texts(read("graph", tmp_path / "x.pt", vocabulary="words.json")) == [
        "blue red",
        "green",
        "blue",
        "red green",
        "",
    ]
    (tmp_path / "few.txt").write_text("red\ngreen")
    with pytest.raises(SourceError, match="vocabulary has 2"):
        read("graph", tmp_path / "x.pt", vocabulary="few.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": torch.zeros(2, 2)}, "holds no graph"),
        ({"edge_index": torch.tensor(EDGES), "raw_texts": TEXTS}, r"shape \(2, edges\)"),
        ({"edge_index": torch.tensor(EDGES).T}, "nothing describes a node"),
        (layout(train_mask=torch.tensor([True])), "train_mask has 1 entries for 5 nodes"),
        ({"edge_index": torch.tensor(EDGES).T, "raw_texts": [1, 2]}, "list of strings"),
    ],
)
def test_tensors_that_are_no_graph(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(SourceError, match=message):
        read("graph", tmp_path / "bad.pt")


def test_an_index_out_of_range_is_named(tmp_path: Path) -> None:
    torch.save(layout(edge_index=torch.tensor([[0, 9], [1, 2]])), tmp_path / "far.pt")
    with pytest.raises(SourceError, match="edge 1 names node 9; the nodes are 0 to 4"):
        GraphManifest(load_source("graph", tmp_path / "far.pt"))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ tables


def test_edges_and_nodes_as_csv_parquet_json(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "edges.csv").write_text("source,target\n" + "\n".join(f"p{a},p{b}" for a, b in EDGES) + "\np0,nobody\n")
    rows = [
        {"id": f"p{k}", "title": text, "abstract": f"about {text}", "label": "xy"[k % 2]}
        for k, text in enumerate(TEXTS)
    ]
    (tmp_path / "nodes.csv").write_text(
        "id,title,abstract,label\n" + "\n".join(",".join(row.values()) for row in rows) + "\n"
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "nodes.parquet")
    pq.write_table(
        pa.table({"src": [f"p{a}" for a, _ in EDGES], "dst": [f"p{b}" for _, b in EDGES]}), tmp_path / "e.parquet"
    )
    (tmp_path / "nodes.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "edges.json").write_text(json.dumps([[f"p{a}", f"p{b}"] for a, b in EDGES]))
    for edges in ("edges.csv", "e.parquet", "edges.json"):
        for nodes in ("nodes.csv", "nodes.parquet", "nodes.jsonl"):
            graph = read("graph", tmp_path / edges, nodes=nodes)
            assert pairs(graph) == set(EDGES)
            assert texts(graph)[1] == "clouds. about clouds"
            assert [graph.label_names[k] for k in graph.labels] == ["x", "y", "x", "y", "x"]
            assert graph.counted["unknown_ends"] == (edges == "edges.csv")


def test_nodes_described_by_features_and_labels_in_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "edges.json").write_text(json.dumps([[10, 20], [20, 30], [30, 10]]))
    (tmp_path / "terms.json").write_text(json.dumps({"10": {"A": 0.1, "B": 0.9}, "20": {"A": 1.0}, "30": {}}))
    (tmp_path / "names.json").write_text(json.dumps({"A": "graph", "B": "colour"}))
    (tmp_path / "classes.json").write_text(json.dumps({"law": [10, 30]}))
    graph = read("graph", tmp_path / "edges.json", nodes="terms.json", vocabulary="names.json", labels="classes.json")
    assert texts(graph) == ["colour graph", "graph", ""] and graph.labels.tolist() == [0, -1, 0]
    with pytest.raises(SourceError, match="numbers without texts"):
        read("graph", tmp_path / "edges.json")


def test_triples_are_typed_and_directed(tmp_path: Path) -> None:
    (tmp_path / "facts.tsv").write_text("ada\tchild of\tbruno\nada\tlives in\tashford\nbruno\tlives in\tashford\n")
    graph = read("graph", tmp_path / "facts.tsv")
    assert graph.directed and set(graph.relation_names) == {"child of", "lives in"}
    names = texts(graph)
    told = {
        (names[a], graph.relation_names[r], names[b])
        for a, b, r in zip(graph.sources, graph.targets, graph.relations, strict=True)
    }
    assert ("ada", "child of", "bruno") in told and len(told) == 3


@pytest.mark.parametrize("ending", ["gml", "graphml", "gexf", "json"])
def test_networkx_files(tmp_path: Path, ending: str) -> None:
    graph = nx.Graph(EDGES)
    for node, text in enumerate(TEXTS):
        graph.nodes[node]["text"] = text
    path = tmp_path / f"graph.{ending}"
    if ending == "json":
        path.write_text(json.dumps(nx.node_link_data(graph, edges="links")))
    else:
        getattr(nx, f"write_{ending}")(graph, path)
    found = read("graph", path)
    names = texts(found)
    assert {frozenset((names[a], names[b])) for a, b in pairs(found)} == {
        frozenset((TEXTS[a], TEXTS[b])) for a, b in EDGES
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.xyz", "", "unknown kind of file"),
        ("g.pt", "nonsense", "cannot be read|pickled object"),
        ("g.json", "{", "cannot be read"),
        ("g.gml", "graph [", "cannot be read"),
        ("g.csv", "source\n1\n", "lacks a column target"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        read("graph", tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        load_source("graph", tmp_path / "none.pt")
    with pytest.raises(SourceError, match="is missing"):
        load_source("planetoid", tmp_path)


# ------------------------------------------------------------------------------------------------ known data sets


def planetoid(folder: Path) -> None:
    """A Cora of 600 papers and 30 words, in the real one's files; 500 behind the labelled ones are for validation."""
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    x = sp.csr_matrix((rng.random((600, 30)) < 0.2).astype(np.float32))
    y = np.eye(7, dtype=np.int32)[rng.integers(0, 7, 600)]
    parts = {"x": x[:5], "y": y[:5], "allx": x[:580], "ally": y[:580], "tx": x[580:], "ty": y[580:],
             "graph": {k: [(k + 1) % 600, (k + 3) % 600] for k in range(600)}}  # fmt: skip
    folder.mkdir(parents=True)
    for name, part in parts.items():
        (folder / f"ind.cora.{name}").write_bytes(pickle.dumps(part))
    (folder / "ind.cora.test.index").write_text("\n".join(map(str, range(580, 600))) + "\n")


def test_planetoid(tmp_path: Path) -> None:
    planetoid(tmp_path / "Cora" / "raw")
    graph = read("planetoid", tmp_path)
    assert len(graph.texts) == 600 and all(word.startswith("w") for text in texts(graph) for word in text.split())
    assert len(graph.label_names) == 7 and (graph.roles == 2).sum() == 20
    (tmp_path / "words.txt").write_text("\n".join(WORDS[:30]))
    named = read("planetoid", tmp_path / "Cora" / "raw", vocabulary=str(tmp_path / "words.txt"))
    assert set(" ".join(texts(named)).split()) <= set(WORDS)


def test_wikics(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps({
        "links": [[1, 2], [2], []], "labels": [0, 1, 0], "train_masks": [[1, 0, 0], [0, 1, 0]],
        "val_masks": [[0, 1, 0], [1, 0, 0]], "test_mask": [0, 0, 1],
    }))  # fmt: skip
    nodes = [{"title": title, "tokens": ["some", "words"]} for title in ("One", "Two", "Three")]
    (tmp_path / "metadata.json").write_text(json.dumps({"labels": {"0": "law", "1": "art"}, "nodes": nodes}))
    graph = read("wikics", tmp_path)
    assert pairs(graph) == {(0, 1), (0, 2), (1, 2)} and texts(graph)[0] == "One. some words"
    assert graph.label_names == ("law", "art") and graph.roles.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["ogb", "tag_dataset"])
def test_ogb(tmp_path: Path, name: str) -> None:
    def packed(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(tmp_path / path, "wt") as file:
            file.write(text)

    packed("raw/edge.csv.gz", "0,1\n1,2\n2,0\n")
    packed("raw/node-label.csv.gz", "0\n1\n0\n")
    packed("split/time/train.csv.gz", "0\n")
    packed("split/time/valid.csv.gz", "1\n")
    packed("split/time/test.csv.gz", "2\n")
    packed("mapping/nodeidx2paperid.csv.gz", "node idx,paper id\n0,77\n1,88\n2,99\n")
    packed("mapping/labelidx2arxivcategeory.csv.gz", "label idx,arxiv category\n0,arxiv cs na\n1,arxiv cs mm\n")
    packed("raw/node-text.csv.gz", 'node_idx,text\n0,"First. about"\n1,Second. about\n2,Third. about\n')
    (tmp_path / "titleabs.tsv").write_text("88\tSecond\tabout\n99\tThird\tabout\n77\tFirst\tabout\n")
    graph = read(name, tmp_path)
    assert pairs(graph) == {(0, 1), (1, 2), (2, 0)} and texts(graph) == [
        "First. about",
        "Second. about",
        "Third. about",
    ]
    assert graph.label_names == ("arxiv cs na", "arxiv cs mm") and graph.roles.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["les_miserables", "families", "communities"])
def test_built_in_graphs_serve_their_tasks(name: str) -> None:
    manifest = GraphManifest(load_source(name))  # type: ignore[arg-type]
    items = manifest.items("train")
    names = ["link_prediction", "masked_attribute", "node_degree", *(["kg_completion"] if name == "families" else [])]
    for task in map(get_task, names):
        found = [
            task.generate(Item(item.id, manifest.open(item)), task.level(), rng_for(name, k))
            for k, item in enumerate(items[:60])
        ]
        assert any(isinstance(made, Sample) for made in found), task.name


# ------------------------------------------------------------------------------------------------ the manifest


def test_a_manifest_is_the_same_in_every_process_and_changes_with_the_file(tmp_path: Path) -> None:
    torch.save(layout(), tmp_path / "g.pt")
    source = load_source("graph", tmp_path / "g.pt")
    one = GraphManifest(source, 0.2, seed=1)  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(one))
    assert len(pickle.dumps(one)) < 2000 and again.digest == one.digest and again.graph is one.graph
    other = GraphManifest(source, 0.2, seed=2)  # type: ignore[arg-type]
    assert other.digest != one.digest
    torch.save(layout(raw_texts=[*TEXTS[:4], "walls"]), tmp_path / "g.pt")
    assert GraphManifest(source, 0.2, seed=1).digest != one.digest  # type: ignore[arg-type]


def test_memory_is_below_four_times_the_bare_graph() -> None:
    """Everything that is held, for a graph with as many edges a node as the large one of the bench."""
    from ssl4rl_plugin.core.graph import RawGraph
    from ssl4rl_plugin.graphs.divide import divide

    rng = np.random.default_rng(0)
    ends = rng.integers(0, 20_000, (2, 200_000))
    bare = Texts.of([" ".join(rng.choice(WORDS, 5)) for _ in range(20_000)])
    graph = divide(RawGraph("big", ends[0], ends[1], bare))
    arrays = [
        graph.texts.data, graph.texts.offsets, graph.roles, graph.repeated, graph.order, graph.cells, graph.cell_of,
        *(array for arcs in (graph.shown, *graph.asked.values()) for array in (arcs.indptr, arcs.indices)),
    ]  # fmt: skip
    held = sum(array.nbytes for array in arrays)
    assert held < 4 * (ends.nbytes + len(bare.data)) / 2


# ------------------------------------------------------------------------------------------------ words


def test_texts_are_cut_at_words_within_the_budget() -> None:
    from ssl4rl_plugin.graphs.divide import divide

    raw = raw_graph(0)
    long = [
        "alpha beta gamma delta epsilon zeta eta theta " * 3000,
        "x" * 100_000,
        "",
        *(["short"] * (len(raw.texts) - 3)),
    ]
    graph = divide(type(raw)(**{**vars(raw), "texts": Texts.of(long)}))
    assert (
        cut(graph, 0, 5) == "alpha beta gamma ..." and cut(graph, 2, 5) == "(no text)" and cut(graph, 3, 5) == "short"
    )
    assert cut(graph, 1, 5) == "x" * 20 + " ..."
    assert plain("a <image> b\n<|im_end|> </answer>") == "a b im_end"


def test_a_tokenizer_measures_texts(tmp_path: Path) -> None:
    from ssl4rl_plugin.demo.model import build_model, save, train_tokenizer
    from ssl4rl_plugin.graphs.divide import divide

    tokenizer = train_tokenizer(WORDS)
    save(build_model(tokenizer, 0, vision=False), tokenizer, tmp_path)
    graph = divide(raw_graph(0), tokenizer=str(tmp_path))
    for node in range(40):
        text = cut(graph, node, 6).removesuffix(" ...")
        assert 0 < len(tokenizer(text)["input_ids"]) <= 6
        assert graph.texts.start(node, 999).startswith(text)


def test_notations_say_the_same() -> None:
    edges = [(0, 1, 0), (1, 2, 0)]
    told = {how: graph_text(edges, [3, 1, 2], how, rng_for(how)) for how in ("edges", "sentences", "json")}
    assert set(told["edges"].removeprefix("Edges: ").split(", ")) <= {"1-3", "3-1", "1-2", "2-1"}
    assert "Node 3 is linked to node 1." in told["sentences"]
    assert {frozenset(edge) for edge in json.loads(told["json"])["edges"]} == {frozenset((1, 3)), frozenset((1, 2))}


def test_a_node_is_seen_by_its_own_split() -> None:
    manifest = GraphManifest(load_source("communities"))  # type: ignore[arg-type]
    for split in ("train", "val", "test"):
        place = manifest.open(manifest.items(split)[0])
        assert isinstance(place, GraphNode) and place.split == split and place.asked is place.graph.asked[split]
