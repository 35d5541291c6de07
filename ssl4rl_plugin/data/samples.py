"""The stream of samples of a run: sample i is a pure function of the settings, the manifest and i.

This module imports neither verl nor torch, so the online dataset, the preview, the report and the tests see the same
samples. Each epoch shows every item once, in a new order and with new corruptions (`fixed_corruptions`: with the same ones).
Samples do not depend on earlier samples or on the number of workers, so a resumed run continues with exactly the samples
that it would have seen.
"""

from __future__ import annotations

import functools
import json
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import RGBD, Clip, GraphNode, Item, Rejection, Sample
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.arms import Arm, StreamSettings
from ssl4rl_plugin.data.graphs import GraphItem, GraphManifest
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.manifest import Manifest, ManifestItem

logger = logging.getLogger(__name__)

DRAWS_PER_ITEM = 4
"""Corruptions of one item that are tried before the next item replaces it."""
ITEMS_PER_SAMPLE = 64
"""Items that are tried before the run stops with an error: a task that refuses 64 in a row does not fit the images."""
NODES_PER_SAMPLE = 1024
"""The same for nodes of a graph: they are cheap to try, and few of them may fit a task."""


class SampleError(UserError):
    """No item fits a task. The message counts the reasons."""


@dataclass(frozen=True)
class StreamSample:
    """One finished sample with everything that identifies it."""

    index: int
    split: str
    arm: Arm
    item_id: str
    sample: Sample
    instruction: str
    """How to write the answer: one of the wordings of the run's answer format."""
    refused: tuple[str, ...]
    """Reasons of the draws that the task refused before this one, in order."""

    @property
    def key(self) -> str:
        """`split:index`. `SampleStream` can make the sample again from it."""
        return f"{self.split}:{self.index}"

    @property
    def truth_json(self) -> str:
        """The row's ground truth for the reward function, as JSON; see `encode_truth`."""
        arm = self.arm
        return encode_truth(arm.task.name, arm.level_name, arm.options, self.sample.truth, self.key)

    @property
    def prompt(self) -> str:
        """Text of the user's turn: the question and the answer format, with `<image>` and `<video>` marks."""
        return f"{self.sample.question} {self.instruction}"

    @property
    def gold(self) -> str:
        """The correct answer, without tags."""
        return self.arm.task.gold(self.sample.truth, self.arm.level)


