"""`ssl4rl build`: the same rows as online, the same bytes whatever the workers, nothing half-written, nothing foreign."""

from __future__ import annotations

import base64
import errno
import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from pictures import photo
from PIL import Image
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.data.build_plan import MANIFEST, BuildPlan, PlanError, makers
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import OnlineRows
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.data.shards import Codec
from ssl4rl_plugin.data.source import SourceError
from ssl4rl_plugin.data_builders.build import builder as module
from ssl4rl_plugin.data_builders.build.builder import BuildError, build
from ssl4rl_plugin.data_builders.build.planning import make_plan
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.data_builders.sources.folder import FolderSource
from ssl4rl_plugin.grading.formats import FORMATS
from ssl4rl_plugin.training.curriculum.director import CurriculumSettings
from ssl4rl_plugin.training.curriculum.schedule import Schedule
from ssl4rl_plugin.training.curriculum_rows import SteeredRows
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import Settings
from ssl4rl_plugin.training.stored_rows import StoredRows, StoredRowsError

MIX = {"tasks": ["rotation", "jigsaw:2x1", "contrastive"], "options": {"side": 84}, "epochs": 1, "val_samples": 3}


def planned(section: dict, **how: Any) -> tuple[BuildPlan, Any]:
    section = {**section, **MIX}
    manifest = load_manifest(Settings.from_config(section))
    return make_plan(section, manifest, **{"shard_rows": 8, **how}), manifest


def built(section: dict, folder: Path, workers: int = 1, **how: Any) -> module.Built:
    plan, manifest = planned(section, **how)
    return build(plan, manifest, folder, workers=workers)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a build but the copy of the manifest, which tells where the images are."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, ".lock")
    }


