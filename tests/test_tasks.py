"""What every task at every level promises, checked over the whole registry: 100 samples of each on a push.

A new task is covered by these tests as soon as its entry point is there.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import math
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from graphs import made_graph
from pictures import clip, photo, rgbd
from PIL import Image
from scipy.stats import binomtest

from ssl4rl_plugin.core import Grader, GraphNode, Item, Level, Rejection, Sample, Task
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.data.images import difference
from ssl4rl_plugin.grading import Choice
from ssl4rl_plugin.grading.formats import FORMATS
from ssl4rl_plugin.tasks import get_task, registry
from ssl4rl_plugin.tasks.image.rotation import as_image, as_planes, turned
from ssl4rl_plugin.tasks.image.views import random_square, resized
from ssl4rl_plugin.training.rewards import compute_score

SAMPLES = int(os.environ.get("SSL4RL_TEST_SAMPLES", "100"))
"""Of every task at every level: 100 on a push, 500 in `make test-full`, 20 in `make test-fast`."""
SIDE = 84  # small pictures: what is promised does not depend on the size
TRUTH_SIDE = 56
"""Side of the pictures where only the truth is looked at."""
NAMES = os.environ.get("SSL4RL_TEST_TASKS", "").split(",") if os.environ.get("SSL4RL_TEST_TASKS") else registry.names()
"""While working on a task: SSL4RL_TEST_TASKS=flip,jigsaw leaves the others out."""
ARMS = [(name, level) for name in NAMES for level in get_task(name).levels]
BY_ARM = pytest.mark.parametrize(
    ("task_name", "level_name"), [pytest.param(*arm, marks=pytest.mark.xdist_group(":".join(arm))) for arm in ARMS]
)
TRUTHS = 40 * SAMPLES
"""Truths in a test of constant answers at chance 25 %; at other chances as many as have the same standard error.

4,000 on a push. A constant answer that is right in 30 % of them is 7 standard errors above 25 %, and `ALPHA` with
Holm's correction over four constants asks for 5: such a leak is found with a probability of 98 %.
"""
GLANCE = 4 if SAMPLES < 500 else 1
"""A part, 1 / `GLANCE`, of the truths is made first, which is enough for most levels; `make test-full` makes all."""
SUSPECT = 0.2
"""The other truths are made where a constant answer has a p-value below this, divided by the number of tests, in the first
part. Of 1,000 truths, an answer that is right in 30 % has it with a probability of 97 % among four answers: it is found with
95 % in all. At most every fifth level without a leak needs all truths."""
GRADERS_TRUTHS = TRUTHS // 2
"""Truths drawn from a grader without its task."""
ALPHA = 1e-3 / (4 * len(ARMS))
"""Level of each test of constant answers. At most four such tests run for each arm, so that all of them together fail
by chance in fewer than 1 of 1,000 runs with new seeds."""


def small(task_name: str, side: int = SIDE) -> dict[str, Any]:
    """Options that make a task's pictures small; what is promised does not depend on their size."""
    return {} if get_task(task_name).kind == "graph" else {"side": side}


