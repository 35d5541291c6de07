"""Node data sets of OGB in the files that `ogb.nodeproppred` unpacks, and PyTorch Geometric's TAGDataset of them.

Texts belong to nodes by an id, never by luck: by the mapping from nodes to papers or products, by a column with the number
of the node, or, where the file has neither, by the order of the rows if there is one row for each node.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ssl4rl_plugin.core.graph import RawGraph, Reading, Texts
from ssl4rl_plugin.data.graphs import SharedOptions
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graph_folder import GraphInFolder
from ssl4rl_plugin.data_builders.sources.tensor_splits import roles_in

if TYPE_CHECKING:
    from typing_extensions import Unpack

TEXT_FILES = ("titleabs.tsv", "titleabs.tsv.gz", "raw/titleabs.tsv", "raw/titleabs.tsv.gz", "mapping/titleabs.tsv",
              "mapping/titleabs.tsv.gz", "raw/node-text.csv.gz")  # fmt: skip
"""Where the texts are looked for, if the option `texts` does not name a file."""
KEYS = ("paper id", "paper_id", "paperid", "asin", "uid", "mag_id")
"""Columns with the name of a paper or product, as in the mapping."""
NODES = ("node idx", "node_idx", "nodeidx", "node id", "node_id", "nid", "idx", "index", "node", "id")
"""Columns with the number of the node."""
PARTS = ("text", "raw_text", "title", "abs", "abstract", "content", "description")
"""Columns with texts."""
_MISSING = ("", "nan", "NaN", "NULL", "None", "<NA>")


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
        number = _labels(labels, counted)
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
            if len(row) < 2 or not row[0].strip().isdigit():
                if keys or _is_number(row[0] if row else ""):
                    raise SourceError(f"{path} must hold the number of a node and a name in each row, got {row}")
                continue  # the header
            if keys.setdefault(int(row[0]), row[1].strip()) != row[1].strip():
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
            if not row or not row[0].strip().isdigit():
                if place:
                    raise SourceError(f"{files[0]} must hold the number of a class and its name in each row, got {row}")
                continue  # the header
            if int(row[0]) in names or int(row[0]) >= 2**16:
                raise SourceError(f"{files[0]} names class {row[0]} twice, or its number is too large")
            name = row[1].strip() if len(row) > 1 else ""
            names[int(row[0])] = "" if name in _MISSING else name
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


class Table:
    """A file of texts: its rows, and which columns hold the id, the number of the node, and the texts.

    Args:
        path: .csv or .tsv, with or without a header, or lines of JSON; also gzipped.

    Raises:
        SourceError: the file cannot be read, or its columns can be read two ways.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key: int | None = None
        self.node: int | None = None
        endings = path.suffixes
        if ".json" in endings or ".jsonl" in endings:
            header, self.rows = _json_rows(path)
        else:
            rows = list(read_rows(path))
            header = [cell.strip().lower() for cell in rows[0]] if rows else []
            if {*header} & {*PARTS, *KEYS, *NODES}:
                self.rows = rows[1:]
            else:
                header, self.rows = [], rows
        if not self.rows:
            raise SourceError(f"{path} has no rows")
        if not header:
            if ".tsv" not in endings:
                raise SourceError(f"{path} has no header: name the columns, for example `node_idx,text`")
            header = ["paper id", "title", "abs"]  # titleabs.tsv has no header
        self.key = next((header.index(name) for name in KEYS if name in header), None)
        self.node = next((header.index(name) for name in NODES if name in header), None)
        if self.key is not None and self.node is not None and header[self.node] == "id":
            self.node = None
        self.parts = [header.index(name) for name in PARTS if name in header]
        if not self.parts:
            raise SourceError(
                f"{path} has no column of texts ({', '.join(PARTS)}); its columns are {', '.join(header)}"
            )
        self._unnamed(header)

    def _unnamed(self, header: Sequence[str]) -> None:
        """A first column without a name is the index that pandas writes. Raises SourceError if it is not in order."""
        if self.key is None and self.node is None and header[0] in ("", "unnamed: 0"):
            found = [row[0].strip() if row else "" for row in self.rows]
            if found != [str(place) for place in range(len(found))]:
                raise SourceError(
                    f"{self.path} has a first column without a name, which is not 0, 1, 2, ...: the texts can be in the "
                    "order of the rows or of this column; name it node_idx if it holds the nodes' numbers, or remove it"
                )

    def text(self, row: Sequence[str]) -> str:
        """The texts of a row, joined; "" if there is none."""
        cells = (row[place].strip() if place < len(row) else "" for place in self.parts)
        return ". ".join(cell for cell in cells if cell not in _MISSING)

    def by_key(self, counted: Counter[str]) -> Iterator[tuple[str, str]]:
        """Id and text of each row. Counts rows without an id, or with more or fewer cells than the header."""
        assert self.key is not None
        for row in self.rows:
            key = row[self.key].strip() if self.key < len(row) else ""
            if not key or len(row) < 2:
                counted["rows_of_texts_without_an_id"] += 1
            else:
                yield key, self.text(row)

    def by_node(self, count: int) -> Iterator[tuple[int, str]]:
        """Number of the node and text of each row. Raises SourceError for a node that does not exist, or comes twice."""
        assert self.node is not None
        seen = np.zeros(count, bool)
        for place, row in enumerate(self.rows):
            cell = row[self.node].strip() if self.node < len(row) else ""
            if not cell.isdecimal() or int(cell) >= count or seen[int(cell)]:
                raise SourceError(
                    f"{self.path}, row {place}: {cell!r} is no number of a node from 0 to {count - 1}, or comes twice"
                )
            seen[int(cell)] = True
            yield int(cell), self.text(row)


