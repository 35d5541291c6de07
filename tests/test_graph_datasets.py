"""Planetoid, OGB, TAGDataset and WikiCS: the real layouts, written by code, and what is refused in them."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import random
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl4rl_plugin.core.graph import RawGraph
from ssl4rl_plugin.data.graphs import GraphManifest, GraphSource
from ssl4rl_plugin.data.source import SourceError, load_source
from ssl4rl_plugin.data_builders.sources.graphs.plain_pickle import load_plain
from ssl4rl_plugin.data_builders.sources.graphs.planetoid import assembled


def read(name: str, path: Path, **options: Any) -> RawGraph:
    source = load_source(name, path, **options)
    assert isinstance(source, GraphSource)
    return source.graph()


def texts(graph: RawGraph) -> list[str]:
    return [graph.texts.start(k, 10_000) for k in range(len(graph.texts))]


# ------------------------------------------------------------------------------------------------ Planetoid

PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph")


def planetoid(folder: Path, name: str = "cora", protocol: int = 2, gaps: tuple[int, ...] = ()) -> dict[str, Path]:
    """A data set of 700 papers, 60 for testing; the nodes of `gaps` have no row, as CiteSeer's isolated test nodes."""
    import scipy.sparse as sp

    rng = np.random.default_rng(3)
    classes = 6 if name == "citeseer" else 7
    count, first = 700, 640
    x = sp.csr_matrix((rng.random((count, 30)) < 0.2).astype(np.float32))
    y = np.eye(classes, dtype=np.int32)[rng.integers(0, classes, count)]
    order = rng.permutation([node for node in range(first, count) if node not in gaps])
    graph: dict[int, list[int]] = defaultdict(list)
    for node in range(count):
        graph[node] = [] if node in gaps else [int(k) for k in rng.integers(0, first, 3)]
    parts = {"x": x[:140], "y": y[:140], "allx": x[:first], "ally": y[:first], "tx": x[order], "ty": y[order],
             "graph": graph}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for part, content in parts.items():
        files[part] = folder / f"ind.{name}.{part}"
        files[part].write_bytes(pickle.dumps(content, protocol))
    files["test.index"] = folder / f"ind.{name}.test.index"
    files["test.index"].write_text("\n".join(map(str, order)) + "\n")
    return files


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(("name", "gaps"), [("cora", ()), ("citeseer", (650, 651, 690))])
def test_planetoid_is_put_together_as_pytorch_geometric_does(
    tmp_path: Path, protocol: int, name: str, gaps: tuple[int, ...]
) -> None:
    from torch_geometric.io import read_planetoid_data
    from torch_geometric.utils import coalesce

    files = planetoid(tmp_path, name, protocol, gaps)
    found, theirs = assembled(files), read_planetoid_data(str(tmp_path), name)
    assert np.array_equal(found.x.toarray(), theirs.x.numpy())
    for split in ("train", "val", "test"):
        assert np.array_equal(found.masks[f"{split}_mask"], theirs[f"{split}_mask"].numpy())
    ours = coalesce(torch.from_numpy(found.edges[:, found.edges[0] != found.edges[1]]), sort_by_row=False)
    assert torch.equal(ours, theirs.edge_index)
    expected = theirs.y.numpy().copy()
    expected[list(gaps)] = -1  # theirs are of class 0, which no file says
    assert np.array_equal(found.labels, expected) and found.counted["labels_without_a_class"] == len(gaps)
    graph = read("planetoid", tmp_path, dataset=name)
    assert graph.roles is not None and np.bincount(graph.roles).tolist() == [140 + len(gaps), 500, 60 - len(gaps)]
    assert graph.labels is not None and np.array_equal(graph.labels, expected)


def test_planetoid_from_its_processed_form(tmp_path: Path) -> None:
    from torch_geometric.datasets import Planetoid

    planetoid(tmp_path / "Cora" / "raw")
    Planetoid(str(tmp_path), "Cora")
    raw = read("planetoid", tmp_path)
    for file in (tmp_path / "Cora" / "raw").iterdir():
        file.unlink()
    processed = read("planetoid", tmp_path)
    assert texts(processed) == texts(raw) and processed.label_names == raw.label_names
    assert np.array_equal(processed.labels, raw.labels) and np.array_equal(processed.roles, raw.roles)


