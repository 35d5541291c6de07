"""Nodes from a table: which columns hold ids, texts, names, classes and splits.

A column becomes the classes only if the user names it, or if its name says so and its values repeat like classes.
A `label` that is different for nearly every node is the node's name, as in Gephi.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl4rl_plugin.core.graph import SPLITS
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.columns import whole_numbers
from ssl4rl_plugin.data_builders.sources.graphs.tables import Column, Table, check_refused
from ssl4rl_plugin.data_builders.sources.graphs.text import NUMBER
from ssl4rl_plugin.graphs.divide import NO_NAME

ID = ("id", "node_id", "nodeid", "node id", "node", "key", "name")
"""Names of the column of ids, the surest first."""
TEXT = ("text", "raw_text", "raw_texts", "title", "abstract", "abs", "description", "content")
"""Names of columns of texts."""
CLASSES = ("label_name", "class", "category", "classes", "y")
"""Names of columns of classes. `label` is one too, if it repeats."""
SPLIT = ("split", "fold", "set")
"""Names of the column of splits."""
MASKS = ("train_mask", "val_mask", "test_mask")
"""Names of the three columns of masks."""
ROLES = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2}
"""The splits by their names in files."""
FEW = 20
"""Nodes below which a column repeats like classes if half of its values do."""


@dataclass(frozen=True)
class NodeOptions:
    """What the user says about a table of nodes; None where the reader decides."""

    header: bool | None = None
    """Whether the first line names the columns."""
    label_column: str | None = None
    """Name of the column or attribute of classes; `none` for no classes."""
    id_column: str | None = None
    """Name of the column of ids."""


@dataclass(eq=False)
class Nodes:
    """Nodes with their texts."""

    ids: list[str]
    texts: list[str]
    """Empty where the file has no text."""
    labels: list[str] | None = None
    """Name of each node's class; empty for none."""
    roles: np.ndarray | None = None
    """Number of each node's split (int8)."""
    labels_from: str = ""
    splits_from: str = ""
    refused: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Number of nodes without a text."""
        return sum(not text for text in self.texts)


def is_node_header(fields: Sequence[str]) -> bool:
    """Whether fields are names of columns of nodes, for certain: two of them are known."""
    lower = [name.strip("\"' ").lower() for name in fields]
    known = {*ID, *TEXT, *CLASSES, *SPLIT, *MASKS, "label"} - {"y"}
    return sum(name in known for name in lower) >= 2 and len(set(lower)) == len(lower)


def nodes_of(
    table: Table,
    options: NodeOptions,
    ends: Collection[str] = (),
    ids: Sequence[str] | None = None,
    vocabulary: Any = None,
) -> Nodes:
    """The nodes in a table.

    Args:
        table: the table.
        options: what the user says about it.
        ends: the names that edges use.
        ids: the nodes' ids, if no column holds them.
        vocabulary: names of features, if the columns are features.

    Raises:
        SourceError: it can be read in two ways, an id occurs twice, or nothing describes the nodes.
    """
    if table.header is None and table.first is not None:
        table = _headed(table, options, ends)
    names = table.names()
    lower = [name.strip().lower() for name in names]
    where = table.where
    if repeated := [name for name, count in Counter(lower).items() if count > 1 and name]:
        raise SourceError(f"{where} has more than one column {repeated[0]!r}: rename one of them")
    nodes = Nodes([], [], refused=table.refused.counts, found=list(table.found))
    used = {place for place, name in enumerate(lower) if not name}
    if ids is None:
        ids, table = _ids(table, lower, nodes, used, options, ends)
    nodes.ids = list(ids)
    columns = table.columns
    _splits(columns, lower, nodes, used, where)
    classes = _classes(columns, lower, options, where, nodes)
    if classes is not None:
        used.add(classes)
        nodes.labels = [_present(value) for value in columns[classes].strings()]
        nodes.labels_from = f"column {names[classes]!r}"
    texts = [place for place, name in enumerate(lower) if name.replace(" ", "_") in TEXT and place not in used]
    titles = [place for place, name in enumerate(lower) if name in ("label", "name") and place not in used]
    rest = [place for place, name in enumerate(lower) if place not in used and name not in (*CLASSES, "label")]
    if vocabulary is not None and not texts and rest and all(columns[place].numeric for place in rest):
        keys = [names[place] for place in rest]
        rows = zip(*([float(value or 0) for value in columns[place].strings()] for place in rest), strict=True)
        nodes.texts = [
            described(
                {key: float(value or 0) for key, value in zip(keys, row, strict=True) if float(value or 0)}, vocabulary
            )
            for row in rows
        ]
        return nodes
    if texts:
        _join(nodes, [columns[place] for place in texts])
        used |= {*texts}
    elif titles and _tell(columns[titles[0]], nodes.ids):
        _join(nodes, [columns[titles[0]]])
        used.add(titles[0])
        nodes.found.append(f"column {names[titles[0]]!r} holds names")
    elif rest and any(columns[place].known for place in rest):
        told = [(names[place], columns[place].strings()) for place in rest]
        nodes.texts = [
            "; ".join(f"{name}: {values[k]}" for name, values in told if _present(values[k]))
            for k in range(len(nodes.ids))
        ]
        used |= {*rest}
        nodes.found.append(f"texts from {', '.join(names[place] for place in rest[:8])}")
    else:
        nodes.texts = texts_of_ids(nodes.ids, where)
        nodes.found.append("ids are the texts")
    nodes.unused = [names[place] for place in range(len(names)) if place not in used]
    return nodes


def texts_of_ids(ids: Sequence[str], where: str) -> list[str]:
    """The ids as texts. Raises SourceError if they are numbers."""
    if all(NUMBER.fullmatch(name) for name in ids):
        raise SourceError(
            f"the nodes of {where} are numbers without texts: give a table of nodes with "
            "`+ssl4rl.source.options.nodes=FILE` (columns id and text)"
        )
    return [name.replace("_", " ") for name in ids]


def described(value: Any, vocabulary: Any) -> str:
    """A node's text from the names of its features, the largest first, or from a text. `vocabulary` is a list or mapping."""
    if not isinstance(value, Mapping) or vocabulary is None:
        return "" if value is None else str(value)
    names = vocabulary if isinstance(vocabulary, Mapping) else dict(enumerate(vocabulary))
    ranked = sorted(value.items(), key=lambda entry: (-entry[1], entry[0]))
    return " ".join(str(names.get(key, names.get(int(key) if str(key).isdecimal() else key, ""))) for key, _ in ranked)


