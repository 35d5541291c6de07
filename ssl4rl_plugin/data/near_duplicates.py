"""Find near-duplicates: re-encoded, scaled or slightly cropped copies of a picture, without comparing all pairs.

Each picture has a `signature`: a gray thumbnail and its coarse colours, 432 bytes. Copies are found in two steps:

1. Candidates. A cropped copy looks like a window of the other picture. So the low frequencies of several windows of each
   picture are computed from its thumbnail, and their signs are looked up among those of all whole pictures. The lookup
   uses sorted tables, each with a different choice of signs. Colours and the correlation of more frequencies then reject
   most candidates.
2. Verification. One thumbnail is aligned to the other by shift and scale (Lucas and Kanade, "An iterative image
   registration technique", IJCAI 1981). Two pictures are copies if their fine structure then agrees.

The limits of 20 x 20 pixels: pages of text in the same layout may count as copies, and a smooth gradient is never
recognised. Mirrored and rotated pictures do not count as copies.

The result depends only on the set of signatures, not on their order, the threads or the machine: the sums for candidates
are integers that float32 holds exactly, and those for verification are in float64, whose rounding error is far below the
limits. `tests/bench/near_duplicates.py` measures the recall.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

# pyarrow is imported where it is used: data-loader workers import this module.
if TYPE_CHECKING:
    import pyarrow as pa

SIDE = 20
"""Pixels along each side of the gray thumbnail."""
COLOUR_SIDE = 4
"""Pixels along each side of the two colour thumbnails (Cb, Cr); divides SIDE."""
SIGNATURE_BYTES = SIDE**2 + 2 * COLOUR_SIDE**2

COLOUR_LIMIT = 7.0
"""Largest root mean square difference of two copies' colours, in levels of 255. For crops of up to 5 % at each side, 99
in 100 differ by less than 4."""
GRAY_LIMIT = 3.0
"""A picture whose root mean square colour is below this is gray. A gray picture may be a copy of a coloured one."""
CONTRAST = 0.6
"""Least ratio of the lower to the higher contrast of two copies."""
FINE, BROAD = 0.75, 0.96
"""Least correlation of the aligned thumbnails of two copies, in details of one pixel and of two to four pixels."""
FINE_OF_GRAY = 0.9
"""The same in details of one pixel, if only one of the two pictures is gray, so that colours cannot be compared."""
PLAIN = 90.0
"""Pixels with detail, out of SIDE², below which a picture is plain (a disc on white, one line of text, a clear sky): it
looks like a part of too many others. 99 in 100 photographs have at least 110."""
CLOSE = 0.05
"""Largest difference of two copies of a plain picture, relative to its contrast. Plain pictures are not aligned."""

# The windows that are looked up: shares of the length that a crop removes at (one end, the other end) of an axis. Any
# crop of up to 5 % at each side differs from the nearest window by at most 1.5 %.
_LOSSES = ((0.01, 0.01), (0.04, 0.01), (0.01, 0.04), (0.04, 0.04), (0.08, 0.04), (0.04, 0.08))
_WINDOWS = (((0.0, 0.0), (0.0, 0.0)), *product(_LOSSES, _LOSSES))  # (top, bottom), (left, right)
_HIGHEST = 10  # highest frequency, in half periods over the picture
_SIGNS = 44  # number of lowest frequencies whose signs are looked up
_TABLES, _KEY_BITS, _TIE_BITS = 6, 24, 8  # key: signs that must agree; ties: signs that order pictures with equal keys
# Which of the key's least certain signs (by rank) are flipped for extra entries in the tables.
_FLIPS = ((), (0,), (1,), (0, 1), (2,), (0, 2), (3,), (1, 2))
_REACH = 16  # if many pictures share a key, how many before and after the query's position are candidates
_CORRELATION = 0.8  # least correlation of the frequencies of a candidate
_KEPT = 32  # best candidates of a picture that are verified
_CHUNK = 2048  # pictures looked up at once
_BATCH = 1024  # pairs aligned at once
_STEPS = 5  # Gauss-Newton steps
_NOISE = 1.0  # detail, in levels, that may be noise
_FARTHEST = 0.3  # largest shift, and largest change of scale, of an aligned part

Array = np.ndarray[Any, Any]


def signature(image: Image.Image) -> bytes:
    """The signature of an RGB picture, by which its copies are found: SIGNATURE_BYTES bytes."""
    tiny = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    luma, *colours = tiny.convert("YCbCr").split()
    return b"".join([luma.tobytes(), *(colour.reduce(SIDE // COLOUR_SIDE).tobytes() for colour in colours)])


def column_type() -> pa.DataType:
    """The Arrow type of a column of signatures."""
    import pyarrow as pa

    return pa.binary(SIGNATURE_BYTES)


def unpack(column: pa.ChunkedArray | pa.Array) -> Array:
    """Convert a column of signatures without nulls to a uint8 array of shape (n, SIGNATURE_BYTES)."""
    import pyarrow as pa

    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    arrays = [
        np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * SIGNATURE_BYTES, chunk.offset * SIGNATURE_BYTES)
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate([np.empty(0, np.uint8), *arrays]).reshape(-1, SIGNATURE_BYTES)


class UnionFind:
    """Disjoint sets of the numbers 0 to size - 1."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, i: int) -> int:
        """The smallest number in the set of i."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def unite(self, i: int, j: int) -> None:
        """Merge the sets of i and j."""
        a, b = self.find(i), self.find(j)
        # The smaller number becomes the root, so that the result does not depend on the order of the calls.
        self._parent[max(a, b)] = min(a, b)


def near_duplicates(signatures: Array, advance: Callable[[int], None] | None = None) -> Iterator[tuple[int, int]]:
    """Pairs of positions of copies. The pairs connect all copies of a picture, but not every pair is listed.

    Args:
        signatures: uint8 array of shape (n, SIGNATURE_BYTES).
        advance: called with the number of pictures looked up since the last call; n in total.
    """
    pictures = _Pictures(signatures)
    for i, u in enumerate(pictures.inverse.tolist()):
        if pictures.rows[u] != i:
            yield int(pictures.rows[u]), i
    together = UnionFind(len(pictures.rows))
    for pairs in _candidates(pictures, pictures, advance):
        for a, b in _verified(pictures, pictures, pairs, lambda a, b: together.find(a) != together.find(b)):
            together.unite(a, b)
            yield int(pictures.rows[a]), int(pictures.rows[b])


def matches(ours: Array, theirs: Array, advance: Callable[[int], None] | None = None) -> Iterator[tuple[int, int]]:
    """One pair of positions (in `ours`, in `theirs`) for each picture of `ours` that has a copy in `theirs`.

    Args:
        ours: uint8 array of shape (n, SIGNATURE_BYTES).
        theirs: uint8 array of shape (m, SIGNATURE_BYTES).
        advance: called with the number of pictures looked up since the last call; n + m in total.
    """
    one, other = _Pictures(ours), _Pictures(theirs)
    match: dict[int, int] = {}
    for pairs in _candidates(one, other, advance):
        for a, b in _verified(one, other, pairs, lambda a, b: a not in match):
            match[a] = b
    # Either of the two may be the crop.
    for pairs in _candidates(other, one, advance):
        for b, a in _verified(other, one, pairs, lambda b, a: a not in match):
            match[a] = b
    for i, u in enumerate(one.inverse.tolist()):
        if u in match:
            yield i, int(other.rows[match[u]])


class _Pictures:
    """The distinct signatures of a table, sorted by their bytes and numbered from 0.

    So results depend neither on the order of the table nor on repeated signatures.
    """

    def __init__(self, signatures: Array) -> None:
        if signatures.dtype != np.uint8 or signatures.shape[1:] != (SIGNATURE_BYTES,):
            raise ValueError(
                f"expected signatures as uint8 (n, {SIGNATURE_BYTES}), got {signatures.dtype} {signatures.shape}"
            )
        self._signatures = np.ascontiguousarray(signatures)
        whole = self._signatures.view(f"V{SIGNATURE_BYTES}").ravel()
        order = np.argsort(whole, kind="stable")
        new = np.ones(len(order), bool)
        for start in range(1, len(order), _CHUNK):
            block = order[start - 1 : start + _CHUNK]
            new[start : start + _CHUNK] = whole[block[1:]] != whole[block[:-1]]
        self.rows: Array = order[new]
        """The first row of the table with each signature."""
        self.inverse: Array = np.empty(len(order), np.int64)
        """The number of each row's signature."""
        self.inverse[order] = np.cumsum(new) - 1

    def __len__(self) -> int:
        return len(self.rows)

    def luma(self, numbers: Array | slice) -> Array:
        """The gray thumbnails, float32 (n, SIDE²), 0 for mid-gray."""
        return self._signatures[self.rows[numbers], : SIDE**2].astype(np.float32) - 128

    def colours(self, numbers: Array) -> Array:
        """The colours, int32 (n, 2 COLOUR_SIDE²), 0 for gray."""
        return self._signatures[self.rows[numbers], SIDE**2 :].astype(np.int32) - 128


