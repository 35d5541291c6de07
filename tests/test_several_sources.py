"""Several sources in one run: who draws from which, groups and splits across them, resume, builds, overlap."""

from __future__ import annotations

import collections
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import clip, photo
from PIL import Image

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.decks import Deck, cards_of
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.mixture import Mixture, Regrouped
from ssl4rl_plugin.data.pools import SampleError
from ssl4rl_plugin.data.rows import OnlineRows
from ssl4rl_plugin.data.samples import SampleStream, extra_info
from ssl4rl_plugin.training.settings import Settings, SettingsError

PIXELS = 28 * 28 * 16
GRAPH = {"source": "les_miserables", "name": "novel", "val_fraction": 0.3}


def folder_of(path: Path, numbers: range, size: tuple[int, int] = (96, 72)) -> Path:
    """A folder of different photographs, as PNG."""
    path.mkdir()
    for number in numbers:
        photo(number, *size).save(path / f"{number:03}.png")
    return path


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("one") / "a", range(20))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("other") / "b", range(100, 110))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos") / "v"
    for number in range(8):
        (root / f"clip{number}").mkdir(parents=True)
        for k, frame in enumerate(clip(number, 40, 96, 72).frames):
            frame.save(root / f"clip{number}" / f"{k:03}.jpg")
    return root


def section(sources: list[dict[str, Any]], tasks: list[Any], **changes: Any) -> dict[str, Any]:
    source = {"name": "folder", "path": None, "max_pixels": PIXELS, "val_fraction": 0.3}
    return {
        "tasks": tasks, "options": {"side": 56} if "side" not in changes else {}, "seed": 3, "epochs": 3, "val_samples": 4,
        "source": source, "sources": sources, "answer_format": "answer_only", **changes,
    }  # fmt: skip


def stream(given: dict[str, Any], split: str = "train") -> SampleStream:
    read = Settings.from_config(given)
    return SampleStream(read, load_manifest(read), split)


def drawn(found: SampleStream, count: int | None = None) -> list[tuple[str, str, str, str]]:
    made = [found[index] for index in range(len(found) if count is None else count)]
    return [(one.arm.key, one.source, one.item_id, one.truth_json) for one in made]


# ------------------------------------------------------------------------------------------------- decks


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.none() | st.floats(0.01, 100)), min_size=1, max_size=5), st.integers(0, 9)
)
def test_a_deck_gives_every_item_once_before_any_comes_again(
    sources: list[tuple[int, float | None]], seed: int
) -> None:
    sizes, weights = [size for size, _ in sources], [weight for _, weight in sources]
    deck = Deck(sizes, weights, (seed, "train"))
    count = 3 * len(deck)
    found = [deck.draw(position) for position in range(count)]
    again = Deck(sizes, weights, (seed, "train"))
    assert [again.draw(position) for position in reversed(range(count))] == found[::-1]
    for number in range(len(sizes)):
        uses = [use for source, use in found if source == number]
        assert uses == list(range(len(uses))), "the uses of a source count up, so that its items come in its own order"
        assert len(uses) == 3 * deck.cards[number] > 0
    if all(weight is None for weight in weights):
        assert deck.cards == sizes


def test_weights_count_and_sizes_do_not() -> None:
    assert cards_of([10, 20], [None, None]) == [10, 20]
    assert cards_of([10, 20], [None, 2.0]) == [10, 20] == cards_of([20, 10], [None, 2.0])
    assert cards_of([1000, 1000], [3.0, 1.0]) == [1500, 500]
    assert cards_of([5, 5], [1e9, 1e-9])[1] == 1


# ------------------------------------------------------------------------------------------------- streams


def test_without_weights_an_epoch_uses_every_picture_of_all_folders_once(one: Path, other: Path) -> None:
    found = stream(section([{"path": str(one)}, {"path": str(other)}], ["rotation"]))
    items = {f"{source.label}:{item.id}" for source in found.sources for item in source.items}
    count = len(items)
    assert len(found) == 3 * count and {source.label for source in found.sources} == {"a", "b"}
    rows = drawn(found)
    for epoch in range(3):
        assert {row[2] for row in rows[epoch * count : (epoch + 1) * count]} == items
    assert len({row[3] for row in rows}) == len(rows)


