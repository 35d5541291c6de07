"""Reading `.pt` files without running code in them, and turning what they hold into NumPy arrays of a known size."""

from __future__ import annotations

import contextlib
import math
import mmap
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.sources.graphs.plain_pickle import ARRAYS, SPARSE, PlainArray, PlainFields, Refused

LARGEST = 2**30
"""Most bytes that a tensor may declare beyond what the file holds of it (1 GiB). A view that repeats one number, or a sparse
tensor, can declare any size."""
_STORAGES = ("BaseStorage", "GlobalStorage", "NodeStorage", "EdgeStorage")
_REMEDIES = (
    (r"hetero", "a graph with several types of nodes; save one of them, or the result of its `to_homogeneous()` with texts"),
    (r"Sparse|scipy", "a sparse adjacency or matrix; save edge_index as a tensor of shape (2, edges), for example "
     "`torch.stack(adj.coo()[:2])`"),
    (r"bytearray", "bytes of any declared size; save them as a tensor"),
    (r"pandas", "a table; save its columns as lists, for example `frame['text'].tolist()`"),
    (r"pathlib", "a path; save it as text, `str(path)`"),
    (r"dgl", "a graph of DGL; save `torch.stack(graph.edges())` as edge_index, and the texts as a list"),
    (r"networkx", "a graph of networkx; save it as GraphML, or its edges as a tensor"),
)  # fmt: skip


_NAMES = re.compile(rb"c([A-Za-z_][A-Za-z0-9_.]{0,80})\n([A-Za-z_][A-Za-z0-9_]{0,80})\n")
"""Names of classes and functions in a pickle as torch writes them."""


class _Named:
    """Stands for a class of PyTorch Geometric that a saved `Data` only mentions."""


def load_tensors(path: Path) -> Mapping[str, Any]:
    """The content of a `.pt` file, as a mapping.

    No code in the file is run: tensors, lists, dicts, strings, numbers, NumPy arrays of plain dtypes, and the `Data` of
    PyTorch Geometric (which need not be installed).

    Raises:
        SourceError: the file is damaged, holds another type, or holds no graph or several. The message names the type and
            says how to save it instead.
    """
    import pickle

    import torch

    size = _checked_size(path)
    data = type("Data", (PlainFields,), {})
    store = type("Storage", (PlainFields,), {})
    names = {
        **ARRAYS, **SPARSE, "PlainArray": PlainArray,
        **{f"torch_geometric.data.storage.{name}": store for name in _STORAGES},
        "torch_geometric.data.data.Data": data,
        "torch_geometric.data.data.DataEdgeAttr": _Named, "torch_geometric.data.data.DataTensorAttr": _Named,
    }  # fmt: skip
    try:
        # Sparse tensors are checked: an index outside of one would write outside of its memory.
        with _only_allowed(names), torch.sparse.check_sparse_tensor_invariants(enable=True):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, Refused) as error:
        raise SourceError(f"{path} {_refusal(error)}") from error
    except Exception as error:  # damaged files raise nearly anything
        what = str(error).partition("\n")[0][:200]
        raise SourceError(f"{path} cannot be read as a file of torch.save: {type(error).__name__}: {what}") from error
    _check_held(content, size, path)
    return _one_graph(content, data, path)


