"""Graph data sets in the layouts of PyTorch Geometric and OGB: Planetoid, WikiCS, OGB's node data sets, TAGDataset.

If files are missing, the error names them. Nothing is downloaded.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, Texts
from ssl4rl_plugin.data.graphs import GraphSource, SharedOptions
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graph_file import names_of, read_json
from ssl4rl_plugin.data_builders.sources.graph_tensors import featured
from ssl4rl_plugin.data_builders.sources.tensor_splits import roles_in

if TYPE_CHECKING:
    from typing_extensions import Unpack

PLANETOID_LABELS = {
    "cora": (
        "Theory", "Reinforcement Learning", "Genetic Algorithms", "Neural Networks", "Probabilistic Methods", "Case Based",
        "Rule Learning",
    ),
    "citeseer": (
        "Artificial Intelligence", "Machine Learning", "Information Retrieval", "Databases", "Agents",
        "Human-Computer Interaction",
    ),
}  # fmt: skip
"""Names of the classes, in the order of the numbers in the files. They were identified by the sizes of the classes."""


def made_words(count: int) -> list[str]:
    """Names for features without names: `wordaaa`, `wordaab`, ... Letters only: digits could be mistaken for the numbers of
    nodes."""
    letters = [chr(ord("a") + number) for number in range(26)]
    return ["word" + "".join(found) for found in islice(product(letters, repeat=3), count)]


class _GraphInFolder(GraphSource):
    """A data set in a folder."""

    def __init__(self, path: str | Path | None, **options: Any) -> None:
        super().__init__(path, **options)
        missing = [file for file in self.files() if not file.is_file()]
        if missing:
            raise SourceError(f"source {self.name!r}: {missing[0]} is missing; expected: {self.schema}")

    @abstractmethod
    def files(self) -> Sequence[Path]: ...


class PlanetoidSource(_GraphInFolder):
    """Cora, CiteSeer and PubMed as `torch_geometric.datasets.Planetoid` keeps them.

    The files hold words as numbers. Without a vocabulary, a node's text consists of made-up words (see `made_words`). The
    papers' own texts are in the .pt files of papers on language models for graphs: source `graph`.

    Args:
        path: the root folder given to `Planetoid`, or the folder with the files `ind.cora.x`, ...
        dataset: Cora, CiteSeer or PubMed.
        vocabulary: file with the name of each word: a JSON list, or one per line.
        shared: options of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "planetoid"
    summary: ClassVar[str] = "Cora, CiteSeer, PubMed as PyTorch Geometric's Planetoid keeps them"
    schema: ClassVar[str] = (
        "files ind.cora.x, .y, .tx, .ty, .allx, .ally, .graph, .test.index, in the folder or Cora/raw below it"
    )
    licence: ClassVar[str] = "see the data set"
    where: ClassVar[str] = "torch_geometric.datasets.Planetoid(root, name) downloads it"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(
        self,
        path: str | Path | None,
        dataset: str = "Cora",
        vocabulary: str | None = None,
        **shared: Unpack[SharedOptions],
    ) -> None:
        super().__init__(path, dataset=dataset, vocabulary=vocabulary, **shared)

    def _folder(self) -> Path:
        folder, below = self.existing_path(), self.existing_path() / self.options["dataset"] / "raw"
        return below if below.is_dir() else folder

    def files(self) -> list[Path]:
        name = str(self.options["dataset"]).lower()
        parts = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
        more = [Path(self.options["vocabulary"])] if self.options["vocabulary"] else []
        return [*(self._folder() / f"ind.{name}.{part}" for part in parts), *more]

    def graph(self) -> RawGraph:
        try:
            from torch_geometric.io import read_planetoid_data
        except ImportError as error:
            raise SourceError("source 'planetoid' needs torch_geometric: pip install 'ssl4rl-plugin[graph]'") from error
        name = str(self.options["dataset"]).lower()
        try:
            data = read_planetoid_data(str(self._folder()), name).to_dict()
        except Exception as error:  # unpickling damaged files may raise anything
            raise SourceError(
                f"source 'planetoid': {self._folder()} cannot be read: {type(error).__name__}: {error}"
            ) from error
        columns = data["x"].shape[1]
        vocabulary = self.options["vocabulary"]
        words = names_of(Path(vocabulary)) if vocabulary else made_words(columns)
        edges = data["edge_index"].numpy()
        names = PLANETOID_LABELS.get(name, ())
        return RawGraph(
            name, edges[0], edges[1], featured(data["x"], words, name),
            labels=data["y"].numpy().astype(np.int32) if names else None, label_names=names,
            roles=roles_in(data, name, len(data["y"]))[0],
        )  # fmt: skip


