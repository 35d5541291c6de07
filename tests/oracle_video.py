"""Oracles for the video tasks: each solves its task from the frames shown and the level alone.

There is none for `arrow_of_time`, which asks what can happen in the world, and none for `playback_speed:single`, which
asks how fast things usually move.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import Sample
from ssl4rl_plugin.grading import letters
from ssl4rl_plugin.tasks.video.anomaly_grounding import CHANGES, REVERSE
from ssl4rl_plugin.tasks.video.clips import distances, probes
from ssl4rl_plugin.tasks.video.video_counting import KINDS, shape


def temporal_jigsaw(sample: Sample, level: Any) -> list[str]:
    """The order in which the steps from each clip's end to the next one's beginning are smallest in all."""
    firsts = probes([clip.frames[0] for clip in sample.videos], 16)
    lasts = probes([clip.frames[-1] for clip in sample.videos], 16)
    step = distances(lasts, firsts)
    count = len(firsts)
    # best[seen, last]: cost and path of the cheapest way through the clips in the set `seen` that ends with `last`.
    best = {(1 << k, k): (0.0, (k,)) for k in range(count)}
    for size in range(2, count + 1):
        for chosen in itertools.combinations(range(count), size):
            seen = sum(1 << k for k in chosen)
            for last in chosen:
                rest = seen & ~(1 << last)
                ways = (best[rest, k] for k in chosen if k != last)
                best[seen, last] = min((cost + step[path[-1], last], (*path, last)) for cost, path in ways)
    whole = (1 << count) - 1
    return [letters(count)[k] for k in min(best[whole, last] for last in range(count))[1]]


def playback_speed(sample: Sample, level: Any) -> str | None:
    """The speed and delay at which every frame that both clips must share is the same in both."""
    if not level.reference:
        return None
    known, asked = ([frame.tobytes() for frame in clip.frames] for clip in sample.videos)
    for name, speed in zip(level.names, level.factors, strict=True):
        for delay in range(1, level.later + 1) if level.later else (0,):
            places = [(k, delay + k * speed) for k in range(len(asked))]
            shared = [(k, int(place)) for k, place in places if place == int(place) and place < len(known)]
            if all(asked[k] == known[place] for k, place in shared):
                return str(name)
    return None


def anomaly_grounding(sample: Sample, level: Any) -> list[int] | None:
    """The change and the run that explain every step: from frame to frame little changes, and across the run's ends
    little but that change."""
    frames = sample.videos[0].frames
    count = len(frames)
    side = 24
    small = probes(frames, side)
    plain = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3))
    # What takes away detail or colour, or adds noise, is not undone by doing it again: such runs show as a step in a figure.
    detail = np.array([np.log(_detail(frame)) for frame in frames])
    colour = np.log(0.002 + np.ptp(small, axis=3).mean(axis=(1, 2)))
    steps = [(0.1, (0, 0))]
    for kind, figure, sign in (("blur", detail, -1), ("noise", detail, 1), ("gray", colour, -1)):
        rises = sign * np.diff(figure)
        for first, last in runs(count, level) if kind in level.kinds else []:
            ends = [rises[first - 1]] if first > 0 else []
            ends += [-rises[last]] if last + 1 < count else []
            others = np.delete(np.abs(rises), [k for k in (first - 1, last) if 0 <= k < count - 1])
            steps.append((float(min(ends) - others.max()), (first, last)))
    if max(steps)[0] > 0.1:
        first, last = max(steps)[1]
        return [first + 1, last + 1]
    found = []
    for kind in level.kinds:
        if kind == REVERSE:
            between = distances(small)
            for first, last in runs(count, level):
                order = [*range(first), *range(last, first - 1, -1), *range(last + 1, count)]
                found.append((sum(between[a, b] for a, b in itertools.pairwise(order)), (first, last)))
            continue
        if kind in ("blur", "noise", "gray"):
            continue
        change = CHANGES[kind]
        altered = probes([change(frame, random.Random(0)) for frame in frames], side)
        for first, last in runs(count, level):
            cost = plain.sum()
            if first > 0:
                cost += np.abs(altered[first - 1] - small[first]).mean() - plain[first - 1]
            if last + 1 < count:
                cost += np.abs(small[last] - altered[last + 1]).mean() - plain[last]
            found.append((cost, (first, last)))
    first, last = min(found)[1]
    return [first + 1, last + 1]


def runs(count: int, level: Any) -> list[tuple[int, int]]:
    lengths = range(level.shortest, level.longest + 1)
    return [(first, first + length - 1) for length in lengths for first in range(count - length + 1)]


def _detail(frame: Image.Image) -> float:
    luma = np.asarray(frame.convert("L"), float)
    return float(np.abs(luma[1:-1, 1:-1] * 2 - luma[1:-1, :-2] - luma[1:-1, 2:]).mean()) + 0.1


def inserted_frame(sample: Sample, level: Any) -> str:
    """The frame whose nearest neighbour, among two on each side, is farthest away."""
    between = distances(probes(sample.videos[0].frames, 8))
    count = len(between)
    odd = [min(between[k, j] for j in range(max(0, k - 2), min(count, k + 3)) if j != k) for k in range(count)]
    return str(int(np.argmax(odd)) + 1)


def video_counting(sample: Sample, level: Any) -> list[int]:
    """Every frame is searched for the black and white edges of the three shapes; runs of frames with one count once."""
    sort = [_shape_in(frame) for frame in sample.videos[0].frames]
    seen = [kind for kind, _ in itertools.groupby(sort) if kind is not None]
    asked = sample.question.split("How many times does ")[1].split(" appear")[0]
    kinds = sorted((kind for kind in KINDS if kind in asked), key=asked.index)
    return [min(level.high, max(level.low, seen.count(kind))) for kind in kinds]


EDGE_MATCHES = 58.0
"""Root of the mean squared difference to a black and white edge, in levels of 255, below which a shape is there."""


def _shape_in(frame: Image.Image) -> str | None:
    luma = np.asarray(frame.convert("L"), np.float32)
    spectra = np.fft.rfft2(luma), np.fft.rfft2(luma**2)
    best: dict[str, float] = {}
    for kind, size, mask, weighted, constant in _templates(frame.size):
        squares = np.fft.irfft2(spectra[1] * mask - 2 * spectra[0] * weighted, luma.shape) + constant
        rows, cols = luma.shape[0] - size + 1, luma.shape[1] - size + 1
        best[kind] = min(best.get(kind, 1e9), float(squares[:rows, :cols].min()))
    kind = min(best, key=lambda name: best[name])
    return kind if max(0.0, best[kind]) ** 0.5 < EDGE_MATCHES else None


@functools.lru_cache(maxsize=32)
def _templates(size: tuple[int, int]) -> list[tuple[str, int, np.ndarray, np.ndarray, float]]:
    """For every shape and size: the (conjugate) spectra of its edge's weight, and of weight times value."""
    width, height = size
    short = min(size)
    found = []
    for kind in KINDS:
        for side in range(round(short * 0.3), round(short * 0.4) + 1):
            # Drawn in a colour that is neither black nor white, so that the edge is what is left.
            stamp = np.asarray(shape(kind, side, (255, 0, 255)), np.float32)
            colourless = (np.ptp(stamp[..., :3], axis=2) < 40) & (stamp[..., 3] > 250)
            value = stamp[..., 0]
            weight = (colourless & ((value < 30) | (value > 225))).astype(np.float32)
            # Black and white count the same, however many pixels each has.
            for part in (value < 30, value > 225):
                weight[part] /= max(1.0, 2 * weight[part].sum())
            padded, values = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
            padded[:side, :side], values[:side, :side] = weight, weight * value
            constant = float((weight * value**2).sum())
            found.append((kind, side, np.conj(np.fft.rfft2(padded)), np.conj(np.fft.rfft2(values)), constant))
    return found


def next_clip(sample: Sample, level: Any) -> str:
    """The option that begins with what looks most like a step on from the end of the first clip."""
    before, *options = sample.videos
    end = probes(before.frames[-1:], 16)
    step = distances(end, probes([option.frames[0] for option in options], 16))[0]
    return letters(len(options))[int(step.argmin())]


ORACLES: dict[str, Callable[[Sample, Any], Any]] = {
    "temporal_jigsaw": temporal_jigsaw,
    "playback_speed": playback_speed,
    "anomaly_grounding": anomaly_grounding,
    "inserted_frame": inserted_frame,
    "video_counting": video_counting,
    "next_clip": next_clip,
}
