"""Shards: rows as parquet files that verl reads, each one either whole and as planned, or not there at all.

A file is written aside, synced and renamed. Its footer says which shard of which plan it is, and its pages carry
checksums, so a finished shard is recognised by what it holds and not by its name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from ssl4rl_plugin.core import Clip
from ssl4rl_plugin.data_builders.folder import file_stamp, inside, read_file
from ssl4rl_plugin.images import open_rgb
from ssl4rl_plugin.rows import Row
from ssl4rl_plugin.settings import arm_key

# pyarrow is imported where it is used: data-loader workers import this module.
if TYPE_CHECKING:
    import pyarrow as pa

STORES = ("bytes", "path", "reference")
"""How a row carries its pictures: inside of it; as files beside it; or not at all, to be made again when read."""
FORMATS = ("jpeg", "png")
ROW_GROUP_BYTES = 8 * 2**20
"""Bytes of pictures after which a row group ends: what a reader holds in memory, and a writer."""
MAX_ROW_GROUP = 1024
"""Rows after which a row group ends, whatever their size."""

_METADATA_KEY = b"ssl4rl.shard"
_TEMPORARY = ".tmp"


class ShardError(ValueError):
    """A shard that cannot be read as what it should be."""


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


class ShardWriter:
    """Writes the rows of one shard to a temporary file, in row groups of bounded size; see `written`."""

    def __init__(self, file: BinaryIO, folder: Path, store: str, codec: Codec) -> None:
        import pyarrow.parquet as pq

        self._schema = schema()
        # Pictures are compressed already.
        stored = dict.fromkeys(("images.list.element.bytes", "videos.list.element.frames.list.element.bytes"), "none")
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            compression=stored | {name: "zstd" for name in _leaves(self._schema) if name not in stored},
            use_dictionary=[name for name in _leaves(self._schema) if name not in stored],
            write_statistics=False,
            write_page_checksum=True,
        )
        self._folder, self._store, self._codec = folder, store, codec
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self.tally = Tally()
        self.files: list[Path] = []
        """Picture files written, not yet synced."""

    def add(self, row: Row, system_prompt: str | None, answers: bool) -> None:
        """Append a row; with `answers` its right answer is counted."""
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        self._rows.append(
            {
                "data_source": row.data_source,
                "prompt": [*system, {"role": "user", "content": row.prompt}],
                "images": [self._picture(image) for image in row.images] if self._store != "reference" else [],
                "videos": [
                    {"frames": [self._picture(frame) for frame in clip.frames], "fps": clip.fps} for clip in row.videos
                ]
                if self._store != "reference"
                else [],
                "ability": "ssl",
                "reward_model": {"style": "rule", "ground_truth": row.ground_truth},
                "extra_info": row.info,
            }
        )
        self.tally.rows[row.kind] += 1
        self.tally.refused.update(f"{row.kind}: {reason}" for reason in json.loads(row.info["refused"]))
        if answers:
            self.tally.answers[f"{row.kind}: {row.info['gold']}"] += 1
        if self._bytes >= ROW_GROUP_BYTES or len(self._rows) == MAX_ROW_GROUP:
            self._flush()

    def finish(self, stamp: dict[str, Any]) -> None:
        """Write the last row group and the footer with the shard's `stamp`."""
        self._flush()
        stamp = {**stamp, "tally": self.tally.to_json()}
        self._writer.add_key_value_metadata({_METADATA_KEY: json.dumps(stamp, sort_keys=True)})
        self._writer.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        # A second close does nothing; after an error the file is thrown away, whatever pyarrow says about it.
        with suppress(Exception):
            self._writer.close()

    def _picture(self, image: Image.Image) -> dict[str, Any]:
        data = self._codec.encode(image)
        self._bytes += len(data)
        self.tally.pictures += 1
        self.tally.picture_bytes += len(data)
        self.tally.pixels += image.width * image.height
        self.tally.longest_side = max(self.tally.longest_side, *image.size)
        if self._store == "bytes":
            return {"bytes": data, "path": None}
        return {"bytes": None, "path": self._file(data)}

    def _file(self, data: bytes) -> str:
        """Where a picture lies below the folder: a name that is its content's hash, so that a reader can check it."""
        name = picture_name(data, self._codec.format)
        path = self._folder / name
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = _aside(path)
            aside.write_bytes(data)
            aside.replace(path)
            self.files.append(path)
        return name

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema), row_group_size=len(self._rows))
            self._rows, self._bytes = [], 0


def picture_name(data: bytes, format: str) -> str:
    """`images/ab/cdef....jpeg`: the BLAKE2 hash of the file's bytes."""
    name = hashlib.blake2b(data, digest_size=20).hexdigest()
    return f"images/{name[:2]}/{name[2:]}.{format}"


def _leaves(of: pa.Schema) -> list[str]:
    """Parquet's names of all columns, those inside of lists and structs too."""
    import pyarrow as pa

    def below(name: str, kind: pa.DataType) -> Iterator[str]:
        if pa.types.is_list(kind):
            yield from below(f"{name}.list.element", kind.value_type)
        elif pa.types.is_struct(kind):
            for inner in kind:
                yield from below(f"{name}.{inner.name}", inner.type)
        else:
            yield name

    return [leaf for column in of for leaf in below(column.name, column.type)]


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends well, synced, and leaves nothing behind otherwise."""
    aside = _aside(path)
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    """Where a file is written first; a name of its own on all nodes that may write the same file."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_files(paths: Iterable[Path]) -> None:
    """Make files and their names last through a power cut."""
    folders = set()
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        folders.add(path.parent)
    for folder in sorted(folders):
        sync_folder(folder)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left aside."""
    for pattern in (f".*{_TEMPORARY}", f"images/??/.*{_TEMPORARY}"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def finished(path: Path, stamp: dict[str, Any]) -> Tally | None:
    """The tally of a shard that is there, is the one meant, and whose every page and picture file is as it was written;
    None for any other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = json.loads(file.metadata.metadata[_METADATA_KEY])
            if {key: found.get(key) for key in stamp} != stamp or file.metadata.num_rows != stamp["rows"]:
                return None
            for number in range(file.num_row_groups):
                group = file.read_row_group(number, use_threads=False)
                for name in _named(group):
                    if picture_name((path.parent / name).read_bytes(), name.rpartition(".")[2]) != name:
                        return None
        return Tally.from_json(found["tally"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def _named(group: pa.Table) -> Iterator[str]:
    """Names of the picture files that the rows of a table name."""
    import pyarrow.compute as pc

    pictures = pc.list_flatten(group["images"])
    frames = pc.list_flatten(pc.struct_field(pc.list_flatten(group["videos"]), "frames"))
    for column in (pictures, frames):
        yield from pc.struct_field(column, "path").drop_null().to_pylist()


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
