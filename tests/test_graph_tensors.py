"""Saved graph tensors (.pt): every layout of the papers gives its values or a refusal, and never a label of its own."""

from __future__ import annotations

import math
import pathlib
import struct
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ssl4rl_plugin.core.graph import GraphError, RawGraph
from ssl4rl_plugin.data.graphs import GraphManifest, GraphSource
from ssl4rl_plugin.data.source import SourceError, load_source
from ssl4rl_plugin.data_builders.sources.graphs.tensors import from_tensors

N = 12
EDGES = torch.tensor([[k, (k + 1) % N] for k in range(N)]).T
WORDS = [f"paper {chr(ord('a') + k)}" for k in range(N)]
Y = torch.tensor([k % 3 for k in range(N)])
NAMES = ["law", "art", "war"]


def paper(**more: Any) -> dict[str, Any]:
    """The layout of the papers: edges, texts, numbers of classes and their names."""
    return {"edge_index": EDGES, "raw_texts": WORDS, "y": Y, "label_names": NAMES, **more}


def read(path: Path, content: Any = None, **options: Any) -> RawGraph:
    if content is not None:
        torch.save(content, path)
    source = load_source("graph", path, **options)
    assert isinstance(source, GraphSource)
    return source.graph()


def texts(graph: RawGraph) -> list[str]:
    return [graph.texts.start(k, 10_000) for k in range(len(graph.texts))]


def mask(*nodes: int) -> torch.Tensor:
    return torch.tensor([k in nodes for k in range(N)])


def named(graph: RawGraph) -> list[str | None]:
    """The name of each node's class."""
    assert graph.labels is not None
    return [graph.label_names[k] if k >= 0 else None for k in graph.labels.tolist()]


# ------------------------------------------------------------------------------------------------ splits


TEN = {
    "train_masks": [mask(k) for k in range(10)], "val_masks": [mask(k + 1) for k in range(10)],
    "test_masks": [mask(k + 2) for k in range(10)],
}  # fmt: skip


@pytest.mark.parametrize("form", ["lists", "lists under the singular", "columns", "rows", "numpy", "nested lists"])
def test_ten_alternative_masks(tmp_path: Path, form: str) -> None:
    """Graph-LLM and TAPE save train_masks, GLBench a list under train_mask, PyTorch Geometric a column for each split."""
    forms: dict[str, Any] = {
        "lists": TEN, "lists under the singular": {key[:-1]: value for key, value in TEN.items()},
        "columns": {key[:-1]: torch.stack(value, 1) for key, value in TEN.items()},
        "rows": {key: torch.stack(value) for key, value in TEN.items()},
        "numpy": {key: [part.numpy() for part in value] for key, value in TEN.items()},
        "nested lists": {key: [part.tolist() for part in value] for key, value in TEN.items()},
    }  # fmt: skip
    graph = read(tmp_path / "g.pt", paper(**forms[form]))
    assert graph.roles is not None and graph.roles.tolist() == [0, 1, 2] + [0] * 9
    assert "0 of 0 to 9" in graph.reading.splits and "9 nodes in no mask serve training" in graph.reading.found
    other = read(tmp_path / "g.pt", mask=7, unmasked="none")
    assert other.roles is not None and other.roles.tolist() == [3] * 7 + [0, 1, 2] + [3] * 2
    assert "9 nodes in no mask in no split" in other.reading.found
    with pytest.raises(SourceError, match="10 alternatives, 0 to 9; mask is 10"):
        read(tmp_path / "g.pt", mask=10)


def test_nodes_in_no_split_are_in_no_items(tmp_path: Path) -> None:
    torch.save(paper(train_mask=mask(0, 1, 2), val_mask=mask(3), test_mask=mask(4, 5)), tmp_path / "g.pt")
    manifest = GraphManifest(load_source("graph", tmp_path / "g.pt", unmasked="none"))  # type: ignore[arg-type]
    assert [[item.node for item in manifest.items(split)] for split in ("train", "val", "test")] == [
        [0, 1, 2], [3], [4, 5],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        {"train_id": [0, 1], "val_id": [2], "test_id": [3, 4]},
        {"train_idx": torch.tensor([0, 1]), "valid_idx": torch.tensor([2]), "test_idx": torch.tensor([3, 4])},
        {"splits": {"train": torch.tensor([0, 1]), "valid": torch.tensor([2]), "test": torch.tensor([3, 4])}},
        {"split": {"train": mask(0, 1), "val": mask(2), "test": mask(3, 4)}},
        {"splits": [{"train": [0, 1], "val": [2], "test": [3, 4]}, {"train": [5], "val": [6], "test": [7]}]},
        {"split": ["train", "train", "valid", "test", "test", *["none"] * 7]},
        {"train_mask": mask(0, 1).float(), "val_mask": mask(2).int(), "test_mask": mask(3, 4)[:, None]},
    ],
)
def test_other_forms_of_splits(tmp_path: Path, content: dict[str, Any]) -> None:
    graph = read(tmp_path / "g.pt", paper(**content))
    assert graph.roles is not None and graph.roles.tolist() == [0, 0, 1, 2, 2] + [0] * 7
    assert graph.reading.unused == ()


