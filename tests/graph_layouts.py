"""Graph files in the layouts that people have, for tests/test_graph_files.py (on the path of every test, see pyproject)."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx

from ssl4rl_plugin.core.graph import RawGraph
from ssl4rl_plugin.data.graphs import GraphSource
from ssl4rl_plugin.data.source import load_source

PEOPLE = {"1": "Ann", "2": "Bob", "3": "Cy", "4": "Di"}
NODES = "id,text\n" + "".join(f"{node},{name}\n" for node, name in PEOPLE.items())
LINKS = {("Ann", "Bob"), ("Bob", "Cy"), ("Cy", "Di")}


@dataclass
class Case:
    """A file, what the user says about it, and what has to come of it."""

    name: str
    content: str | bytes | Callable[[], bytes]
    edges: set[tuple[str, str]] = field(default_factory=lambda: LINKS)
    """Texts of the ends of each edge."""
    refused: str | None = None
    """Regular expression of the message; None if the file is read."""
    nodes: str | None = None
    """Content of nodes.csv."""
    options: dict[str, Any] = field(default_factory=dict)
    check: Callable[[RawGraph], bool] = lambda graph: True


def read(folder: Path, case: Case) -> RawGraph:
    content = case.content() if callable(case.content) else case.content
    (folder / case.name).write_bytes(content if isinstance(content, bytes) else content.encode())
    options = dict(case.options)
    if case.nodes is not None:
        (folder / "nodes.csv").write_text(case.nodes)
        options["nodes"] = "nodes.csv"
    source = load_source("graph", folder / case.name, **options)
    assert isinstance(source, GraphSource)
    return source.graph()


def texts(graph: RawGraph) -> list[str]:
    return [graph.texts.start(node, 10_000) for node in range(len(graph.texts))]


def edges(graph: RawGraph) -> set[tuple[str, str]]:
    names = texts(graph)
    return {(names[a], names[b]) for a, b in zip(graph.sources.tolist(), graph.targets.tolist(), strict=True)}


def facts(graph: RawGraph) -> set[tuple[str, str, str]]:
    names = texts(graph)
    assert graph.relations is not None
    return {
        (names[a], graph.relation_names[r], names[b])
        for a, b, r in zip(graph.sources.tolist(), graph.targets.tolist(), graph.relations.tolist(), strict=True)
    }


def labels(graph: RawGraph) -> list[str]:
    assert graph.labels is not None
    return [graph.label_names[k] if k >= 0 else "" for k in graph.labels.tolist()]


def written(write: Callable[[Any, Any], None], **attributes: Any) -> Callable[[], bytes]:
    """The four people, as networkx writes them, with names as labels."""

    def make() -> bytes:
        graph = nx.Graph()
        for node, name in PEOPLE.items():
            graph.add_node(node, label=name, **attributes)
        graph.add_edges_from([("1", "2"), ("2", "3"), ("3", "4")], weight=0.5)
        file = io.BytesIO()
        write(graph, file)
        return file.getvalue()

    return make


def parquet(rows: list[dict[str, Any]]) -> Callable[[], bytes]:
    def make() -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), file)
        return file.getvalue()

    return make


def xml(edge: str = "", kind: str = "undirected") -> str:
    """GEXF as Gephi 0.10 writes it."""
    people = "".join(f'<node id="{node}" label="{name}"/>' for node, name in PEOPLE.items())
    return (
        f'<gexf xmlns="http://gexf.net/1.3" version="1.3"><graph defaultedgetype="{kind}"><nodes>{people}</nodes><edges>'
        f'<edge source="1" target="2" {edge}/><edge source="2" target="3"/><edge source="3" target="4"/></edges>'
        "</graph></gexf>"
    )


def weighted(graph: RawGraph) -> bool:
    return graph.reading.weights and graph.relations is None and not graph.directed


def bomb(root: str) -> str:
    entities = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10 if k else "ha" * 10}">' for k in range(12))
    return f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><{root}>&e11;</{root}>'


GEPHI = "Source,Target,Type,Id,Label,timeset,Weight\n"
FACTS = "ada\tknows\tbob\nbob\tknows\tcy\ncy\tlikes\tada\n"
TRIPLES = {("ada", "knows", "bob"), ("bob", "knows", "cy"), ("cy", "likes", "ada")}
NAMED = "1,Ann,x\n2,Bob,x\n3,Cy,y\n4,Di,y\n"
PLAIN = "1,2\n2,3\n3,4\n"
WORDS = {("a", "b"), ("b", "c"), ("c", "a")}

CASES: dict[str, list[Case]] = {
    "encoding, line ends": [
        Case("e.csv", "\ufeffu,v\n" + PLAIN, nodes=NODES),
        Case("e.csv", ("u,v\n" + PLAIN).replace("\n", "\r\n"), nodes=NODES),
        Case("e.csv", ("u,v\n" + PLAIN).replace("\n", "\r"), nodes=NODES),
        Case("e.csv", ("\ufeffu,v\n" + PLAIN).encode("utf-16-le"), nodes=NODES),
        Case("e.csv.gz", gzip.compress(PLAIN.encode()), nodes=NODES),
        Case("e.csv", "é,b\nb,c\nc,é\n".encode("latin-1"), refused="encoding=latin-1"),
        Case("e.csv", "é,b\nb,c\nc,é\n".encode("latin-1"), {("é", "b"), ("b", "c"), ("c", "é")},
             options={"encoding": "latin-1"}),
        Case("e.csv", PLAIN.encode("utf-16-le"), refused="encoding=utf-16-le"),
        Case("e.csv", b"PK\x03\x04 and more", refused="Excel"),
    ],
    "delimiter": [
        *(Case("e.txt", PLAIN.replace(",", sign), nodes=NODES) for sign in ("\t", ",", ";", "|", " ", "   ", ", ", " ; ")),
        Case("e.csv", "a,b;c\nb,c;d\n", refused=r"two ways, delimiter=comma \(a \| b;c\) or delimiter=semicolon"),
        Case("e.csv", "a,b;c\nc;a,b\n", {("a,b", "c"), ("c", "a,b")}, options={"delimiter": "semicolon"}),
        Case("e.csv", "a:b\nb:c\nc:a\n", WORDS, options={"delimiter": ":"}),
        Case("e.csv", "a\nb\n", refused="one field in each line"),
    ],
    "header": [
        *(Case("e.txt", f"{head}\n" + PLAIN.replace(",", sign), nodes=NODES) for head, sign in (
            ("u,v", ","), ("source_id,target_id", ","), ("Source;Target", ";"), ("# From To", " "),
            ("from_node to_node", " "), ("node1 node2", " "),
            ("src\tdst", "\t"), ("FromNodeId\tToNodeId", "\t"), ("eins;zwei", ";"), ("i|j", "|"),
            ('"source","target"', ","), ("citing_paper,cited_paper", ","),
        )),
        Case("e.csv", ",source,target\n0,1,2\n1,2,3\n2,3,4\n", nodes=NODES),
        Case("e.csv", "target,source\n2,1\n3,2\n4,3\n", nodes=NODES),
        Case("e.csv", "sep=;\nSource;Target\n1;2\n2;3\n3;4\n", nodes=NODES),
        Case("e.csv", "u,v\n1,2\n2,3\nu,v\n3,4\n", nodes=NODES,
             check=lambda graph: graph.reading.refused == {"the header again": 1}),
        Case("e.csv", "u,v\n", refused="has no edges", nodes=NODES),
        Case("e.csv", "user_id,item_id,rating\n1,2,5\n2,3,4\n3,4,4\n", refused="two kinds of nodes", nodes=NODES),
        Case("e.csv", "user_id,item_id,rating\n1,2,5\n2,3,4\n3,4,4\n", nodes=NODES, options={"columns": "source,target"}),
        Case("e.csv", PLAIN, refused="option header is true, false or null", options={"header": "maybe"}),
        Case("e.csv", "id,from,to\n7,1,2\n8,2,3\n9,3,4\n", nodes=NODES, check=lambda graph: not graph.reading.weights),
        Case("e.csv", "u,v\nv,w\nu,v\nw,u\n", {("u", "v"), ("v", "w"), ("w", "u")}),
        Case("e.csv", ":START_ID,:END_ID,:TYPE\n1,2,knows\n2,3,knows\n3,4,knows\n", nodes=NODES,
             check=lambda graph: graph.relation_names == ("knows",)),
        Case("e.csv", "kunde,produkt\na,b\nb,c\nc,a\n", refused=r"two ways.*\(kunde, produkt\).*header=true"),
        Case("e.csv", "kunde,produkt\na,b\nb,c\nc,a\n", WORDS, options={"header": True}),
        Case("e.csv", "kunde,produkt\na,b\nb,c\nc,a\n", WORDS | {("kunde", "produkt")}, options={"header": False}),
        Case("e.csv", "node1,node2\nnode3,node4\n", {("node1", "node2"), ("node3", "node4")}),
        Case("e.csv", "u,v\nv,w\nw,u\n", {("u", "v"), ("v", "w"), ("w", "u")}),
        Case("e.txt", "4 3\n1 2\n2 3\n3 4\n", refused="numbers of nodes and edges.*header=true", nodes=NODES),
        Case("e.csv", "source,target,from,to\n1,2,3,4\n2,3,4,1\n", refused="can all be ends of edges", nodes=NODES),
    ],
    "comments": [
        Case("e.txt", "# made by hand\n% and more\n// and this\n\n1 2\n# middle\n2 3\n3 4\n", nodes=NODES,
             check=lambda graph: "4 comment lines" in graph.reading.found),
        Case("e.csv", "#cat,pets\npets,#dog\n#dog,#cat\n", refused="line 1.*comments=true or comments=false"),
        Case("e.csv", "#cat,pets\npets,#dog\n#dog,#cat\n", {("#cat", "pets"), ("pets", "#dog"), ("#dog", "#cat")},
             options={"comments": False}),
    ],
    "weights": [
        Case("e.csv", "a,b,0.71\nb,c,2\nc,a,1e-3\n", WORDS, check=weighted),
        Case("e.csv", "a;b;0,71\nb;c;2\nc;a;0,5\n", WORDS, check=weighted),
        Case("e.txt", "a b 0,71\nb c 2,0\nc a 0,5\n", WORDS, check=weighted),
        Case("e.csv", "a,b,50%\nb,c,20%\nc,a,5%\n", refused="quantities with units"),
        Case("e.csv", PLAIN, refused="option third is one of", options={"third": "colour"}),
        Case("e.csv", "1,2,\n2,3,\n3,4,\n", nodes=NODES, check=lambda graph: not graph.reading.weights),
        Case("e.csv", "from,to,weight\n1,2,3\n2,3,1\n3,4,\n", nodes=NODES, check=weighted),
        Case("e.csv", "1,2,7\n2,3,8\n3,4,7\n", nodes=NODES, options={"third": "relation"},
             check=lambda graph: set(graph.relation_names) == {"7", "8"} and graph.directed),
    ],
    "networkx edge lists": [
        Case("e.txt", "1 2 {}\n2 3 {}\n3 4 {}\n", nodes=NODES, check=lambda graph: graph.relations is None),
        Case("e.txt", "1,2,{'weight': 0.5, 'kind': 'a, b'}\n2,3,{'weight': 1}\n3,4,{'weight': 2}\n", nodes=NODES,
             check=lambda graph: weighted(graph) and graph.reading.unused == ("edge data kind",)),
    ],
    "triples": [
        Case("e.tsv", FACTS, {("ada", "bob"), ("bob", "cy"), ("cy", "ada")},
             check=lambda graph: facts(graph) == TRIPLES and graph.directed),
        Case("e.csv", "ada,bob,knows\nbob,cy,knows\ncy,ada,likes\n", {("ada", "bob"), ("bob", "cy"), ("cy", "ada")},
             check=lambda graph: facts(graph) == TRIPLES),
        Case("e.tsv", "head\trelation\ttail\n" + FACTS, {("ada", "bob"), ("bob", "cy"), ("cy", "ada")},
             check=lambda graph: facts(graph) == TRIPLES),
        Case("e.tsv", "h\tr\tt\n1\t9\t2\n2\t9\t3\n3\t8\t4\n", nodes=NODES,
             check=lambda graph: set(graph.relation_names) == {"8", "9"}),
        Case("e.csv", "a,b,c\nd,e,f\ng,h,i\n", refused="two ways"),
        Case("e.tsv", "".join(f"n{k}\tsays {k}\tn{k + 1}\n" for k in range(30)), refused="hardly relations.*third=target"),
        Case("e.tsv", "".join(f"n{k}\tsays {k}\tn{k + 1}\n" for k in range(30)), {(f"n{k}", f"n{k + 1}") for k in range(30)},
             options={"third": "target"}, check=lambda graph: len(graph.relation_names) == 30),
        Case("e.csv", "a,r,c\nc,s,f\nf,r,a\n", {("a", "c"), ("c", "f"), ("f", "a")}),
        Case("e.csv", "a,r,b\nr,b,a\nb,a,r\n", refused=r"two ways.*third=target \(triples\), third=relation"),
        Case("e.txt", "ann -> bob\nbob -> cy\ncy -> ann\n", refused=r"two ways.*\(->\).*columns=\[source,-,target\]"),
        Case("e.txt", "ann -> bob\nbob -> cy\ncy -> ann\n", {("ann", "bob"), ("bob", "cy"), ("cy", "ann")},
             options={"columns": ["source", "-", "target"]}),
    ],
    "times": [
        Case("e.txt", "a b 3 1082008561\nb c 1 1082008562\nc a 1 1082008563\n", WORDS, check=weighted),
        Case("e.txt", "a b 1082008561\nb c 1082008562\nc a 1082008563\n", WORDS, check=lambda g: not g.reading.weights),
        Case("e.csv", "a,b,2024-01-02\nb,c,2024-01-03\nc,a,2024-02-03\n", WORDS, check=lambda g: g.relations is None),
    ],
    "many columns": [
        Case("e.csv", "1,x,2,y,z\n2,x,3,y,z\n3,x,4,y,z\n", refused="option columns", nodes=NODES),
        Case("e.csv", "1,x,2,y,z\n2,x,3,y,z\n3,x,4,y,z\n", nodes=NODES, options={"columns": "source,-,target"}),
        Case("e.csv", PLAIN, refused="source and target once each", nodes=NODES, options={"columns": ["source"]}),
    ],
    "SNAP": [
        Case("e.txt", "# Directed graph (each unordered pair of nodes is saved once): x.txt\n# Nodes: 4 Edges: 3\n"
             "# FromNodeId\tToNodeId\n" + PLAIN.replace(",", "\t"), nodes=NODES, check=lambda graph: graph.directed),
        Case("e.txt", "# Undirected graph: x.txt\n# Nodes: 4 Edges: 9\n" + PLAIN.replace(",", "\t"), nodes=NODES,
             check=lambda graph: not graph.directed and "its comment says 9 edges" in graph.reading.found),
    ],
    "KONECT": [
        Case("e.txt", "% asym unweighted\n% 3 4 4\n" + PLAIN.replace(",", " "), nodes=NODES, check=lambda g: g.directed),
        Case("e.txt", "% bip unweighted\n1 1\n1 2\n2 2\n", refused="bipartite graph of KONECT", nodes=NODES),
    ],
    "Matrix Market": [
        Case("e.mtx", "%%MatrixMarket matrix coordinate pattern symmetric\n4 4 3\n1 2\n2 3\n3 4\n", nodes=NODES,
             check=lambda graph: not graph.directed),
        Case("e.mtx", "%%MatrixMarket matrix coordinate real general\n% more\n4 4 3\n1 2 .5\n2 3 1\n3 4 1\n", nodes=NODES,
             check=lambda graph: graph.directed and graph.reading.weights),
        Case("e.mtx", "%%MatrixMarket matrix coordinate pattern general\n2 4 2\n1 2\n2 3\n", refused="2 by 4",
             nodes=NODES),
        Case("e.mtx", "%%MatrixMarket matrix coordinate pattern general\n4 4 9\n1 2\n2 3\n", refused="not complete",
             nodes=NODES),
    ],
    "METIS, adjacency lists and matrices": [
        Case("e.txt", "4 4\n2 4\n1 3\n2 4\n1 3\n", refused="METIS", nodes=NODES),
        Case("e.txt", "a b c d\nb c\nc d e f g\nd e a\n", refused="adjacency lists are not read"),
        Case("e.csv", ";A;B\nA;0;1\nB;1;0\n", refused="adjacency matrix"),
        Case("e.txt", "#/home/x.py\n# GMT Thu Nov 26\n#\na b c\nb c a\nc a b\n", refused="adjacency list of networkx"),
    ],
    "quotes": [
        Case("e.tsv", '"ada\tknows\tbob\nbob\tknows\tcy\ncy\tlikes\t"ada\n',
             {('"ada', "bob"), ("bob", "cy"), ("cy", '"ada')}, check=lambda graph: graph.reading.lines_used == 3),
        Case("e.csv", '"York, New","Los\nAngeles"\n"Los\nAngeles",Paris\nParis, "York, New"\n',
             {("York, New", "Los\nAngeles"), ("Los\nAngeles", "Paris"), ("Paris", "York, New")}),
        Case("e.csv", 'a,b\n"b,c\nc,a\nb,c\n', WORDS, check=lambda graph: graph.reading.refused == {"stray quotes": 1}),
        Case("e.txt", '"a" "b"\n"b" "c"\n"c" "a"\n', refused="quoting=true"),
        Case("e.csv", "'a','b'\n'b','c'\n'c','a'\n", refused="single quotes"),
        Case("e.txt", '"a" "b"\n"b" "c"\n"c" "a"\n', WORDS, options={"quoting": True}),
    ],
    "node ids": [
        Case("e.csv", "001,1\n1,2\n2,001\n", {("x", "y"), ("y", "z"), ("z", "x")}, nodes="id,text\n001,x\n1,y\n2,z\n"),
        Case("e.csv", "1099511627776,2\n2,-7\n", {("x", "y"), ("y", "z")}, nodes="id,text\n1099511627776,x\n2,y\n-7,z\n"),
        Case("e.csv", "1.0,2.0\n2.0,3.0\n3.0,4.0\n", nodes=NODES),
        Case("e.csv", "1.0,2\n2.0,1\n1,3\n", refused="'2.0' and '2'", nodes=NODES),
        Case("e.csv", "1,2\n2,3\n", refused="no edge names two of the 2 nodes.*e.g. 'p1'", nodes="id,text\np1,x\np2,y\n"),
        Case("e.csv", "1,2\n2,3\n", refused="numbers without texts"),
    ],
    "bad lines": [
        Case("e.csv", "1,2\n2\n2,3\n,3\n3,4,5,6\n3,4\n1,\n1,2\n2,3\n", nodes=NODES,
             check=lambda g: g.reading.refused == {"too few fields": 1, "too many fields": 1, "an empty end": 2}
             and "first an empty end in line 4" in g.reading.found),
        Case("e.csv", "1,2\n2,3\n3,4\n4,9\n", nodes=NODES, check=lambda g: g.counted == {"unknown_ends": 1}),
        Case("e.csv", "1,2\n,3\n2,\n,4\n3,4\n", refused=r"3 of 5 lines.*an empty end \(first: line 2\)", nodes=NODES),
    ],
    "table of nodes": [
        Case("e.csv", PLAIN, nodes="Id;Title;Abstract\n1;Ann;\n2;Bob;\n3;Cy;\n4;Di;\n"),
        Case("e.csv", PLAIN, nodes="1\tAnn\n2\tBob\n3\tCy\n4\tDi\n"),
        Case("e.csv", PLAIN, nodes='id,text\n1,Ann\n2,Bob\n3,Cy\n4,"Di"\n5,nan\n6,\n',
             check=lambda g: g.reading.missing_texts == 2),
        Case("e.csv", PLAIN, refused="'1' more than once, in lines 2 and 3", nodes="id,text\n1,Ann\n1,Bob\n"),
        Case("e.csv", PLAIN, refused="option id_column", nodes="id,new_id,text\n71,1,Ann\n72,2,Bob\n73,3,Cy\n74,4,Di\n"),
        Case("e.csv", PLAIN, nodes="id,new_id,text\n71,1,Ann\n72,2,Bob\n73,3,Cy\n74,4,Di\n",
             options={"id_column": "new_id"}),
        Case("e.csv", PLAIN, refused="no header", nodes="1,Ann,x\n2,Bob,y\n"),
        Case("e.csv", "a,b\nb,c\nc,a\n", refused="nodes_header=true", nodes="kunde,produkt\na,x\nb,y\n"),
    ],
    "names and classes": [
        Case("e.csv", PLAIN, nodes="id,text,label\n" + NAMED, check=lambda g: labels(g) == ["x", "x", "y", "y"]),
        Case("e.csv", PLAIN, nodes="id,label\n1,Ann\n2,Bob\n3,Cy\n4,Di\n", check=lambda graph: graph.labels is None),
        Case("e.csv", PLAIN, nodes="id,text,team\n" + NAMED, check=lambda graph: graph.labels is None),
        Case("e.csv", PLAIN, nodes="id,text,team\n" + NAMED, options={"label_column": "team"},
             check=lambda g: labels(g) == ["x", "x", "y", "y"] and g.reading.labels == "column 'team'"),
        Case("e.csv", PLAIN, nodes="id,text,label\n" + NAMED, options={"label_column": "none"},
             check=lambda graph: graph.labels is None),
        Case("e.csv", PLAIN, refused="no column 'kind'", nodes=NODES, options={"label_column": "kind"}),
        Case("e.csv", PLAIN, refused="can both be the classes",
             nodes="id,text,class,category\n1,A,x,p\n2,B,x,q\n3,C,y,p\n4,D,y,q\n"),
        Case("e.csv", PLAIN, refused="label_column=label", nodes="id,text,label\n1,Ann,a\n2,Bob,b\n3,Cy,c\n4,Di,d\n"
             + "".join(f"{k},t,{k % 15}\n" for k in range(5, 30))),
    ],
    "splits": [
        Case("e.csv", PLAIN, nodes="id,text,split\n1,Ann,train\n2,Bob,VAL\n3,Cy,test\n4,Di,dev\n",
             check=lambda graph: graph.roles is not None and graph.roles.tolist() == [0, 1, 2, 1]),
        Case("e.csv", PLAIN, nodes="id,text,train_mask,test_mask\n1,Ann,True,False\n2,Bob,1,0\n3,Cy,false,true\n4,Di,0,1\n",
             check=lambda graph: graph.roles is not None and graph.roles.tolist() == [0, 0, 2, 2]),
        Case("e.csv", PLAIN, refused="has the split 'holdout'",
             nodes="id,text,split\n1,A,train\n2,B,holdout\n3,C,test\n4,D,val\n"),
        Case("e.csv", PLAIN, refused="in more than one",
             nodes="id,text,train_mask,test_mask\n1,A,1,1\n2,B,1,0\n3,C,1,0\n4,D,1,0\n"),
    ],
    "Gephi's spreadsheets": [
        Case("e.csv", GEPHI + "1,2,Undirected,0,,,1.0\n2,3,Undirected,1,,,1.0\n3,4,Undirected,2,,,2.0\n",
             nodes="Id,Label,timeset,modularity_class\n1,Ann,,0\n2,Bob,,0\n3,Cy,,1\n4,Di,,1\n",
             check=lambda graph: weighted(graph) and graph.labels is None),
        Case("e.csv", GEPHI + "1,2,Directed,0,,,1.0\n2,3,Directed,1,,,1.0\n3,4,Directed,2,,,2.0\n", nodes=NODES,
             check=lambda graph: graph.directed and graph.relations is None),
        Case("e.csv", GEPHI + "1,2,Directed,0,,,1\n2,3,Undirected,1,,,1\n", refused="1 directed, 1 undirected", nodes=NODES),
        Case("e.csv", GEPHI + "1,2,Directed,0,,,1\n2,3,Undirected,1,,,1\n3,4,Directed,1,,,1\n", nodes=NODES,
             options={"directed": False}, check=weighted),
    ],
    "GEXF": [
        Case("g.gexf", written(nx.write_gexf), check=lambda graph: graph.labels is None and weighted(graph)),
        Case("g.gexf", written(nx.write_gexf, team="x"), options={"label_column": "team"},
             check=lambda g: labels(g) == ["x"] * 4),
        Case("g.gexf", xml(), check=lambda graph: not graph.directed),
        Case("g.gexf", xml('type="directed"'), refused="1 directed, 2 undirected"),
        Case("g.gexf", xml('type="directed"'), options={"directed": True}, check=lambda graph: graph.directed),
        Case("g.gexf", bomb("gexf"), refused="declares entities"),
    ],
    "GraphML": [
        Case("g.graphml", written(nx.write_graphml), check=lambda graph: graph.labels is None and weighted(graph)),
        Case("g.graphml", bomb("graphml"), refused="declares entities"),
        Case("g.graphml", "<graphml>" + "<a>" * 20_000 + "</a>" * 20_000 + "</graphml>", refused="nest too deeply"),
        Case("g.graphml", '<graphml><graph><node id="a"/><node id="a"/></graph></graphml>', refused="'a' twice"),
        Case("g.graphml", '<graphml><graph><node id="a"><graph/></node></graph></graphml>', refused="more than one graph"),
    ],
    "GML": [
        Case("g.gml", "graph [\n" + "".join(f'node [ id {node} label "{name}" ]\n' for node, name in PEOPLE.items())
             + "edge [ source 1 target 2 value 3 ]\nedge [ source 1 target 2 ]\nedge [ source 2 target 3 ]\n"
             "edge [ source 3 target 4 ]\n]", check=lambda graph: graph.labels is None and len(graph.sources) == 4),
        Case("g.gml", "graph [ node [ id 0 ] " + "a [ " * 20_000, refused="nest too deeply"),
    ],
    "Pajek": [
        Case("g.net", '*Vertices 4\n1 "Ann"\n2 "Bob"\n3 "Cy"\n4 "Di"\n*Edges\n1 2\n2 3\n3 4\n'),
        Case("g.net", '*Vertices 3\n1 "Ann"\n2 "Ann"\n3 "Cy"\n*Edges\n1 2\n2 3\n', refused="give each vertex its own name"),
        Case("g.net", '*Vertices 3\n1 "A"\n2 "B"\n3 "C"\n*Arcs\n1 2\n*Edges\n2 3\n', refused=r"\*arcs, \*edges"),
    ],
    "node-link JSON": [
        Case("g.json", json.dumps({"nodes": [{"id": int(node), "label": name} for node, name in PEOPLE.items()],
                                   "links": [{"source": k, "target": k + 1, "value": 2} for k in (1, 2, 3)]}),
             check=weighted),
        Case("g.json", json.dumps({"nodes": [{"name": name, "group": 1} for name in PEOPLE.values()],
                                   "links": [{"source": k, "target": k + 1} for k in (0, 1, 2)]})),
        Case("g.json", '{"nodes": [{"id": 1, "label": "a"}, {"id": "1", "label": "b"}], "links": [{"source": 1}]}',
             refused="'1' more than once"),
    ],
    "JSON, JSON lines": [
        Case("e.json", json.dumps([[1, 2], [2, 3], [3, 4]]), nodes=NODES),
        Case("e.json", json.dumps([["source", "target"], [1, 2], [2, 3], [3, 4]]), nodes=NODES),
        Case("e.json", json.dumps([[2**70, 2], [2, 3]]), {("x", "Bob"), ("Bob", "Cy")}, nodes=f"{NODES}{2**70},x\n"),
        Case("e.jsonl", '{"source": 1, "target": 2}\nbroken\n{"source": 2, "target": 3}\n{"source": 3, "target": 4}\n',
             nodes=NODES, check=lambda graph: graph.reading.refused == {"no JSON": 1}),
        Case("e.json", '[{"source": {"id": 1}, "target": 2}, {"source": 1, "target": 2}, {"source": 2, "target": 3}]',
             {("Ann", "Bob"), ("Bob", "Cy")}, nodes=NODES,
             check=lambda graph: graph.reading.refused == {"an end that is no text or number": 1}),
        Case("e.json", "[" * 20_000 + "]" * 20_000, refused="brackets nest too deeply"),
        Case("e.json", '[{"source": 1, "source": 2, "target": 3}]', refused="the key 'source' more than once"),
    ],
    "parquet": [
        Case("e.parquet", parquet([{"src": k, "dst": k + 1} for k in (1, 2, 3)]), nodes=NODES),
        Case("e.parquet", parquet([{"src": 1.0, "dst": 2}, {"src": 2.0, "dst": 3}, {"src": 3.0, "dst": 4},
                                   {"src": None, "dst": 4}]), nodes=NODES,
             check=lambda graph: graph.reading.refused == {"an empty end": 1}),
        Case("e.parquet", b"PAR1 no more", refused="cannot be read as parquet"),
    ],
}  # fmt: skip
"""Row of the table in docs/graph_files.md -> files of that kind."""
