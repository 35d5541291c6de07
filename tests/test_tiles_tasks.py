"""The jigsaw family: truths checked on pixels, refusals brought about, and what each task guards against."""

from __future__ import annotations

import itertools
import random
import string
from typing import Any

import numpy as np
import pytest
from oracle_tiles import ORACLES, cells
from pictures import photo
from PIL import Image

from ssl4rl_plugin.core import Item, Rejection, Sample
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.tasks.image.jigsaw_box import SHUFFLES, halves
from ssl4rl_plugin.tasks.image.jigsaw_pair import GRID

SIDE = 112
ARMS = [(name, level) for name in ORACLES for level in get_task(name).levels]
GRIDS = ("flipped_tile", "jigsaw_tile", "missing_tile", "swapped_tiles")


class Whole(random.Random):
    """Always takes the largest cut."""

    def uniform(self, a: float, b: float) -> float:
        return b


def ramp(width: int = 240, height: int = 240) -> Image.Image:
    """Red grows to the right, green grows downwards: the colour tells the place."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, 255 - red], axis=-1).astype(np.uint8))


def coloured(rows: int, cols: int, width: int = 240, height: int = 240, seed: int = 0) -> Image.Image:
    """Random colours in `rows` x `cols` fields; with one column every row is of one colour."""
    fields = np.random.default_rng(seed).integers(0, 255, (rows, cols, 3), dtype=np.uint8)
    return Image.fromarray(fields).resize((width, height), Image.Resampling.NEAREST)


def generate(name: str, level: str, image: Image.Image, rng: random.Random, **changes: Any) -> Sample | Rejection:
    settings = get_task(name).level(level, **{"side": SIDE, **changes})
    return get_task(name).generate(Item("a", image), settings, rng)


def samples(name: str, level: str, image: Image.Image | None = None, count: int = 20, **changes: Any) -> list[Sample]:
    """`count` samples, of at most ten times as many draws."""
    made = (generate(name, level, image or photo(k), random.Random(k), **changes) for k in range(10 * count))
    found = list(itertools.islice((sample for sample in made if isinstance(sample, Sample)), count))
    assert len(found) == count, f"nearly everything is refused: {len(found)} samples of {10 * count} draws"
    return found


def reasons(name: str, level: str, image: Image.Image, rng: type[random.Random] = random.Random) -> set[str]:
    made = [generate(name, level, image, rng(number)) for number in range(20)]
    return {one.reason if isinstance(one, Rejection) else "made" for one in made}


def place(picture: Image.Image | np.ndarray[Any, Any]) -> tuple[float, float]:
    """Mean red and green of a piece of the ramp: how far right and how far down it lies."""
    red, green, _ = np.asarray(picture, float).mean(axis=(0, 1))
    return red, green


def reading_order(tiles: list[Any], cols: int) -> list[int]:
    """Numbers of the ramp's tiles in the order of their places, by colour."""
    down = sorted(range(len(tiles)), key=lambda k: place(tiles[k])[1])
    rows = [down[start : start + cols] for start in range(0, len(down), cols)]
    return [k for row in rows for k in sorted(row, key=lambda k: place(tiles[k])[0])]


# flip


def test_flip_mirrors_as_it_says() -> None:
    image, seen = ramp(), set()
    for level in ("pair", "single", "single_vertical"):
        for sample in samples("flip", level, image):
            shown = np.asarray(sample.images[-1], float)
            columns, rows = shown[:, :, 0].mean(axis=0), shown[:, :, 1].mean(axis=1)
            mirrored = columns[0] > columns[-1], rows[0] > rows[-1]
            assert mirrored == {
                "none": (False, False), "left-right": (True, False), "top-bottom": (False, True), "both": (True, True),
            }[sample.truth]  # fmt: skip
            seen.add((level, sample.truth))
            if level == "pair":
                before = np.asarray(sample.images[0], float)
                assert (
                    before[:, 0, 0].mean() < before[:, -1, 0].mean()
                    and before[0, :, 1].mean() < before[-1, :, 1].mean()
                )
    assert len(seen) == 4 + 4 + 2


def test_flip_shows_no_view_twice_byte_for_byte_and_all_of_one_size() -> None:
    for sample in samples("flip", "pair"):
        before, after = sample.images
        assert before.size == after.size and before.width == before.height and before.width % 8 == 0
        assert before.tobytes() != after.tobytes()
        if sample.truth == "none":
            assert np.abs(np.asarray(before, int) - np.asarray(after, int)).max() <= 4


