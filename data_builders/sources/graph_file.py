"""Graphs in files of the user: saved tensors, tables of edges and nodes, triples, and formats of networkx."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, Texts
from ssl4rl_plugin.data.graphs import GraphSource, SharedOptions
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graph_tensors import from_tensors
from ssl4rl_plugin.data_builders.sources.tensor_file import load_tensors

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Unpack

SOURCE = ("source", "src", "from", "head", "subject", "start", "node1", "citing")
TARGET = ("target", "dst", "to", "tail", "object", "end", "node2", "cited")
RELATION = ("relation", "rel", "predicate", "edge_type", "type")
ID = ("id", "node_id", "node", "name", "key")
TEXT = ("text", "raw_text", "raw_texts", "title", "abstract", "abs", "description", "content")
LABEL = ("label", "y", "class", "category", "label_name")
SPLIT = ("split", "fold", "set")
NETWORKX = {".gml": "read_gml", ".graphml": "read_graphml", ".gexf": "read_gexf", ".net": "read_pajek"}
TABLES = (".csv", ".tsv", ".txt", ".parquet", ".json", ".jsonl")
_ROLES = {"train": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2}


class GraphFileSource(GraphSource):
    """A graph in a file. The ending of its name decides how it is read.

    Args:
        path: .pt (a dict or a saved `Data` with edge_index, raw_texts, optionally y, label_name and masks), a table of edges
            (.csv, .tsv, .parquet, .json, .jsonl: columns source and target, optionally relation), triples (three columns
            without a header), or .gml, .graphml, .gexf and node-link .json.
        nodes: table of nodes: column id, and text, title and abstract, or any attributes; optionally label and split. A
            JSON file may also map each id to a text, to attributes, or to features with weights.
        labels: JSON that maps each label to its nodes, or each node to its label, if the table of nodes has no labels.
        vocabulary: names of features: JSON (a list, or number to name), or one per line.
        directed: whether edges have a direction; null means that triples and typed edges do and others do not.
        mask: which of the alternative masks of a .pt to use, from 0.
        unmasked: split of the nodes in no mask of a .pt: `train`, or `none` to leave them out of all splits.
        shared: options of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "graph"
    summary: ClassVar[str] = "a graph with texts: saved tensors, tables of edges and nodes, triples, networkx files"
    schema: ClassVar[str] = (
        ".pt with edge_index, raw_texts, optionally y, label_name, masks (no code in it is run); CSV, TSV, parquet "
        "or JSON edges with a node table (option nodes); triples; GML, GraphML, GEXF, node-link JSON"
    )
    licence: ClassVar[str] = "that of your files"
    where: ClassVar[str] = "your own files"

    def __init__(
        self,
        path: str | Path | None,
        nodes: str | None = None,
        labels: str | None = None,
        vocabulary: str | None = None,
        directed: bool | None = None,
        mask: int = 0,
        unmasked: str = "train",
        **shared: Unpack[SharedOptions],
    ) -> None:
        super().__init__(
            path, nodes=nodes, labels=labels, vocabulary=vocabulary, directed=directed, mask=mask, unmasked=unmasked,
            **shared,
        )  # fmt: skip
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
        ending = path.suffix.lower()
        try:
            if ending in (".pt", ".pth"):
                return self._tensors(path)
            if ending in NETWORKX:
                import networkx

                return from_networkx(getattr(networkx, NETWORKX[ending])(path), path.stem, self.options["directed"])
            if ending not in TABLES:
                known = ", ".join((".pt", *TABLES, *NETWORKX))
                raise SourceError(f"source 'graph': {path.name}: unknown kind of file; known: {known}")
            if ending == ".json":
                content = read_json(path)
                if isinstance(content, dict) and "nodes" in content and ({"links", "edges"} & content.keys()):
                    import networkx

                    key = "links" if "links" in content else "edges"
                    return from_networkx(
                        networkx.node_link_graph(content, edges=key), path.stem, self.options["directed"]
                    )
            return self._table(path)
        except SourceError:
            raise
        except ImportError as error:
            raise SourceError(
                f"source 'graph': {path.name} needs {error.name}: pip install 'ssl4rl-plugin[graph]'"
            ) from error
        except Exception as error:  # every reader has its own errors
            raise SourceError(f"source 'graph': {path} cannot be read: {type(error).__name__}: {error}") from error

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

    def _table(self, path: Path) -> RawGraph:
        edges = read_table(path)
        ends = _column(edges, SOURCE, 0), _column(edges, TARGET, 2 if edges.column_names[:2] == ["0", "1"] and
                                                  edges.num_columns == 3 else 1)  # fmt: skip
        kind = _column(edges, RELATION, 1 if edges.num_columns == 3 and edges.column_names[:2] == ["0", "1"] else None)
        ids, texts, labels, roles = self._nodes(ends)
        return tabled(path.stem, ends, kind, ids, texts, labels, roles, self.options["directed"])

    def _nodes(self, ends: tuple[Any, Any]) -> tuple[list[str], list[str], list[str] | None, list[str] | None]:
        """Id, text, label and split of every node."""
        labelled = self._labels()
        if self.options["nodes"] is None:
            import pyarrow.compute as pc

            ids = sorted({*pc.unique(ends[0]).to_pylist(), *pc.unique(ends[1]).to_pylist()} - {None})
            if all(name.lstrip("-").isdigit() for name in ids):
                raise SourceError(
                    f"source 'graph': the nodes of {self.path} are numbers without texts: give a table of nodes with "
                    "`+ssl4rl.source.options.nodes=FILE` (columns id and text)"
                )
            return (
                ids,
                [name.replace("_", " ") for name in ids],
                [labelled.get(i, "") for i in ids] if labelled else None,
                None,
            )
        path = self._beside(self.options["nodes"])
        names = names_of(self._beside(self.options["vocabulary"])) if self.options["vocabulary"] else None
        content = read_json(path) if path.suffix.lower() == ".json" else None
        if isinstance(content, dict):
            ids = [str(key) for key in content]
            texts = [described(value, names) for value in content.values()]
            return ids, texts, [labelled.get(i, "") for i in ids] if labelled else None, None
        table = read_table(path)
        ids = _strings(table, ID, 0)
        label = next((name for name in table.column_names if name.lower() in LABEL), None)
        split = next((name for name in table.column_names if name.lower() in SPLIT), None)
        skipped = {_named(table, ID, 0), label, split}
        rows = table.drop_columns([name for name in table.column_names if name in skipped]).to_pylist()
        found = None if label is None else ["" if v is None else str(v) for v in table[label].to_pylist()]
        if found is None and labelled:
            found = [labelled.get(i, "") for i in ids]
        return ids, [described(row, names) for row in rows], found, table[split].to_pylist() if split else None

    def _labels(self) -> dict[str, str] | None:
        """Node id -> label, from the option `labels`."""
        if not self.options["labels"]:
            return None
        content = read_json(self._beside(self.options["labels"]))
        if not isinstance(content, dict):
            raise SourceError(f"source 'graph': {self.options['labels']} must map labels to nodes, or nodes to labels")
        if any(isinstance(value, list) for value in content.values()):
            return {str(node): str(label) for label, nodes in content.items() for node in nodes}
        return {str(node): str(label) for node, label in content.items()}


