"""Which pictures belong together, and which side of the split each group is on; whole columns at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl4rl_plugin.core.seeding import unit_for
from ssl4rl_plugin.data.near_duplicates import SIGNATURE_BYTES, near_duplicates, unpack

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = ("train", "val")
"""The two sides of the split; elsewhere they are numbers, -1 for neither."""
TRAIN, VAL = 0, 1

_PAIRS = 1 << 20  # taken in at a time
_BLOCK = 1 << 16  # values that are Python objects at a time

IntArray = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Groups:
    """Group and split of every row of a table."""

    names: pa.Array
    """Names of the groups."""
    group: IntArray
    """Position in `names`; -1 for a row that is in none."""
    split: IntArray
    """The side."""
    copied: IntArray
    """For a row that its source calls training: the row that shows the same, and that it calls validation; else -1."""


def group_and_split(
    rows: IntArray,
    sha256: pa.ChunkedArray,
    together: pa.ChunkedArray,
    near: Iterable[tuple[int, int]],
    stated: IntArray,
    seed: int,
    val_fraction: float,
) -> Groups:
    """Put rows of equal content, of one name in `together` and of a pair in `near` into one group, and each group on one
    side of the split.

    Args:
        rows: numbers of the usable rows.
        sha256: what the content is, in hex, for every row.
        together: the source's own name of the group; null for none.
        near: pairs of row numbers.
        stated: the side that the source has the row on; -1 where it does not say.
        seed: with the group it decides on the side where the source does not say.
        val_fraction: share of the groups that become validation then.
    """
    import pyarrow.compute as pc

    contents = sha256.take(rows).combine_chunks().dictionary_encode()
    by_hash = pc.sort_indices(contents.dictionary).to_numpy()
    rank = np.empty_like(by_hash)
    rank[by_hash] = np.arange(len(by_hash))
    content = rank[contents.indices.to_numpy()]

    label = _joined(np.arange(len(stated)), rows, rows[_first_equal(content)])
    named = together.take(rows).combine_chunks().dictionary_encode().indices
    if named.null_count < len(named):
        members = rows[named.is_valid().to_numpy(zero_copy_only=False)]
        label = _joined(label, members, members[_first_equal(named.drop_null().to_numpy())])
    flat = chain.from_iterable(near)
    while len(pairs := np.fromiter(islice(flat, 2 * _PAIRS), np.int64).reshape(-1, 2)):
        label = _joined(label, pairs[:, 0], pairs[:, 1])

    # A group is called after the least of its hashes, whatever the order of its members.
    group = np.unique(label[rows], return_inverse=True)[1]
    count = int(group.max(initial=-1)) + 1
    least = np.full(count, len(by_hash))
    np.minimum.at(least, group, content)
    names = contents.dictionary.take(by_hash[least])

    told = stated[rows]
    first_val = np.full(count, len(stated))
    np.minimum.at(first_val, group[told == VAL], rows[told == VAL])
    side = np.where(first_val < len(stated), VAL, TRAIN).astype(np.int8)
    free = np.ones(count, bool)
    free[group[told >= 0]] = False
    for block in np.array_split(np.flatnonzero(free), 1 + count // _BLOCK):
        units = (unit_for(seed, "split", name) for name in names.take(block).to_pylist())
        side[block] = [VAL if unit < val_fraction else TRAIN for unit in units]
    copy = (side[group] == VAL) & (told == TRAIN)
    return Groups(
        pc.utf8_slice_codeunits(names, 0, 16),
        _spread(group, rows, len(stated)),
        _spread(np.where(copy, -1, side[group]), rows, len(stated)),
        _spread(np.where(copy, first_val[group], -1), rows, len(stated)),
    )


def near_pairs(
    signatures: pa.ChunkedArray, rows: IntArray, advance: Callable[[int], None] | None = None
) -> Iterator[tuple[int, int]]:
    """Pairs of rows that show the same picture by their signatures, enough of them to connect all such rows.

    Args:
        signatures: of every row; null for one that is not compared.
        rows: numbers of the usable rows.
        advance: called with the number of rows looked up since the last call.
    """
    compared = rows[signatures.is_valid().to_numpy()[rows]]
    found = np.empty((len(compared), SIGNATURE_BYTES), np.uint8)  # one copy of them all, and no second one half-way
    for start in range(0, len(compared), _BLOCK):
        block = slice(start, start + _BLOCK)
        found[block] = unpack(signatures.take(compared[block]))
    for one, other in near_duplicates(found, advance):
        yield int(compared[one]), int(compared[other])


def _joined(label: IntArray, ones: IntArray, others: IntArray) -> IntArray:
    """Labels of rows after the labels of each pair of rows have become one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = int(label.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(ones), np.int8), (label[ones], label[others])), shape=(size, size))
    return connected_components(edges, directed=False)[1][label]


def _first_equal(values: IntArray) -> IntArray:
    """For every value, the position of the first one that is equal."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _spread(values: IntArray, rows: IntArray, count: int) -> IntArray:
    """Values in their rows, and -1 in the others."""
    spread = np.full(count, -1, values.dtype)
    spread[rows] = values
    return spread