@pytest.fixture(scope="module")
def once(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build, not to be changed."""
    from conftest import BASE_SECTION

    section = {**BASE_SECTION, "source": {**BASE_SECTION["source"], "path": str(photo_folder)}}
    folder = tmp_path_factory.mktemp("built") / "once"
    built(section, folder)
    return folder


def test_any_number_of_workers_gives_the_same_bytes(section: dict, once: Path, tmp_path: Path) -> None:
    for workers in (2, 4):
        built(section, tmp_path / str(workers), workers)
        assert contents(tmp_path / str(workers)) == contents(once)


def test_moving_the_images_changes_no_byte(section: dict, once: Path, tmp_path: Path, photo_folder: Path) -> None:
    for path in photo_folder.rglob("*.jpg"):
        copy = tmp_path / "elsewhere" / path.relative_to(photo_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    moved = {**section, "source": {**section["source"], "path": str(tmp_path / "elsewhere")}}
    built(moved, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(once)


@pytest.mark.parametrize("store", ["bytes", "path", "reference"])
def test_built_rows_are_the_online_rows(section: dict, tmp_path: Path, store: str) -> None:
    """Pixel by pixel where pictures are stored without loss."""
    built(section, tmp_path / "out", store=store, codec=Codec("png"))
    settings = Settings.from_config({**section, **MIX})
    manifest = load_manifest(settings)
    for split in ("train", "val"):
        online = OnlineRows(SampleStream(settings, manifest, split))
        read = StoredRows(tmp_path / "out", split)
        assert len(read) == len(online) > 0
        for index in [*range(len(read)), 0]:
            one, other = online[index], read[index]
            for name in ("kind", "data_source", "prompt", "ground_truth", "info"):
                assert getattr(one, name) == getattr(other, name)
            assert [image.tobytes() for image in one.images] == [image.tobytes() for image in other.images]


def test_a_curriculum_draws_the_rows_of_each_arm_in_turn(once: Path) -> None:
    rows = StoredRows(once, "train")
    decisions = Schedule(len(rows.arms), seed=0)
    decisions.announce(0, [0.6, 0.4, 0.0])
    decisions.announce(10, [0.0, 0.5, 0.5])
    steered = SteeredRows(rows, CurriculumSettings("goldilocks"), decisions)
    seen: dict[str, list[int]] = {}
    for index in range(len(steered)):
        row = steered[index]
        assert row.kind.startswith(rows.arms[decisions.draw(index).arm].task.name)
        seen.setdefault(row.info["task"], []).append(row.info["index"])
    own = {
        task: [index for index in range(len(rows)) if rows[index].info["task"] == task]
        for task in ("rotation", "jigsaw", "contrastive")
    }
    for task, numbers in seen.items():
        assert numbers == (own[task] * 9)[: len(numbers)], (
            "each in the order of the files, and again when all were used"
        )
    assert steered.state() == {**rows.state(), "curriculum": asdict(steered.settings)}


def test_jpeg_keeps_everything_but_a_little_of_the_pixels(section: dict, once: Path) -> None:
    settings = Settings.from_config({**section, **MIX})
    online = OnlineRows(SampleStream(settings, load_manifest(settings), "train"))
    read = StoredRows(once, "train")
    for index in range(len(read)):
        one, other = online[index], read[index]
        assert (one.prompt, one.ground_truth, one.info) == (other.prompt, other.ground_truth, other.info)
        for a, b in zip(one.images, other.images, strict=True):
            assert a.size == b.size
            assert np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean() < 8


def test_gold_answers_score_one(once: Path) -> None:
    for split in ("train", "val"):
        rows = StoredRows(once, split)
        for index in range(len(rows)):
            row = rows[index]
            response = FORMATS["think_answer"].render(row.info["gold"])
            assert compute_score(row.data_source, response, row.ground_truth)["score"] == 1.0


def test_only_what_is_missing_or_damaged_is_made_again(section: dict, once: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shards = [done.shard.name for done in built(section, folder).shards]
    assert len(shards) > 4
    (folder / shards[0]).unlink()
    data = bytearray((folder / shards[1]).read_bytes())
    data[len(data) // 3] ^= 1  # one bit of a picture
    (folder / shards[1]).write_bytes(data)
    (folder / shards[2]).write_bytes((folder / shards[2]).read_bytes()[:-100])
    (folder / shards[3]).write_bytes((folder / shards[4]).read_bytes())  # whole, and another one's
    (folder / f".{shards[0]}.123.tmp").write_bytes(b"half")
    again = built(section, folder)
    assert {done.shard.name for done in again.shards if not done.kept} == set(shards[:4])
    assert contents(folder) == contents(once)


def test_a_picture_file_that_was_changed_is_written_again(section: dict, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    built(section, folder, store="path")
    before = contents(folder)
    lost, changed, *_ = (path for path in sorted(folder.glob("images/*/*")))
    lost.unlink()
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    again = built(section, folder, store="path")
    assert any(not done.kept for done in again.shards) and contents(folder) == before


def test_a_row_may_not_name_a_picture_outside_of_its_folder(section: dict, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first = built(section, folder, store="path").shards[0].shard
    photo(1).save(tmp_path / "secret.jpeg")
    table = pq.read_table(folder / first.name)
    rows = table.to_pylist()
    rows[0]["images"][0]["path"] = "../secret.jpeg"
    pq.write_table(type(table).from_pylist(rows, table.schema), folder / first.name)
    with pytest.raises(StoredRowsError, match=r"outside_root.*secret.jpeg"):
        StoredRows(folder, "train")[0]


def few_images(folder: Path, photos: list[Image.Image], start: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(12):
        photos[start + number].save(folder / f"{number}.png")
    return folder


def test_reference_rows_refuse_images_that_changed(section: dict, tmp_path: Path, photos: list[Image.Image]) -> None:
    """Other photographs, as good as the first ones."""
    section = {**section, "source": {**section["source"], "path": str(few_images(tmp_path / "images", photos))}}
    built(section, tmp_path / "out", store="reference")
    rows = StoredRows(tmp_path / "out", "train")
    assert all(rows[index].images for index in range(len(rows)))
    few_images(tmp_path / "images", photos, start=12)
    rows = StoredRows(tmp_path / "out", "train")
    for index in range(len(rows)):
        with pytest.raises(StoredRowsError, match=r"has changed since it was indexed"):
            rows[index]


def test_reference_rows_refuse_other_packages(
    section: dict, tmp_path: Path, photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {**section, "source": {**section["source"], "path": str(few_images(tmp_path / "images", photos))}}
    built(section, tmp_path / "out", store="reference")
    monkeypatch.setattr("ssl4rl_plugin.training.stored_rows.makers", lambda: {**makers(), "pillow": "1.0"})
    with pytest.raises(StoredRowsError, match=r"other versions of pillow"):
        StoredRows(tmp_path / "out", "train")


def test_a_resumed_build_does_not_mix_old_and_new_images(
    section: dict, tmp_path: Path, photos: list[Image.Image]
) -> None:
    """From a manifest, which nobody brings up to date."""
    images, index = few_images(tmp_path / "images", photos), tmp_path / "index.parquet"
    build_manifest(FolderSource(images), index, val_fraction=0.0)
    section = {**section, "source": {**section["source"], "path": str(index)}}
    first = built(section, tmp_path / "out", shard_rows=4)
    (tmp_path / "out" / first.shards[0].shard.name).unlink()
    few_images(images, photos, start=12)
    with pytest.raises(SourceError, match=r"has changed since it was indexed: index it again"):
        built(section, tmp_path / "out", shard_rows=4)


# What must not be written over, and what cannot be written.


def test_the_folder_of_another_build_or_of_somebody_else_is_left_alone(
    section: dict, once: Path, tmp_path: Path
) -> None:
    before = contents(once)
    with pytest.raises(PlanError, match=r"another build.*settings: seed"):
        built({**section, "seed": 1}, once)
    with pytest.raises(PlanError, match=r"another build.*codec"):
        built(section, once, codec=Codec("jpeg", 80))
    assert contents(once) == before
    (tmp_path / "holiday.txt").touch()
    with pytest.raises(PlanError, match=r"not empty.*holiday.txt"):
        built(section, tmp_path)
    with pytest.raises(BuildError, match=r"cannot be written"):
        built(section, tmp_path / "holiday.txt" / "out")


def test_two_builds_do_not_write_to_one_folder(section: dict, tmp_path: Path) -> None:
    plan, manifest = planned(section)
    with module._claimed(tmp_path / "out", plan, manifest), pytest.raises(BuildError, match="another build is running"):
        build(plan, manifest, tmp_path / "out")


def test_a_full_disk_is_said_and_the_rest_is_made_when_there_is_room(
    section: dict, once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same on a real file system of a few hundred kilobytes is in the end-to-end tests."""
    real, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BuildError, match=r"no space is left.*\d of \d+ files are done.*start the same command again"):
        built(section, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.tmp"))
    monkeypatch.undo()
    assert any(done.kept for done in built(section, tmp_path / "out").shards)
    assert contents(tmp_path / "out") == contents(once)


def test_a_killed_worker_ends_the_build_with_a_reason(section: dict, tmp_path: Path) -> None:
    """As the system does when memory runs out."""
    plan, manifest = planned(section, shard_rows=2)

    def kill_workers(done: module.Done) -> None:
        for child in psutil.Process().children():
            with suppress(psutil.Error):  # one that was killed before is a zombie until its end is read
                if "serve()" in " ".join(child.cmdline()):
                    child.kill()

    with pytest.raises(BuildError, match=r"worker process was killed.*finished work is kept"):
        build(plan, manifest, tmp_path / "out", workers=2, advance=kill_workers)


def test_an_unfinished_build_is_not_read(section: dict, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / built(section, folder).shards[0].shard.name).unlink()
    with pytest.raises(StoredRowsError, match=r"lacks 1 of \d+ train files.*ssl4rl build"):
        StoredRows(folder, "train")
    with pytest.raises(PlanError, match=r"holds no build"):
        StoredRows(tmp_path, "train")
    (folder / "build.json").write_text("{")
    with pytest.raises(PlanError, match=r"build.json is damaged"):
        StoredRows(folder, "train")


# Benchmarks.


def tsv(path: Path, photos: list[Image.Image], count: int = 12) -> Path:
    lines = ["index\tquestion\thint\tA\tB\tC\tanswer\tcategory\tl2-category\timage\tsplit"]
    for number, image in enumerate(photos[:count]):
        file = path.with_suffix(".png")
        image.save(file)
        data = base64.b64encode(file.read_bytes()).decode()
        lines.append(
            f"{number}\twhat is {number}?\tlook\tred\tgreen\tblue\t{'ABC'[number % 3]}\tfine\tcoarse\t{data}\tdev"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_benchmark_gives_training_rows_and_questions(
    section: dict, tmp_path: Path, photos: list[Image.Image]
) -> None:
    section = {**section, "source": {**section["source"], "name": "tsv", "path": str(tsv(tmp_path / "b.tsv", photos))}}
    done = built(section, tmp_path / "out")
    assert done.plan.rows["train"] + len(load_manifest(Settings.from_config(section)).items("val")) == 12
    rows = StoredRows(tmp_path / "out", "questions")
    assert len(rows) == 12
    for index in range(12):
        row = rows[index]
        shown = json.loads(row.info["params"])
        assert shown == {
            "text": f"what is {index}?", "hint": "look", "options": ["red", "green", "blue"], "answer": "ABC"[index % 3],
            "category": "fine", "l2_category": "coarse",
        }  # fmt: skip
        assert row.prompt.startswith(f"<image>\nwhat is {index}?\nHint: look\nA. red\nB. green\nC. blue\nAnswer with")
        assert row.data_source == "bench/tsv/fine" and len(row.images) == 1
        for answer, right in ((shown["answer"], 1.0), (shown["options"][index % 3], 1.0), ("D", 0.0), ("", 0.0)):
            score = compute_score(row.data_source, FORMATS["think_answer"].render(answer), row.ground_truth)
            assert score["acc"] == right and not score["failed"]


# As verl reads them.


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from verl.utils import hf_processor

    from ssl4rl_plugin.demo.model import build_model, save, train_tokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["user assistant which picture shows answer A B"])
    save(build_model(tokenizer, 0), tokenizer, folder)
    return hf_processor(str(folder))


def test_verls_own_dataset_reads_the_files(once: Path, processor: Any, tmp_path: Path) -> None:
    from verl.utils.dataset.rl_dataset import RLHFDataset

    config = OmegaConf.create({"max_prompt_length": 4096, "cache_dir": str(tmp_path), "filter_overlong_prompts": False})
    files = [str(path) for path in sorted(once.glob("train-*.parquet"))]
    theirs, ours = RLHFDataset(files, processor.tokenizer, config, processor), StoredRows(once, "train")
    assert len(theirs) == len(ours)
    for index in (0, 9, len(ours) - 1):
        row = theirs[index]
        (message,) = row["raw_prompt"]
        shown = [part["image"].convert("RGB").tobytes() for part in message["content"] if part["type"] == "image"]
        assert shown == [image.tobytes() for image in ours[index].images]
        assert row["reward_model"]["ground_truth"] == ours[index].ground_truth
        assert row["data_source"] == ours[index].data_source


def test_our_dataset_reads_them_with_little_in_memory(section: dict, once: Path, processor: Any) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.utils.dataset.rl_dataset import collate_fn

    from ssl4rl_plugin.training.verl.dataset import SSLDataset

    config = OmegaConf.create({"ssl4rl": {**section, "data": str(once)}, "max_prompt_length": 4096})
    data = SSLDataset("ssl4rl:train", processor.tokenizer, config, processor)
    loader = StatefulDataLoader(data, batch_size=4, num_workers=2, drop_last=True, collate_fn=collate_fn)
    seen = [truth["ground_truth"] for batch in loader for truth in batch["reward_model"]]
    rows = StoredRows(once, "train")
    assert seen == [rows[index].ground_truth for index in range(len(seen))] and len(seen) > 20
    part = data[0]["raw_prompt"][0]["content"][0]
    assert set(part) == {"type", "image"}  # no encoded copy beside the picture
    with pytest.raises(ValueError, match="other data"):
        data.load_state_dict({"data": "something else"})
    with pytest.raises(ValueError, match="other data and images"):
        data.load_state_dict({"images": "of an online run"})


# The command.


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_rows_and_a_report(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("build", photo_folder, "-t", "rotation", "--task", "jigsaw:2x1", "--out", out, "--set", "options.side=84",
               "--set", "val_samples=4", "--set", "source.val_fraction=0.3", "--workers", 1)  # fmt: skip
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert str(out / "report.html") in result.output.replace("\n", "")
    report = json.loads((out / "report.json").read_text())
    train = StoredRows(out, "train")
    assert report["splits"]["train"]["rows"] == len(train) == sum(line["rows"]["train"] for line in report["kinds"])
    assert report["pictures"]["count"] == sum(len(StoredRows(out, s)[i].images) for s in ("train", "val")
                                              for i in range(len(StoredRows(out, s))))  # fmt: skip
    rotation = next(line for line in report["kinds"] if line["kind"].startswith("rotation"))
    assert sum(rotation["answers"].values()) == sum(rotation["rows"].values()) and rotation["chance"] == 0.25
    page = (out / "report.html").read_text()
    assert "data:image/" in page and "rotation:pair_90" in page and "training rows" in page
    again = run(*command, "--json")
    assert again.exit_code == 0 and "files were already finished" in again.stderr
    assert json.loads(again.stdout)["plan"] == report["plan"]


def test_the_report_measures_prompts_and_audits(photo_folder: Path, tmp_path: Path, processor: Any) -> None:
    result = run("build", photo_folder, "-t", "rotation", "--out", tmp_path / "out", "--set", "options.side=84",
                 "--workers", 1, "--processor", processor.tokenizer.name_or_path, "--audit", 80, "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    (facts,) = report["tokens"]["kinds"].values()
    assert 20 < facts["min"] <= facts["median"] <= facts["max"] and facts["n"] > 10 and facts["over_limit"] == 0
    assert report["audit"]["passed"] and report["audit"]["arms"][0]["verdict"] in ("chance", "content", "declared")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["-t", "rotatoin"], "did you mean 'rotation'"),
        (["-t", "rotation", "--set", "epoch=3"], "there is no key ssl4rl.epoch"),
        (["-t", "rotation", "--set", "epochs"], "KEY=VALUE"),
        (["-t", "rotation", "--engine", "spark"], "engine must be one of local, ray"),
        (["-t", "rotation", "--store", "tape"], "bytes, path, reference"),
        (["-t", "rotation", "--format", "bmp"], "jpeg or png"),
        (["-t", "rotation", "--option", "depth=3"], "no option 'depth'"),
    ],
)
def test_wrong_usage_is_said(photo_folder: Path, tmp_path: Path, extra: list[str], message: str) -> None:
    result = run("build", photo_folder, "--out", tmp_path / "out", *extra)
    assert result.exit_code == 2 and message in " ".join(result.output.split()), result.output


def test_a_manifest_serves_in_place_of_a_folder(photo_folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "photos.parquet"
    build_manifest(FolderSource(photo_folder), index, val_fraction=0.5, seed=3)
    assert run("build", index, "-t", "rotation", "--out", tmp_path / "out", "--workers", 1).exit_code == 0
    assert 8 < len(StoredRows(tmp_path / "out", "train")) < 32
    with pytest.raises(IndexError):
        StoredRows(tmp_path / "out", "train")[99]