class Runs:
    """Unpickled by `pickle`, this calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def attacks(mark: Path) -> dict[str, bytes]:
    """Pickles that run something with `pickle.load`."""
    import importlib
    import subprocess

    import numpy.testing
    import scipy.io

    code = f"open({str(mark)!r}, 'w').close()"
    calls = {
        "os.system": Runs(os.system, f"touch {mark}"), "eval": Runs(eval, code), "exec": Runs(exec, code),
        "subprocess": Runs(subprocess.check_call, ["touch", str(mark)]), "import": Runs(importlib.import_module, "this"),
        "getattr": Runs(getattr, [], "append"),
        "numpy.testing": Runs(numpy.testing.measure, code), "numpy.load": Runs(np.load, str(mark)),
        "numpy.fromfile": Runs(np.fromfile, "/etc/hostname"), "numpy.save": Runs(np.save, str(mark), [1]),
        "scipy.io": Runs(scipy.io.savemat, str(mark), {"a": 1}), "open": Runs(open, str(mark), "w"),
        "ndarray itself": Runs(np.ndarray, (2**20,)),
    }  # fmt: skip
    raw = {
        "a name in the stack": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        "protocol 0": b"cposix\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.",
        "INST": b"(S'touch " + str(mark).encode() + b"'\niposix\nsystem\n.",
        "a persistent id": b"Pnumber\n.", "an extension": b"\x82\x01.", "an extension 4": b"\x84\x01\x00\x00\x00.",
        "a state for a function": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01sb.",
        "a state for a class": b"\x80\x02cnumpy\ndtype\nN}X\x0c\x00\x00\x00__setstate__c__builtin__\nlist\ns\x86b.",
        "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x10testing.measure\x93.",
        "an out-of-band buffer": b"\x80\x05\x97.",
    }  # fmt: skip
    return {**{name: pickle.dumps(call) for name, call in calls.items()}, **raw}


@pytest.mark.parametrize("part", PARTS)
def test_a_malicious_file_of_planetoid_runs_nothing(tmp_path: Path, part: str) -> None:
    files = planetoid(tmp_path)
    mark = tmp_path / "ran"
    for name, content in attacks(mark).items():
        files[part].write_bytes(content)
        with pytest.raises(SourceError, match=r"which is not read|no pickle of plain data"):
            read("planetoid", tmp_path)
        assert not mark.exists() and not mark.with_suffix(".npy").exists(), name


def test_attacks_would_run_with_pickle(tmp_path: Path) -> None:
    """Where this fails, the test above proves nothing."""
    mark = tmp_path / "ran"
    for name in ("os.system", "eval", "subprocess", "open", "protocol 0", "INST", "numpy.testing"):
        pickle.loads(attacks(mark)[name])
        assert mark.exists(), name
        mark.unlink()


def test_plain_data_of_a_pickle(tmp_path: Path) -> None:
    import scipy.sparse as sp

    file = tmp_path / "x"
    dense = np.arange(6, dtype=np.float32).reshape(2, 3)
    for protocol in range(6):
        for value in (
            dense, np.asfortranarray(dense), dense.astype(">i4"), np.array(["a", "bc"]), np.array(["a", None], object),
            np.float64(0.5), {np.int64(3): [np.int64(4)]}, [b"bytes", 1.5, None, True, ("a", 2**70)],
        ):  # fmt: skip
            file.write_bytes(pickle.dumps(value, protocol))
            found = load_plain(file)
            assert np.array_equal(found, value) if isinstance(value, np.ndarray) else found == value
        for form in (sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array):
            file.write_bytes(pickle.dumps(form(dense), protocol))
            assert np.array_equal(load_plain(file).matrix().toarray(), dense)


def test_a_pickle_that_only_declares_a_size_takes_no_memory(tmp_path: Path) -> None:
    import tracemalloc

    size = (2**34).to_bytes(8, "little")
    for code in (b"\x80\x05\x96" + size, b"\x80\x05\x8e" + size, b"\x80\x04\x8d" + size, b"\x80\x04\x95" + size):
        (tmp_path / "x").write_bytes(code + b"few.")
        tracemalloc.start()
        with pytest.raises(SourceError):
            load_plain(tmp_path / "x")
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("graph", {0: [700]}, "names nodes that do not exist; the nodes are 0 to 699"),
        ("graph", {2**40: [1]}, "names nodes that do not exist"),
        ("graph", {-1: [1]}, "names nodes that do not exist"),
        ("graph", {0: "ab"}, "lists of their neighbours"),
        ("graph", [[1]], "must hold a dict"),
        ("x", {"a": 1}, "must hold a matrix, got dict"),
        ("y", np.array(["a"]), "must hold a matrix"),
        ("allx", np.zeros((3, 30)), "do not fit together: allx has 3 rows, ally 640"),
        ("tx", np.zeros((60, 31)), "different numbers of columns"),
    ],
)
def test_parts_of_planetoid_that_do_not_fit(tmp_path: Path, part: str, content: Any, message: str) -> None:
    files = planetoid(tmp_path)
    files[part].write_bytes(pickle.dumps(content))
    with pytest.raises(SourceError, match=message):
        read("planetoid", tmp_path)


def test_damaged_files_of_planetoid(tmp_path: Path) -> None:
    files = planetoid(tmp_path)
    for part in PARTS:
        good = files[part].read_bytes()
        for bad in (b"", good[: len(good) // 2], b"text", good[:100] + bytes(40) + good[140:]):
            files[part].write_bytes(bad)
            with pytest.raises(SourceError):
                read("planetoid", tmp_path)
        files[part].write_bytes(good)
    for index in ("", "640\n640\n", "1\n2\n", "640\nx\n", f"640\n{2**40}\n"):
        files["test.index"].write_text(index)
        with pytest.raises(SourceError, match=r"test\.index"):
            read("planetoid", tmp_path)


@pytest.mark.parametrize("number", range(20))
def test_altered_files_of_planetoid_are_read_or_refused(tmp_path: Path, number: int) -> None:
    """Bytes that are changed, cut out or put in: never another error, never more memory than the file has."""
    files = planetoid(tmp_path, protocol=number % 6)
    rng = random.Random(number)
    for part in PARTS:
        good = files[part].read_bytes()
        for _ in range(4):
            bad = bytearray(good)
            start = rng.randrange(min(len(bad), 300))
            bad[start : start + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
            files[part].write_bytes(bad)
            with contextlib.suppress(SourceError):
                found = load_plain(files[part])
                assert not hasattr(found, "matrix") or found.matrix().nnz <= len(bad)
        files[part].write_bytes(good)


# ------------------------------------------------------------------------------------------------ OGB

KEYS = {"arxiv": ("paperid", "paper id"), "products": ("asin", "asin")}


def packed(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def ogb(folder: Path, kind: str = "arxiv", **files: str) -> Path:
    """A data set of 5 nodes, whose papers are 50, 40, 30, 20, 10. `files` replaces some of its files."""
    name, title = KEYS[kind]
    label = "arxivcategeory" if kind == "arxiv" else "productcategory"
    content = {
        "raw/edge.csv.gz": "0,1\n1,2\n2,3\n3,4\n4,0\n", "raw/node-label.csv.gz": "0\n1\n2\n1\n0\n",
        "raw/num-node-list.csv.gz": "5\n", "raw/num-edge-list.csv.gz": "5\n", "split/time/train.csv.gz": "0\n1\n",
        "split/time/valid.csv.gz": "2\n", "split/time/test.csv.gz": "4\n",
        f"mapping/nodeidx2{name}.csv.gz": f"node idx,{title}\n0,50\n1,40\n2,30\n3,20\n4,10\n",
        f"mapping/labelidx2{label}.csv.gz": "label idx,name\n0,arxiv cs na\n1,arxiv cs mm\n2,arxiv cs lo\n",
        **files,
    }  # fmt: skip
    for path, text in content.items():
        packed(folder / path, text)
    return folder


TITLES = "".join(f"{paper}\tTitle {paper}\tAbstract {paper}\n" for paper in (10, 20, 30, 40, 50, 60))
EXPECTED = [f"Title {paper}. Abstract {paper}" for paper in (50, 40, 30, 20, 10)]


@pytest.mark.parametrize(
    "name", ["titleabs.tsv", "titleabs.tsv.gz", "raw/titleabs.tsv", "raw/titleabs.tsv.gz", "t.tsv.gz"]
)
def test_titles_of_ogb_are_matched_by_the_mapping(tmp_path: Path, name: str) -> None:
    packed(ogb(tmp_path) / name, TITLES)
    graph = read("ogb", tmp_path, **({"texts": name} if name == "t.tsv.gz" else {}))
    assert texts(graph) == EXPECTED and graph.reading.missing_texts == 0
    assert graph.label_names == ("arxiv cs na", "arxiv cs mm", "arxiv cs lo")
    assert graph.roles is not None and graph.roles.tolist() == [0, 0, 1, 0, 2]
    assert graph.reading.found == ("texts by the mapping", "1 nodes in no mask serve training")


@pytest.mark.parametrize("name", ["titleabs.tsv", "titleabs.tsv.gz"])
def test_titles_of_ogb_in_a_tar_archive(tmp_path: Path, name: str) -> None:
    """OGB's own titleabs.tsv.gz is a gzipped tar: its first line begins with the archive's header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("titleabs.tsv")
        entry.size = len(TITLES)
        archive.addfile(entry, io.BytesIO(TITLES.encode()))
    packed(ogb(tmp_path) / name, buffer.getvalue())
    assert texts(read("ogb", tmp_path)) == EXPECTED


