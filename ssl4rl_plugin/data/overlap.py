"""Find the images that two manifests share: equal files, and re-encoded, scaled or cropped copies."""

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
    """An image that occurs in both manifests."""

    one: str
    """Its ref in the first manifest."""
    other: str
    """Ref of one copy in the second manifest."""
    how: str
    """`equal bytes` or `near-duplicate`."""


def overlap(one: Manifest, other: Manifest, splits: tuple[str, ...] = ("train", "val")) -> list[SharedImage]:
    """Usable images of one manifest that also occur in another, usable there or not.

    Args:
        one: the first manifest.
        other: the second manifest.
        splits: splits of the first manifest to search.

    Returns:
        One entry for each shared image, in the order of the first manifest.
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
    # Crops have no signature: only their bytes are compared.
    alone = ours["signature"].is_valid().to_numpy() & ~np.isin(np.arange(len(ours)), list(found))
    left = np.flatnonzero(alone)
    rest, seen = ours.take(left), theirs.filter(pc.is_valid(theirs["signature"]))
    for i, j in matches(unpack(rest["signature"]), unpack(seen["signature"])):
        found[int(left[i])] = SharedImage(rest["ref"][i].as_py(), seen["ref"][j].as_py(), "near-duplicate")
    return [found[i] for i in sorted(found)]


def _strings(values: tuple[str, ...]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())