# ------------------------------------------------------------------------------------------------- candidates


@dataclass(frozen=True)
class _Pairs:
    """Candidate pairs: a window of picture `a` looks like the whole picture `b`."""

    a: Array
    b: Array
    window: Array
    """Position in _WINDOWS."""
    likeness: Array
    """Correlation of the frequencies."""

    def take(self, chosen: Array | slice) -> _Pairs:
        return _Pairs(self.a[chosen], self.b[chosen], self.window[chosen], self.likeness[chosen])


def _candidates(queries: _Pictures, targets: _Pictures, advance: Callable[[int], None] | None) -> Iterator[_Pairs]:
    """Candidates for every picture of `queries`, in chunks, the most similar of a picture first."""
    index = _Index(targets)
    for start in range(0, len(queries), _CHUNK):
        chosen = np.arange(start, min(start + _CHUNK, len(queries)))
        luma = queries.luma(chosen)
        found = []
        for window in range(len(_WINDOWS)):
            frequencies = _frequencies(luma, window)
            a, b = index.look_up(frequencies)
            keep = _alike_in_colour(queries.colours(chosen[a]), targets.colours(b)) > 0
            if queries is targets:
                keep &= chosen[a] != b
            a, b = a[keep], b[keep]
            likeness = _dot(_compact(frequencies)[a], index.compact[b])
            pairs = _Pairs(chosen[a], b, np.full(len(a), window), likeness)
            found.append(pairs.take(likeness >= _CORRELATION))
        parts = (np.concatenate([getattr(pairs, field.name) for pairs in found]) for field in fields(_Pairs))
        yield _best(_Pairs(*parts))
        if advance:
            advance(len(chosen))


