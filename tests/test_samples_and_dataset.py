"""The stream of samples and the dataset that verl reads: deterministic, resumable, fresh every epoch, clear when wrong."""

from __future__ import annotations

import copy
import hashlib
import itertools
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleError, SampleStream, extra_info
from ssl4rl_plugin.training.settings import Settings, SettingsError, parse_arms


def stream(section: dict, split: str = "train", **changes: Any) -> SampleStream:
    settings = Settings.from_config({**section, **changes})
    return SampleStream(settings, load_manifest(settings), split)


def pixels(images: Any) -> str:
    return hashlib.sha256(b"".join(f"{i.size}".encode() + i.tobytes() for i in images)).hexdigest()


def fingerprints(found: SampleStream, indices: range | list[int]) -> list[tuple]:
    made = [found[index] for index in indices]
    return [(m.prompt, m.truth_json, m.item_id, pixels(m.sample.images)) for m in made]


MIX = {"tasks": ["rotation", "altered_patch:3x3_gray", "contrastive"], "options": {"side": 84}}


def test_a_sample_depends_on_its_number_alone(section: dict) -> None:
    one = stream(section, **MIX)
    forwards = fingerprints(one, range(20))
    backwards = fingerprints(pickle.loads(pickle.dumps(one)), range(19, -1, -1))
    assert forwards == backwards[::-1] == fingerprints(stream(section, **MIX), range(20))
    assert forwards != fingerprints(stream(section, **MIX, seed=1), range(20))


def test_every_epoch_shows_every_item_with_new_corruptions(section: dict) -> None:
    found = stream(section, tasks=["rotation"], options={"side": 84}, epochs=3)
    count = len(found.items)
    assert len(found) == 3 * count
    epochs = [[found[e * count + k] for k in range(count)] for e in range(3)]
    wanted = {item.id for item in found.items}
    assert all({made.item_id for made in epoch if not made.refused} <= wanted for epoch in epochs)
    orders = [[made.item_id for made in epoch] for epoch in epochs]
    assert orders[0] != orders[1] != orders[2]
    pictures = [pixels(made.sample.images) for epoch in epochs for made in epoch]
    assert len(set(pictures)) == len(pictures)


def test_no_item_is_in_both_splits_and_validation_is_fixed(section: dict) -> None:
    train, val = stream(section, **MIX), stream(section, "val", **MIX)
    assert not {item.id for item in train.items} & {item.id for item in val.items}
    assert not {item.group for item in train.items} & {item.group for item in val.items}
    assert len(val) == 3 * section["val_samples"]
    assert [val[i].arm.task.name for i in range(len(val))] == ["rotation"] * 8 + ["altered_patch"] * 8 + [
        "contrastive"
    ] * 8


def test_weights_set_the_shares(section: dict) -> None:
    tasks = [{"task": "rotation", "weight": 3}, {"task": "altered_patch", "weight": 1}]
    found = stream(section, tasks=tasks, options={"side": 56}, epochs=20)
    names = [found[i].arm.task.name for i in range(300)]
    assert 0.65 < names.count("rotation") / 300 < 0.85


def test_no_prompt_sees_the_gold_answer_or_the_truth(section: dict) -> None:
    """The question is a function of task, level and wording alone: samples with other truths ask the same."""
    for task in ("rotation", "jigsaw", "position", "contrastive", "altered_patch"):
        found = stream(section, tasks=[task], options={"side": 84})
        assert len({found[i].sample.question for i in range(12)}) == 1
        assert len({str(found[i].sample.truth) for i in range(12)}) > 1
        info = extra_info(found[0])
        assert info["gold"] == found[0].gold and set(info) == set(extra_info(found[1]))


def test_broken_files_are_skipped_and_counted_and_nothing_else_is_lost(section: dict, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(section["source"]["path"], folder)
    good = len(list(folder.rglob("*.jpg")))
    whole = next(folder.rglob("*.jpg")).read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "page.jpg").write_text("<html><body>not found</body></html>")
    Image.new("RGB", (10, 300)).save(folder / "sliver.png")
    source = {**section["source"], "path": str(folder)}
    manifest = load_manifest(Settings.from_config({**section, "source": source}))
    assert len(manifest.items("train")) + len(manifest.items("val")) == good
    assert sum(manifest.rejected.values()) == 4
    assert {"zero_bytes", "truncated", "not_an_image"} <= set(manifest.rejected)


def test_a_file_that_breaks_later_is_replaced_by_another(section: dict, tmp_path: Path) -> None:
    folder = tmp_path / "later"
    shutil.copytree(section["source"]["path"], folder)
    found = stream(section, source={**section["source"], "path": str(folder)}, options={"side": 84})
    victim = found[0].item_id
    found.manifest.source.read(victim)
    (folder / victim).write_bytes(b"")
    made = found[0]
    assert made.item_id != victim and "zero_bytes" in made.refused
    assert found.refusals


