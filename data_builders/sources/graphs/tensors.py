"""Graphs in saved tensors: the layout of PyTorch Geometric and of the papers on language models for graphs.

Nothing is guessed: texts, features, labels and masks have one entry for each node, edges name nodes that exist, and what can
be read two ways is refused with both readings.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssl4rl_plugin.core.graph import MAX_NODES, RawGraph, Reading, Texts
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.plain_pickle import PlainSparse
from ssl4rl_plugin.data_builders.sources.graphs.tensor_file import (
    LARGEST,
    array_of,
    is_tensor,
    shape_of,
    shown_bytes,
    whole_numbers,
)
from ssl4rl_plugin.data_builders.sources.graphs.tensor_labels import labels_in
from ssl4rl_plugin.data_builders.sources.graphs.tensor_splits import MASKS, roles_in

TEXTS = ("raw_texts", "raw_text", "texts", "text", "node_texts", "node_text")
TITLES = ("title", "titles")
ABSTRACTS = ("abs", "abstract", "abstracts")
RELATIONS = ("edge_type", "edge_types")
RELATION_NAMES = ("relation_names", "relation_name", "relation_texts", "edge_type_names")
WEIGHTS = ("edge_weight", "edge_weights", "edge_attr")


def from_tensors(
    content: Mapping[str, Any],
    name: str,
    vocabulary: Sequence[str] | None = None,
    directed: bool = False,
    mask: int = 0,
    unmasked: str = "train",
) -> RawGraph:
    """A graph in the layout of PyTorch Geometric and of papers on language models for graphs.

    Args:
        content: edge_index, texts (`TEXTS`, or titles and abstracts) or features `x`; optionally y, names of its classes,
            masks or lists of nodes for the splits, edge_type, num_nodes, node_ids.
        name: name of the graph.
        vocabulary: names of the columns of `x`, for a graph without texts.
        directed: whether edges have a direction.
        mask: which of several alternative masks to use.
        unmasked: see `roles_in`.

    Raises:
        SourceError: lengths disagree, values are out of range, or something can be read two ways. The message names the key.
    """
    where = f"graph {name!r}"
    counted: Counter[str] = Counter()
    used = {"edge_index", "num_nodes"}
    found: list[str] = []
    texts, missing = _texts(content, where, vocabulary, used, found)
    count = len(texts)
    edges = _edges(content, where)
    edges = _numbered_ends(edges, content, where, count, used, found)
    _compare(content, where, count, edges)
    labels, label_names, origin = labels_in(content, where, count, counted, used)
    relations, relation_names = _relations(content, where, edges.shape[1], used)
    roles, splits, told = roles_in(content, name, count, mask, unmasked, counted, used)
    return RawGraph(
        name, edges[0], edges[1], texts, directed=directed, relations=relations, relation_names=relation_names,
        labels=labels, label_names=label_names, roles=roles, counted=counted,
        reading=Reading(
            found=(*found, *told), weights=_weighted(content, where, edges.shape[1], used), splits=splits, labels=origin,
            missing_texts=missing, unused=tuple(sorted(set(content) - used)),
        ),
    )  # fmt: skip


def first_of(content: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    """The first of the keys that the content has; None if there is none."""
    return next((key for key in keys if content.get(key) is not None), None)


# ------------------------------------------------------------------------------------------------ texts


def _texts(
    content: Mapping[str, Any], where: str, vocabulary: Sequence[str] | None, used: set[str], found: list[str]
) -> tuple[Texts, int]:
    """The nodes' texts, and the number of nodes without one: given, joined from titles and abstracts, or named features."""
    key = next((key for key in TEXTS if content.get(key) is not None and _size(content[key])), None)
    title, abstract = first_of(content, TITLES), first_of(content, ABSTRACTS)
    if key is not None:
        used.add(key)
        parts = [list_of_texts(content[key], f"{where}: {key}")]
    elif title is not None:
        keys = [title, abstract] if abstract is not None else [title]
        used.update(keys)
        parts = [list_of_texts(content[part], f"{where}: {part}") for part in keys]
        if len({len(part) for part in parts}) > 1:
            raise SourceError(f"{where}: {title} has {len(parts[0])} entries and {abstract} has {len(parts[1])}")
    else:
        if content.get("x") is None or vocabulary is None:
            raise SourceError(
                f"{where} has no texts (raw_texts): "
                + ("its features x have no names; give them with `+ssl4rl.source.options.vocabulary=FILE`"
                   if content.get("x") is not None else "nothing describes a node")
            )  # fmt: skip
        used.add("x")
        found.append("texts from features")
        texts = featured(content["x"], vocabulary, where.removeprefix("graph ").strip("'"))
        return texts, int(np.count_nonzero(np.diff(texts.offsets) == 0))
    whole = [". ".join(part for part in row if part) for row in zip(*parts, strict=True)]
    total = sum(map(len, whole))
    if total > (limit := max(LARGEST, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)):
        raise SourceError(
            f"{where}: the texts have {shown_bytes(total)}, and half of the memory is {shown_bytes(limit)}"
        )
    return Texts.of(whole), sum(not text for text in whole)


