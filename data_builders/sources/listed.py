"""Base of sources whose entries name image files: a JSON file, a CSV file, a list with one path a line."""

from __future__ import annotations

import logging
import os
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from ssl4rl_plugin.data.files import allowed_folders, encoded, file_stamp, inside, read_file
from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import Record, SourceError
from ssl4rl_plugin.data_builders.sources.tables import TableRow, TableSource

logger = logging.getLogger(__name__)

FOLDERS = ("", "images", "imgs", "image", "all_images")
"""Folders that paths may be relative to: the file's own (empty name), or one beside it."""

LONGEST_PATH = 4096
"""Characters. A longer text is no path, but a picture in base64."""

_TRIED = 20  # entries whose files are looked for to find the folder that paths are relative to
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class ListedFiles(TableSource):
    """The pictures that the entries of a file name, each once. The pictures of one entry share a group.

    A ref is the path below the file's folder, as in the folder source, or an absolute path. Paths out of that folder are
    rejected as `outside_root`, unless they lead into a folder of the option `root`; addresses (`https://...`) as `url`.
    """

    def __init__(
        self,
        path: str | Path | None,
        columns: str | Sequence[str] | None,
        image_folder: str | None,
        split_column: str | None,
        root: str | Sequence[str] | None,
        **options: Any,
    ) -> None:
        columns = [columns] if isinstance(columns, str) else columns and list(columns)
        super().__init__(path, columns=columns, image_folder=image_folder, split_column=split_column, **options)
        allowed = allowed_folders(self.name, root)
        if allowed:  # left out where it is not given: manifests of earlier versions stay valid
            self.options["root"] = allowed
        self._allowed = tuple(os.fsencode(folder) for folder in allowed)
        self._left_out: Counter[str] = Counter()
        self.file = self._file()
        self.root = self.file.parent.resolve()
        entries = list(islice(self._entries(), _TRIED))
        if not entries:
            raise SourceError(f"source {self.name!r}: {self.file} has no entries; it must be {self.schema}")
        self._columns = columns or self._path_columns(entries)
        if not any(name in entries[0] for name in self._columns):
            raise SourceError(
                f"source {self.name!r}: the first entry of {self.file} names no image under "
                f"{' or '.join(columns or ['image'])}; its keys are: {', '.join(entries[0])[:300]}. Name the keys with "
                "paths in the option `columns`"
            )
        self._images = self._image_folder(entries, allowed) if image_folder is None else image_folder
        if not (self.root / self._images).is_dir():
            raise SourceError(
                f"source {self.name!r}: there is no folder {image_folder!r} beside {self.file}; put the images there"
            )

    @abstractmethod
    def _file(self) -> Path:
        """The file with the entries. Raises SourceError."""

    @abstractmethod
    def _entries(self) -> Iterator[dict[str, Any]]:
        """The entries, in order. Others are counted in `_left_out`."""

    @abstractmethod
    def _path_columns(self, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        """The keys of the first entries under which there are paths."""

    def records(self) -> Iterator[Record]:
        seen: set[str] = set()
        empty = repeated = 0
        self._left_out = Counter()
        for row in self.rows():
            empty += not row.refs
            for ref in row.refs:
                if ref in seen:
                    repeated += 1
                else:
                    seen.add(ref)
                    yield Record(ref, row.split, row.refs[0] if len(row.refs) > 1 else None)
        if repeated:
            self._left_out["named again"] = repeated
        if empty:
            self._left_out["without an image"] = empty
        if not seen:
            raise SourceError(
                f"source {self.name!r}: no entry of {self.file} names an image under {', '.join(self._columns)}"
                + "".join(f"; {note}" for note in self.notes())
            )

    def notes(self) -> list[str]:
        counts = ", ".join(f"{reason} {count}" for reason, count in self._left_out.most_common())
        return [f"{self.file}: entries left out: {counts}"] if counts else []

    def rows(self) -> Iterator[TableRow]:
        split_column = self.options["split_column"]
        for entry in self._entries():
            named = [path for name in self._columns for path in paths_in(entry.get(name))]
            paths = [path for path in named if len(path) <= LONGEST_PATH]
            if len(paths) < len(named):
                self._left_out["too long for a path, perhaps base64"] += len(named) - len(paths)
            refs = [self._ref(path) for path in paths]
            split = str(entry.get(split_column) or "") or None if split_column else None
            yield TableRow(tuple(refs), {k: v for k, v in entry.items() if k not in self._columns}, split)

    def stamp(self, ref: str) -> tuple[int, int]:
        return file_stamp(self._locate(ref), ref)

    def read(self, ref: str) -> bytes:
        path = self._locate(ref)
        file_stamp(path, ref)
        return read_file(path, ref)

    def _locate(self, ref: str) -> bytes:
        if _URL.match(ref):
            raise ImageError(
                "url", f"{ref} is an address; pictures are not downloaded: download them, and list the files"
            )
        return inside(os.fsencode(self.root), unquote_to_bytes(ref), ref, self._allowed)

    def _ref(self, path: str) -> str:
        """The ref of a path as the file has it."""
        if _URL.match(path) and not path.lower().startswith("file://"):
            return encoded(path.encode("utf-8", "surrogatepass"))
        return encoded(os.path.join(os.fsencode(self._images), self._as_bytes(self._path(path))))

    def _path(self, path: str) -> str:
        """A path as this system writes it: of a `file://` address, with `/` for the backslashes of Windows, without `./`."""
        if path.lower().startswith("file://"):
            path = unquote(urlsplit(path).path)
        if "\\" in path and not os.path.exists(os.path.join(self.root, self._images, path)):
            path = path.replace("\\", "/")
        while path.startswith("./"):
            path = path[2:].lstrip("/")
        return path

    @staticmethod
    def _as_bytes(path: str) -> bytes:
        """A path as the file system has it. Texts from JSON may hold lone surrogates."""
        try:
            return os.fsencode(path)
        except UnicodeEncodeError:
            return path.encode("utf-8", "surrogatepass")

    def _image_folder(self, entries: Sequence[Mapping[str, Any]], allowed: Sequence[str]) -> str:
        """The folder with most pictures of the first entries: one of FOLDERS, or of the option `root`."""
        self._images = ""
        paths = [self._path(p) for entry in entries for name in self._columns for p in paths_in(entry.get(name))]
        held = {folder: _held(self.root / folder, paths) for folder in (*FOLDERS, *allowed)}
        best = max(held, key=lambda folder: held[folder])  # the first of equal ones
        return best if held[best] else ""


def _held(folder: Path, paths: Sequence[str]) -> int:
    """Number of these files in a folder."""
    if not folder.is_dir():
        return 0
    return sum(os.path.isfile(os.path.join(folder, path)) for path in paths if "\0" not in path)


def paths_in(value: Any) -> list[str]:
    """The paths in a cell: a text, or a list of texts."""
    values = value if isinstance(value, list) else [value]
    return [path for path in values if isinstance(path, str) and path.strip()]