def test_texts_of_ogb_that_are_missing(tmp_path: Path) -> None:
    packed(ogb(tmp_path) / "titleabs.tsv", "50\tT\n40\tnan\tA\n30\t\t\nno tabs\n\t\t\n99\tx\ty\n")
    graph = read("ogb", tmp_path)
    assert texts(graph) == ["T", "A", "", "", ""] and graph.reading.missing_texts == 3
    assert graph.counted["rows_of_texts_without_an_id"] == 2


def test_a_class_without_a_name_is_never_an_option(tmp_path: Path) -> None:
    """ogbn-products has such a class."""
    names = "label idx,product category\n0,Books\n1,\n2,Toys\n"
    folder = ogb(tmp_path, "products", **{"mapping/labelidx2productcategory.csv.gz": names})
    rows = [json.dumps({"uid": str(paper), "title": f"Title {paper}", "content": f"Abstract {paper}"}) for paper in
            (10, 20, 30, 40, 50)]  # fmt: skip
    packed(folder / "trn.json.gz", "\n".join(rows[:3]))
    packed(folder / "tst.json", "\n".join(rows[3:]))
    source = load_source("ogb", folder, texts="trn.json.gz,tst.json")
    assert isinstance(source, GraphSource) and texts(source.graph()) == EXPECTED
    graph = GraphManifest(source).graph
    assert graph.label_names == ("Books", "Toys") and graph.labels is not None
    assert graph.labels.tolist() == [0, -1, 1, -1, 0]


