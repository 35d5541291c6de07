"""The builder: writes the rows of a plan, shard by shard, into a folder that verl reads.

A shard is a pure function of the plan and its number, so any process can make it: processes of this machine (`local`), or
the nodes of a Ray cluster (`ray`, through Ray Data). To resume a killed build, start the same command again: finished,
undamaged shards stay, and the result equals that of an uninterrupted build.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.files import TEMPORARY, claimed, remove_leftovers, sync_files, writing
from ssl4rl_plugin.core.processes import WorkerDiedError, as_completed, cores
from ssl4rl_plugin.core.safe_path import ray_environment
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.build_plan import FILE, MANIFEST, BuildPlan, PlanError, manifest_names, plan_from, read_plan
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.mixture import Mixture, parts_of
from ssl4rl_plugin.data.rows import Rows
from ssl4rl_plugin.data.shards import Shard, Tally
from ssl4rl_plugin.data_builders.build.shard_writer import ShardWriter, finished
from ssl4rl_plugin.training.stored_rows import plan_settings, remade_rows

ENGINES = ("local", "ray")
COUNTED_ANSWERS = 16
"""Right answers are counted for tasks with at most this number of different ones."""

_LOCK = ".lock"


class BuildError(UserError):
    """A build cannot continue. The message says why, what is finished, and what to do."""


@dataclass
class FinishedShard:
    """A finished shard."""

    shard: Shard
    tally: Tally
    size: int
    """Bytes of the file."""
    kept: bool
    """Whether it existed before this build."""
    node: str = ""
    """The node of a Ray cluster that made it; empty for this machine."""


@dataclass
class FinishedBuild:
    """A finished build."""

    folder: Path
    plan: BuildPlan
    shards: list[FinishedShard] = field(default_factory=list)

    def tally(self, *splits: str) -> Tally:
        """The sum of the tallies of some splits' shards."""
        total = Tally()
        for done in self.shards:
            if done.shard.split in splits:
                total.add(done.tally)
        return total


def build(
    plan: BuildPlan,
    manifest: Manifest | Mixture,
    folder: Path,
    *,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    advance: Callable[[FinishedShard], None] = lambda done: None,
) -> FinishedBuild:
    """Make the missing shards of a plan.

    Args:
        plan: what to build.
        manifest: the indexed images that the plan was made for, of one source or several. The manifests are copied into
            the folder.
        folder: output folder; new, empty, or with a part of the same build. All nodes of a Ray cluster must be able to
            access it, and the images.
        engine: one of `ENGINES`.
        workers: number of processes; None for one per core (local), or as many as the cluster has room for (ray).
        address: address of the Ray cluster; None for the one in RAY_ADDRESS, or one on this machine.
        advance: called after each shard.

    Raises:
        PlanError: the folder belongs to something else.
        BuildError: the disk is full or not writable, a worker died, there is no cluster, or another build uses the folder.
        SampleError, SourceError: the images do not fit a task, or cannot be read any more.
    """
    if engine not in ENGINES:
        raise PlanError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    shards = plan.shards()
    if not shards:
        raise PlanError("there is nothing to build: no usable image in either split")
    built = FinishedBuild(folder, plan)
    with plain_errors(built), _claimed(folder, plan, manifest):
        for pattern in (f".*{TEMPORARY}", f"images/??/.*{TEMPORARY}"):
            remove_leftovers(folder.glob(pattern))
        work = functools.partial(make_shard, plan, folder)
        results = (
            as_completed(work, shards, min(workers or cores(), len(shards)))
            if engine == "local"
            else _through_ray(work, shards, workers, address)
        )
        with contextlib.closing(results):  # before the lock is released
            for done in results:
                built.shards.append(done)
                advance(done)
    place = {shard: number for number, shard in enumerate(shards)}
    built.shards.sort(key=lambda done: place[done.shard])
    return built


def make_shard(plan: BuildPlan, folder: Path, shard: Shard) -> FinishedShard:
    """Make one shard, unless it exists, undamaged and as planned."""
    path = folder / shard.name
    tally = finished(path, plan.stamp(shard))
    kept = tally is not None
    if tally is None:
        rows, system_prompt, counted = _opened(plan.to_json(), folder, shard.split)
        with writing(path) as file, ShardWriter(file, folder, plan.store, plan.codec, plan.mixed) as writer:
            for index in range(shard.start, shard.stop):
                row = rows[index]
                writer.add(row, system_prompt, row.kind in counted)
            writer.finish(plan.stamp(shard))
            sync_files(writer.files)  # before the shard that names them appears
        tally = writer.tally
    return FinishedShard(shard, tally, path.stat().st_size, kept)


@functools.lru_cache(maxsize=3)
def _opened(plan: bytes, folder: Path, split: str) -> tuple[Rows, str | None, set[str]]:
    """The rows of a split, the system prompt, and the arms whose answers are counted. Cached in each process."""
    parsed = plan_from(plan)
    settings = plan_settings(parsed)
    return (
        remade_rows(parsed, split, folder), settings.system_prompt,
        {arm.key for arm in settings.arms if _few_answers(arm)},
    )  # fmt: skip


def _few_answers(arm: Arm) -> bool:
    values = arm.task.grader(arm.level).values()
    return sum(1 for _, _ in zip(range(COUNTED_ANSWERS + 1), values, strict=False)) <= COUNTED_ANSWERS


