"""Which images two manifests share: equal files, and copies that were encoded, scaled or cropped anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.near_duplicates import matches, unpack

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class SharedImage:
    """An image of one manifest that the other has too."""

    one: str
    """Its ref in the first manifest."""
    other: str
    """Ref of one picture of the second that shows the same."""
    how: str
    """`equal bytes` or `near-duplicate`."""


def overlap(one: Manifest, other: Manifest, splits: tuple[str, ...] = ("train", "val")) -> list[SharedImage]:
    """Images that are usable in one manifest and occur in the other, usable or not there.

    Args:
        one: the first manifest.
        other: the second one.
        splits: splits of the first that are looked at.

    Returns:
        One entry for each such image of the first, in its order.
    """
    import pyarrow.compute as pc

    ours = one.with_signatures().select(["ref", "sha256", "signature", "split", "reason"])
    usable = pc.and_(pc.is_null(ours["reason"]), pc.is_in(ours["split"], value_set=_strings(splits)))
    ours = ours.filter(pc.fill_null(usable, False))
    theirs = other.with_signatures().select(["ref", "sha256", "signature"])
    equal = pc.index_in(ours["sha256"], value_set=theirs["sha256"].combine_chunks(), skip_nulls=True)
    found = {
        i: SharedImage(ours["ref"][i].as_py(), theirs["ref"][j].as_py(), "equal bytes")
        for i, j in enumerate(equal.to_pylist())
        if j is not None
    }
    # Crops have no signature: they are compared by their bytes alone.
    alone = ours["signature"].is_valid().to_numpy() & ~np.isin(np.arange(len(ours)), list(found))
    left = np.flatnonzero(alone)
    rest, seen = ours.take(left), theirs.filter(pc.is_valid(theirs["signature"]))
    for i, j in matches(unpack(rest["signature"]), unpack(seen["signature"])):
        found[int(left[i])] = SharedImage(rest["ref"][i].as_py(), seen["ref"][j].as_py(), "near-duplicate")
    return [found[i] for i in sorted(found)]


def _strings(values: tuple[str, ...]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())