def list_of_texts(value: Any, what: str) -> list[str]:
    """Texts in the order of the nodes. None, NaN and blank texts become "". Raises SourceError for other than texts."""
    if isinstance(value, Mapping):
        keys = list(value)
        if not all(type(key) is int for key in keys) or sorted(keys) != list(range(len(keys))):
            raise SourceError(
                f"{what} is a dict, and its keys are not the numbers 0 to {len(keys) - 1}: give a list of strings, one for "
                "each node"
            )
        value = [value[key] for key in range(len(keys))]
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    entries = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
    if not isinstance(entries, list | tuple):
        raise SourceError(f"{what} must be a list of strings, one for each node; got {type(value).__name__}")
    texts = []
    for place, entry in enumerate(entries):
        if entry is None or (isinstance(entry, float) and math.isnan(entry)):
            entry = ""
        if not isinstance(entry, str):
            raise SourceError(
                f"{what} must be a list of strings, one for each node; entry {place} is {type(entry).__name__}"
            )
        texts.append(entry if entry.strip() else "")
    return texts


def featured(x: Any, vocabulary: Sequence[str], name: str) -> Texts:
    """The names of each node's features, largest value first. Raises SourceError if the vocabulary has another length."""
    where = f"graph {name!r}: x"
    words = list(vocabulary)
    if isinstance(vocabulary, Mapping):  # from a number to a name
        words = [vocabulary.get(k, vocabulary.get(str(k))) for k in range(len(vocabulary))]
    shape = _matrix_shape(x, where)
    if len(words) == shape[-1] + 1 and not words[-1]:  # the end of the last line of a file
        words.pop()
    if len(shape) != 2 or shape[1] != len(words) or None in words:
        raise SourceError(f"graph {name!r}: features of shape {shape}, and the vocabulary has {len(words)} words")
    return Texts.of(
        " ".join(str(words[k]) for k in columns[np.argsort(-values, kind="stable")].tolist())
        for columns, values in _rows(x, where, shape)
    )


def _matrix_shape(x: Any, where: str) -> tuple[int, ...]:
    if isinstance(x, PlainSparse):
        return tuple(x.matrix().shape)
    return shape_of(x, where)