def test_a_node_in_several_masks_is_held_out_and_counted(tmp_path: Path) -> None:
    graph = read(tmp_path / "g.pt", paper(train_mask=mask(*range(N)), val_mask=mask(3, 4), test_mask=mask(4, 5)))
    assert graph.roles is not None and graph.roles[3:6].tolist() == [1, 2, 2] and not graph.roles[6:].any()
    assert graph.counted["nodes_in_several_splits"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train_mask": torch.ones(5, dtype=torch.bool)}, "train_mask has 5 entries for 12 nodes"),
        ({"train_masks": [mask(0), torch.ones(5, dtype=torch.bool)]}, r"train_masks\[1\] has 5 entries for 12"),
        ({"train_mask": torch.zeros(5, 4, dtype=torch.bool)}, r"shape \(5, 4\) for 12 nodes"),
        ({"train_mask": torch.zeros(N, N, dtype=torch.bool)}, "its rows or its columns"),
        ({"train_mask": torch.arange(N)}, "true or false for each node"),
        ({"train_mask": torch.full((N,), math.nan)}, "true or false for each node"),
        ({"train_mask": "all"}, "must be a tensor"),
        ({"train_id": [0, 12]}, "names nodes 0 to 12; the nodes are 0 to 11"),
        ({"train_id": [0, 1.5]}, "whole numbers, got 1.5"),
        ({"train_id": [-1]}, "names nodes -1"),
        ({"split": ["train"]}, "split has 1 entries for 12 nodes"),
        ({"train_id": [[0], [1], [2]]}, "one split or 3 alternatives"),
        ({"train_nodes_0": [0, 1]}, "train_nodes_0 looks like a split of the nodes"),
        ({"split0": {"a": [0, 1]}}, "split0 looks like a split of the nodes"),
        ({"splits": [1, 2]}, "splits looks like a split"),
    ],
)
def test_splits_that_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "g.pt", paper(**content))


def test_a_mask_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there are no masks"):
        read(tmp_path / "g.pt", paper(), mask=1)
    with pytest.raises(SourceError, match="one mask for each split"):
        read(tmp_path / "g.pt", paper(train_mask=mask(0)), mask=1)
    with pytest.raises(SourceError, match="unmasked must be one of train, none"):
        read(tmp_path / "g.pt", unmasked="val")


# ------------------------------------------------------------------------------------------------ texts


@pytest.mark.parametrize("key", ["raw_texts", "raw_text", "texts", "text"])
def test_missing_texts_are_empty_and_counted(tmp_path: Path, key: str) -> None:
    given = [None, math.nan, "", " \n", *WORDS[4:]]
    graph = read(tmp_path / "g.pt", {"edge_index": EDGES, key: given, "num_nodes": N})
    assert texts(graph) == [""] * 4 + WORDS[4:] and graph.reading.missing_texts == 4
    array = read(tmp_path / "g.pt", {"edge_index": EDGES, key: np.array(given, object), "num_nodes": N})
    assert texts(array) == texts(graph)


def test_titles_and_abstracts_are_joined_without_what_is_missing(tmp_path: Path) -> None:
    title, abstract = [None, "T", "T", math.nan, *WORDS[4:]], ["A", None, "A", None, *WORDS[4:]]
    graph = read(tmp_path / "g.pt", {"edge_index": EDGES, "title": title, "abs": abstract, "num_nodes": N})
    assert texts(graph)[:4] == ["A", "T", "T. A", ""] and graph.reading.missing_texts == 1
    with pytest.raises(SourceError, match="title has 12 entries and abs has 3"):
        read(tmp_path / "g.pt", {"edge_index": EDGES, "title": title, "abs": abstract[:3], "num_nodes": N})