class WikiCSSource(_GraphInFolder):
    """Wikipedia articles about computer science, and the links between them (arXiv 2007.02901).

    Args:
        path: folder with data.json and metadata.json, directly or in raw/.
        options: those of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "wikics"
    summary: ClassVar[str] = "WikiCS: articles about computer science with links, titles and words"
    schema: ClassVar[str] = "data.json and metadata.json, in the folder or raw/ below it"
    licence: ClassVar[str] = "MIT; the articles CC BY-SA"
    where: ClassVar[str] = (
        "torch_geometric.datasets.WikiCS downloads data.json; metadata.json lies beside it in pmernyei/wiki-cs-dataset"
    )
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def files(self) -> list[Path]:
        folder, below = self.existing_path(), self.existing_path() / "raw"
        return [(below if below.is_dir() else folder) / name for name in ("data.json", "metadata.json")]

    def graph(self) -> RawGraph:
        data, about = (read_json(file) for file in self.files())
        try:
            links, nodes = data["links"], about["nodes"]
            texts = Texts.of(f"{node['title']}. {' '.join(node.get('tokens', ()))}" for node in nodes)
            names = tuple(str(about["labels"][str(k)]) for k in range(len(about["labels"])))
            masks = {
                "train_mask": np.array(data["train_masks"], bool).T, "val_mask": np.array(data["val_masks"], bool).T,
                "test_mask": np.array(data["test_mask"], bool),
            }  # fmt: skip
            labels = np.array(data["labels"], np.int32)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"source 'wikics': {self.files()[0].parent} is not in WikiCS's layout: {error!r}"
            ) from error
        starts = np.repeat(np.arange(len(links)), [len(ends) for ends in links])
        ends = np.array([end for ends in links for end in ends], np.int64)
        return RawGraph(
            "wikics", starts, ends, texts, labels=labels, label_names=names, roles=roles_in(masks, "wikics", len(texts))[0]
        )


class OgbSource(_GraphInFolder):
    """A node data set of OGB, from the files that `ogb.nodeproppred` unpacks. The package `ogb` is not needed.

    Args:
        path: the folder of the data set, e.g. dataset/ogbn_arxiv.
        texts: table of texts, in the folder: titleabs.tsv (paper id, title, abstract) for ogbn-arxiv, or node-text.csv.gz
            (a row for each node).
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
        texts: str = "titleabs.tsv",
        **shared: Unpack[SharedOptions],
    ) -> None:
        super().__init__(path, texts=texts, **shared)

    def files(self) -> list[Path]:
        folder = self.existing_path()
        return [folder / "raw" / "edge.csv.gz", folder / "raw" / "node-label.csv.gz", folder / self.options["texts"]]

    def graph(self) -> RawGraph:
        folder = self.existing_path()
        edges, labels, texts = self.files()
        ends = _numbers(edges)
        number = _numbers(labels)[:, 0].astype(np.int32)
        found = _rows(texts)
        if texts.name == "titleabs.tsv":
            papers = _numbers(folder / "mapping" / "nodeidx2paperid.csv.gz")
            about = {row[0]: ". ".join(row[1:3]) for row in found if len(row) >= 2}
            words = [about.get(str(paper), "") for _, paper in sorted(papers.tolist())]
        else:
            words = [". ".join(row[1:] if len(row) > 1 else row) for row in found]
        names = self._label_names(folder)
        return RawGraph(
            folder.name, ends[:, 0], ends[:, 1], Texts.of(words), labels=number if names else None, label_names=names,
            roles=self._roles(folder, len(number)),
        )  # fmt: skip

    def _roles(self, folder: Path, count: int) -> np.ndarray | None:
        """The split of each node, from the first split in the folder; None if there is none."""
        found = sorted((folder / "split").glob("*/train.csv.gz"))
        if not found:
            return None
        roles = np.zeros(count, np.int8)
        for role, name in ((1, "valid"), (2, "test")):
            roles[_numbers(found[0].parent / f"{name}.csv.gz")[:, 0]] = role
        return roles

    def _label_names(self, folder: Path) -> tuple[str, ...]:
        """Names of the labels: second column of the mapping."""
        files = sorted((folder / "mapping").glob("labelidx2*.csv.gz"))
        return tuple(row[1] for row in _rows(files[0])) if files else ()


class TagDatasetSource(OgbSource):
    """An OGB data set as `torch_geometric.datasets.TAGDataset` keeps it, with the texts in raw/node-text.csv.gz.

    Args:
        path: the folder of the data set, e.g. root/ogbn_arxiv.
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
        **shared: Unpack[SharedOptions],
    ) -> None:
        super().__init__(path, texts, **shared)


def _numbers(path: Path) -> np.ndarray:
    """A table of whole numbers (.csv.gz), with or without a header."""
    rows = _rows(path)
    try:
        return np.array([[int(value) for value in row[:2]] for row in rows], np.int64)
    except ValueError as error:
        raise SourceError(f"{path} must hold whole numbers: {error}") from error


def _rows(path: Path) -> list[list[str]]:
    """The rows of a CSV or TSV file, gzipped or not, without the header if it has one."""
    import csv
    import gzip

    csv.field_size_limit(2**30)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
            tabs = ".tsv" in path.suffixes
            rows = list(
                csv.reader(file, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
            )
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    named = rows and any(word in rows[0][0].lower() for word in ("idx", "text", "title", "node"))
    return rows[1:] if named else rows
