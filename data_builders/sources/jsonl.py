"""The json source: a JSON or JSONL file whose entries name image files beside it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes

from ssl4rl_plugin.data.files import encoded, file_stamp, inside, read_file
from ssl4rl_plugin.data.source import Record, SourceError
from ssl4rl_plugin.data_builders.sources.tables import IMAGE_NAME, TableRow, TableSource

logger = logging.getLogger(__name__)

FOLDERS = ("", "images", "imgs", "image", "all_images")
"""Folders that paths may be relative to: the file's own (empty name), or one beside it."""


class JsonSource(TableSource):
    """The pictures that the entries of a JSON file name, each once. The pictures of one entry share a group.

    A ref is the path below the file's folder, as in the folder source. Paths out of that folder are rejected as
    `outside_root`. A JSONL file is read line by line, a JSON file as a whole.

    Args:
        path: the .json or .jsonl file, or a folder with exactly one at its top.
        columns: keys of the entries with a path or a list of paths; None finds those with a name like `image`,
            `images` or `image_path`.
        image_folder: folder beside the file that the paths are relative to; None finds it: the first of the file's own
            folder, `images`, `imgs`, `image` and `all_images` that has a picture of the first entry.
        split_column: the key that names an entry's split.
    """

    name: ClassVar[str] = "json"
    summary: ClassVar[str] = "a JSON or JSONL file whose entries name image files"
    endings: ClassVar[tuple[str, ...]] = (".json", ".jsonl")
    schema: ClassVar[str] = (
        "a list of objects (at the top, or under one key of an object), or one object a line; a path or a list of paths "
        "under image, images, image_path, ... and optionally question, options, answer, category, split"
    )
    licence: ClassVar[str] = "that of the data set"
    where: ClassVar[str] = "give a .json or .jsonl file with the images beside it, or the folder of both"

    def __init__(
        self,
        path: str | Path | None,
        columns: Sequence[str] | None = None,
        image_folder: str | None = None,
        split_column: str | None = None,
    ) -> None:
        columns = [columns] if isinstance(columns, str) else columns and list(columns)
        super().__init__(path, columns=columns, image_folder=image_folder, split_column=split_column)
        place = self.existing_path()
        if place.is_dir():
            files = sorted(f for f in place.iterdir() if f.suffix in (".json", ".jsonl") and not f.name.startswith("."))
            if len(files) != 1:
                listed = ", ".join(f.name for f in files[:8])
                raise SourceError(f"source 'json': {place} holds {len(files)} JSON files ({listed}); give one of them")
            place = files[0]
        self.file = place
        self.root = place.parent.resolve()
        first = next(self._entries(), None)
        if first is None:
            raise SourceError(f"source 'json': {place} has no entries; it must be {self.schema}")
        self._columns = columns or [name for name in first if IMAGE_NAME.fullmatch(name) and _paths(first[name])]
        if not any(name in first for name in self._columns):
            raise SourceError(
                f"source 'json': the first entry of {place} names no image under {' or '.join(columns or ['image'])}; "
                f"its keys are: {', '.join(first)[:300]}. Name the keys with paths in the option `columns`"
            )
        self._images = self._image_folder(first) if image_folder is None else image_folder
        if not (self.root / self._images).is_dir():
            raise SourceError(
                f"source 'json': there is no folder {image_folder!r} beside {place}; put the images there"
            )

    def records(self) -> Iterator[Record]:
        seen: set[str] = set()
        empty = 0
        for row in self.rows():
            empty += not row.refs
            for ref in row.refs:
                if ref not in seen:
                    seen.add(ref)
                    yield Record(ref, row.split, row.refs[0] if len(row.refs) > 1 else None)
        if empty:
            logger.warning("%s: %d entries name no image", self.file, empty)
        if not seen:
            raise SourceError(f"source 'json': no entry of {self.file} names an image under {', '.join(self._columns)}")

    def rows(self) -> Iterator[TableRow]:
        split_column = self.options["split_column"]
        for entry in self._entries():
            refs = [self._ref(path) for name in self._columns for path in _paths(entry.get(name))]
            split = str(entry.get(split_column) or "") or None if split_column else None
            yield TableRow(tuple(refs), {k: v for k, v in entry.items() if k not in self._columns}, split)

    def stamp(self, ref: str) -> tuple[int, int]:
        return file_stamp(self._locate(ref), ref)

    def read(self, ref: str) -> bytes:
        path = self._locate(ref)
        file_stamp(path, ref)
        return read_file(path, ref)

    def _locate(self, ref: str) -> bytes:
        return inside(os.fsencode(self.root), unquote_to_bytes(ref), ref)

    def _ref(self, path: str) -> str:
        return encoded(os.path.join(self._images, path).encode("utf-8", "surrogatepass"))

    def _image_folder(self, first: dict[str, Any]) -> str:
        """The first of FOLDERS with a picture of the first entry."""
        paths = [path for name in self._columns for path in _paths(first.get(name))]
        held = [f for f in FOLDERS if (self.root / f).is_dir() and any((self.root / f / p).is_file() for p in paths)]
        return held[0] if held else ""

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The objects of the file. Other entries are left out and counted in a warning."""
        bad = 0
        try:
            with open(self.file, encoding="utf-8-sig") as file:
                if self.file.suffix == ".jsonl":
                    for line in file:
                        try:
                            entry = json.loads(line) if line.strip() else None
                        except (ValueError, RecursionError):
                            entry = False
                        bad += entry is not None and not isinstance(entry, dict)
                        if isinstance(entry, dict):
                            yield entry
                else:
                    found = _list(json.load(file))
                    bad = sum(not isinstance(entry, dict) for entry in found)
                    yield from (entry for entry in found if isinstance(entry, dict))
        except (OSError, ValueError, RecursionError) as error:
            raise SourceError(f"source 'json': {self.file} cannot be read as JSON: {error}") from error
        if bad:
            logger.warning("%s: %d entries are not JSON objects: left out", self.file, bad)


def _list(content: Any) -> list[Any]:
    """The entries: the content itself, or the first list of objects under a key."""
    if isinstance(content, dict):
        lists = (value for value in content.values() if isinstance(value, list))
        content = next((value for value in lists if value and isinstance(value[0], dict)), [])
    return content if isinstance(content, list) else []


def _paths(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [path for path in values if isinstance(path, str) and path]
