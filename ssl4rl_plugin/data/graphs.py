"""Graph sources, whose items are the nodes of one graph, and their manifest, which divides the graph into splits.

`GraphManifest` has the interface that `ssl4rl_plugin.data.samples.SampleStream` needs of a manifest: the items of a split,
the data of an item, and a digest of everything. The graph is read and divided once, and stored as flat files in the
cache folder. Every process maps these files into memory.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypedDict, overload

import numpy as np

from ssl4rl_plugin.core import GraphNode
from ssl4rl_plugin.core.files import cache_dir, making_folder
from ssl4rl_plugin.core.graph import SPLITS, Arcs, GraphError, RawGraph, Reading, TextGraph, Texts
from ssl4rl_plugin.data.source import Record, Source, SourceError
from ssl4rl_plugin.graphs.divide import divide

VERSION = 2
"""Version of the cached files and of the division into splits."""


class SharedOptions(TypedDict, total=False):
    """Options of every graph source; see `GraphSource`."""

    test_fraction: float
    ask_fraction: float
    edge_fraction: float
    inductive: bool
    tokenizer: str | None
    questions: int


SHARED: SharedOptions = {
    "test_fraction": 0.1, "ask_fraction": 0.2, "edge_fraction": 0.1, "inductive": False, "tokenizer": None,
    "questions": 256,
}  # fmt: skip
"""The defaults of `SharedOptions`."""


class GraphSource(Source):
    """One graph in one place. Subclasses set the class attributes of `Source` and implement `graph` and `files`.

    A constructor with options of its own takes the shared ones as `**shared: Unpack[SharedOptions]` and passes both on.

    Args:
        path: where the files are; None for a source that needs no path.
        options: the source's own options, and the shared ones:

            - `test_fraction`: share of the nodes held out for evaluation, if the graph itself has no splits.
            - `ask_fraction`: share of the edges that training asks about. No prompt shows them.
            - `edge_fraction`: share of the edges held out for validation; the same share again is held out for evaluation.
            - `inductive`: training prompts show no held-out node. Otherwise they may show its text, but never its label.
            - `tokenizer`: model (hub name or folder) whose tokenizer counts the tokens of texts; None to estimate them.
            - `questions`: most evaluation questions of each type.
    """

    kind: ClassVar[str] = "graph"
    __signature__: ClassVar[inspect.Signature]

    def __init__(self, path: str | Path | None, **options: Any) -> None:
        inspect.signature(type(self)).bind(path, **options)  # TypeError for a name that is no option
        super().__init__(path, **{**SHARED, **options})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the shared options in the class's signature, where `load_source` and `ssl4rl sources` look for options."""
        super().__init_subclass__(**kwargs)
        _, *own = inspect.signature(cls.__init__).parameters.values()
        parameters = {p.name: p for p in own if p.kind is not p.VAR_KEYWORD}
        for name, default in SHARED.items():
            parameters.setdefault(name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default))
        cls.__signature__ = inspect.Signature(list(parameters.values()))

    @abstractmethod
    def graph(self) -> RawGraph:
        """Read the graph. Raises SourceError or GraphError."""

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files that determine the graph; none if the source generates it."""

    def records(self) -> Iterator[Record]:
        raise SourceError(f"source {self.name!r} is a graph and has no pictures")

    def stamp(self, ref: str) -> tuple[int, int]:
        raise SourceError(f"source {self.name!r} is a graph and has no pictures")

    def read(self, ref: str) -> bytes:
        raise SourceError(f"source {self.name!r} is a graph and has no pictures")


@dataclass(frozen=True)
class GraphItem:
    """A node to make samples from."""

    id: str
    group: str
    node: int


class _Items(Sequence[GraphItem]):
    """The nodes of one split."""

    def __init__(self, nodes: np.ndarray) -> None:
        self._nodes = nodes

    def __len__(self) -> int:
        return len(self._nodes)

    @overload
    def __getitem__(self, index: int) -> GraphItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[GraphItem]: ...
    def __getitem__(self, index: int | slice) -> GraphItem | list[GraphItem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        node = int(self._nodes[index])
        return GraphItem(f"node {node}", f"node {node}", node)


class GraphManifest:
    """A graph source, divided into splits.

    A pickle has a few hundred bytes: the copy maps the same files into memory.

    Args:
        source: the graph.
        val_fraction: share of the nodes held out for validation, if the graph itself has no splits.
        seed: changes which nodes and edges are held out.

    Raises:
        SourceError: the graph cannot be read or used; the message says why.
    """

    def __init__(self, source: GraphSource, val_fraction: float = 0.1, seed: int = 0) -> None:
        self.source = source
        self.val_fraction = val_fraction
        self.seed = seed
        self.folder = _divided(source, val_fraction, seed)

    @cached_property
    def graph(self) -> TextGraph:
        """The graph itself."""
        return _opened(self.folder, self.source.options["tokenizer"])

    @property
    def digest(self) -> str:
        """SHA-256 of the divided graph. Equal digests give equal samples."""
        return str(_facts(self.folder)["digest"])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the division into splits."""
        return {
            "version": VERSION, "source": self.source.name, "options": self.source.options, "seed": self.seed,
            "val_fraction": self.val_fraction, "path": None if self.source.path is None else str(self.source.path),
        }  # fmt: skip

    @property
    def rejected(self) -> Counter[str]:
        """Number of things left out of the graph, by reason."""
        left_out = ("self_loops", "repeated_edges", "unknown_ends", "nodes_without_id")
        return Counter({reason: count for reason, count in self.graph.counted.items() if reason in left_out})

    def facts(self) -> dict[str, Any]:
        """What the graph holds and what its source found in the files, as JSON."""
        return facts_of(self.graph)

    def summary(self) -> str:
        """`facts` on one line."""
        return summary_of(self.facts())

    def items(self, split: str) -> Sequence[GraphItem]:
        """The nodes of a split (`train`, `val` or `test`)."""
        return _Items(self.graph.nodes_of(split))

    def open(self, item: GraphItem, max_pixels: int | None = None) -> GraphNode:
        """The `Item.data` for tasks: the node, in the graph as seen by the node's split."""
        return GraphNode(self.graph, item.node, SPLITS[int(self.graph.roles[item.node])])

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphManifest, (self.source, self.val_fraction, self.seed)


