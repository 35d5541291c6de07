"""WikiCS in the files that `torch_geometric.datasets.WikiCS` downloads, with the articles' titles and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, Reading, Texts
from ssl4rl_plugin.data.graphs import SharedOptions
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.folder import GraphInFolder
from ssl4rl_plugin.data_builders.sources.graphs.tables import read_json
from ssl4rl_plugin.data_builders.sources.graphs.tensor_labels import class_numbers
from ssl4rl_plugin.data_builders.sources.graphs.tensor_splits import roles_in

if TYPE_CHECKING:
    from typing_extensions import Unpack

_READ = ("links", "labels", "train_masks", "val_masks", "test_mask")


class WikiCSSource(GraphInFolder):
    """Wikipedia articles about computer science, and the links between them (arXiv 2007.02901).

    Args:
        path: folder with data.json and metadata.json, directly or in raw/.
        mask: which of the 20 masks for training and validation to use, from 0. There is one mask for the test.
        unmasked: split of the nodes in no mask (among them those of the stopping masks): `train`, or `none` to leave them
            out of all splits.
        shared: options of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "wikics"
    summary: ClassVar[str] = "WikiCS: articles about computer science with links, titles and words"
    schema: ClassVar[str] = "data.json and metadata.json, in the folder or raw/ below it"
    licence: ClassVar[str] = "MIT; the articles CC BY-SA"
    where: ClassVar[str] = (
        "torch_geometric.datasets.WikiCS downloads data.json; metadata.json lies beside it in pmernyei/wiki-cs-dataset"
    )
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(
        self, path: str | Path | None, mask: int = 0, unmasked: str = "train", **shared: Unpack[SharedOptions]
    ) -> None:
        super().__init__(path, mask=mask, unmasked=unmasked, **shared)

    def files(self) -> list[Path]:
        folder, below = self.existing_path(), self.existing_path() / "raw"
        return [(below if below.is_dir() else folder) / name for name in ("data.json", "metadata.json")]

    def graph(self) -> RawGraph:
        data, about = (read_json(file) for file in self.files())
        where = self.files()[0].parent
        if not isinstance(data, dict) or not isinstance(about, dict):
            raise SourceError(f"{where}: data.json and metadata.json must hold objects")
        nodes, links = self._list(about, "nodes"), self._list(data, "links")
        if not len(nodes) == len(links):
            raise SourceError(f"{where}: metadata.json has {len(nodes)} nodes, and links of data.json has {len(links)}")
        texts = [self._text(node, place) for place, node in enumerate(nodes)]
        for place, ends in enumerate(links):
            if not isinstance(ends, list) or not all(type(end) is int and 0 <= end < len(nodes) for end in ends):
                raise SourceError(
                    f"{where}: links of node {place} must be a list of nodes, 0 to {len(nodes) - 1}; got {str(ends)[:60]}"
                )
        counted: Counter[str] = Counter()
        labels = class_numbers(self._list(data, "labels"), f"{where}: labels", len(nodes), counted)
        names = self._names(about, labels)
        used: set[str] = set()
        masks = {key: data[key] for key in ("train_masks", "val_masks", "test_mask") if data.get(key) is not None}
        roles, splits, told = roles_in(
            masks, self.name, len(nodes), self.options["mask"], self.options["unmasked"], counted, used
        )
        starts = np.repeat(np.arange(len(links)), [len(ends) for ends in links])
        ends = np.array([end for ends in links for end in ends], np.int64)
        return RawGraph(
            self.name, starts, ends, Texts.of(texts), labels=labels.astype(np.int32), label_names=names, roles=roles,
            counted=counted,
            reading=Reading(
                found=told, lines_used=len(ends), splits=splits, labels="labels of data.json",
                missing_texts=sum(not text for text in texts), unused=tuple(sorted(set(data) - {*_READ})),
            ),
        )  # fmt: skip

    def _list(self, content: Mapping[str, Any], key: str) -> list[Any]:
        found = content.get(key)
        if not isinstance(found, list):
            raise SourceError(f"source 'wikics': {self.files()[0].parent} is not in WikiCS's layout: no list {key!r}")
        return found

    def _text(self, node: Any, place: int) -> str:
        """Title and words of an article; "" if it has none."""
        title, words = (node.get("title"), node.get("tokens") or []) if isinstance(node, Mapping) else (None, None)
        if not isinstance(words, list) or not (title is None or isinstance(title, str)):
            raise SourceError(
                f"source 'wikics': {self.files()[1]}: node {place} must be an object with a title and tokens; got "
                f"{str(node)[:60]}"
            )
        return ". ".join(part for part in (title, " ".join(map(str, words))) if part and part.strip())

    def _names(self, about: Mapping[str, Any], labels: np.ndarray) -> tuple[str, ...]:
        """The names of the classes."""
        given = about.get("labels")
        highest = int(labels.max(initial=-1))
        if not isinstance(given, Mapping) or len(given) > 2**16 or highest >= len(given):
            raise SourceError(f"source 'wikics': {self.files()[1]} must name the classes 0 to {highest} in `labels`")
        try:
            return tuple(str(given[str(k)]) for k in range(len(given)))
        except KeyError as error:
            raise SourceError(
                f"source 'wikics': {self.files()[1]} names {len(given)} classes, but not {error}"
            ) from error