def test_a_partner_that_breaks_later_is_replaced_too(section: dict, tmp_path: Path) -> None:
    folder = tmp_path / "partner"
    shutil.copytree(section["source"]["path"], folder)
    source = {**section["source"], "path": str(folder)}
    found = stream(section, source=source, tasks=["contrastive"], options={"side": 84})
    for item in list(found.items)[:10]:
        (folder / item.id).write_bytes(b"")
    made = [found[index] for index in range(len(found))]
    assert any("zero_bytes" in one.refused for one in made)


def test_a_checkpoint_of_other_samples_is_refused(section: dict) -> None:
    state = dataset(section).state_dict()
    dataset(section).load_state_dict(state)
    dataset({**section, "epochs": 9}).load_state_dict(state)  # more of the same samples
    part = {"source": {**section["source"], "train_size": 0.5}}
    for changed in ({"seed": 5}, {"tasks": ["jigsaw"]}, part):
        with pytest.raises(SettingsError, match=r"checkpoint was made with other (seed|tasks|train_size)"):
            dataset({**section, **changed}).load_state_dict(state)


def test_a_part_of_the_training_images_is_nested_seeded_and_leaves_the_held_out_ones_alone(section: dict) -> None:
    def used(size: float | None, split: str = "train", seed: int = 0) -> list[str]:
        found = stream({**section, "source": {**section["source"], "train_size": size}}, split, seed=seed)
        return [item.id for item in pickle.loads(pickle.dumps(found)).items]

    everything = used(None)
    for small, large in itertools.pairwise([used(1), used(3), used(0.25), used(0.5), used(1.0)]):
        assert set(small) < set(large)
    assert used(1.0) == everything == [item for item in everything if item in set(used(1.0))]
    assert len(used(0.5)) == round(len(everything) / 2) and len(used(3)) == 3
    assert used(3) == used(3) == [item for item in everything if item in used(3)]
    assert used(10) != used(10, seed=1)
    assert used(3, "val") == used(None, "val")
    with pytest.raises(SampleError, match=f"train_size is 1000, and there are {len(everything)}"):
        used(1000)


def test_every_sample_of_a_part_shows_an_image_of_it(section: dict) -> None:
    section = {**section, "source": {**section["source"], "train_size": 6}, "tasks": ["contrastive"], "epochs": 3}
    found = stream(section)
    assert len(found) == 18
    assert {found[index].item_id for index in range(18)} <= {item.id for item in found.items}


# What the user is told.