def _headed(table: Table, options: NodeOptions, ends: Collection[str]) -> Table:
    """The table with its header, or without one. Raises SourceError if either is possible."""
    first = table.first
    assert first is not None
    width = len(first)
    lower = [name.strip("\"' ").lower() for name in first]
    known = sum(name in (*ID, *TEXT, *CLASSES, *SPLIT, *MASKS, "label") for name in lower)
    ids = table.columns[0].known
    if options.header is not None:
        headed = options.header
    elif first[0] in ends:
        headed = False
    elif known >= min(2, width) or (not first[0] and width > 2):
        headed = True
    elif any(column.numeric and value and not NUMBER.fullmatch(value)
             for column, value in zip(table.columns, first, strict=True)):  # fmt: skip
        headed = not any(NUMBER.fullmatch(value) for value in first)
    elif NUMBER.fullmatch(first[0]) or not len(table):
        headed = False
    elif known or (all(re.search(r"\d", name) for name in ids) and not re.search(r"\d", "".join(first))):
        headed = True
    else:
        raise SourceError(
            f"{table.where} can be read in two ways: its first line ({', '.join(first)[:80]}) names the columns, or is a "
            "node. Say which with nodes_header=true or nodes_header=false"
        )
    if headed:
        table.header = [name.strip("\"' ") for name in first]
        table.found.append(f"header {' '.join(table.header)[:50]}")
        return table
    if width > 2:
        raise SourceError(
            f"{table.where} has {width} columns and no header: write the names of the columns (id, text, label, ...) into "
            "its first line"
        )
    table = table.with_first()
    values = table.columns[1]
    if len(table) >= FEW and 4 * len(values.known) <= len(table):
        raise SourceError(
            f"{table.where} can be read in two ways: its second column ({', '.join(values.known[:3])}, ...) holds texts or "
            "classes. Write a header into its first line: id and text, or id and label"
        )
    table.header = ["id", "text"]
    return table


