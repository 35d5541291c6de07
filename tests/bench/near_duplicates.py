"""How many copies of photographs land in the group of their original, and how many photographs in that of another one.

    python tests/bench/near_duplicates.py PHOTOS [--million 1000000]

Every kind of copy is made once of every photograph, with its parameters drawn from the file's name. The correlations
that ssl4rl_plugin/data/near_duplicates.py asks of a copy were set on the `chosen` half of 700 photographs, without the
`other` half. The rest of the method was developed with both in view. Times are processor time, as other work may run beside.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import math
import random
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ssl4rl_plugin.analysis.statistics import wilson
from ssl4rl_plugin.data.images import ImageError, contrast, open_rgb
from ssl4rl_plugin.data.near_duplicates import SIDE, SIGNATURE_BYTES, UnionFind, matches, near_duplicates, signature

Copy = Callable[[Image.Image, random.Random], Image.Image]


def encoded(image: Image.Image, form: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return open_rgb(buffer.getvalue())


def cropped(image: Image.Image, most: float, rng: random.Random) -> Image.Image:
    """Every side trimmed by its own share of the picture, 0 to `most`."""
    left, upper, right, lower = (rng.uniform(0, most) for _ in range(4))
    width, height = image.size
    return image.crop(
        (round(left * width), round(upper * height), round(width * (1 - right)), round(height * (1 - lower)))
    )


def scaled(image: Image.Image, rng: random.Random, aspect: float = 0.0) -> Image.Image:
    """0.3 to 2 times the size, one side by up to the share `aspect` more or less than the other."""
    factor = math.exp(rng.uniform(math.log(0.3), math.log(2)))
    size = round(image.width * factor), round(image.height * factor * rng.uniform(1 - aspect, 1 + aspect))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def brighter(image: Image.Image, rng: random.Random) -> Image.Image:
    gamma, factor = rng.uniform(0.7, 1.4), rng.uniform(0.8, 1.2)
    return image.point([min(255, round(255 * factor * (level / 255) ** gamma)) for level in range(256)] * 3)


def all_at_once(most: float) -> Copy:
    return lambda image, rng: encoded(scaled(cropped(image, most, rng), rng, 0.05), "JPEG", quality=rng.randint(30, 95))


REQUIRED: dict[str, Copy] = {
    "JPEG, quality 30 to 95": lambda image, rng: encoded(image, "JPEG", quality=rng.randint(30, 95)),
    "WebP, quality 30 to 95": lambda image, rng: encoded(image, "WEBP", quality=rng.randint(30, 95)),
    "PNG of 256 colours": lambda image, rng: encoded(image.quantize(256), "PNG"),
    "resize, 0.3x to 2x": scaled,
    "resize, sides by 5 % unlike": lambda image, rng: scaled(image, rng, 0.05),
    "crop, 0 to 5 % of each side": lambda image, rng: cropped(image, 0.05, rng),
    "crop 5 %, resize, JPEG": all_at_once(0.05),
}
FURTHER: dict[str, Copy] = {
    "crop, 0 to 10 % of each side": lambda image, rng: cropped(image, 0.1, rng),
    "crop 10 %, resize, JPEG": all_at_once(0.1),
    "gray": lambda image, rng: image.convert("L").convert("RGB"),
    "gamma 0.7 to 1.4, light ± 20 %": brighter,
    "mirrored (another picture)": lambda image, rng: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 90° (another picture)": lambda image, rng: image.transpose(Image.Transpose.ROTATE_90),
}


def small(image: Image.Image) -> Image.Image:
    """What the manifest computes its figures from."""
    return image.reduce(max(1, math.isqrt(image.width * image.height // 65536)))


def signatures(images: Iterable[Image.Image]) -> np.ndarray:
    return np.frombuffer(b"".join(signature(image) for image in images), np.uint8).reshape(-1, SIGNATURE_BYTES)


def grouped(table: np.ndarray, photos: int) -> tuple[np.ndarray, set[int]]:
    """Of a table of `photos` originals and then a copy of each, again and again: which rows are in the group of their
    original, and which photos are in a group with another one."""
    together = UnionFind(len(table))
    for i, j in near_duplicates(table):
        together.unite(i, j)
    root = np.array([together.find(i) for i in range(len(table))])
    shown = defaultdict(set)
    for i, r in enumerate(root.tolist()):
        shown[r].add(i % photos)
    return root == np.tile(root[:photos], len(table) // photos), {
        photo for several in shown.values() if len(several) > 1 for photo in several
    }


def share(found: np.ndarray) -> str:
    measured = wilson(int(found.sum()), len(found))
    return f"{measured.mean:7.2%} [{measured.low:.3f}, {measured.high:.3f}]"


def recall(folder: Path) -> None:
    paths, photos = [], []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            photos.append(open_rgb(path))
            paths.append(path)
        except ImageError as error:
            print(f"{path.name}: {error}")
    n = len(paths)
    chosen = np.array([hashlib.sha256(path.name.encode()).digest()[0] % 2 == 0 for path in paths])
    shrunk = [small(photo) for photo in photos]
    start = time.process_time()
    originals = signatures(shrunk)
    signing = (time.process_time() - start) / n
    print(f"{n} photos, {chosen.sum()} of them in the chosen half; 95 % Wilson intervals\n")
    print(f"{'copy':32} {'all: same group':>23} {'chosen':>8} {'other':>8} {'merged':>7} {'matched':>8}")
    tables = [originals]
    for name, make in (REQUIRED | FURTHER).items():
        copies = [
            small(make(photo, random.Random(f"{path.name} {name}"))) for photo, path in zip(photos, paths, strict=True)
        ]
        table = signatures(copies)
        if name in REQUIRED:
            tables.append(table)
        same, merged = grouped(np.concatenate([originals, table]), n)
        same = same[n:]
        matched = sum(i == j for i, j in matches(table, originals))
        print(
            f"{name:32} {share(same)} {same[chosen].mean():8.2%} {same[~chosen].mean():8.2%} {len(merged) / n:7.2%} "
            f"{matched / n:8.2%}",
            flush=True,
        )
    one, other = (
        signatures(
            small(cropped(photo, 0.05, random.Random(f"{path.name} {side}")))
            for photo, path in zip(photos, paths, strict=True)
        )
        for side in "ab"
    )
    same, merged = grouped(np.concatenate([one, other]), n)
    print(
        f"{'two crops 5 %, no original':32} {share(same[n:])} {same[n:][chosen].mean():8.2%} "
        f"{same[n:][~chosen].mean():8.2%} {len(merged) / n:7.2%}"
    )
    same, merged = grouped(np.concatenate(tables), n)
    print(
        f"\noriginals and the first {len(REQUIRED)} kinds in one table of {len(same)}: {share(same[n:])} in the right "
    )
    print(f"group; {len(merged)} photos in one with another photo: {len(merged) / n:.2%}")
    for photo in sorted(merged):
        print(f"    {paths[photo].name}")
    print(f"\nper picture: signature {signing * 1e3:.2f} ms")
    tiles = [small(tile) for photo in photos for tile in cut(photo, 4)]
    tiles = [tile for tile in tiles if contrast(tile) >= 0.04]
    _, merged = grouped(signatures(tiles), len(tiles))
    print(f"{len(tiles)} sixteenths of the photos that are not plain: {len(merged)} in a group with another")


def cut(image: Image.Image, parts: int) -> list[Image.Image]:
    wide, high = image.width // parts, image.height // parts
    corners = [(x * wide, y * high) for y in range(parts) for x in range(parts)]
    return [image.crop((x, y, x + wide, y + high)) for x, y in corners]


def many(folder: Path, count: int) -> None:
    """Time and memory of `count` signatures: means of three photographs each, in any of eight orientations, every
    fiftieth of them a copy of another one with noise of one level."""
    real = signatures(small(open_rgb(path)) for path in sorted(folder.iterdir()) if path.is_file())
    turned = np.concatenate([oriented(real, number) for number in range(8)])
    rng = np.random.default_rng(0)
    table = np.empty((count, SIGNATURE_BYTES), np.uint8)
    for block in np.array_split(np.arange(count), max(1, count // 50_000)):
        table[block] = sum(turned[rng.integers(0, len(turned), len(block))].astype(np.uint16) for _ in range(3)) // 3
    copies = np.arange(count - count // 50, count)
    copied = rng.integers(0, copies[0], len(copies))
    for copy, original in zip(copies, copied, strict=True):
        table[copy] = np.clip(table[original] + np.rint(rng.normal(0, 1, SIGNATURE_BYTES)), 0, 255)
    start = time.process_time()
    found, right = UnionFind(count), UnionFind(count)
    for copy, original in zip(copies.tolist(), copied.tolist(), strict=True):
        right.unite(copy, original)
    wrong = 0
    for i, j in near_duplicates(table):
        found.unite(i, j)
        wrong += right.find(i) != right.find(j)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    hits = np.array([found.find(i) == found.find(j) for i, j in zip(copies.tolist(), copied.tolist(), strict=True)])
    print(
        f"\n{count} mixed signatures: {seconds:.0f} s ({seconds / count * 1e3:.2f} ms each), {peak:.2f} GiB with the "
        f"{table.nbytes / 2**30:.2f} GiB of the table; {share(hits)} of {len(copies)} copies found, {wrong} wrong pairs"
    )


def oriented(table: np.ndarray, number: int) -> np.ndarray:
    """The signatures of the pictures turned by 90° times `number`, and mirrored before from 4 on."""
    planes = np.split(table, [SIDE**2], axis=1)
    shapes = ((-1, 1, SIDE, SIDE), (-1, 2, *[math.isqrt(planes[1].shape[1] // 2)] * 2))
    pictures = [plane.reshape(shape) for plane, shape in zip(planes, shapes, strict=True)]
    turned = [np.rot90(p[..., ::-1] if number >= 4 else p, number % 4, axes=(2, 3)) for p in pictures]
    return np.concatenate([p.reshape(len(table), -1) for p in turned], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("--million", type=int, default=1_000_000, help="signatures for the measurement of time")
    given = parser.parse_args()
    recall(given.photos)
    if given.million:
        many(given.photos, given.million)


if __name__ == "__main__":
    main()
