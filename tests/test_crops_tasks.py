"""The crops family: what the answer means, checked on pixels; what is refused; what must not tell the answer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from oracle_crops import ORACLES, marks
from pictures import photo
from PIL import Image, ImageFilter

from ssl4rl_plugin.core import Item, Rejection, Sample
from ssl4rl_plugin.data.images import difference
from ssl4rl_plugin.grading import letters
from ssl4rl_plugin.tasks import get_task
from ssl4rl_plugin.tasks.image.cropped_patch import CroppedPatch
from ssl4rl_plugin.tasks.image.holes import HOLE_GRAY, hole_edges
from ssl4rl_plugin.tasks.image.relative_position import EIGHT

NAMES = (
    "inpainting", "cropped_patch", "position_box", "odd_one_out", "matching", "correspondence", "relative_position",
    "patch_distance",
)  # fmt: skip
SIDE = 140


def item(image: Image.Image, others: int = 5) -> Item:
    return Item("a", image, "a", tuple(Item(f"o{k}", photo(100 + k), f"o{k}") for k in range(others)))


def generate(name: str, level: str, image: Image.Image, seed: int | random.Random = 0, side: int = SIDE) -> Any:
    rng = seed if isinstance(seed, random.Random) else random.Random(seed)
    return get_task(name).generate(item(image), get_task(name).level(level, side=side), rng)


def made(
    name: str, level: str, picture: Callable[..., Image.Image] = photo, side: int = SIDE, count: int = 4
) -> Iterator[tuple[Any, Any]]:
    """`count` pictures and the samples made of them."""
    for seed in range(4 * count):
        image = picture(seed, 400, 300)
        sample = generate(name, level, image, seed, side)
        if isinstance(sample, Sample):
            yield image, sample
            count -= 1
            if count == 0:
                return
    raise AssertionError("nearly everything is refused")


def refusals(name: str, level: str, image: Image.Image) -> set[str]:
    outcomes = [generate(name, level, image, seed) for seed in range(8)]
    return {made.reason if isinstance(made, Rejection) else "made" for made in outcomes}


def ramps(seed: int = 0, width: int = 400, height: int = 300) -> Image.Image:
    """Red grows to the right, green grows downwards; blue is texture."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8), dtype=np.uint8)
    blue = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def place(image: Image.Image) -> np.ndarray:
    """Where in `ramps` the middle of a cut-out lies: (x, y) from 0 to 1."""
    return np.asarray(image, float).mean(axis=(0, 1))[:2] / 255


class Fixed(random.Random):
    """Draws a given number wherever one of so many is drawn: the truth."""

    def __init__(self, seed: int, truth: int) -> None:
        super().__init__(seed)
        self.truth = truth

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return self.truth if stop is None else super().randrange(start, stop, step)


def filled(sample: Sample, level: Any, letter: str) -> Image.Image:
    """The picture with a candidate in its hole, and the rim between them blurred over."""
    _, inner = hole_edges(level.side, level.hole)
    whole = sample.images[0].copy()
    whole.paste(sample.options[letters(len(sample.options)).index(letter)], (inner, inner))
    return whole


@pytest.mark.parametrize("level_name", list(get_task("inpainting").levels))
def test_the_true_candidate_of_inpainting_completes_the_picture(level_name: str) -> None:
    level = get_task("inpainting").level(level_name, side=SIDE)
    edge, inner = hole_edges(SIDE, level.hole)
    for image, sample in made("inpainting", level_name):
        boxes = sample.params["boxes"]
        names = letters(level.candidates)
        for name, box in zip(names, boxes, strict=True):
            whole = image.crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            middle = whole.crop((inner, inner, SIDE - inner, SIDE - inner))
            option = sample.options[names.index(name)]
            assert option.size == middle.size and difference(option, middle) < 0.02
            around = difference(whole.crop((0, 0, SIDE, edge)), sample.images[0].crop((0, 0, SIDE, edge)))
            assert (around < 0.01) == (name == sample.truth)
        left, upper, right, lower = boxes[names.index(sample.truth)]
        hole = round((right - left) * level.hole)
        for name, box in zip(names, boxes, strict=True):
            if name != sample.truth:  # no other candidate's content is visible
                x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
                assert not (left - hole / 2 < x < right + hole / 2 and upper - hole / 2 < y < lower + hole / 2)
        gray = np.asarray(sample.images[0])[edge : SIDE - edge, edge : SIDE - edge]
        assert (gray == HOLE_GRAY).all()


