"""Programs that solve the crops family from the pixels shown, to prove that what is asked has an answer there.

`ORACLES`: task -> function(sample, level) -> answer in the form of the truth, or None where it does not claim to know.

No oracle: `matching` (augmented views of one photo: the colours are changed and the place and zoom unknown; nothing but
recognition solves it). Partial: `inpainting` and `cropped_patch` compare candidates with what surrounds the hole, which
is plausible, not certain (a border may run along the hole), and claim no 99 %: 90 % and more for `inpainting`, 97 % for what
is shifted, 90 % for what is turned; `mixed` is left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.optimize import linear_sum_assignment
from scipy.signal import fftconvolve

from ssl4rl_plugin.core import Sample
from ssl4rl_plugin.grading import letters
from ssl4rl_plugin.tasks.image.correspondence import mark
from ssl4rl_plugin.tasks.image.cropped_patch import SHIFT, ZOOM
from ssl4rl_plugin.tasks.image.holes import hole_edges
from ssl4rl_plugin.tasks.image.relative_position import EIGHT


def array(image: Image.Image, size: tuple[int, int] | None = None) -> np.ndarray:
    """The picture at `size`, float, values in [0, 1]."""
    shown = image if size is None else image.resize(size, Image.Resampling.BOX)
    return np.asarray(shown, np.float32) / 255


def fit(whole: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """How badly `cut` fits at each place of `whole`: 1 minus the correlation, which no brightness or contrast changes."""
    windows = sliding_window_view(whole.mean(axis=2), cut.shape[:2])
    template = cut.mean(axis=2)
    template = template - template.mean()
    centred = windows - windows.mean(axis=(2, 3), keepdims=True)
    norm = np.sqrt((centred**2).sum(axis=(2, 3)) * (template**2).sum()) + 1e-6
    return 1 - np.einsum("ijkl,kl->ij", centred, template) / norm


def found(whole: Image.Image, cut: Image.Image, sides: Any, probe: int = 64) -> tuple[float, float, float, float]:
    """Where a cut-out of one of the given sides (shares of the picture's short side) fits best.

    Returns how badly, the middle (x, y) in pixels of the small picture, and the side as a share.
    """
    scale = probe / max(whole.size)
    width, height = round(whole.width * scale), round(whole.height * scale)
    small = array(whole, (width, height))
    best = (9.0, 0.0, 0.0, 0.0)
    for share in sides:
        w = max(4, round(share * min(width, height) * cut.width / min(cut.size)))
        h = max(4, round(share * min(width, height) * cut.height / min(cut.size)))
        if w > width or h > height:
            continue
        badness = fit(small, array(cut, (w, h)))
        row, col = np.unravel_index(int(badness.argmin()), badness.shape)
        best = min(best, (float(badness[row, col]), col + w / 2, row + h / 2, share))
    return best


def seam(sample: Sample, level: Any) -> str:
    """The candidate whose outermost lines look most like what surrounds the hole."""
    side = level.side
    edge, inner = hole_edges(side, level.hole)
    rim = inner - edge
    picture = array(sample.images[0])

    def profiles(patch: np.ndarray, outer: bool) -> list[np.ndarray]:
        """Colours along the four sides, smoothed over the rim's width."""
        found = []
        for turn in range(4):
            turned = np.rot90(patch, turn)
            line = turned[edge - rim : edge, inner : side - inner] if outer else turned[:rim]
            line = line.mean(axis=0)
            kernel = np.ones(rim) / rim
            found.append(np.stack([np.convolve(line[:, c], kernel, "valid") for c in range(3)]))
        return found

    around = profiles(picture, True)
    scores = [
        sum(float(np.abs(a - b).mean()) for a, b in zip(around, profiles(array(option), False), strict=True))
        for option in sample.options
    ]
    return letters(len(scores))[int(np.argmin(scores))]


def cropped_patch(sample: Sample, level: Any) -> str | None:
    """Where candidates are shifted or zoomed out, they show what is visible around the hole; the true one does not."""
    if level.change == "turned":
        return seam(sample, level)
    if level.change == "mixed":
        return None
    side = level.side
    edge, inner = hole_edges(side, level.hole)
    hole, width = side - 2 * edge, side - 2 * inner
    picture = array(sample.images[0])
    hidden = np.zeros((side, side), bool)
    hidden[edge : side - edge, edge : side - edge] = True

    def exposed(option: Image.Image, zoom: float, dx: float, dy: float) -> float:
        """How much a candidate differs from the visible picture if it is really so much wider and so far off."""
        large = array(option.resize((round(width * zoom),) * 2, Image.Resampling.BICUBIC))
        left, upper = round(side / 2 + dx - len(large) / 2), round(side / 2 + dy - len(large) / 2)
        a, b = slice(max(0, upper), upper + len(large)), slice(max(0, left), left + len(large))
        cut = large[a.start - upper :, b.start - left :][: side - a.start, : side - b.start]
        seen = ~hidden[a, b]
        return float(np.abs(picture[a, b] - cut).mean(axis=2)[seen].mean())

    names = letters(len(sample.options))
    if level.change == "shifted":
        step = SHIFT * hole
        away = [(x, y) for x in (-step, 0, step) for y in (-step, 0, step) if x or y]
        return names[int(np.argmax([min(exposed(o, 1, dx, dy) for dx, dy in away) for o in sample.options]))]

    def narrower(one: Image.Image, other: Image.Image) -> float:
        """How much the middle of one candidate differs from all of another: little where the other is a zoom narrower."""
        part = width / ZOOM
        middle = one.resize(
            (48, 48), Image.Resampling.BICUBIC, box=((width - part) / 2,) * 2 + ((width + part) / 2,) * 2
        )
        return float(np.abs(array(middle) - array(other.resize((48, 48), Image.Resampling.BICUBIC))).mean())

    chains = itertools.permutations(range(len(names)))
    order = min(
        chains, key=lambda c: sum(narrower(sample.options[b], sample.options[a]) for a, b in itertools.pairwise(c))
    )
    scores = [
        float(
            np.mean(
                [exposed(sample.options[order[k]], ZOOM ** (k - place), 0, 0) for k in range(place + 1, len(order))]
            )
        )
        for place in range(len(order) - 1)
    ]
    # If the picture has the widest zoom, no candidate shows anything visible, and no other hypothesis stands out.
    place = int(np.argmin(scores)) if min(scores) < 0.45 * float(np.median(scores)) else len(order) - 1
    return names[order[place]]


def position_box(sample: Sample, level: Any) -> list[int]:
    whole, cut = sample.images
    _, x, y, share = found(whole, cut, np.linspace(level.smallest, level.largest, 9), probe=72)
    scale = 72 / max(whole.size)
    width, height = whole.width * scale, whole.height * scale
    edges = [x / width - share / 2, y / height - share / 2, x / width + share / 2, y / height + share / 2]
    return [min(1000, max(0, round(1000 * edge))) for edge in edges]


def relative_position(sample: Sample, level: Any) -> str:
    sides = np.linspace(0.75, 0.95, 5) / level.grid
    a, b = (found(sample.images[0], cut, sides) for cut in sample.images[1:])
    whole = sample.images[0]
    scale = 64 / max(whole.size) / level.grid
    down, right = ((b[2] - a[2]) / (whole.height * scale), (b[1] - a[1]) / (whole.width * scale))  # in cells
    step = tuple(int(np.sign(z)) if abs(z) > 0.5 else 0 for z in (down, right))
    return next((name for name, way in EIGHT.items() if way == step), "left")


def patch_distance(sample: Sample, level: Any) -> list[str]:
    whole, *cuts = sample.images
    places = [found(whole, cut, (level.cut,), probe=96)[1:3] for cut in cuts]
    distances = [math.dist(places[0], place) for place in places[1:]]
    names = letters(level.cutouts)
    return sorted(names, key=lambda name: distances[names.index(name)])


def alike(a: np.ndarray, b: np.ndarray, least: float) -> float:
    """The best correlation of two pictures of one size and scale over all shifts that share `least` of the area."""
    ones = np.ones(a.shape[:2])
    n = fftconvolve(ones, ones)
    cross, one, two = np.zeros_like(n), np.zeros_like(n), np.zeros_like(n)
    for c in range(3):
        x, y = a[..., c], b[::-1, ::-1, c]
        sum_x, sum_y = fftconvolve(x, ones), fftconvolve(ones, y)
        cross += fftconvolve(x, y) - sum_x * sum_y / n
        one += fftconvolve(x**2, ones) - sum_x**2 / n
        two += fftconvolve(ones, y**2) - sum_y**2 / n
    enough = (n >= least * a.shape[0] ** 2) & (one > 1e-3) & (two > 1e-3)
    return float((cross[enough] / np.sqrt(one[enough] * two[enough])).max(initial=-1))


def odd_one_out(sample: Sample, level: Any) -> str:
    """The picture that overlaps none of the others."""
    small = [array(image, (48, 48)) for image in sample.images]
    names = letters(len(small))
    near = np.full((len(small), len(small)), -1.0)
    for a, b in itertools.combinations(range(len(small)), 2):
        near[a, b] = near[b, a] = alike(small[a], small[b], 0.22)
    return names[int(near.max(axis=1).argmin())]


def yellowish(picture: Image.Image) -> np.ndarray:
    """Which pixels have the hue of marks, bright or not: the bars of letters are thinner than a pixel."""
    red, green, blue = np.asarray(picture, int).transpose(2, 0, 1)
    return (abs(red - green) < 3) & (blue < 3) & (red > 100)


def marks(picture: Image.Image, names: list[str]) -> dict[str, tuple[int, int]]:
    """Where the rings of the given names lie: the mark that the task draws, found pixel by pixel."""
    side = picture.width
    yellow = yellowish(picture)

    def template(name: str, at: int) -> np.ndarray:
        canvas = Image.new("RGB", (side, side))
        mark(canvas, (at, side // 2), name)
        return np.argwhere(yellowish(canvas)) - (side // 2, at)

    def matched(points: np.ndarray, row: int, col: int) -> float:
        """Intersection over union of the mark's yellow pixels and the picture's in the box around the mark."""
        (top, start), (bottom, end) = points.min(axis=0) - 3, points.max(axis=0) + 3
        wanted = np.zeros((bottom - top + 1, end - start + 1), bool)
        wanted[tuple((points - (top, start)).T)] = True
        rows, cols = np.arange(top, bottom + 1) + row, np.arange(start, end + 1) + col
        found = yellow[np.clip(rows, 0, side - 1)[:, None], np.clip(cols, 0, side - 1)[None, :]]
        return float((wanted & found).sum() / (wanted | found).sum())

    ring = template("", side // 2)
    score = sum(np.roll(yellow, (-r, -c), (0, 1)) for r, c in ring.tolist()) / len(ring)
    rings = []
    for row, col in sorted(np.argwhere(score > 0.7).tolist(), key=lambda p: -score[p[0], p[1]]):
        if all(max(abs(row - r), abs(col - c)) > 6 for r, c in rings):
            rings.append((row, col))
    if names == [""]:
        return {"": rings[0][::-1]}
    like = [
        [matched(template(name, side // 4 if col < side / 2 else 3 * side // 4), row, col) for row, col in rings]
        for name in names
    ]
    which, where = linear_sum_assignment(like, maximize=True)
    return {names[k]: rings[place][::-1] for k, place in zip(which, where, strict=True)}


def correspondence(sample: Sample, level: Any) -> str:
    """The candidate around which the picture, turned and scaled in some way, looks most like around the ring."""
    names = list(letters(level.points))
    first, second = sample.images
    planes = [np.asarray(image.convert("L"), np.float32) / 255 for image in (first, second)]
    (x, y), places = marks(first, [""])[""], marks(second, names)
    reach, step = 0.13 * level.side, 0.01 * level.side
    axis = np.arange(-reach, reach + step, step)
    dx, dy = np.meshgrid(axis, axis)
    far = (np.hypot(dx, dy) > 0.035 * level.side) & (np.hypot(dx, dy) < reach)  # the ring itself is no content
    dx, dy = dx[far], dy[far]

    def around(plane: np.ndarray, x: Any, y: Any) -> np.ndarray:
        values = map_coordinates(plane, [y, x], order=1, mode="nearest")
        values = values - values.mean(axis=-1, keepdims=True)
        return values / (np.linalg.norm(values, axis=-1, keepdims=True) + 1e-6)

    soft = [gaussian_filter(plane, 0.008 * level.side) for plane in planes]
    wanted = around(soft[0], x + dx, y + dy)
    best = {}
    for name, (u, v) in places.items():
        turns, zooms, shears = np.meshgrid(
            np.radians(np.arange(-56, 57, 8)), 1.17 ** np.arange(-2, 3), (-0.15, 0, 0.15)
        )
        cos, sin = (zooms * np.cos(turns)).ravel()[:, None], (zooms * np.sin(turns)).ravel()[:, None]
        sx = dx + shears.ravel()[:, None] * dy
        best[name] = float((around(soft[1], u + cos * sx - sin * dy, v + sin * sx + cos * dy) @ wanted).max())
    return max(best, key=lambda name: best[name])


ORACLES: dict[str, Callable[[Sample, Any], Any]] = {
    "inpainting": seam,
    "cropped_patch": cropped_patch,
    "odd_one_out": odd_one_out,
    "correspondence": correspondence,
    "position_box": position_box,
    "relative_position": relative_position,
    "patch_distance": patch_distance,
}
