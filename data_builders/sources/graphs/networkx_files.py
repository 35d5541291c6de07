"""Graphs in formats of networkx: GEXF, GraphML, GML, Pajek, and node-link JSON.

XML is looked through before networkx reads it: entities, nested graphs, nodes that occur twice and edges of both kinds are
refused, because networkx would expand, drop, merge or mix them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.edges import EdgeOptions, Edges, edges_of
from ssl4rl_plugin.data_builders.sources.graphs.nodes import NodeOptions, Nodes, nodes_of
from ssl4rl_plugin.data_builders.sources.graphs.tables import Table, cell, table_of
from ssl4rl_plugin.data_builders.sources.graphs.text import lines_of

ENDINGS = (".gml", ".graphml", ".gexf", ".net")
LARGEST = 2**29
"""Bytes of the largest file: networkx holds all of it in memory, at about ten times the size."""
DEEPEST = 200
"""Deepest nesting of elements and brackets."""
_DRAWING = frozenset(("viz", "x", "y", "z", "size", "r", "g", "b", "a", "color", "shape", "pid", "start", "end", "timeset",
                      "spells", "slices", "parents", "graphics"))  # fmt: skip
"""Attributes that say where and how a node is drawn, or when it is there."""


def read_networkx(path: Path, edges: EdgeOptions, nodes: NodeOptions) -> tuple[Edges, Nodes]:
    """The edges and nodes in a file. Raises SourceError, ImportError, and the errors of networkx."""
    import networkx

    if path.stat().st_size > LARGEST:
        raise SourceError(
            f"{path} has {path.stat().st_size:,} bytes, and such files are read up to {LARGEST:,}: save it as tables of "
            "edges and nodes (.csv, .parquet)"
        )
    ending = path.suffix.lower()
    if ending == ".gml":
        return from_networkx(_gml(path), str(path), edges, nodes)
    if ending == ".net":
        return from_networkx(_pajek(path), str(path), edges, nodes)
    scan = _scan(path)
    kinds = Counter({kind: count for kind, count in scan.kinds.items() if count})
    if len(kinds) > 1 and edges.directed is None:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        raise SourceError(
            f"{path} has edges of several kinds ({told}): set directed=true or directed=false to read all in the same way"
        )
    stripped = BytesIO(_without_kinds(path))
    graph = networkx.read_gexf(stripped) if ending == ".gexf" else networkx.read_graphml(stripped)
    directed = None if len(kinds) != 1 else next(iter(kinds)) == "directed"
    return from_networkx(graph, str(path), edges, nodes, set(scan.nodes), directed)


def from_networkx(
    graph: Any,
    where: str,
    edge_options: EdgeOptions | None = None,
    node_options: NodeOptions | None = None,
    declared: set[str] | None = None,
    directed: bool | None = None,
) -> tuple[Edges, Nodes]:
    """The edges and nodes of a networkx graph.

    Args:
        graph: the graph.
        where: the file, for messages.
        edge_options: what the user says about edges.
        node_options: what the user says about nodes.
        declared: ids of the nodes that the file lists; others only occur in edges.
        directed: whether edges have a direction; None to ask the graph.

    Raises:
        SourceError: nodes cannot be told apart, or nothing describes them.
    """
    ids = [str(node) for node in graph if declared is None or str(node) in declared]
    if len(set(ids)) < len(ids):
        twice = next(node for node, count in Counter(ids).items() if count > 1)
        raise SourceError(f"{where} has the node {twice!r} as a number and as a text: write its id in one way")
    attributes = [
        {str(key): value for key, value in graph.nodes[node].items() if str(key).lower() not in (*_DRAWING, "id")}
        for node in graph
        if declared is None or str(node) in declared
    ]
    if not ids:
        raise SourceError(f"{where} holds no nodes")
    nodes = nodes_of(_table(attributes, where), node_options or NodeOptions(), ids=ids)
    options = edge_options or EdgeOptions()
    relation = options.relation_column or "relation"
    place = {node: number for number, node in enumerate(ids)}
    names = list(ids)
    sources, targets, kinds = [], [], []
    unused: set[str] = set()
    refused: Counter[str] = Counter()
    typed = any(relation in data for *_, data in graph.edges(data=True))
    if options.relation_column and not typed:
        raise SourceError(f"{where}: no edge has the attribute {relation!r} (option relation_column)")
    weights = False
    for one, other, data in graph.edges(data=True):
        kind = cell(data.get(relation))
        if typed and not kind.strip():
            refused["an empty relation"] += 1
            continue
        for node in (str(one), str(other)):
            if node not in place:
                place[node] = len(names)
                names.append(node)
        sources.append(place[str(one)])
        targets.append(place[str(other)])
        kinds.append(kind)
        weight = next((key for key in ("weight", "value") if isinstance(data.get(key), int | float)), None)
        weights = weights or weight is not None
        unused.update(str(key) for key in data if key not in (relation, weight, "id", "key"))
    relation_names = list(dict.fromkeys(kinds)) if typed else []
    number = {kind: k for k, kind in enumerate(relation_names)}
    edges = Edges(
        names, np.array(sources, np.int64), np.array(targets, np.int64),
        np.array([number[kind] for kind in kinds], np.int32) if typed else None, relation_names,
        graph.is_directed() if directed is None else directed, weights, refused, [], sorted(unused), lines=False,
    )  # fmt: skip
    return edges, nodes


def node_link(content: Mapping[str, Any], where: str, edges: EdgeOptions, nodes: NodeOptions) -> tuple[Edges, Nodes]:
    """The edges and nodes of node-link JSON, as networkx and d3 write it. Raises SourceError."""
    listed, links = content["nodes"], content["links" if "links" in content else "edges"]
    if (
        not isinstance(listed, list)
        or not isinstance(links, list)
        or not all(isinstance(node, dict) for node in listed)
    ):
        raise SourceError(
            f"{where}: nodes must be a list of objects, and links a list of objects with source and target"
        )
    attributes = [{key: value for key, value in node.items() if key.lower() not in _DRAWING} for node in listed]
    table, found = _table(attributes, where), []
    if not any(key in node for node in listed for key in ("id", "name", "key")) or _by_place(listed, links):
        ids = [str(number) for number in range(len(listed))]
        made = nodes_of(table, nodes, ids=ids)
        found.append("links name nodes by their places in the list")
    else:
        made = nodes_of(table, nodes)
    if not links:
        raise SourceError(f"{where} has no edges: there is nothing to ask about")
    read = edges_of(table_of(enumerate(links, 1), where), edges)
    if isinstance(content.get("directed"), bool):
        read.directed = content["directed"]
    read.found += found
    return read, made


def _by_place(listed: list[dict[str, Any]], links: list[Any]) -> bool:
    """Whether links hold places in the list of nodes, as in old versions of d3, although nodes have names."""
    if any("id" in node for node in listed):
        return False
    ends = {link.get(key) for link in links if isinstance(link, dict) for key in ("source", "target")
            if isinstance(link.get(key), int | str)}  # fmt: skip
    names = {node.get("name", node.get("key")) for node in listed}
    return bool(ends) and all(type(end) is int and 0 <= end < len(listed) for end in ends) and not ends & names


def _table(attributes: list[dict[str, Any]], where: str) -> Table:
    """The table of attributes, with a row for each node, also for nodes without attributes."""
    keys = {key: None for node in attributes for key in node}
    return table_of(enumerate(({**keys, **node, "": None} for node in attributes), 1), where)


def _gml(path: Path) -> Any:
    """A GML file. Names of nodes may repeat, and parallel edges need no mark."""
    import networkx

    lines = list(lines_of(path))
    depth = 0
    for number, line in enumerate(lines, 1):
        outside = re.sub(r'"[^"]*"', "", line)
        depth += outside.count("[") - outside.count("]")
        if depth > DEEPEST:
            raise SourceError(f"{path}, line {number}: its brackets nest too deeply for a graph")
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    if not re.search(r"\bmultigraph\s+1\b", text):
        text = re.sub(r"\bgraph\s*\[", "graph [ multigraph 1 ", text, count=1)
    return networkx.parse_gml(text.split("\n"), label="id")


def _pajek(path: Path) -> Any:
    import networkx

    lines = list(lines_of(path))
    sections = [line.split()[0].lower() for line in lines if line.startswith("*") and line.split()]
    kept = [name for name in sections if name not in ("*network", "*vertices")]
    if len(kept) > 1 or sections.count("*vertices") != 1 or not {*kept} <= {"*arcs", "*edges"}:
        raise SourceError(
            f"{path} has the sections {', '.join(sections)}: of Pajek files, one list of vertices and one of arcs or edges "
            "are read"
        )
    count = next(line.split()[1] for line in lines if line.lower().startswith("*vertices") and len(line.split()) > 1)
    graph = networkx.parse_pajek(lines)
    if str(len(graph)) != count:
        raise SourceError(
            f"{path} declares {count} vertices, and its names and edges make {len(graph)}: give each vertex its own "
            "name"
        )
    return graph


@dataclass
class _Scan:
    """What XML holds, seen without expanding anything."""

    nodes: dict[str, int] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    """Number of edges of each kind: directed, undirected, mutual."""
    graphs: int = 0


def _scan(path: Path) -> _Scan:
    """Look through an XML file. Raises SourceError for entities, deep nesting, and what networkx would merge or drop."""
    from xml.parsers import expat

    found = _Scan()
    depth, default = 0, "undirected"

    def refuse(*_: Any) -> None:
        raise SourceError(
            f"{path} declares entities (in a DOCTYPE), which can expand without bound: remove the declaration"
        )

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, default
        depth += 1
        if depth > DEEPEST:
            raise SourceError(f"{path}, line {parser.CurrentLineNumber}: its elements nest too deeply for a graph")
        kind = name.rpartition(":")[2]
        if kind == "graph":
            found.graphs += 1
            default = attributes.get("defaultedgetype") or attributes.get("edgedefault") or default
            if found.graphs > 1:
                raise SourceError(f"{path} holds more than one graph, or graphs in nodes: save one graph in each file")
        elif kind == "node" and "id" in attributes:
            node = attributes["id"]
            if node in found.nodes:
                raise SourceError(
                    f"{path} has the node {node!r} twice, in lines {found.nodes[node]} and {parser.CurrentLineNumber}"
                )
            found.nodes[node] = parser.CurrentLineNumber
        elif kind == "edge" and "source" in attributes:
            own = attributes.get("type") or {"true": "directed", "false": "undirected"}.get(
                attributes.get("directed", "")
            )
            found.kinds[own or default] += 1

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = lambda name, system, public, inside: refuse() if inside else None
    try:
        with open(path, "rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise SourceError(f"{path} cannot be read as XML: {error}") from error
    return found


def _without_kinds(path: Path) -> bytes:
    """The XML without the kinds of single edges, which `_scan` has read, and at which networkx fails."""
    from xml.etree import ElementTree

    root = ElementTree.parse(path).getroot()
    for element in root.iter():
        if isinstance(element.tag, str) and element.tag.rpartition("}")[2] == "edge":
            for name in ("type", "directed"):
                element.attrib.pop(name, None)
    return bytes(ElementTree.tostring(root, encoding="utf-8"))
