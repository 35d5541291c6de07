"""Shards: rows in parquet files that verl reads. A partial shard never exists.

Each file is written under a temporary name, synced and renamed. Its footer names its plan and its number, and its pages
have checksums, so a finished shard is recognised by its content, not by its name.
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
"""How a row stores its pictures: encoded in the row; as files beside the shards; or as a reference, to be made again when
read."""
FORMATS = ("jpeg", "png")
METADATA_KEY = b"ssl4rl.shard"


class ShardError(UserError):
    """A shard cannot be read, or is not the expected one."""


@dataclass(frozen=True)
class Shard:
    """One file of a build."""

    split: str
    number: int
    of: int
    start: int
    """Number of its first row in the split."""
    stop: int
    """Number of its last row, plus 1."""

    @property
    def name(self) -> str:
        """File name, in the Hugging Face convention."""
        return f"{self.split}-{self.number:05}-of-{self.of:05}.parquet"


@dataclass(frozen=True)
class Codec:
    """How pictures are encoded. The codec is the same for all pictures, so that no property of a file reveals an answer."""

    format: str = "jpeg"
    """`jpeg`, or `png` for lossless pictures."""
    quality: int = 90
    """JPEG quality, 1 to 100."""

    def encode(self, image: Image.Image) -> bytes:
        """The encoded file of an RGB picture."""
        file = io.BytesIO()
        if self.format == "jpeg":
            image.save(file, "JPEG", quality=self.quality, subsampling="4:4:4")  # colour at full resolution
        else:
            image.save(file, "PNG", compress_level=1)  # a fifth of the default's time, files a few per cent larger
        return file.getvalue()


_COUNTED = ("rows", "refused", "answers")


@dataclass
class Tally:
    """Counts of the content of one or several shards."""

    rows: Counter[str] = field(default_factory=Counter)
    """Number of rows by kind: `task:level`, or a benchmark's name."""
    refused: Counter[str] = field(default_factory=Counter)
    """Number of draws that tasks refused, by `task:level: reason`."""
    answers: Counter[str] = field(default_factory=Counter)
    """Number of correct answers by `task:level: answer`, for tasks with few different answers."""
    pictures: int = 0
    picture_bytes: int = 0
    pixels: int = 0
    longest_side: int = 0
    """Pixels along the longest side of any picture."""

    def add(self, other: Tally) -> None:
        """Add the counts of `other`."""
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


def schema(sources: bool = False) -> pa.Schema:
    """Columns of a shard, as verl's `RLHFDataset` reads them; the same for every task. Rows of several `sources` name
    theirs."""
    import pyarrow as pa

    text = pa.string()
    picture = pa.struct([("bytes", pa.binary()), ("path", text)])
    info = [(name, text) for name in ("split", "sample", "task", "level", "item", "gold", "params", "refused")]
    if sources:
        info.append(("source", text))
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
    """The row of a shard, decoded; its prompt is the user's turn. `folder` must be a real path, without links.

    Raises:
        ShardError: the row does not follow the schema.
        ImageError: a picture cannot be read, or lies outside the folder.
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
            info=info_of(values),
        )
    except (AttributeError, KeyError, TypeError, StopIteration, json.JSONDecodeError) as error:
        raise ShardError(f"not a row written by `ssl4rl build`: {type(error).__name__}: {error}") from error


def info_of(values: dict[str, Any]) -> dict[str, Any]:
    """The `extra_info` of a row of a shard. The column `source` is empty for questions, which have no such key."""
    info: dict[str, Any] = values["extra_info"]
    return {key: value for key, value in info.items() if key != "source" or value is not None}


def _decoded(picture: dict[str, Any], folder: Path) -> Image.Image:
    if picture["bytes"] is not None:
        return open_rgb(picture["bytes"])
    path = inside(os.fsencode(folder), os.fsencode(picture["path"]), picture["path"])
    file_stamp(path, picture["path"])  # raises unless it is a regular file
    return open_rgb(read_file(path, picture["path"]))