def tabled(
    name: str, ends: tuple[Any, Any], kind: Any, ids: Sequence[str], texts: Sequence[str],
    labels: Sequence[str] | None, roles: Sequence[Any] | None, directed: bool | None,
) -> RawGraph:  # fmt: skip
    """A graph of edges between named nodes. Edges that name an unknown node are left out and counted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted: Counter[str] = Counter()
    if len(set(ids)) < len(ids):
        twice = next(node for node, count in Counter(ids).items() if count > 1)
        raise SourceError(f"graph {name!r}: the table of nodes has {twice!r} more than once")
    known = pa.array(ids, pa.string())
    start, end = (pc.index_in(column, known) for column in ends)
    good = pc.and_(pc.is_valid(start), pc.is_valid(end))
    counted["unknown_ends"] = len(good) - pc.sum(good).as_py()
    relations, relation_names = None, []
    if kind is not None:
        encoded = pc.dictionary_encode(pc.fill_null(kind.filter(good), ""))
        encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        relation_names = encoded.dictionary.to_pylist()
        relations = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    number, label_names = _numbered(labels) if labels else (None, ())
    split = None
    if roles is not None:
        split = np.array([_ROLES.get(str(role).lower(), 0) for role in roles], np.int8)
    return RawGraph(
        name,
        start.filter(good).to_numpy().astype(np.int64),
        end.filter(good).to_numpy().astype(np.int64),
        Texts.of(texts),
        directed=bool(directed) if directed is not None else kind is not None,
        relations=relations,
        relation_names=tuple(relation_names),
        labels=number,
        label_names=label_names,
        roles=split,
        counted=counted,
    )


def from_networkx(graph: Any, name: str, directed: bool | None = None) -> RawGraph:
    """Convert a networkx graph. Names or attributes of nodes become texts; the edge attribute `relation` is the relation."""
    import pyarrow as pa

    ids = [str(node) for node in graph]
    attributes = [dict(graph.nodes[node]) for node in graph]
    labels = [str(next((a.pop(key) for key in LABEL if key in a), "")) for a in attributes] if attributes else []
    texts = [described(a, None) or node.replace("_", " ") for node, a in zip(ids, attributes, strict=True)]
    # An attribute that repeats the name, or numbers alone, say nothing.
    edges = [(str(a), str(b), data) for a, b, data in graph.edges(data=True)]
    typed = any("relation" in data for *_, data in edges)
    ends = pa.array([a for a, *_ in edges], pa.string()), pa.array([b for _, b, _ in edges], pa.string())
    kinds = pa.array([str(data.get("relation", "")) for *_, data in edges], pa.string()) if typed else None
    split = graph.is_directed() if directed is None else directed
    return tabled(name, ends, kinds, ids, texts, labels if any(labels) else None, None, split)


def described(value: Any, vocabulary: Sequence[str] | None) -> str:
    """A node's text from a text, from columns, or, with a vocabulary, from the names of its features."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        if vocabulary is None or not all(isinstance(weight, int | float) for weight in value.values()):
            told = {key: entry for key, entry in value.items() if entry not in (None, "")}
            texts = [str(told[key]) for key in told if key.lower() in TEXT]
            return ". ".join(texts) if texts else "; ".join(f"{key}: {entry}" for key, entry in told.items())
        names = vocabulary if isinstance(vocabulary, Mapping) else dict(enumerate(vocabulary))
        ranked = sorted(value.items(), key=lambda entry: (-entry[1], entry[0]))
        return " ".join(
            str(names.get(key, names.get(int(key) if str(key).isdigit() else key, ""))) for key, _ in ranked
        )
    return "" if value is None else str(value)


