"""Oracles of the jigsaw family: each solves its task from the pixels shown, by how well tiles continue each other.

Seams are matched line by line, so these oracles need tiles whose margins were not cut off: ask for `margin=0.0`. At the
levels as they are they answer None, and so they do to a single picture of `flip` and to diagonal neighbours of
`jigsaw_pair`, which share no seam: what is shown there takes understanding.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import Sample

LARGEST_MARGIN = 0.005
"""Share of a tile up to which seams can be matched."""

BEAM = 5000
"""Arrangements kept while a puzzle of all its tiles is put together; a fifth where each place may be empty."""

PLAIN = 0.04
"""Differences (colours in [0, 1]) that say nothing: grain, compression."""

Array = np.ndarray[Any, Any]


def pixels(image: Image.Image) -> Array:
    return np.asarray(image, np.float32) / 255


def cells(picture: Image.Image, level: Any) -> list[Array]:
    """The tiles of a composed picture in reading order, without the lines between them."""
    gap = max(2, level.side // 64)
    w, h = (picture.width + gap) // level.cols, (picture.height + gap) // level.rows
    shown = pixels(picture)
    return [
        shown[row * h : (row + 1) * h - gap, col * w : (col + 1) * w - gap]
        for row in range(level.rows)
        for col in range(level.cols)
    ]


def misfit(a: Array, b: Array) -> float:
    """How badly b continues a to the right: what each side's last two columns foretell of the next one."""
    return float(np.abs(2 * a[:, -1] - a[:, -2] - b[:, 0]).mean() + np.abs(2 * b[:, 0] - b[:, 1] - a[:, -1]).mean())