@pytest.mark.parametrize(
    ("table", "by"),
    [
        ("text\na\nb\nc\nd\ne\n", "order of the rows"),
        (",text\n0,a\n1,b\n2,c\n3,d\n4,e\n", "order of the rows"),
        ("node_idx,text\n4,e\n3,d\n2,c\n1,b\n0,a\n", "number of the node"),
        ("text,node idx\ne,4\nd,3\nb,1\nc,2\na,0\n", "number of the node"),
        ("uid,nid,title,content\n50,0,a,\n40,1,,b\n30,2,c,\n20,3,d,\n10,4,e,\n", "mapping"),
    ],
)
def test_texts_of_a_tag_dataset(tmp_path: Path, table: str, by: str) -> None:
    packed(ogb(tmp_path) / "raw/node-text.csv.gz", table)
    graph = read("tag_dataset", tmp_path)
    assert texts(graph) == ["a", "b", "c", "d", "e"] and graph.reading.found[0].endswith(by)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"raw/node-text.csv.gz": "text\na\nb\nc\nd\n"}, "4 texts for 5 nodes, and no column"),
        ({"raw/node-text.csv.gz": ",text\n1,b\n0,a\n2,c\n3,d\n4,e\n"}, "order of the rows or of this column"),
        ({"raw/node-text.csv.gz": "a\nb\nc\nd\ne\n"}, "no header"),
        ({"raw/node-text.csv.gz": "node_idx,text\n0,a\n0,b\n"}, "'0' is no number of a node .* or comes twice"),
        ({"raw/node-text.csv.gz": "node_idx,text\n5,a\n"}, "'5' is no number of a node from 0 to 4"),
        ({"raw/node-text.csv.gz": f"node_idx,text\n{'9' * 5000},a\n"}, "is no number of a node"),
        ({"raw/node-text.csv.gz": "node_idx,text\n²,a\n"}, "is no number of a node"),
        ({"raw/node-label.csv.gz": f"0\n1\n{'9' * 5000}\n1\n0\n"}, "row 3: one number of a class"),
        ({"mapping/labelidx2arxivcategeory.csv.gz": f"label idx,name\n0,a\n{'9' * 5000},b\n"}, "number of a class"),
        ({"mapping/nodeidx2paperid.csv.gz": f"node idx,paper id\n0,50\n{'9' * 5000},40\n"}, "number of a node"),
        ({"raw/node-text.csv.gz": "node_idx,name\n1,a\n"}, "no column of texts"),
        ({"raw/node-text.csv.gz": 'text\n"a\nb'}, "cannot be read"),
        ({"raw/node-text.csv.gz": "uid,text\n7,a\n8,b\n"}, "no text of .* belongs to a node"),
        (
            {"mapping/nodeidx2paperid.csv.gz": "node idx,paper id\n0,50\n1,40\n"},
            "maps 2 nodes, and the nodes are 0 to 4",
        ),
        ({"mapping/nodeidx2paperid.csv.gz": "0,50\n0,40\n1,1\n2,2\n3,3\n4,4\n"}, "names node 0 twice"),
        ({"raw/num-node-list.csv.gz": "6\n"}, "says 6, and raw/node-label.csv.gz has 5 rows"),
        ({"raw/num-edge-list.csv.gz": "4\n"}, "says 4, and raw/edge.csv.gz has 5 rows"),
        ({"raw/edge.csv.gz": "0,1\n1,x\n"}, "2 whole number"),
        ({"raw/edge.csv.gz": "0,1,2\n1,2,3\n"}, "2 whole number"),
        ({"raw/edge.csv.gz": f"0,1\n1,{2**70}\n"}, "2 whole number"),
        ({"raw/node-label.csv.gz": "0\n1\nx\n1\n0\n"}, "row 3: one number of a class"),
        ({"raw/node-label.csv.gz": "0,1\n1,1\n1,1\n1,0\n0,1\n"}, "one number of a class"),
        ({"mapping/labelidx2arxivcategeory.csv.gz": "label idx,name\n0,a\n0,b\n"}, "names class 0 twice"),
        ({"split/time/test.csv.gz": "5\n"}, "names nodes 5 to 5; the nodes are 0 to 4"),
    ],
)
def test_files_of_ogb_that_are_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    ogb(tmp_path, **{"raw/node-text.csv.gz": "paper id,text\n50,a\n40,b\n", **files})
    with pytest.raises(SourceError, match=message):
        read("tag_dataset", tmp_path)


