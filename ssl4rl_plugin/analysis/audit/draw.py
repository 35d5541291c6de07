"""Draw samples for the audit, spread over the pictures, in two halves that share no picture.

The training stream (`ssl4rl_plugin.data.samples`) is not used: an audit needs the halves before the first draw, and counts
every draw that a task refuses.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from PIL import Image

from ssl4rl_plugin.analysis.audit.control import control_data
from ssl4rl_plugin.analysis.audit.features import SampleFeatures, describe
from ssl4rl_plugin.analysis.audit.text import describe_text
from ssl4rl_plugin.core import RGBD, Clip, GraphNode, Item, Rejection, Sample
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.seeding import digest, rng_for
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.graphs import GraphManifest
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.manifest import Manifest

DRAWS_PER_ITEM = 4
"""Corruptions tried on one item before moving to the next one, as in training."""
MAX_DRAWS = 10
"""Maximum number of draws for each wanted sample. A task that needs more does not fit the pictures."""
CONTROL_ITEMS = {"image": 96, "rgbd": 96, "video": 32, "graph": 160}
"""Number of content-free items of each kind. Few are enough for many samples: they have nothing to memorise."""

Data = Image.Image | RGBD | Clip | GraphNode


class TaskError(UserError):
    """A task raised an exception, or returned neither a sample nor a rejection."""


class ItemPool(Protocol):
    """Items to draw from; picklable."""

    def groups(self) -> Sequence[tuple[str, Sequence[int]]]:
        """Group ids with the numbers of their items."""
        ...

    def load(self, number: int) -> tuple[str, Data]:
        """Id and content of an item. Raises ImageError."""
        ...


class ManifestPool:
    """The usable items of a manifest, of both splits."""

    def __init__(self, manifest: Manifest, max_pixels: int) -> None:
        self.manifest = manifest
        self.max_pixels = max_pixels
        self._splits = (manifest.items("train"), manifest.items("val"))

    def groups(self) -> list[tuple[str, list[int]]]:
        table = self.manifest.table
        found: dict[str, list[int]] = {}
        number = 0
        rows = list(zip(*(table[name].to_pylist() for name in ("reason", "split", "group")), strict=True))
        for split in ("train", "val"):
            for reason, of, group in rows:
                if reason is None and of == split:
                    found.setdefault(group, []).append(number)
                    number += 1
        return list(found.items())

    def load(self, number: int) -> tuple[str, Data]:
        train, val = self._splits
        item = train[number] if number < len(train) else val[number - len(train)]
        return item.id, self.manifest.open(item, max_pixels=self.max_pixels)


class GraphPool:
    """The nodes of a graph in the train and val splits; each node is a group."""

    def __init__(self, manifest: GraphManifest) -> None:
        self.manifest = manifest
        self._splits = (manifest.items("train"), manifest.items("val"))

    def groups(self) -> list[tuple[str, list[int]]]:
        count = sum(map(len, self._splits))
        return [(f"node {number}", [number]) for number in range(count)]

    def load(self, number: int) -> tuple[str, Data]:
        train, val = self._splits
        item = train[number] if number < len(train) else val[number - len(train)]
        return item.id, self.manifest.open(item)


def pool_of(manifest: Manifest | GraphManifest, max_pixels: int) -> ItemPool:
    """The pool of a manifest or a graph."""
    return GraphPool(manifest) if isinstance(manifest, GraphManifest) else ManifestPool(manifest, max_pixels)


@dataclass(frozen=True)
class ControlPool:
    """Content-free items; each item is a group."""

    kind: str
    count: int

    def groups(self) -> list[tuple[str, list[int]]]:
        return [(f"control {number}", [number]) for number in range(self.count)]

    def load(self, number: int) -> tuple[str, Data]:
        return f"control {number}", _control(self.kind, number)


@lru_cache(maxsize=256)
def _control(kind: str, number: int) -> Data:
    return control_data(kind, number)


@dataclass
class Batch:
    """The features of one arm's samples from one half of the pictures."""

    described: list[SampleFeatures] = field(default_factory=list)
    truths: list[Any] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    """For each sample the group of its item."""
    draws: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    """Samples with the same pictures, question and truth as an earlier one."""

    def __len__(self) -> int:
        return len(self.truths)


def halves(pool: ItemPool, seed: int) -> tuple[list[tuple[str, Sequence[int]]], list[tuple[str, Sequence[int]]]]:
    """The pool's groups in two halves, which depend only on the seed. Near-duplicates share a group, and so a half."""
    groups = list(pool.groups())
    rng_for(seed, "audit", "halves").shuffle(groups)
    return groups[::2], groups[1::2]


def draw(
    arm: Arm, pool: ItemPool, groups: Sequence[tuple[str, Sequence[int]]], count: int, key: Sequence[str | int]
) -> Batch:
    """Up to `count` samples of an arm, from the groups in turn; fewer if the task refuses too many draws.

    `key` seeds everything. Raises TaskError if the task breaks its contract.
    """
    task, level = arm.task, arm.level
    batch = Batch()
    order = list(groups)
    rng_for(*key, arm.key, "order").shuffle(order)
    if len(order) <= task.others_needed:
        return batch
    seen: set[bytes] = set()
    limit = max(200, MAX_DRAWS * count)
    turn = 0
    while len(batch) < count and batch.draws < limit:
        group, members = order[turn % len(order)]
        rng = rng_for(*key, arm.key, turn, group)
        turn += 1
        try:
            name, data = pool.load(members[rng.randrange(len(members))])
            others = _others(pool, order, group, task.others_needed, rng)
        except ImageError as error:
            batch.draws += 1
            batch.refused[error.reason] += 1
            continue
        for _ in range(DRAWS_PER_ITEM):
            if batch.draws >= limit:
                break
            batch.draws += 1
            own = rng_for(*key, arm.key, name, turn, batch.draws)
            try:
                made = task.generate(Item(name, data, group, others), level, own)
            except Exception as error:  # a task of another package may raise anything
                raise TaskError(f"generate raised {type(error).__name__}: {error} (item {name})") from error
            if isinstance(made, Rejection):
                batch.refused[made.reason] += 1
                continue
            if not isinstance(made, Sample):
                raise TaskError(f"generate returned a {type(made).__name__}, not Sample or Rejection")
            batch.described.append(describe(made) if made.images or made.videos else describe_text(made))
            batch.truths.append(made.truth)
            batch.groups.append(group)
            same = _identity(made)
            batch.repeats += same in seen
            seen.add(same)
            break
    return batch


def _others(
    pool: ItemPool, order: Sequence[tuple[str, Sequence[int]]], group: str, count: int, rng: random.Random
) -> tuple[Item, ...]:
    """Items of `count` other groups of the same half."""
    if not count:
        return ()
    chosen = [entry for entry in rng.sample(range(len(order)), count + 1) if order[entry][0] != group][:count]
    found = []
    for entry in chosen:
        name, members = order[entry]
        identity, data = pool.load(members[rng.randrange(len(members))])
        found.append(Item(identity, data, name))
    return tuple(found)


def _identity(sample: Sample) -> bytes:
    mark = hashlib.blake2b(digest(sample.question, repr(sample.truth)), digest_size=16)
    for picture in (*sample.images, *(frame for clip in sample.videos for frame in clip.frames)):
        mark.update(repr(picture.size).encode() + picture.tobytes())
    return mark.digest()