def test_strings_in_an_array_and_in_a_dict(tmp_path: Path) -> None:
    assert texts(read(tmp_path / "g.pt", paper(raw_texts=np.array(WORDS)))) == WORDS
    assert texts(read(tmp_path / "g.pt", paper(raw_texts=dict(enumerate(WORDS))))) == WORDS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (set(WORDS), "list of strings, one for each node; got set"),
        ([1, *WORDS[1:]], "entry 0 is int"),
        ([["a"], *WORDS[1:]], "entry 0 is list"),
        ([b"a", *WORDS[1:]], "entry 0 is bytes"),
        ({"a": "b"}, "keys are not the numbers"),
        ("one text", "list of strings"),
        (torch.zeros(N), "list of strings"),
    ],
)
def test_texts_of_another_type(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "g.pt", paper(raw_texts=given))


# ------------------------------------------------------------------------------------------------ lengths


def test_more_texts_than_nodes_are_refused_with_both_numbers(tmp_path: Path) -> None:
    more = [*WORDS, "a", "b", "c"]
    with pytest.raises(SourceError, match=r"numbers of entries differ: raw_texts 15, y 12"):
        read(tmp_path / "g.pt", paper(raw_texts=more))
    with pytest.raises(SourceError, match=r"15 texts, and the edges name 12 nodes.*num_nodes=15"):
        read(tmp_path / "g.pt", {"edge_index": EDGES, "raw_texts": more})
    graph = read(tmp_path / "g.pt", {"edge_index": EDGES, "raw_texts": more, "num_nodes": 15})
    assert len(graph.texts) == 15
    graph = read(tmp_path / "g.pt", {"edge_index": EDGES, "raw_texts": more, "num_nodes": torch.tensor(15)})
    assert len(graph.texts) == 15


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"y": torch.zeros(5)}, "raw_texts 12, y 5"),
        ({"y": torch.zeros(5, 3)}, "raw_texts 12, y 5"),
        ({"y": []}, "raw_texts 12, y 0"),
        ({"x": torch.zeros(5, 3)}, "raw_texts 12, x 5"),
        ({"num_nodes": 13}, "num_nodes 13, raw_texts 12"),
        ({"num_nodes": 2**40}, "num_nodes 1099511627776"),
        ({"num_nodes": -1}, "num_nodes must be a whole number"),
        ({"num_nodes": "12"}, "num_nodes must be a whole number"),
        ({"raw_text": WORDS[:3]}, "raw_texts 12, raw_text 3"),
        ({"node_ids": [1, 2]}, "node_ids 2"),
        ({"edge_type": torch.zeros(5, dtype=torch.long)}, r"edge_type has shape \(5,\) for 12 edges"),
        ({"edge_weight": torch.zeros(5)}, r"edge_weight has shape \(5,\) for 12 edges"),
        ({"edge_attr": torch.zeros(5, 4)}, r"edge_attr has shape \(5, 4\) for 12 edges"),
    ],
)
def test_lengths_that_disagree(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "g.pt", paper(**content))


# ------------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    "y",
    [
        Y[:, None], Y[None], Y.float(), Y.double()[:, None], Y.numpy(), Y.tolist(), Y.to(torch.uint8), Y.to(torch.bfloat16),
        torch.nn.functional.one_hot(Y, 3), torch.nn.functional.one_hot(Y, 3).bool(), torch.eye(3)[Y], np.eye(3)[Y.numpy()],
        np.eye(3)[Y.numpy()].tolist(), np.array(Y.tolist(), object),
        torch.nn.functional.one_hot(Y, 3).float().to_sparse(),
    ],
    ids=str,
)  # fmt: skip
def test_forms_of_labels(tmp_path: Path, y: Any) -> None:
    graph = read(tmp_path / "g.pt", paper(y=y))
    assert named(graph) == [NAMES[k] for k in Y.tolist()] and graph.reading.labels == "y and label_names"


def test_rows_of_none_or_several_classes_have_no_label(tmp_path: Path) -> None:
    y = torch.nn.functional.one_hot(Y, 3)
    y[0], y[1, 0] = 0, 1
    graph = read(tmp_path / "g.pt", paper(y=y))
    assert named(graph) == [None, None, *(NAMES[k] for k in Y.tolist()[2:])]
    assert graph.counted["labels_without_a_class"] == graph.counted["labels_of_several_classes"] == 1


