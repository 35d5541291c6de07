"""The pixel and depth tasks: each truth checked on pixels or depth, each refusal brought about by a picture."""

from __future__ import annotations

import io
import itertools
import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from oracle_pixels import ORACLES
from pictures import photo, rgbd
from PIL import Image

from ssl4rl_plugin.core import RGBD, Item, Rejection, Sample
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.tasks.image.corruption import CORRUPTIONS, IN_WORDS
from ssl4rl_plugin.tasks.rgbd.depth_points import marked

IMAGE_TASKS = ("corruption", "corruption_order", "channel_order", "scale_order", "counting")
DEPTH_TASKS = ("depth_order", "relative_3d")


def made(task_name: str, level_name: str, data: Any, number: int = 0, **changes: Any) -> Sample | Rejection:
    task = get_task(task_name)
    return task.generate(Item("a", data, "a"), task.level(level_name, **changes), random.Random(number))


def reasons(task_name: str, level_name: str, data: Any, **changes: Any) -> set[str]:
    found = [made(task_name, level_name, data, number, **changes) for number in range(8)]
    return {one.reason if isinstance(one, Rejection) else "made" for one in found}


@pytest.mark.parametrize("task_name", ORACLES)
def test_who_sees_the_pixels_finds_the_truth(task_name: str) -> None:
    task = get_task(task_name)
    for level_name in task.levels:
        asked = right = 0
        level = task.level(level_name)
        for number in range(12):
            sample = made(task_name, level_name, photo(number, 480, 360), number)
            if isinstance(sample, Rejection) or (answer := ORACLES[task_name](sample, level)) is None:
                continue
            asked += 1
            value = task.grader(level).parse(task.gold(answer, level))
            right += value is not None and task.grader(level).equal(value, sample.truth)
        # What tests draw has squares and stripes, so that compression of a single picture has no certain sign.
        assert right >= (0.8 if level_name.startswith("single") else 0.95) * asked, f"{level_name}: {right} of {asked}"
        assert asked > 6 or level_name.startswith("single")


