"""Pickles that hold plain data, read without running anything: NumPy arrays, SciPy's sparse matrices, lists and dicts.

A pickle names functions and classes, and unpickling calls them. Here every name stands for a reader of ours, or is refused
with its name. The readers take bytes, shapes and simple dtypes only, and check one against the other.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ssl4rl_plugin.data.source import SourceError

_KINDS = "biufUSO"
"""Kinds of dtype that are read: truth values, numbers, strings, and objects, which are lists in a pickle."""

MOST_ROWS = 2**27
"""Most rows of a sparse matrix whose file does not hold a number for each row."""

MADE_BY_CLASS = "an array made by its class"
"""Refused: such an array may have any size, and shows what the memory held before."""


class Refused(Exception):
    """A pickle holds something other than plain data."""


class PlainDtype:
    """Stands for `numpy.dtype`: simple kinds only, without fields, metadata or flags."""

    def __init__(self, code: Any = "", align: Any = False, copy: Any = False) -> None:
        try:
            self.dtype = np.dtype(code) if isinstance(code, str) else None
        except (TypeError, ValueError):
            self.dtype = None
        if self.dtype is None or self.dtype.kind not in _KINDS or self.dtype.names or self.dtype.shape:
            raise Refused(f"an array of dtype {code!r}")

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; anything else in the state must be empty, except for the size of strings."""
        assert self.dtype is not None
        if not isinstance(state, tuple) or len(state) < 8 or state[1] not in ("<", ">", "|", "="):
            raise Refused("an array of an unknown dtype")
        if any(part is not None for part in state[2:5]):
            raise Refused("an array of a dtype with fields")
        if self.dtype.kind in "US" and isinstance(state[5], int) and 0 <= state[5] < 2**31:
            unit = 4 if self.dtype.kind == "U" else 1
            self.dtype = np.dtype(f"{self.dtype.kind}{state[5] // unit}")
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


class PlainArray(np.ndarray):
    """Stands for `numpy.ndarray`. Its state holds as many bytes as its shape says, or a list of objects."""

    def __new__(cls, *arguments: Any) -> PlainArray:
        raise Refused(MADE_BY_CLASS)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, PlainDtype) or dtype.dtype is None:
            raise Refused("an array of an unknown dtype")
        count = _count(shape)
        if dtype.dtype.kind == "O":
            if not isinstance(data, list) or len(data) != count:
                raise Refused(f"an array of shape {shape} with other content")
        else:
            data = data.encode("latin1") if isinstance(data, str) else data  # Python 2's strings
            if not isinstance(data, bytes | bytearray) or len(data) != count * dtype.dtype.itemsize:
                raise Refused(f"an array of shape {shape} with other content")
            data = bytes(data)
        super().__setstate__((1, shape, dtype.dtype, bool(fortran), data))  # type: ignore[arg-type]


class _ArrayName:
    """What the name `numpy.ndarray` stands for in a pickle: a word in the arguments of `_reconstruct`."""

    def __new__(cls, *arguments: Any) -> _ArrayName:
        raise Refused(MADE_BY_CLASS)


class PlainFields:
    """Stands for an object whose state is a dict, for example a sparse matrix. Only the state is kept."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, Mapping):
            raise Refused(f"an object with a state of type {type(state).__name__}")
        self.fields = {str(key): value for key, value in state.items()}

    def __new__(cls) -> PlainFields:
        made = super().__new__(cls)
        made.fields = {}
        return made


class PlainSparse(PlainFields):
    """Stands for SciPy's sparse matrices in rows (CSR), columns (CSC) or triplets (COO)."""

    layout: ClassVar[str] = "csr"

    def matrix(self) -> Any:
        """The matrix itself, checked. Raises SourceError."""
        import scipy.sparse as sp

        fields = self.fields
        shape = fields.get("_shape", fields.get("shape"))
        try:
            rows, columns = (int(size) for size in shape)  # type: ignore[union-attr]
            if self.layout != "csr" and rows > MOST_ROWS:
                raise SourceError(f"a sparse matrix declares {rows} rows; at most {MOST_ROWS} are read")
            if self.layout == "coo":
                ends = fields["coords"] if "coords" in fields else (fields["row"], fields["col"])
                return sp.coo_matrix(
                    (np.asarray(fields["data"]), tuple(map(np.asarray, ends))), shape=(rows, columns)
                ).tocsr()
            parts = tuple(np.asarray(fields[part]) for part in ("data", "indices", "indptr"))
            made = (sp.csr_matrix if self.layout == "csr" else sp.csc_matrix)(parts, shape=(rows, columns))
            made.check_format(full_check=True)
            return made.tocsr()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SourceError(f"a sparse matrix is damaged: {type(error).__name__}: {error}") from error


class PlainCsc(PlainSparse):
    """A sparse matrix in columns."""

    layout = "csc"


class PlainCoo(PlainSparse):
    """A sparse matrix in triplets."""

    layout = "coo"


def _count(shape: Any) -> int:
    """Number of entries of a shape. Raises Refused for other than a few whole numbers."""
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise Refused(f"an array of shape {shape!r}")
    return math.prod(shape)


def _reconstruct(kind: Any, shape: Any, code: Any) -> PlainArray:
    """An empty array, whose state follows."""
    if kind is not _ArrayName:
        raise Refused("an array of an unknown class")
    return np.ndarray.__new__(PlainArray, (0,), np.int8)