def test_flip_refuses_what_cannot_be_told() -> None:
    assert reasons("flip", "pair", Image.new("RGB", (200, 200), "gray")) == {"blank"}
    assert reasons("flip", "pair", photo(0).resize((37, 37))) == {"too_small"}
    rows, columns = coloured(20, 1), coloured(1, 20)
    assert reasons("flip", "pair", rows) == {"symmetric"} and reasons("flip", "single", columns) == {"symmetric"}
    # Mirroring rows of one colour left-right is not asked for here.
    assert reasons("flip", "single_vertical", rows) == {"made"}
    assert reasons("flip", "single_vertical", columns) == {"symmetric"}


# tasks on one grid


@pytest.mark.parametrize("level", get_task("flipped_tile").levels)
def test_flipped_tile_is_the_one_that_runs_the_other_way(level: str) -> None:
    settings = get_task("flipped_tile").level(level, side=SIDE)
    axis, channel = (0, 1) if settings.flip == "top-bottom" else (1, 0)
    for sample in samples("flipped_tile", level, ramp()):
        tiles = cells(sample.images[0], settings)
        falling = [tile.mean(axis=1 - axis)[0, channel] > tile.mean(axis=1 - axis)[-1, channel] for tile in tiles]
        assert [string.ascii_uppercase[k] for k, one in enumerate(falling) if one] == [sample.truth]
        for option, tile in zip(sample.options, tiles, strict=True):
            assert np.array_equal(np.asarray(option), np.rint(tile * 255).astype(np.uint8))


def test_flipped_tile_refuses_a_picture_with_one_symmetric_tile_whichever_is_drawn() -> None:
    image = coloured(12, 12)
    image.paste(coloured(1, 12, 120, 120, seed=1), (120, 0))  # top-right looks the same upside down
    assert reasons("flipped_tile", "2x2_top_bottom", image, Whole) == {"symmetric"}
    assert reasons("flipped_tile", "2x2_left_right", image, Whole) == {"made"}


@pytest.mark.parametrize("level", get_task("jigsaw_tile").levels)
def test_jigsaw_tile_names_the_place_of_the_tile(level: str) -> None:
    settings = get_task("jigsaw_tile").level(level, side=SIDE)
    for sample in samples("jigsaw_tile", level, ramp()):
        order = reading_order(cells(sample.images[0], settings), settings.cols)
        asked = int(sample.question.split("does tile ")[1].split(",")[0])
        assert sample.truth == string.ascii_uppercase[order.index(asked - 1)]


@pytest.mark.parametrize("level", get_task("missing_tile").levels)
def test_missing_tile_is_the_one_place_without_a_tile(level: str) -> None:
    settings = get_task("missing_tile").level(level, side=SIDE)
    for sample in samples("missing_tile", level, ramp()):
        # The cut is random, but tiles that are there show which steps of red and green there are.
        reds, greens = zip(*map(place, sample.images), strict=True)
        lines = [np.linspace(min(values), max(values), settings.rows) for values in (greens, reds)]
        there = {
            settings.cols * int(np.abs(lines[0] - green).argmin()) + int(np.abs(lines[1] - red).argmin())
            for red, green in zip(reds, greens, strict=True)
        }
        assert len(there) == len(sample.images) == settings.rows * settings.cols - 1
        missing = set(range(settings.rows * settings.cols)) - there
        assert sample.truth == string.ascii_uppercase[missing.pop()]


@pytest.mark.parametrize("level", get_task("swapped_tiles").levels)
def test_swapped_tiles_are_the_two_out_of_place(level: str) -> None:
    settings = get_task("swapped_tiles").level(level, side=SIDE)
    for sample in samples("swapped_tiles", level, ramp()):
        order = reading_order(cells(sample.images[0], settings), settings.cols)
        assert [string.ascii_uppercase[k] for k, tile in enumerate(order) if tile != k] == sample.truth