@cache
def items(kind: str, scale: float = 1.0) -> list[Item]:
    if kind == "graph":
        graph = made_graph()
        return [
            Item(f"node{node}", GraphNode(graph, node, "train"), f"node{node}")
            for node in graph.nodes_of("train").tolist()
        ]
    sizes = [(round(scale * w), round(scale * h)) for w, h in [(320, 240), (240, 320), (260, 260)]]
    make = {"image": photo, "rgbd": rgbd, "video": lambda seed, w, h: clip(seed, 64, w // 2, h // 2)}[kind]
    return [Item(f"item{seed}", make(seed, *sizes[seed % 3]), f"group{seed}") for seed in range(24)]


def draw(task_name: str, level_name: str, number: int, truth_only: bool = False) -> Sample | Rejection:
    """Sample `number` of an arm, a pure function of its arguments. `truth_only` takes smaller pictures."""
    task = get_task(task_name)
    pool = items(task.kind, 0.4 if truth_only else 1.0)
    item = pool[number % len(pool)]
    others = tuple(pool[(number + 1 + k) % len(pool)] for k in range(task.others_needed))
    rng = rng_for(0, "test", task_name, level_name, item.id, number)
    options = small(task_name, TRUTH_SIDE if truth_only else SIDE)
    return task.generate(Item(item.id, item.data, item.group, others), task.level(level_name, **options), rng)


@cache
def samples(task_name: str, level_name: str) -> list[Sample]:
    """The first `SAMPLES` samples of an arm that are not refused."""
    made = (draw(task_name, level_name, number) for number in itertools.count())
    return list(itertools.islice((s for s in itertools.islice(made, 20 * SAMPLES) if isinstance(s, Sample)), SAMPLES))


def shown(sample: Sample) -> list[Image.Image]:
    """All pictures that the model sees, the frames of clips too."""
    return [*sample.images, *(frame for video in sample.videos for frame in video.frames)]


def fingerprint(sample: Sample | Rejection) -> str:
    """Hash of everything in a sample, pixels included."""
    if isinstance(sample, Rejection):
        return f"refused: {sample.reason}"
    digest = hashlib.sha256(json.dumps([sample.question, sample.truth, sample.params]).encode())
    for image in shown(sample):
        digest.update(f"{image.mode}{image.size}".encode() + image.tobytes())
    return digest.hexdigest()


def fingerprints(task_name: str, level_name: str, numbers: list[int]) -> list[str]:
    return [fingerprint(draw(task_name, level_name, number)) for number in numbers]


@BY_ARM
def test_samples_are_well_formed(task_name: str, level_name: str) -> None:
    task, level = get_task(task_name), get_task(task_name).level(level_name, **small(task_name))
    found = samples(task_name, level_name)
    assert len(found) == SAMPLES, "the task refuses nearly everything"
    for sample in found:
        assert sample.question.count("<image>") == len(sample.images)
        assert sample.question.count("<video>") == len(sample.videos)
        assert all(image.mode == "RGB" and max(image.size) <= SIDE * 1.2 for image in shown(sample))
        # A picture that was decoded inside a task remembers its file, and shows by that how it was made.
        assert not any(image.info or image.format for image in shown(sample))
        assert all(len({frame.size for frame in video.frames}) == 1 and video.fps > 0 for video in sample.videos)
        json.dumps([sample.truth, sample.params])
        assert json.loads(json.dumps(sample.truth)) == sample.truth, "the truth must survive JSON"
        assert task.gold(sample.truth, level) not in ("", None)


@cache
def odd_pictures() -> list[Image.Image]:
    """Pictures that tasks refuse: one colour, thin, tiny, gray, and low noise."""
    return [
        Image.new("RGB", (300, 200), (120, 80, 40)),
        photo(0, 640, 320).resize((640, 32)),
        photo(1, 400, 600).resize((40, 600)),
        photo(2).resize((28, 28)),
        photo(3).convert("L").convert("RGB"),
        Image.effect_noise((200, 200), 2).convert("RGB"),
    ]


def story(task_name: str) -> str:
    """The docstring of the task's file, which is where a user looks."""
    return inspect.getmodule(type(get_task(task_name))).__doc__ or ""


@BY_ARM
def test_every_refusal_is_explained(task_name: str, level_name: str) -> None:
    """The task's docstring names every reason that turns up on ordinary and on odd pictures."""
    task = get_task(task_name)
    level = task.level(level_name, **small(task_name))
    pool = items(task.kind)
    reasons = set()
    for number in range(60):
        item = pool[number % len(pool)]
        if number % 2 and task.kind == "image":
            item = Item(f"odd{number}", odd_pictures()[number // 2 % len(odd_pictures())], "odd")
        others = tuple(pool[(number + 1 + k) % len(pool)] for k in range(task.others_needed))
        made = task.generate(Item(item.id, item.data, item.group, others), level, random.Random(number))
        if isinstance(made, Rejection):
            reasons.add(made.reason)
    if not reasons:
        pytest.skip(f"this level of {task_name} refuses none of these 60 {task.kind} items")
    unexplained = {reason for reason in reasons if f"`{reason}`" not in story(task_name)}
    assert not unexplained


@BY_ARM
def test_gold_scores_one_and_every_wrong_answer_less(task_name: str, level_name: str) -> None:
    task, level = get_task(task_name), get_task(task_name).level(level_name, **small(task_name))
    grader = task.grader(level)
    rng = random.Random(0)
    wrong_pool = list(itertools.islice(grader.values(), 2000))
    for sample in samples(task_name, level_name):
        truth = encode_truth(task_name, level_name, small(task_name), sample.truth, "test:0")
        for fmt in FORMATS.values():
            response = fmt.render(task.gold(sample.truth, level))
            result = compute_score(f"ssl4rl/{task_name}", response, truth, answer_format=fmt.name)
            assert (result["score"], result["acc"], result["format"], result["error"]) == (1.0, 1.0, 1.0, "")
        for value in rng.sample(wrong_pool, min(5, len(wrong_pool))):
            if not grader.equal(value, sample.truth):
                result = compute_score("x", FORMATS["think_answer"].render(grader.render(value)), truth)
                assert result["score"] < 1 and result["acc"] == 0 and result["valid"] == 1


def constants(grader: Grader[Any]) -> list[Any]:
    """Constant answers worth trying: the grader's own best, and up to 25 of all the others."""
    some = list(itertools.islice(grader.values(), 2000))
    spread = [grader.best_guess, *some[:: max(1, len(some) // 24)]]
    return [value for number, value in enumerate(spread) if value not in spread[:number]]


def mean_similarity(grader: Grader[Any], value: Any, truths: list[Any]) -> float:
    return sum(grader.similarity(value, truth) for truth in truths) / len(truths)


def right(grader: Grader[Any], value: Any, truths: list[Any]) -> int:
    """Number of truths that the constant answer meets."""
    return sum(grader.equal(value, truth) for truth in truths)


def at_least(count: int, n: int, chance: float) -> float:
    """Exact probability of `count` or more right answers in n."""
    return float(binomtest(count, n, chance, alternative="greater").pvalue)


def mean_p(mean: float, n: int, expected: float) -> float:
    """Bound on the probability that n independent values in [0, 1] average `mean` or more (or less, if it is below).

    exp(-n KL(mean, expected)): Hoeffding, 1963, theorem 1. It is close to exact for values that are 0 or 1.
    """
    parts = ((mean, expected), (1 - mean, 1 - expected))
    if any(p > 0 and q <= 0 for p, q in parts):
        return 0.0
    return math.exp(-n * sum(p * math.log(p / q) for p, q in parts if p > 0))


def holm(p_values: dict[str, float], alpha: float) -> list[str]:
    """The hypotheses that Holm's procedure rejects at family-wise level alpha."""
    ordered = sorted(p_values, key=p_values.__getitem__)
    passed = itertools.takewhile(lambda k: p_values[ordered[k]] <= alpha / (len(ordered) - k), range(len(ordered)))
    return [ordered[k] for k in passed]


def check_against_chance(grader: Grader[Any], truths: list[Any]) -> None:
    """No constant answer does better on these truths than the grader's chance says."""
    too_good = holm(constant_p_values(grader, truths), ALPHA)
    assert not too_good, f"chance is {grader.chance_accuracy:.4f} and {grader.chance_similarity:.4f}: {too_good}"


def constant_p_values(grader: Grader[Any], truths: list[Any]) -> dict[str, float]:
    """For constant answers, in words, the p-values of how well they do on these truths under the grader's chance."""
    n, p_values = len(truths), {}
    for value in constants(grader):
        count = right(grader, value, truths)
        p_values[f"{value!r} is right in {count} of {n}"] = at_least(count, n, grader.chance_accuracy)
        similarity = mean_similarity(grader, value, truths)
        if similarity > grader.chance_similarity and not math.isclose(
            similarity, count / n
        ):  # else the same test again
            p_values[f"{value!r} has similarity {similarity:.3f}"] = mean_p(similarity, n, grader.chance_similarity)
    return p_values


def truths_needed(chance: float) -> int:
    """Truths with which an accuracy has the standard error that `TRUTHS` give at chance 25 %; at least `SAMPLES`."""
    return max(SAMPLES, math.ceil(TRUTHS * chance * (1 - chance) / (0.25 * 0.75)))


@BY_ARM
def test_no_constant_answer_beats_chance(task_name: str, level_name: str) -> None:
    task, level = get_task(task_name), get_task(task_name).level(level_name, **small(task_name))
    check_against_chance(task.grader(level), [sample.truth for sample in samples(task_name, level_name)])


def pools() -> list[tuple[str, tuple[str, ...]]]:
    """Levels of a task whose graders are equal, and so have the same answers and the same chance."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, level_name in ARMS:
        grader = get_task(name).grader(get_task(name).level(level_name, **small(name)))
        found.setdefault((name, repr(grader)), []).append(level_name)
    return [(name, tuple(levels)) for (name, _), levels in found.items()]


def draw_truths(
    task: Task[Any], level_names: Sequence[str], sample: Callable[[str, int], Sample | Rejection], part: int = 1
) -> list[Any]:
    """As many truths as `truths_needed` says, or 1 / `part` of them, in equal numbers from the levels."""
    needed = truths_needed(task.grader(task.level(level_names[0])).chance_accuracy)
    needed = math.ceil(needed / part / len(level_names))
    truths = []
    for level_name in level_names:
        made = (sample(level_name, number) for number in range(20 * needed))
        found = list(itertools.islice((s.truth for s in made if isinstance(s, Sample)), needed))
        assert len(found) == needed, f"{level_name} refuses nearly everything"
        truths += found
    return truths


def check_many_truths(
    task: Task[Any],
    grader: Grader[Any],
    level_names: Sequence[str],
    sample: Callable[[str, int], Sample | Rejection],
) -> None:
    """`check_against_chance` on all truths of `draw_truths`, unless nothing is suspect in a part of them."""
    if GLANCE > 1:
        found = constant_p_values(grader, draw_truths(task, level_names, sample, GLANCE))
        if min(found.values()) > SUSPECT / len(found):
            return
    check_against_chance(grader, draw_truths(task, level_names, sample))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task_name", "level_names"), pools(), ids=lambda value: value if isinstance(value, str) else "+".join(value)
)
def test_no_constant_answer_beats_chance_in_many_truths(task_name: str, level_names: tuple[str, ...]) -> None:
    """Enough truths to find a constant answer that is right in 30 % where chance is 25 % (see `TRUTHS`)."""
    first = [draw(task_name, level, number, truth_only=True) for level in level_names for number in range(8)]
    smaller = sum(isinstance(made, Sample) for made in first) > len(first) / 2  # some tasks refuse small pictures
    task = get_task(task_name)
    check_many_truths(
        task,
        task.grader(task.level(level_names[0])),
        level_names,
        lambda level, number: draw(task_name, level, number, truth_only=smaller),
    )


@dataclass(frozen=True)
class LeakyLevel(Level):
    leak: float = 0.25


class Leaky(Task[LeakyLevel]):
    """Four letters; "C" is the truth with probability `leak`, the others share the rest."""

    levels = {"plain": LeakyLevel()}

    def generate(self, item: Item, level: LeakyLevel, rng: random.Random) -> Sample:
        return Sample("Which?", (), "C" if rng.random() < level.leak else rng.choice("ABD"))

    def grader(self, level: LeakyLevel) -> Grader[Any]:
        return Choice(("A", "B", "C", "D"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("leak", [0.25, 0.30])
def test_a_constant_that_is_right_in_30_percent_is_found(
    leak: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above, with the numbers of a push, on a task that leaks and on one that does not."""
    for name, value in {"TRUTHS": 4000, "GLANCE": 4}.items():
        monkeypatch.setitem(globals(), name, value)
    task = Leaky()

    def sample(_: str, number: int) -> Sample:
        return task.generate(Item("a", None), LeakyLevel(leak=leak), rng_for(seed, "leaky", number))

    assert [len(draw_truths(task, ["plain"], sample, part)) for part in (1, 4)] == [4000, 1000]
    if leak > 0.25:
        with pytest.raises(AssertionError, match=r"'C' is right in .* of 4000"):
            check_many_truths(task, task.grader(LeakyLevel()), ["plain"], sample)
    else:
        check_many_truths(task, task.grader(LeakyLevel()), ["plain"], sample)


@cache
def grader_of(task_name: str, level_name: str) -> Grader[Any]:
    return get_task(task_name).grader(get_task(task_name).level(level_name))


@BY_ARM
def test_chance_is_what_simulated_guessing_gets(task_name: str, level_name: str) -> None:
    """Truths drawn by the grader, without the task: no constant beats the stated chance, and the best guess meets it."""
    grader = grader_of(task_name, level_name)
    rng = random.Random(1)
    truths = [grader.draw(rng) for _ in range(GRADERS_TRUTHS)]
    check_against_chance(grader, truths)
    best = mean_similarity(grader, grader.best_guess, truths)
    assert mean_p(best, len(truths), grader.chance_similarity) > ALPHA, (best, grader.chance_similarity)


@pytest.mark.parametrize(
    ("task_name", "level_name"), [arm for arm in ARMS if grader_of(*arm).chance_accuracy * GRADERS_TRUTHS >= 40]
)
def test_the_best_constant_reaches_the_stated_chance(task_name: str, level_name: str) -> None:
    """Also not significantly below it. Where fewer than 40 right answers are expected, only enumeration can tell."""
    grader = grader_of(task_name, level_name)
    rng = random.Random(2)
    truths = [grader.draw(rng) for _ in range(GRADERS_TRUTHS)]
    best = max(right(grader, value, truths) for value in constants(grader))
    # If the best constant is right with the stated chance, the most right answers are so few with at most this probability.
    assert binomtest(best, len(truths), grader.chance_accuracy, alternative="less").pvalue > ALPHA


@cache
def number_of_answers(task_name: str, level_name: str) -> int | None:
    """How many answers there are, if the truth is uniform over them and they can be listed."""
    grader = grader_of(task_name, level_name)
    if not grader.uniform:  # these state how their truths are drawn; the tests above compare them with draws
        return None
    count = sum(1 for _ in itertools.islice(grader.values(), 400_001))  # 9! = 362,880 orders
    return count if count <= 400_000 else None


@pytest.mark.parametrize(("task_name", "level_name"), [arm for arm in ARMS if number_of_answers(*arm)])
def test_chance_accuracy_is_one_of_the_number_of_answers(task_name: str, level_name: str) -> None:
    assert grader_of(task_name, level_name).chance_accuracy == pytest.approx(
        1 / number_of_answers(task_name, level_name)
    )


@pytest.mark.parametrize(
    ("task_name", "level_name"), [arm for arm in ARMS if (number_of_answers(*arm) or math.inf) <= 5040]
)
def test_chance_is_what_enumeration_gives(task_name: str, level_name: str) -> None:
    """Where the truth is uniform over few enough answers, the closed form of the similarity is exact."""
    grader = grader_of(task_name, level_name)
    values = list(grader.values())
    best = max(mean_similarity(grader, constant, values) for constant in (grader.best_guess, *values[:12]))
    assert best == pytest.approx(grader.chance_similarity, abs=1e-9)


def test_bytes_do_not_depend_on_the_number_of_workers() -> None:
    """Each arm's samples made in order by one process, and out of order by four."""
    numbers = list(range(12 if SAMPLES >= 100 else 4))
    with ProcessPoolExecutor(4) as pool:
        parts = {
            (arm, worker): pool.submit(fingerprints, *arm, numbers[::-1][worker::4])
            for arm in ARMS
            for worker in range(4)
        }
        for arm in ARMS:
            shared = {n: f for w in range(4) for n, f in zip(numbers[::-1][w::4], parts[arm, w].result(), strict=True)}
            assert [shared[n] for n in numbers] == fingerprints(*arm, numbers)


def test_neighbouring_seeds_share_nothing() -> None:
    def angles(seed: int) -> list[int]:
        return [rng_for(seed, "train", "rotation", n).randrange(1000) for n in range(200)]

    assert sum(a == b for a, b in zip(angles(42), angles(43), strict=True)) < 5
    assert len(set(angles(42)[1:]) & set(angles(43)[:-1])) < 60


def test_unknown_levels_and_options_name_what_there_is() -> None:
    task = get_task("jigsaw")
    with pytest.raises(ValueError, match=r"no level '5x5'.*2x2"):
        task.level("5x5")
    with pytest.raises(ValueError, match=r"no option 'sidee'.*side"):
        task.level("2x2", sidee=3)
    with pytest.raises(ValueError, match="at least 28"):
        task.level("2x2", side=3)


# The refusals, each with the picture that must bring it about.


def refusal(task_name: str, level_name: str, image: Image.Image, other: Image.Image | None = None) -> set[str]:
    task = get_task(task_name)
    level = task.level(level_name, side=SIDE)
    others = (Item("b", other, "b"),) if other else ()
    made = [task.generate(Item("a", image, "a", others), level, random.Random(n)) for n in range(20)]
    return {m.reason if isinstance(m, Rejection) else "made" for m in made}


def test_blank_and_symmetric_pictures_are_refused() -> None:
    gray = Image.new("RGB", (300, 300), "gray")
    rings = Image.radial_gradient("L").resize((300, 300)).convert("RGB")
    # Every row is of one colour: what lies side by side looks the same.
    striped = Image.fromarray(np.repeat(np.random.default_rng(0).integers(0, 255, (400, 1, 3), dtype=np.uint8), 400, 1))
    striped = striped.resize((20, 20), Image.Resampling.BOX).resize((400, 400), Image.Resampling.NEAREST)

    class Whole(random.Random):
        """Always takes the largest cut, so that the rings stay in the middle."""

        def uniform(self, a: float, b: float) -> float:
            return b

    rotation = get_task("rotation")
    for level_name in rotation.levels:
        made = rotation.generate(Item("a", rings), rotation.level(level_name, side=SIDE), Whole(0))
        assert isinstance(made, Rejection) and made.reason == "symmetric"
    assert refusal("rotation", "single_45", gray) == {"blank"}
    assert refusal("jigsaw", "2x2", gray) == {"blank_tile"}
    assert refusal("jigsaw", "3x3", striped) <= {"similar_tiles", "blank_tile"}
    assert refusal("position", "quadrants", striped) <= {"ambiguous", "blank"}
    assert refusal("position", "quadrants", gray) == {"blank"}
    assert refusal("altered_patch", "2x2_mask", gray) == {"blank_cell"}
    assert refusal("altered_patch", "3x3_gray", rings) <= {"no_visible_change", "blank_cell"}
    assert refusal("altered_patch", "2x2_swap", rings) <= {"no_visible_change", "blank_cell"}


def test_the_same_photo_twice_is_no_negative() -> None:
    image = photo(3)
    square = image.crop((0, 0, 200, 200))
    assert refusal("contrastive", "standard", square, square.copy()) == {"similar_photos"}


@pytest.mark.parametrize("level_name", ["2x1", "2x2", "3x3", "4x4"])
def test_jigsaw_truth_reassembles_the_picture(level_name: str) -> None:
    """The convention, checked on pixels: entry p is the number of the shown tile that belongs at place p."""
    ramp = np.linspace(0, 255, 240)
    red, green = np.meshgrid(ramp, ramp)  # red grows to the right, green grows downwards
    image = Image.fromarray(np.stack([red, green, 255 - red], axis=-1).astype(np.uint8))
    task = get_task("jigsaw")
    level = task.level(level_name, side=SIDE)
    for number in range(10):
        sample = task.generate(Item("a", image), level, random.Random(number))
        assert isinstance(sample, Sample)
        means = np.array([np.asarray(sample.images[tile - 1], float).mean(axis=(0, 1)) for tile in sample.truth])
        grid = means.reshape(level.rows, level.cols, 3)
        assert (np.diff(grid[:, :, 0], axis=1) > 5).all() and (np.diff(grid[:, :, 1], axis=0) > 5).all()


def test_the_worked_example_of_the_jigsaw_tells_the_two_readings_apart() -> None:
    for level_name in get_task("jigsaw").levels:
        grader = get_task("jigsaw").grader(get_task("jigsaw").level(level_name))
        question = samples("jigsaw", level_name)[0].question
        example = grader.parse(question.split("For example, ")[1].split(" would mean")[0])
        inverse = tuple(example.index(k) + 1 for k in range(1, len(example) + 1))
        assert inverse != example or len(example) == 2
        assert "tile 2 belongs at top" in question or "tile 2 belongs at row 1 column 1" in question


TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
"""PIL's transposes are counter-clockwise."""


def test_rotation_turns_counter_clockwise() -> None:
    task = get_task("rotation")
    seen = set()
    for number in range(30):
        sample = task.generate(Item("a", photo(number)), task.level("pair_90", side=SIDE), random.Random(number))
        if isinstance(sample, Sample):
            before, after = sample.images
            assert before.size == after.size
            turned_by = {0: before} | {angle: before.transpose(turn) for angle, turn in TURNS.items()}
            assert min(turned_by, key=lambda angle: difference(turned_by[angle], after)) == sample.truth
            assert difference(turned_by[sample.truth], after) < 0.02
            seen.add(sample.truth)
    assert seen == {0, 90, 180, 270}


def by(square: Image.Image, angle: int, kept: int) -> Image.Image:
    """The middle of a square, turned."""
    return as_image(turned(as_planes(square), angle, kept, kept))


def test_finer_rotations_turn_the_same_way_and_show_no_corner() -> None:
    square = photo(5, 300, 300)
    for angle, turn in TURNS.items():
        expected = square.transpose(turn).crop((50, 50, 250, 250))
        assert difference(by(square, angle, 200), expected) < 0.01
    # By 45 degrees twice is by 90 degrees once.
    assert difference(by(by(square, 45, 212), 45, 140), by(square, 90, 140)) < 0.02
    white = Image.new("RGB", (300, 300), "white")
    for angle in range(0, 360, 15):
        assert by(white, angle, 210).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("level_name", ["single_45", "single_30"])
def test_the_spectrum_does_not_tell_the_angle(level_name: str) -> None:
    """A guesser that knows only the orientation of the finest detail, on pictures without any direction of their own.

    Resampling has a square passband that turns with the picture; unless the task hides it, such a guesser tells right
    angles from others with an area under the curve near 1.
    """
    task = get_task("rotation")
    level = task.level(level_name, side=SIDE)
    noise = np.random.default_rng(0)
    right, other = [], []
    for number in range(160):
        # White noise times 1 / f has the spectrum of photographs and no preferred direction.
        f = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
        f[0, 0] = 1
        plane = np.fft.ifft2(np.fft.fft2(noise.standard_normal((256, 256))) / f).real
        gray = np.clip(128 + 50 * plane / plane.std(), 0, 255).astype(np.uint8)
        sample = task.generate(Item("a", Image.fromarray(gray).convert("RGB")), level, random.Random(number))
        assert isinstance(sample, Sample)
        shown = np.asarray(sample.images[0].convert("L"), float)
        power = np.abs(np.fft.fft2(shown * np.outer(np.hanning(len(shown)), np.hanning(len(shown))))) ** 2
        fx, fy = np.meshgrid(np.fft.fftfreq(len(shown)), np.fft.fftfreq(len(shown)))
        direction = np.cos(4 * np.arctan2(fy, fx))  # +1 along the axes, -1 along the diagonals
        fine = (np.hypot(fx, fy) > 0.25) & (np.hypot(fx, fy) < 0.5)
        cue = np.log(power[fine & (direction > 0.5)].mean() / power[fine & (direction < -0.5)].mean())
        (right if sample.truth % 90 == 0 else other).append(cue)
    area = np.mean([a > b for a in right for b in other])
    spread = math.sqrt((len(right) + len(other) + 1) / (12 * len(right) * len(other)))  # of the area under no effect
    assert abs(area - 0.5) < 4 * spread, f"area under the curve {area:.2f}"


def test_altered_patch_changes_one_cell_only() -> None:
    """Against the same cut unaltered: one cell is gray, and no pixel of the eight others differs."""
    task, cell = get_task("altered_patch"), SIDE // 3
    level = task.level("3x3_mask", side=SIDE)
    checked = 0
    for number in range(10):
        sample = task.generate(Item("a", photo(number)), level, random.Random(number))
        if isinstance(sample, Sample):
            before = resized(random_square(photo(number), random.Random(number), smallest=0.5), (SIDE, SIDE))
            left, upper, right, lower = sample.params["box"]
            row, col = upper // cell, left // cell
            assert (left, upper, right, lower) == (col * cell, row * cell, (col + 1) * cell, (row + 1) * cell)
            assert sample.truth == "ABCDEFGHI"[row * 3 + col]
            after = np.asarray(sample.images[0])
            assert (after[upper:lower, left:right] == 128).all()
            changed = np.any(after != np.asarray(before), axis=-1).reshape(3, cell, 3, cell).sum(axis=(1, 3))
            assert changed[row, col] > 0.9 * cell**2
            assert changed.sum() == changed[row, col], "another cell was changed too"
            checked += 1
    assert checked >= 5


def test_the_strength_of_an_altered_patch_is_a_share_of_the_change() -> None:
    """Same place and same cut at any strength; half of it is half-way to gray, and nothing changes elsewhere."""
    task = get_task("altered_patch")

    def pixels(strength: float) -> tuple[np.ndarray, list[int]]:
        level = task.level("2x2_mask", side=SIDE, strength=strength)
        sample = task.generate(Item("a", photo(3)), level, random.Random(3))
        assert isinstance(sample, Sample)
        return np.asarray(sample.images[0], np.float64), sample.params["box"]

    full, box = pixels(1.0)
    left, upper, right, lower = box
    cell = (slice(upper, lower), slice(left, right))
    before = []
    for strength in (0.5, 0.75):
        picture, same = pixels(strength)
        before.append((picture[cell] - 128 * strength) / (1 - strength))
        picture[cell] = full[cell]
        assert same == box and np.array_equal(picture, full)
    assert before[0].std() > 10
    assert np.abs(before[0] - before[1]).max() <= 1 / 0.5 + 1 / 0.25  # a rounded level each
    with pytest.raises(ValueError, match=r"strength must be in \(0, 1\], got 0"):
        task.level("2x2_mask", strength=0.0)
