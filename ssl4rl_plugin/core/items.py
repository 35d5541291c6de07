"""Items: what a source holds and a task starts from. Data only, frozen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from ssl4rl_plugin.core.graph import GraphNode

KINDS = ("image", "rgbd", "video", "graph")
"""What an item can be; every RGB-D pair and every video can stand in for an image."""


LITTLE = 96
"""Pixels along the shorter side of `Item.little`, at least."""


@dataclass(frozen=True)
class RGBD:
    """A picture and how far away each of its pixels is."""

    image: Image.Image
    """RGB, upright."""
    depth: np.ndarray
    """Distance from the camera plane in metres: float32 of shape (height, width) of the picture; NaN where unknown."""


@dataclass(frozen=True)
class Clip:
    """A piece of a video: frames at equal distances in time."""

    frames: tuple[Image.Image, ...]
    """RGB, upright, all of one size, in order of time."""
    fps: float
    """Frames per second of the video that lie in `frames`: frame k was filmed k / fps seconds after the first."""


@dataclass(frozen=True)
class Item:
    """One raw, unlabelled thing from a source."""

    id: str
    """Stable identity inside its source; part of the seed of every sample made from it."""
    data: Image.Image | RGBD | Clip | GraphNode
    """The thing itself: a picture in RGB, upright; or an RGB-D pair; or the frames of a video; or a node of a graph."""
    group: str = ""
    """Items that show the same thing share a group, and a group never straddles two splits."""
    others: tuple[Item, ...] = ()
    """Items of other groups, as many as the task asks for with `Task.others_needed`."""

    @property
    def image(self) -> Image.Image:
        """The item's picture (RGB, upright, any size); of an RGB-D pair its picture, of a video its middle frame."""
        if isinstance(self.data, RGBD):
            return self.data.image
        if isinstance(self.data, Clip):
            return self.data.frames[len(self.data.frames) // 2]
        if not isinstance(self.data, Image.Image):
            raise TypeError(f"item {self.id!r} holds a {type(self.data).__name__}, not a picture")
        return self.data

    @cached_property
    def little(self) -> Image.Image:
        """The picture averaged down by a whole factor, to between LITTLE and twice as many pixels along its shorter side
        if it has more: for checks, however many draws are checked."""
        return self.image.reduce(max(1, min(self.image.size) // LITTLE))

    @property
    def rgbd(self) -> RGBD:
        """The item's picture with its depth. Raises TypeError for an item of another kind."""
        if not isinstance(self.data, RGBD):
            raise TypeError(f"item {self.id!r} holds a {type(self.data).__name__}, not a picture with depth")
        return self.data

    @property
    def clip(self) -> Clip:
        """The frames of the item's video. Raises TypeError for an item of another kind."""
        if not isinstance(self.data, Clip):
            raise TypeError(f"item {self.id!r} holds a {type(self.data).__name__}, not a video")
        return self.data

    @property
    def graph(self) -> GraphNode:
        """A node, with the graph that it is in. Raises TypeError for an item of another kind."""
        if not isinstance(self.data, GraphNode):
            raise TypeError(f"item {self.id!r} holds a {type(self.data).__name__}, not a node of a graph")
        return self.data
