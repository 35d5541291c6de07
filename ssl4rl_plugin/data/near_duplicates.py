"""Near-duplicates: copies of one photo that were encoded, scaled or slightly cropped anew, found without all pairs.

Every picture keeps a `signature`: a gray thumbnail and its coarse colours, 432 bytes. Copies are found in two steps:

1. Candidates. A copy that lost a strip at its sides looks like a window of the other picture, so the low frequencies
   of some windows of every picture are computed from its thumbnail, and their signs are looked up among those of the
   whole pictures. The lookup is in sorted tables, each by another choice of the signs. Colours, and the correlation of
   more frequencies, leave few candidates.
2. Proof. One thumbnail is shifted and scaled until it fits the other as well as it can (Lucas and Kanade, "An
   iterative image registration technique", IJCAI 1981). Two pictures are the same if their finer structure then agrees.

What 20 x 20 pixels do not show cannot be told: pages filled with text in the same layout may count as copies, and a smooth
ramp is not recognised at all. Mirrored and turned pictures are other pictures.

The result depends on the set of signatures alone, not on their order. Nor does it depend on threads or the machine: the
sums behind the candidates are whole numbers that float32 holds exactly, and the proof's are in float64, whose rounding is
far below what its limits tell apart. `tests/bench/near_duplicates.py` measures what is found.
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
"""Pixels along each side of the two thumbnails of colour (Cb, Cr); divides SIDE."""
SIGNATURE_BYTES = SIDE**2 + 2 * COLOUR_SIDE**2

COLOUR_LIMIT = 7.0
"""Root mean square difference of two copies' colours, of 255 levels, at most. Of crops by up to 5 % at each side, 99 in
100 differ by less than 4."""
GRAY_LIMIT = 3.0
"""Colours nearer to gray than this are those of a gray picture, which may be a copy of a coloured one."""
CONTRAST = 0.6
"""Lower contrast of two copies over the higher one, at least."""
FINE, BROAD = 0.75, 0.96
"""Correlation that the aligned thumbnails of two copies have at least, in details of one pixel and of two to four."""
FINE_OF_GRAY = 0.9
"""The same in details of one pixel, where one picture is gray and the other is not: colours tell nothing then."""
PLAIN = 90.0
"""Pixels with detail, of SIDE²: of a picture with fewer (a disc on white, one line of text, a clear sky), too many others
look like a part. Of photographs, 99 in 100 have 110 and more."""
CLOSE = 0.05
"""Difference of two copies of a plain picture over its contrast, at most; nothing is aligned there."""

# What a copy may have lost at (one side, the other side) of an axis, as shares of its length: the windows that are
# looked up. Crops between them differ from the nearest one by 1.5 % at most, up to 5 % at every side.
_LOSSES = ((0.01, 0.01), (0.04, 0.01), (0.01, 0.04), (0.04, 0.04), (0.08, 0.04), (0.04, 0.08))
_WINDOWS = (((0.0, 0.0), (0.0, 0.0)), *product(_LOSSES, _LOSSES))  # (top, bottom), (left, right)
_HIGHEST = 10  # half periods over the picture
_SIGNS = 44  # lowest frequencies whose signs are looked up
_TABLES, _KEY_BITS, _TIE_BITS = 6, 24, 8  # signs that must agree, and further ones that decide who is nearest
# Which of the key's least certain signs are also tried the other way.
_FLIPS = ((), (0,), (1,), (0, 1), (2,), (0, 2), (3,), (1, 2))
_REACH = 16  # of a crowd with equal key, so many before and after the picture's own place
_CORRELATION = 0.8  # of the frequencies, for a candidate
_KEPT = 32  # best candidates of a picture that are tried
_CHUNK = 2048  # pictures looked up at once
_BATCH = 1024  # pairs aligned at once
_STEPS = 5
_NOISE = 1.0  # levels of detail that may be noise
_FARTHEST = 0.3  # that a part may be larger or smaller than the picture, or away from its middle

Array = np.ndarray[Any, Any]


def signature(image: Image.Image) -> bytes:
    """What is kept of an RGB picture to recognise its copies: SIGNATURE_BYTES bytes."""
    tiny = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    luma, *colours = tiny.convert("YCbCr").split()
    return b"".join([luma.tobytes(), *(colour.reduce(SIDE // COLOUR_SIDE).tobytes() for colour in colours)])


def column_type() -> pa.DataType:
    """The Arrow type of a column of signatures."""
    import pyarrow as pa

    return pa.binary(SIGNATURE_BYTES)


def unpack(column: pa.ChunkedArray | pa.Array) -> Array:
    """A column of signatures without nulls as uint8 array of shape (n, SIGNATURE_BYTES)."""
    import pyarrow as pa

    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    arrays = [
        np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * SIGNATURE_BYTES, chunk.offset * SIGNATURE_BYTES)
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate([np.empty(0, np.uint8), *arrays]).reshape(-1, SIGNATURE_BYTES)


class UnionFind:
    """Which of the numbers 0 to size - 1 belong together."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, i: int) -> int:
        """The smallest number that belongs together with i."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def unite(self, i: int, j: int) -> None:
        a, b = self.find(i), self.find(j)
        # The smaller number is the root, so that the result does not depend on the order of the calls.
        self._parent[max(a, b)] = min(a, b)


def near_duplicates(signatures: Array, advance: Callable[[int], None] | None = None) -> Iterator[tuple[int, int]]:
    """Pairs of positions that show the same picture, enough of them to connect all that were found.

    Args:
        signatures: uint8 array of shape (n, SIGNATURE_BYTES).
        advance: called with the number of pictures that were looked up since the last call; n in all.
    """
    pictures = _Pictures(signatures)
    for i, u in enumerate(pictures.inverse.tolist()):
        if pictures.rows[u] != i:
            yield int(pictures.rows[u]), i
    together = UnionFind(len(pictures.rows))
    for pairs in _candidates(pictures, pictures, advance):
        for a, b in _proven(pictures, pictures, pairs, lambda a, b: together.find(a) != together.find(b)):
            together.unite(a, b)
            yield int(pictures.rows[a]), int(pictures.rows[b])


def matches(ours: Array, theirs: Array, advance: Callable[[int], None] | None = None) -> Iterator[tuple[int, int]]:
    """For every picture of ours that was found among theirs, one pair of positions (in ours, in theirs).

    Args:
        ours: uint8 array of shape (n, SIGNATURE_BYTES).
        theirs: uint8 array of shape (m, SIGNATURE_BYTES).
        advance: called with the number of pictures that were looked up since the last call; n + m in all.
    """
    one, other = _Pictures(ours), _Pictures(theirs)
    match: dict[int, int] = {}
    for pairs in _candidates(one, other, advance):
        for a, b in _proven(one, other, pairs, lambda a, b: a not in match):
            match[a] = b
    # Either may be the one that was cropped.
    for pairs in _candidates(other, one, advance):
        for b, a in _proven(other, one, pairs, lambda b, a: a not in match):
            match[a] = b
    for i, u in enumerate(one.inverse.tolist()):
        if u in match:
            yield i, int(other.rows[match[u]])


class _Pictures:
    """The different signatures of a table in the order of their bytes, numbered from 0: their order in the table, and
    equal ones, make no difference from here on."""

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
        """Where in the table the first one of each is."""
        self.inverse: Array = np.empty(len(order), np.int64)
        """The number of each row of the table."""
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
    """Candidates: a window of picture `a` looks like all of picture `b`."""

    a: Array
    b: Array
    window: Array
    """Position in _WINDOWS."""
    likeness: Array
    """Correlation of the frequencies."""

    def take(self, chosen: Array | slice) -> _Pairs:
        return _Pairs(self.a[chosen], self.b[chosen], self.window[chosen], self.likeness[chosen])


def _candidates(queries: _Pictures, targets: _Pictures, advance: Callable[[int], None] | None) -> Iterator[_Pairs]:
    """Candidates for every picture of `queries`, chunk by chunk, the likeliest of a picture first."""
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
    """Every pair once, with its likeliest window, and of each picture the _KEPT likeliest pairs, in order."""
    pairs = pairs.take(np.lexsort((pairs.window, -pairs.likeness, pairs.b, pairs.a)))
    first = np.ones(len(pairs.a), bool)
    first[1:] = (pairs.a[1:] != pairs.a[:-1]) | (pairs.b[1:] != pairs.b[:-1])
    pairs = pairs.take(first)
    pairs = pairs.take(np.lexsort((pairs.b, -pairs.likeness, pairs.a)))
    return pairs.take(_place(pairs.a) < _KEPT)


def _place(key: Array) -> Array:
    """How many entries of the same key stand before each entry of a sorted array."""
    return np.arange(len(key)) - np.searchsorted(key, key)


class _Index:
    """The signs of whole pictures' frequencies, in sorted tables."""

    def __init__(self, pictures: _Pictures) -> None:
        compact, codes = [np.empty((0, len(_weights())), np.int8)], [np.empty((_TABLES, 0, len(_FLIPS)), np.uint32)]
        for start in range(0, len(pictures), _CHUNK):
            frequencies = _frequencies(pictures.luma(slice(start, start + _CHUNK)), 0)
            compact.append(_compact(frequencies))
            codes.append(_flipped(_codes(frequencies), frequencies))
        self.compact = np.concatenate(compact)
        # Most keys are nobody's, and a table of their first bits says so faster than a search. It is as small as it can
        # be, since it is touched all over.
        self._rest = np.uint32(max(_TIE_BITS, _TIE_BITS + _KEY_BITS - 3 - (len(_FLIPS) * len(pictures)).bit_length()))
        self._tables = []
        for table in range(_TABLES):
            code = np.concatenate([part[table] for part in codes]).ravel()
            order = np.argsort(code, kind="stable")
            taken = np.zeros(1 << (_TIE_BITS + _KEY_BITS - int(self._rest)), bool)
            taken[code >> self._rest] = True
            self._tables.append((code[order], (order // len(_FLIPS)).astype(np.int32), taken))

    def look_up(self, frequencies: Array) -> tuple[Array, Array]:
        """Pairs of (row of `frequencies`, picture) that agree in a key; a pair may come more than once."""
        rows, pictures = [], []
        ties = np.uint32(2**_TIE_BITS - 1)
        for (codes, numbers, taken), every in zip(self._tables, _codes(frequencies), strict=True):
            row = np.flatnonzero(taken[every >> self._rest])
            row = row[np.argsort(every[row])]  # neighbours are searched one after another: fewer cache misses
            wanted = every[row]
            low, high = np.searchsorted(codes, wanted & ~ties), np.searchsorted(codes, wanted | ties, "right")
            crowd = np.flatnonzero(high - low > 2 * _REACH)
            low[crowd] = np.clip(np.searchsorted(codes, wanted[crowd]) - _REACH, low[crowd], high[crowd] - 2 * _REACH)
            which = np.repeat(np.arange(len(row)), np.minimum(high - low, 2 * _REACH))
            rows.append(row[which])
            pictures.append(numbers[low[which] + _place(which)])
        return np.concatenate(rows), np.concatenate(pictures)


def _frequencies(luma: Array, window: int) -> Array:
    """Cosine coefficients of a window of every thumbnail, lowest frequency first, without the mean; float32 (n, F)."""
    return luma @ _transforms()[window]


@lru_cache(maxsize=1)
def _transforms() -> Array:
    """For every window what turns a thumbnail into its frequencies, (W, SIDE², F): whole numbers as float32."""
    u, v = _uv()
    cosines = np.cos(np.pi * np.arange(_HIGHEST + 1)[:, None] * (np.arange(SIDE) + 0.5) / SIDE)
    found = []
    for sides in _WINDOWS:
        loss = np.array(sides)
        vertical, horizontal = cosines @ _sampling(1 - loss.sum(1), loss[:, 0] - loss[:, 1])[0]
        found.append(np.einsum("fy,fx->yxf", vertical[u], horizontal[v]).reshape(SIDE**2, -1))
    # As large as they can be while no sum over a thumbnail leaves the 24 bits that float32 holds exactly.
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
    """Frequencies of photographs fall with 1 / f: what makes them all count the same."""
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
    """For every table the frequencies whose signs are its key, then those that break ties; (tables, bits)."""
    rng = random.Random(5)  # its random() is the same in every version of Python
    orders = [sorted(range(_SIGNS), key=lambda _: rng.random()) for _ in range(_TABLES)]
    return np.array([order[: _KEY_BITS + _TIE_BITS] for order in orders])


def _codes(frequencies: Array) -> Array:
    """The signs that each table takes, as numbers: key in the high bits, ties in the low ones; uint32 (tables, n)."""
    signs = (frequencies[:, :_SIGNS] > 0).astype(np.float32)
    parts = []
    for bits in (_choices()[:, :_KEY_BITS], _choices()[:, _KEY_BITS:]):
        powers = np.zeros((_SIGNS, _TABLES), np.float32)
        np.put_along_axis(powers, bits.T, 2.0 ** np.arange(bits.shape[1])[:, None], axis=0)
        parts.append((signs @ powers).astype(np.uint32))  # exact: below 2^24
    return (parts[0] << np.uint32(_TIE_BITS) | parts[1]).T


def _flipped(codes: Array, frequencies: Array) -> Array:
    """The codes, and those with the key's least certain signs the other way; uint32 (tables, n, flips)."""
    certain = np.abs(frequencies[:, :_SIGNS] * _weights()[:_SIGNS])
    found = np.empty((*codes.shape, len(_FLIPS)), np.uint32)
    for table, choice in enumerate(_choices()[:, :_KEY_BITS]):
        bits = np.uint32(1) << (np.argsort(certain[:, choice], axis=1, kind="stable")[:, :4] + _TIE_BITS).astype("u4")
        for i, flip in enumerate(_FLIPS):
            found[table, :, i] = codes[table] ^ bits[:, list(flip)].sum(axis=1, dtype=np.uint32)
    return found


# ------------------------------------------------------------------------------------------------------ proof


def _proven(
    ours: _Pictures, theirs: _Pictures, pairs: _Pairs, wanted: Callable[[int, int], bool]
) -> Iterator[tuple[int, int]]:
    """The candidates that are the same picture, as far as they are still wanted when their turn comes.

    Of every picture the likeliest one is tried first: the many pairs within a large group are not all aligned.
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
    """0 for no, 1 for yes, 2 where one picture is gray and the other is not."""

    def size(values: Array) -> Array:
        return np.sqrt(np.einsum("nc,nc->n", values, values) / values.shape[1])

    one_gray = (size(a) < GRAY_LIMIT) != (size(b) < GRAY_LIMIT)
    return np.where(size(a - b) <= COLOUR_LIMIT, 1, np.where(one_gray, 2, 0))


def _same(ours: _Pictures, theirs: _Pictures, pairs: _Pairs) -> Array:
    """Whether the two pictures of each pair are the same: bool (n,)."""
    a, b = ours.luma(pairs.a).astype(np.float64), theirs.luma(pairs.b).astype(np.float64)
    colour = _alike_in_colour(ours.colours(pairs.a), theirs.colours(pairs.b))
    a, b = a.reshape(-1, SIDE, SIDE), b.reshape(-1, SIDE, SIDE)
    close = np.sqrt(((a - b) ** 2).mean((1, 2))) <= CLOSE * b.std((1, 2))
    aligned, inside = _align(a, b, pairs.window)
    inside[:, [0, -1]] = inside[:, :, [0, -1]] = False  # detail is not known at the border
    (fine_a, broad_a), (fine_b, broad_b) = _details(aligned), _details(b)
    plain = np.minimum(*(((fine * inside) ** 2).sum((1, 2)) for fine in (fine_a, fine_b))) < PLAIN
    lower, higher = np.sort([aligned.std((1, 2)), b.std((1, 2))], axis=0)
    alike = lower >= CONTRAST * higher
    alike &= _correlation(fine_a, fine_b, inside) >= np.where(colour == 2, FINE_OF_GRAY, FINE)
    alike &= _correlation(broad_a, broad_b, inside) >= BROAD
    return np.where(plain, close & (colour == 1), alike)


def _details(pictures: Array) -> tuple[Array, Array]:
    """Detail of one pixel and of two to four, divided by how much of it there is nearby: two pictures that have no
    more than one strong edge in common shall not pass for the same."""
    once = _blur()
    thrice = np.linalg.matrix_power(once, 3)
    blurred = once @ pictures @ once.T
    parts = pictures - blurred, blurred - thrice @ pictures @ thrice.T
    fine, broad = (part / (np.sqrt(thrice @ part**2 @ thrice.T) + _NOISE) for part in parts)
    return fine, broad


def _align(a: Array, b: Array, window: Array) -> tuple[Array, Array]:
    """The part of each a that looks most like b, and which pixels of it lie inside of a; (n, SIDE, SIDE) both.

    The part is found by Gauss-Newton steps from the window that the pair was found by. Brightness and contrast are
    fitted together with its place and size.
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
        # The unit matrix keeps what a picture without any edge says nothing about where it is.
        solved = np.linalg.solve(slopes @ known + np.eye(6), known.swapaxes(1, 2) @ b.reshape(len(a), -1, 1))[:, :, 0]
        gain = np.copysign(np.maximum(np.abs(solved[:, 4]), 0.2), solved[:, 4])
        step = np.clip(solved[:, :4] / gain[:, None], -0.08, 0.08).reshape(-1, 2, 2)  # (n, axis, size and place)
        shift = np.clip(shift + scale * step[:, :, 1], -_FARTHEST, _FARTHEST)
        scale = np.clip(scale * (1 + step[:, :, 0]), 1 - _FARTHEST, 1 + _FARTHEST)
    return _part(a, scale, shift)


def _part(a: Array, scale: Array, shift: Array) -> tuple[Array, Array]:
    """The part of each picture with this size and place along (vertical, horizontal), and which pixels are inside."""
    (vertical, above), (horizontal, beside) = (_sampling(scale[:, axis], shift[:, axis]) for axis in (0, 1))
    return vertical @ a @ horizontal.swapaxes(1, 2), above[:, :, None] & beside[:, None, :]


def _sampling(scale: Array, shift: Array) -> tuple[Array, Array]:
    """What takes SIDE values to those of a part of them (cubic interpolation), and which lie inside; (n, SIDE, SIDE)
    and (n, SIDE). A part of size 1 at place 0 is the whole, one from the middle to the end has size 0.5, place 0.5."""
    position = ((scale[:, None] * _centred() + shift[:, None]) + 1) * (SIDE / 2) - 0.5
    away = np.abs(np.clip(position, 0, SIDE - 1)[:, :, None] - np.arange(SIDE))
    near = (1.5 * away - 2.5) * away**2 + 1
    weight = np.where(away < 1, near, np.where(away < 2, ((2.5 - 0.5 * away) * away - 4) * away + 2, 0))
    inside = (position > -0.5 - 1e-9) & (position < SIDE - 0.5 + 1e-9)
    return weight / weight.sum(axis=2, keepdims=True), inside


def _centred() -> Array:
    """The middles of SIDE pixels on a scale from -1 to 1."""
    return (2 * np.arange(SIDE) + 1) / SIDE - 1


def _blur() -> Array:
    """What blurs a line of SIDE pixels by (1, 2, 1) / 4."""
    line = np.eye(SIDE)
    return (line[np.maximum(np.arange(SIDE) - 1, 0)] + 2 * line + line[np.minimum(np.arange(SIDE) + 1, SIDE - 1)]) / 4


def _correlation(a: Array, b: Array, where: Array) -> Array:
    """Correlation of each two pictures over the pixels `where`; 0 for one that is flat."""
    count = np.maximum(where.sum((1, 2)), 1)
    a, b = (np.where(where, x - (x * where).sum((1, 2), keepdims=True) / count[:, None, None], 0) for x in (a, b))
    return (a * b).sum((1, 2)) / np.sqrt(np.maximum((a * a).sum((1, 2)) * (b * b).sum((1, 2)), 1e-9))