def _scalar(dtype: Any, data: Any = None) -> Any:
    """A NumPy scalar, as Python's own type."""
    if not isinstance(dtype, PlainDtype) or dtype.dtype is None or dtype.dtype.kind == "O":
        raise Refused("a scalar of an unknown dtype")
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes) or len(data) != dtype.dtype.itemsize:
        raise Refused("a scalar with other content")
    return np.frombuffer(data, dtype.dtype)[0].item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """An array as pickle protocol 5 writes it."""
    if not isinstance(dtype, PlainDtype) or dtype.dtype is None or dtype.dtype.kind == "O":
        raise Refused("an array of an unknown dtype")
    if not isinstance(data, bytes | bytearray) or len(data) != _count(shape) * dtype.dtype.itemsize:
        raise Refused(f"an array of shape {shape} with other content")
    return np.frombuffer(bytes(data), dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: Any, coding: Any = "latin1") -> bytes:
    """Bytes, as pickle protocol 2 writes them."""
    if not isinstance(text, str) or coding != "latin1":
        raise Refused("bytes in an unknown coding")
    return text.encode("latin1")


def _made(kind: Any, base: Any, state: Any) -> Any:
    """An object as pickle protocols 0 and 1 make it."""
    if not (isinstance(kind, type) and issubclass(kind, PlainFields)) or state is not None:
        raise Refused("an object of an unknown class")
    return kind()


def _dict(*factory: Any) -> dict[Any, Any]:
    """A `defaultdict`, without its default."""
    return {}


def _names(modules: tuple[str, ...], names: tuple[str, ...], what: Any) -> dict[str, Any]:
    return {f"{module}.{name}": what for module in modules for name in names}


ARRAYS: dict[str, Any] = {
    **_names(("numpy",), ("ndarray",), _ArrayName),
    **_names(("numpy",), ("dtype",), PlainDtype),
    **_names(("numpy.core.multiarray", "numpy._core.multiarray"), ("_reconstruct",), _reconstruct),
    **_names(("numpy.core.multiarray", "numpy._core.multiarray"), ("scalar",), _scalar),
    **_names(("numpy.core.numeric", "numpy._core.numeric"), ("_frombuffer",), _from_buffer),
}
"""Full name in a pickle of NumPy arrays -> what stands for it."""
SPARSE: dict[str, Any] = {
    f"scipy.sparse.{module}.{kind}_{form}": stand_in
    for kind, stand_in in (("csr", PlainSparse), ("csc", PlainCsc), ("coo", PlainCoo))
    for module in (kind, f"_{kind}")
    for form in ("matrix", "array")
}
"""Full name in a pickle of SciPy's sparse matrices -> what stands for it."""
PLAIN: dict[str, Any] = {
    **ARRAYS, **SPARSE, "_codecs.encode": _encode, "copyreg._reconstructor": _made, "collections.defaultdict": _dict,
    "collections.OrderedDict": _dict, "builtins.list": list, "builtins.dict": dict, "builtins.object": object,
}  # fmt: skip
"""All names that `load_plain` knows."""
_PYTHON_2 = {"copy_reg": "copyreg", "__builtin__": "builtins"}
_BUILT = (PlainDtype, PlainArray, PlainSparse, PlainCsc, PlainCoo)

_SET_STATE: Callable[..., None] = pickle._Unpickler.dispatch[pickle.BUILD[0]]


class _Unpickler(pickle._Unpickler):  # in Python: its steps can be overridden, its memo is a dict
    """Calls nothing but what `PLAIN` names."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    read: Callable[[int], bytes]

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name. Raises Refused."""
        full = f"{_PYTHON_2.get(module, module)}.{name}"
        if full not in PLAIN:
            raise Refused(full)
        return PLAIN[full]

    def _build(self) -> None:
        # A state may only be given to our own objects: Python would also write it into functions and classes.
        if type(self.stack[-2]) not in _BUILT:
            raise Refused(f"a state for {type(self.stack[-2]).__name__}")
        _SET_STATE(self)

    def _bytearray(self) -> None:
        # Python makes the array first, of any declared size.
        size = int.from_bytes(self.read(8), "little")
        data = self.read(size) if size < 2**48 else b""
        if len(data) != size:
            raise Refused(f"a bytearray that declares {size} bytes and has fewer")
        self.stack.append(bytearray(data))

    def _no(self) -> None:
        raise Refused("a reference to something outside of the file")

    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray
    for _code in (
        pickle.PERSID, pickle.BINPERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
    ):  # fmt: skip
        dispatch[_code[0]] = _no


def load_plain(path: Path) -> Any:
    """The plain data in a pickle: arrays, sparse matrices (as `PlainSparse`), lists, dicts, strings and numbers.

    No code of the file runs, and no function that it names is called. Strings of Python 2 are read as Latin-1.

    Raises:
        SourceError: the file holds anything else, or is damaged.
    """
    try:
        return _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Refused as error:
        raise SourceError(
            f"{path} holds {error}, which is not read, since a pickle could run code: only NumPy arrays, SciPy's sparse "
            "matrices, lists, dicts, strings and numbers are read"
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise SourceError(f"{path} is no pickle of plain data: {type(error).__name__}: {error}") from error
