"""Near-duplicates: copies of one picture are found, different ones are kept apart, and all pairs are never compared."""

import io
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pictures import photo
from PIL import Image, ImageDraw

from ssl4rl_plugin.data import near_duplicates as module
from ssl4rl_plugin.data.near_duplicates import (
    SIGNATURE_BYTES,
    UnionFind,
    column_type,
    matches,
    near_duplicates,
    signature,
    unpack,
)

SCIKIT_PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg")


def encoded(image: Image.Image, form: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return Image.open(buffer).convert("RGB")


def cropped(image: Image.Image, *loss: float) -> Image.Image:
    """Without these shares at the left, the top, the right and the bottom."""
    width, height = image.size
    left, upper, right, lower = loss
    return image.crop((round(left * width), round(upper * height), round(width - right * width),
                       round(height - lower * height)))  # fmt: skip


def scaled(image: Image.Image, wide: float, high: float) -> Image.Image:
    size = round(image.width * wide), round(image.height * high)
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


COPIES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "jpeg": lambda image, rng: encoded(image, "JPEG", quality=30),
    "webp": lambda image, rng: encoded(image, "WEBP", quality=40),
    "smaller": lambda image, rng: scaled(image, 0.3, 0.31),
    "larger": lambda image, rng: scaled(image, 2, 1.95),
    "cropped": lambda image, rng: cropped(image, *(rng.uniform(0, 0.05) for _ in range(4))),
    "all at once": lambda image, rng: encoded(
        scaled(cropped(image, *(rng.uniform(0, 0.05) for _ in range(4))), 0.5, 0.5), "JPEG", quality=50
    ),
}


def table(images: Iterable[Image.Image]) -> np.ndarray:
    return np.frombuffer(b"".join(map(signature, images)), np.uint8).reshape(-1, SIGNATURE_BYTES)


def groups(signatures: np.ndarray) -> list[int]:
    together = UnionFind(len(signatures))
    for i, j in near_duplicates(signatures):
        together.unite(i, j)
    return [together.find(i) for i in range(len(signatures))]


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return [photo(seed, 320, 240) for seed in range(30)]


@pytest.fixture(scope="module")
def mixed(originals: list[Image.Image]) -> np.ndarray:
    """The originals, then a copy of every kind of each."""
    rng = random.Random(1)
    return table([*originals, *(copy(image, rng) for copy in COPIES.values() for image in originals)])


def test_copies_share_the_group_of_their_original(mixed: np.ndarray) -> None:
    found = np.array(groups(mixed)).reshape(-1, 30)
    assert found[0].tolist() == list(range(30))  # and no two originals share one
    same = dict(zip(COPIES, (found[1:] == found[0]).mean(1), strict=True))
    assert all(share == 1 for name, share in same.items() if "crop" not in name and name != "all at once"), same
    assert min(same.values()) >= 0.95, same
    assert set(found.ravel().tolist()) - set(range(30)) == set(found[1:][found[1:] != found[0]].tolist())


