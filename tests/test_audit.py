"""`ssl4rl audit`: planted leaks are found, honest tasks pass, and what photographs tell is not taken for a leak."""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pictures import clip, photo, rgbd
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from ssl4rl_plugin.analysis.audit import ArmAudit, AuditSubject, _holm, audit
from ssl4rl_plugin.analysis.audit.baselines import _effective, guess, with_options
from ssl4rl_plugin.analysis.audit.control import control_data
from ssl4rl_plugin.analysis.audit.draw import ControlPool, ManifestPool, draw, halves
from ssl4rl_plugin.analysis.audit.duplicates import duplicates
from ssl4rl_plugin.analysis.audit.features import GROUPS, describe, of_picture
from ssl4rl_plugin.cli import app
from ssl4rl_plugin.cli.audit import as_value
from ssl4rl_plugin.core import RGBD, Clip, Level, Rejection, Sample, Task
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.folder import FolderSource
from ssl4rl_plugin.grading import Choice, LabelSet, Permutation
from ssl4rl_plugin.tasks import registry
from ssl4rl_plugin.tasks.image.views import random_square, resized
from ssl4rl_plugin.training.settings import parse_arms

pytest.importorskip("sklearn")

LABELS = ("A", "B", "C")


@dataclass(frozen=True)
class PlantLevel(Level):
    side: int = 48
    leak: str = ""
    """What gives the right option away."""


class Plant(Task[PlantLevel]):
    """Three cuts of a picture, one of which is said to be the right one; only the leak tells which."""

    name = "plant"
    summary = "which of three alike cuts is meant"
    reference = "nowhere"
    levels = {
        leak or "honest": PlantLevel(leak=leak) for leak in ("", "size", "codec", "border", "order", "prompt", "sky")
    }
    default_level = "honest"

    def grader(self, level):
        return Choice(LABELS)

    def generate(self, item, level, rng):
        truth = rng.randrange(3) if level.leak != "order" else rng.choice((0, 0, 0, 0, 1, 2))
        options = [resized(random_square(item.image, rng), (level.side, level.side)) for _ in LABELS]
        right, words = options[truth], ""
        if level.leak == "size":
            right = resized(right, (level.side + 1, level.side))
        elif level.leak == "codec":
            right = jpeg(right, 40)
        elif level.leak == "border":
            right.paste((0, 0, 0), (0, 0, level.side, 1))
        elif level.leak == "prompt":
            words = " please" * truth
        elif level.leak == "sky" and "control" not in item.id:  # a cue that only photographs have
            right = right.point(lambda value: min(255, value + 60))
        options[truth] = right
        shown = tuple(options)
        return Sample("<image><image><image> Which?" + words, shown, LABELS[truth], options=shown)


class Declared(Plant):
    name = "plant_declared"
    cues = {"codec": "the question is which cut was compressed"}


