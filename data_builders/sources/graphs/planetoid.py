"""Cora, CiteSeer and PubMed in the files that `torch_geometric.datasets.Planetoid` downloads, read without unpickling code.

The files are pickles. `load_plain` reads the arrays in them and calls nothing. They are put together as PyTorch Geometric's
`read_planetoid_data` does, except that a node without a class (CiteSeer has isolated test nodes) gets no label instead of
the first one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, Reading
from ssl4rl_plugin.data.graphs import SharedOptions
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.folder import GraphInFolder
from ssl4rl_plugin.data_builders.sources.graphs.plain_pickle import PlainSparse, load_plain
from ssl4rl_plugin.data_builders.sources.graphs.tables import names_of
from ssl4rl_plugin.data_builders.sources.graphs.tensor_file import load_tensors
from ssl4rl_plugin.data_builders.sources.graphs.tensor_splits import roles_in
from ssl4rl_plugin.data_builders.sources.graphs.tensors import featured, from_tensors

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
VALIDATION = 500
"""Number of nodes behind the labelled ones that are for validation."""
MOST_CLASSES = 10_000
"""Most classes that are read."""
_PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")


def made_words(count: int) -> list[str]:
    """Names for features without names: `wordaaa`, `wordaab`, ... Letters only: digits could be mistaken for the numbers of
    nodes."""
    letters = [chr(ord("a") + number) for number in range(26)]
    return ["word" + "".join(found) for found in islice(product(letters, repeat=3), count)]


class PlanetoidSource(GraphInFolder):
    """Cora, CiteSeer and PubMed as `torch_geometric.datasets.Planetoid` keeps them. No code in the files is run.

    The files hold words as numbers. Without a vocabulary, a node's text consists of made-up words (see `made_words`). The
    papers' own texts are in the .pt files of papers on language models for graphs: source `graph`.

    Args:
        path: the root folder given to `Planetoid`, or the folder with the files `ind.cora.x`, ... Without them,
            `processed/data.pt` is read.
        dataset: Cora, CiteSeer or PubMed.
        vocabulary: file with the name of each word: a JSON list, or one per line.
        unmasked: split of the nodes that the public split leaves out: `train`, or `none` to leave them out of all splits.
        shared: options of every graph source; see `GraphSource`.
    """

    name: ClassVar[str] = "planetoid"
    summary: ClassVar[str] = "Cora, CiteSeer, PubMed as PyTorch Geometric's Planetoid keeps them"
    schema: ClassVar[str] = (
        "files ind.cora.x, .y, .tx, .ty, .allx, .ally, .graph, .test.index, in the folder or Cora/raw below it, or "
        "processed/data.pt (no code in them is run)"
    )
    licence: ClassVar[str] = "see the data set"
    where: ClassVar[str] = "torch_geometric.datasets.Planetoid(root, name) downloads it"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(
        self,
        path: str | Path | None,
        dataset: str = "Cora",
        vocabulary: str | None = None,
        unmasked: str = "train",
        **shared: Unpack[SharedOptions],
    ) -> None:
        super().__init__(path, dataset=dataset, vocabulary=vocabulary, unmasked=unmasked, **shared)

    def _raw(self) -> list[Path]:
        folder, below = self.existing_path(), self.existing_path() / self.options["dataset"] / "raw"
        if not below.is_dir():
            below = folder / "raw"
        name = str(self.options["dataset"]).lower()
        return [(below if below.is_dir() else folder) / f"ind.{name}.{part}" for part in _PARTS]

    def _processed(self) -> Path | None:
        """PyTorch Geometric's own form of the data set, if there is no other."""
        root = self.existing_path()
        places = (root / self.options["dataset"] / "processed", root / "processed", root)
        found = next((place / "data.pt" for place in places if (place / "data.pt").is_file()), None)
        return None if self._raw()[0].is_file() else found

    def files(self) -> list[Path]:
        processed = self._processed()
        more = [Path(self.options["vocabulary"])] if self.options["vocabulary"] else []
        return [*([processed] if processed else self._raw()), *more]

    def graph(self) -> RawGraph:
        name = str(self.options["dataset"]).lower()
        names = PLANETOID_LABELS.get(name, ())
        vocabulary = self.options["vocabulary"]
        words = names_of(Path(vocabulary)) if vocabulary else None
        processed = self._processed()
        if processed is not None:
            content = dict(load_tensors(processed))
            columns = getattr(content.get("x"), "shape", (0, 0))[-1]
            return from_tensors(
                {**content, "label_names": names} if names else content, name, words or made_words(columns),
                unmasked=self.options["unmasked"],
            )  # fmt: skip
        parts = {file.name.removeprefix(f"ind.{name}."): file for file in self._raw()}
        found = assembled(parts)
        x, labels, edges, counted = found.x, found.labels, found.edges, found.counted
        if found.classes != len(names):
            counted["labels_without_names"] += int(np.count_nonzero(labels >= 0))
            names = ()
        roles, splits, told = roles_in(found.masks, name, len(labels), 0, self.options["unmasked"], counted)
        return RawGraph(
            name, edges[0], edges[1], featured(x, words or made_words(x.shape[1]), name),
            labels=labels.astype(np.int32) if names else None, label_names=names, roles=roles, counted=counted,
            reading=Reading(
                found=told, splits="the public split" if splits else "", labels="ally and ty" if names else "",
                missing_texts=int(np.count_nonzero(np.diff(x.indptr) == 0)),
            ),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Assembled:
    """A data set put together from its files."""

    x: Any
    """Features, a SciPy matrix in rows (float32)."""
    labels: np.ndarray
    """Number of each node's class; -1 for none (int64)."""
    classes: int
    """Number of classes."""
    edges: np.ndarray
    """Ends of the edges, of shape (2, edges) (int64)."""
    masks: dict[str, np.ndarray]
    """train_mask, val_mask and test_mask of the public split (bool)."""
    counted: Counter[str]
    """Number of nodes without a label, by reason."""


def assembled(parts: Mapping[str, Path]) -> Assembled:
    """Put a data set together.

    Args:
        parts: the file of each part: x, y, tx, ty, allx, ally, graph, test.index.

    Raises:
        SourceError: a file holds other than plain data, or the parts do not fit together.
    """
    import scipy.sparse as sp

    where = parts["graph"].parent
    known, test_known = _matrix(parts["allx"]), _matrix(parts["tx"])
    classes, test_classes = _matrix(parts["ally"]), _matrix(parts["ty"])
    order = _test_index(parts["test.index"])
    labelled = _matrix(parts["y"]).shape[0]
    if _matrix(parts["x"]).shape[0] != labelled:
        raise SourceError(f"{where}: x and y have different numbers of rows")
    if not (known.shape[0] == classes.shape[0] and test_known.shape[0] == test_classes.shape[0] == len(order)):
        raise SourceError(
            f"{where}: the parts do not fit together: allx has {known.shape[0]} rows, ally {classes.shape[0]}, tx "
            f"{test_known.shape[0]}, ty {test_classes.shape[0]}, test.index {len(order)}"
        )
    if not 0 < classes.shape[1] <= MOST_CLASSES:
        raise SourceError(f"{where}: ally has {classes.shape[1]} columns; from 1 to {MOST_CLASSES} classes are read")
    if known.shape[1] != test_known.shape[1] or classes.shape[1] != test_classes.shape[1]:
        raise SourceError(f"{where}: the parts have different numbers of columns")
    first = known.shape[0]
    if len(np.unique(order)) < len(order) or int(order.min()) != first or labelled > first:
        raise SourceError(f"{where}: test.index must name different nodes from {first} on, the number of rows of allx")
    count = int(order.max()) + 1
    if count > 4 * (first + len(order)):
        raise SourceError(f"{where}: test.index names node {count - 1}, and there are {first + len(order)} rows")
    # Row k of tx and ty is node order[k]. Nodes between them without a row are isolated: no features, no class.
    pick = sp.csr_matrix(
        (np.ones(len(order), np.float32), (order - first, np.arange(len(order)))), shape=(count - first, len(order))
    )
    x = sp.vstack([known, pick @ test_known], format="csr")
    y = sp.vstack([classes, pick @ test_classes], format="csr").toarray()
    counted: Counter[str] = Counter()
    ones = (y == 1).sum(1)
    single = (ones == 1) & (np.count_nonzero(y, 1) == 1)
    counted["labels_without_a_class"] = int(np.count_nonzero(~single))
    labels = np.where(single, y.argmax(1), -1)
    nodes = np.arange(count)
    masks = {
        "train_mask": nodes < labelled,
        "val_mask": (nodes >= labelled) & (nodes < min(labelled + VALIDATION, first)),
        "test_mask": np.isin(nodes, order),
    }
    return Assembled(x, labels, y.shape[1], _edges(parts["graph"], count), masks, counted)


def _matrix(path: Path) -> Any:
    """A matrix of numbers in a pickle, as SciPy's CSR of float32."""
    import scipy.sparse as sp

    found = load_plain(path)
    if isinstance(found, PlainSparse):
        found = found.matrix()
    elif not isinstance(found, np.ndarray) or found.ndim != 2:
        raise SourceError(f"{path} must hold a matrix, got {type(found).__name__}")
    if found.dtype.kind not in "biuf":
        raise SourceError(f"{path} must hold a matrix of numbers, got {found.dtype}")
    return sp.csr_matrix(found, dtype=np.float32)


def _test_index(path: Path) -> np.ndarray:
    try:
        found = np.array([int(line) for line in path.read_text(encoding="ascii").split()], np.int64)
    except (ValueError, OverflowError, OSError) as error:
        raise SourceError(f"{path} must hold one number of a node in each line: {error}") from error
    if not len(found) or int(found.min()) < 0:
        raise SourceError(f"{path} must hold one number of a node in each line, from 0")
    return found


def _edges(path: Path, count: int) -> np.ndarray:
    """The edges of a dict from each node to its neighbours."""
    content = load_plain(path)
    if not isinstance(content, dict):
        raise SourceError(f"{path} must hold a dict from nodes to their neighbours, got {type(content).__name__}")
    starts: list[int] = []
    ends: list[int] = []
    for start, neighbours in content.items():
        if type(start) is not int or not isinstance(neighbours, list):
            raise SourceError(f"{path} must hold a dict from nodes to lists of their neighbours")
        starts += [start] * len(neighbours)
        ends += neighbours
    if not all(type(end) is int and 0 <= end < count for end in (*starts, *ends)):
        raise SourceError(f"{path} names nodes that do not exist; the nodes are 0 to {count - 1}")
    return np.array([starts, ends], np.int64).reshape(2, -1)
