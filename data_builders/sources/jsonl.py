"""The json source: a JSON or JSONL file whose entries name image files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.listed import ListedFiles, paths_in
from ssl4rl_plugin.data_builders.sources.tables import IMAGE_NAME


class JsonSource(ListedFiles):
    """The pictures that the entries of a JSON file name, each once. The pictures of one entry share a group.

    A ref is the path below the file's folder, as in the folder source, or an absolute path. Paths out of that folder and of
    `root` are rejected as `outside_root`. A JSONL file is read line by line, a JSON file as a whole.

    Args:
        path: the .json or .jsonl file, or a folder with exactly one at its top.
        columns: keys of the entries with a path or a list of paths; None finds those with a name like `image`,
            `images` or `image_path`.
        image_folder: folder beside the file that the paths are relative to; None finds it: that of the file's own
            folder, `images`, `imgs`, `image`, `all_images` and `root` which has most pictures of the first entries.
        split_column: the key that names an entry's split.
        root: folders outside that paths may lead to: a path or a list.
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
        root: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(path, columns, image_folder, split_column, root)

    def _file(self) -> Path:
        place = self.existing_path()
        if place.is_dir():
            files = sorted(f for f in place.iterdir() if f.suffix in (".json", ".jsonl") and not f.name.startswith("."))
            if len(files) != 1:
                listed = ", ".join(f.name for f in files[:8])
                raise SourceError(f"source 'json': {place} holds {len(files)} JSON files ({listed}); give one of them")
            place = files[0]
        return place

    def _path_columns(self, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        return [name for name in entries[0] if IMAGE_NAME.fullmatch(name) and paths_in(entries[0][name])]

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The objects of the file. Other entries are left out and counted."""
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
            self._left_out["not a JSON object"] = bad


def _list(content: Any) -> list[Any]:
    """The entries: the content itself, or the first list of objects under a key."""
    if isinstance(content, dict):
        lists = (value for value in content.values() if isinstance(value, list))
        content = next((value for value in lists if value and isinstance(value[0], dict)), [])
    return content if isinstance(content, list) else []
