"""A source whose items are the nodes of one graph, and the sibling of the picture manifest that divides it.

`GraphManifest` answers what `ssl4rl_plugin.data.samples.SampleStream` asks of a manifest: which items a split has, what each
is, and a digest of all of it. The graph is read once, divided, and kept as flat files in the cache folder, from which
every process maps it into memory.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np

from ssl4rl_plugin.core import GraphNode
from ssl4rl_plugin.core.files import cache_dir, making_folder
from ssl4rl_plugin.core.graph import SPLITS, Arcs, GraphError, RawGraph, TextGraph, Texts
from ssl4rl_plugin.data.source import Record, Source, SourceError
from ssl4rl_plugin.graphs.divide import divide

VERSION = 1
"""Of the files in the cache, and of how a graph is divided."""

SHARED: dict[str, Any] = {
    "test_fraction": 0.1, "ask_fraction": 0.2, "edge_fraction": 0.1, "inductive": False, "tokenizer": None,
    "questions": 256,
}  # fmt: skip
"""Options that every graph source has, with their defaults; see `GraphSource`."""


class GraphSource(Source):
    """One graph at one place. Subclasses set the class attributes of `Source` and implement `graph` and `files`.

    Args:
        path: where the files are; None for a source that knows.
        test_fraction: share of the nodes held out for evaluation, where the graph itself has no splits.
        ask_fraction: share of the edges that training asks about and shows nowhere.
        edge_fraction: share of the edges held out for validation, and as many again for evaluation.
        inductive: training prompts show no held-out node; otherwise they may show its text, but never its label.
        tokenizer: model (hub name or folder) whose tokenizer measures texts; None for a rule of thumb.
        questions: evaluation questions of each sort at most.
        options: the source's own.
    """

    kind: ClassVar[str] = "graph"

    @abstractmethod
    def graph(self) -> RawGraph:
        """Read it. Raises SourceError or GraphError."""

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files that decide its content; none for a graph that the source makes itself."""

    def records(self) -> Iterator[Record]:
        raise SourceError(f"source {self.name!r} is a graph, which needs no index: look at it with `ssl4rl preview`")

    def stamp(self, ref: str) -> tuple[int, int]:
        raise SourceError(f"source {self.name!r} is a graph and has no pictures")

    def read(self, ref: str) -> bytes:
        raise SourceError(f"source {self.name!r} is a graph and has no pictures")


@dataclass(frozen=True)
class GraphItem:
    """A node that samples are made from."""

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

    Pickling one costs a few hundred bytes: the copy maps the same files into memory.

    Args:
        source: the graph.
        val_fraction: share of the nodes held out for validation, where the graph itself has no splits.
        seed: changes which nodes and edges are held out.

    Raises:
        SourceError: the graph cannot be read, or is of no use; the message says why.
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
        """SHA-256 of everything that the graph holds: equal digests, equal samples."""
        return str(_facts(self.folder)["digest"])

    @property
    def settings(self) -> dict[str, Any]:
        """What the graph was divided by."""
        return {
            "version": VERSION, "source": self.source.name, "options": self.source.options, "seed": self.seed,
            "val_fraction": self.val_fraction, "path": None if self.source.path is None else str(self.source.path),
        }  # fmt: skip

    @property
    def rejected(self) -> Counter[str]:
        """What was left out of the graph, by reason."""
        left_out = ("self_loops", "repeated_edges", "unknown_ends", "nodes_without_id")
        return Counter({reason: count for reason, count in self.graph.counted.items() if reason in left_out})

    def items(self, split: str) -> Sequence[GraphItem]:
        """The nodes of a split (`train`, `val` or `test`)."""
        return _Items(self.graph.nodes_of(split))

    def open(self, item: GraphItem, max_pixels: int | None = None) -> GraphNode:
        """What a task gets as `Item.data`: the node, as its own split may see the graph."""
        return GraphNode(self.graph, item.node, SPLITS[int(self.graph.roles[item.node])])

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphManifest, (self.source, self.val_fraction, self.seed)


_ARRAYS = ("indptr", "indices", "kinds")


def _divided(source: GraphSource, val_fraction: float, seed: int) -> Path:
    """The folder with the divided graph; made if it is not there yet."""
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
    """Every array as a file of its own, and all the rest with a digest of everything."""
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
    (folder / "facts.json").write_text(json.dumps({**facts, "digest": mark.hexdigest()}))


@lru_cache(maxsize=8)
def _facts(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "facts.json").read_text()))


@lru_cache(maxsize=4)
def _opened(folder: Path, tokenizer: str | None) -> TextGraph:
    """The graph in a folder, its arrays mapped into memory."""

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
    )


def graph_manifest(
    source: GraphSource, out: Path | None = None, *, val_fraction: float = 0.1, seed: int = 0, progress: bool = False
) -> GraphManifest:
    """The indexer of graphs (see `ssl4rl_plugin.data.indexing`); `out` and `progress` have no effect. Raises SourceError."""
    return GraphManifest(source, val_fraction=val_fraction, seed=seed)
