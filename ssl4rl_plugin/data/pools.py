"""Which sources each task draws from, and the items of a source in the order in which samples use them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast, overload

import numpy as np

from ssl4rl_plugin.core import Item
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.graphs import GraphItem, GraphManifest
from ssl4rl_plugin.data.manifest import ManifestItem
from ssl4rl_plugin.data.mixture import Mixture, Part


class SampleError(UserError):
    """The items of a run do not fit its tasks. The message counts the reasons."""


class SourceItems:
    """The items of one source in one split, in the order in which samples use them.

    Args:
        part: the source. Its label is empty for the only source of a run.
        seed: of the run.
        split: `train`, `val`, or `taught`: the groups of the training split that reinforcement learning never sees.
    """

    def __init__(self, part: Part, seed: int, split: str) -> None:
        self.label = part.settings.label
        self.weight = part.settings.weight
        self.kind = part.kind
        self._manifest = part.manifest
        self._max_pixels = part.settings.max_pixels
        self._seed = seed
        self._split = split
        self.items: Sequence[ManifestItem | GraphItem] = part.manifest.items("val" if split == "val" else "train")
        share, size = part.settings.taught_fraction, part.settings.train_size
        if split == "taught" or (split == "train" and share):
            groups: list[str] = [item.group for item in cast(Sequence[Any], self.items)]
            taught, wanted = taught_groups(set(groups), share, seed), split == "taught"
            self.items = _Subset(
                self.items, [place for place, group in enumerate(groups) if (group in taught) == wanted]
            )
        if split == "train" and size is not None:
            self.items = _Subset(
                self.items, _drawn_places(len(self.items), size, (seed, split, "subset", *self.key), self.label)
            )

    @property
    def key(self) -> tuple[str, ...]:
        """Its part of seeds."""
        return (self.label,) if self.label else ()

    @functools.lru_cache(maxsize=4)  # noqa: B019 -- it lives as long as its run
    def order(self, epoch: int) -> list[int]:
        """Permutation of the items for one epoch."""
        order = list(range(len(self.items)))
        rng_for(self._seed, self._split, "order", *self.key, epoch).shuffle(order)
        return order

    @cached_property
    def first_places(self) -> list[int]:
        """The place of each item in the first epoch."""
        places = [0] * len(self.items)
        for place, number in enumerate(self.order(0)):
            places[number] = place
        return places

    def id_of(self, row: ManifestItem | GraphItem) -> str:
        """The id of an item, unique in the run: `source:id` with several sources."""
        return f"{self.label}:{row.id}" if self.label else row.id

    def group_of(self, row: ManifestItem | GraphItem) -> str:
        """The group of an item. Sources of pictures share groups; the nodes of each graph have their own."""
        return f"{self.label}:{row.group}" if self.label and self.kind == "graph" else row.group

    def opened(self, row: ManifestItem | GraphItem) -> Item:
        """The item of a row. Raises ImageError."""
        if isinstance(self._manifest, GraphManifest):
            assert isinstance(row, GraphItem)
            return Item(self.id_of(row), self._manifest.open(row), self.group_of(row))
        assert isinstance(row, ManifestItem)
        data = self._manifest.open(row, max_pixels=self._max_pixels)
        return Item(self.id_of(row), data, self.group_of(row))

    @functools.lru_cache(maxsize=16)  # noqa: B019 -- it lives as long as its run
    def has_groups(self, count: int) -> bool:
        """Whether the items have at least `count` different groups."""
        return len(groups_of([self], count)) >= count


def serving(kind: str, kinds: Sequence[str]) -> list[int]:
    """Numbers of the sources that a task of some kind draws from, among sources of these kinds.

    Those of its own kind. Tasks on images also take RGB-D pairs and videos, if there is no source of images.
    """
    found = [number for number, other in enumerate(kinds) if other == kind]
    if not found and kind == "image":
        found = [number for number, other in enumerate(kinds) if other != "graph"]
    return found


Pool = tuple[SourceItems, ...]
"""The sources that a task draws from."""


def pools(arms: Sequence[Arm], sources: Sequence[SourceItems]) -> dict[str, Pool]:
    """The pool of each arm, by `Arm.key`. Sources without items in the split are left out.

    Raises SampleError: a task has no source.
    """
    found: dict[str, Pool] = {}
    for arm in arms:
        fitting = serving(arm.task.kind, [source.kind for source in sources])
        if not fitting:
            raise SampleError(_no_source(arm, sources))
        found[arm.key] = tuple(sources[number] for number in fitting if sources[number].items)
        if not found[arm.key]:
            listed = ", ".join(repr(sources[number].label) for number in fitting)
            raise SampleError(
                f"task {arm.key} draws from ssl4rl.sources {listed}, which have no items in this split: add items, or "
                "change their val_fraction"
            )
    return found


def unused(arms: Sequence[Arm], mixture: Mixture) -> str | None:
    """What to do about a source that no task draws from; None if there is none."""
    has = [part.kind for part in mixture.parts]
    used = {number for arm in arms for number in serving(arm.task.kind, has)}
    for number, part in enumerate(mixture.parts):
        if number not in used:
            return (
                f"no task draws from source {part.settings.label!r} of ssl4rl.sources, whose items are of kind "
                f"{part.kind!r}: take it out, or add a task of that kind (`ssl4rl tasks` lists each one's kind)"
            )
    return None


def _no_source(arm: Arm, sources: Sequence[SourceItems]) -> str:
    if len(sources) == 1 and not sources[0].label:
        name, kind = sources[0]._manifest.source.name, sources[0].kind
        return (
            f"task {arm.key} needs items of kind {arm.task.kind!r}, and source {name!r} has items of kind {kind!r}: choose "
            "a source that fits (`ssl4rl sources` lists each one's kind)"
        )
    listed = ", ".join(f"{source.label!r} ({source.kind})" for source in sources)
    return (
        f"task {arm.key} needs items of kind {arm.task.kind!r}, and ssl4rl.sources has only {listed}: add a source of that "
        f"kind, e.g. {{source: NAME, path: PATH}} (`ssl4rl sources` lists each one's kind), or take the task out"
    )


def check_groups(arm: Arm, pool: Pool, split: str) -> None:
    """Raise SampleError if the sources of an arm have too few groups for its task."""
    needed = arm.task.others_needed
    if not needed or any(source.has_groups(needed + 1) for source in pool):
        return
    groups = groups_of(pool, needed + 1)
    if len(groups) <= needed:
        raise SampleError(
            f"the {split} split has {len(groups)} group(s) of images, and a task needs {needed + 1}: near-duplicates "
            "count as one group, so add images of other things"
        )


def groups_of(pool: Sequence[SourceItems], enough: int) -> set[str]:
    """The groups of the sources' items; stops at `enough`, as there may be a million items."""
    groups: set[str] = set()
    for source in pool:
        for row in source.items:
            groups.add(source.group_of(row))
            if len(groups) >= enough:
                return groups
    return groups