def test_missing_labels(tmp_path: Path) -> None:
    y = Y.float()
    y[0], y[1] = math.nan, -1
    graph = read(tmp_path / "g.pt", paper(y=y))
    assert named(graph)[:3] == [None, None, "war"] and graph.counted["labels_missing"] == 1
    graph = read(tmp_path / "g.pt", paper(y=[None, "x", "y", *["x"] * 9], label_names=None))
    assert named(graph)[:3] == [None, "x", "y"] and graph.reading.labels == "y"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"y": Y + 0.5}, "must hold whole numbers, got 0.5 at position 0.*leave it out"),
        ({"y": Y.double() * math.inf}, "whole numbers"),
        ({"y": torch.full((N,), 2.0**60)}, "whole numbers"),
        ({"y": torch.rand(N, 3) + 0.1}, "not one-hot"),
        ({"y": Y + 1}, "y has classes up to 3, and label_names has 3 names"),
        ({"y": Y + 2**32}, "classes up to 4294967298, and label_names has 3 names"),
        ({"y": Y + 2**40}, "classes up to 1099511627778"),
        ({"y": [2**70] * N}, "numbers below 2.64"),
        ({"y": torch.nn.functional.one_hot(Y, 5)}, "a column for each of 5 classes, and label_names has 3 names"),
        ({"y": torch.zeros(N, 3, 2)}, r"shape \(12, 3, 2\)"),
        ({"y": {"a": 1}}, "must be a tensor"),
        ({"y": torch.complex(Y.float(), Y.float())}, "must hold numbers"),
        ({"label_names": {"a": "b"}}, "does not map numbers to names"),
        ({"label_names": 5}, "must be a list of names"),
        ({"label_names": [["a"], "b", "c"]}, "got a list in it"),
        ({"category_names": [*["art"] * 2, *["law"] * 10]}, "node 0 is of class 0, which label_names calls 'law'"),
    ],
)
def test_labels_that_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "g.pt", paper(**content))


@pytest.mark.parametrize(
    "names", [dict(enumerate(NAMES)), {name: k for k, name in enumerate(NAMES)}, np.array(NAMES), tuple(NAMES)]
)
def test_forms_of_names_of_classes(tmp_path: Path, names: Any) -> None:
    assert read(tmp_path / "g.pt", paper(label_names=names)).label_names == tuple(NAMES)


@pytest.mark.parametrize("key", ["label_name", "label_text", "label_texts", "category_names", "class_names"])
def test_a_name_for_each_class_or_each_node(tmp_path: Path, key: str) -> None:
    content = {"edge_index": EDGES, "raw_texts": WORDS, "y": Y * 5}
    at_nodes = [NAMES[k] for k in Y.tolist()]
    graph = read(tmp_path / "g.pt", {**content, key: at_nodes})
    assert named(graph) == at_nodes and set(graph.label_names) == set(NAMES)
    with pytest.raises(SourceError, match=r"names class 0 both 'law' and 'art'|classes up to 10"):
        read(tmp_path / "g.pt", {**content, key: [*at_nodes[:3], *at_nodes[4:], "law"]})
    graph = read(tmp_path / "g.pt", {**content, "y": Y, key: NAMES})
    assert named(graph) == at_nodes


def test_names_that_can_be_read_both_ways_are_refused(tmp_path: Path) -> None:
    y = torch.full((N,), -1)
    y[0], y[1] = 1, 0
    with pytest.raises(SourceError, match="those of the nodes or of the classes"):
        read(tmp_path / "g.pt", paper(y=y, label_names=WORDS))


def test_labels_without_names_are_said(tmp_path: Path) -> None:
    graph = read(tmp_path / "g.pt", paper(label_names=None))
    assert graph.labels is None and graph.counted["labels_without_names"] == N


# ------------------------------------------------------------------------------------------------ edges, relations


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (EDGES + 2**32, "names node 4294967296; the nodes are 0 to 11"),
        (EDGES + 2**40, "edge 0 names node 1099511627776"),
        (EDGES - 1, "edge 0 names node -1"),
        (EDGES + 0.5, "whole numbers"),
        (EDGES.T, r"must be of shape \(2, edges\), got \(12, 2\); transpose it"),
        (EDGES.bool(), "truth values"),
        ([[0, 1], [1]], "parts of different lengths"),
        ([["a", "b"], ["b", "c"]], "must hold numbers, got str"),
        (torch.tensor([[0, 12], [1, 2]]), "edge 1 names node 12"),
    ],
)
def test_edges_that_are_refused(tmp_path: Path, edges: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "g.pt", paper(edge_index=edges))