@pytest.mark.parametrize("size", [(28, 28), (28, 560), (560, 28), (29, 31), (64, 48), (500, 375), (1000, 60)])
def test_no_picture_makes_a_task_crash(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    noisy = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    pictures = [noisy, Image.new("RGB", size), noisy.convert("L").convert("RGB")]
    depths = [rng.uniform(0.5, 9, size[::-1]), np.full(size[::-1], np.nan), np.full(size[::-1], 2.0)]
    for side in (84, 300):
        for picture, depth in zip(pictures, depths, strict=True):
            for task_name in IMAGE_TASKS + DEPTH_TASKS:
                data = RGBD(picture, depth.astype(np.float32)) if task_name in DEPTH_TASKS else picture
                for level_name in get_task(task_name).levels:
                    one = made(task_name, level_name, data, side=side)
                    assert isinstance(one, Sample | Rejection)
                    if isinstance(one, Sample):
                        assert all(max(image.size) <= side and image.mode == "RGB" for image in one.images)


def test_what_shows_nothing_or_is_too_small_is_refused() -> None:
    gray, tiny = Image.new("RGB", (300, 300), "gray"), photo(1).resize((60, 60))
    for task_name in ("corruption", "corruption_order", "channel_order", "scale_order"):
        for level_name in get_task(task_name).levels:
            assert reasons(task_name, level_name, gray) == {"blank"}
    for task_name in ("corruption", "corruption_order", "scale_order"):
        assert reasons(task_name, get_task(task_name).default_level, tiny, side=224) == {"too_small"}
    assert reasons("channel_order", "pair", photo(1).resize((200, 27))) == {"too_small"}
    assert reasons("counting", "three_kinds", photo(1).resize((560, 28)), side=300) == {"too_small"}
    assert reasons("counting", "three_kinds", gray) == {"made"}


# ------------------------------------------------------------------------------------------------------- corruption


def test_every_kind_of_corruption_has_words_and_grows() -> None:
    assert list(IN_WORDS) == list(CORRUPTIONS)
    clean = photo(3, 336, 252)
    for kind, corrupt in CORRUPTIONS.items():
        before = 0.0
        for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
            image = corrupt(clean, strength, random.Random(0))
            assert image.size == clean.size and image.mode == "RGB"
            apart = float(np.abs(np.asarray(image, float) - np.asarray(clean, float)).mean())
            assert apart > before, kind
            before = apart


def test_noise_is_normal_and_drawn_from_the_generator() -> None:
    clean = Image.new("RGB", (300, 300), (128, 128, 128))
    values = np.asarray(CORRUPTIONS["noise"](clean, 0.5, random.Random(1)), float) - 128
    assert abs(values.mean()) < 0.5 and abs(values.std() - 32) < 1
    assert abs((values**4).mean() / values.std() ** 4 - 3) < 0.3
    again = CORRUPTIONS["noise"](clean, 0.5, random.Random(1))
    assert (np.asarray(again, float) - 128 == values).all()


def test_a_picture_in_which_a_corruption_would_not_show_is_refused() -> None:
    gray = photo(2).convert("L").convert("RGB")  # desaturation would not show
    posterized = CORRUPTIONS["posterization"](photo(2), 1.0, random.Random(0))
    for level_name in ("pair", "single", "pair_mild"):
        assert reasons("corruption", level_name, gray) == {"no_visible_change"}
    assert reasons("corruption", "pair_4", gray) == {"made"}  # but of these four all do
    assert "made" in reasons("corruption", "pair", posterized.resize((640, 480)))
    kinds = {
        one.detail.split(":")[0]
        for number in range(60)
        if isinstance(one := made("corruption_order", "three", gray, number), Rejection)
    }
    assert "desaturation" in kinds


def test_the_order_of_corruption_is_asked_for_in_words_that_suit_every_kind() -> None:
    checked = 0
    for number in range(20):
        sample = made("corruption_order", "three", photo(number, 480, 360), number)
        if isinstance(sample, Sample):  # "the weakest low contrast" would leave open which end is meant
            assert "corrupted least to the one that is corrupted most" in sample.question
            assert "weakest" not in sample.question
            checked += 1
    assert checked >= 10


def test_no_refusal_of_a_corruption_depends_on_the_answer() -> None:
    """Whatever is drawn last, the picture is used or it is not."""

    class Fixed(random.Random):
        answer = 0

        def choice(self, seq: Any) -> Any:
            return seq[self.answer % len(seq)]

    task = get_task("corruption")
    level = task.level("pair_mild")
    for seed in range(5):
        outcomes = set()
        for answer in range(8):
            rng = Fixed(seed)
            rng.answer = answer
            outcomes.add(type(task.generate(Item("a", photo(seed), "a"), level, rng)))
        assert len(outcomes) == 1


# ---------------------------------------------------------------------------------------------------- channel order


def test_the_label_names_the_old_channels_in_new_order() -> None:
    x, y = np.meshgrid(np.linspace(0, 255, 200), np.linspace(0, 255, 200))
    image = Image.fromarray(np.stack([x, y, 255 - (x + y) / 2], axis=-1).astype(np.uint8))  # R grows right, G down
    seen = set()
    for number in range(60):
        sample = made("channel_order", "pair", image, number)
        assert isinstance(sample, Sample)
        before, after = (np.asarray(shown, int) for shown in sample.images)
        for new, old in enumerate(sample.truth):
            assert (after[..., new] == before[..., "RGB".index(old)]).all()
        if sample.truth == "GBR":  # as the prompt works it out
            assert (after[..., 0] == before[..., 1]).all() and (after[..., 2] == before[..., 0]).all()
        seen.add(sample.truth)
    assert len(seen) == 6
    cyclic = {made("channel_order", "single_3", image, number).truth for number in range(30)}  # type: ignore[union-attr]
    assert cyclic == {"RGB", "GBR", "BRG"}


def test_no_channel_has_finer_detail_than_another() -> None:
    fields = np.frombuffer(random.Random(0).randbytes(48 * 48 * 3), np.uint8).reshape(48, 48, 3) // 4 + 96
    image = Image.fromarray(fields).resize((480, 480), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)  # keeps green more finely than blue
    for level_name in ("single", "single_3"):
        sample = made("channel_order", level_name, Image.open(file).convert("RGB"))
        assert isinstance(sample, Sample)
        shown = np.asarray(sample.images[0], np.float32)
        fine = [float(np.abs(np.diff(shown[..., k], 3, axis=axis)).mean()) for k in range(3) for axis in (0, 1)]
        assert max(fine) < 1.1 * min(fine)


def test_gray_photos_have_no_channel_order() -> None:
    gray = photo(2).convert("L").convert("RGB")
    red, _, blue = photo(2).split()
    for level_name in get_task("channel_order").levels:
        assert reasons("channel_order", level_name, gray) == {"no_visible_change"}
    assert reasons("channel_order", "pair", Image.merge("RGB", (red, red, blue))) == {"no_visible_change"}
    assert reasons("channel_order", "pair_3", Image.merge("RGB", (red, red, blue))) == {"made"}  # no two cycles agree


# ------------------------------------------------------------------------------------------------------ scale order


def test_the_widest_cut_comes_first() -> None:
    ramp = np.clip(np.linspace(-100, 355, 400), 0, 255)
    x, y = np.meshgrid(ramp, ramp)
    image = Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))  # the wider, the more colours
    for level_name, number in itertools.product(("three",), range(6)):
        sample = made("scale_order", level_name, image, number)
        assert isinstance(sample, Sample)
        by_label = dict(zip("ABCDE", sample.images, strict=False))
        spread = [float(np.asarray(by_label[name], float)[..., 0].std()) for name in sample.truth]
        assert spread == sorted(spread, reverse=True) and spread[0] > 1.05 * spread[1]
        middles = [np.asarray(cut, float)[76:92, 76:92].mean(axis=(0, 1)) for cut in sample.images]
        assert np.ptp(middles, axis=0).max() < 4, "one centre"