def _rows(x: Any, where: str, shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The columns and values of each row, without zeros and NaN. A sparse matrix stays sparse."""
    import scipy.sparse as sp

    if shape[0] * 8 > LARGEST and not isinstance(x, np.ndarray) and shape[1] == 0:
        raise SourceError(f"{where} declares {shape[0]} rows without columns")
    if isinstance(x, PlainSparse) or sp.issparse(x):
        matrix = x.matrix() if isinstance(x, PlainSparse) else x.tocsr()
    elif is_tensor(x) and "sparse" in str(x.layout):
        matrix = _sparse_rows(x, where, shape)
    else:
        for row in array_of(x, where):
            values = row.astype(np.float32)
            columns = np.flatnonzero(np.nan_to_num(values))
            yield columns, values[columns]
        return
    for start, end in zip(matrix.indptr[:-1].tolist(), matrix.indptr[1:].tolist(), strict=True):
        columns, values = matrix.indices[start:end], matrix.data[start:end].astype(np.float32)
        order = np.argsort(columns, kind="stable")
        kept = order[np.nan_to_num(values[order]) != 0]
        yield columns[kept], values[kept]


def _sparse_rows(x: Any, where: str, shape: tuple[int, ...]) -> Any:
    """A sparse tensor as a matrix of SciPy. Raises SourceError if it declares too many rows, or its indices are wrong."""
    import scipy.sparse as sp

    if shape[0] * 8 > LARGEST:
        raise SourceError(f"{where} declares {shape[0]} rows, {shown_bytes(shape[0] * 8)} for their starts alone")
    try:
        triplets = x.detach().to_sparse_coo()
        rows, columns = triplets._indices().numpy()
        matrix = sp.coo_matrix((triplets._values().float().numpy(), (rows, columns)), shape=shape).tocsr()
    except (RuntimeError, ValueError, TypeError) as error:
        raise SourceError(f"{where} is a damaged sparse tensor: {str(error).partition(chr(10))[0]}") from error
    return matrix


def _size(value: Any) -> int:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 0
    return len(value) if hasattr(value, "__len__") else 1


# ------------------------------------------------------------------------------------------------ edges


def _edges(content: Mapping[str, Any], where: str) -> np.ndarray:
    """The ends of all edges, as int64 of shape (2, edges)."""
    what = f"{where}: edge_index"
    shape = shape_of(content["edge_index"], what)
    if len(shape) != 2 or shape[0] != 2:
        hint = "; transpose it" if len(shape) == 2 and shape[1] == 2 else ""
        raise SourceError(f"{what} must be of shape (2, edges), got {shape}{hint}")
    found = array_of(content["edge_index"], what)
    if found.dtype.kind == "b":
        raise SourceError(f"{what} must hold numbers of nodes, got truth values")
    return whole_numbers(found, what)


def _numbered_ends(
    edges: np.ndarray, content: Mapping[str, Any], where: str, count: int, used: set[str], found: list[str]
) -> np.ndarray:
    """The ends of edges as positions of nodes. Ends that name `node_ids` are mapped, if they cannot be positions."""
    lowest, highest = (int(edges.min()), int(edges.max())) if edges.size else (0, -1)
    inside = lowest >= 0 and highest < count
    given = content.get("node_ids")
    ids = _ids(given, f"{where}: node_ids", count) if given is not None else None
    if ids is None:
        if not inside:
            edge = int(((edges < 0) | (edges >= count)).any(0).argmax())
            wrong = next(end for end in edges[:, edge].tolist() if not 0 <= end < count)
            raise SourceError(f"{where}: edge {edge} names node {wrong}; the nodes are 0 to {count - 1}")
        return edges
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids[order], edges), count - 1)
    mapped = order[place]
    named = bool((ids[mapped] == edges).all())
    if named and inside and not (mapped == edges).all():
        raise SourceError(
            f"{where}: the ends of edge_index can be positions (0 to {count - 1}) and entries of node_ids, and these "
            "differ: leave node_ids out if they are positions"
        )
    if not named and not inside:
        wrong = int(edges[ids[mapped] != edges][0])
        raise SourceError(
            f"{where}: edge_index names node {wrong}, which is no position (0 to {count - 1}) and not in node_ids"
        )
    if inside:
        return edges
    used.add("node_ids")
    found.append("edges name node_ids")
    return mapped.astype(np.int64)


def _ids(given: Any, what: str, count: int) -> np.ndarray | None:
    """The nodes' own numbers, all different; None if they are something else, which edges cannot name."""
    try:
        ids = whole_numbers(array_of(given, what), what).reshape(-1)
    except SourceError:
        return None
    return ids if len(np.unique(ids)) == count == len(ids) else None


def _compare(content: Mapping[str, Any], where: str, count: int, edges: np.ndarray) -> None:
    """Raise SourceError if the keys of the file disagree about the number of nodes, or only isolated texts are left over."""
    said = {}
    if content.get("num_nodes") is not None:
        given = content["num_nodes"]
        given = given.item() if hasattr(given, "item") and _numel(given) == 1 else given
        if type(given) is not int or given < 0:
            raise SourceError(f"{where}: num_nodes must be a whole number, got {str(content['num_nodes'])[:60]}")
        said["num_nodes"] = given
    for key in (*TEXTS, *TITLES, *ABSTRACTS, "node_ids"):
        value = content.get(key)
        if isinstance(value, list | tuple | np.ndarray) and len(value):
            said[key] = len(value)
    if content.get("x") is not None:
        said["x"] = _matrix_shape(content["x"], f"{where}: x")[0]
    if content.get("y") is not None:
        shape = shape_of(content["y"], f"{where}: y") if not _is_words(content["y"]) else (len(content["y"]),)
        said["y"] = shape[1] if len(shape) == 2 and shape[0] == 1 else shape[0] if shape else 1
    if set(said.values()) - {count}:
        raise SourceError(
            f"{where}: each node needs one entry, and the numbers of entries differ: "
            + ", ".join(f"{key} {size}" for key, size in said.items())
        )
    if count > MAX_NODES:
        raise SourceError(f"{where} has {count} nodes; at most {MAX_NODES} are possible")
    sure = said.keys() - {*TEXTS, *TITLES, *ABSTRACTS} or any(content.get(key) is not None for key in MASKS)
    highest = int(edges.max()) if edges.size else -1
    if not sure and edges.size and highest + 1 != count:
        raise SourceError(
            f"{where}: {count} texts, and the edges name {highest + 1} nodes (0 to {highest}); nothing says which is right: "
            f"save num_nodes={count} with them if the other nodes have no edges"
        )


def _is_words(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and any(isinstance(entry, str) for entry in list(value)[:1000])


def _numel(value: Any) -> int:
    return math.prod(getattr(value, "shape", ()))


# ------------------------------------------------------------------------------------------------ relations, weights


def _relations(
    content: Mapping[str, Any], where: str, edges: int, used: set[str]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The number of each edge's relation, and the relations' names."""
    key = first_of(content, RELATIONS)
    if key is None:
        return None, ()
    used.add(key)
    what = f"{where}: {key}"
    shape = shape_of(content[key], what)
    if math.prod(shape) != edges or len(shape) > 2 or (len(shape) == 2 and 1 not in shape):
        raise SourceError(f"{what} has shape {shape} for {edges} edges")
    numbers = whole_numbers(array_of(content[key], what), what).reshape(-1)
    if len(numbers) and int(numbers.min()) < 0:
        raise SourceError(f"{what} has {int(numbers.min())}; relations are numbered from 0")
    named = first_of(content, RELATION_NAMES)
    if named is None:
        kinds, relations = np.unique(numbers, return_inverse=True)
        if len(kinds) < 2:
            return None, ()  # all edges are of one kind, which has no name: nothing to tell
        return relations.astype(np.int32), tuple(f"relation {kind}" for kind in kinds.tolist())
    used.add(named)
    names = list_of_texts(content[named], f"{where}: {named}")
    highest = int(numbers.max()) if len(numbers) else -1
    if highest >= len(names) or not all(names[k] for k in np.unique(numbers).tolist()):
        raise SourceError(
            f"{what} has relations up to {highest}, and {named} names {sum(map(bool, names))} of {len(names)}"
        )
    return numbers.astype(np.int32), tuple(names)


def _weighted(content: Mapping[str, Any], where: str, edges: int, used: set[str]) -> bool:
    """Whether the edges have weights: one number for each. Raises SourceError for another number of them."""
    for key in WEIGHTS:
        value = content.get(key)
        if value is None or not hasattr(value, "shape"):
            continue
        shape = shape_of(value, f"{where}: {key}")
        if not shape or shape[0] != edges:
            raise SourceError(f"{where}: {key} has shape {shape} for {edges} edges")
        if len(shape) == 1 or shape[1:] == (1,):
            used.add(key)
            return True
    return False
