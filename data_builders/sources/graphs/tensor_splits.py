"""Splits of nodes in saved tensors: masks, alternative masks, and lists of nodes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl4rl_plugin.core.graph import SPLITS
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.tensor_file import array_of, shape_of, whole_numbers
from ssl4rl_plugin.data_builders.sources.graphs.tensor_labels import is_words

NAMES = (("train", "training"), ("val", "valid", "validation", "dev"), ("test", "testing"))
"""The names of each split, in the order of `SPLITS`."""
_MASK_ENDS = ("mask", "masks")
_NODE_ENDS = ("id", "ids", "idx", "index", "indices", "nodes")
MASKS = tuple(f"{name}_{end}" for names in NAMES for name in names for end in _MASK_ENDS)
"""Keys of masks: one entry for each node."""
_DICTS = ("splits", "split", "split_idx", "split_index")
_SPLIT = re.compile(r"(train|val|valid|validation|dev|test|split)s?(_|\d|$)", re.IGNORECASE)
_NO_NODES = re.compile(r"edge|pos|neg|link|label|acc|loss|pred", re.IGNORECASE)
"""Words in keys about splits of edges or results of a training."""
NO_SPLIT = len(SPLITS)
"""The role of a node that is in no split."""
UNMASKED = ("train", "none")
"""Values of the option `unmasked`."""


class _Alternatives(tuple[Any, ...]):
    """Masks or lists of nodes of which one is to be chosen."""


def roles_in(
    content: Mapping[str, Any],
    name: str,
    count: int,
    mask: int = 0,
    unmasked: str = "train",
    counted: Counter[str] | None = None,
    used: set[str] | None = None,
) -> tuple[np.ndarray | None, str, tuple[str, ...]]:
    """The split of each node by masks or lists of nodes; None if there are none.

    Args:
        content: train_mask, val_mask, test_mask (or train_masks, train_idx, splits, ...). Each mask has an entry for each
            node; alternative masks are a list of masks, or a matrix.
        name: name of the graph, for messages.
        count: number of nodes.
        mask: which of the alternative masks to use, from 0.
        unmasked: `train` lets nodes in no mask serve training, which reads no label; `none` leaves them out of all splits.
        counted: gets the number of nodes in several masks. Such a node belongs to the last of train, val, test.
        used: gets the keys that were read.

    Returns:
        The role of each node (int8; see `SPLITS` and `NO_SPLIT`), where the roles come from, and what else to say.

    Raises:
        SourceError: a mask has another length, holds something else, can be read two ways, or there is no mask `mask`.
    """
    where = f"graph {name!r}"
    if unmasked not in UNMASKED:
        raise SourceError(f"unmasked must be one of {', '.join(UNMASKED)}, got {unmasked!r}")
    if type(mask) is not int or mask < 0:
        raise SourceError(f"mask must be a whole number from 0, got {mask!r}")
    given = _given(content, where, count)
    if not given:
        if mask:
            raise SourceError(f"{where}: mask is {mask}, and there are no masks")
        return None, "", ()
    roles = np.full(count, NO_SPLIT if unmasked == "none" else 0, np.int8)
    times = np.zeros(count, np.int8)
    columns = 1
    for role, key, value, by_mask in given:
        inside, of = _inside(value, f"{where}: {key}", count, mask, by_mask)
        columns = max(columns, of)
        times += inside
        roles[inside] = role
    if mask and columns == 1:
        raise SourceError(f"{where}: mask is {mask}, and there is one mask for each split: leave mask at 0")
    keys = tuple(dict.fromkeys(key.partition("[")[0] for _, key, _, _ in given))
    if used is not None:
        used.update(keys)
    several, left = int(np.count_nonzero(times > 1)), int(np.count_nonzero(times == 0))
    if counted is not None and several:
        counted["nodes_in_several_splits"] += several
    told = []
    if left:
        told.append(f"{left:,} nodes in no mask {'serve training' if unmasked == 'train' else 'in no split'}")
    if several:
        told.append("nodes in several masks are in the last of train, val, test")
    return roles, f"{', '.join(keys)}{f', mask {mask} of 0 to {columns - 1}' if columns > 1 else ''}", tuple(told)


def _given(content: Mapping[str, Any], where: str, count: int) -> list[tuple[int, str, Any, bool]]:
    """Role, key, value, and whether it must be a mask, of each split in the content."""
    found = []
    for role, names in enumerate(NAMES):
        for ends, by_mask in ((_MASK_ENDS, True), (_NODE_ENDS, False)):
            keys = [f"{name}_{end}" for name in names for end in ends]
            key = next((key for key in keys if content.get(key) is not None), None)
            if key is not None:
                found.append((role, key, content[key], by_mask))
                break
    if found:
        return found
    for key in _DICTS:
        value = content.get(key)
        if isinstance(value, list | tuple) and value and all(isinstance(part, Mapping) for part in value):
            value = {name: _Alternatives(part.get(name, []) for part in value) for name in value[0]}  # alternatives
        if isinstance(value, Mapping):
            for role, names in enumerate(NAMES):
                name = next((name for name in names if value.get(name) is not None), None)
                if name is not None:
                    found.append((role, f"{key}[{name}]", value[name], False))
        elif is_words(value):
            words = [str(word).strip().lower() for word in value]  # type: ignore[union-attr]
            if len(words) != count:
                raise SourceError(f"{where}: {key} has {len(words)} entries for {count} nodes")
            found += [
                (role, key, np.array([word in names for word in words]), True) for role, names in enumerate(NAMES)
            ]
        if found:
            return found
    for key, value in content.items():
        if _SPLIT.match(key) and not _NO_NODES.search(key) and (isinstance(value, Mapping) or _is_part(value)):
            raise SourceError(
                f"{where}: {key} looks like a split of the nodes, in a form that is not known: save train_mask, val_mask "
                f"and test_mask, or leave {key} out to divide the nodes by a hash"
            )
    return found


def _inside(value: Any, what: str, count: int, mask: int, by_mask: bool) -> tuple[np.ndarray, int]:
    """Which nodes a mask or a list of nodes holds, and the number of alternatives."""
    value, columns = _chosen(value, what, count, mask, by_mask)
    found = array_of(value, what).reshape(-1)
    truth = found.dtype.kind == "b" or (len(found) == count and count > 2 and bool(np.isin(found, (0, 1)).all()))
    if by_mask or truth:
        if len(found) != count:
            raise SourceError(f"{what} has {len(found)} entries for {count} nodes")
        if not truth and not np.isin(found, (0, 1)).all():
            raise SourceError(f"{what} must hold true or false for each node; it holds other values")
        return found.astype(bool), columns
    nodes = whole_numbers(found, what)
    if len(nodes) and not 0 <= int(nodes.min()) <= int(nodes.max()) < count:
        raise SourceError(f"{what} names nodes {nodes.min()} to {nodes.max()}; the nodes are 0 to {count - 1}")
    inside = np.zeros(count, bool)
    inside[nodes] = True
    return inside, columns


def _chosen(value: Any, what: str, count: int, mask: int, by_mask: bool) -> tuple[Any, int]:
    """One of several alternative masks or lists, and their number."""
    parts = isinstance(value, list | tuple) and len(value) > 0 and all(_is_part(part) for part in value)
    if parts and by_mask and len(value) == count != shape_of(value, what)[1]:
        value, parts = array_of(value, what), False  # a row for each node
    if parts:
        if (
            not (by_mask or isinstance(value, _Alternatives))
            and len(value) > 1
            and all(_length(part) == 1 for part in value)
        ):
            raise SourceError(
                f"{what} is a list of lists of one node: it can be one split or {len(value)} alternatives"
            )
        if by_mask:
            for place, part in enumerate(value):
                shape = shape_of(part, what)
                if count not in shape or len(shape) > 1:
                    raise SourceError(f"{what}[{place}] has {shape[0]} entries for {count} nodes")
        return _at(value, what, mask), len(value)
    shape = shape_of(value, what)
    if len(shape) < 2 or 1 in shape:
        if by_mask and count not in shape:
            raise SourceError(f"{what} has {shape[0] if shape else 1} entries for {count} nodes")
        return value, 1
    if len(shape) > 2 or count not in shape:
        raise SourceError(f"{what} has shape {shape} for {count} nodes")
    if shape[0] == shape[1]:
        raise SourceError(
            f"{what} has shape {shape} for {count} nodes: the masks can be its rows or its columns; save a list of masks"
        )
    return (value[:, _number(what, mask, shape[1])], shape[1]) if shape[0] == count else (
        value[_number(what, mask, shape[0])], shape[0])  # fmt: skip


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple) else int(value.shape[0])


def _is_part(value: Any) -> bool:
    return isinstance(value, list | tuple) or len(getattr(value, "shape", ())) > 0


def _at(parts: Any, what: str, mask: int) -> Any:
    return parts[_number(what, mask, len(parts))]


def _number(what: str, mask: int, columns: int) -> int:
    if mask >= columns:
        raise SourceError(f"{what} has {columns} alternatives, 0 to {columns - 1}; mask is {mask}")
    return mask