def test_edges_of_ogb_to_other_nodes_are_refused(tmp_path: Path) -> None:
    packed(ogb(tmp_path, **{"raw/edge.csv.gz": f"0,1\n1,{2**40}\n1,2\n2,3\n3,4\n"}) / "titleabs.tsv", TITLES)
    with pytest.raises(SourceError, match="edge 1 names node 1099511627776"):
        GraphManifest(load_source("ogb", tmp_path))  # type: ignore[arg-type]


def test_ids_without_a_mapping_are_refused(tmp_path: Path) -> None:
    packed(ogb(tmp_path) / "titleabs.tsv.gz", TITLES)
    (tmp_path / "mapping" / "nodeidx2paperid.csv.gz").unlink()
    with pytest.raises(SourceError, match="the mapping from nodes to them is missing"):
        read("ogb", tmp_path)


def test_missing_labels_of_ogb(tmp_path: Path) -> None:
    packed(ogb(tmp_path, **{"raw/node-label.csv.gz": "0\nnan\n2.0\n-1\n0\n"}) / "titleabs.tsv", TITLES)
    graph = read("ogb", tmp_path)
    assert (
        graph.labels is not None and graph.labels.tolist() == [0, -1, 2, -1, 0] and graph.counted["labels_missing"] == 2
    )