def _ids(
    table: Table, lower: list[str], nodes: Nodes, used: set[int], options: NodeOptions, ends: Collection[str]
) -> tuple[list[str], Table]:
    """The nodes' ids, and the table without rows that have none. Raises SourceError if another column fits better."""
    place = next((lower.index(name) for name in ID if name in lower), None)
    if options.id_column is not None:
        if options.id_column.strip().lower() not in lower:
            raise SourceError(
                f"{table.where} has no column {options.id_column!r} (option id_column); it has {', '.join(lower)}"
            )
        place = lower.index(options.id_column.strip().lower())
    if place is None:
        place = next((k for k, name in enumerate(lower) if re.fullmatch(r"\w*[_ ]?id", name)), None)
    if place is None:
        place = next(k for k in range(len(lower)) if k not in used)
        nodes.found.append(f"ids from the first column, {lower[place]!r}")
    if options.id_column is None and ends:
        hits = [sum(name in ends for name in column.known) for column in table.columns]
        better = [
            k for k, name in enumerate(lower) if hits[k] > hits[place] and re.search(r"id\b|name|key|node|index", name)
        ]
        if better:
            raise SourceError(
                f"{table.where}: edges name {hits[place]} values of column {lower[place]!r} and {hits[better[0]]} of column "
                f"{lower[better[0]]!r}: say which holds the ids with the option id_column"
            )
    used.add(place)
    empty = table.columns[place].rows_where(lambda value: not value.strip())
    if empty.any():
        table.refused.add("an empty id", int(table.lines[int(empty.argmax())]), int(empty.sum()))
        table = table.only(~empty)
    check_refused(table.refused, len(table), table.where)
    nodes.found += table.refused.places()
    ids = table.columns[place].strings()
    if len(set(ids)) < len(ids):
        twice = next(node for node, count in Counter(ids).items() if count > 1)
        lines = [int(line) for line, node in zip(table.lines, ids, strict=True) if node == twice]
        raise SourceError(
            f"the table of nodes {table.where} has {twice!r} more than once, in lines {lines[0]} and {lines[1]}"
        )
    if whole := whole_numbers(ids):
        nodes.found.append("ids like 1.0 are read as 1")
        ids = whole
    return ids, table


