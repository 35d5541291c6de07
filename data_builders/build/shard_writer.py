"""Writes shards. An incomplete shard never appears under its name.

A shard's footer names its plan and number, and its pages have checksums. A finished shard is recognised by this content,
not by its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from ssl4rl_plugin.core.files import writing
from ssl4rl_plugin.data.rows import Row
from ssl4rl_plugin.data.shards import METADATA_KEY, Codec, Tally, picture_name, schema

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_BYTES = 8 * 2**20
"""Bytes of pictures after which a row group ends. Readers and the writer hold one row group in memory."""
MAX_ROW_GROUP = 1024
"""Most rows of a row group."""


class ShardWriter:
    """Writes the rows of one shard to a temporary file, in row groups of bounded size."""

    def __init__(self, file: BinaryIO, folder: Path, store: str, codec: Codec, sources: bool = False) -> None:
        import pyarrow.parquet as pq

        self._schema = schema(sources)
        # Pictures are already compressed.
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
        """Append a row. With `answers`, count its right answer."""
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
        self._writer.add_key_value_metadata({METADATA_KEY: json.dumps(stamp, sort_keys=True)})
        self._writer.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        # A second close does nothing. After an error the file is deleted, so errors of the close do not matter.
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
        """Store a picture; returns its name below the folder, the hash of its content, so that a reader can check it."""
        name = picture_name(data, self._codec.format)
        path = self._folder / name
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing(path, durable=False) as file:  # synced together before the shard gets its name
                file.write(data)
            self.files.append(path)
        return name

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema), row_group_size=len(self._rows))
            self._rows, self._bytes = [], 0


def _leaves(of: pa.Schema) -> list[str]:
    """Parquet's names of all physical columns, also inside lists and structs."""
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


def finished(path: Path, stamp: dict[str, Any]) -> Tally | None:
    """The tally of a finished shard; None if it is missing, of another plan, or has a damaged page or picture file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = json.loads(file.metadata.metadata[METADATA_KEY])
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
    """Names of the picture files in a table of rows."""
    import pyarrow.compute as pc

    pictures = pc.list_flatten(group["images"])
    frames = pc.list_flatten(pc.struct_field(pc.list_flatten(group["videos"]), "frames"))
    for column in (pictures, frames):
        yield from pc.struct_field(column, "path").drop_null().to_pylist()