def test_several_splits_of_ogb_are_chosen_by_name(tmp_path: Path) -> None:
    packed(ogb(tmp_path) / "titleabs.tsv", TITLES)
    for name, node in (("train", 4), ("valid", 3), ("test", 2)):
        packed(tmp_path / "split" / "sales_ranking" / f"{name}.csv.gz", f"{node}\n")
    with pytest.raises(SourceError, match=r"several splits \(sales_ranking, time\): choose one"):
        load_source("ogb", tmp_path)
    graph = read("ogb", tmp_path, split="sales_ranking")
    assert graph.roles is not None and graph.roles.tolist() == [0, 0, 2, 1, 0]
    assert graph.reading.splits == "split/sales_ranking"
    with pytest.raises(SourceError, match="no split 'random'; there are: sales_ranking, time"):
        load_source("ogb", tmp_path, split="random")


# ------------------------------------------------------------------------------------------------ WikiCS


def wikics(folder: Path, about: dict[str, Any] | None = None, **more: Any) -> Path:
    data = {
        "links": [[1, 2], [2], [0], [1]], "labels": [0, 1, 0, 1], "features": [[0.0]] * 4,
        "train_masks": [[k == 0, k == 1, 0, 0] for k in range(20)], "stopping_masks": [[0, 0, 0, 1]] * 20,
        "val_masks": [[k == 1, k == 0, 0, 0] for k in range(20)], "test_mask": [0, 0, 1, 0], **more,
    }  # fmt: skip
    nodes: list[Any] = [{"title": title, "tokens": ["some", "words"]} for title in ("One", "Two", "Three")]
    nodes += [{"title": None, "tokens": None}]
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "metadata.json").write_text(
        json.dumps({"labels": {"0": "law", "1": "art"}, "nodes": nodes, **(about or {})})
    )
    return folder


def test_masks_of_wikics(tmp_path: Path) -> None:
    graph = read("wikics", wikics(tmp_path))
    assert texts(graph) == ["One. some words", "Two. some words", "Three. some words", ""]
    assert graph.roles is not None and graph.roles.tolist() == [0, 1, 2, 0] and graph.reading.missing_texts == 1
    assert "0 of 0 to 19" in graph.reading.splits and graph.reading.unused == ("features", "stopping_masks")
    other = read("wikics", tmp_path, mask=1, unmasked="none")
    assert other.roles is not None and other.roles.tolist() == [1, 0, 2, 3]
    with pytest.raises(SourceError, match="20 alternatives"):
        read("wikics", tmp_path, mask=20)


