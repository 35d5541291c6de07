"""Graphs in saved tensors: `.pt` files of PyTorch Geometric and of papers on language models for graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, Texts
from ssl4rl_plugin.data.source import SourceError


def load_tensors(path: Path) -> Mapping[str, Any]:
    """The content of a .pt file, as a mapping. No code in the file is run. Raises SourceError for other than plain data."""
    import contextlib
    import pickle

    import torch

    allowed: list[Any] = []
    with contextlib.suppress(ImportError):
        from torch_geometric.data import Data
        from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
        from torch_geometric.data.storage import EdgeStorage, GlobalStorage, NodeStorage

        allowed = [Data, DataEdgeAttr, DataTensorAttr, EdgeStorage, GlobalStorage, NodeStorage]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = str(error).partition("\n")[0]
        raise SourceError(
            f"{path} holds a pickled object, which could run code and is not read ({what}): save a dict of tensors, "
            "lists and strings, or a torch_geometric `Data`"
        ) from error
    if isinstance(content, tuple | list) and content and not isinstance(content, str):
        content = content[0]  # InMemoryDataset saves (`Data`, slices)
    found = content.to_dict() if hasattr(content, "to_dict") else content
    if not isinstance(found, Mapping) or "edge_index" not in found:
        raise SourceError(f"{path} holds no graph: expected a dict or `Data` with the key edge_index")
    return found


def from_tensors(
    content: Mapping[str, Any], name: str, vocabulary: Sequence[str] | None = None, directed: bool = False
) -> RawGraph:
    """A graph in the layout of PyTorch Geometric and of papers on language models for graphs. Raises SourceError."""
    edge_index = np.asarray(content["edge_index"])
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise SourceError(f"graph {name!r}: edge_index must be of shape (2, edges), got {tuple(edge_index.shape)}")
    texts = texts_in(content, name, vocabulary)
    count = len(texts)
    labels, label_names = None, tuple[str, ...]()
    counted: Counter[str] = Counter()
    if content.get("y") is not None:
        y = np.asarray(content["y"]).reshape(-1)
        if len(y) == count and y.dtype.kind in "iu":
            labels = np.where(y < 0, -1, y).astype(np.int32)
            given = next(
                (content[k] for k in ("label_name", "label_names", "label_texts", "category_names") if k in content),
                None,
            )
            if given is None:
                labels = None  # a question needs the names of the classes
                counted["labels_without_names"] = count
            else:
                label_names = tuple(map(str, given))
                if len(label_names) == count != int(labels.max(initial=-1)) + 1:  # one for each node
                    names = {
                        int(number): class_name
                        for number, class_name in zip(labels, label_names, strict=True)
                        if number >= 0
                    }
                    label_names = tuple(names.get(k, f"class {k}") for k in range(max(names) + 1))
    relations, relation_names = None, tuple[str, ...]()
    if content.get("edge_type") is not None:
        relations = np.asarray(content["edge_type"]).reshape(-1).astype(np.int32)
        given = content.get("relation_names") or [f"relation {k}" for k in range(int(relations.max(initial=-1)) + 1)]
        relation_names = tuple(map(str, given))
    return RawGraph(
        name, edge_index[0], edge_index[1], texts, directed=directed, relations=relations, relation_names=relation_names,
        labels=labels, label_names=label_names, roles=roles_in(content, name, count), counted=counted,
    )  # fmt: skip


def texts_in(content: Mapping[str, Any], name: str, vocabulary: Sequence[str] | None) -> Texts:
    """The nodes' texts: given, joined from titles and abstracts, or the names of their features."""
    for key in ("raw_texts", "raw_text", "texts", "text", "node_texts"):
        given = content.get(key)
        if given is not None and len(given):
            if isinstance(given, str) or not all(isinstance(text, str) for text in given):
                raise SourceError(f"graph {name!r}: {key} must be a list of strings, one for each node")
            return Texts.of(given)
    titles = content.get("title") or content.get("titles")
    if titles:
        abstracts = content.get("abs") or content.get("abstract") or [""] * len(titles)
        return Texts.of(f"{title}. {abstract}".strip() for title, abstract in zip(titles, abstracts, strict=True))
    x = content.get("x")
    if x is None or vocabulary is None:
        raise SourceError(
            f"graph {name!r} has no texts (raw_texts): "
            + ("its features x have no names; give them with `+ssl4rl.source.options.vocabulary=FILE`" if x is not None
               else "nothing describes a node")
        )  # fmt: skip
    return featured(x, vocabulary, name)


def featured(x: Any, vocabulary: Sequence[str], name: str) -> Texts:
    """The names of each node's features, largest value first. Raises SourceError if the vocabulary has another length."""
    x = x.to_dense() if getattr(x, "is_sparse", False) or getattr(x, "is_sparse_csr", False) else x
    values = np.asarray(x, np.float32)
    if values.ndim != 2 or values.shape[1] != len(vocabulary):
        raise SourceError(
            f"graph {name!r}: features of shape {values.shape}, and the vocabulary has {len(vocabulary)} words"
        )

    def words() -> Iterable[str]:
        for row in values:
            present = np.flatnonzero(row)
            yield " ".join(vocabulary[k] for k in present[np.argsort(-row[present], kind="stable")])

    return Texts.of(words())


def roles_in(content: Mapping[str, Any], name: str, count: int) -> np.ndarray | None:
    """The split of each node by the masks. Of masks with several columns (alternative splits), the first is used."""
    found = None
    for role, key in ((0, "train_mask"), (1, "val_mask"), (2, "test_mask")):
        mask = content.get(key)
        if mask is None:
            continue
        mask = np.asarray(mask)
        mask = (mask[:, 0] if mask.ndim == 2 else mask).astype(bool)
        if len(mask) != count:
            raise SourceError(f"graph {name!r}: {key} has {len(mask)} entries for {count} nodes")
        found = np.zeros(count, np.int8) if found is None else found
        found[mask] = role
    return found
