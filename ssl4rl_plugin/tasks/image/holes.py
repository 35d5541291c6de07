"""Squares of a photo with a hole in the middle, for `inpainting` and `cropped_patch`.

Each candidate is the middle of a frame: a square part of the photo, perhaps turned. All frames are rendered in the same
way, and the frame that is shown, with its middle gray, is drawn last. So the true candidate is as likely as any other to
be the sharpest, the upright or the most central one; only the picture around the hole reveals it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageFilter

from ssl4rl_plugin.data.images import PixelBox
from ssl4rl_plugin.tasks.image.views import resized

HOLE_GRAY = 128
"""Value of all three channels of the hole."""
MARGIN = 0.08
"""Share of the hole's side that is cut off at each side of a candidate, so that seams do not match pixel by pixel."""
BLUR = 0.7
"""Standard deviation, in pixels of the smallest frame, of the blur that equalises the sharpness of different zooms."""


@dataclass(frozen=True)
class Frame:
    """A square part of a photo."""

    x: float
    """Horizontal position of its centre, in pixels of the photo."""
    y: float
    """Vertical position of its centre, in pixels of the photo."""
    side: float
    """Its side, in pixels of the photo."""
    turn: int = 0
    """Counter-clockwise rotation in degrees, a multiple of 90."""

    def box(self) -> PixelBox:
        """The pixels of the photo that it covers."""
        side = round(self.side)
        left, upper = round(self.x - side / 2), round(self.y - side / 2)
        return left, upper, left + side, upper + side

    def inside(self, width: int, height: int) -> bool:
        """Whether it lies inside a photo of the given size."""
        left, upper, right, lower = self.box()
        return left >= 0 and upper >= 0 and right <= width and lower <= height


def cuts(photo: Image.Image, frames: Sequence[Frame]) -> list[Image.Image]:
    """The contents of the frames, all at the size and with the sharpness of the smallest one."""
    shown = [photo.crop(frame.box()) for frame in frames]
    smallest = min(cut.width for cut in shown)
    if any(cut.width > smallest for cut in shown):
        shown = [resized(cut, (smallest, smallest)).filter(ImageFilter.GaussianBlur(BLUR)) for cut in shown]
    return [cut.rotate(frame.turn) for cut, frame in zip(shown, frames, strict=True)]


def hole_edges(side: int, share: float) -> tuple[int, int]:
    """Distances in pixels from each edge of a picture to the hole, and to the part of the hole that candidates show.

    The hole is a square in the middle; its side is `share` of the picture's.
    """
    edge = round(side * (1 - share) / 2)
    return edge, edge + max(1, round(MARGIN * (side - 2 * edge)))


def with_hole(cut: Image.Image, side: int, share: float) -> Image.Image:
    """The picture of a frame at `side` pixels, with the hole in flat gray."""
    edge, _ = hole_edges(side, share)
    shown = resized(cut, (side, side))
    shown.paste((HOLE_GRAY,) * 3, (edge, edge, side - edge, side - edge))
    return shown


def candidate(cut: Image.Image, side: int, share: float) -> Image.Image:
    """The middle of a frame, at the scale of the picture of `side` pixels."""
    _, inner = hole_edges(side, share)
    scale, size = cut.width / side, side - 2 * inner
    box = (inner * scale, inner * scale, (side - inner) * scale, (side - inner) * scale)
    return cut.resize((size, size), Image.Resampling.BICUBIC, box, reducing_gap=3.0)