def _json_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a file with a JSON object in each line."""
    rows = []
    header: dict[str, None] = {}
    objects: list[dict[str, Any]] = []
    for place, line in enumerate(_lines(path)):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path}, line {place + 1} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise SourceError(f"{path}, line {place + 1} must hold an object, got {type(found).__name__}")
        objects.append(found)
        header.update(dict.fromkeys(key for key in found if key.lower() in (*KEYS, *NODES, *PARTS)))
    for found in objects:
        cells = (found.get(key) for key in header)
        rows.append([cell if isinstance(cell, str) else "" if cell is None else str(cell) for cell in cells])
    return [key.lower() for key in header], rows


def _labels(path: Path, counted: Counter[str]) -> np.ndarray:
    """The number of each node's class (int64, -1 for none), with or without a header."""
    found = []
    for place, row in enumerate(read_rows(path)):
        cell = row[0].strip() if len(row) == 1 else None
        if cell is not None and cell.removesuffix(".0").isdecimal() and len(cell) < 18:
            found.append(int(cell.removesuffix(".0")))
        elif cell is not None and (cell in _MISSING or cell == "-1"):
            counted["labels_missing"] += 1
            found.append(-1)
        elif place or _is_number(row[0] if row else ""):
            raise SourceError(f"{path}, row {place + 1}: one number of a class is expected, got {row[:5]}")
    if not found:
        raise SourceError(f"{path} has no rows")
    return np.array(found, np.int64)


def numbers(path: Path, columns: int) -> np.ndarray:
    """A table of whole numbers (.csv.gz), with or without a header, as int64. Raises SourceError."""
    import pyarrow as pa
    import pyarrow.csv

    first = next(iter(read_rows(path)), [])
    names = [str(column) for column in range(columns)]
    if len(first) != columns:
        raise SourceError(f"{path} must hold {columns} whole number(s) in each row, got {first[:5]}")
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=names, skip_rows=0 if any(map(_is_number, first)) else 1),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.int64()), null_values=[]),
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path} must hold {columns} whole number(s) in each row: {error}") from error
    return np.stack([table[name].to_numpy() for name in names], 1)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV or TSV file, gzipped or not, with its header. TSV has no quotes. Raises SourceError."""
    if ".tsv" in path.suffixes:
        yield from (line.split("\t") for line in _lines(path) if line)
        return
    csv.field_size_limit(2**30)
    try:
        yield from (row for row in csv.reader(_lines(path, ends=True), strict=True) if row)
    except csv.Error as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def _lines(path: Path, ends: bool = False) -> Iterator[str]:
    """The lines of a text file, gzipped or not. OGB's titleabs.tsv is a tar archive of one file: its content is read."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            head = file.peek(512)[:512]
            file_or_member: Any = file
            if head[257:262] == b"ustar":
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    member = next((entry for entry in archive if entry.isfile()), None)
                    file_or_member = archive.extractfile(member) if member is not None else io.BytesIO()
                    yield from _decoded(file_or_member, ends)
                return
            yield from _decoded(file_or_member, ends)
    except (OSError, EOFError, UnicodeDecodeError, tarfile.TarError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _decoded(file: Any, ends: bool) -> Iterator[str]:
    for line in io.TextIOWrapper(file, encoding="utf-8-sig", newline="" if ends else "\n"):
        yield line if ends else line.rstrip("\r\n")