@contextlib.contextmanager
def _only_allowed(names: Mapping[str, Any]) -> Iterator[None]:
    """Let torch's unpickler know these names only. PyTorch Geometric, once imported, allows its own classes."""
    import torch

    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(kind, name) for name, kind in names.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _checked_size(path: Path) -> int:
    """Bytes in a file, unpacked. Raises SourceError if it is no `.pt` file, or unpacks or expands to more than it holds."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise SourceError(f"{path} is empty")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        raise SourceError(f"{path} is a safetensors file, which holds no texts: save a dict with torch.save instead")
    if head[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                declared = sum(entry.file_size for entry in archive.infolist())
                if declared > size + LARGEST:  # torch.save does not compress
                    raise SourceError(
                        f"{path} has {shown_bytes(size)} and unpacks to {shown_bytes(declared)}: it is not read"
                    )
                pickles = [archive.read(entry) for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise SourceError(f"{path} is a damaged or incomplete zip file ({error}): copy or save it again") from error
        size = declared
        _check_names(b"\n".join(pickles), path)
    else:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_names(content, path)
    return size


def _check_names(content: bytes | mmap.mmap, path: Path) -> None:
    """Raise SourceError if a pickle makes a bytearray, which torch allows with any number as its size."""
    if content.find(b"bytearray\n") < 0:
        return
    names = [b".".join(name).decode() for name in _NAMES.findall(content)]
    if "builtins.bytearray" in names or "__builtin__.bytearray" in names:
        # Tables of pandas hold some: then their type says more.
        known = ("torch", "collections", "builtins", "__builtin__", "_codecs", "numpy", "scipy", "torch_geometric")
        name = next((name for name in names if name.partition(".")[0] not in known), "bytearray")
        raise SourceError(f"{path} {_of_type(name)}")


def _check_held(content: Any, size: int, path: Path) -> None:
    """Raise SourceError if a tensor takes more memory than the whole file: made by its size, not from the file."""
    seen: set[int] = set()
    left = [content]
    while left:
        part = left.pop()
        if isinstance(part, str) or id(part) in seen:
            continue
        if isinstance(part, Mapping | PlainFields):
            seen.add(id(part))
            left += (part.fields if isinstance(part, PlainFields) else part).values()
        elif isinstance(part, list | tuple | set):
            seen.add(id(part))
            left += part
        elif is_tensor(part) and "strided" in str(part.layout) and part.device.type == "cpu" and not part.is_nested:
            held = part.untyped_storage().nbytes()
            if held > size:
                raise SourceError(
                    f"{path} has {shown_bytes(size)}, and a tensor in it takes {shown_bytes(held)}: not read"
                )


def _refusal(error: Exception) -> str:
    """What is wrong with the content of a file, by the type that it names, and the remedy."""
    text = " ".join(str(error).split())
    found = re.search(r"GLOBAL (\S+)", text)
    name = found[1] if found else ""
    if isinstance(error, Refused):
        return f"holds {text}, which is not read: save tensors, or NumPy arrays of numbers or strings"
    if name:
        return _of_type(name)
    if "operand" in text:
        return "cannot be read: torch.save with its default protocol has not written it, or it is damaged"
    return (
        "holds a pickled object, which could run code and is not read: with torch.save, save a dict of tensors, lists and "
        "strings, or a torch_geometric `Data` of them"
    )


def _of_type(name: str) -> str:
    """That an object of a type is not read, and the remedy."""
    remedy = next((told for pattern, told in _REMEDIES if re.search(pattern, name)), None)
    return (
        f"holds a pickled object of type {name}, which could run code and is not read"
        f"{f' ({remedy})' if remedy else ''}: with torch.save, save a dict of tensors, lists and strings, or a "
        "torch_geometric `Data` of them"
    )


def _one_graph(content: Any, data: type, path: Path) -> Mapping[str, Any]:
    """The one graph in a file's content: a dict, a `Data`, or what an `InMemoryDataset` saves."""
    if isinstance(content, tuple | list):
        graphs = [part for part in content if isinstance(part, data) or (_is_dict(part) and _has_edges(part))]
        rest = [part for part in content if not any(part is graph for graph in graphs)]
        if len(graphs) > 1:
            raise SourceError(f"{path} holds {len(graphs)} graphs: save the one to use")
        if not graphs or not all(part is None or isinstance(part, Mapping | type) for part in rest):
            raise SourceError(
                f"{path} holds no graph: expected a dict or `Data` with the key edge_index, got a "
                f"{type(content).__name__} of {_types(content)}"
            )
        for slices in rest:  # an InMemoryDataset saves (`Data`, slices, class)
            ends = slices.get("edge_index") if isinstance(slices, Mapping) else None
            if ends is not None and _length(ends) not in (0, 2):
                raise SourceError(
                    f"{path} holds {_length(ends) - 1} graphs, as an InMemoryDataset: save the one to use"
                )
        content = graphs[0]
    found = _fields(content) if isinstance(content, data) else content
    if not isinstance(found, Mapping):
        raise SourceError(
            f"{path} holds no graph: expected a dict or `Data` with the key edge_index, got {type(content).__name__}"
        )
    within = [
        str(key) for key, part in found.items() if isinstance(part, data) or (_is_dict(part) and _has_edges(part))
    ]
    if found.get("edge_index") is None and within:
        raise SourceError(
            f"{path} holds {len(within)} graphs, under the keys {', '.join(within[:12])}: save the one to use, for example "
            f"`torch.save(content[{within[0]!r}], ...)`"
        )
    if found.get("edge_index") is None:
        raise SourceError(
            f"{path} holds no graph: expected a dict or `Data` with the key edge_index, got the keys "
            f"{', '.join(map(str, list(found)[:12])) or '(none)'}"
        )
    return {str(key): value for key, value in found.items() if value is not None}


