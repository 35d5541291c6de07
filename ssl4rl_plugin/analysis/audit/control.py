"""Pictures without content. A guesser that beats chance on them uses traces of the processing.

A picture is noise with a 1/f spectrum, as in photographs, but isotropic and stationary: no sky, no ground, no up and down.
Colours are mixed at random. Depth is a smooth noise field, independent of the picture. A video drifts and changes at
random, with no direction of time. All pictures are JPEG-compressed once, as photographs are, so that a task which treats
the blocks of the right answer differently is found.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from ssl4rl_plugin.core import RGBD, Clip, GraphNode
from ssl4rl_plugin.core.graph import RawGraph, TextGraph, Texts
from ssl4rl_plugin.core.seeding import digest
from ssl4rl_plugin.graphs.divide import divide

SIZES = ((500, 375), (375, 500), (400, 400), (480, 320), (640, 427), (427, 640))
"""(width, height) of the pictures, in turn; typical of small photographs."""
VIDEO_SIZE = (192, 144)
VIDEO_FRAMES = 96
VIDEO_FPS = 8.0
GRAPH_NODES, GRAPH_LINKS = 160, 5
"""Nodes of the graph without content, and edges per node."""
QUALITY = 90
"""JPEG quality of the pictures."""

_TORUS = 640
_VIDEO_TORUS = 216


def control_data(kind: str, number: int) -> Image.Image | RGBD | Clip | GraphNode:
    """Content-free item `number` of a kind (one of `core.KINDS`); the same on every machine.

    For graphs, the items are nodes of one random graph with uniform edges, random relations and random words as texts.
    """
    if kind == "graph":
        return GraphNode(_graph(), number % GRAPH_NODES, "train")
    seed = int.from_bytes(digest("audit control", kind, number)[:8], "big")
    rng = np.random.Generator(np.random.PCG64(seed))
    if kind == "video":
        return _video(rng)
    width, height = SIZES[number % len(SIZES)]
    image = _compressed(_picture(rng, width, height))
    if kind == "image":
        return image
    smooth = _field(rng, _TORUS, 3.0, 1)[0, :height, :width]
    smooth = smooth / max(float(smooth.std()), 1e-6)
    return RGBD(image, np.exp(0.5 * smooth + np.log(3.0)).astype(np.float32))


@lru_cache(maxsize=1)
def _graph() -> TextGraph:
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest("audit control", "graph")[:8], "big")))
    ends = rng.integers(0, GRAPH_NODES, (2, GRAPH_NODES * GRAPH_LINKS))
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), int(rng.integers(4, 9)))) for _ in range(400)]
    texts = [" ".join(rng.choice(words, int(rng.integers(3, 12)))) for _ in range(GRAPH_NODES)]
    names = tuple(f"relation {letter}" for letter in "abcd")
    kinds = np.asarray(rng.integers(0, len(names), ends.shape[1]), np.int32)
    return divide(
        RawGraph("control", ends[0], ends[1], Texts.of(texts), directed=True, relations=kinds, relation_names=names),
        val_fraction=0.0,
        test_fraction=0.0,
    )


def _picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    planes = _field(rng, _TORUS, 1.0, 3)[:, :height, :width]
    return _coloured(planes / planes.std(axis=(1, 2), keepdims=True), *_palette(rng))


def _field(rng: np.random.Generator, side: int, power: float, planes: int) -> np.ndarray:
    """Isotropic periodic Gaussian fields of shape (planes, side, side) with amplitude f ** -power."""
    weight = _weight(side, power)
    noise = rng.standard_normal((planes, side, side), dtype=np.float32)
    return np.fft.irfft2(np.fft.rfft2(noise) * weight, s=(side, side)).astype(np.float32)


@lru_cache(maxsize=8)
def _weight(side: int, power: float) -> np.ndarray:
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    # Cut to a circle: the corners of the frequency square would reveal how a picture was turned. Waves longer than half
    # the side are left out too: a picture shows only part of one, e.g. as a brighter top.
    inside = (f < 0.48) & (f > 2.0 / side)
    return np.where(inside, np.maximum(f, 1e-6) ** -power, 0.0).astype(np.float32)


def _palette(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mixing matrix of three fields into three channels, and the mean colour."""
    mixture = np.eye(3) * 0.2 + 0.8 * np.ones((3, 3)) / np.sqrt(3) + 0.35 * rng.standard_normal((3, 3))
    return (mixture * rng.uniform(25, 50)).astype(np.float32), rng.uniform(85, 170, 3).astype(np.float32)


def _coloured(planes: np.ndarray, mixture: np.ndarray, mean: np.ndarray) -> Image.Image:
    pixels = np.einsum("cp,phw->hwc", mixture, planes) + mean
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _compressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    buffer.seek(0)
    return Image.frombytes("RGB", image.size, Image.open(buffer).convert("RGB").tobytes())


def _video(rng: np.random.Generator) -> Clip:
    """Every wave of the first field turns at its own speed, forwards or backwards, so there is no common direction."""
    side, (width, height) = _VIDEO_TORUS, VIDEO_SIZE
    still = _field(rng, side, 1.0, 3)[:, :height, :width]
    still /= still.std(axis=(1, 2), keepdims=True)
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32)) * _weight(side, 1.2)
    angle = rng.normal(0.0, rng.uniform(0.05, 0.3), spectrum.shape)
    # In a real field, opposite waves turn in opposite directions. The spectrum stores both only in its first column; with
    # independent angles these would fade over time, which is an arrow of time.
    angle[0, 0] = 0.0
    angle[1:, 0] = (angle[1:, 0] - angle[:0:-1, 0]) / np.sqrt(2)
    turn = np.exp(1j * angle).astype(np.complex64)
    mixture, mean = _palette(rng)
    frames: list[Image.Image] = []
    for _ in range(VIDEO_FRAMES):
        whole = np.fft.irfft2(spectrum, s=(side, side)).astype(np.float32)
        moving = whole[:height, :width] / max(float(whole.std()), 1e-6)
        spectrum = spectrum * turn
        planes = np.stack([1.2 * moving, 0.5 * still[1] + 0.3 * moving, 0.5 * still[2]])
        frames.append(_compressed(_coloured(planes, mixture, mean)))
    return Clip(tuple(frames), VIDEO_FPS)