def facts_of(graph: TextGraph) -> dict[str, Any]:
    """What a graph holds and what its source found in the files, as JSON."""
    reading = graph.reading
    classes: dict[str, int] | None = None
    if graph.labels is not None:
        counts = np.bincount(graph.labels[graph.labels >= 0], minlength=len(graph.label_names))
        classes = dict(zip(graph.label_names, counts.tolist(), strict=True))
    empty = int(np.count_nonzero(np.diff(graph.texts.offsets) == 0))
    return {
        "name": graph.name,
        "nodes": len(graph),
        "edges": graph.edges,
        "directed": graph.directed,
        "weights": reading.weights,
        "relations": list(graph.relation_names),
        "classes": classes,
        "unlabelled": 0 if graph.labels is None else int(np.count_nonzero(graph.labels < 0)),
        "labels": reading.labels,
        "texts": len(graph) - max(empty, reading.missing_texts),
        "texts_missing": max(empty, reading.missing_texts),
        "splits": {split: int(np.count_nonzero(graph.roles == role)) for role, split in enumerate(SPLITS)},
        "splits_from": reading.splits,
        "found": list(reading.found),
        "lines_used": reading.lines_used,
        "refused": dict(reading.refused),
        "counted": dict(graph.counted),
        "unused": list(reading.unused),
    }


LISTED = 8
"""Most names that a summary lists of one kind."""


def summary_of(facts: dict[str, Any]) -> str:
    """The result of `facts_of` on one line: names are shortened, control characters removed."""
    lines = "" if facts["lines_used"] is None else f" from {facts['lines_used']:,} lines"
    parts = [
        f"{facts['nodes']:,} nodes",
        f"{facts['edges']:,} edges{lines} ({'directed' if facts['directed'] else 'undirected'}, "
        f"{'weights not used' if facts['weights'] else 'no weights'})",
        f"{len(facts['relations'])} relations ({_listed(facts['relations'])})"
        if facts["relations"]
        else "no relations",
    ]
    if facts["classes"] is None:
        parts.append("no classes")
    else:
        ordered = sorted(facts["classes"].items(), key=lambda entry: -entry[1])
        (largest, most), (smallest, least) = ordered[0], ordered[-1]
        source = f", from {facts['labels']}" if facts["labels"] else ""
        parts.append(
            f"{len(ordered)} classes (largest {_short(largest)} {most:,}, smallest {_short(smallest)} {least:,}, "
            f"{facts['unlabelled']:,} nodes without{source})"
        )
    parts.append(f"texts {facts['texts']:,}, missing {facts['texts_missing']:,}")
    counts = ", ".join(f"{split} {count:,}" for split, count in facts["splits"].items())
    parts.append(f"splits {counts} ({facts['splits_from'] or 'hash'})")
    if facts["found"]:
        parts.append(f"found {', '.join(map(_short, facts['found']))}")
    refused = {**facts["refused"], **{reason.replace("_", " "): n for reason, n in facts["counted"].items()}}
    parts.append(
        "left out or mended: "
        + (", ".join(f"{_short(reason)} {count:,}" for reason, count in refused.items() if count) or "nothing")
    )
    parts.append(f"unused: {_listed(facts['unused']) if facts['unused'] else 'nothing'}")
    return f"graph {_short(facts['name'])}: {'; '.join(parts)}"