def _splits(columns: Sequence[Column], lower: list[str], nodes: Nodes, used: set[int], where: str) -> None:
    """Splits from a column of their names, or from columns of masks."""
    if masks := [name for name in MASKS if name in lower]:
        roles = np.zeros(len(nodes.ids), np.int8)
        taken = np.zeros(len(nodes.ids), bool)
        for name in masks:
            place = lower.index(name)
            if strange := {value.lower() for value in columns[place].known} - {"true", "false", "0", "1", "0.0", "1.0"}:
                raise SourceError(f"{where}: column {name} must hold true and false, and has {min(strange)!r}")
            inside = columns[place].rows_where(lambda value: value.lower() in ("true", "1", "1.0"))
            if (taken & inside).any():
                node = nodes.ids[int((taken & inside).argmax())]
                raise SourceError(f"{where}: node {node!r} is in more than one of {', '.join(masks)}")
            roles[inside] = MASKS.index(name)
            taken |= inside
            used.add(place)
        nodes.roles, nodes.splits_from = roles, f"columns {', '.join(masks)}"
        nodes.found += [f"{int((~taken).sum())} nodes without a split are train"] if not taken.all() else []
        return
    for place, name in enumerate(lower):
        if name not in SPLIT or place in used:
            continue
        values = {value.lower() for value in columns[place].known}
        strange = values - ROLES.keys()
        if not values or strange == values:
            continue  # folds, or another meaning of the word
        if strange:
            raise SourceError(
                f"{where}: column {name!r} has the split {min(strange)!r}; splits are {', '.join(SPLITS)} (or "
                f"{', '.join(sorted(ROLES.keys() - {*SPLITS}))})"
            )
        nodes.roles = np.array([ROLES.get(value.lower(), 0) for value in columns[place].values], np.int8)[
            columns[place].codes
        ]
        nodes.splits_from = f"column {name!r}"
        if none := int(columns[place].rows_where(lambda value: not value).sum()):
            nodes.found.append(f"{none} nodes without a split are train")
        used.add(place)
        return


def _classes(columns: Sequence[Column], lower: list[str], options: NodeOptions, where: str, nodes: Nodes) -> int | None:
    """The column of classes; None if there is none. Raises SourceError if that cannot be told."""
    if options.label_column is not None:
        name = options.label_column.strip().lower()
        if name == "none":
            return None
        if name not in lower:
            raise SourceError(
                f"{where} has no column {options.label_column!r} (option label_column); it has {', '.join(lower)}"
            )
        return lower.index(name)
    found = []
    for place, name in enumerate(lower):
        if name not in (*CLASSES, "label") or (name == "y" and "x" in lower):  # x and y are places in a drawing
            continue
        column = columns[place]
        many = int(column.rows_where(bool).sum())
        different = len(column.known)
        if name == "label":
            if different <= many / (2 if many < FEW else 4):
                found.append(place)
            elif many >= FEW and different <= 0.8 * many:
                raise SourceError(
                    f"{where}: column 'label' has {different} different values for {many} nodes, which can be classes or "
                    "names: set the option label_column=label (classes) or label_column=none (names)"
                )
        elif any(NUMBER.fullmatch(value) and not float(value.replace(",", ".")).is_integer() for value in column.known):
            nodes.found.append(f"column {name!r} holds quantities, not classes")
        elif different and (different < many if many < FEW else 2 * different <= many):
            found.append(place)
        elif different:
            nodes.found.append(f"column {name!r} is different for nearly every node, so it holds no classes")
    if len(found) > 1:
        pairs = {len({*zip(columns[found[0]].codes.tolist(), columns[k].codes.tolist(), strict=True)}) for k in found}
        if pairs != {len(columns[found[0]].values)}:
            raise SourceError(
                f"{where}: columns {' and '.join(repr(lower[k]) for k in found)} can both be the classes: set the option "
                "label_column to one of them"
            )
        found.sort(key=lambda place: columns[place].numeric)  # of equal divisions, the one with names
    return found[0] if found else None


def _tell(column: Column, ids: Sequence[str]) -> bool:
    """Whether a column of names tells more than numbers that are the ids anyway."""
    if not column.known:
        return False
    numbers = column.numeric and all(NUMBER.fullmatch(name) for name in ids)
    return not numbers or any(name not in ("", node) for name, node in zip(column.strings(), ids, strict=True))


def _join(nodes: Nodes, columns: Sequence[Column]) -> None:
    """The texts of several columns, joined."""
    parts = [column.strings() for column in columns]
    nodes.texts = [". ".join(filter(None, map(_present, row))) for row in zip(*parts, strict=True)]


def _present(value: str) -> str:
    """The value; empty if it only stands for a missing one."""
    return "" if value.strip().lower() in NO_NAME else value