class SampleStream:
    """Samples of one split, by number.

    Args:
        settings: the run's settings.
        manifest: the indexed source.
        split: `train` (items epoch by epoch, arms by weight) or `val` (`val_samples` of every arm, in arm order).
    """

    def __init__(self, settings: StreamSettings, manifest: Manifest | GraphManifest, split: str):
        if split not in ("train", "val"):
            raise ValueError(f"split must be train or val, got {split!r}")
        self.settings = settings
        self.manifest = manifest
        self.split = split
        self.items: Sequence[ManifestItem | GraphItem] = manifest.items(split)
        if split == "train" and settings.source.train_size is not None:
            self.items = _Subset(self.items, settings.source.train_size, settings.seed)
        self.refusals: Counter[str] = Counter()
        """Number of refused draws so far in this process, by `task:level: reason`."""
        if not self.items:
            raise SampleError(
                f"the {split} split has no images ({len(manifest.items('train'))} in train, {len(manifest.items('val'))} "
                f"in val); add images or change ssl4rl.source.val_fraction (now {settings.source.val_fraction})"
            )
        kind = manifest.source.kind
        for arm in settings.arms:
            if arm.task.kind != kind and not (arm.task.kind == "image" and kind != "graph"):
                raise SampleError(
                    f"task {arm.key} needs items of kind {arm.task.kind!r}, and source {manifest.source.name!r} has items "
                    f"of kind {kind!r}: choose a source that fits (`ssl4rl sources` lists each one's kind)"
                )
        needed = max(arm.task.others_needed for arm in settings.arms)
        groups: set[str] = set()
        for item in self.items:  # stops early: there may be a million
            if len(groups) > needed or not needed:
                break
            groups.add(item.group)
        if needed and len(groups) <= needed:
            raise SampleError(
                f"the {split} split has {len(groups)} group(s) of images, and a task needs {needed + 1}: near-duplicates "
                "count as one group, so add images of other things"
            )

    def __len__(self) -> int:
        if self.split == "val":
            return self.settings.val_samples * len(self.settings.arms)
        return self.settings.epochs * len(self.items)

    def __getitem__(self, index: int) -> StreamSample:
        """Make sample `index`. Raises IndexError if it is out of range, SampleError if no item fits the task."""
        self._check(index)
        if self.split == "val":
            return self.of_arm(index, self.settings.arms[index // self.settings.val_samples])
        rng = rng_for(self.settings.seed, self.split, "arm", self._made_as(index))
        return self.of_arm(index, rng.choices(self.settings.arms, [arm.weight for arm in self.settings.arms])[0])

    def of_arm(self, index: int, arm: Arm) -> StreamSample:
        """Make sample `index` from the given arm instead of a drawn one. Raises the errors of `[]`."""
        self._check(index)
        made_as = self._made_as(index)
        position = made_as % self.settings.val_samples if self.split == "val" else made_as
        epoch, place = divmod(position, len(self.items))
        order = self._order(epoch)
        refused: list[str] = []
        tried = NODES_PER_SAMPLE if self.manifest.source.kind == "graph" else ITEMS_PER_SAMPLE
        for step in range(min(tried, len(self.items))):
            row = self.items[order[(place + step) % len(order)]]
            try:
                data = self._open(row)
            except ImageError as error:  # readable when indexed: the file changed or the disk failed
                refused.append(error.reason)
                logger.warning("%s could not be read: %s", row.id, error)
                continue
            item = Item(row.id, data, row.group)
            for attempt in range(DRAWS_PER_ITEM):
                draw = epoch * DRAWS_PER_ITEM + attempt
                # An item that replaces another must not repeat the sample that it gives at its own index.
                rng = rng_for(self.settings.seed, self.split, arm.key, row.id, draw, made_as + 1 if step else 0)
                if arm.task.others_needed:
                    item = replace(item, others=self._others(arm, row, rng, refused))
                made = arm.task.generate(item, arm.level, rng)
                if isinstance(made, Sample):
                    self.refusals.update(f"{arm.key}: {reason}" for reason in refused)
                    instruction = rng.choice(self.settings.answer_format.instructions)
                    return StreamSample(index, self.split, arm, row.id, made, instruction, tuple(refused))
                if not isinstance(made, Rejection):
                    raise SampleError(f"{arm.key}: generate returned a {type(made).__name__}, not Sample or Rejection")
                refused.append(made.reason)
        reasons = ", ".join(f"{reason} {count}x" for reason, count in Counter(refused).most_common())
        raise SampleError(
            f"task {arm.key} refused {len(refused)} draws in a row from the {self.split} images ({reasons}): "
            "these images do not fit the task at this level"
        )

    def _made_as(self, index: int) -> int:
        """The index whose sample `index` shows: its own, or with fixed corruptions that of its item in the first epoch.

        Validation has one sample for each index in any case.
        """
        if not self.settings.fixed_corruptions or self.split == "val":
            return index
        epoch, place = divmod(index, len(self.items))
        return self._first_places[self._order(epoch)[place]]

    @functools.cached_property
    def _first_places(self) -> list[int]:
        """The place of each item in the first epoch."""
        places = [0] * len(self.items)
        for place, number in enumerate(self._order(0)):
            places[number] = place
        return places

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a stream of {len(self)}")

    @functools.lru_cache(maxsize=2)  # noqa: B019 -- the stream lives as long as its run
    def _order(self, epoch: int) -> list[int]:
        """Permutation of the items for one epoch."""
        order = list(range(len(self.items)))
        rng_for(self.settings.seed, self.split, "order", epoch).shuffle(order)
        return order

    def _open(self, row: ManifestItem | GraphItem) -> Image.Image | RGBD | Clip | GraphNode:
        """The `Item.data` of a row. Raises ImageError."""
        if isinstance(self.manifest, GraphManifest):
            assert isinstance(row, GraphItem)
            return self.manifest.open(row)
        assert isinstance(row, ManifestItem)
        return self.manifest.open(row, max_pixels=self.settings.source.max_pixels)

    def _others(
        self, arm: Arm, row: ManifestItem | GraphItem, rng: random.Random, refused: list[str]
    ) -> tuple[Item, ...]:
        """Uniformly drawn items of other groups, all groups distinct. Skips unreadable items and adds them to `refused`."""
        found: list[Item] = []
        groups = {row.group}
        for _ in range(ITEMS_PER_SAMPLE * max(1, arm.task.others_needed)):
            if len(found) == arm.task.others_needed:
                return tuple(found)
            other = self.items[rng.randrange(len(self.items))]
            if other.group in groups:
                continue
            try:
                found.append(Item(other.id, self._open(other), other.group))
                groups.add(other.group)
            except ImageError as error:
                refused.append(error.reason)
        raise SampleError(
            f"task {arm.key} found no {arm.task.others_needed} readable images of other groups in the {self.split} split: "
            "nearly all images are near-duplicates of one another, or cannot be read"
        )


class _Subset(Sequence[ManifestItem | GraphItem]):
    """A random subset of the items, in their order. For one seed, smaller subsets are contained in larger ones.

    `size` is a number of items (int) or a share (float). Raises SampleError if there are fewer items.
    """

    def __init__(self, items: Sequence[ManifestItem | GraphItem], size: int | float, seed: int) -> None:
        count = size if isinstance(size, int) else max(1, round(size * len(items)))
        if count > len(items):
            raise SampleError(
                f"ssl4rl.source.train_size is {count}, and there are {len(items)} training images: lower it"
            )
        order = list(range(len(items)))
        rng_for(seed, "train", "subset").shuffle(order)
        self._items = items
        self._places = np.sort(np.array(order[:count], dtype=np.int64))

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


def extra_info(made: StreamSample) -> dict[str, Any]:
    """verl's `extra_info` of a row: the same keys for every task. No prompt contains it."""
    return {
        "index": made.index,
        "split": made.split,
        "sample": made.key,
        "task": made.arm.task.name,
        "level": made.arm.level_name,
        "item": made.item_id,
        "gold": made.gold,
        "params": json.dumps(made.sample.params, sort_keys=True),
        "refused": json.dumps(made.refused),
    }
