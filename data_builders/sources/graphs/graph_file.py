"""Graphs in files of the user: saved tensors, tables of edges and nodes, triples, and formats of networkx."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, Reading, Texts
from ssl4rl_plugin.data.graphs import GraphSource, SharedOptions
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.columns import THIRDS, is_header
from ssl4rl_plugin.data_builders.sources.graphs.edges import EdgeOptions, Edges, edges_of
from ssl4rl_plugin.data_builders.sources.graphs.networkx_files import ENDINGS, node_link, read_networkx
from ssl4rl_plugin.data_builders.sources.graphs.nodes import (
    NodeOptions,
    Nodes,
    described,
    is_node_header,
    nodes_of,
    texts_of_ids,
)
from ssl4rl_plugin.data_builders.sources.graphs.tables import names_of, read_json, read_table, table_of
from ssl4rl_plugin.data_builders.sources.graphs.tensor_file import load_tensors
from ssl4rl_plugin.data_builders.sources.graphs.tensors import from_tensors
from ssl4rl_plugin.data_builders.sources.graphs.text import TextOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

TABLES = (".csv", ".tsv", ".txt", ".edges", ".edgelist", ".mtx", ".parquet", ".json", ".jsonl", ".ndjson")
"""Endings of tables. Text may also be gzipped: .csv.gz."""


class GraphFileSource(GraphSource):
    """A graph in a file. The ending of its name decides how it is read.

    Args:
        path: .pt (a dict or a saved `Data` with edge_index, raw_texts, optionally y, label_name and masks), a table of edges
            or triples (.csv, .tsv, .txt, .parquet, .json, .jsonl; Matrix Market .mtx), or .gml, .graphml, .gexf, Pajek .net
            and node-link .json. docs/graph_files.md says how each is read.
        nodes: table of nodes: column id, and text, title and abstract, or any attributes; optionally label and split. A
            JSON file may also map each id to a text, to attributes, or to features with weights.
        labels: JSON that maps each label to its nodes, or each node to its label. It replaces labels of the nodes.
        label_level: of labels like A/B/C in `labels`, this many parts are the class; shorter ones are left out.
        vocabulary: names of features: JSON (a list, or number to name), or one per line.
        directed: whether edges have a direction; null to go by the file, or if it says nothing, whether it has relations.
        delimiter: of the edges: tab, comma, semicolon, pipe, blank, or the character itself; null to find it.
        header: whether the first line of the edges names the columns; null to find out.
        third: what the third of three columns is: weight, relation, or target (triples); null to find out.
        columns: what each column of the edges is: a list of source, target, relation, weight, time or -.
        relation_column: column or attribute of the edges that holds relations.
        id_column: column of the table of nodes that holds the ids; null to find it.
        label_column: column or attribute of the nodes that holds classes; none for no classes; null to find it.
        nodes_delimiter: `delimiter` for the table of nodes.
        nodes_header: `header` for the table of nodes.
        quoting: whether quotes enclose fields; null for files with commas and semicolons only.
        comments: whether lines that begin with #, % or // are comments; null to find out.
        encoding: encoding of text files; null for UTF-8, or UTF-16 with a byte order mark.
        mask: which of the alternative masks of a .pt to use, from 0.
        unmasked: split of the nodes in no mask of a .pt: `train`, or `none` to leave them out of all splits.
        shared: options of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "graph"
    summary: ClassVar[str] = "a graph with texts: saved tensors, tables of edges and nodes, triples, networkx files"
    schema: ClassVar[str] = (
        ".pt with edge_index, raw_texts, optionally y, label_name, masks (no code in it is run); CSV, TSV, parquet "
        "or JSON edges with a node table (option nodes); triples; Matrix Market, GML, GraphML, GEXF, Pajek, node-link JSON"
    )
    licence: ClassVar[str] = "that of your files"
    where: ClassVar[str] = "your own files"
    endings: ClassVar[tuple[str, ...]] = (".pt", ".pth", *ENDINGS, ".mtx", ".edges", ".edgelist")

    def __init__(
        self,
        path: str | Path | None,
        nodes: str | None = None,
        labels: str | None = None,
        vocabulary: str | None = None,
        directed: bool | None = None,
        delimiter: str | None = None,
        header: bool | None = None,
        third: str | None = None,
        columns: Sequence[str] | str | None = None,
        relation_column: str | None = None,
        id_column: str | None = None,
        label_column: str | None = None,
        label_level: int | None = None,
        nodes_delimiter: str | None = None,
        nodes_header: bool | None = None,
        quoting: bool | None = None,
        comments: bool | None = None,
        encoding: str | None = None,
        mask: int = 0,
        unmasked: str = "train",
        **shared: Unpack[SharedOptions],
    ) -> None:
        super().__init__(
            path, nodes=nodes, labels=labels, vocabulary=vocabulary, directed=directed, delimiter=delimiter, header=header,
            third=third, columns=columns, relation_column=relation_column, id_column=id_column,
            label_column=label_column, label_level=label_level, nodes_delimiter=nodes_delimiter, nodes_header=nodes_header,
            quoting=quoting, comments=comments, encoding=encoding, mask=mask, unmasked=unmasked, **shared,
        )  # fmt: skip
        for name in ("directed", "header", "nodes_header", "quoting", "comments"):
            if not isinstance(self.options[name], bool | None):
                raise SourceError(f"source 'graph': option {name} is true, false or null, got {self.options[name]!r}")
        if third not in (None, *THIRDS):
            raise SourceError(f"source 'graph': option third is one of {', '.join(THIRDS)}, got {third!r}")
        if columns is not None and not (isinstance(columns, str | Sequence)):
            raise SourceError(f"source 'graph': option columns is a list like [source,target,weight], got {columns!r}")
        if not self.existing_path().is_file():
            raise SourceError(f"source 'graph': {self.path} is a folder; name a file in it")

    def files(self) -> list[Path]:
        others = (self.options[name] for name in ("nodes", "labels", "vocabulary"))
        return [self.existing_path(), *(self._beside(other) for other in others if other)]

    def _beside(self, name: str) -> Path:
        """A file that an option names. A relative name starts at the folder of the edges."""
        assert self.path is not None
        return self.path.parent / Path(name).expanduser()

    def graph(self) -> RawGraph:
        path = self.existing_path()
        ending = next((end.lower() for end in reversed(path.suffixes) if end.lower() != ".gz"), "")
        try:
            if ending in (".pt", ".pth"):
                return self._tensors(path)
            if ending in ENDINGS:
                return self._made(*read_networkx(path, self._edge_options(), self._node_options()))
            if ending not in TABLES:
                known = ", ".join((".pt", *TABLES, *ENDINGS))
                raise SourceError(f"source 'graph': {path.name}: unknown kind of file; known: {known}")
            if ending == ".json":
                content = read_json(path)
                if isinstance(content, dict) and "nodes" in content and ({"links", "edges"} & content.keys()):
                    return self._made(*node_link(content, str(path), self._edge_options(), self._node_options()))
            table = read_table(path, self._text_options(""), is_header, "lacks a column target")
            edges = edges_of(table, self._edge_options())
            return self._made(edges, self._nodes(edges))
        except SourceError:
            raise
        except ImportError as error:
            raise SourceError(
                f"source 'graph': {path.name} needs {error.name}: pip install 'ssl4rl-plugin[graph]'"
            ) from error
        except RecursionError as error:
            raise SourceError(f"source 'graph': {path} cannot be read: its content nests too deeply") from error
        except Exception as error:  # every reader has its own errors
            raise SourceError(f"source 'graph': {path} cannot be read: {type(error).__name__}: {error}") from error

    def _text_options(self, prefix: str) -> TextOptions:
        """The options of the edges, or with prefix `nodes_` of the table of nodes."""
        return TextOptions(
            self.options[f"{prefix}delimiter"], self.options["quoting"], self.options["comments"],
            self.options["encoding"], prefix,
        )  # fmt: skip

    def _edge_options(self) -> EdgeOptions:
        columns = self.options["columns"]
        if isinstance(columns, str):
            columns = columns.split(",")
        own = {name: self.options[name] for name in ("header", "third", "relation_column", "directed")}
        return EdgeOptions(columns=None if columns is None else tuple(str(role).strip() for role in columns), **own)

    def _node_options(self) -> NodeOptions:
        return NodeOptions(self.options["nodes_header"], self.options["label_column"], self.options["id_column"])

    def _tensors(self, path: Path) -> RawGraph:
        content = load_tensors(path)
        vocabulary = self.options["vocabulary"]
        return from_tensors(
            content,
            path.stem,
            names_of(self._beside(vocabulary)) if vocabulary else None,
            bool(self.options["directed"]),
            self.options["mask"],
            self.options["unmasked"],
        )

    def _nodes(self, edges: Edges) -> Nodes:
        """The nodes: from the option `nodes`, or those that edges name."""
        if self.options["nodes"] is None:
            ids = sorted(edges.names)
            return Nodes(ids, texts_of_ids(ids, f"source 'graph' at {self.path}"))
        path = self._beside(self.options["nodes"])
        names = names_of(self._beside(self.options["vocabulary"])) if self.options["vocabulary"] else None
        if path.suffix.lower() == ".json":
            content = read_json(path)
            if isinstance(content, dict):
                ids, values = [str(key) for key in content], list(content.values())
                if names is None and values and all(isinstance(value, dict) for value in values):
                    keys = {key: None for value in values for key in value}
                    rows = ({**keys, **value, "": None} for value in values)
                    return nodes_of(table_of(enumerate(rows, 1), str(path)), self._node_options(), ids=ids)
                return Nodes(ids, [described(value, names) for value in values])
        table = read_table(path, self._text_options("nodes_"), is_node_header, "lacks texts")
        return nodes_of(table, self._node_options(), frozenset(edges.names), vocabulary=names)

    def _made(self, edges: Edges, nodes: Nodes) -> RawGraph:
        """The graph, with the labels of the option `labels`."""
        if self.options["labels"]:
            content = read_json(self._beside(self.options["labels"]))
            labels_in(content, self.options["labels"], nodes, self.options["label_level"])
        path = self.existing_path()
        return raw_graph(path.name.partition(".")[0] or path.name, edges, nodes, self.options["directed"])