def test_images_that_do_not_fit_are_said_to(section: dict, tmp_path: Path) -> None:
    folder = tmp_path / "gray"
    folder.mkdir()
    for number, file in enumerate(sorted(Path(section["source"]["path"]).rglob("*.jpg"))[:20]):
        Image.open(file).convert("L").save(folder / f"{number}.png")
    found = stream(section, source={**section["source"], "path": str(folder)}, tasks=["altered_patch:2x2_gray"])
    with pytest.raises(SampleError, match=r"altered_patch:2x2_gray.*no_visible_change.*do not fit"):
        found[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["rotatoin"]}, "rotation"),
        ({"tasks": ["rotation:pair_91"]}, "pair_90"),
        ({"tasks": []}, "at least one task"),
        ({"tasks": ["rotation", "rotation"]}, "twice"),
        ({"tasks": [{"task": "rotation", "lvl": "x"}]}, "no key ssl4rl.tasks.0.lvl .did you mean 'level'"),
        ({"tasks": [{"task": "rotation", "weight": -1}]}, "weight"),
        ({"tasks": [{"task": "rotation", "weight": 0}]}, "all weights are 0"),
        ({"tasks": [{"task": "rotation", "options": {"sides": 3}}]}, "side"),
        ({"options": {"sied": 84}}, "none of the tasks"),
        ({"options": {"side": 2}}, "at least 28"),
        ({"answer_format": "xml"}, "think_answer, answer_only, boxed"),
        ({"epochs": 0}, "ssl4rl.epochs must be greater than or equal to 1, got 0"),
        ({"epoch": 3, "seed": -1}, "(?s)ssl4rl.seed must be .* 0, got -1.*no key ssl4rl.epoch .did you mean 'epochs'"),
        ({"source": {"name": "folder"}}, "ssl4rl.source.max_pixels is missing"),
        ({"source": {"name": "folder", "max_pixels": 784, "trainsize": 5}}, "ssl4rl.source.trainsize .*'train_size'"),
        ({"transductive": "false"}, "ssl4rl.transductive must be a valid boolean, got 'false'"),
        ({"videos_as": "frames"}, "ssl4rl.videos_as must be 'auto', 'video' or 'images', got 'frames'"),
        ({"seed": "x"}, "ssl4rl.seed"),
        ({"val_samples": None}, "ssl4rl.val_samples"),
        ({"format_weight": 1.0}, "ssl4rl.format_weight"),
        ({"partial_credit": -0.1}, "ssl4rl.partial_credit"),
        ({"source": {"name": "folder", "path": "x", "max_pixels": 10_000, "train_size": 1.5}}, "train_size.*1.5"),
        ({"source": {"name": "folder", "path": "x", "max_pixels": 10_000, "train_size": 0}}, "train_size.*got 0"),
        ({"benchmarks": [{"name": "mmbench", "path": "???"}]}, r"ssl4rl\.benchmarks\.0\.path="),
    ],
)
def test_wrong_settings_name_the_key_and_the_remedy(section: dict, changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_config({**section, **changes})


def test_all_levels_of_a_task_by_star() -> None:
    arms = parse_arms(["jigsaw:*"])
    assert len(arms) == 8 and len({arm.key for arm in arms}) == 8


# The dataset, as verl uses it.


class Tokenizer:
    """Stands in for a tokenizer where only the length of a prompt matters: the real one is in the end-to-end tests."""

    def __call__(self, text: Any, **_: Any) -> dict:
        return {"input_ids": [[0] * len(str(text).split())]}

    def apply_chat_template(self, messages: list, **_: Any) -> str:
        content = messages[-1]["content"]
        return content if isinstance(content, str) else " ".join(part.get("text", "<image>") for part in content)


class Processor(Tokenizer):
    def __call__(self, text: Any = None, images: Any = None, **_: Any) -> dict:
        return {"input_ids": [[0] * (len(text[0].split()) + 16 * len(images or []))]}


def dataset(section: dict, split: str = "train", processor: Any = None, limit: int = 1024) -> Any:
    from ssl4rl_plugin.training.verl.dataset import SSLDataset

    config = OmegaConf.create({"ssl4rl": section, "max_prompt_length": limit})
    return SSLDataset(f"ssl4rl:{split}", Tokenizer(), config, processor or Processor())


def test_rows_are_what_verl_expects(section: dict) -> None:
    rows = dataset({**section, **MIX})
    row = rows[0]
    assert row["data_source"].startswith("ssl4rl/") and isinstance(row["reward_model"]["ground_truth"], str)
    (message,) = row["raw_prompt"]
    kinds = [part["type"] for part in message["content"]]
    assert kinds.count("image") == len([p for p in message["content"] if isinstance(p.get("image"), Image.Image)]) > 0
    assert all("<image>" not in part.get("text", "") for part in message["content"])
    assert row["extra_info"]["gold"] not in ("", None) and "prompt" not in row


def test_any_number_of_loader_workers_gives_the_same_rows_and_a_resumed_run_goes_on(section: dict) -> None:
    """With verl's own data loader, collate function and way of resuming."""
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.utils.dataset.rl_dataset import collate_fn

    rows = dataset({**section, **MIX})

    def loader(workers: int) -> StatefulDataLoader:
        return StatefulDataLoader(rows, batch_size=4, num_workers=workers, drop_last=True, collate_fn=collate_fn)

    def ids(batches: Any) -> list[list[tuple]]:
        return [
            [
                (i["sample"], i["item"], t["ground_truth"])
                for i, t in zip(b["extra_info"], b["reward_model"], strict=True)
            ]
            for b in batches
        ]

    alone = ids(itertools.islice(loader(0), 6))
    assert alone == ids(itertools.islice(loader(2), 6))
    first = loader(0)
    started = ids(itertools.islice(first, 2))
    state = copy.deepcopy(first.state_dict())
    second = loader(0)
    second.load_state_dict(state)
    assert started + ids(itertools.islice(second, 4)) == alone


def test_prompts_that_would_be_lost_stop_the_run(section: dict) -> None:
    message = r"rotation.*tokens.*text.*data.max_prompt_length is 20.*set data.max_prompt_length=128"
    with pytest.raises(SettingsError, match=message):
        dataset(section, limit=20)
    from ssl4rl_plugin.training.verl.dataset import SSLDataset

    with pytest.raises(SettingsError, match=r"no processor.*Qwen2.5-VL"):
        SSLDataset("ssl4rl:train", Tokenizer(), OmegaConf.create({"ssl4rl": section, "max_prompt_length": 99}), None)
    with pytest.raises(SettingsError, match=r"train.parquet.*ssl4rl:train"):
        SSLDataset("train.parquet", Tokenizer(), OmegaConf.create({"ssl4rl": section, "max_prompt_length": 99}))
