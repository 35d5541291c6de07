"""The sample-video source: a camera moves over photographs that come with scikit-image, while animated objects appear.

Each clip is rendered from its ref when it is read. Nothing is downloaded or stored.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image, ImageDraw

from ssl4rl_plugin.core import Clip
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.images import ImageError, ImageInfo, open_rgb, shrink
from ssl4rl_plugin.data.source import Record, Source, SourceError
from ssl4rl_plugin.data_builders.sources.sample_photos import PHOTOS, SamplePhotosSource
from ssl4rl_plugin.tasks.image.views import fitted

FRAMES = 64
FPS = 8.0
VERSION = 1
"""Version of the rendering. `read` includes it, so that a manifest notices a change."""

PHOTO_SIDE = 448
"""Longer side, in pixels, to which photographs are shrunk: about twice what a frame shows."""
SHAPES = ((4, 3), (3, 4), (1, 1))
"""Width to height of the frames."""


class SampleVideosSource(Source):
    """Clips of 8 seconds over eight photographs; train and held-out clips show different photographs.

    In each clip the camera glides over a photograph with changing speed and zoom. Two or three irreversible events happen:
    balls fall in, bounce and come to rest, or drop out of the picture one by one; smoke rises, spreads and fades; a stain
    grows; a disc bursts and its pieces fall; bubbles rise and pop. As many objects appear as disappear, so that late frames
    are not fuller than early ones. A ref is `<file>#<seed>-<number>` and determines the clip.

    Args:
        path: None.
        clips: clips of each photograph, 1 to 10,000.
        seed: changes all clips.
        width: pixels along the longer side of the frames, 64 to 336.
    """

    name: ClassVar[str] = "sample_videos"
    kind: ClassVar[str] = "video"
    summary: ClassVar[str] = "clips made from the photographs that come with scikit-image"
    schema: ClassVar[str] = "no files of yours: the pictures are inside the installed scikit-image package"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    licence: ClassVar[str] = SamplePhotosSource.licence
    where: ClassVar[str] = SamplePhotosSource.where

    def __init__(self, path: str | Path | None = None, clips: int = 50, seed: int = 0, width: int = 160) -> None:
        if path is not None:
            raise SourceError(f"source 'sample_videos' takes no path, got {path}; for your own videos use 'video'")
        for name, value, low, high in (
            ("clips", clips, 1, 10_000),
            ("seed", seed, 0, 2**31),
            ("width", width, 64, 336),
        ):
            if type(value) is not int or not low <= value <= high:
                raise SourceError(
                    f"source 'sample_videos': {name} must be a whole number from {low} to {high}, got {value!r}"
                )
        super().__init__(None, clips=clips, seed=seed, width=width)
        self.folder = SamplePhotosSource().folder

    def records(self) -> Iterator[Record]:
        for name in sorted(PHOTOS):
            for number in range(self.options["clips"]):
                ref = f"{name}#{self.options['seed']}-{number}"
                yield Record(ref, split=PHOTOS[name], group=name.partition(".")[0])

    def stamp(self, ref: str) -> tuple[int, int]:
        try:
            status = self._photo(ref).stat()
        except OSError as error:
            raise ImageError("unreadable", str(error)) from error
        return status.st_size, status.st_mtime_ns

    def read(self, ref: str) -> bytes:
        self._photo(ref)
        return f"sample_videos {VERSION} {ref} {self.options['width']}".encode()

    def inspect(self, ref: str, data: bytes, max_source_pixels: int) -> tuple[ImageInfo, Image.Image]:
        """The middle frame. Every clip is usable."""
        image = _Film(self._photo(ref), ref, self.options["width"]).frame(FRAMES // 2)
        return ImageInfo("clip", image.mode, image.width, image.height, 1), image

    def item(self, ref: str, picture: Callable[[], Image.Image], max_pixels: int | None) -> Clip:
        return _clip(self._photo(ref), ref, self.options["width"], max_pixels)

    def _photo(self, ref: str) -> Path:
        name = ref.partition("#")[0]
        if name not in PHOTOS:
            raise SourceError(f"source 'sample_videos': {ref!r} is none of its clips")
        return self.folder / name


@functools.lru_cache(maxsize=8)
def _clip(photo: Path, ref: str, width: int, max_pixels: int | None) -> Clip:
    film = _Film(photo, ref, width)
    return Clip(tuple(shrink(film.frame(k), max_pixels) for k in range(FRAMES)), FPS)


@functools.lru_cache(maxsize=len(PHOTOS))
def _opened(photo: Path) -> Image.Image:
    image = open_rgb(photo)
    return fitted(image, min(PHOTO_SIDE, max(image.size)))


@dataclass(frozen=True)
class _View:
    """The view of the camera: a box in pixels of the photograph."""

    left: float
    upper: float
    width: float
    height: float


class _Film:
    """One clip: camera path and events, both drawn from the ref."""

    def __init__(self, photo: Path, ref: str, width: int) -> None:
        rng = rng_for("sample_videos", VERSION, ref)
        self.photo = _opened(photo)
        across, down = rng.choice(SHAPES)
        scale = width / max(across, down)
        self.size = (round(across * scale), round(down * scale))
        self.bend, self.eases_in = rng.uniform(1.15, 1.8), rng.random() < 0.5
        self.ends = self._camera(rng)
        self.sway = [(rng.uniform(0.003, 0.008), rng.uniform(0.15, 0.4), rng.uniform(0, 6.28)) for _ in range(2)]
        self.things: list[_Thing] = []
        kinds = rng.sample(sorted(_DRAWN), rng.choice((2, 3)))
        for number, kind in enumerate(kinds):
            begins = rng.uniform(0.1, 0.8) + 5.5 * number / len(kinds)  # one after another, over most of the clip
            view = self.view(begins * FPS)
            x, y = view.left + view.width * rng.uniform(0.25, 0.75), view.upper + view.height * rng.uniform(0.3, 0.7)
            colour = tuple(rng.randint(0, 255) for _ in range(3))
            self.things.append(_Thing(kind, begins, x, y, view.height, colour, rng.getrandbits(32)))

    def _camera(self, rng: random.Random) -> tuple[_View, _View]:
        """First and last view, far enough apart that the picture changes throughout."""
        w, h = self.photo.size
        aspect = self.size[0] / self.size[1]
        widest = min(w, h * aspect)
        for _ in range(200):
            views = []
            for _ in range(2):
                width = widest * rng.uniform(0.5, 0.75)
                height = width / aspect
                views.append(
                    _View(rng.uniform(0.02, 0.98) * (w - width), rng.uniform(0.02, 0.98) * (h - height), width, height)
                )
            one, two = views
            moved = math.hypot((one.left - two.left) / one.width, (one.upper - two.upper) / one.height)
            if 0.35 <= moved <= 0.9:
                break
        return one, two  # every photograph has room for such views

    def view(self, k: float) -> _View:
        """The view at frame `k`."""
        t = min(1.0, k / (FRAMES - 1))
        t = t**self.bend if self.eases_in else 1 - (1 - t) ** self.bend
        one, two = self.ends
        left, upper, width, height = (
            a + (b - a) * t for a, b in zip(_numbers(one), _numbers(two), strict=True)
        )  # fmt: skip
        (a, f, p), (b, g, q) = self.sway  # the shake of a hand-held camera
        left += a * width * math.sin(f * k + p)
        upper += b * height * math.sin(g * k + q)
        w, h = self.photo.size
        return _View(min(max(0.0, left), w - width), min(max(0.0, upper), h - height), width, height)

    def frame(self, k: int) -> Image.Image:
        view = self.view(k)
        box = (view.left, view.upper, view.left + view.width, view.upper + view.height)
        image = self.photo.resize(self.size, Image.Resampling.BICUBIC, box=box)
        draw = ImageDraw.Draw(image, "RGBA")  # blends transparent colours
        scale = self.size[0] / view.width
        for thing in self.things:
            for x, y, radius, colour in _DRAWN[thing.kind](thing, k / FPS - thing.begins):
                sx, sy, r = (x - view.left) * scale, (y - view.upper) * scale, radius * scale
                draw.ellipse([sx - r, sy - r, sx + r, sy + r], fill=colour)
        return image


def _numbers(view: _View) -> tuple[float, float, float, float]:
    return view.left, view.upper, view.width, view.height


# Events: a few discs at every moment, (x, y, radius) in pixels of the photograph and a colour with opacity. The age is in
# seconds since the event began, negative before.

_Disc = tuple[float, float, float, tuple[int, ...]]


@dataclass(frozen=True)
class _Thing:
    kind: str
    begins: float
    """Seconds after the clip begins."""
    x: float
    y: float
    unit: float
    """Height of the view at the beginning of the event, in pixels of the photograph."""
    colour: tuple[int, ...]
    seed: int


def _fallen(height: float, age: float, gravity: float = 2.0, kept: float = 0.55) -> float:
    """How far below `height` a ball is `age` seconds after its release: it bounces, lower each time, and comes to rest."""
    speed, above = 0.0, height
    left = age
    for _ in range(6):
        # Time until it hits the ground: above + speed t - gravity t^2 / 2 = 0.
        lands = (speed + math.sqrt(speed * speed + 2 * gravity * above)) / gravity
        if left < lands:
            return height - (above + speed * left - gravity * left * left / 2)
        left -= lands
        speed, above = kept * (gravity * lands - speed), 0.0
    return height


def _balls(thing: _Thing, age: float) -> Iterator[_Disc]:
    rng = random.Random(thing.seed)
    for number in range(3):
        x, radius, begins = rng.uniform(-0.25, 0.25), rng.uniform(0.05, 0.09), 0.5 * number
        ground = 0.25 - radius
        if age >= begins:
            top = -0.75
            y = top + _fallen(ground - top, age - begins)
            yield thing.x + x * thing.unit, thing.y + y * thing.unit, radius * thing.unit, (*thing.colour, 255)


def _smoke(thing: _Thing, age: float) -> Iterator[_Disc]:
    rng = random.Random(thing.seed)
    drift = rng.uniform(-0.12, 0.12)
    for number in range(8):
        born, wobble = 0.3 * number, rng.uniform(-0.04, 0.04)
        old = age - born
        if 0 <= old < 3.5:
            x, y = (drift + wobble) * old, -0.16 * old
            opacity = round(170 * (1 - old / 3.5))
            yield thing.x + x * thing.unit, thing.y + (0.2 + y) * thing.unit, (0.04 + 0.05 * old) * thing.unit, (
                225, 225, 230, opacity
            )  # fmt: skip


def _stain(thing: _Thing, age: float) -> Iterator[_Disc]:
    rng = random.Random(thing.seed)
    grown = 1 - math.exp(-max(0.0, age))
    for _ in range(6 if age > 0 else 0):
        turn, far, radius = rng.uniform(0, 6.28), rng.uniform(0, 0.16), rng.uniform(0.07, 0.12)
        x, y = far * math.cos(turn) * grown, far * math.sin(turn) * grown
        yield thing.x + x * thing.unit, thing.y + y * thing.unit, radius * grown * thing.unit, (*thing.colour, 255)


def _drops(thing: _Thing, age: float) -> Iterator[_Disc]:
    rng = random.Random(thing.seed)
    for number in range(4):
        x, y, radius = rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2), rng.uniform(0.05, 0.09)
        falling = max(0.0, age - 0.5 * number)
        if falling < 2.0:
            y += falling * falling
            yield thing.x + x * thing.unit, thing.y + y * thing.unit, radius * thing.unit, (*thing.colour, 255)


def _bubbles(thing: _Thing, age: float) -> Iterator[_Disc]:
    rng = random.Random(thing.seed)
    for _ in range(7):
        x, y, radius, pops = rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), rng.uniform(0.04, 0.08), rng.uniform(0, 3)
        if age < pops:
            y -= 0.03 * (age - pops)  # it is at (x, y) when it pops
            yield thing.x + x * thing.unit, thing.y + y * thing.unit, radius * thing.unit, (*thing.colour, 150)


def _burst(thing: _Thing, age: float) -> Iterator[_Disc]:
    rng = random.Random(thing.seed)
    if age < 0.5:  # whole until then
        yield thing.x, thing.y, 0.11 * thing.unit, (*thing.colour, 255)
        return
    old = age - 0.5
    for _ in range(9):
        vx, vy, radius, ground = rng.uniform(-0.5, 0.5), rng.uniform(-0.8, 0.1), rng.uniform(0.02, 0.045), 0.3
        lands = vy + math.sqrt(vy * vy + 2 * ground)  # where -vy t + ... meets the ground at gravity 1
        flown = min(old, lands)
        x, y = vx * flown, vy * flown + flown * flown / 2
        yield thing.x + x * thing.unit, thing.y + min(ground, y) * thing.unit, radius * thing.unit, (*thing.colour, 255)


_DRAWN: dict[str, Callable[[_Thing, float], Iterator[_Disc]]] = {
    "balls": _balls,
    "bubbles": _bubbles,
    "burst": _burst,
    "drops": _drops,
    "smoke": _smoke,
    "stain": _stain,
}