def names_of(path: Path) -> Any:
    """The names of features: a list, or a mapping from a feature's key."""
    return read_json(path) if path.suffix.lower() == ".json" else path.read_text(encoding="utf-8").split("\n")


def read_json(path: Path) -> Any:
    """A JSON file. Raises SourceError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def read_table(path: Path) -> pa.Table:
    """Read a table. Without a header the columns are named 0, 1, 2, ... Raises SourceError."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    ending = path.suffix.lower()
    try:
        if ending == ".parquet":
            return pa.parquet.read_table(path)
        if ending == ".jsonl":
            return pa.json.read_json(path)
        if ending == ".json":
            content = read_json(path)
            if not isinstance(content, list) or not content:
                raise SourceError(f"{path} must hold a list of edges or nodes")
            if isinstance(content[0], dict):
                return pa.Table.from_pylist(content)
            columns = [pa.array([str(value) for value in column]) for column in zip(*content, strict=True)]
            return pa.table({str(number): column for number, column in enumerate(columns)})
        with path.open(encoding="utf-8") as file:
            first = file.readline().rstrip("\n")
        delimiter = "\t" if "\t" in first else "," if "," in first else " "
        fields = [field.strip().strip('"').lower() for field in first.split(delimiter)]
        headed = bool({*SOURCE, *ID, *TEXT, *RELATION} & set(fields))
        return pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=None if headed else [str(k) for k in range(len(fields))]),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        )
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist") from None
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} cannot be read as a table: {error}") from error


def _named(table: pa.Table, names: Sequence[str], place: int | None) -> str | None:
    """Name of the first column with one of the names, else of the column at a position."""
    lower = {name.lower(): name for name in table.column_names}
    found = next((lower[name] for name in names if name in lower), None)
    if found is None and place is not None:
        if place >= table.num_columns:
            raise SourceError(f"a table with columns {', '.join(table.column_names)} lacks a column {names[0]}")
        found = table.column_names[place]
    return found


def _column(table: pa.Table, names: Sequence[str], place: int | None) -> Any:
    """The column as strings; None if there is none."""
    import pyarrow as pa

    found = _named(table, names, place)
    return None if found is None else table[found].cast(pa.string()).combine_chunks()


def _strings(table: pa.Table, names: Sequence[str], place: int) -> list[str]:
    return ["" if value is None else value for value in _column(table, names, place).to_pylist()]


def _numbered(labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as numbers, and their names. An empty label is -1."""
    names = sorted({label for label in labels if label})
    number = {name: k for k, name in enumerate(names)}
    return np.array([number.get(label, -1) for label in labels], np.int32), tuple(names)