def test_a_weight_is_the_share_of_a_source(one: Path, other: Path) -> None:
    entries = [{"path": str(one)}, {"path": str(other), "weight": 3}]
    found = stream(section(entries, ["rotation"], epochs=4))
    counts = collections.Counter(row[1] for row in drawn(found))
    assert counts["b"] / counts.total() == pytest.approx(0.75, abs=0.03)  # whole cards: a deck has as many as items


def test_each_task_draws_from_the_sources_of_its_kind(one: Path, other: Path, videos: Path) -> None:
    entries = [{"path": str(one)}, {"path": str(other), "weight": 2}, {"source": "video", "path": str(videos)}, GRAPH]
    given = section(entries, ["rotation", "arrow_of_time", "link_prediction"])
    found = stream(given)
    rows = drawn(found, 60)
    by_task = collections.defaultdict(set)
    for key, source, item, truth in rows:
        by_task[key.partition(":")[0]].add(source)
        assert item.startswith(f"{source}:") and json.loads(truth)["source"] == source
    assert by_task == {"rotation": {"a", "b"}, "arrow_of_time": {"v"}, "link_prediction": {"novel"}}
    made = found[0]
    assert (
        made.data_source == f"ssl4rl/{made.arm.task.name}/{made.source}" and extra_info(made)["source"] == made.source
    )
    # Held-out samples name their source, too.
    assert {row[1] for row in drawn(stream(given, "val"))} == {"a", "b", "v", "novel"}


def test_an_image_task_takes_videos_only_if_there_are_no_images(videos: Path) -> None:
    alone = stream(section([{"source": "video", "path": str(videos)}], ["rotation", "arrow_of_time"]))
    assert {row[0].partition(":")[0] for row in drawn(alone)} == {"rotation", "arrow_of_time"}


def test_a_sample_depends_on_seed_and_number_alone(one: Path, other: Path, videos: Path) -> None:
    entries = [{"path": str(one)}, {"path": str(other), "weight": 2}, {"source": "video", "path": str(videos)}]
    given = section(entries, ["rotation", "contrastive", "arrow_of_time"])
    forwards = drawn(stream(given), 24)
    copy = pickle.loads(pickle.dumps(stream(given)))
    assert [drawn_at(copy, index) for index in reversed(range(24))] == forwards[::-1]
    assert drawn(stream(given | {"seed": 4}), 24) != forwards
    # The same sample comes out for a curriculum, or a report, that names the arm.
    found = stream(given)
    for index, row in enumerate(forwards[:8]):
        arm = next(arm for arm in found.settings.arms if arm.key == row[0])
        assert found.of_arm(index, arm).truth_json == row[3]


def drawn_at(found: SampleStream, index: int) -> tuple[str, str, str, str]:
    made = found[index]
    return made.arm.key, made.source, made.item_id, made.truth_json


def test_fixed_corruptions_repeat_each_item_with_its_task(one: Path, other: Path, videos: Path) -> None:
    entries = [{"path": str(one)}, {"path": str(other)}, {"source": "video", "path": str(videos)}]
    found = stream(section(entries, ["rotation", "flip", "arrow_of_time"], fixed_corruptions=True))
    seen: dict[str, tuple[str, Any, str]] = {}
    repeats = 0
    for index in range(len(found)):
        made = found[index]
        now = (made.arm.key, made.sample.truth, made.instruction)
        assert seen.setdefault(made.item_id, now) == now
        repeats += 1
    assert repeats > len(seen)


