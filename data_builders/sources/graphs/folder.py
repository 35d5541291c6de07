"""A graph data set in a folder of known files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl4rl_plugin.data.graphs import GraphSource
from ssl4rl_plugin.data.source import SourceError


class GraphInFolder(GraphSource):
    """A data set in a folder. If files are missing, the error names the first. Nothing is downloaded.

    Args:
        path: the folder.
        options: the source's own options, and those of every graph source.
    """

    def __init__(self, path: str | Path | None, **options: Any) -> None:
        super().__init__(path, **options)
        missing = [file for file in self.files() if not file.is_file()]
        if missing:
            raise SourceError(f"source {self.name!r}: {missing[0]} is missing; expected: {self.schema}")

    @abstractmethod
    def files(self) -> Sequence[Path]: ...
