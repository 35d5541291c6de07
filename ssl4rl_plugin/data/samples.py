"""The stream of samples of a run: sample i is a pure function of the settings, the manifests and i.

This module imports neither verl nor torch, so the online dataset, the preview, the report and the tests see the same
samples. Each epoch shows every item once, in a new order and with new corruptions (`fixed_corruptions`: with the same ones).
Samples do not depend on earlier calls or on the number of workers, so a resumed run continues with exactly the samples
that it would have seen. The answers of validation samples are balanced (`data.balance`).
"""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssl4rl_plugin.core import Item, Rejection, Sample
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.arms import Arm, StreamSettings
from ssl4rl_plugin.data.balance import ANY, Wanted, block_size, wanted
from ssl4rl_plugin.data.decks import Deck
from ssl4rl_plugin.data.graphs import GraphItem, GraphManifest
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.manifest import Manifest, ManifestItem
from ssl4rl_plugin.data.mixture import Joined, Mixture, Part
from ssl4rl_plugin.data.pools import Pool, SampleError, SourceItems, check_groups, pools

logger = logging.getLogger(__name__)

DRAWS_PER_ITEM = 4
"""Corruptions of one item that are tried before the next item replaces it."""
ITEMS_PER_SAMPLE = 64
"""Items that are tried before the run stops with an error: a task that refuses 64 in a row does not fit the images."""
NODES_PER_SAMPLE = 1024
"""The same for nodes of a graph: they are cheap to try, and few of them may fit a task."""


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
    source: str = ""
    """Label of the item's source, in a run with several sources."""

    @property
    def key(self) -> str:
        """`split:index`. `SampleStream` can make the sample again from it."""
        return f"{self.split}:{self.index}"

    @property
    def truth_json(self) -> str:
        """The row's ground truth for the reward function, as JSON; see `encode_truth`."""
        arm = self.arm
        return encode_truth(arm.task.name, arm.level_name, arm.options, self.sample.truth, self.key, self.source)

    @property
    def data_source(self) -> str:
        """The name under which verl groups metrics: `ssl4rl/<task>`, or `ssl4rl/<task>/<source>` with several sources."""
        return f"{self.arm.data_source}/{self.source}" if self.source else self.arm.data_source

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

    Each task draws from the sources of its kind (`pools`). An image task draws from sources of images, or if there are
    none, from those of RGB-D pairs and videos. Where several sources are of one kind, a `Deck` divides the samples.

    Args:
        settings: the run's settings.
        manifest: the indexed source, or the sources of a run with several.
        split: `train` (items epoch by epoch, arms by weight) or `val` (`val_samples` of every arm, in arm order, with
            balanced answers), or `taught` (as `train`, of the items that `ssl4rl.source.taught_fraction` sets aside).
    """

    def __init__(self, settings: StreamSettings, manifest: Manifest | GraphManifest | Mixture, split: str):
        if split not in ("train", "val", "taught"):
            raise ValueError(f"split must be train, val or taught, got {split!r}")
        self.settings = settings
        self.manifest = manifest
        self.split = split
        self.refusals: Counter[str] = Counter()
        """Number of refused draws so far in this process, by `task:level: reason`."""
        parts = manifest.parts if isinstance(manifest, Mixture) else (Part(settings.source, manifest),)
        sources = tuple(SourceItems(part, settings.seed, split) for part in parts)
        if not isinstance(manifest, Mixture) and not sources[0].items:
            raise SampleError(
                f"the {split} split has no images ({len(manifest.items('train'))} in train, {len(manifest.items('val'))} "
                f"in val); add images or change ssl4rl.source.val_fraction (now {settings.source.val_fraction})"
            )
        self._pool_of = pools(settings.arms, sources)
        used = {source for pool in self._pool_of.values() for source in pool}
        self.sources = tuple(source for source in sources if source in used)
        """The sources that the tasks draw from."""
        self._decks = {pool: self._deck(pool) for pool in self._pool_of.values()}
        self._golds: dict[tuple[str, int], str] = {}
        """The answers of validation samples made so far, by arm and index."""
        for arm in settings.arms:
            check_groups(arm, self._pool_of[arm.key], split)

    @property
    def items(self) -> Sequence[ManifestItem | GraphItem]:
        """The items of the sources that the tasks draw from, one after another."""
        return Joined([source.items for source in self.sources])

    def __len__(self) -> int:
        if self.split == "val":
            return self.settings.val_samples * len(self.settings.arms)
        return self.settings.epochs * len(self.items)

    def __getitem__(self, index: int) -> StreamSample:
        """Make sample `index`. Raises IndexError if it is out of range, SampleError if no item fits the task."""
        self._check(index)
        if self.split == "val":
            return self.of_arm(index, self.settings.arms[index // self.settings.val_samples])
        arms = self.settings.arms
        seen: tuple[str | int, ...] = (index,)
        if self._fixed:
            # Each item keeps its task. With several pools, the row first belongs to one of them.
            if len(self._decks) > 1:
                pool = self._pool_of[self._drawn(arms, index).key]
                arms = tuple(arm for arm in arms if self._pool_of[arm.key] == pool)
            place = self._place(index, arms[0])
            seen = (*place.source.key, place.made_as)
        return self.of_arm(index, self._drawn(arms, *seen))

    def of_arm(self, index: int, arm: Arm) -> StreamSample:
        """Make sample `index` from the given arm instead of a drawn one. Raises the errors of `[]`."""
        self._check(index)
        if self.split != "val":
            return self._made(index, arm, ANY)
        size = block_size(arm, self.settings.val_samples)
        first = index - index % self.settings.val_samples % size
        for earlier in range(first, index):  # in this order, so that each finds those before it
            if (arm.key, earlier) not in self._golds:
                self.of_arm(earlier, arm)
        taken = frozenset(self._golds[arm.key, earlier] for earlier in range(first, index))
        made = self._made(index, arm, wanted(taken, size))
        self._golds[arm.key, index] = made.gold
        return made

    def _made(self, index: int, arm: Arm, wanted: Wanted) -> StreamSample:
        """Sample `index` of an arm, from the first item that fits."""
        found = self._place(index, arm)
        source, order = found.source, found.source.order(found.epoch)
        refused: list[str] = []
        tried = NODES_PER_SAMPLE if source.kind == "graph" else ITEMS_PER_SAMPLE
        for step in range(min(tried, len(source.items))):
            row = source.items[order[(found.place + step) % len(order)]]
            try:
                item = source.opened(row)
            except ImageError as error:  # readable when indexed: the file changed or the disk failed
                refused.append(error.reason)
                logger.warning("%s could not be read: %s", source.id_of(row), error)
                continue
            for attempt in range(DRAWS_PER_ITEM):
                # An item that replaces another must not repeat the sample that it gives at its own index.
                key = (found.epoch * DRAWS_PER_ITEM + attempt, found.made_as + 1 if step else 0)
                made, rng = self._drawn_from(item, arm, source, key, refused)
                if isinstance(made, Rejection):
                    refused.append(made.reason)
                    continue
                more = (self._drawn_from(item, arm, source, (*key, again), []) for again in range(1, wanted.draws))
                drawn = itertools.chain([(made, rng)], more)
                fitting = ((one, its) for one, its in drawn if isinstance(one, Sample) and wanted.has(arm, one))
                made, rng = next(fitting, (made, rng))
                self.refusals.update(f"{arm.key}: {reason}" for reason in refused)
                instruction = rng.choice(self.settings.answer_format.instructions)
                return StreamSample(index, self.split, arm, item.id, made, instruction, tuple(refused), source.label)
        reasons = ", ".join(f"{reason} {count}x" for reason, count in Counter(refused).most_common())
        of = f" of source {source.label!r}" if source.label else ""
        raise SampleError(
            f"task {arm.key} refused {len(refused)} draws in a row from the {self.split} images{of} ({reasons}): "
            "these images do not fit the task at this level"
        )

    def _drawn_from(
        self, item: Item, arm: Arm, source: SourceItems, key: tuple[int, ...], refused: list[str]
    ) -> tuple[Sample | Rejection, random.Random]:
        """One draw from an item, with the generator behind it. Adds the reasons of unreadable other items to `refused`."""
        rng = rng_for(self.settings.seed, self.split, arm.key, item.id, *key)
        if arm.task.others_needed:
            item = replace(item, others=self._others(arm, source, item.group, rng, refused))
        made = arm.task.generate(item, arm.level, rng)
        if not isinstance(made, Sample | Rejection):
            raise SampleError(f"{arm.key}: generate returned a {type(made).__name__}, not Sample or Rejection")
        return made, rng

    @property
    def _fixed(self) -> bool:
        """Whether every epoch repeats the samples of the first. Validation has one sample for each index in any case."""
        return self.settings.fixed_corruptions and self.split == "train"

    def _drawn(self, arms: Sequence[Arm], *seen: str | int) -> Arm:
        """One of the arms by weight, the same for the same `seen`."""
        rng = rng_for(self.settings.seed, self.split, "arm", *seen)
        return rng.choices(arms, [arm.weight for arm in arms])[0]

    def _place(self, index: int, arm: Arm) -> _Place:
        """Where the item of sample `index` is."""
        pool = self._pool_of[arm.key]
        position = index % self.settings.val_samples if self.split == "val" else index
        number, use = self._decks[pool].draw(position)
        source = pool[number]
        epoch, place = divmod(use, len(source.items))
        if not self._fixed:
            return _Place(source, epoch, place, index)
        first = source.first_places[source.order(epoch)[place]]
        return _Place(source, 0, first, first)

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a stream of {len(self)}")

    def _deck(self, pool: Pool) -> Deck:
        labels = (source.label for source in pool)
        key: tuple[str | int, ...] = (self.settings.seed, self.split, "sources", *labels)
        return Deck([len(source.items) for source in pool], [source.weight for source in pool], key)

    def _others(
        self, arm: Arm, source: SourceItems, group: str, rng: random.Random, refused: list[str]
    ) -> tuple[Item, ...]:
        """Uniformly drawn items of other groups, all groups distinct. Skips unreadable items and adds them to `refused`.

        They are of the same source, so that the look of a source gives nothing away, or if it has too few groups, of all
        sources that the task draws from.
        """
        needed = arm.task.others_needed
        pool = (source,) if source.has_groups(needed + 1) else self._pool_of[arm.key]
        sizes = [len(one.items) for one in pool]
        found: list[Item] = []
        groups = {group}
        for _ in range(ITEMS_PER_SAMPLE * max(1, needed)):
            if len(found) == needed:
                return tuple(found)
            place, number = rng.randrange(sum(sizes)), 0
            while place >= sizes[number]:
                place, number = place - sizes[number], number + 1
            other = pool[number].items[place]
            if pool[number].group_of(other) in groups:
                continue
            try:
                found.append(pool[number].opened(other))
                groups.add(found[-1].group)
            except ImageError as error:
                refused.append(error.reason)
        raise SampleError(
            f"task {arm.key} found no {needed} readable images of other groups in the {self.split} split: "
            "nearly all images are near-duplicates of one another, or cannot be read"
        )


@dataclass(frozen=True)
class _Place:
    """Where an item is in a stream."""

    source: SourceItems
    epoch: int
    place: int
    """In the source's order of that epoch."""
    made_as: int
    """Part of the seed of a sample whose item replaces another one."""


def extra_info(made: StreamSample) -> dict[str, Any]:
    """verl's `extra_info` of a row: the same keys for every task. No prompt contains it."""
    of = {"source": made.source} if made.source else {}
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
        **of,
    }