def test_a_run_with_one_source_in_the_list_differs_from_the_single_form_in_names_only(one: Path) -> None:
    listed = stream(section([{"path": str(one), "name": "a"}], ["rotation"]))
    single = stream({**section([], ["rotation"]), "source": {**section([], [])["source"], "path": str(one)}})
    assert len(listed) == len(single) and {item.id for item in listed.items} == {item.id for item in single.items}
    made = single[0]
    assert made.source == "" and "source" not in extra_info(made) and "source" not in json.loads(made.truth_json)
    assert made.data_source == "ssl4rl/rotation"


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("entries", "tasks", "message"),
    [
        ([{"path": "ONE"}], ["arrow_of_time"], r"arrow_of_time:.* needs items of kind 'video'.*'a' \(image\).*add a"),
        ([{"path": "ONE", "val_fraction": 0}], ["rotation"], r"draws from ssl4rl.sources 'a', which have no items"),
        ([{"path": "ONE", "train_size": 1000}], ["rotation"], r"train_size of source 'a' is 1000, and there are \d+"),
        ([{"path": "ONE"}, {"path": "/no/where"}], ["rotation"], r"ssl4rl.sources, 'where': there is no path /no/where"),
        ([{"path": "ONE"}, {"source": "foldr", "path": "ONE"}], ["rotation"], r"ssl4rl.sources, 'a_2'.*foldr.*folder"),
    ],
)  # fmt: skip
def test_a_source_that_does_not_fit_is_refused_with_the_remedy(
    one: Path, entries: list[dict[str, Any]], tasks: list[str], message: str
) -> None:
    named = [{**entry, "path": str(one)} if entry.get("path") == "ONE" else entry for entry in entries]
    with pytest.raises(UserError, match=message):
        for split in ("train", "val"):
            stream(section(named, tasks), split)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{}], r"ssl4rl.sources.0 needs a path, or a source"),
        ([{"path": "/a", "wieght": 2}], r"no key ssl4rl.sources.0.wieght \(did you mean 'weight'"),
        ([{"path": "/a", "weight": 0}], r"ssl4rl.sources.0.weight must be greater than 0"),
        ([{"path": "/a", "weight": "2"}], r"ssl4rl.sources.0.weight must be a valid number"),
        ([{"path": "/a", "name": "x/y"}], r"ssl4rl.sources.0.name.*letters"),
        ([{"path": "/a", "name": "x"}, {"path": "/b", "name": "x"}], r"two entries with the name 'x'"),
        (["/a"], r"ssl4rl.sources.0 must be a mapping"),
        ([{"path": "/a"}, {"path": "/a/", "weight": 2}], r"ssl4rl.sources.1 is the same as ssl4rl.sources.0: list it once"),
    ],
)  # fmt: skip
def test_wrong_entries_are_named(entries: list[Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_config(section(entries, ["rotation"]))


def test_both_forms_at_once_are_ambiguous() -> None:
    given = section([{"path": "/b"}], ["rotation"])
    with pytest.raises(SettingsError, match=r"ssl4rl.source.path is '/a' and ssl4rl.sources lists"):
        Settings.from_config({**given, "source": {**given["source"], "path": "/a"}})


@given(
    st.lists(
        st.sampled_from(["/x/photos", "/y/photos", "photos/", "/z/photos_2", "g.csv", "/", "/ä b"]),
        max_size=6,
        unique=True,
    )
)
@settings(max_examples=30, deadline=None)
def test_names_from_paths_are_unique_and_fit_metrics(paths: list[str]) -> None:
    labels = [one.label for one in Settings.from_config(section([{"path": p} for p in paths], ["rotation"])).sources]
    assert len(set(labels)) == len(paths) and all("/" not in label and " " not in label and label for label in labels)


# ------------------------------------------------------------------------------------------------- groups across sources


def held_out_and_trained(found: Mixture) -> tuple[set[str], set[str]]:
    groups = {split: {item.group for item in found.items(split)} for split in ("train", "val")}
    return groups["train"], groups["val"]


def copies(source: Path, target: Path, how: str) -> Path:
    """Copies of a folder's pictures: the same bytes, or re-encoded and scaled."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        if how == "bytes":
            (target / f"copy-{path.name}").write_bytes(path.read_bytes())
        else:
            picture = Image.open(path)
            picture.resize((picture.width * 5 // 4, picture.height * 5 // 4)).save(
                target / f"{path.stem}.jpg", quality=85
            )
    return target


@pytest.mark.parametrize("how", ["bytes", "re-encoded"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_picture_in_two_folders_is_in_one_split(tmp_path: Path, how: str, seed: int) -> None:
    first = folder_of(tmp_path / "a", range(24), (160, 120))
    second = copies(first, tmp_path / "b", how)
    third = folder_of(tmp_path / "c", range(50, 60), (160, 120))
    # Two shares held out: as two sources alone, their splits would differ.
    entries = [
        {"path": str(first), "val_fraction": 0.2}, {"path": str(second), "val_fraction": 0.5}, {"path": str(third)},
    ]  # fmt: skip
    read = Settings.from_config(section(entries, ["rotation"], seed=seed))
    found = load_manifest(read)
    assert isinstance(found, Mixture)
    sides: dict[str, set[str]] = collections.defaultdict(set)
    groups: dict[str, set[str]] = collections.defaultdict(set)
    for part in found.parts:
        for split in ("train", "val"):
            for item in part.manifest.items(split):
                name = Path(item.id).stem.removeprefix("copy-")
                sides[name].add(split)
                groups[name].add(item.group)
    assert len(sides) == 34 and all(len(split) == 1 for split in sides.values())
    assert all(len(group) == 1 for group in groups.values())
    trained, held_out = held_out_and_trained(found)
    assert not trained & held_out and trained and held_out
    assert isinstance(found.parts[0].manifest, Regrouped) and found.parts[0].manifest.held_out > 0
    assert not isinstance(found.parts[2].manifest, Regrouped)


def test_merging_leaves_the_sources_manifests_as_they_are(tmp_path: Path, one: Path) -> None:
    again = copies(one, tmp_path / "again", "re-encoded")
    single = Settings.from_config(
        {**section([], ["rotation"]), "source": {**section([], [])["source"], "path": str(one)}}
    )
    before = load_manifest(single)
    assert not isinstance(before, Mixture)
    digest, splits = before.digest, [item.id for item in before.items("train")]
    read = Settings.from_config(section([{"path": str(one)}, {"path": str(again), "val_fraction": 0.6}], ["rotation"]))
    merged = load_manifest(read)
    assert isinstance(merged, Mixture) and merged.parts[0].manifest.digest == digest
    assert [item.id for item in merged.parts[0].manifest.items("train")] != splits
    after = load_manifest(single)
    assert after.digest == digest and [item.id for item in after.items("train")] == splits
    # Read from the cache, it is the same, and so is a copy in another process.
    for copy in (load_manifest(read), pickle.loads(pickle.dumps(merged))):
        assert [(i.id, i.group) for i in copy.items("val")] == [(i.id, i.group) for i in merged.items("val")]
        assert copy.digest == merged.digest


def test_contrast_is_between_different_things_even_if_another_source_has_the_same(tmp_path: Path) -> None:
    """Other items of a sample are never copies of its own item."""
    first = folder_of(tmp_path / "a", range(6), (160, 120))
    second = copies(first, tmp_path / "b", "re-encoded")
    found = stream(section([{"path": str(first)}, {"path": str(second)}], ["contrastive"], val_samples=1, seed=1))
    groups = {source.id_of(item): source.group_of(item) for source in found.sources for item in source.items}
    for source in found.sources:
        for item in source.items:
            assert groups[source.id_of(item)] == item.group
    assert len(set(groups.values())) < len(groups)
    assert all(found[index].sample for index in range(len(found)))


# ------------------------------------------------------------------------------------------------- resume


def test_a_checkpoint_goes_on_only_with_the_same_sources(one: Path, other: Path) -> None:
    entries = [{"path": str(one)}, {"path": str(other), "weight": 2}]
    state = OnlineRows(stream(section(entries, ["rotation"]))).state()
    assert state == OnlineRows(stream(section(entries, ["rotation"]))).state() == json.loads(json.dumps(state))
    changes: list[list[dict[str, Any]]] = [
        entries[:1],
        [entries[0], {**entries[1], "weight": 3}],
        [{**entries[0], "name": "z"}, entries[1]],
        [{**entries[0], "train_size": 5}, entries[1]],
    ]
    for changed in changes:
        assert OnlineRows(stream(section(changed, ["rotation"]))).state() != state


def test_a_source_alone_is_not_enough_for_its_groups(tmp_path: Path, one: Path) -> None:
    few = folder_of(tmp_path / "few", range(200, 201))
    found = stream(section([{"path": str(one)}, {"path": str(few), "val_fraction": 0}], ["contrastive"]))
    assert {row[1] for row in drawn(found)} == {"a", "few"}
    alone = section([{"path": str(few), "val_fraction": 0}], ["contrastive"])
    with pytest.raises(SampleError, match="1 group"):
        stream(alone)