@pytest.mark.parametrize("form", [torch.Tensor.int, torch.Tensor.float, torch.Tensor.numpy, torch.Tensor.tolist])
def test_forms_of_edges(tmp_path: Path, form: Any) -> None:
    graph = read(tmp_path / "g.pt", paper(edge_index=form(EDGES)))
    assert np.stack([graph.sources, graph.targets]).tolist() == EDGES.tolist()


def test_edges_that_name_ids(tmp_path: Path) -> None:
    ids = torch.arange(N).flip(0) + 2**40
    graph = read(tmp_path / "g.pt", paper(edge_index=ids[EDGES], node_ids=ids))
    assert np.stack([graph.sources, graph.targets]).tolist() == EDGES.tolist()
    assert graph.reading.found == ("edges name node_ids",)
    with pytest.raises(SourceError, match="names node 5, which is no position"):
        read(tmp_path / "g.pt", paper(edge_index=torch.tensor([[2**40, 5], [2**40 + 1, 2**40]]), node_ids=ids))
    with pytest.raises(SourceError, match=r"positions .* and entries of node_ids, and these differ"):
        read(tmp_path / "g.pt", paper(node_ids=torch.arange(N).flip(0)))
    assert read(tmp_path / "g.pt", paper(node_ids=torch.arange(N) + 100)).sources.tolist() == EDGES[0].tolist()


def test_relations(tmp_path: Path) -> None:
    kinds = torch.tensor([0, 2**40] * 6)
    graph = read(tmp_path / "g.pt", paper(edge_type=kinds))
    assert graph.relation_names == ("relation 0", "relation 1099511627776")
    assert graph.relations is not None and graph.relations.tolist() == [0, 1] * 6
    graph = read(tmp_path / "g.pt", paper(edge_type=kinds.clamp(max=1), relation_texts=["cites", "writes"]))
    assert graph.relation_names == ("cites", "writes")
    with pytest.raises(SourceError, match="relations up to 1099511627776, and relation_names names 2 of 2"):
        read(tmp_path / "g.pt", paper(edge_type=kinds, relation_names=["cites", "writes"]))
    with pytest.raises(SourceError, match="relations are numbered from 0"):
        read(tmp_path / "g.pt", paper(edge_type=kinds - 1))


def test_one_relation_without_a_name_is_none() -> None:
    graph = from_tensors(paper(edge_types=torch.zeros(N, dtype=torch.long)), "g")
    assert graph.relations is None and graph.relation_names == ()


def test_an_edge_without_a_relation_is_refused() -> None:
    from ssl4rl_plugin.graphs.divide import divide

    graph = from_tensors(paper(edge_type=torch.zeros(N, dtype=torch.long), relation_names=["cites"]), "g")
    assert graph.relations is not None
    graph.relations[3] = -1
    with pytest.raises(GraphError, match="relations are numbered -1 to 0"):
        divide(graph)


def test_what_nothing_used_is_said(tmp_path: Path) -> None:
    graph = read(
        tmp_path / "g.pt", paper(x=torch.zeros(N, 3), edge_weight=torch.ones(N), edge_text=["a"] * N, author="me")
    )
    assert graph.reading.weights and graph.reading.unused == ("author", "edge_text", "x")


# ------------------------------------------------------------------------------------------------ sizes


def huge(shape: tuple[int, ...], value: float = 1) -> torch.Tensor:
    """A tensor of a few bytes that declares any shape."""
    return torch.as_strided(torch.tensor([value]), shape, (0,) * len(shape))


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"edge_index": huge((2, 10**11))}, "declares 1,490.1 GiB"),
        ({"y": huge((10**11,))}, "y 100000000000"),
        ({"y": huge((N, 10**10))}, "declares 894.1 GiB"),
        ({"x": huge((10**11, 4))}, "x 100000000000"),
        ({"train_mask": huge((N, 10**11)), "test_mask": huge((10**11,))}, "has 100000000000 entries"),
        ({"train_id": huge((10**11,))}, "declares 745.1 GiB"),
        ({"edge_type": huge((10**11,))}, "for 12 edges"),
        ({"y": torch.sparse_coo_tensor([[0], [0]], [1.0], (N, 10**11), check_invariants=True)}, "declares 4,470.3 GiB"),
    ],
)
def test_declared_sizes_are_refused_before_they_are_expanded(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    torch.save(paper(**content), tmp_path / "g.pt")
    assert (tmp_path / "g.pt").stat().st_size < 10_000
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "g.pt")


