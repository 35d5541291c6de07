"""Labels of nodes in saved tensors, and the names of their classes. What is no class of a node becomes "no label"."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.tensor_file import array_of, shape_of, whole_numbers

CLASS_NAMES = ("label_name", "label_names", "label_text", "label_texts", "class_name", "class_names", "category_names",
               "category_name")  # fmt: skip
"""Keys of the names of classes: one for each class, or one for each node."""


def labels_in(
    content: Mapping[str, Any], where: str, count: int, counted: Counter[str], used: set[str]
) -> tuple[np.ndarray | None, tuple[str, ...], str]:
    """The number of each node's class (int32, -1 for none), the classes' names, and where they come from.

    Args:
        content: y (numbers, numbers as floats, one-hot rows, or names), and names of classes.
        where: the graph, for messages.
        count: number of nodes.
        counted: gets the number of nodes without a label, by reason.
        used: gets the keys that were read.

    Raises:
        SourceError: y is of another length or kind, or numbers and names contradict each other.
    """
    y = content.get("y")
    if y is None:
        return None, (), ""
    used.add("y")
    if is_words(y):
        names = words_of(y, f"{where}: y", count)
        classes = tuple(sorted({name for name in names if name}))
        number = {name: k for k, name in enumerate(classes)}
        counted["labels_missing"] += sum(not name for name in names)
        return np.array([number.get(name, -1) for name in names], np.int32), classes, "y"
    labels = class_numbers(y, f"{where}: y", count, counted)
    given = [key for key in CLASS_NAMES if content.get(key) is not None]
    if not given:
        counted["labels_without_names"] += int(np.count_nonzero(labels >= 0))
        return None, (), ""
    used.update(given)
    highest = int(labels.max(initial=-1))
    for_classes, for_nodes = _sorted_names(content, given, where, labels)
    if for_classes is None:
        assert for_nodes is not None
        key, names = for_nodes
        found, classes = _named_by_node(labels, names, f"{where}: {key}")
        counted["labels_without_names"] += int(np.count_nonzero((labels >= 0) & (found < 0)))
        return found, classes, f"y and {key}"
    key, names = for_classes
    if highest >= len(names):
        raise SourceError(f"{where}: y has classes up to {highest}, and {key} has {len(names)} names")
    shape = shape_of(y, f"{where}: y")
    if len(shape) == 2 and min(shape) > 1 and shape[1] != len(names):
        raise SourceError(f"{where}: y has a column for each of {shape[1]} classes, and {key} has {len(names)} names")
    if for_nodes is not None:
        _agree(labels, names, for_nodes[1], where, key, for_nodes[0])
    return labels.astype(np.int32), tuple(names), f"y and {key}"


def is_words(value: Any) -> bool:
    """Whether a value is a list or an array with strings in it."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        return True
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return False
    return isinstance(value, list | tuple | np.ndarray) and any(isinstance(entry, str) for entry in value)


def words_of(value: Any, what: str, count: int | None = None) -> list[str]:
    """Names: strings, or "" for None, NaN and blanks. Raises SourceError for another type or number."""
    if isinstance(value, Mapping):
        value = _by_number(value, what)
    entries = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(entries, list | tuple):
        raise SourceError(f"{what} must be a list of names, got {type(value).__name__}")
    names = []
    for entry in entries:
        entry = "" if entry is None or (isinstance(entry, float) and math.isnan(entry)) else entry
        if isinstance(entry, bool) or not isinstance(entry, str | int):
            raise SourceError(f"{what} must be a list of names, got a {type(entry).__name__} in it")
        names.append(str(entry).strip())
    if count is not None and len(names) != count:
        raise SourceError(f"{what} has {len(names)} entries for {count} nodes")
    return names


def _by_number(value: Mapping[Any, Any], what: str) -> list[Any]:
    """The names of a dict from numbers to names, or from names to numbers, in the order of the numbers."""
    numbers = all(type(key) is int for key in value)
    pairs = dict(value) if numbers else {number: name for name, number in value.items()}
    if not pairs or len(pairs) < len(value) or not all(type(key) is int and 0 <= key < 2**16 for key in pairs):
        raise SourceError(f"{what} is a dict that does not map numbers to names, or names to numbers")
    return [pairs.get(number, "") for number in range(max(pairs) + 1)]