def test_grids_refuse_tiles_that_show_nothing_or_the_same() -> None:
    for name in GRIDS:
        for level in get_task(name).levels:
            assert reasons(name, level, Image.new("RGB", (240, 240), "gray")) == {"blank_tile"}
            assert reasons(name, level, photo(0).resize((28, 28))) == {"too_small"}
        level = get_task(name).default_level
        assert reasons(name, level, coloured(40, 1)) == {"similar_tiles"}
        one_blank = photo(1, 240, 240)
        one_blank.paste((90, 120, 90), (120, 120, 240, 240))
        assert reasons(name, level, one_blank, Whole) == {"blank_tile"}


@pytest.mark.parametrize(
    "changes", [{"margin": 0.4}, {"rows": 0}, {"rows": 1, "cols": 1}, {"rows": 6, "cols": 6}, {"side": 40, "rows": 4}]
)
def test_grids_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"margin|tiles"):
        get_task("jigsaw_tile").level("2x2", **changes)


def test_two_tiles_have_but_one_pair_to_exchange() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        get_task("swapped_tiles").level("2x2", rows=1, cols=2)
    level = get_task("swapped_tiles").level("2x2", rows=1, cols=3)
    assert get_task("swapped_tiles").chance(level) == pytest.approx(1 / 3)


# jigsaw_pair


@pytest.mark.parametrize("level", get_task("jigsaw_pair").levels)
def test_jigsaw_pair_says_where_the_second_tile_lies(level: str) -> None:
    labels = get_task("jigsaw_pair").grader(get_task("jigsaw_pair").level(level)).labels
    seen = set()
    for sample in samples("jigsaw_pair", level, ramp(), count=60):
        (red1, green1), (red2, green2) = map(place, sample.images)
        down = "below" if green2 - green1 > 20 else "above" if green1 - green2 > 20 else ""
        across = "right" if red2 - red1 > 20 else "left" if red1 - red2 > 20 else ""
        assert sample.truth == "-".join(word for word in (down, across) if word)
        assert sample.options[labels.index(sample.truth)] is sample.images[1]
        assert len({image.size for image in (*sample.images, *sample.options)}) == 1
        seen.add(sample.truth)
    assert seen == set(labels)


def test_jigsaw_pair_takes_other_words_for_a_direction() -> None:
    grader = get_task("jigsaw_pair").grader(get_task("jigsaw_pair").level("eight"))
    assert grader.parse("Upper left") == "above-left" and grader.parse("bottom") == "below"
    assert grader.parse("lower-right") == "below-right" and grader.parse("") is None
    assert set(grader.values()) == set(GRID) - {""}
    with pytest.raises(ValueError, match="directions"):
        get_task("jigsaw_pair").level("eight", directions=3)


def test_jigsaw_pair_refuses_when_any_neighbour_that_may_be_asked_for_is_blank() -> None:
    assert reasons("jigsaw_pair", "four", Image.new("RGB", (240, 240), "gray")) == {"blank_tile"}
    assert reasons("jigsaw_pair", "four", coloured(40, 1)) == {"similar_tiles"}
    assert reasons("jigsaw_pair", "four", photo(0).resize((60, 60))) == {"too_small"}
    corner = photo(1, 240, 240)
    corner.paste((90, 120, 90), (0, 0, 80, 80))
    assert reasons("jigsaw_pair", "eight", corner, Whole) == {"blank_tile"}
    assert reasons("jigsaw_pair", "four", corner, Whole) == {"made"}


# jigsaw_box


@pytest.mark.parametrize("level", get_task("jigsaw_box").levels)
def test_jigsaw_box_is_where_the_steps_are(level: str) -> None:
    for number, sample in enumerate(samples("jigsaw_box", level, ramp(300, 240))):
        picture = sample.images[0]
        shown = np.asarray(picture, int)[:, :, :2]
        columns = np.flatnonzero((np.abs(np.diff(shown, axis=1)).max(axis=2) > 12).any(axis=0)) + 1
        rows = np.flatnonzero((np.abs(np.diff(shown, axis=0)).max(axis=2) > 12).any(axis=1)) + 1
        x1, y1, x2, y2 = sample.truth
        assert (x2 - x1) == pytest.approx(y2 - y1, abs=1), number  # of the picture's shape
        for edges, low, high, length in ((columns, x1, x2, picture.width), (rows, y1, y2, picture.height)):
            if low * length > 1500:  # an edge of the picture shows no step
                assert edges[0] == pytest.approx(low * length / 1000, abs=1.6)
            if (1000 - high) * length > 1500:
                assert edges[-1] == pytest.approx(high * length / 1000, abs=1.6)
            assert len(edges) <= 3