def taught_groups(groups: set[str], share: float, seed: int) -> set[str]:
    """The groups that the split `taught` gets: `share` of them, at least one, and never all.

    Raises SampleError if there are fewer than two groups, or `share` is 0.
    """
    if not share:
        raise SampleError("nothing is set aside for teaching: set ssl4rl.source.taught_fraction, e.g. to 0.5")
    if len(groups) < 2:
        raise SampleError(
            f"ssl4rl.source.taught_fraction is {share}, and the training split has {len(groups)} group(s) of images to "
            "divide: near-duplicates count as one group, so add images of other things"
        )
    order = sorted(groups)
    rng_for(seed, "taught").shuffle(order)
    return set(order[: min(max(1, round(share * len(order))), len(order) - 1)])


def _drawn_places(count: int, size: int | float, key: tuple[str | int, ...], label: str) -> list[int]:
    """Random places among `count` items, ascending. For one key, smaller draws are contained in larger ones.

    `size` is a number of items (int) or a share (float). Raises SampleError if there are fewer items.
    """
    wanted = size if isinstance(size, int) else max(1, round(size * count))
    if wanted > count:
        name = f"the train_size of source {label!r}" if label else "ssl4rl.source.train_size"
        raise SampleError(f"{name} is {wanted}, and there are {count} training images: lower it")
    order = list(range(count))
    rng_for(*key).shuffle(order)
    return sorted(order[:wanted])


class _Subset(Sequence[ManifestItem | GraphItem]):
    """Some of the items, by their places."""

    def __init__(self, items: Sequence[ManifestItem | GraphItem], places: Sequence[int]) -> None:
        self._items = items
        self._places = np.array(places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> ManifestItem | GraphItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[ManifestItem | GraphItem]: ...
    def __getitem__(self, index: int | slice) -> ManifestItem | GraphItem | list[ManifestItem | GraphItem]:
        if isinstance(index, slice):
            return [self._items[int(place)] for place in self._places[index]]
        return self._items[int(self._places[index])]
