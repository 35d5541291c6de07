"""Node data sets of OGB in the files that `ogb.nodeproppred` unpacks, and PyTorch Geometric's TAGDataset of them.

Texts belong to nodes by an id, never by luck: by the mapping from nodes to papers or products, by a column with the number
of the node, or, where the file has neither, by the order of the rows if there is one row for each node.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, Reading, Texts
from ssl4rl_plugin.data.graphs import SharedOptions
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.folder import GraphInFolder
from ssl4rl_plugin.data_builders.sources.graphs.ogb_tables import (
    MISSING,
    Table,
    is_number,
    number_in,
    numbers,
    read_labels,
    read_rows,
)
from ssl4rl_plugin.data_builders.sources.graphs.tensor_splits import roles_in

if TYPE_CHECKING:
    from typing_extensions import Unpack

TEXT_FILES = ("titleabs.tsv", "titleabs.tsv.gz", "raw/titleabs.tsv", "raw/titleabs.tsv.gz", "mapping/titleabs.tsv",
              "mapping/titleabs.tsv.gz", "raw/node-text.csv.gz")  # fmt: skip
"""Where the texts are looked for, if the option `texts` does not name a file."""


class OgbSource(GraphInFolder):
    """A node data set of OGB, from the files that `ogb.nodeproppred` unpacks. The package `ogb` is not needed.

    Args:
        path: the folder of the data set, e.g. dataset/ogbn_arxiv.
        texts: file with the texts, relative to the folder; several are separated by commas. Tables (.csv, .tsv) and lines of
            JSON (.json, .jsonl), also with .gz. The default is titleabs.tsv or titleabs.tsv.gz (paper id, title, abstract)
            for ogbn-arxiv. A text is matched by the node's paper id or ASIN (mapping/nodeidx2*.csv.gz), or by a column with
            the node's number; without both, there must be one row for each node.
        split: folder below split/, e.g. time or sales_ranking. Needed if there are several.
        shared: options of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "ogb"
    summary: ClassVar[str] = "node data sets of OGB (ogbn-arxiv, ogbn-products) with their texts"
    schema: ClassVar[str] = (
        "raw/edge.csv.gz, raw/node-label.csv.gz, split/*/{train,valid,test}.csv.gz, mapping/, and the texts"
    )
    licence: ClassVar[str] = "see the data set (ogbn-arxiv: ODC-BY)"
    where: ClassVar[str] = "ogb.nodeproppred downloads it; titles and abstracts (titleabs.tsv) are linked on OGB's page"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(
        self,
        path: str | Path | None,
        texts: str | None = None,
        split: str | None = None,
        **shared: Unpack[SharedOptions],
    ) -> None:
        super().__init__(path, texts=texts, split=split, **shared)

    def _texts(self) -> list[Path]:
        """The files with texts."""
        folder, given = self.existing_path(), self.options["texts"]
        if given:
            return [folder / part.strip() for part in str(given).split(",") if part.strip()]
        return [next((folder / name for name in TEXT_FILES if (folder / name).is_file()), folder / TEXT_FILES[0])]

    def files(self) -> list[Path]:
        folder = self.existing_path()
        split = self._split()
        return [
            folder / "raw" / "edge.csv.gz", folder / "raw" / "node-label.csv.gz", *self._texts(),
            *sorted((folder / "mapping").glob("*idx2*.csv.gz")),
            *([split / f"{name}.csv.gz" for name in ("train", "valid", "test")] if split else []),
        ]  # fmt: skip

    def _split(self) -> Path | None:
        """The folder of the split; None if the data set has none. Raises SourceError if there are several."""
        folder, given = self.existing_path() / "split", self.options["split"]
        found = sorted(path.parent for path in folder.glob("*/train.csv.gz"))
        if given:
            if folder / str(given) not in found:
                names = ", ".join(path.name for path in found) or "none"
                raise SourceError(f"source {self.name!r}: {folder} has no split {given!r}; there are: {names}")
            return folder / str(given)
        if len(found) > 1:
            raise SourceError(
                f"source {self.name!r}: {folder} has several splits ({', '.join(path.name for path in found)}): choose one "
                "with `+ssl4rl.source.options.split=NAME`"
            )
        return found[0] if found else None

    def graph(self) -> RawGraph:
        folder = self.existing_path()
        edges, labels = self.files()[:2]
        counted: Counter[str] = Counter()
        ends = numbers(edges, 2)
        number = read_labels(labels, counted)
        count = len(number)
        self._compare(count, len(ends))
        texts, by = self._matched(count, counted)
        names = self._label_names(folder, number, counted)
        split, roles = self._split(), None
        told: tuple[str, ...] = ()
        if split is not None:
            lists = {f"{name}_idx": numbers(split / f"{name}.csv.gz", 1)[:, 0] for name in ("train", "valid", "test")}
            roles, _, told = roles_in(lists, folder.name, count, counted=counted)
        return RawGraph(
            folder.name, ends[:, 0], ends[:, 1], Texts.of(texts), labels=number.astype(np.int32) if names else None,
            label_names=names, roles=roles, counted=counted,
            reading=Reading(
                found=(f"texts {by}", *told), lines_used=len(ends), splits=f"split/{split.name}" if split else "",
                labels="raw/node-label.csv.gz" if names else "", missing_texts=sum(not text for text in texts),
            ),
        )  # fmt: skip

    def _compare(self, nodes: int, edges: int) -> None:
        """Raise SourceError if the files with the numbers of nodes and edges say other numbers."""
        for name, count, what in (("num-node-list", nodes, "node-label"), ("num-edge-list", edges, "edge")):
            path = self.existing_path() / "raw" / f"{name}.csv.gz"
            if path.is_file():
                said = int(numbers(path, 1)[:, 0].sum())
                if said != count:
                    raise SourceError(f"{path} says {said}, and raw/{what}.csv.gz has {count} rows")

    def _matched(self, count: int, counted: Counter[str]) -> tuple[list[str], str]:
        """The text of each node, and how texts were matched to nodes."""
        tables = [Table(path) for path in self._texts()]
        key_of = self._keys(count)
        texts = [""] * count
        if all(table.key is not None for table in tables) and key_of is not None:
            about: dict[str, str] = {}
            for table in tables:
                for key, text in table.by_key(counted):
                    if about.setdefault(key, text) != text:
                        counted["texts_given_twice"] += 1
            found = [key in about for key in key_of]
            if not any(found):
                raise SourceError(
                    f"source {self.name!r}: no text of {tables[0].path} belongs to a node: its ids are not those of "
                    f"{self._mapping()}"
                )
            return [about.get(key, "") for key in key_of], "by the mapping"
        if len(tables) > 1:
            raise SourceError(
                f"source {self.name!r}: several files of texts need ids of papers or products, and the mapping"
            )
        table = tables[0]
        if table.node is not None:
            for node, text in table.by_node(count):
                texts[node] = text
            return texts, "by the number of the node"
        if table.key is not None:
            raise SourceError(
                f"source {self.name!r}: {table.path} names papers or products, and the mapping from nodes to them is "
                f"missing: {self.existing_path() / 'mapping'}/nodeidx2paperid.csv.gz or nodeidx2asin.csv.gz"
            )
        rows = [table.text(row) for row in table.rows]
        if len(rows) != count:
            raise SourceError(
                f"{table.path} has {len(rows)} texts for {count} nodes, and no column with the node's number"
            )
        return rows, "by the order of the rows"

    def _mapping(self) -> Path | None:
        found = sorted((self.existing_path() / "mapping").glob("nodeidx2*.csv.gz"))
        return found[0] if found else None

    def _keys(self, count: int) -> list[str] | None:
        """The name of each node's paper or product; None without a mapping."""
        path = self._mapping()
        if path is None:
            return None
        keys: dict[int, str] = {}
        for row in read_rows(path):
            node = number_in(row[0]) if len(row) > 1 else None
            if node is None:
                if keys or is_number(row[0] if row else ""):
                    raise SourceError(
                        f"{path} must hold the number of a node and a name in each row, got {str(row)[:80]}"
                    )
                continue  # the header
            if keys.setdefault(node, row[1].strip()) != row[1].strip():
                raise SourceError(f"{path} names node {row[0]} twice")
        if sorted(keys) != list(range(count)):
            raise SourceError(f"{path} maps {len(keys)} nodes, and the nodes are 0 to {count - 1}")
        return [keys[node] for node in range(count)]

    def _label_names(self, folder: Path, number: np.ndarray, counted: Counter[str]) -> tuple[str, ...]:
        """Names of the classes by their numbers. A class without a name stays without one."""
        files = sorted((folder / "mapping").glob("labelidx2*.csv.gz"))
        if not files:
            counted["labels_without_names"] += int(np.count_nonzero(number >= 0))
            return ()
        names: dict[int, str] = {}
        for place, row in enumerate(read_rows(files[0])):
            label = number_in(row[0])
            if label is None:
                if place:
                    raise SourceError(
                        f"{files[0]} must hold the number of a class and its name in each row, got {str(row)[:80]}"
                    )
                continue  # the header
            if label in names or label >= 2**16:
                raise SourceError(f"{files[0]} names class {row[0]} twice, or its number is too large")
            name = row[1].strip() if len(row) > 1 else ""
            names[label] = "" if name in MISSING else name
        highest = int(number.max(initial=-1))
        if highest >= 2**16:
            raise SourceError(
                f"{folder / 'raw' / 'node-label.csv.gz'} has class {highest}, which {files[0].name} does not name"
            )
        return tuple(names.get(k, "") for k in range(max(highest, *names, -1) + 1)) if names else ()


class TagDatasetSource(OgbSource):
    """An OGB data set as `torch_geometric.datasets.TAGDataset` keeps it, with the texts in raw/node-text.csv.gz.

    Args:
        path: the folder of the data set, e.g. root/ogbn_arxiv.
        texts: file with the texts, relative to the folder.
        split: folder below split/. Needed if there are several.
        shared: options of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "tag_dataset"
    summary: ClassVar[str] = "PyTorch Geometric's TAGDataset: an OGB data set with a text for each node"
    schema: ClassVar[str] = "an OGB data set's folder with raw/node-text.csv.gz"
    where: ClassVar[str] = "torch_geometric.datasets.TAGDataset downloads it"

    def __init__(
        self,
        path: str | Path | None,
        texts: str = "raw/node-text.csv.gz",
        split: str | None = None,
        **shared: Unpack[SharedOptions],
    ) -> None:
        super().__init__(path, texts, split, **shared)