def _fields(data: Any) -> Mapping[str, Any]:
    """The fields of a saved `Data`, of PyTorch Geometric 1 or 2."""
    store = data.fields.get("_store")
    if isinstance(store, PlainFields):
        fields = store.fields.get("_mapping")
        return fields if isinstance(fields, Mapping) else {}
    fields = {key.strip("_") if key == "__num_nodes__" else key: value for key, value in data.fields.items()}
    return {key: value for key, value in fields.items() if not key.startswith("_")}


def _has_edges(content: Mapping[Any, Any]) -> bool:
    edges = content.get("edge_index")
    return edges is not None and len(getattr(edges, "shape", (0, 0))) != 1  # 1: the slices of an InMemoryDataset


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _types(parts: Sequence[Any]) -> str:
    return ", ".join(type(part).__name__ for part in parts[:6]) or "nothing"


def shown_bytes(count: int) -> str:
    """A number of bytes in words: `745.1 GiB`."""
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"


def _length(value: Any) -> int:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 0
    return len(value) if hasattr(value, "__len__") else 0


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of torch, without importing it."""
    return hasattr(value, "untyped_storage") and hasattr(value, "layout")


def shape_of(value: Any, what: str) -> tuple[int, ...]:
    """The shape of a tensor, an array, a list of numbers, or a list of such rows of one length. Raises SourceError."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return tuple(int(size) for size in shape)
    if isinstance(value, list | tuple):
        inner = {_length(row) if _is_row(row) else None for row in value} or {None}
        if len(inner) > 1:
            raise SourceError(f"{what} is a list of parts of different lengths or types")
        (size,) = inner
        return (len(value),) if size is None else (len(value), size)
    if isinstance(value, int | float):
        return ()
    raise SourceError(f"{what} must be a tensor, an array or a list of numbers, got {type(value).__name__}")


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple) or (hasattr(value, "shape") and len(value.shape) > 0)


def array_of(value: Any, what: str) -> np.ndarray:
    """A tensor, an array, or a list of numbers or of rows of numbers, as an array.

    Raises:
        SourceError: it declares more than `LARGEST` bytes beyond what the file holds of it, or is something else.
    """
    if is_tensor(value):
        return _dense(value, what)
    if isinstance(value, np.ndarray):
        return _numbers(np.asarray(value), what)
    if isinstance(value, list | tuple):
        shape = shape_of(value, what)
        if math.prod(shape) * 8 > LARGEST + 8 * len(value):
            raise SourceError(
                f"{what} declares {shown_bytes(math.prod(shape) * 8)}, as lists that repeat: it is not read"
            )
        rows = [_row(entry, what) if len(shape) == 2 else _number(entry, what) for entry in value]
        try:
            return _numbers(np.array(rows), what)
        except (ValueError, OverflowError) as error:
            raise SourceError(f"{what} cannot be read as numbers: {error}") from error
    if isinstance(value, int | float):
        return _numbers(np.array(value), what)
    raise SourceError(f"{what} must be a tensor, an array or a list of numbers, got {type(value).__name__}")