def labels_in(content: Any, name: str, nodes: Nodes, level: int | None = None) -> None:
    """Give nodes the labels of a JSON file. A node with two labels gets none, and is counted.

    Args:
        content: the content of the file.
        name: its name.
        nodes: the nodes.
        level: of labels like A/B/C, this many parts are the class; shorter labels are left out.

    Raises:
        SourceError: the file names no nodes, or more than a tenth of them have two labels.
    """
    if not isinstance(content, dict):
        raise SourceError(f"source 'graph': {name} must map labels to nodes, or nodes to labels")
    if any(isinstance(value, list) for value in content.values()):
        if not all(isinstance(value, list) for value in content.values()):
            raise SourceError(f"source 'graph': {name} maps some keys to lists of nodes, and others not")
        pairs = [(str(node), str(label)) for label, listed in content.items() for node in listed]
    else:
        pairs = [(str(node), "" if label is None else str(label)) for node, label in content.items()]
    if level is not None:
        parts = ((node, label.split("/")) for node, label in pairs)
        pairs = [(node, "/".join(label[:level])) for node, label in parts if len(label) >= level]
    found: dict[str, str] = {}
    doubtful: dict[str, str] = {}
    for node, label in pairs:
        if found.setdefault(node, label) != label:
            doubtful.setdefault(node, label)
    known = set(nodes.ids)
    if not known & found.keys():
        raise SourceError(
            f"source 'graph': {name} names no node of the graph; it has e.g. {next(iter(found), '')!r}, the graph "
            f"{nodes.ids[0]!r}"
        )
    several = known & doubtful.keys()
    if 10 * len(several) > len(known & found.keys()):
        node = min(several)
        raise SourceError(
            f"source 'graph': {name} gives {len(several)} of {len(known & found.keys())} nodes more than one label, e.g. "
            f"{node!r} {found[node]!r} and {doubtful[node]!r}: give each node one. Of labels like A/B the option "
            "label_level=1 takes A, label_level=2 takes A/B"
        )
    nodes.labels = ["" if node in doubtful else found.get(node, "") for node in nodes.ids]
    nodes.labels_from = name
    nodes.refused["nodes with two labels"] += len(several)
    nodes.refused["labels of unknown nodes"] += len(found.keys() - known)