def test_a_small_view_that_repeats_is_read(tmp_path: Path) -> None:
    graph = read(tmp_path / "g.pt", paper(y=torch.tensor([1]).expand(N), train_mask=torch.tensor([True]).expand(N)))
    assert named(graph) == ["art"] * N


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_features_stay_sparse(tmp_path: Path) -> None:
    x = torch.sparse_coo_tensor([[0, 1, 1], [2, 0, 1]], [1.0, 2.0, 3.0], (N, 3))
    (tmp_path / "words.txt").write_text("red\ngreen\nblue\n")  # with an end of the last line
    for form in (x, x.to_sparse_csr(), x.to_dense()):
        graph = read(tmp_path / "g.pt", {"edge_index": EDGES, "x": form}, vocabulary="words.txt")
        assert texts(graph)[:3] == ["blue", "green red", ""] and graph.reading.missing_texts == 10
    wide = torch.sparse_coo_tensor([[0], [2]], [1.0], (2**40, 3))
    with pytest.raises(SourceError, match="declares 1099511627776 rows"):
        read(tmp_path / "g.pt", {"edge_index": EDGES, "x": wide}, vocabulary="words.txt")


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_sparse_tensor_that_points_outside_is_refused(tmp_path: Path) -> None:
    """Operating on it would read or write outside of its memory."""
    wrong = torch.sparse_coo_tensor([[0], [99]], [1.0], (N, 3), check_invariants=False)
    rows = torch.sparse_csr_tensor([0, 1, *[1] * (N - 1)], [99], [1.0], (N, 3), check_invariants=False)
    for value in (wrong, rows):
        with pytest.raises(SourceError, match="cannot be read"):
            read(tmp_path / "g.pt", paper(y=value))


def test_nested_and_repeated_lists(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    bomb: list[Any] = [0] * 10
    for _ in range(9):
        bomb = [bomb] * 10
    for value in (deep, bomb, [[0] * 10**5] * 10**5):
        for key in ("y", "edge_index", "train_mask", "edge_type", "label_names", "raw_texts"):
            with pytest.raises(SourceError):
                from_tensors(paper(**{key: value}), "g")


def test_a_file_that_unpacks_to_more_than_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl4rl_plugin.data_builders.sources.graphs.tensor_file.LARGEST", 2**20)
    torch.save(paper(), tmp_path / "g.pt")
    with (
        zipfile.ZipFile(tmp_path / "g.pt") as old,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        new.writestr("g/data/99", bytes(2**21))
    with pytest.raises(SourceError, match=r"unpacks to 2\.0 MiB"):
        read(tmp_path / "z.pt")


# ------------------------------------------------------------------------------------------------ types and files


class Makes:
    """What it is when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_of_a_declared_size_are_refused(tmp_path: Path, zipped: bool) -> None:
    for value, message in (
        (Makes(torch.Tensor, 10**9), r"a tensor in it takes 3\.7 GiB"), (Makes(bytearray, 10**13), "type bytearray"),
        (Makes(np.ndarray, (10**9,)), "array made by its class"), ([[Makes(torch.Tensor, 10**9)]], r"takes 3\.7 GiB"),
    ):  # fmt: skip
        torch.save(paper(extra=value), tmp_path / "g.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(SourceError, match=message):
            read(tmp_path / "g.pt")


class Own:
    """A class of the user's."""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pathlib.Path("x"), "pathlib.*Path.*save it as text"),
        (Own(), r"Own, which could run code.*torch\.save"),
        (np.array(["2020-01-01"], "M8[D]"), "array of dtype 'M8'"),
        (np.array([1j]), "array of dtype 'c16'"),
        (np.zeros(2, [("a", int)]), "array of dtype 'V8'"),
        (print, "type print"),
    ],
)
def test_other_types_are_named_with_the_remedy(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path / "g.pt", paper(extra=value))