def _best(pairs: _Pairs) -> _Pairs:
    """Each pair once, with its most similar window; for each picture the _KEPT most similar pairs, in order."""
    pairs = pairs.take(np.lexsort((pairs.window, -pairs.likeness, pairs.b, pairs.a)))
    first = np.ones(len(pairs.a), bool)
    first[1:] = (pairs.a[1:] != pairs.a[:-1]) | (pairs.b[1:] != pairs.b[:-1])
    pairs = pairs.take(first)
    pairs = pairs.take(np.lexsort((pairs.b, -pairs.likeness, pairs.a)))
    return pairs.take(_place(pairs.a) < _KEPT)


def _place(key: Array) -> Array:
    """For each entry of a sorted array, the number of equal entries before it."""
    return np.arange(len(key)) - np.searchsorted(key, key)


class _Index:
    """Sorted tables of the signs of whole pictures' frequencies."""

    def __init__(self, pictures: _Pictures) -> None:
        compact, codes = [np.empty((0, len(_weights())), np.int8)], [np.empty((_TABLES, 0, len(_FLIPS)), np.uint32)]
        for start in range(0, len(pictures), _CHUNK):
            frequencies = _frequencies(pictures.luma(slice(start, start + _CHUNK)), 0)
            compact.append(_compact(frequencies))
            codes.append(_flipped(_codes(frequencies), frequencies))
        self.compact = np.concatenate(compact)
        # Most looked-up keys do not occur. A table of the keys' first bits rules them out faster than a binary search.
        # It is accessed at random, so it is kept as small as possible.
        self._rest = np.uint32(max(_TIE_BITS, _TIE_BITS + _KEY_BITS - 3 - (len(_FLIPS) * len(pictures)).bit_length()))
        self._tables = []
        for table in range(_TABLES):
            code = np.concatenate([part[table] for part in codes]).ravel()
            order = np.argsort(code, kind="stable")
            taken = np.zeros(1 << (_TIE_BITS + _KEY_BITS - int(self._rest)), bool)
            taken[code >> self._rest] = True
            self._tables.append((code[order], (order // len(_FLIPS)).astype(np.int32), taken))

    def look_up(self, frequencies: Array) -> tuple[Array, Array]:
        """Pairs of (row of `frequencies`, picture) with equal keys; a pair may occur more than once."""
        rows, pictures = [], []
        ties = np.uint32(2**_TIE_BITS - 1)
        for (codes, numbers, taken), every in zip(self._tables, _codes(frequencies), strict=True):
            row = np.flatnonzero(taken[every >> self._rest])
            row = row[np.argsort(every[row])]  # searching in sorted order has fewer cache misses
            wanted = every[row]
            low, high = np.searchsorted(codes, wanted & ~ties), np.searchsorted(codes, wanted | ties, "right")
            crowd = np.flatnonzero(high - low > 2 * _REACH)
            low[crowd] = np.clip(np.searchsorted(codes, wanted[crowd]) - _REACH, low[crowd], high[crowd] - 2 * _REACH)
            which = np.repeat(np.arange(len(row)), np.minimum(high - low, 2 * _REACH))
            rows.append(row[which])
            pictures.append(numbers[low[which] + _place(which)])
        return np.concatenate(rows), np.concatenate(pictures)


def _frequencies(luma: Array, window: int) -> Array:
    """Cosine coefficients of one window of each thumbnail, lowest frequency first, without the mean; float32 (n, F)."""
    return luma @ _transforms()[window]


@lru_cache(maxsize=1)
def _transforms() -> Array:
    """The matrix of each window from a thumbnail to its frequencies, (W, SIDE², F): integers as float32."""
    u, v = _uv()
    cosines = np.cos(np.pi * np.arange(_HIGHEST + 1)[:, None] * (np.arange(SIDE) + 0.5) / SIDE)
    found = []
    for sides in _WINDOWS:
        loss = np.array(sides)
        vertical, horizontal = cosines @ _sampling(1 - loss.sum(1), loss[:, 0] - loss[:, 1])[0]
        found.append(np.einsum("fy,fx->yxf", vertical[u], horizontal[v]).reshape(SIDE**2, -1))
    # The largest factor for which no sum over a thumbnail exceeds the 24 bits that float32 holds exactly.
    return np.rint(400 * np.array(found)).astype(np.float32)


@lru_cache(maxsize=1)
def _uv() -> tuple[Array, Array]:
    """Vertical and horizontal frequency of each coefficient."""
    u, v = np.mgrid[: _HIGHEST + 1, : _HIGHEST + 1].reshape(2, -1)
    square = u * u + v * v
    order = np.lexsort((u, square))
    order = order[(square[order] > 0) & (square[order] <= _HIGHEST**2)]
    return u[order], v[order]


@lru_cache(maxsize=1)
def _weights() -> Array:
    """Weight f of each frequency f: equalises the spectrum of photographs, which falls with 1 / f."""
    return np.hypot(*_uv()).astype(np.float32)


def _compact(frequencies: Array) -> Array:
    """Weighted frequencies as int8, such that the sum of squares is about 127²."""
    weighted = frequencies * _weights()
    length = np.sqrt(np.einsum("nf,nf->n", weighted, weighted, dtype=np.float64))
    return np.rint(weighted * (127 / np.maximum(length, 1e-9))[:, None]).astype(np.int8)


def _dot(a: Array, b: Array) -> Array:
    """Correlations of rows made by `_compact`."""
    return np.einsum("nf,nf->n", a.astype(np.float32), b.astype(np.float32)) / np.float32(127**2)


@lru_cache(maxsize=1)
def _choices() -> Array:
    """The frequencies of each table: those whose signs are the key, then those that break ties; (tables, bits)."""
    rng = random.Random(5)  # random() gives the same numbers in every version of Python
    orders = [sorted(range(_SIGNS), key=lambda _: rng.random()) for _ in range(_TABLES)]
    return np.array([order[: _KEY_BITS + _TIE_BITS] for order in orders])


def _codes(frequencies: Array) -> Array:
    """The signs for each table as integers: key in the high bits, ties in the low bits; uint32 (tables, n)."""
    signs = (frequencies[:, :_SIGNS] > 0).astype(np.float32)
    parts = []
    for bits in (_choices()[:, :_KEY_BITS], _choices()[:, _KEY_BITS:]):
        powers = np.zeros((_SIGNS, _TABLES), np.float32)
        np.put_along_axis(powers, bits.T, 2.0 ** np.arange(bits.shape[1])[:, None], axis=0)
        parts.append((signs @ powers).astype(np.uint32))  # exact: below 2^24
    return (parts[0] << np.uint32(_TIE_BITS) | parts[1]).T


def _flipped(codes: Array, frequencies: Array) -> Array:
    """The codes, and variants with the key's least certain signs flipped; uint32 (tables, n, flips)."""
    certain = np.abs(frequencies[:, :_SIGNS] * _weights()[:_SIGNS])
    found = np.empty((*codes.shape, len(_FLIPS)), np.uint32)
    for table, choice in enumerate(_choices()[:, :_KEY_BITS]):
        bits = np.uint32(1) << (np.argsort(certain[:, choice], axis=1, kind="stable")[:, :4] + _TIE_BITS).astype("u4")
        for i, flip in enumerate(_FLIPS):
            found[table, :, i] = codes[table] ^ bits[:, list(flip)].sum(axis=1, dtype=np.uint32)
    return found


# ----------------------------------------------------------------------------------------------- verification


def _verified(
    ours: _Pictures, theirs: _Pictures, pairs: _Pairs, wanted: Callable[[int, int], bool]
) -> Iterator[tuple[int, int]]:
    """The candidates that are copies. Skips a pair if `wanted` is False when it comes up.

    Tries the best candidate of each picture first, so that not all pairs within a large group are aligned.
    """
    while len(pairs.a):
        chosen = [wanted(a, b) for a, b in zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)]
        pairs = pairs.take(np.array(chosen, bool))
        turn = _place(pairs.a) == 0
        now, pairs = pairs.take(turn), pairs.take(~turn)
        for start in range(0, len(now.a), _BATCH):
            batch = now.take(slice(start, start + _BATCH))
            batch = batch.take(_same(ours, theirs, batch))
            yield from zip(batch.a.tolist(), batch.b.tolist(), strict=True)


def _alike_in_colour(a: Array, b: Array) -> Array:
    """For each pair: 1 if the colours agree, 2 if only one of the two pictures is gray, 0 otherwise."""

    def size(values: Array) -> Array:
        return np.sqrt(np.einsum("nc,nc->n", values, values) / values.shape[1])

    one_gray = (size(a) < GRAY_LIMIT) != (size(b) < GRAY_LIMIT)
    return np.where(size(a - b) <= COLOUR_LIMIT, 1, np.where(one_gray, 2, 0))


def _same(ours: _Pictures, theirs: _Pictures, pairs: _Pairs) -> Array:
    """Whether the two pictures of each pair are copies: bool (n,)."""
    a, b = ours.luma(pairs.a).astype(np.float64), theirs.luma(pairs.b).astype(np.float64)
    colour = _alike_in_colour(ours.colours(pairs.a), theirs.colours(pairs.b))
    a, b = a.reshape(-1, SIDE, SIDE), b.reshape(-1, SIDE, SIDE)
    close = np.sqrt(((a - b) ** 2).mean((1, 2))) <= CLOSE * b.std((1, 2))
    aligned, inside = _align(a, b, pairs.window)
    inside[:, [0, -1]] = inside[:, :, [0, -1]] = False  # detail is unknown at the border
    (fine_a, broad_a), (fine_b, broad_b) = _details(aligned), _details(b)
    plain = np.minimum(*(((fine * inside) ** 2).sum((1, 2)) for fine in (fine_a, fine_b))) < PLAIN
    lower, higher = np.sort([aligned.std((1, 2)), b.std((1, 2))], axis=0)
    alike = lower >= CONTRAST * higher
    alike &= _correlation(fine_a, fine_b, inside) >= np.where(colour == 2, FINE_OF_GRAY, FINE)
    alike &= _correlation(broad_a, broad_b, inside) >= BROAD
    return np.where(plain, close & (colour == 1), alike)


def _details(pictures: Array) -> tuple[Array, Array]:
    """Detail of one pixel and of two to four pixels, divided by its local magnitude.

    Without the division, two pictures that share only one strong edge would count as copies.
    """
    once = _blur()
    thrice = np.linalg.matrix_power(once, 3)
    blurred = once @ pictures @ once.T
    parts = pictures - blurred, blurred - thrice @ pictures @ thrice.T
    fine, broad = (part / (np.sqrt(thrice @ part**2 @ thrice.T) + _NOISE) for part in parts)
    return fine, broad


def _align(a: Array, b: Array, window: Array) -> tuple[Array, Array]:
    """The part of each a that is most similar to b, and a mask of its pixels that lie inside a; both (n, SIDE, SIDE).

    Gauss-Newton steps start from the window of the candidate. They fit position, size, brightness and contrast together.
    """
    loss = np.array(_WINDOWS)[window]
    scale, shift = 1 - loss.sum(2), loss[:, :, 0] - loss[:, :, 1]  # (n, axis)
    place = _centred()
    for _ in range(_STEPS):
        aligned, inside = _part(a, scale, shift)
        down, right = (np.gradient(aligned, axis=axis) * (SIDE / 2) for axis in (1, 2))
        parts = [down * place[:, None], down, right * place, right, aligned, np.ones_like(aligned)]
        slopes = np.stack(parts, axis=1).reshape(len(a), 6, -1)
        known = (slopes * inside.reshape(len(a), 1, -1)).swapaxes(1, 2)
        # The identity matrix regularises: a picture without edges does not determine its position.
        solved = np.linalg.solve(slopes @ known + np.eye(6), known.swapaxes(1, 2) @ b.reshape(len(a), -1, 1))[:, :, 0]
        gain = np.copysign(np.maximum(np.abs(solved[:, 4]), 0.2), solved[:, 4])
        step = np.clip(solved[:, :4] / gain[:, None], -0.08, 0.08).reshape(-1, 2, 2)  # (n, axis, size and place)
        shift = np.clip(shift + scale * step[:, :, 1], -_FARTHEST, _FARTHEST)
        scale = np.clip(scale * (1 + step[:, :, 0]), 1 - _FARTHEST, 1 + _FARTHEST)
    return _part(a, scale, shift)


def _part(a: Array, scale: Array, shift: Array) -> tuple[Array, Array]:
    """The part of each picture with this size and position along (vertical, horizontal), and a mask of its inside pixels."""
    (vertical, above), (horizontal, beside) = (_sampling(scale[:, axis], shift[:, axis]) for axis in (0, 1))
    return vertical @ a @ horizontal.swapaxes(1, 2), above[:, :, None] & beside[:, None, :]


def _sampling(scale: Array, shift: Array) -> tuple[Array, Array]:
    """Matrices (n, SIDE, SIDE) that resample SIDE values to a part of them by cubic interpolation, and masks (n, SIDE) of
    the values inside. Size 1 at position 0 is the whole; size 0.5 at position 0.5 is the second half."""
    position = ((scale[:, None] * _centred() + shift[:, None]) + 1) * (SIDE / 2) - 0.5
    away = np.abs(np.clip(position, 0, SIDE - 1)[:, :, None] - np.arange(SIDE))
    near = (1.5 * away - 2.5) * away**2 + 1
    weight = np.where(away < 1, near, np.where(away < 2, ((2.5 - 0.5 * away) * away - 4) * away + 2, 0))
    inside = (position > -0.5 - 1e-9) & (position < SIDE - 0.5 + 1e-9)
    return weight / weight.sum(axis=2, keepdims=True), inside


def _centred() -> Array:
    """The centres of SIDE pixels on a scale from -1 to 1."""
    return (2 * np.arange(SIDE) + 1) / SIDE - 1


def _blur() -> Array:
    """The matrix that blurs a line of SIDE pixels with the filter (1, 2, 1) / 4."""
    line = np.eye(SIDE)
    return (line[np.maximum(np.arange(SIDE) - 1, 0)] + 2 * line + line[np.minimum(np.arange(SIDE) + 1, SIDE - 1)]) / 4


def _correlation(a: Array, b: Array, where: Array) -> Array:
    """Correlation of each pair of pictures over the pixels of a mask; 0 if one is constant."""
    count = np.maximum(where.sum((1, 2)), 1)
    a, b = (np.where(where, x - (x * where).sum((1, 2), keepdims=True) / count[:, None, None], 0) for x in (a, b))
    return (a * b).sum((1, 2)) / np.sqrt(np.maximum((a * a).sum((1, 2)) * (b * b).sum((1, 2)), 1e-9))