def raw_graph(name: str, edges: Edges, nodes: Nodes, directed: bool | None = None) -> RawGraph:
    """The graph of edges and nodes. Edges that name an unknown node are left out and counted.

    Args:
        name: name of the graph.
        edges: the edges.
        nodes: the nodes.
        directed: whether edges have a direction; None to go by `edges`, or whether there are relations.

    Raises:
        SourceError: no edge names two of the nodes.
    """
    place = {node: number for number, node in enumerate(nodes.ids)}
    if len(place) < len(nodes.ids):
        twice = next(node for node, count in Counter(nodes.ids).items() if count > 1)
        raise SourceError(f"graph {name!r}: the table of nodes has {twice!r} more than once")
    number = np.array([place.get(node, -1) for node in edges.names], np.int64)
    sources, targets = number[edges.sources], number[edges.targets]
    good = (sources >= 0) & (targets >= 0)
    if len(good) and not good.any():
        raise SourceError(
            f"graph {name!r}: no edge names two of the {len(place)} nodes: edges name e.g. {edges.names[0]!r}, and nodes "
            f"are e.g. {nodes.ids[0]!r}"
        )
    unknown = int(np.count_nonzero(~good))
    names = tuple(sorted({label for label in nodes.labels or () if label}))
    numbers = {label: k for k, label in enumerate(names)}
    refused = edges.refused + Counter({f"nodes: {reason}": count for reason, count in nodes.refused.items()})
    stated = edges.directed if directed is None else directed
    return RawGraph(
        name,
        sources[good],
        targets[good],
        Texts.of(nodes.texts),
        directed=edges.relations is not None if stated is None else stated,
        relations=None if edges.relations is None else edges.relations[good],
        relation_names=tuple(edges.relation_names),
        labels=np.array([numbers.get(label, -1) for label in nodes.labels], np.int32)
        if names and nodes.labels
        else None,
        label_names=names,
        roles=nodes.roles,
        counted=Counter(unknown_ends=unknown) if unknown else Counter(),
        reading=Reading(
            found=tuple(dict.fromkeys([*edges.found, *(f"nodes: {what}" for what in nodes.found)])),
            lines_used=int(np.count_nonzero(good)) if edges.lines else None,
            refused=refused + Counter(unknown_ends=unknown),
            weights=edges.weights,
            splits=nodes.splits_from,
            labels=nodes.labels_from if names else "",
            missing_texts=nodes.missing,
            unused=(*edges.unused, *(f"nodes: {column}" for column in nodes.unused)),
        ),
    )