def _short(text: object) -> str:
    """At most 60 printable characters."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(map(_short, names[:LISTED]))}{more}"


_ARRAYS = ("indptr", "indices", "kinds")


def _divided(source: GraphSource, val_fraction: float, seed: int) -> Path:
    """The folder with the divided graph. Makes it if it does not exist."""
    try:
        stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in source.files()]
    except OSError as error:
        raise SourceError(f"source {source.name!r}: {error}") from error
    options = {key: value for key, value in source.options.items() if key not in ("tokenizer", "questions")}
    key = json.dumps([VERSION, source.name, options, stamps, val_fraction, seed], sort_keys=True)
    root = cache_dir() / "graphs"
    folder = root / hashlib.sha256(key.encode()).hexdigest()[:24]
    if (folder / "facts.json").is_file():
        return folder
    shared = {key: source.options[key] for key in ("test_fraction", "ask_fraction", "edge_fraction", "inductive")}
    try:
        graph = divide(source.graph(), seed=seed, val_fraction=val_fraction, **shared)
    except GraphError as error:
        raise SourceError(f"source {source.name!r}{f' at {source.path}' if source.path else ''}: {error}") from error
    with making_folder(folder) as unfinished:
        _save(graph, unfinished)
    return folder


def _save(graph: TextGraph, folder: Path) -> None:
    """Write each array to its own file, and all other facts, with a digest of everything, to `facts.json`."""
    arrays = {
        "text_data": graph.texts.data, "text_offsets": graph.texts.offsets, "roles": graph.roles, "labels": graph.labels,
        "repeated": graph.repeated, "order": graph.order, "cells": graph.cells,
        **{f"shown_{name}": getattr(graph.shown, name) for name in _ARRAYS},
        **{f"{split}_{name}": getattr(arcs, name) for split, arcs in graph.asked.items() for name in _ARRAYS},
    }  # fmt: skip
    mark = hashlib.sha256()
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
            mark.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).data)
    facts = {
        "name": graph.name, "directed": graph.directed, "relation_names": graph.relation_names,
        "label_names": graph.label_names, "inductive": graph.inductive, "counted": graph.counted,
    }  # fmt: skip
    mark.update(json.dumps(facts, sort_keys=True).encode())
    # The digest leaves out the reading: it does not change a sample.
    stored = {**facts, "reading": graph.reading.as_json(), "digest": mark.hexdigest()}
    (folder / "facts.json").write_text(json.dumps(stored))


@lru_cache(maxsize=8)
def _facts(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "facts.json").read_text()))


@lru_cache(maxsize=4)
def _opened(folder: Path, tokenizer: str | None) -> TextGraph:
    """The graph in a folder, with its arrays mapped into memory."""

    def array(name: str) -> Any:
        file = folder / f"{name}.npy"
        if not file.is_file():
            return None
        small = file.stat().st_size < 2**16  # an empty array cannot be mapped
        return np.load(file, mmap_mode=None if small else "r").view(np.ndarray)

    def arcs(name: str) -> Arcs:
        return Arcs(*(array(f"{name}_{part}") for part in _ARRAYS))

    facts = _facts(folder)
    return TextGraph(
        name=facts["name"],
        texts=Texts(array("text_data"), array("text_offsets")),
        shown=arcs("shown"),
        asked={split: arcs(split) for split in SPLITS},
        roles=array("roles"),
        directed=facts["directed"],
        relation_names=tuple(facts["relation_names"]),
        labels=array("labels"),
        label_names=tuple(facts["label_names"]),
        inductive=facts["inductive"],
        repeated=array("repeated"),
        order=array("order"),
        cells=array("cells"),
        counted=Counter(facts["counted"]),
        tokenizer=tokenizer,
        reading=Reading.from_json(facts["reading"]),
    )


def graph_manifest(
    source: GraphSource, out: Path | None = None, *, val_fraction: float = 0.1, seed: int = 0, progress: bool = False
) -> GraphManifest:
    """The indexer of graphs (see `ssl4rl_plugin.data.indexing`); `out` and `progress` have no effect. Raises SourceError."""
    return GraphManifest(source, val_fraction=val_fraction, seed=seed)
