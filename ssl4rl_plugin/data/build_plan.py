"""The plan of a build: everything that its bytes depend on, and the division of its rows into shards.

The plan is written to the output folder before any shard. A resumed build must have the same plan, and each shard names
its plan. Readers of the rows take the settings from it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.shards import FORMATS, STORES, Codec, Shard

FILE = "build.json"
MANIFEST = "manifest.parquet"
"""The manifest of a build with one source; see `manifest_names`."""
SPLITS = ("train", "val", "questions")
VERSION = 1
"""Version of the rows' layout."""

_MAKERS = ("ssl4rl-plugin", "pillow", "numpy", "scipy", "pyarrow")
"""Packages whose version may change the bytes of a build."""


class PlanError(UserError):
    """A folder has no build, or not the one that is needed. The message says what to do."""


@dataclass(frozen=True, eq=False)
class BuildPlan:
    """Everything that determines a build. Plans with equal `id` give equal bytes."""

    section: dict[str, Any]
    """The `ssl4rl` section of the config, without paths."""
    images: str
    """Hash of the usable images, their groups and their splits."""
    questions: str
    """Hash of the questions, if the source is a benchmark."""
    store: str
    codec: Codec
    shard_rows: int
    rows: dict[str, int]
    """Split -> number of rows."""
    made_with: dict[str, str]
    """Package -> version."""
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.store not in STORES:
            raise PlanError(f"pictures can be stored as {', '.join(STORES)}, not {self.store!r}")
        if self.codec.format not in FORMATS or not 1 <= self.codec.quality <= 100:
            raise PlanError(
                f"pictures are {' or '.join(FORMATS)} of quality 1 to 100, not {self.codec.format!r} of {self.codec.quality}"
            )
        if self.shard_rows < 1:
            raise PlanError(f"a shard needs at least one row, got {self.shard_rows}")

    @functools.cached_property
    def id(self) -> str:
        """Hash of the plan."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def mixed(self) -> bool:
        """Whether the rows are of several sources."""
        return bool(self.section.get("sources"))

    def to_json(self) -> bytes:
        """The content of the plan's file; see `read_plan`."""
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode()

    def shards(self) -> list[Shard]:
        """All shards, in order."""
        found = []
        for split in SPLITS:
            rows = self.rows.get(split, 0)
            count = -(-rows // self.shard_rows)
            found += [
                Shard(split, k, count, k * self.shard_rows, min(rows, (k + 1) * self.shard_rows)) for k in range(count)
            ]
        return found

    def stamp(self, shard: Shard) -> dict[str, Any]:
        """The entry in a shard's footer that identifies it."""
        return {"plan": self.id, "name": shard.name, "rows": shard.stop - shard.start}


def makers() -> dict[str, str]:
    """The installed versions of the packages that may change the bytes of a build."""
    return {name: version(name) for name in _MAKERS}


def manifest_names(sources: int) -> list[str]:
    """File names of the manifests of a build with several sources, in their order."""
    return [f"manifest-{number:02}.parquet" for number in range(sources)]


def read_plan(folder: Path) -> BuildPlan:
    """The plan of the build in a folder. Raises PlanError."""
    try:
        return plan_from((folder / FILE).read_bytes())
    except FileNotFoundError:
        raise PlanError(f"{folder} holds no build ({FILE} is missing): make one with `ssl4rl build`") from None
    except OSError as error:
        raise PlanError(f"{folder / FILE} cannot be read: {error.strerror}") from error
    except PlanError as error:
        raise PlanError(f"{folder / FILE} {error}: build anew") from error


def plan_from(data: bytes) -> BuildPlan:
    """The inverse of `BuildPlan.to_json`. Raises PlanError."""
    try:
        values = json.loads(data)
        if values["version"] != VERSION:
            raise PlanError(f"has version {values['version']}, this package reads {VERSION}")
        return BuildPlan(**values | {"codec": Codec(**values["codec"])})
    except PlanError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise PlanError(f"is damaged ({type(error).__name__}: {error})") from error
