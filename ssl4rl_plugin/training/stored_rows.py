"""Random access to the rows of a folder that `ssl4rl build` wrote, with little memory.

verl's own `RLHFDataset` can read the same files if they contain the pictures (`bytes`). This reader also supports pictures
in files beside the rows (`path`) and no stored pictures (`reference`: the rows are made again and must be equal). It holds
one row group in memory instead of all rows, and yields no encoded copy beside each decoded picture.
"""

from __future__ import annotations

import functools
import json
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.arms import Arm, arm_key
from ssl4rl_plugin.data.build_plan import MANIFEST, BuildPlan, makers, manifest_names, read_plan
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.mixture import Mixture, parts_of
from ssl4rl_plugin.data.pools import SampleError
from ssl4rl_plugin.data.rows import PROBES, JoinedRows, OnlineRows, Row, Rows
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.data.shards import ShardError, info_of, row_from
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.training.questions import QuestionRows
from ssl4rl_plugin.training.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


GROUPS = 8
"""Largest number of row groups in memory, for a curriculum that jumps between arms."""


def plan_settings(plan: BuildPlan) -> Settings:
    """The settings of a build's rows. They hold no paths; the manifest has those of the images."""
    return Settings.from_config(plan.section)


def remade_rows(plan: BuildPlan, split: str, folder: Path) -> Rows:
    """The rows of a split, made again from the manifest in the build's folder instead of read.

    Raises SourceError or SampleError.
    """
    manifest = built_manifest(plan, folder, strict=True)
    settings = plan_settings(plan)
    if split != "questions":
        return OnlineRows(SampleStream(settings, manifest, split))
    return JoinedRows([one for one in built_questions(settings, manifest) if len(one)])


def built_manifest(plan: BuildPlan, folder: Path, strict: bool = False) -> Manifest | Mixture:
    """The manifest in a build's folder, or the mixture of those of its sources. Raises SourceError."""
    sources = plan_settings(plan).sources
    if not sources:
        return _manifest(folder / MANIFEST, strict)
    return Mixture(sources, [_manifest(folder / name, strict) for name in manifest_names(len(sources))])


def built_questions(settings: Settings, manifest: Manifest | Mixture) -> list[QuestionRows]:
    """The questions of a build's sources; none for a source of pictures without labels."""
    return [
        QuestionRows(one, settings.answer_format, settings.benchmark_max_pixels)
        for _, one in parts_of(manifest)
        if isinstance(one, Manifest)
    ]


@functools.lru_cache(maxsize=16)
def _manifest(path: Path, strict: bool) -> Manifest:
    return Manifest.load(path, strict=strict)


class StoredRowsError(UserError):
    """Files of a build are missing, damaged or changed; the message says which, and what to do."""