def class_numbers(y: Any, what: str, count: int, counted: Counter[str]) -> np.ndarray:
    """The number of each node's class (int64, -1 for none), from numbers, floats, or one-hot rows. Raises SourceError."""
    shape = shape_of(y, what)
    if len(shape) == 2 and shape[0] == 1 and count != 1:
        shape = (shape[1], 1)
    if not shape or shape[0] != count or len(shape) > 2:
        raise SourceError(f"{what} has {shape[0] if shape else 1} entries (shape {shape}) for {count} nodes")
    if len(shape) == 2 and shape[1] == 0:
        raise SourceError(f"{what} has no columns")
    values = array_of(y, what)
    if len(shape) == 2 and shape[1] > 1:
        return _one_hot(values, what, counted)
    values = values.reshape(-1)
    if values.dtype.kind == "f":
        absent = np.isnan(values)
        counted["labels_missing"] += int(absent.sum())
        values = np.where(absent, -1, values)
    try:
        numbers = whole_numbers(values, what)
    except SourceError as error:
        raise SourceError(
            f"{error}: y must number the classes; leave it out if it holds other values, the pretext tasks need no labels"
        ) from error
    return np.where(numbers < 0, -1, numbers)


def _one_hot(values: np.ndarray, what: str, counted: Counter[str]) -> np.ndarray:
    """The class of each row with a single one; -1 for rows with none or several."""
    if not np.isin(values, (0, 1)).all():
        raise SourceError(
            f"{what} of shape {values.shape} holds other values than 0 and 1, so it is not one-hot: give one number for "
            "each node, or leave y out, the pretext tasks need no labels"
        )
    ones = (values == 1).sum(1)
    counted["labels_without_a_class"] += int(np.count_nonzero(ones == 0))
    counted["labels_of_several_classes"] += int(np.count_nonzero(ones > 1))
    return np.where(ones == 1, values.argmax(1), -1).astype(np.int64)


def _sorted_names(
    content: Mapping[str, Any], given: list[str], where: str, labels: np.ndarray
) -> tuple[tuple[str, list[str]] | None, tuple[str, list[str]] | None]:
    """The first list with a name for each class, and the first with a name for each node, with their keys."""
    for_classes = for_nodes = None
    for key in given:
        names = words_of(content[key], f"{where}: {key}")
        if isinstance(content[key], Mapping) or not _by_node(labels, names, f"{where}: {key}"):
            for_classes = for_classes or (key, names)
        else:
            for_nodes = for_nodes or (key, names)
    return for_classes, for_nodes


def _by_node(labels: np.ndarray, names: list[str], what: str) -> bool:
    """Whether a list has a name for each node, not for each class. Raises SourceError if it can be read both ways."""
    if len(names) != len(labels):
        return False
    given = [name for name in names if name]
    if len(set(given)) < len(given) or int(labels.max(initial=-1)) >= len(names):
        return True  # classes have different names
    of: dict[int, str] = {}
    for number, name in zip(labels.tolist(), names, strict=True):
        if number >= 0 and of.setdefault(number, name) != name:
            return False
    if any(names[number] != name for number, name in of.items()):
        raise SourceError(
            f"{what} has as many names as there are nodes, and they can be those of the nodes or of the classes: give one "
            "name for each class"
        )
    return False


def _named_by_node(labels: np.ndarray, names: list[str], what: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and names of classes, from the name at each node. Raises SourceError if a class has several names."""
    of: dict[int, str] = {}
    for number, name in zip(labels.tolist(), names, strict=True):
        if number < 0 or not name:
            continue
        if of.setdefault(number, name) != name:
            raise SourceError(f"{what} names class {number} both {of[number]!r} and {name!r}")
    if not of and (labels >= 0).any():
        raise SourceError(f"{what} has only empty names")
    order = {number: place for place, number in enumerate(sorted(of))}
    found = np.array([order.get(number, -1) for number in labels.tolist()], np.int32)
    return found, tuple(of[number] for number in sorted(of))


def _agree(labels: np.ndarray, names: list[str], at_nodes: list[str], where: str, key: str, other: str) -> None:
    """Raise SourceError if a node's own name is the name of another class than its number says."""
    number = {name.casefold(): k for k, name in enumerate(names) if name}
    for node, (label, name) in enumerate(zip(labels.tolist(), at_nodes, strict=True)):
        named = number.get(name.casefold()) if name else None
        if label >= 0 and named is not None and named != label and names[label].casefold() != name.casefold():
            raise SourceError(
                f"{where}: node {node} is of class {label}, which {key} calls {names[label]!r} and {other} calls {name!r}: "
                "leave the wrong one out"
            )
