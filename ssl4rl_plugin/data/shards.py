"""Shards: rows as parquet files that verl reads, each one either whole and as planned, or not there at all.

A file is written aside, synced and renamed. Its footer says which shard of which plan it is, and its pages carry
checksums, so a finished shard is recognised by what it holds and not by its name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ssl4rl_plugin.core import Clip
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.arms import arm_key
from ssl4rl_plugin.data.files import file_stamp, inside, read_file
from ssl4rl_plugin.data.images import open_rgb
from ssl4rl_plugin.data.rows import Row

# pyarrow is imported where it is used: data-loader workers import this module.
if TYPE_CHECKING:
    import pyarrow as pa

STORES = ("bytes", "path", "reference")
"""How a row carries its pictures: inside of it; as files beside it; or not at all, to be made again when read."""
FORMATS = ("jpeg", "png")
METADATA_KEY = b"ssl4rl.shard"


class ShardError(UserError):
    """A shard that cannot be read as what it should be."""


@dataclass(frozen=True)
class Shard:
    """One file of a build."""

    split: str
    number: int
    of: int
    start: int
    """First row of the split that it holds."""
    stop: int
    """Row behind its last one."""

    @property
    def name(self) -> str:
        """File name, in the Hugging Face convention."""
        return f"{self.split}-{self.number:05}-of-{self.of:05}.parquet"


@dataclass(frozen=True)
class Codec:
    """How pictures are encoded; all pictures of all rows alike, so that no file property tells an answer."""

    format: str = "jpeg"
    """`jpeg`, or `png` where not a single pixel may change."""
    quality: int = 90
    """Of JPEG, 1 to 100."""

    def encode(self, image: Image.Image) -> bytes:
        """An RGB picture as a file."""
        file = io.BytesIO()
        if self.format == "jpeg":
            image.save(file, "JPEG", quality=self.quality, subsampling="4:4:4")  # colours as sharp as the rest
        else:
            image.save(file, "PNG", compress_level=1)  # a fifth of the default's time for a few per cent of its size
        return file.getvalue()


_COUNTED = ("rows", "refused", "answers")


@dataclass
class Tally:
    """What one shard, or several, hold."""

    rows: Counter[str] = field(default_factory=Counter)
    """By kind: `task:level`, or a benchmark's name."""
    refused: Counter[str] = field(default_factory=Counter)
    """Draws that a task refused on the way, by `task:level: reason`."""
    answers: Counter[str] = field(default_factory=Counter)
    """Right answers, by `task:level: answer`; of tasks with few of them."""
    pictures: int = 0
    picture_bytes: int = 0
    pixels: int = 0
    longest_side: int = 0
    """Pixels along the longest side of any picture."""

    def add(self, other: Tally) -> None:
        """Count what another one holds too."""
        for name in _COUNTED:
            getattr(self, name).update(getattr(other, name))
        for name in ("pictures", "picture_bytes", "pixels"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest_side = max(self.longest_side, other.longest_side)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return vars(self) | {name: dict(getattr(self, name)) for name in _COUNTED}  # asdict would list pairs

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Tally:
        """The inverse of `to_json`."""
        return cls(**values | {name: Counter(values[name]) for name in _COUNTED})


def schema() -> pa.Schema:
    """Columns of a shard: what verl's `RLHFDataset` reads, the same for every task."""
    import pyarrow as pa

    text = pa.string()
    picture = pa.struct([("bytes", pa.binary()), ("path", text)])
    info = [(name, text) for name in ("split", "sample", "task", "level", "item", "gold", "params", "refused")]
    return pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("images", pa.list_(picture)),
            ("videos", pa.list_(pa.struct([("frames", pa.list_(picture)), ("fps", pa.float64())]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct([("index", pa.int64()), *info])),
        ]
    )


def picture_name(data: bytes, format: str) -> str:
    """`images/ab/cdef....jpeg`: the BLAKE2 hash of the file's bytes."""
    name = hashlib.blake2b(data, digest_size=20).hexdigest()
    return f"images/{name[:2]}/{name[2:]}.{format}"


def row_from(values: dict[str, Any], folder: Path) -> Row:
    """A row as it was written; its prompt is the user's turn. `folder` has its links resolved.

    Raises:
        ShardError: the row is of another form.
        ImageError: a picture cannot be read, or does not lie in the folder.
    """
    try:
        truth = json.loads(values["reward_model"]["ground_truth"])
        kind = truth.get("benchmark") or arm_key(truth["task"], truth["level"], truth["options"])
        prompt = next(turn["content"] for turn in values["prompt"] if turn["role"] == "user")
        return Row(
            kind=kind,
            data_source=values["data_source"],
            prompt=prompt,
            images=tuple(_decoded(picture, folder) for picture in values["images"]),
            videos=tuple(
                Clip(tuple(_decoded(frame, folder) for frame in clip["frames"]), clip["fps"])
                for clip in values["videos"]
            ),
            ground_truth=values["reward_model"]["ground_truth"],
            info=values["extra_info"],
        )
    except (AttributeError, KeyError, TypeError, StopIteration, json.JSONDecodeError) as error:
        raise ShardError(f"no row that `ssl4rl build` wrote: {type(error).__name__}: {error}") from error


def _decoded(picture: dict[str, Any], folder: Path) -> Image.Image:
    if picture["bytes"] is not None:
        return open_rgb(picture["bytes"])
    path = inside(os.fsencode(folder), os.fsencode(picture["path"]), picture["path"])
    file_stamp(path, picture["path"])  # refuses what is no regular file
    return open_rgb(read_file(path, picture["path"]))