class StoredRows:
    """The rows of one split of a build.

    Args:
        folder: the folder that `ssl4rl build` wrote.
        split: `train`, `val` or `questions`; it may be empty.

    Raises:
        PlanError: the folder holds no build.
        StoredRowsError: the build is not finished, or other package versions made it.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder.expanduser().resolve()
        self.split = split
        self.plan: BuildPlan = read_plan(self.folder)
        installed = makers()
        if self.plan.store == "reference" and self.plan.made_with != installed:
            changed = [name for name in installed if self.plan.made_with.get(name) != installed[name]]
            raise StoredRowsError(
                f"{self.folder} was built with other versions of {', '.join(changed)}, which may make other pictures: build "
                "again, or with --store bytes"
            )
        self._shards = [shard for shard in self.plan.shards() if shard.split == split]
        missing = [shard.name for shard in self._shards if not (self.folder / shard.name).is_file()]
        if missing:
            raise StoredRowsError(
                f"{self.folder} lacks {len(missing)} of {len(self._shards)} {split} files ({missing[0]}, ...): start "
                "`ssl4rl build` again with the same arguments, and it makes what is missing"
            )
        self._open: tuple[int, pq.ParquetFile, list[int]] | None = None
        self._kept = 1
        self._groups: dict[tuple[int, int], pa.Table] = {}
        """The row groups read last, by shard number and place in the shard."""

    def __len__(self) -> int:
        return self.plan.rows.get(self.split, 0)

    def __getitem__(self, index: int) -> Row:
        """Row `index`. Raises IndexError out of range, StoredRowsError if the row cannot be read or has changed."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number, place = divmod(index, self.plan.shard_rows)
        shard = self._shards[number]
        try:
            values = self._values(number, place)
            if self.plan.store != "reference":
                return row_from(values, self.folder)
            row = self._made[index]
            written = values["reward_model"]["ground_truth"], values["prompt"][-1]["content"], info_of(values)
            if (row.ground_truth, row.prompt, row.info) != written:
                raise StoredRowsError(
                    f"row {place} of {shard.name} comes out differently now: its images or the package have changed since "
                    "it was built; build again"
                )
            return row
        except (ShardError, ImageError, SourceError, SampleError, OSError) as error:
            raise StoredRowsError(f"row {place} of {self.folder / shard.name}: {error}") from error

    def _values(self, number: int, place: int) -> dict[str, Any]:
        """A row of shard `number` as plain values."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / self._shards[number].name
        try:
            if self._open is None or self._open[0] != number:
                # Not memory-mapped: the mapped pages would count as this process's memory.
                file = pq.ParquetFile(path)
                groups = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
                self._open = number, file, list(accumulate(groups))
            _, file, ends = self._open
            group = bisect_right(ends, place)
            if group == len(ends):
                raise StoredRowsError(
                    f"{path} has {ends[-1] if ends else 0} rows, row {place} is missing; build it again"
                )
            table = self._groups.pop((number, group), None)
            if table is None:
                table = file.read_row_group(group, use_threads=False)
            while len(self._groups) >= self._kept:
                del self._groups[next(iter(self._groups))]
            self._groups[number, group] = table
            return table.slice(place - (ends[group - 1] if group else 0), 1).to_pylist()[0]
        except (pa.ArrowException, OSError) as error:
            raise StoredRowsError(
                f"{path} cannot be read ({error}): delete it, and start `ssl4rl build` again"
            ) from error

    @cached_property
    def settings(self) -> Settings:
        """The settings of the rows."""
        return plan_settings(self.plan)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms of the rows."""
        return self.settings.arms

    def of_arm(self, index: int, arm: int, use: int) -> Row:
        """Row number `use` of arm number `arm`; behind the arm's last row, its first follows again.

        Raises StoredRowsError if the build has none.
        """
        numbers = self._by_arm[arm]
        if not len(numbers):
            raise StoredRowsError(
                f"{self.folder} has no {self.split} rows of {self.arms[arm].key}: build more rows, or without it"
            )
        # Each arm reads in another row group.
        self._kept = min(len(self._by_arm), GROUPS)
        return self[int(numbers[use % len(numbers)])]

    @cached_property
    def _by_arm(self) -> list[npt.NDArray[np.int64]]:
        """Row numbers of each arm."""
        import pyarrow.parquet as pq

        numbers = {arm.key: number for number, arm in enumerate(self.arms)}
        found = []
        for shard in self._shards:
            table = pq.ParquetFile(self.folder / shard.name).read(columns=["reward_model.ground_truth"])
            for value in table.column("reward_model").to_pylist():
                truth = json.loads(value["ground_truth"])
                found.append(numbers[arm_key(truth["task"], truth["level"], truth.get("options") or {})])
        return [np.flatnonzero(np.array(found) == number) for number in range(len(numbers))]

    @cached_property
    def _made(self) -> Rows:
        """The same rows, made again from the images."""
        return remade_rows(self.plan, self.split, self.folder)

    def probes(self) -> Iterator[Row]:
        """Some rows spread over the split; several of every kind, if the arms have similar weights."""
        step = max(1, len(self) // (PROBES * max(1, len(self.settings.arms))))
        return (self[index] for index in range(0, len(self), step))

    def held_out(self) -> StoredRows:
        """The rows of the validation split; `self` if it is empty."""
        if self.split == "val" or not self.plan.rows["val"]:
            return self
        return StoredRows(self.folder, "val")

    def state(self) -> dict[str, Any]:
        return {"data": self.plan.id}

    def __getstate__(self) -> dict[str, Any]:
        # Open files cannot be pickled; each worker of a loader opens its own.
        return self.__dict__ | {"_open": None, "_groups": {}}
