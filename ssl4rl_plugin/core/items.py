"""Items: the unlabelled data that a source yields and a task turns into samples. Frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from ssl4rl_plugin.core.graph import GraphNode

KINDS = ("image", "rgbd", "video", "graph")
"""The kinds of items. Tasks on images also accept RGB-D pairs and videos; see `Item.image`."""

LITTLE = 96
"""Least pixels along the shorter side of `Item.little`."""


@dataclass(frozen=True)
class RGBD:
    """An image with its depth map."""

    image: Image.Image
    """RGB, upright."""
    depth: np.ndarray
    """Distance from the camera plane in metres, float32 of shape (height, width) of the image; NaN where unknown."""


@dataclass(frozen=True)
class Clip:
    """A part of a video: frames at equal intervals in time."""

    frames: tuple[Image.Image, ...]
    """RGB, upright, all of one size, in order of time."""
    fps: float
    """Entries of `frames` per second of video: frame k was filmed k / fps seconds after the first one."""


@dataclass(frozen=True)
class Item:
    """One raw, unlabelled thing from a source."""

    id: str
    """Stable identity within its source; part of the seed of every sample made from it."""
    data: Image.Image | RGBD | Clip | GraphNode
    """An upright RGB image, an RGB-D pair, the frames of a video, or a node of a graph."""
    group: str = ""
    """Items that show the same thing share a group. All items of a group are in one split."""
    others: tuple[Item, ...] = ()
    """Items of other groups, as many as `Task.others_needed`."""

    @property
    def image(self) -> Image.Image:
        """The image, or that of an RGB-D pair, or the middle frame of a video; RGB, upright, any size.

        Raises TypeError for a node of a graph.
        """
        if isinstance(self.data, RGBD):
            return self.data.image
        if isinstance(self.data, Clip):
            return self.data.frames[len(self.data.frames) // 2]
        if not isinstance(self.data, Image.Image):
            raise TypeError(f"item {self.id!r} holds a {type(self.data).__name__}, not a picture")
        return self.data

    @cached_property
    def little(self) -> Image.Image:
        """A small copy for checks: box-averaged by an integer factor to LITTLE to 2 * LITTLE pixels along the shorter
        side, if it has more. Cached."""
        return self.image.reduce(max(1, min(self.image.size) // LITTLE))

    @property
    def rgbd(self) -> RGBD:
        """The image with its depth. Raises TypeError for an item of another kind."""
        if not isinstance(self.data, RGBD):
            raise TypeError(f"item {self.id!r} holds a {type(self.data).__name__}, not a picture with depth")
        return self.data

    @property
    def clip(self) -> Clip:
        """The frames of the video. Raises TypeError for an item of another kind."""
        if not isinstance(self.data, Clip):
            raise TypeError(f"item {self.id!r} holds a {type(self.data).__name__}, not a video")
        return self.data

    @property
    def graph(self) -> GraphNode:
        """The node and its graph. Raises TypeError for an item of another kind."""
        if not isinstance(self.data, GraphNode):
            raise TypeError(f"item {self.id!r} holds a {type(self.data).__name__}, not a node of a graph")
        return self.data
