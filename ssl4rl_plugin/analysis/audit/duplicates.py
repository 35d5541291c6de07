"""Count the duplicates in a manifest, and check independently that none are in both splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.near_duplicates import SIGNATURE_BYTES, matches

MAX_COMPARED = 10_000
"""Maximum number of pictures compared across the splits; larger sources are subsampled evenly."""


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of a source."""

    train: int
    """Usable pictures in the training split."""
    val: int
    """Usable pictures in the validation split."""
    exact: int
    """Usable pictures with the same bytes as an earlier one of their split."""
    near: int
    """Usable pictures with nearly the same content as an earlier one of their split, but other bytes (same group)."""
    rejected: dict[str, int]
    """Pictures left out when the source was indexed, by reason."""
    straddling: tuple[str, ...]
    """Groups and pictures that are in both splits, in words; must be empty."""
    compared: int
    """Pictures that were compared across the splits."""


def duplicates(manifest: Manifest) -> Duplicates:
    """Count duplicates within the splits, and find duplicates between them by group, bytes and content."""
    table = manifest.with_signatures()
    names = ("ref", "sha256", "signature", "group", "split", "box", "reason")
    good = [row for row in zip(*(table[name].to_pylist() for name in names), strict=True) if row[-1] is None]
    exact = near = 0
    contents: set[tuple[str, str, str]] = set()
    groups: set[tuple[str, str]] = set()
    splits_of_group: dict[str, set[str]] = defaultdict(set)
    splits_of_bytes: dict[str, dict[str, str]] = defaultdict(dict)
    whole: list[tuple[str, str, bytes]] = []
    for ref, sha256, signature, group, split, box, _ in good:
        content = (split, sha256, str(box))
        # Crops of one picture share bytes and group, and are no duplicates.
        if content in contents:
            exact += 1
        elif (split, group) in groups and box is None:
            near += 1
        contents.add(content)
        groups.add((split, group))
        splits_of_group[group].add(split)
        splits_of_bytes[sha256][split] = ref
        if signature is not None:
            whole.append((ref, split, signature))
    straddling = [f"group {group}" for group, splits in splits_of_group.items() if len(splits) > 1]
    straddling += [f"{' and '.join(refs.values())}: equal bytes" for refs in splits_of_bytes.values() if len(refs) > 1]
    whole = whole[:: max(1, len(whole) // MAX_COMPARED)]
    straddling += _near(whole)
    splits = Counter(row[4] for row in good)
    return Duplicates(
        splits["train"], splits["val"], exact, near, dict(manifest.rejected), tuple(straddling), len(whole)
    )


def _near(pictures: list[tuple[str, str, bytes]]) -> list[str]:
    """Near-duplicates across the splits, in words."""
    sides = [[entry for entry in pictures if entry[1] == split] for split in ("train", "val")]
    train, val = (
        np.frombuffer(b"".join(entry[2] for entry in side), np.uint8).reshape(-1, SIGNATURE_BYTES) for side in sides
    )
    return [f"{sides[1][i][0]} and {sides[0][j][0]}: near-duplicates" for i, j in matches(val, train)]