def test_jigsaw_box_moves_every_quarter_and_nothing_else() -> None:
    assert len(SHUFFLES) == 9 and all(order[k] != k for order in SHUFFLES for k in range(4))
    image, seen = photo(4, SIDE, SIDE), set()
    for number in range(60):
        sample = generate("jigsaw_box", "large", image, Whole(number))
        assert isinstance(sample, Sample)
        left, upper, right, lower = sample.params["pixels"]
        before, after = (np.asarray(one, int).copy() for one in (image, sample.images[0]))
        x, y = (left + right) // 2, (upper + lower) // 2
        boxes = [(left, upper, x, y), (x, upper, right, y), (left, y, x, lower), (x, y, right, lower)]
        quarters = [[np.asarray(one.crop(box)) for box in boxes] for one in (image, sample.images[0])]
        order = [next(k for k in range(4) if np.array_equal(quarters[0][k], quarter)) for quarter in quarters[1]]
        assert [k + 1 for k in order] == sample.params["order"]
        seen.add(tuple(order))
        before[upper:lower, left:right] = after[upper:lower, left:right] = 0
        assert np.array_equal(before, after)
    assert seen == set(SHUFFLES)


def test_the_halves_of_an_interval_are_whole_and_equal_and_inside() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        length, a, b = rng.randint(28, 448), *sorted(rng.sample(range(1001), 2))
        start, half = halves(a, b, length)
        assert min(start, half) >= 0 and start + 2 * half <= length
        assert abs(start - a * length / 1000) <= 1.51 and abs(start + 2 * half - b * length / 1000) <= 1.51


def test_jigsaw_box_refuses_wherever_the_box_would_have_fallen() -> None:
    assert reasons("jigsaw_box", "large", Image.new("RGB", (240, 240), "gray")) == {"no_visible_change"}
    assert reasons("jigsaw_box", "large", photo(0).resize((20, 200))) == {"too_small"}
    corner = photo(1, 240, 240)
    corner.paste((90, 120, 90), (140, 140, 240, 240))
    assert reasons("jigsaw_box", "small", corner, Whole) == {"no_visible_change"}
    assert reasons("jigsaw_box", "large", corner, Whole) == {"made"}


# all of them


@pytest.mark.parametrize(("name", "level"), ARMS)
def test_odd_pictures_are_made_or_refused_and_never_raise(name: str, level: str) -> None:
    shapes = [(28, 28), (28, 560), (1000, 50), (60, 1200), (29, 31), (333, 28)]
    for width, height in shapes:
        for image in (coloured(height // 4, width // 4, width, height), Image.new("RGB", (width, height), "white")):
            settings = get_task(name).level(level)
            made = get_task(name).generate(Item("a", image), settings, random.Random(width))
            assert isinstance(made, Rejection) or max(max(one.size) for one in made.images) <= settings.side


SILENT = {("flip", "single"), ("flip", "single_vertical"), ("jigsaw_pair", "eight"), ("jigsaw_pair", "eight_apart")}
"""Levels that no oracle solves."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "level"), ARMS)
def test_oracles_agree_where_no_margin_is_cut_off(name: str, level: str) -> None:
    task = get_task(name)
    # Steps of one pixel are only found in a picture large enough for photo()'s own steps to be rare.
    changes = (
        {"side": 336} if name == "jigsaw_box" else {"side": SIDE} if name == "flip" else {"side": SIDE, "margin": 0.0}
    )
    settings = task.level(level, **changes)
    made = list(samples(name, level, count=1 if level == "4x4" else 8, **changes))
    answers = [ORACLES[name](sample, settings) for sample in made]
    assert made and (answers[0] is None) == ((name, level) in SILENT)
    for sample, answer in zip(made, answers, strict=True):
        assert answer is None or task.score(task.gold(answer, settings), sample.truth, settings).correct


def test_a_margin_cuts_the_same_off_all_tiles() -> None:
    for margin in (0.0, 0.1, 0.3):
        (sample,) = samples("missing_tile", "2x2", photo(2, SIDE, SIDE), count=1, margin=margin)
        assert {image.size for image in sample.images} == {(SIDE // 2 - 2 * round(SIDE / 2 * margin),) * 2}
