"""Groups of duplicate pictures, and the split of each group. Works on whole columns."""

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
"""The two splits. Arrays hold their positions here, -1 for neither."""
TRAIN, VAL = 0, 1

_PAIRS = 1 << 20  # pairs processed at a time
_BLOCK = 1 << 16  # values converted to Python objects at a time

IntArray = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Groups:
    """Group and split of every row of a table."""

    names: pa.Array
    """Names of the groups."""
    group: IntArray
    """Position in `names`; -1 for a row without a group."""
    split: IntArray
    """Position in `SIDES`; -1 for neither."""
    copied: IntArray
    """For a training row of the source with a validation row in its group: that validation row. Else -1."""


def group_and_split(
    rows: IntArray,
    sha256: pa.ChunkedArray,
    together: pa.ChunkedArray,
    near: Iterable[tuple[int, int]],
    stated: IntArray,
    seed: int,
    val_fraction: float,
) -> Groups:
    """Put rows into one group if their content is equal, they share a name in `together`, or they are a pair in `near`.
    Assign each group to one split.

    Args:
        rows: numbers of the usable rows.
        sha256: hash of the content of every row, in hex.
        together: the source's own name for the group; null for none.
        near: pairs of row numbers.
        stated: position in `SIDES` that the source states for every row; -1 for none.
        seed: decides, with the group, on the split of a group without a stated one.
        val_fraction: share of these groups that become validation.
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

    # A group is named after its smallest hash, so the order of its members does not matter.
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
    """Pairs of rows with matching signatures, enough to connect all rows of a group.

    Args:
        signatures: signature of every row; null for a row that is not compared.
        rows: numbers of the usable rows.
        advance: called with the number of rows looked up since the last call.
    """
    compared = rows[signatures.is_valid().to_numpy()[rows]]
    found = np.empty(
        (len(compared), SIGNATURE_BYTES), np.uint8
    )  # filled in blocks, so that there is never a second copy
    for start in range(0, len(compared), _BLOCK):
        block = slice(start, start + _BLOCK)
        found[block] = unpack(signatures.take(compared[block]))
    for one, other in near_duplicates(found, advance):
        yield int(compared[one]), int(compared[other])


def _joined(label: IntArray, ones: IntArray, others: IntArray) -> IntArray:
    """Labels of rows after the labels of each pair of rows are merged."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = int(label.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(ones), np.int8), (label[ones], label[others])), shape=(size, size))
    return connected_components(edges, directed=False)[1][label]


def _first_equal(values: IntArray) -> IntArray:
    """For every value, the position of the first equal value."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _spread(values: IntArray, rows: IntArray, count: int) -> IntArray:
    """An array of length `count` with the values in `rows`, and -1 elsewhere."""
    spread = np.full(count, -1, values.dtype)
    spread[rows] = values
    return spread