def test_a_picture_that_looks_the_same_at_every_scale_is_refused() -> None:
    size = 401
    x, y = np.meshgrid(*[np.arange(size) - size // 2] * 2)
    ring = np.log(np.hypot(x, y) + 1e-6) / math.log(1.5)  # enlarged by the level's ratio, it is itself
    spokes = np.where((ring % 1 < 0.5) ^ (np.arctan2(y, x) > 0), 220, 30).astype(np.uint8)

    class Whole(random.Random):
        """Takes the whole square, so that the rings stay in the middle."""

        def uniform(self, a: float, b: float) -> float:
            return b

    task = get_task("scale_order")
    one = task.generate(Item("a", Image.fromarray(spokes).convert("RGB")), task.level("three"), Whole(0))
    assert isinstance(one, Rejection) and one.reason == "ambiguous"


# --------------------------------------------------------------------------------------------------------- counting


def test_shapes_do_not_overlap_and_are_as_many_as_said() -> None:
    for level_name, number in itertools.product(get_task("counting").levels, range(12)):
        sample = made("counting", level_name, photo(number, *((400, 300), (300, 500))[number % 2]), number)
        assert isinstance(sample, Sample)
        shapes = sample.params["shapes"]
        for a, b in itertools.combinations(shapes, 2):
            # The circles around them do not cross, nearly: places are rounded to pixels.
            assert max(abs(a["x"] - b["x"]), abs(a["y"] - b["y"])) >= (a["across"] + b["across"]) / 2 - 2
        level = get_task("counting").level(level_name)
        if level.others:
            assert len(shapes) == level.kinds * level.high + 2
        kinds = (
            ["circle", "square", "triangle"]
            if level.kinds == 3
            else [sample.question.split("How many ")[1].split("s")[0]]
        )
        if level.kinds == 1 and "squares" in sample.question:
            kinds = ["square"]
        assert [sum(shape["kind"] == kind for shape in shapes) for kind in kinds] == sample.truth


def test_shapes_stand_out_from_any_photo() -> None:
    from ssl4rl_plugin.tasks.image.counting import COLOURS

    for colour in [*COLOURS, (0, 0, 0), (255, 255, 255), (128, 128, 128)]:
        sample = made("counting", "one_kind", Image.new("RGB", (300, 300), colour))
        assert isinstance(sample, Sample)
        for shape in sample.params["shapes"]:
            assert sum(abs(a - b) for a, b in zip(shape["colour"], colour, strict=True)) > 150
            assert (
                sample.images[0].resize((300, 300))
                and list(
                    sample.images[0].getpixel((shape["x"], shape["y"]))  # type: ignore[arg-type]
                )
                == shape["colour"]
            )


# ------------------------------------------------------------------------------------------------------------ depth


def scene(depth: np.ndarray) -> RGBD:
    return RGBD(photo(0).resize(depth.shape[::-1]), depth.astype(np.float32))


def at(depth: np.ndarray, sample: Sample, label: str) -> float:
    """The depth under a mark, read from the map that the sample was made of."""
    x, y = sample.params["points"][label]
    width, height = sample.images[0].size
    return float(depth[int((y + 0.5) * depth.shape[0] / height), int((x + 0.5) * depth.shape[1] / width)])


def test_depth_order_is_that_of_the_depth_under_the_marks() -> None:
    scenes = [rgbd(number, 400, 300) for number in range(8)]
    checked = Counter[str]()
    for level_name, number in itertools.product(get_task("depth_order").levels, range(16)):
        data = scenes[number % 8]
        sample = made("depth_order", level_name, data, number)
        if isinstance(sample, Rejection):
            continue
        checked[level_name] += 1
        depths = [at(data.depth, sample, label) for label in sample.truth]
        level = get_task("depth_order").level(level_name)
        for near, far in itertools.pairwise(depths):
            assert far >= level.ratio * near * 0.999 and far - near >= 0.199
        for a, b in itertools.combinations(sample.params["points"].values(), 2):
            assert math.dist(a, b) >= 0.1 * level.side
        if level.row:
            heights = [y for _, y in sample.params["points"].values()]
            assert max(heights) - min(heights) <= 0.13 * sample.images[0].height
    assert all(checked[level_name] >= 4 for level_name in get_task("depth_order").levels), checked


def test_each_mark_bears_its_letter_where_it_is_said_to_be() -> None:
    data = rgbd(4, 400, 300)
    sample = made("depth_order", "three", data, 4)
    assert isinstance(sample, Sample)
    points = {label: tuple(place) for label, place in sample.params["points"].items()}
    plain = data.image.resize(sample.images[0].size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    assert np.array_equal(np.asarray(marked(plain, points)), np.asarray(sample.images[0]))
    turned = dict(zip(points, [*list(points.values())[1:], next(iter(points.values()))], strict=True))
    assert not np.array_equal(np.asarray(marked(plain, turned)), np.asarray(sample.images[0]))
    for x, y in points.values():
        mark = np.asarray(sample.images[0].crop((x - 8, y - 8, x + 9, y + 9)).convert("L"))
        assert (mark > 200).mean() > 0.4 and (mark < 60).mean() > 0.03  # black on white


def test_letters_are_independent_of_where_points_lie() -> None:
    """Depth grows upwards: were letters given in order of place, one answer would win."""
    depth = np.repeat(np.linspace(8, 1, 300)[:, None], 400, axis=1)
    data = scene(depth)
    truths = [made("depth_order", "three", data, number, side=224).truth for number in range(120)]  # type: ignore[union-attr]
    counts = [truths.count(list(order)) for order in itertools.permutations("ABC")]
    assert min(counts) >= 7


def test_depth_that_does_not_do_is_refused() -> None:
    wall = np.full((300, 400), 3.0)
    unknown = np.full((300, 400), np.nan)
    unknown[:50, :50] = 2
    dotted = np.where(np.add.outer(np.arange(300), np.arange(400)) % 3 == 0, np.nan, 2 + np.arange(400) / 100)
    edges = np.where(np.add.outer(np.arange(300), np.arange(400)) // 4 % 2 == 0, 2.0, 6.0)
    for task_name in DEPTH_TASKS:
        level_name = get_task(task_name).default_level
        assert reasons(task_name, level_name, scene(wall)) == {"flat_depth"}
        assert reasons(task_name, level_name, scene(unknown)) == {"no_depth"}
        for depth in (dotted, edges):  # no point has depth around it, or each lies on an edge
            assert reasons(task_name, level_name, scene(depth)) <= {"flat_depth", "ambiguous"}
        assert reasons(task_name, level_name, RGBD(Image.new("RGB", (400, 300)), wall.astype(np.float32))) == {"blank"}
        assert reasons(task_name, level_name, scene(wall[:30])) == {"too_small"}
    # Depth grows to the right only: no point is at once farther and to the left.
    slope = np.repeat(np.linspace(1, 8, 400)[None, :], 300, axis=0)
    assert reasons("relative_3d", "away", scene(slope)) == {"ambiguous"}


TURNS = {"away": 0, "left": 90, "towards": 180, "right": 270}
"""Degrees that one has turned to the left, seen from above, from facing away from the camera."""


def test_relative_position_turns_with_who_stands_there() -> None:
    seen = set()
    scenes = [rgbd(number) for number in range(8)]
    numbers = {"away": 20, "towards": 20, "any": 80}
    for level_name, number in ((name, number) for name, count in numbers.items() for number in range(count)):
        data = scenes[number % 8]
        sample = made("relative_3d", level_name, data, number, side=224)
        if isinstance(sample, Rejection):
            continue
        width, height = sample.images[0].size
        ground = {}
        for label, (x, _) in sample.params["points"].items():
            depth = at(data.depth, sample, label)
            ground[label] = np.array([(x - width / 2) / max(width, height) * depth, depth])  # right, away
        facing = next(
            name
            for name, words in (
                ("away", "away from"),
                ("towards", "towards"),
                ("left", "to the left"),
                ("right", "to the right"),
            )
            if words in sample.question.split("face ")[1].split(".")[0]
        )
        turn = math.radians(TURNS[facing])
        ahead = np.array([-math.sin(turn), math.cos(turn)])  # of facing away, turned counter-clockwise
        to_right = np.array([math.cos(turn), math.sin(turn)])
        step = ground["B"] - ground["A"]
        expected = f"{'front' if step @ ahead > 0 else 'back'}-{'right' if step @ to_right > 0 else 'left'}"
        assert sample.truth == expected
        seen.add((facing, sample.truth))
    assert len(seen) == 16