def test_photographs(tmp_path: Path) -> None:
    folder = Path(pytest.importorskip("skimage").__file__).parent / "data"
    images = [Image.open(folder / name).convert("RGB") for name in SCIKIT_PHOTOS]
    images = [image.reduce(max(1, image.width // 400)) for image in images]
    rng = random.Random(2)
    copies = [copy(image, rng) for copy in COPIES.values() for image in images]
    found = np.array(groups(table([*images, *copies]))).reshape(-1, len(images))
    assert found[0].tolist() == list(range(len(images))) and (found == found[0]).all()


@pytest.mark.parametrize("loss", [(0.05, 0, 0, 0), (0, 0.05, 0, 0.05), (0.05, 0.05, 0.05, 0.05)])
def test_corners_of_the_range_of_crops(originals: list[Image.Image], loss: tuple[float, ...]) -> None:
    whole, part = table(originals), table(cropped(image, *loss) for image in originals)
    assert sum(i == j for i, j in matches(part, whole)) >= 28
    assert sum(i == j for i, j in matches(whole, part)) >= 28


def test_mirrored_turned_and_recoloured_pictures_are_other_pictures(originals: list[Image.Image]) -> None:
    whole = table(originals)
    for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_90):
        assert list(matches(table(image.transpose(turn) for image in originals), whole)) == []
    swapped = [Image.merge("RGB", image.split()[::-1]) for image in originals]
    assert len(list(matches(table(swapped), whole))) <= 1
    gray = [image.convert("L").convert("RGB") for image in originals]
    assert list(matches(table(gray), whole)) == [(i, i) for i in range(30)]


def drawings(kind: str, count: int) -> list[Image.Image]:
    """Different pictures with hardly anything in them."""
    found, rng = [], random.Random(4)
    for _ in range(count):
        image = Image.new("RGB", (400, 300), "white")
        draw = ImageDraw.Draw(image)
        if kind == "disc":
            x, y, r = rng.randint(60, 340), rng.randint(60, 240), rng.randint(15, 60)
            draw.ellipse((x - r, y - r, x + r, y + r), fill="black")
        else:
            draw.text((20, 20), "".join(rng.choice("abcdefghij ") for _ in range(50)), fill="black")
        found.append(image)
    return found


@pytest.mark.parametrize("kind", ["disc", "line of text"])
def test_drawings_are_not_taken_for_parts_of_one_another(kind: str) -> None:
    """Where next to nothing is to be seen, a copy has to be close to its original as it is."""
    images = drawings(kind, 40)
    copies = table(encoded(image, "JPEG", quality=80) for image in images)
    found = groups(np.concatenate([table(images), copies]))
    assert found[:40] == list(range(40))
    if kind == "disc":
        assert found[40:] == found[:40]


def test_the_order_makes_no_difference(mixed: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(mixed))
    one, other = groups(mixed), np.empty(len(mixed), int)
    other[order] = order[groups(mixed[order])]

    def partition(labels: Iterable[int]) -> set[frozenset[int]]:
        members: dict[int, set[int]] = {}
        for i, label in enumerate(labels):
            members.setdefault(int(label), set()).add(i)
        return set(map(frozenset, members.values()))

    assert partition(one) == partition(other) and one == groups(mixed)
    ours = dict(matches(mixed[100:], mixed[:60]))
    inner, outer = np.random.default_rng(1).permutation(60), np.random.default_rng(2).permutation(len(mixed) - 100)
    turned = {int(outer[i]): int(inner[j]) for i, j in matches(mixed[100:][outer], mixed[:60][inner])}
    assert turned == ours


def test_none_one_and_equal_ones() -> None:
    nothing, one = np.empty((0, SIGNATURE_BYTES), np.uint8), table([photo(1)])
    assert list(near_duplicates(nothing)) == list(near_duplicates(one)) == []
    assert list(matches(nothing, one)) == list(matches(one, nothing)) == list(matches(nothing, nothing)) == []
    assert list(matches(one, one)) == [(0, 0)]
    three = table([photo(1), photo(2), photo(1)])
    assert groups(three) == [0, 1, 0]
    assert list(matches(three, one)) == [(0, 0), (2, 0)]
    flat = table(Image.new("RGB", (64, 64), colour) for colour in ("red", "gray", "red", "white", "black"))
    assert groups(flat) == [0, 1, 0, 3, 4]
    for wrong in (np.zeros((2, 5), np.uint8), np.zeros((2, SIGNATURE_BYTES)), np.zeros(SIGNATURE_BYTES, np.uint8)):
        with pytest.raises(ValueError, match="expected signatures"):
            list(near_duplicates(wrong))


def test_every_one_of_ours_is_matched(mixed: np.ndarray) -> None:
    """Whichever of the two was cropped, and however many are the same."""
    whole, cropped_ones = mixed[:30], mixed[30 * 5 : 30 * 6]
    for one, other in ((whole, cropped_ones), (cropped_ones, whole)):
        found = dict(matches(np.concatenate([one, one]), other))
        assert len(found) >= 58 and all(i % 30 == j for i, j in found.items())
        assert list(found) == sorted(found)


# ---------------------------------------------------------------------------------------------------- the lookup


def noisy(signatures: np.ndarray, times: int, level: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    many = np.repeat(signatures, times, axis=0)
    return np.clip(np.rint(many + rng.normal(0, level, many.shape)), 0, 255).astype(np.uint8)


def test_the_lookup_finds_what_all_pairs_find(originals: list[Image.Image]) -> None:
    """Wherever a key of the window and one of the whole picture agree, the pair is found, and no other."""
    pictures = module._Pictures(noisy(table(originals), 8, 12.0))
    index = module._Index(pictures)
    whole = module._frequencies(pictures.luma(slice(None)), 0)
    targets = module._flipped(module._codes(whole), whole) >> module._TIE_BITS
    for window in (0, 1, 20):
        frequencies = module._frequencies(pictures.luma(slice(None)), window)
        wanted = module._codes(frequencies) >> module._TIE_BITS
        expected = (wanted[:, :, None, None] == targets[:, None]).any(axis=(0, 3))
        rows, numbers = index.look_up(frequencies)
        assert set(zip(rows.tolist(), numbers.tolist(), strict=True)) == set(zip(*np.nonzero(expected), strict=True))
        assert 0 < expected.sum() - len(expected) < expected.size / 4


def test_a_crowd_is_not_compared_with_itself(originals: list[Image.Image]) -> None:
    """Many copies of one picture have equal keys; only the nearest ones are looked at, and all are connected."""
    crowd = noisy(table(originals[:1]), 500, 1.0)
    pictures = module._Pictures(crowd)
    rows, _ = module._Index(pictures).look_up(module._frequencies(pictures.luma(slice(None)), 0))
    assert np.bincount(rows).max() <= 2 * module._REACH * module._TABLES
    tried = 0
    same = module._same

    def counted(*given):
        nonlocal tried
        tried += len(given[2].a)
        return same(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_same", counted)
        assert set(groups(crowd)) == {0}
    assert tried < 4 * len(crowd)


def test_sums_are_exact() -> None:
    """float32 holds whole numbers up to 2^24: the signs are the same on every machine, whatever adds the numbers up."""
    transforms = module._transforms()
    assert (transforms == np.rint(transforms)).all() and np.abs(transforms).sum(axis=1).max() * 128 < 2**24


def test_progress_adds_up(mixed: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = groups(mixed)
    monkeypatch.setattr(module, "_CHUNK", 50)
    done: list[int] = []
    list(near_duplicates(mixed, done.append))
    assert sum(done) == len(mixed) and max(done) == 50
    assert groups(mixed) == expected
    done.clear()
    list(matches(mixed[:40], mixed, done.append))
    assert sum(done) == 40 + len(mixed)


def test_signatures_in_arrow(mixed: np.ndarray) -> None:
    column = pa.chunked_array([pa.array([row.tobytes() for row in part], column_type()) for part in (mixed, mixed[:3])])
    assert (unpack(column) == np.concatenate([mixed, mixed[:3]])).all()
    assert (unpack(column.slice(5, 200)) == mixed[5:205]).all() and (unpack(column.chunk(0)[2:9]) == mixed[2:9]).all()
    assert unpack(pa.chunked_array([], column_type())).shape == (0, SIGNATURE_BYTES)