def test_pandas_scipy_and_types_of_pytorch_geometric(tmp_path: Path) -> None:
    import pandas as pd
    import scipy.sparse as sp
    from torch_geometric.data import Batch, Data, HeteroData

    with pytest.raises(SourceError, match=r"pandas.*Series.*tolist"):
        read(tmp_path / "g.pt", paper(raw_texts=pd.Series(WORDS)))
    with pytest.raises(SourceError, match="sparse adjacency"):
        read(tmp_path / "g.pt", paper(adj=sp.eye(N).todia()))
    with pytest.raises(SourceError, match="must be a tensor"):
        read(tmp_path / "g.pt", paper(edge_index=sp.eye(N).tocsr()))
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    graph = read(tmp_path / "g.pt", {"edge_index": EDGES, "x": sp.eye(N).tocsr()}, vocabulary="words.txt")
    assert texts(graph) == WORDS
    data = Data(edge_index=EDGES, num_nodes=N, y=Y)
    data.raw_texts, data.label_names = WORDS, NAMES
    for saved in (data, [data], (data.to_dict(), None), (data.to_dict(), {"edge_index": torch.tensor([0, N])}, Data)):
        graph = read(tmp_path / "g.pt", saved)
        assert texts(graph) == WORDS and named(graph) == [NAMES[k] for k in Y.tolist()]
    torch.save(data, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert texts(read(tmp_path / "old.pt")) == WORDS
    hetero = HeteroData()
    hetero["paper"].x = torch.zeros(2, 2)
    for saved, message in (
        ([data, data], "holds 2 graphs"),
        ((data.to_dict(), {"edge_index": torch.tensor([0, 6, N])}, Data), "holds 2 graphs"),
        (hetero, r"HeteroData.*to_homogeneous"), (Batch.from_data_list([data]), r"torch_geometric\.data\.batch"),
        ((data, "more"), "holds no graph"), (torch.zeros(3), "got Tensor"), ("text", "got str"), ([], "holds no graph"),
        ({"x": 1}, "got the keys x"),
        ({"arxiv": data, "cora": data}, "holds 2 graphs, under the keys arxiv, cora: save the one to use"),
    ):  # fmt: skip
        with pytest.raises(SourceError, match=message):
            read(tmp_path / "g.pt", saved)


def test_a_saved_data_needs_no_pytorch_geometric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_geometric.data import Data

    data = Data(edge_index=EDGES, num_nodes=N)
    data.raw_texts = WORDS
    torch.save(data, tmp_path / "g.pt")
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    before = torch.serialization.get_safe_globals()
    assert texts(read(tmp_path / "g.pt")) == WORDS
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_files_that_torch_has_not_written(tmp_path: Path) -> None:
    torch.save(paper(), tmp_path / "good.pt")
    good = (tmp_path / "good.pt").read_bytes()
    torch.save(paper(), tmp_path / "good.pt", _use_new_zipfile_serialization=False)
    old = (tmp_path / "good.pt").read_bytes()
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    cases = {
        b"": "is empty", good[: len(good) // 2]: "damaged or incomplete zip", good[:-30]: "damaged or incomplete zip",
        old[: len(old) // 2]: "g.pt", b"hello, not a tensor": "cannot be read", bytes(100): "cannot be read",
        struct.pack("<Q", len(header)) + header + bytes(4): "safetensors", b"\x80\x02}q\x00.": "g.pt",
    }  # fmt: skip
    for content, message in cases.items():
        (tmp_path / "g.pt").write_bytes(content)
        with pytest.raises(SourceError, match=message):
            read(tmp_path / "g.pt")


# ------------------------------------------------------------------------------------------------ malformed files


def _tensors() -> st.SearchStrategy[Any]:
    sizes = st.sampled_from([0, 1, 3, N - 1, N, N + 1])
    entries = st.sampled_from([0, 1, 2, 3, -1, N, 2**31, 2**32 + 1, 2**40])
    ints = st.lists(entries, max_size=N + 1).map(lambda given: torch.tensor(given, dtype=torch.long))
    floats = st.lists(st.sampled_from([0.0, 1.0, 2.0, 0.5, math.nan, math.inf, -1.0]), max_size=N + 1).map(torch.tensor)
    return st.one_of(
        ints, floats, st.builds(lambda a, b: torch.ones(a, b), sizes, sizes),
        st.builds(lambda a, b: torch.eye(max(a, 1), max(b, 1), dtype=torch.bool), sizes, sizes),
        st.builds(huge, st.tuples(st.sampled_from([N, 2, 2**40]), st.sampled_from([1, 3, 2**20]))),
        ints.map(torch.Tensor.numpy), ints.map(torch.Tensor.tolist), st.lists(ints, max_size=3),
        st.just(torch.nn.functional.one_hot(Y, 3)), st.just(Y), st.just(mask(0, 1)), st.just([mask(2), mask(3)]),
    )  # fmt: skip


def _words() -> st.SearchStrategy[Any]:
    word = st.sampled_from([*WORDS, *NAMES, "", " ", None, math.nan, "None", "\ud800"])
    return st.one_of(
        st.lists(word, min_size=N, max_size=N), st.lists(word, max_size=N + 2), st.just(NAMES),
        st.lists(word, min_size=3, max_size=3).map(lambda given: dict(enumerate(given))),
        st.sampled_from([None, 5, b"x", {"a"}, {"law": 0}, "text", np.array(WORDS), np.array([1, "a", None], object)]),
    )  # fmt: skip


TENSORS, TEXTS = _tensors(), _words()
_KEYS = {
    "edge_index": st.one_of(st.just(EDGES), TENSORS), "raw_texts": st.one_of(st.just(WORDS), TEXTS),
    "y": st.one_of(TENSORS, TEXTS), "label_names": TEXTS, "category_names": TEXTS, "title": TEXTS,
    "train_mask": TENSORS, "test_masks": TENSORS, "val_id": TENSORS, "splits": st.dictionaries(
        st.sampled_from(["train", "valid", "test"]), TENSORS), "split": TEXTS, "edge_type": TENSORS,
    "relation_names": TEXTS, "num_nodes": st.sampled_from([N, N + 1, None, -1, 2**40, "x", torch.tensor(N)]),
    "node_ids": TENSORS, "edge_weight": TENSORS, "x": TENSORS,
}  # fmt: skip


@pytest.mark.parametrize("number", range(20))
def test_malformed_files_never_give_a_label_of_their_own(tmp_path: Path, number: int) -> None:
    """For 20 seeds: a graph whose labels, texts and relations are in the file, or a refusal with a reason."""
    outcomes: Counter[str] = Counter()

    @seed(number)
    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        content=st.fixed_dictionaries(
            {"edge_index": _KEYS["edge_index"], "raw_texts": _KEYS["raw_texts"]},
            optional={key: value for key, value in _KEYS.items() if key not in ("edge_index", "raw_texts")},
        ),
        cut=st.sampled_from([0, 0, 0, 0, 0, 1, 100, 1000]),
    )
    def check(content: dict[str, Any], cut: int) -> None:
        path = tmp_path / "g.pt"
        torch.save(content, path)
        if cut:
            path.write_bytes(path.read_bytes()[:-cut])
        try:
            manifest = GraphManifest(load_source("graph", path))  # type: ignore[arg-type]
            graph = read(path)
        except (SourceError, GraphError) as error:
            outcomes["refused"] += 1
            assert len(str(error)) < 1000
            return
        outcomes["read"] += 1
        _holds(content, graph)
        assert len(manifest.graph) == len(graph.texts)

    check()
    assert outcomes["refused"] > 2


def _holds(content: dict[str, Any], graph: RawGraph) -> None:
    """Texts, labels and edges are those of the file."""
    given = content["raw_texts"] if content["raw_texts"] is not None and len(content["raw_texts"]) else content["title"]
    given = [given[k] for k in range(len(given))]
    kept = ["" if not isinstance(text, str) or not text.strip() else text for text in given]
    assert texts(graph) == [text.encode("utf-8", "replace").decode() for text in kept]
    assert graph.reading.missing_texts + sum(map(bool, kept)) == len(graph.texts)
    assert np.array_equal(np.stack([graph.sources, graph.targets]), np.asarray(content["edge_index"]))
    if graph.labels is None:
        return
    assert len(graph.labels) == len(graph.texts)
    y = content["y"]
    names = [content.get("label_names"), content.get("category_names")]
    for node, number in enumerate(graph.labels.tolist()):
        if number < 0:
            continue
        name, own = graph.label_names[number], y[node] if len(np.shape(y)) != 2 or len(y) != 1 else y[0][node]
        if isinstance(own, str):
            assert name == own.strip()
            continue
        row = np.asarray(own).reshape(-1)
        of = int(row[0]) if row.size == 1 else int(row.argmax())
        assert row.size == 1 or (row.sum() == 1 and set(row.tolist()) <= {0, 1})
        said = [
            str(part).strip() for each in names if each is not None for part in (_at(each, of), _at(each, node)) if part
        ]
        assert name in said or name == ""


def _at(names: Any, number: int) -> Any:
    if isinstance(names, dict):
        return names.get(number, next((key for key, value in names.items() if value == number), None))
    return names[number] if isinstance(names, list | np.ndarray) and number < len(names) else None