@pytest.mark.parametrize(
    ("about", "more", "message"),
    [
        ({}, {"train_masks": [[0, 1]] * 20}, r"train_masks\[0\] has 2 entries for 4 nodes"),
        ({}, {"labels": [0, 1]}, "labels has 2 entries"),
        ({}, {"labels": [0, 1, 2**40, 0]}, "must name the classes 0 to 1099511627776"),
        ({}, {"links": [[1]]}, "metadata.json has 4 nodes, and links of data.json has 1"),
        ({}, {"links": [[1], [9], [0], [0]]}, "links of node 1 must be a list of nodes, 0 to 3"),
        ({}, {"links": [[1], [2**40], [0], [-1]]}, "links of node 1"),
        ({"nodes": [1, 2, 3, 4]}, {}, "node 0 must be an object"),
        ({"labels": {"0": "law"}}, {}, "must name the classes 0 to 1"),
        ({"labels": None}, {}, "must name the classes"),
        ({}, {"links": None}, "no list 'links'"),
    ],
)
def test_files_of_wikics_that_are_refused(
    tmp_path: Path, about: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        read("wikics", wikics(tmp_path, about, **more))


# ------------------------------------------------------------------------------------------------ docs

ROWS = {
    "file": ["test_pandas_scipy_and_types_of_pytorch_geometric", "test_files_that_torch_has_not_written",
             "test_a_saved_data_needs_no_pytorch_geometric"],
    "types": ["test_other_types_are_named_with_the_remedy", "test_forms_of_labels"],
    "sizes": ["test_declared_sizes_are_refused_before_they_are_expanded", "test_a_small_view_that_repeats_is_read"],
    "lengths": ["test_lengths_that_disagree", "test_more_texts_than_nodes_are_refused_with_both_numbers"],
    "edges": ["test_forms_of_edges", "test_edges_that_name_ids", "test_edges_that_are_refused"],
    "texts": ["test_missing_texts_are_empty_and_counted", "test_texts_of_another_type", "test_sparse_features_stay_sparse",
              "test_titles_and_abstracts_are_joined_without_what_is_missing"],
    "labels": ["test_forms_of_labels", "test_labels_that_are_refused", "test_rows_of_none_or_several_classes_have_no_label"],
    "names of classes": ["test_a_name_for_each_class_or_each_node", "test_forms_of_names_of_classes",
                         "test_names_that_can_be_read_both_ways_are_refused"],
    "masks": ["test_ten_alternative_masks", "test_splits_that_are_refused",
              "test_a_node_in_several_masks_is_held_out_and_counted"],
    "lists of nodes": ["test_other_forms_of_splits"],
    "nodes in no mask": ["test_nodes_in_no_split_are_in_no_items"],
    "relations": ["test_relations"],
    "weights": ["test_what_nothing_used_is_said"],
    "Planetoid": ["test_planetoid_is_put_together_as_pytorch_geometric_does", "test_planetoid_from_its_processed_form",
                  "test_a_malicious_file_of_planetoid_runs_nothing", "test_parts_of_planetoid_that_do_not_fit"],
    "WikiCS": ["test_masks_of_wikics", "test_files_of_wikics_that_are_refused"],
    "OGB": ["test_files_of_ogb_that_are_refused", "test_several_splits_of_ogb_are_chosen_by_name",
            "test_a_class_without_a_name_is_never_an_option", "test_missing_labels_of_ogb"],
    "OGB's texts": ["test_titles_of_ogb_are_matched_by_the_mapping", "test_titles_of_ogb_in_a_tar_archive",
                    "test_ids_without_a_mapping_are_refused"],
    "TAGDataset": ["test_texts_of_a_tag_dataset"],
}  # fmt: skip
"""Row of the tables in docs/graph_datasets.md -> the tests that try it."""


def test_each_row_of_the_tables_is_tried_by_a_test() -> None:
    import re

    import test_graph_tensors

    page = (Path(__file__).parents[1] / "docs" / "graph_datasets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE)
    assert [row for row in rows if row != "Layout"] == list(ROWS)
    here = {*globals(), *vars(test_graph_tensors)}
    assert {name for names in ROWS.values() for name in names} <= here