@pytest.mark.parametrize("level_name", list(CroppedPatch.levels))
def test_the_true_candidate_of_cropped_patch_completes_the_picture(level_name: str) -> None:
    level = get_task("cropped_patch").level(level_name, side=SIDE)
    for image, sample in made("cropped_patch", level_name):
        names = letters(len(sample.options))
        apart = {}
        for name, frame in zip(names, sample.params["frames"], strict=True):
            whole = image.crop(frame["box"]).resize((SIDE, SIDE), Image.Resampling.BICUBIC).rotate(frame["turn"])
            soft = [view.filter(ImageFilter.GaussianBlur(4)) for view in (whole, filled(sample, level, name))]
            apart[name] = difference(*soft)
        assert min(apart, key=apart.__getitem__) == sample.truth
        assert len({option.size for option in sample.options}) == 1


@pytest.mark.parametrize(
    ("name", "level_name", "count"),
    [("inpainting", "4_candidates", 4), *(("cropped_patch", name, 4) for name in CroppedPatch.levels)],
)
def test_candidates_are_the_same_whichever_is_true(name: str, level_name: str, count: int) -> None:
    samples = [generate(name, level_name, photo(3, 400, 300), Fixed(1, truth)) for truth in range(count)]
    assert [sample.truth for sample in samples] == letters(count)
    assert len({tuple(option.tobytes() for option in sample.options) for sample in samples}) == 1
    assert len({sample.images[0].tobytes() for sample in samples}) == count


def test_zoomed_candidates_are_equally_sharp() -> None:
    """On texture without a scale of its own, the finest detail does not tell the zooms apart."""
    fine: list[list[float]] = [[], [], [], []]
    for seed in range(12):
        f = np.hypot(*np.meshgrid(np.fft.fftfreq(320), np.fft.fftfreq(320)))
        f[0, 0] = 1
        plane = np.fft.ifft2(np.fft.fft2(np.random.default_rng(seed).standard_normal((320, 320))) / f).real
        gray = Image.fromarray(np.clip(128 + 50 * plane / plane.std(), 0, 255).astype(np.uint8)).convert("RGB")
        sample = generate("cropped_patch", "zoomed", gray, seed)
        if isinstance(sample, Sample):
            sides = [frame["box"][2] - frame["box"][0] for frame in sample.params["frames"]]
            for rank, k in enumerate(np.argsort(sides)):
                shown = np.asarray(sample.options[k].convert("L"), float)
                fine[rank].append(np.abs(np.diff(shown, 2, axis=0)).mean() / shown.std())
    means = [np.mean(values) for values in fine]
    spread = float(np.std(np.concatenate(fine)))
    assert min(map(len, fine)) > 5 and max(means) - min(means) < 1.2 * spread


@pytest.mark.parametrize("level_name", ["large", "medium", "small"])
def test_position_box_names_the_box_of_the_cut_out(level_name: str) -> None:
    for image, sample in made("position_box", level_name):
        x1, y1, x2, y2 = sample.truth
        box = (x1 * image.width / 1000, y1 * image.height / 1000, x2 * image.width / 1000, y2 * image.height / 1000)
        again = image.resize(sample.images[1].size, Image.Resampling.BICUBIC, box=box)
        assert difference(again, sample.images[1]) < 0.01
        wide, high = sample.images[0].size
        assert abs(wide / high - sample.images[1].width / sample.images[1].height) < 0.05
    for _, sample in made("position_box", level_name, ramps):
        x1, y1, x2, y2 = sample.truth
        assert np.allclose(place(sample.images[1]), [(x1 + x2) / 2000, (y1 + y2) / 2000], atol=0.02)


@pytest.mark.parametrize("level_name", list(get_task("odd_one_out").levels))
def test_the_odd_one_is_of_the_other_photo(level_name: str) -> None:
    """The common photo has vertical stripes, the other one horizontal stripes."""
    level = get_task("odd_one_out").level(level_name, side=SIDE)
    upright = stripes()
    other = Item("b", upright.transpose(Image.Transpose.ROTATE_90), "b")
    truths = set()
    for seed in range(10):
        sample = get_task("odd_one_out").generate(Item("a", upright, "a", (other,)), level, random.Random(seed))
        odd = [is_flat(picture) for picture in sample.images]
        assert sum(odd) == 1 and sample.truth == letters(level.pictures)[odd.index(True)]
        truths.add(sample.truth)
        means = np.array([np.asarray(picture, float).mean(axis=(0, 1)) for picture in sample.images])
        assert np.ptp(means, axis=0).max() < 3 or not level.colours_alike
    assert len(truths) > 2