@contextlib.contextmanager
def _claimed(folder: Path, plan: BuildPlan, manifest: Manifest | Mixture) -> Iterator[None]:
    """Lock the folder for this build, and write its plan and manifests into it."""
    folder.mkdir(parents=True, exist_ok=True)
    busy = BuildError(f"another build is running in {folder}: wait for it, or choose another folder")
    with claimed(folder / _LOCK, busy):
        if (folder / FILE).exists():
            there = read_plan(folder)
            if there.id != plan.id:
                raise PlanError(
                    f"{folder} belongs to another build (other {', '.join(_differences(there, plan))}): choose another "
                    "folder, or delete it"
                )
        else:
            foreign = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
            if foreign:
                raise PlanError(
                    f"{folder} is not empty and holds no build ({', '.join(foreign[:3])}, ...): choose another folder"
                )
        # Always the current manifests: a source may have moved while its images are the same.
        if isinstance(manifest, Manifest):
            _copy_manifest(manifest, folder / MANIFEST)
        else:
            names = manifest_names(len(manifest.parts))
            for name, (_, one) in zip(names, parts_of(manifest), strict=True):
                assert isinstance(one, Manifest)
                _copy_manifest(one, folder / name)
        with writing(folder / FILE) as file:
            file.write(plan.to_json())
        yield


def _copy_manifest(manifest: Manifest, path: Path) -> None:
    """Copy a manifest's file. Raises BuildError if it has changed."""
    digest = hashlib.sha256()
    with writing(path) as file, open(manifest.path, "rb") as content:
        while block := content.read(2**20):
            digest.update(block)
            file.write(block)
        if digest.hexdigest() != manifest.digest:
            raise BuildError("the images were indexed again during the build: start the same command again")


def _differences(one: BuildPlan, other: BuildPlan) -> list[str]:
    """The differences of two plans, in words."""
    names = {"made_with": "package versions", "section": "settings", "store": "storage of pictures"}
    left, right = asdict(one), asdict(other)
    found = [key for key in left if left[key] != right[key]]
    if "section" in found:
        changed = sorted(key for key in right["section"] if right["section"][key] != left["section"].get(key))
        names["section"] = f"settings: {', '.join(changed)}"
    return [names.get(key, key.replace("_", " ")) for key in found]


@contextlib.contextmanager
def plain_errors(built: FinishedBuild) -> Iterator[None]:
    """Turn errors of the disk and of workers into BuildErrors that say what to do."""
    folder = built.folder
    try:
        yield
    except WorkerDiedError as error:
        raise BuildError(str(error)) from error
    except OSError as error:
        done = f"{len(built.shards)} of {len(built.plan.shards())} files are done"
        again = "then start the same command again: finished files stay"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildError(f"no space is left for {folder} ({done}): make room, {again}") from error
        raise BuildError(f"{folder} cannot be written: {error} ({done}); correct that, {again}") from error


def _through_ray(
    work: Callable[[Shard], FinishedShard], shards: Sequence[Shard], workers: int | None, address: str | None
) -> Generator[FinishedShard]:
    """Like `as_completed`, on a Ray cluster through Ray Data: one task per shard."""
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise BuildError(f"engine ray needs Ray Data ({error}): pip install 'ray[data]'") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it logs a lot
    ours = not ray.is_initialized()
    try:
        if ours:
            _join_cluster(ray, address)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.raise_original_map_exception = True
        todo = ray.data.from_items(
            [{"number": number} for number in range(len(shards))], override_num_blocks=len(shards)
        )
        results = todo.map(
            _ray_row,
            fn_kwargs={"work": work, "shards": shards},
            num_cpus=1,
            compute=ray.data.TaskPoolStrategy(size=workers),
        )
        for row in results.iter_rows():
            yield FinishedShard(
                shards[row["number"]], Tally.from_json(json.loads(row["tally"])), row["size"], row["kept"], row["node"]
            )
    except RayTaskError as error:
        if isinstance(error.cause, Exception):  # an error of ours, from the node
            raise error.cause from None
        raise BuildError(f"the Ray cluster failed: {error}") from error
    except RayError as error:
        raise BuildError(f"the Ray cluster failed: {error}") from error
    finally:
        if ours:
            ray.shutdown()


def _join_cluster(ray: Any, address: str | None) -> None:
    """Connect to the cluster at an address, in RAY_ADDRESS, or on this machine; else start one that only this machine can
    reach. Raises BuildError."""
    quiet = {"log_to_driver": False, "logging_level": "error", "runtime_env": ray_environment()}
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=named or "auto", **quiet)
    except ConnectionError as error:
        if named:
            raise BuildError(f"no Ray cluster at {named}: {error}") from error
        ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)


def _ray_row(row: dict[str, Any], work: Callable[[Shard], FinishedShard], shards: Sequence[Shard]) -> dict[str, Any]:
    """The Ray task: make the shard with the row's number, and return its facts as a row of Ray Data."""
    import ray

    done = work(shards[row["number"]])
    node = ray.get_runtime_context().get_node_id()
    return {**row, "node": node, "tally": json.dumps(done.tally.to_json()), "size": done.size, "kept": done.kept}