class NoNoise(Plant):
    name = "plant_no_noise"

    def generate(self, item, level, rng):
        return Rejection("blank") if "control" in item.id else super().generate(item, level, rng)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.frombytes("RGB", image.size, Image.open(buffer).convert("RGB").tobytes())


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Fewer pictures without content, and smaller forests: planted leaks are plain."""
    monkeypatch.setattr("ssl4rl_plugin.analysis.audit.CONTROL_ITEMS", {"image": 12, "rgbd": 12, "video": 4})
    monkeypatch.setattr("ssl4rl_plugin.analysis.audit.baselines.TREES", 24)
    monkeypatch.setattr("ssl4rl_plugin.analysis.audit.FEWEST", 20)


@pytest.fixture(scope="module")
def pool(photo_folder):
    return ManifestPool(build_manifest(FolderSource(photo_folder)), 250_000)


def audited(pool, level: str, task: type[Task] = Plant, count: int = 60, seed: int = 0) -> ArmAudit:
    (arm,) = audit([AuditSubject(Arm(task(), level, {}, 1.0), pool, "photos")], count, seed)
    return arm


# what is found


@pytest.mark.parametrize(
    ("leak", "group", "kind"),
    [
        ("size", "layout", "options"),
        ("codec", "codec", "options"),
        ("border", "border", "options"),
        ("order", "-", "order"),
        ("prompt", "layout", "alone"),
    ],
)
def test_a_planted_leak_is_found_for_what_it_is(pool, leak, group, kind):
    arm = audited(pool, leak, count=80)
    assert arm.verdict == "leak" and arm.failed
    assert (kind, group) in {row.row.key[:2] for row in arm.having("leak")}


def test_an_honest_task_passes(pool):
    arm = audited(pool, "honest")
    assert arm.verdict == "chance" and arm.samples == 60 and not arm.failed
    assert {row.row.group for row in arm.rows} == {*GROUPS, "all", "-"}
    for judged in arm.rows:
        assert judged.source.low <= judged.source.share <= judged.source.high


def test_what_only_photographs_tell_is_no_leak(pool):
    arm = audited(pool, "sky")
    assert arm.verdict == "content" and not arm.failed
    assert {row.row.group for row in arm.having("content")} >= {"colour"}


def test_where_there_is_no_control_a_finding_is_a_leak(pool):
    arm = audited(pool, "sky", NoNoise)
    assert arm.verdict == "leak" and arm.control_samples == 0 and arm.control_refused["blank"] > 0
    assert "refuses pictures without content" in arm.having("leak")[0].reason


def test_a_declared_cue_is_no_leak_and_gives_its_reason(pool):
    arm = audited(pool, "codec", Declared)
    assert "codec" in {row.row.group for row in arm.having("declared")}
    assert all(row.row.group != "codec" for row in arm.having("leak"))
    assert arm.having("declared")[0].reason == Declared.cues["codec"]


def test_a_task_that_breaks_its_contract_is_an_error(pool):
    class Broken(Plant):
        def generate(self, item, level, rng):
            raise KeyError("oops")

    arm = audited(pool, "honest", Broken)
    assert arm.verdict == "error" and arm.failed and "KeyError" in arm.error


def test_a_set_of_options_and_an_order_of_pictures(pool):
    class Twins(Plant):
        def grader(self, level):
            return LabelSet((*LABELS, "D"), 2)

        def generate(self, item, level, rng):
            chosen = rng.sample(range(4), 2)
            images = [resized(random_square(item.image, rng), (48, 48 + (k in chosen))) for k in range(4)]
            return Sample("<image><image><image><image>", tuple(images), ["ABCD"[k] for k in chosen])

    class Shuffled(Plant):
        def grader(self, level):
            return Permutation(2, 2)

        def generate(self, item, level, rng):
            truth = rng.sample(range(1, 5), 4)  # entry p is the tile that belongs at place p
            images = [resized(random_square(item.image, rng), (48, 48 + (k == truth[0]))) for k in range(1, 5)]
            return Sample("<image><image><image><image>", tuple(images), truth)

    for task, chance in ((Twins, 0.5), (Shuffled, 0.25)):
        arm = Arm(task(), "honest", {}, 1.0)
        train, test = (
            with_options(task().grader(arm.level), draw(arm, pool, half, 30, (0,))) for half in halves(pool, 0)
        )
        rows = {row.key[:2]: row for row in guess(arm.task, arm.level, train, test)}
        best = rows["options", "layout"]
        assert best.share == 1.0 and best.chance == pytest.approx(chance, abs=0.02) and best.p < 1e-6
        assert rows["options", "colour"].p > 1e-4


def test_an_option_that_was_handled_like_the_picture_asked_about_is_found(pool):
    class Alike(Plant):
        """Five pictures, each of a sharpness of its own; the right option has that of the first."""

        def grader(self, level):
            return Choice((*LABELS, "D"))

        def generate(self, item, level, rng):
            truth = rng.randrange(4)
            blurs = [rng.uniform(0.3, 3) for _ in range(4)]
            images = [
                resized(random_square(item.image, rng), (48, 48)).filter(ImageFilter.GaussianBlur(blur))
                for blur in (blurs[truth], *blurs)
            ]
            return Sample("<image>" * 5, tuple(images), "ABCD"[truth], options=tuple(images[1:]))

    arm = Arm(Alike(), "honest", {}, 1.0)
    train, test = (draw(arm, pool, half, 60, (0,)) for half in halves(pool, 0))
    rows = {row.key[:2]: row for row in guess(arm.task, arm.level, train, test)}
    assert rows["options", "sharpness"].share > 0.6 and rows["options", "sharpness"].p < 1e-6
    assert rows["options", "layout"].p > 1e-4


# how samples are drawn


def test_a_suspect_of_which_few_samples_can_be_made_does_not_go_free(pool):
    """The task refuses nearly everything after the first look: what is left still convicts."""

    class Tired(Plant):
        def generate(self, item, level, rng):
            made.append(item.id)
            if len(made) > 120 and rng.random() < 0.985:
                return Rejection("tired")
            return super().generate(item, level, rng)

    made: list[str] = []
    arm = audited(pool, "size", Tired, count=80)
    (leak,) = [row for row in arm.having("leak") if row.row.key[:2] == ("options", "layout")]
    assert leak.source.n < 20  # FEWEST, in these tests


def test_no_group_is_in_both_halves_and_others_are_of_the_same_half(pool):
    train, test = halves(pool, 3)
    names = [{group for group, _ in half} for half in (train, test)]
    assert not names[0] & names[1] and sum(map(len, names)) == len(pool.groups())
    assert halves(pool, 3) == (train, test) != halves(pool, 4)

    class Pair(Plant):
        others_needed = 2

        def generate(self, item, level, rng):
            assert len({item.group, *(other.group for other in item.others)}) == 3
            seen.update(other.group for other in item.others)
            return super().generate(item, level, rng)

    seen: set[str] = set()
    arm = Arm(Pair(), "honest", {}, 1.0)
    batch = draw(arm, pool, train, 30, (0,))
    assert len(batch) == 30 and seen | set(batch.groups) <= names[0]
    again = draw(arm, pool, train, 30, (0,))
    assert batch.truths == again.truths and batch.groups == again.groups
    assert all(np.array_equal(a.prompt, b.prompt) for a, b in zip(batch.described, again.described, strict=True))


def test_equal_samples_and_refusals_are_counted(pool):
    class Same(Plant):
        def generate(self, item, level, rng):
            if rng.random() < 0.5:
                return Rejection("unlucky")
            return Sample("<image>", (item.image.resize((8, 8)),), "A")

    batch = draw(Arm(Same(), "honest", {}, 1.0), pool, halves(pool, 0)[0][:5], 20, (0,))
    assert len(batch) == 20 and batch.repeats == 15
    assert batch.refused["unlucky"] == batch.draws - 20 > 0


def test_the_number_of_workers_changes_nothing(pool, monkeypatch):
    monkeypatch.undo()  # other processes know nothing of it
    monkeypatch.setattr("ssl4rl_plugin.analysis.audit.CONTROL_ITEMS", {"image": 6})
    arm = Arm(parse_arms(["contrastive"])[0].task, "standard", {"side": 56}, 1.0)
    one, two = (audit([AuditSubject(arm, pool, "photos")], 80, 0, workers)[0] for workers in (1, 2))
    assert one.rows == two.rows and one.refused == two.refused and one.rows


# numbers


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 2), (28, 28), (133, 90)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "1"])
def test_every_picture_gives_as_many_finite_numbers(size, mode):
    wanted = {group: len(numbers) for group, numbers in of_picture(photo(0)).items()}
    found = of_picture(Image.new(mode, size))
    assert {group: len(numbers) for group, numbers in found.items()} == wanted
    assert list(found) == list(GROUPS) and all(np.isfinite(numbers).all() for numbers in found.values())


def test_samples_with_clips_and_options_are_described():
    film = clip(0, frames=7)
    numbers = describe(Sample("<image><video>", (photo(1),), "A", videos=(film,), options=(film, clip(1, frames=9))))
    assert all(len(rows) == 4 for rows in numbers.shown.values())
    assert len(numbers.prompt) == 5 + 2 and numbers.options["layout"].shape[0] == 2
    assert describe(Sample("Why?", (), "A")).shown["codec"].shape[0] == 0
    assert describe(Sample("<image>", (rgbd(0).image,), "A")).options is None


def test_the_numbers_tell_what_they_are_meant_to_tell():
    plain = photo(3, 200, 160)
    before = {group: numbers.copy() for group, numbers in of_picture(plain).items()}
    after = of_picture(jpeg(plain, 30))
    assert after["codec"][0] > before["codec"][0] + 0.05  # a step at every eighth line
    assert of_picture(plain.reduce(2).resize(plain.size))["sharpness"][0] < before["sharpness"][0] - 0.3
    turned = of_picture(plain.rotate(180))
    for group in ("sharpness", "colour"):  # by which pictures are compared: nothing that a turn would change
        assert np.allclose(turned[group], before[group], atol=0.002)
    assert np.allclose(turned["border"][24:], before["border"][24:], atol=0.002)


def test_control_pictures_have_no_direction_and_are_the_same_each_time():
    pictures = [control_data("image", number) for number in range(12)]
    assert pictures[3].tobytes() == control_data("image", 3).tobytes()
    assert len({picture.tobytes() for picture in pictures}) == 12 and len({picture.size for picture in pictures}) == 6
    halves = np.array([of_picture(picture)["halves"] for picture in pictures])
    assert np.all(np.abs(halves.mean(axis=0)) < 3 * halves.std(axis=0) / np.sqrt(12) + 1e-3)
    deep, film = control_data("rgbd", 0), control_data("video", 0)
    assert isinstance(deep, RGBD) and deep.depth.shape == deep.image.size[::-1] and np.isfinite(deep.depth).all()
    assert 0.3 < deep.depth.min() < deep.depth.max() < 40
    assert isinstance(film, Clip) and len(film.frames) == 96
    assert film.frames[0].tobytes() != film.frames[1].tobytes()
    assert len(ControlPool("rgbd", 32).groups()) == 32


def test_holm_and_dependent_observations():
    assert _holm({"a": 0.0001, "b": 0.004, "c": 0.2}) == {"a", "b"}
    assert _holm({"a": 0.006, "b": 0.006, "c": 0.2}) == set() and _holm({}) == set()
    hits = np.repeat([0.0, 1.0] * 20, 5)
    assert _effective(hits, [str(k // 5) for k in range(200)]) < 45  # five samples of a picture are worth one
    assert _effective(hits, [str(k) for k in range(200)]) > 198


# duplicates


def test_duplicates_are_counted_and_looked_for_across_the_splits(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    for number in range(6):
        photo(number).save(tmp_path / "train" / f"{number}.png")
        photo(number + 10).save(tmp_path / "val" / f"{number}.png")
    photo(0).save(tmp_path / "train" / "copy.png")
    photo(1).save(tmp_path / "train" / "near.jpg", quality=60)
    photo(10).save(tmp_path / "train" / "of_val.png")
    manifest = build_manifest(FolderSource(tmp_path))
    found = duplicates(manifest)
    if found.rejected:  # the folder source names splits
        assert found.rejected == {"duplicate_of_validation": 1} and found.train == 8 and found.val == 6
    assert (found.exact, found.near) in {(1, 1), (2, 1)} and found.straddling == ()

    class Careless(Manifest):  # has let one through
        def with_signatures(self):
            table = super().with_signatures()
            split = ["val" if ref.endswith("copy.png") else "train" for ref in table["ref"].to_pylist()]
            return table.set_column(table.schema.get_field_index("split"), "split", [split])

    assert len(duplicates(Careless(manifest.path)).straddling) >= 2


# the command


def test_everything_found_is_json():
    arm = ArmAudit("a:b", "x", {}, "here", 0.5, refused=Counter(blank=3))
    value = json.loads(json.dumps(as_value([arm], [("c", "why")], {}, 100, 0, False)))
    assert value["arms"][0]["refused"] == {"blank": 3} and value["not_audited"] == [{"arm": "c", "reason": "why"}]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setattr(registry, "_loaded", {**registry._loaded, "plant": Plant})


def test_the_command_passes_and_fails(planted, photo_folder, tmp_path):
    common = ("--path", photo_folder, "-n", 80, "--workers", 1, "--out", tmp_path / "audit.html")
    good = run("audit", "plant", *common)
    assert good.exit_code == 0, good.output
    assert "chance" in good.stdout and "1 levels audited: 0 with" in good.stdout
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "No leak" in html and "plant:honest" in html and "<svg" in html
    assert not re.search(r"<script|(src|href)=\"(?!data:|#)", html)

    bad = run("audit", "plant:size", *common, "--json")
    assert bad.exit_code == 1, bad.output
    found = json.loads(bad.stdout)
    assert found["passed"] is False and [arm["verdict"] for arm in found["arms"]] == ["leak"]
    (leak,) = [row for row in found["arms"][0]["baselines"] if (row["kind"], row["group"]) == ("options", "layout")]
    assert leak["verdict"] == "leak" and leak["source"]["share"] == 1.0 and leak["source"]["low"] > 0.8
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "1 level can be answered without the content" in html and "sizes, formats or the prompt" in html


def test_bad_input_ends_with_2(planted, photo_folder, tmp_path, monkeypatch):
    def refused(*arguments):
        result = run("audit", *arguments, "--workers", 1, "--out", tmp_path / "x.html")
        assert result.exit_code == 2 and "Traceback" not in result.output, result.output
        return " ".join(result.stderr.split())

    assert "--all" in refused() and "--all" in refused("plant", "--all")
    assert "unknown task" in refused("nonsense", "--path", photo_folder)
    assert "does not exist" in refused("plant", "--path", tmp_path / "nowhere")
    assert "80" in refused("plant", "--path", photo_folder, "-n", 10)
    assert "unknown source" in refused("plant", "--path", photo_folder, "--source", "nonsense")
    result = run("audit", "plant", "--path", photo_folder, "--out", tmp_path / "x.pdf")
    assert result.exit_code == 2 and ".html" in result.stderr

    class Picky(Plant):
        def generate(self, item, level, rng):
            return Rejection("never")

    monkeypatch.setitem(registry._loaded, "picky", Picky)
    assert "only 0 samples from 400 draws (never 400x)" in refused("picky", "--path", photo_folder, "-n", 80)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "ssl4rl-plugin[eval]" in refused("plant", "--path", photo_folder)


def test_a_kind_of_item_that_is_not_to_be_had(planted, photo_folder, tmp_path, monkeypatch):
    class Deep(Plant):
        kind = "rgbd"

    monkeypatch.setattr(registry, "_loaded", {"plant": Plant, "deep": Deep})
    monkeypatch.setattr(registry, "_found", {})
    monkeypatch.setattr(Plant, "levels", {"honest": PlantLevel()})
    arguments = ("--source", "folder", "--path", photo_folder, "-n", 80, "--workers", 1, "--out", tmp_path / "x.html")
    everything = run("audit", "--all", *arguments)
    assert everything.exit_code == 0, everything.output
    assert "not audited deep: it needs items of kind 'rgbd'" in " ".join(everything.stdout.split())
    assert "Not audited" in Path(tmp_path / "x.html").read_text(encoding="utf-8")
    assert run("audit", "deep", *arguments).exit_code == 2
    nothing = run("audit", "--all", *arguments[2:], "--source", "nonsense")
    assert nothing.exit_code == 2 and "nothing to audit" in nothing.stderr