def stripes() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (1, 40, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((320, 320), Image.Resampling.NEAREST)


def is_flat(image: Image.Image) -> bool:
    """Whether its stripes are horizontal."""
    gray = np.asarray(image.convert("L"), float)
    return bool(np.abs(np.diff(gray, axis=0)).mean() > np.abs(np.diff(gray, axis=1)).mean())


@pytest.mark.parametrize("level_name", list(get_task("matching").levels))
def test_the_match_is_of_the_same_photo(level_name: str) -> None:
    level = get_task("matching").level(level_name, side=SIDE)
    flat = Item("b", stripes().transpose(Image.Transpose.ROTATE_90), "b")
    checked = 0
    for seed in range(10):
        sample = get_task("matching").generate(Item("a", stripes(), "a", (flat,) * 5), level, random.Random(seed))
        if isinstance(sample, Sample):
            checked += 1
            first, *options = sample.images
            fits = [not is_flat(option) for option in options]
            assert not is_flat(first) and len(options) == level.candidates
            assert sum(fits) == 1 and sample.truth == letters(level.candidates)[fits.index(True)]
    assert checked >= 5


@pytest.mark.parametrize("level_name", ["affine_4", "perspective_6", "perspective_8"])
def test_corresponding_points_show_the_same_place(level_name: str) -> None:
    level = get_task("correspondence").level(level_name, side=280)

    def beside(picture: Image.Image, point: tuple[int, int]) -> np.ndarray:
        """The colour just inside of the ring: the place in `ramps`."""
        return np.asarray(picture, float)[point[1], point[0]][:2] / 255

    for _, sample in made("correspondence", level_name, ramps, side=280):
        first, second = sample.images
        wanted = beside(first, marks(first, [""])[""])
        found = {name: beside(second, at) for name, at in marks(second, list(letters(level.points))).items()}
        apart = {name: float(np.abs(colour - wanted).max()) for name, colour in found.items()}
        assert min(apart, key=apart.__getitem__) == sample.truth and apart[sample.truth] < 0.03
        assert sorted(apart.values())[1] > 0.03
        assert not any((np.asarray(p)[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all(axis=1).any() for p in sample.images)


def test_where_the_points_lie_does_not_tell_the_corresponding_one() -> None:
    samples = [generate("correspondence", "affine_4", photo(3, 400, 300), Fixed(1, truth)) for truth in range(4)]
    assert [sample.truth for sample in samples] == letters(4)
    assert len({sample.images[1].tobytes() for sample in samples}) == 1
    assert len({marks(sample.images[0], [""])[""] for sample in samples}) == 1
    assert len({sample.images[0].tobytes() for sample in samples}) == 4


@pytest.mark.parametrize("level_name", ["4_directions", "8_directions", "8_directions_3x3"])
def test_the_direction_is_from_a_to_b(level_name: str) -> None:
    truths = set()
    for seed in range(16):
        sample = generate("relative_position", level_name, ramps(seed), seed)
        right, down = place(sample.images[2]) - place(sample.images[1])
        assert EIGHT[sample.truth] == tuple(int(np.sign(z)) if abs(z) > 0.2 else 0 for z in (down, right))
        truths.add(sample.truth)
    assert len(truths) > 3


@pytest.mark.parametrize("size", [(600, 200), (200, 600)])
def test_no_diagonal_is_asked_for_that_looks_straight(size: tuple[int, int]) -> None:
    """Three times as wide as high, "above-left" would lie 18 degrees above "left"."""
    assert "made" in refusals("relative_position", "4_directions", ramps(1, *size))
    assert refusals("relative_position", "8_directions", ramps(1, *size)) == {"ambiguous"}
    assert "made" in refusals("relative_position", "8_directions", ramps(1, 460, 200))


@pytest.mark.parametrize("name", ["odd_one_out", "matching"])
def test_what_is_said_of_all_pictures_holds_for_each(name: str) -> None:
    """An augmentation may leave a picture's colours as they are, so no prompt says that all were changed."""
    assert "All were changed" not in generate(name, get_task(name).default_level, photo(3, 400, 300)).question


@pytest.mark.parametrize("level_name", ["3_cutouts", "4_cutouts", "5_cutouts"])
def test_patches_are_ordered_by_their_distance(level_name: str) -> None:
    level = get_task("patch_distance").level(level_name)
    for image, sample in made("patch_distance", level_name, ramps):
        _, reference, *cuts = sample.images
        away = [math.hypot(*((place(cut) - place(reference)) * image.size)) for cut in cuts]
        ordered = [away[letters(level.cutouts).index(name)] for name in sample.truth]
        assert sorted(sample.truth) == letters(level.cutouts)
        assert (np.diff(ordered) > 0.6 * level.gap * math.hypot(*image.size)).all()


GRAY = Image.new("RGB", (400, 300), "gray")
GRAIN = Image.effect_noise((400, 300), 16).convert("RGB")  # looks the same everywhere, and turned
PERIODIC = Image.fromarray(np.tile(np.asarray(photo(1, 64, 64)), (5, 6, 1)))
TINY = photo(1, 100, 100).resize((40, 40))


@pytest.mark.parametrize(
    ("name", "level_name", "image", "reasons"),
    [
        ("inpainting", "3_candidates", TINY, {"too_small"}),
        ("inpainting", "3_candidates", GRAY, {"few_places"}),
        ("cropped_patch", "turned", TINY.resize((28, 28)), {"too_small"}),
        ("cropped_patch", "zoomed", TINY, {"too_small"}),
        ("cropped_patch", "mixed", GRAY, {"blank"}),
        ("cropped_patch", "turned", GRAIN, {"symmetric"}),
        ("position_box", "small", TINY, {"too_small"}),
        ("position_box", "large", GRAY, {"blank"}),
        ("position_box", "small", PERIODIC, {"ambiguous"}),
        ("odd_one_out", "4_pictures", GRAY, {"blank"}),
        ("matching", "3_candidates", GRAY, {"blank"}),
        ("correspondence", "affine_4", TINY, {"too_small"}),
        ("correspondence", "affine_4", GRAY, {"few_points"}),
        ("correspondence", "affine_4", GRAIN, {"few_points"}),
        ("relative_position", "8_directions_3x3", TINY, {"too_small"}),
        ("relative_position", "4_directions", GRAY, {"blank"}),
        ("relative_position", "8_directions_3x3", PERIODIC, {"ambiguous"}),
        ("patch_distance", "3_cutouts", TINY, {"too_small"}),
        ("patch_distance", "3_cutouts", GRAY, {"few_places"}),
        ("patch_distance", "5_cutouts", PERIODIC, {"few_places"}),
    ],
)
def test_unfit_pictures_are_refused(name: str, level_name: str, image: Image.Image, reasons: set[str]) -> None:
    assert refusals(name, level_name, image) == reasons


@pytest.mark.parametrize("name", ["odd_one_out", "matching"])
def test_the_same_photo_twice_is_no_other_photo(name: str) -> None:
    image = photo(3).crop((0, 0, 200, 200))
    task = get_task(name)
    twins = tuple(Item(f"b{k}", image.copy(), f"b{k}") for k in range(task.others_needed))
    made = task.generate(Item("a", image, "a", twins), task.level(side=84), random.Random(0))
    assert isinstance(made, Rejection) and made.reason == "similar_photos"


@pytest.mark.parametrize("name", NAMES)
def test_no_picture_of_any_shape_is_too_much(name: str) -> None:
    task = get_task(name)
    for width, height in ((28, 28), (28, 560), (560, 28), (57, 56)):
        for seed, image in enumerate((photo(1).resize((width, height)), Image.new("RGB", (width, height), "white"))):
            for level_name in task.levels:
                generate(name, level_name, image, seed, 84)
    for level_name in task.levels:
        generate(name, level_name, photo(2), side=28)


@pytest.mark.parametrize(
    "name", ["odd_one_out", "position_box", "relative_position", "patch_distance", "correspondence"]
)
def test_what_is_shown_suffices_to_answer(name: str) -> None:
    """The oracles on a few pictures; hundreds of photographs are for the full check."""
    task = get_task(name)
    for level_name in (task.default_level, list(task.levels)[-1]):
        level = task.level(level_name, side=224)
        for _, sample in made(name, level_name, side=224, count=2):
            grader = task.grader(level)
            answer = grader.parse(grader.render(ORACLES[name](sample, level)))
            assert answer is not None and grader.equal(answer, sample.truth)