def _row(value: Any, what: str) -> np.ndarray:
    """A row of numbers. Raises SourceError."""
    found = (
        np.array([_number(entry, what) for entry in value])
        if isinstance(value, list | tuple)
        else array_of(value, what)
    )
    if found.ndim != 1:
        raise SourceError(f"{what} is nested more than twice")
    return found


def _number(value: Any, what: str) -> Any:
    """A number of a list; None is NaN. Raises SourceError."""
    if value is None:
        return math.nan
    if hasattr(value, "shape") and not value.shape:
        value = value.item()
    if not isinstance(value, bool | int | float):
        raise SourceError(f"{what} must hold numbers, got {type(value).__name__} {str(value)[:40]!r}")
    return value


def _dense(value: Any, what: str) -> np.ndarray:
    """A tensor as an array, if it declares no more than the file holds or `LARGEST`. Raises SourceError."""
    import torch

    if value.device.type != "cpu" or value.is_quantized or value.is_nested:
        raise SourceError(f"{what} is a tensor without plain numbers in it ({value.device.type}, {value.dtype})")
    declared = value.numel() * value.element_size()
    held = value.untyped_storage().nbytes() if value.layout == torch.strided else 0
    if declared > max(held, LARGEST):
        raise SourceError(
            f"{what} declares {shown_bytes(declared)} (shape {tuple(value.shape)}), and the file holds "
            f"{shown_bytes(held) if held else 'a part'} of it: above {shown_bytes(LARGEST)} this is not read. Save what it "
            "stands for as a tensor of its own (`.clone()`), or leave it out"
        )
    try:
        plain = value.detach() if value.layout == torch.strided else value.detach().to_dense()
        plain = plain.resolve_conj().resolve_neg()
        if plain.dtype.is_floating_point and plain.dtype not in (torch.float32, torch.float64):
            plain = plain.float()
        return _numbers(plain.numpy(), what)
    except (RuntimeError, TypeError, IndexError) as error:
        raise SourceError(f"{what} cannot be read: {str(error).partition(chr(10))[0]}") from error


def _numbers(array: np.ndarray, what: str) -> np.ndarray:
    """An array of truth values or real numbers; objects that are numbers are converted. Raises SourceError."""
    if array.dtype.kind == "O" and array.ndim <= 2:
        entries = [_number(entry, what) for entry in array.ravel().tolist()]
        array = np.array(entries or np.zeros(0)).reshape(array.shape)
        if array.dtype.kind == "O":  # whole numbers that no dtype holds
            raise SourceError(f"{what} must hold numbers below 2^64, got {max(map(abs, entries))}")
    if array.dtype.kind not in "biuf":
        raise SourceError(f"{what} must hold numbers, got {array.dtype}")
    return array


def whole_numbers(array: np.ndarray, what: str) -> np.ndarray:
    """An array as int64 without a change of any value. Raises SourceError."""
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array) | (np.abs(array) >= 2**53) | (array != np.floor(array))
        if bad.any():
            place = int(np.flatnonzero(bad)[0])
            raise SourceError(f"{what} must hold whole numbers, got {array.ravel()[place]} at position {place}")
    elif array.dtype.kind == "u" and array.size and int(array.max()) >= 2**63:
        raise SourceError(f"{what} must hold numbers below 2^63, got {int(array.max())}")
    return array.astype(np.int64)
