"""The photographs that teaching sees are in neither the training nor the validation of reinforcement learning."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE_SECTION
from hypothesis import given
from hypothesis import strategies as st
from pictures import photo

from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.pools import taught_groups
from ssl4rl_plugin.data.rows import OnlineRows
from ssl4rl_plugin.data.samples import SampleError, SampleStream
from ssl4rl_plugin.demo.run import DemoError, compose, prepare_model
from ssl4rl_plugin.training.settings import Settings, SettingsError

SPLITS = ("taught", "train", "val")


def streams(folder: Path, share: float = 0.5, **source: Any) -> dict[str, SampleStream]:
    """The stream of each split of a folder of pictures."""
    own = {"path": str(folder), "taught_fraction": share, "val_fraction": 0.2, "max_pixels": 128 * 128, **source}
    section = {**BASE_SECTION, "tasks": ["rotation", "contrastive"], "epochs": 2, "val_samples": 8}
    settings = Settings.from_config({**section, "source": {**BASE_SECTION["source"], **own}})
    manifest = load_manifest(settings)
    return {split: SampleStream(settings, manifest, split) for split in SPLITS if split != "taught" or share}


def ids(stream: SampleStream) -> set[str]:
    return {item.id for item in stream.items}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photographs, and smaller copies of the first ten."""
    root = tmp_path_factory.mktemp("photographs")
    for number in range(40):
        whole = photo(number, 160, 120)
        whole.save(root / f"{number:02}.png")
        if number < 10:
            whole.resize((120, 90)).save(root / f"{number:02}_copy.png")
    return root


def test_no_photograph_is_in_two_splits_and_none_is_lost(folder: Path) -> None:
    found = streams(folder)
    taught, train, val = (ids(found[split]) for split in SPLITS)
    assert taught and train and val
    assert not taught & train and not taught & val and not train & val
    without = streams(folder, share=0.0)
    assert taught | train == ids(without["train"]), "only the training photographs are divided"
    assert val == ids(without["val"]), "held-out photographs stay as they are"


def test_copies_of_a_photograph_are_on_one_side(folder: Path) -> None:
    found = streams(folder)
    groups = [{item.group for item in found[split].items} for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for split in SPLITS:
        shown = ids(found[split])
        copied = [name for name in shown if name.endswith("_copy.png")]
        assert all(name.replace("_copy", "") in shown for name in copied)


def test_every_sample_shows_photographs_of_its_split(folder: Path) -> None:
    for split, stream in streams(folder).items():
        shown = {stream[index].item_id for index in range(len(stream))}
        assert shown <= ids(stream), split


def test_the_split_is_the_same_for_a_seed_and_in_another_process(folder: Path) -> None:
    first = streams(folder)
    for split, again in streams(folder).items():
        assert ids(again) == ids(first[split]) == ids(pickle.loads(pickle.dumps(first[split])))


def test_a_part_of_the_training_photographs_is_a_part_of_what_teaching_leaves(folder: Path) -> None:
    part, whole = streams(folder, train_size=0.5), streams(folder)
    assert ids(part["train"]) < ids(whole["train"])
    assert ids(part["taught"]) == ids(whole["taught"])


def test_a_checkpoint_knows_the_share(folder: Path) -> None:
    assert OnlineRows(streams(folder)["train"]).state()["taught_fraction"] == 0.5
    assert "taught_fraction" not in OnlineRows(streams(folder, share=0.0)["train"]).state()


@given(st.sets(st.text(), min_size=2, max_size=60), st.floats(0.01, 0.99), st.integers(0, 9))
def test_the_share_is_kept_and_neither_side_is_empty(groups: set[str], share: float, seed: int) -> None:
    taught = taught_groups(groups, share, seed)
    assert taught < groups and taught
    assert abs(len(taught) - share * len(groups)) <= 1
    assert taught == taught_groups(groups, share, seed)


def test_what_cannot_be_divided_is_said(folder: Path, tmp_path: Path) -> None:
    for name in ("00.png", "00_copy.png"):
        shutil.copy(folder / name, tmp_path / name)
    with pytest.raises(SampleError, match=r"taught_fraction is 0\.5, and the training split has 1 group"):
        streams(tmp_path, val_fraction=0.0)
    settings = streams(folder, share=0.0)["train"].settings
    with pytest.raises(SampleError, match="nothing is set aside for teaching"):
        SampleStream(settings, load_manifest(settings), "taught")


def test_a_model_is_kept_only_for_the_photographs_that_it_was_taught_on(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "warm_up.json").write_text(json.dumps({"made_for": {"images": "of another folder"}}))
    source = ("ssl4rl.source.name=folder", f"ssl4rl.source.path={folder}", "ssl4rl.source.max_pixels=16384")
    config = compose("cpu_learn", ["actor_rollout_ref.model.path=x", *source])
    digest = load_manifest(Settings.from_config(config.ssl4rl)).digest
    with pytest.raises(DemoError, match=f"was made for .*of another folder.* and this run is for .*{digest}"):
        prepare_model(config, tmp_path, 0)


@pytest.mark.parametrize(("value", "message"), [(1.0, "taught_fraction"), (-0.1, "taught_fraction")])
def test_shares_are_checked(value: float, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _read({"taught_fraction": value})


def test_one_source_is_divided_and_not_several(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="taught_fraction divides one source"):
        _read({"taught_fraction": 0.5}, [{"path": str(tmp_path)}])


def _read(source: dict[str, Any], sources: Sequence[Any] = ()) -> Settings:
    own = {**BASE_SECTION["source"], "path": None, **source}
    return Settings.from_config({**BASE_SECTION, "tasks": ["rotation"], "source": own, "sources": list(sources)})