def variety(line: Array) -> float:
    """How badly a line would continue itself if it were shifted: little where it is plain."""
    shifts = (len(line) // 4, len(line) // 2, 3 * len(line) // 4)
    return float(np.mean([np.abs(line - np.roll(line, shift, axis=0)).mean() for shift in shifts]))


def unfit(a: Array, b: Array) -> float:
    """Logarithm of how badly b fits on the right of a, against how much such a fit would mean: that two plain edges fit
    each other says nothing, be they the background on both sides of the picture."""
    return float(np.log((misfit(a, b) + PLAIN) / (variety(a[:, -1]) + variety(b[:, 0]) + PLAIN)))


def right_of(tiles: Sequence[Array]) -> Array:
    """Entry (a, b): how little tile b fits on the right of tile a."""
    found = np.zeros((len(tiles), len(tiles)))
    for (k, a), (m, b) in itertools.permutations(enumerate(tiles), 2):
        found[k, m] = unfit(a, b)
    return found


def below(tiles: Sequence[Array]) -> Array:
    return right_of([tile.swapaxes(0, 1) for tile in tiles])


def neighbours(rows: int, cols: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Places side by side, and places above each other."""
    places = [(r, c) for r in range(rows) for c in range(cols)]
    across = [(r * cols + c, r * cols + c + 1) for r, c in places if c + 1 < cols]
    down = [(r * cols + c, (r + 1) * cols + c) for r, c in places if r + 1 < rows]
    return across, down


def best_order(tiles: Sequence[Array], rows: int, cols: int) -> list[int]:
    """Entry p: the tile at place p of the best arrangement. Tile number len(tiles) stands for an empty place."""
    count = rows * cols
    across, down = np.zeros((2, count, count))
    across[: len(tiles), : len(tiles)] = right_of(tiles)
    down[: len(tiles), : len(tiles)] = below(tiles)

    def arranged(empty: int) -> tuple[float, list[int]]:
        """Places are filled in reading order, the best arrangements kept each time."""
        beam = BEAM if empty == count else BEAM // 5
        kept: list[tuple[float, list[int]]] = [(0.0, [])]
        for place in range(count):
            grown = []
            for cost, order in kept:
                for tile in [len(tiles)] if place == empty else set(range(len(tiles))) - set(order):
                    more = across[order[-1], tile] if place % cols else 0.0
                    more += down[order[-cols], tile] if place >= cols else 0.0
                    grown.append((cost + more, [*order, tile]))
            kept = sorted(grown)[:beam]
        return kept[0]

    # An early gap costs seams early, so the gaps are not left to compete before their arrangements are complete.
    return min(arranged(empty) for empty in (range(count) if len(tiles) < count else [count]))[1]


def whole_misfit(tiles: Sequence[Array], rows: int, cols: int) -> float:
    """How badly the tiles fit where they are."""
    beside, under = neighbours(rows, cols)
    upright = [tile.swapaxes(0, 1) for tile in tiles]
    return sum(misfit(tiles[a], tiles[b]) for a, b in beside) + sum(misfit(upright[a], upright[b]) for a, b in under)


def flip(sample: Sample, level: Any) -> str | None:
    if len(sample.images) < 2:
        return None
    before, after = map(pixels, sample.images)
    changed = {
        "none": before,
        "left-right": before[:, ::-1],
        "top-bottom": before[::-1],
        "both": before[::-1, ::-1],
    }
    return min(changed, key=lambda how: float(np.abs(changed[how] - after).mean()))


def flipped_tile(sample: Sample, level: Any) -> str | None:
    if level.margin > LARGEST_MARGIN:
        return None
    tiles = cells(sample.images[0], level)
    found = {}
    for k, tile in enumerate(tiles):
        back = tile[::-1] if level.flip == "top-bottom" else tile[:, ::-1]
        found[string.ascii_uppercase[k]] = whole_misfit([*tiles[:k], back, *tiles[k + 1 :]], level.rows, level.cols)
    return min(found, key=found.__getitem__)


def jigsaw_pair(sample: Sample, level: Any) -> str | None:
    if level.margin > LARGEST_MARGIN or level.directions > 4:
        return None
    first, second = map(pixels, sample.images)
    upright = (first.swapaxes(0, 1), second.swapaxes(0, 1))
    found = {"left": misfit(second, first), "right": misfit(first, second)}
    if level.directions == 4:
        found |= {"above": misfit(*upright[::-1]), "below": misfit(*upright)}
    return min(found, key=found.__getitem__)


def jigsaw_tile(sample: Sample, level: Any) -> str | None:
    if level.margin > LARGEST_MARGIN:
        return None
    asked = int(sample.question.split("does tile ")[1].split(",")[0]) - 1
    order = best_order(cells(sample.images[0], level), level.rows, level.cols)
    return string.ascii_uppercase[order.index(asked)]


def missing_tile(sample: Sample, level: Any) -> str | None:
    if level.margin > LARGEST_MARGIN:
        return None
    order = best_order([pixels(image) for image in sample.images], level.rows, level.cols)
    return string.ascii_uppercase[order.index(len(sample.images))]


def swapped_tiles(sample: Sample, level: Any) -> list[str] | None:
    if level.margin > LARGEST_MARGIN:
        return None
    tiles = cells(sample.images[0], level)
    across, down = right_of(tiles), below(tiles)
    beside, under = neighbours(level.rows, level.cols)
    found = {}
    for a, b in itertools.combinations(range(len(tiles)), 2):
        at = list(range(len(tiles)))
        at[a], at[b] = b, a
        found[a, b] = sum(across[at[p], at[q]] for p, q in beside) + sum(down[at[p], at[q]] for p, q in under)
    return [string.ascii_uppercase[k] for k in min(found, key=found.__getitem__)]


def steps(shown: Array) -> Array:
    """Entry (y, x): by how much the step from column x - 1 to x exceeds those beside it, summed over all rows above y.

    Columns 0 and W, where the picture ends, count as no step.
    """
    apart = np.abs(np.diff(shown, axis=1)).mean(axis=2)
    excess = np.zeros((shown.shape[0] + 1, shown.shape[1] + 1), np.float32)
    excess[1:, 2:-2] = np.clip(apart[:, 1:-1] - (apart[:, :-2] + apart[:, 2:]) / 2, -0.1, 0.2)
    return excess.cumsum(axis=0)


def jigsaw_box(sample: Sample, level: Any) -> list[int]:
    """The box whose four edges and two middle lines together are the sharpest steps in the picture."""
    shown = pixels(sample.images[0])
    height, width = shown.shape[:2]
    across, down = steps(shown), steps(shown.swapaxes(0, 1))
    best: tuple[float, list[int]] = (-np.inf, [])
    for half_w in range(int(level.smallest * width / 2), int(level.largest * width / 2) + 2):
        for half_h in {round(half_w * height / width) + d for d in (-1, 0, 1)}:
            if not (0 < half_h <= height // 2 and half_w <= width // 2):
                continue
            upright = across[2 * half_h :] - across[: -2 * half_h]  # (upper, x): a vertical line of the box's height
            level_lines = (down[2 * half_w :] - down[: -2 * half_w]).T  # (y, left): a horizontal line of its width
            n, m = height - 2 * half_h + 1, width - 2 * half_w + 1
            total = sum(upright[:, k * half_w : k * half_w + m] for k in range(3))
            total = total + sum(level_lines[k * half_h : k * half_h + n] for k in range(3))
            upper, left = np.unravel_index(int(np.argmax(total)), (n, m))
            if total[upper, left] > best[0]:
                box = [left / width, upper / height, (left + 2 * half_w) / width, (upper + 2 * half_h) / height]
                best = (float(total[upper, left]), [round(1000 * float(edge)) for edge in box])
    return best[1]


ORACLES: dict[str, Callable[[Sample, Any], Any]] = {
    "flip": flip,
    "flipped_tile": flipped_tile,
    "jigsaw_pair": jigsaw_pair,
    "jigsaw_tile": jigsaw_tile,
    "missing_tile": missing_tile,
    "swapped_tiles": swapped_tiles,
    "jigsaw_box": jigsaw_box,
}
