"""Graph text files as people have them: each row of the table in docs/graph_files.md, and generated malformed ones."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from graph_layouts import CASES, NODES, PLAIN, Case, edges, labels, read, texts
from graphs import raw_graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl4rl_plugin.core import GraphNode, Item, Sample
from ssl4rl_plugin.core.files import JsonError, read_json
from ssl4rl_plugin.core.graph import GraphError, RawGraph, Texts
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.graphs import GraphManifest, GraphSource
from ssl4rl_plugin.data.source import SourceError, load_source
from ssl4rl_plugin.graphs.divide import divide
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.training.source_notes import source_notes

DOCS = Path(__file__).parents[1] / "docs" / "graph_files.md"


@pytest.mark.parametrize("row", CASES)
def test_a_row_of_the_table(row: str, tmp_path: Path) -> None:
    for number, case in enumerate(CASES[row]):
        folder = tmp_path / str(number)
        folder.mkdir()
        if case.refused is not None:
            with pytest.raises(SourceError, match=case.refused):
                read(folder, case)
            continue
        graph = read(folder, case)
        assert edges(graph) == case.edges, (number, graph.reading)
        assert case.check(graph), (number, graph)


def test_the_table_of_the_docs_has_these_rows() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert [row for row in rows if row != "Layout" and set(row) - {"-"}] == list(CASES)


# ------------------------------------------------------------------------------------------------ labels


def test_labels_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps({"law": [*range(1, 20), 20], "art": [21, 20, 99]}))
    many = "id,text\n" + "".join(f"{node},t{node}\n" for node in range(1, 22))
    graph = read(tmp_path, Case("e.csv", PLAIN, nodes=many, options={"labels": "l.json"}))
    assert labels(graph) == [*["law"] * 19, "", "art"]
    assert graph.reading.refused == {"nodes: nodes with two labels": 1, "nodes: labels of unknown nodes": 1}
    (tmp_path / "l.json").write_text(json.dumps({"law": [1, 2], "law/tax": [1], "art": [3, 4], "art/oil": [3]}))
    with pytest.raises(SourceError, match=r"2 of 4 nodes more than one label.*label_level=1"):
        read(tmp_path, Case("e.csv", PLAIN, nodes=NODES, options={"labels": "l.json"}))
    for level, wanted in ((1, ["law", "law", "art", "art"]), (2, ["law/tax", "", "art/oil", ""])):
        options = {"labels": "l.json", "label_level": level}
        assert labels(read(tmp_path, Case("e.csv", PLAIN, nodes=NODES, options=options))) == wanted
    (tmp_path / "l.json").write_text('{"1": "law", "1": "art"}')
    with pytest.raises(SourceError, match="'1' more than once"):
        read(tmp_path, Case("e.csv", PLAIN, nodes=NODES, options={"labels": "l.json"}))


@pytest.mark.parametrize("empty", ["", " ", "nan", "None", "<image>"])
def test_a_class_without_a_name_is_no_answer(empty: str) -> None:
    ends = np.arange(30)
    graph = divide(RawGraph(
        "made", ends, (ends + 1) % 30, Texts.of(f"text {k}" for k in ends), labels=(ends % 3).astype(np.int32),
        label_names=(empty, "b", "c"), roles=(ends % 3).astype(np.int8),
    ))  # fmt: skip
    assert graph.label_names == ("b", "c") and graph.labels is not None
    assert graph.labels.tolist() == [-1 if k % 3 == 0 else k % 3 - 1 for k in range(30)]
    assert graph.counted["labels_without_a_name_of_their_own"] == 10


def test_two_classes_with_one_name_are_no_answers() -> None:
    ends = np.arange(30)
    raw = RawGraph(
        "made", ends, (ends + 1) % 30, Texts.of(f"text {k}" for k in ends), labels=(ends % 3).astype(np.int32),
        label_names=("Law", "law ", "art"),
    )  # fmt: skip
    graph = divide(raw)
    assert graph.labels is None and not graph.label_names  # one class is left, and nothing to choose
    assert graph.counted["labels_without_a_name_of_their_own"] == 20


def test_relations_without_a_name_are_refused_and_equal_ones_merged() -> None:
    ends = np.arange(30)
    raw = RawGraph(
        "made", ends, (ends + 1) % 30, Texts.of(f"text {k}" for k in ends), directed=True,
        relations=(ends % 3).astype(np.int32), relation_names=("likes", "likes ", "sees", "never used", ""),
    )  # fmt: skip
    graph = divide(raw)
    assert graph.relation_names == ("likes", "sees", "never used", "")
    with pytest.raises(GraphError, match="relation 2 of edge 2 has no name"):
        divide(replace(raw, relation_names=("likes", "knows", "nan")))


@pytest.mark.parametrize("task", ["kg_completion", "masked_attribute", "neighbour_prediction"])
def test_an_option_always_has_a_text(task: str) -> None:
    raw = raw_graph(3)
    some = [raw.texts.start(node, 9999) if node % 2 else "" for node in range(len(raw.texts))]
    graph = divide(replace(raw, texts=Texts.of(some)))
    nodes = graph.nodes_of("train").tolist()
    asked = get_task(task)
    made = [
        asked.generate(Item(f"node {node}", GraphNode(graph, node, "train")), level, rng_for(task, name, node))
        for name, level in asked.levels.items()
        for node in nodes[:60]
    ]
    samples = [one for one in made if isinstance(one, Sample)]
    assert len(samples) > 5
    assert not any(option.strip() in ("", "(no text)") for one in samples for option in map(str, one.options or ()))


# ------------------------------------------------------------------------------------------------ the line


def test_the_summary_is_one_line_and_survives_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL4RL_CACHE", str(tmp_path / "cache"))
    names = "".join(f"{k},text {k},{'law' if k % 3 else 'art'},{'train' if k % 2 else 'test'},x\n" for k in range(40))
    (tmp_path / "nodes.csv").write_text("id,text,label,split,colour\n" + names + "40,,,train,x\n")
    (tmp_path / "e.csv").write_text(
        "u,v,w\n" + "".join(f"{k},{(k * 7 + 1) % 40},1\n" for k in range(40)) + "3,x,1\n3\n"
    )
    for _ in range(2):  # read, then from the cache
        manifest = GraphManifest(load_source("graph", tmp_path / "e.csv", nodes="nodes.csv"))  # type: ignore[arg-type]
        line = manifest.summary()
        assert "\n" not in line
        for part in ("41 nodes", "undirected, weights not used", "2 classes", "largest law 26", "smallest art 14",
                     "from column 'label'", "texts 40, missing 1", "test 20", "column 'split', val by hash",
                     "too few fields 1", "unknown ends 1", "nodes: colour", "header u v w", "delimiter comma"):  # fmt: skip
            assert part in line, (part, line)
        assert json.loads(json.dumps(manifest.facts()))["lines_used"] == 40
        assert list(source_notes(manifest)) == [line]  # what the check before a run prints


def test_index_and_preview_print_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from ssl4rl_plugin.cli import app

    monkeypatch.setenv("SSL4RL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "e.tsv").write_text("".join(f"n{k}\tlinks\tn{(k + 1) % 20}\n" for k in range(20)))
    shown = CliRunner().invoke(app, ["index", "graph", "--path", str(tmp_path / "e.tsv")])
    assert shown.exit_code == 0 and "20 nodes; 20 edges from 20 lines (directed, no weights)" in shown.output
    preview = [
        "preview",
        "node_degree",
        "-n",
        "1",
        "--path",
        str(tmp_path / "e.tsv"),
        "--out",
        str(tmp_path / "p.html"),
    ]
    assert "20 nodes; 20 edges from 20 lines" in CliRunner().invoke(app, preview).stderr
    nx.write_gexf(nx.cycle_graph(["ann", "bob", "cy", "di"]), tmp_path / "g.gexf")  # chosen by its ending
    assert "4 nodes; 4 edges" in CliRunner().invoke(app, ["index", str(tmp_path / "g.gexf")]).output
    as_json = CliRunner().invoke(app, ["index", "graph", "--path", str(tmp_path / "e.tsv"), "--json"])
    assert json.loads(as_json.output)["relations"] == ["links"]


def test_a_gzipped_file_expands_by_a_bounded_factor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("e.csv.gz", gzip.compress(b"a,b\nb,c\nc,a\n" * 50_000))
    assert read(tmp_path, case).reading.lines_used == 150_000
    monkeypatch.setattr("ssl4rl_plugin.data_builders.sources.graphs.text.EXPANDED", 2**18)
    with pytest.raises(SourceError, match="expands to more than"):
        read(tmp_path, case)


def test_json_of_users(tmp_path: Path) -> None:
    (tmp_path / "big.json").write_text("[1, 2, 3]")
    with pytest.raises(JsonError, match="9 bytes"):
        read_json(tmp_path / "big.json", largest=8)
    with pytest.raises(JsonError, match="No such file"):
        read_json(tmp_path / "none.json")


# ------------------------------------------------------------------------------------------------ generated files

_WORD = st.text(alphabet="abcXYZ019 .-_#%/\"'é中", min_size=0, max_size=6)
_FIELD = st.one_of(_WORD, st.integers(-5, 2**70).map(str), st.floats(-5, 5).map(str))


@st.composite
def lines_of_edges(draw: st.DrawFn) -> tuple[str, str]:
    """A delimiter and lines, most of them edges, some malformed."""
    sign = draw(st.sampled_from([",", ";", "\t", "|", " "]))
    width = draw(st.integers(2, 4))
    names = draw(st.lists(st.sampled_from([f"n{k}" for k in range(12)]), min_size=6, max_size=12, unique=True))
    relations = draw(st.sampled_from([["0.5", "2", "1e3"], ["likes", "knows"], ["7"]]))
    rows = []
    for _ in range(draw(st.integers(4, 30))):
        if draw(st.integers(0, 9)) < 8:
            row = [draw(st.sampled_from(names)), draw(st.sampled_from(names)), draw(st.sampled_from(relations)), "11"][
                :width
            ]
        else:
            row = draw(st.lists(_FIELD, min_size=0, max_size=6))
        rows.append(sign.join(row))
    head = draw(st.sampled_from(["", "", sign.join(["source", "target", "weight", "time"][:width]), "# made\n"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return sign, end.join([*([head] if head else []), *rows])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=lines_of_edges())
def test_malformed_edges_are_counted_or_refused(made: tuple[str, str], tmp_path: Path) -> None:
    """Every line of data is used or refused with a reason, and every node's name stands in its file."""
    _, content = made
    (tmp_path / "e.txt").write_text(content, newline="")
    source = load_source("graph", tmp_path / "e.txt")
    assert isinstance(source, GraphSource)
    try:
        graph = source.graph()
    except SourceError as error:
        assert str(error) and len(str(error)) < 2000
        return
    reading = graph.reading
    comments = sum(int(found.split()[0]) for found in reading.found if found.endswith("comment lines"))
    header = any(found.startswith("header") and "comment" not in found for found in reading.found)
    lines = sum(bool(line.strip()) for line in content.splitlines())
    assert reading.lines_used is not None
    joined = content.count('"') and reading.lines_used  # a quoted field may hold the ends of lines
    if not joined:
        assert reading.lines_used + sum(reading.refused.values()) + comments + header == lines
    assert len(graph.sources) == reading.lines_used
    assert graph.labels is None
    for name in texts(graph):
        assert all(part in content for part in name.split())
    if graph.relation_names:
        assert all(name in content for name in graph.relation_names)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.lists(st.one_of(st.sampled_from(["law", "art", "", "nan"]), _WORD), min_size=6, max_size=30),
    sign=st.sampled_from([",", ";", "\t"]),
    name=st.sampled_from(["label", "class", "category", "y"]),
)
def test_labels_stand_in_the_file(classes: list[str], sign: str, name: str, tmp_path: Path) -> None:
    rows = [sign.join([f"n{k}", f"about {k}", word.replace(sign, "")]) for k, word in enumerate(classes)]
    (tmp_path / "nodes.csv").write_text("\n".join([sign.join(["id", "text", name]), *rows]))
    (tmp_path / "e.csv").write_text("".join(f"n{k},n{(k + 1) % len(classes)}\n" for k in range(len(classes))))
    source = load_source("graph", tmp_path / "e.csv", nodes="nodes.csv")
    assert isinstance(source, GraphSource)
    try:
        graph = source.graph()
    except SourceError:
        return
    by_text = dict(zip(texts(graph), labels(graph) if graph.labels is not None else [], strict=False))
    for k, word in enumerate(classes):
        given_word = word.replace(sign, "").strip()
        shown = by_text.get(f"about {k}", "")
        assert shown in ("", given_word) or '"' in "".join(classes)
    assert not Counter(graph.label_names)[""]
