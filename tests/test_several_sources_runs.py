"""Several sources before and in a run: the check, the overlap with benchmarks, builds, the dataset's rows, metrics."""

from __future__ import annotations

import base64
import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import test_preflight
import verl  # noqa: F401  -- loads the plugin
from hydra import compose, initialize_config_module
from pictures import photo
from PIL import Image
from test_samples_and_dataset import dataset
from test_several_sources import GRAPH, copies, folder_of, section
from torchdata.stateful_dataloader import StatefulDataLoader
from typer.testing import CliRunner
from verl.utils.dataset.rl_dataset import collate_fn

from ssl4rl_plugin.analysis.runlog.accuracy import task_outcomes
from ssl4rl_plugin.analysis.runlog.config import RunConfig
from ssl4rl_plugin.analysis.runlog.responses import parse_response
from ssl4rl_plugin.cli import app
from ssl4rl_plugin.data.build_plan import PlanError, manifest_names
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.mixture import Mixture
from ssl4rl_plugin.data.rows import OnlineRows
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.data.shards import Codec
from ssl4rl_plugin.data_builders.build.builder import build
from ssl4rl_plugin.data_builders.build.planning import make_plan
from ssl4rl_plugin.training import preflight
from ssl4rl_plugin.training.curriculum.evidence import CurriculumArm, Evidence
from ssl4rl_plugin.training.curriculum.step_metrics import source_figures
from ssl4rl_plugin.training.settings import Settings, SettingsError
from ssl4rl_plugin.training.stored_rows import StoredRows

SMALL = (*test_preflight.SMALL, "ssl4rl.tasks=[rotation]")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("folders")
    return folder_of(root / "a", range(16), (160, 120)), folder_of(root / "b", range(60, 70), (160, 120))


def overrides(sources: str, *others: str) -> list[str]:
    return ["recipe=images", *SMALL, f"ssl4rl.sources={sources}", *others]


def check(sources: str, *others: str) -> None:
    """The check before a run, without that of the machine. The recipe's own `ssl4rl.source.path` stays unset."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+plugin=ssl4rl", *overrides(sources, *others)])
    preflight.check(config, start=False)


def test_the_check_before_a_run_says_what_each_source_holds(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = folders
    (tmp_path / "c").mkdir()
    Image.new("RGB", (10, 300)).save(tmp_path / "c" / "sliver.png")
    for number in range(4):
        photo(300 + number, 160, 120).save(tmp_path / "c" / f"{number}.png")
    check(f"[{{path: {one}}}, {{path: {other}, weight: 2, name: second}}, {{path: {tmp_path / 'c'}}}]")
    said = capsys.readouterr().err
    for line in (
        "source 'a': folder, items of kind image: train",
        "source 'second'",
        "source 'c': 1 images are left out",
    ):
        assert line in said
    with pytest.raises(preflight.PreflightError, match=r"no task draws from source 'novel'.*kind 'graph'.*take it out"):
        check(f"[{{path: {one}}}, {{source: les_miserables, name: novel}}]", "ssl4rl.transductive=true")
    with pytest.raises(preflight.PreflightError, match=r"`inductive: true` in the options of source 'novel'"):
        check(f"[{{path: {one}}}, {{source: les_miserables, name: novel}}]")


def test_a_recipe_whose_benchmark_is_its_source_asks_for_the_benchmarks_path(folders: tuple[Path, Path]) -> None:
    sources = f"ssl4rl.sources=[{{path: {folders[0]}}}]"
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+plugin=ssl4rl", "recipe=mmbench_rotation", sources])
    with pytest.raises(SettingsError, match=r"ssl4rl.benchmarks\[0\].path takes its value from ssl4rl.source.path"):
        preflight.check(config, start=False)


def test_doctor_checks_each_source(folders: tuple[Path, Path]) -> None:
    one, _ = folders
    good = CliRunner().invoke(app, ["doctor", "--recipe", "images", *SMALL,
                                    f"ssl4rl.sources=[{{path: {one}}}]"])  # fmt: skip
    assert "source 'a'" in " ".join(good.output.split()) and "passes the checks before a run" in good.output
    bad = CliRunner().invoke(app, ["doctor", "--recipe", "images", *SMALL,
                                   f"ssl4rl.sources=[{{path: {one}}}, {{path: /no/where}}]"])  # fmt: skip
    assert bad.exit_code == 1 and "'where': there is no path /no/where" in " ".join(bad.output.split())


def benchmark(path: Path, pictures: list[Path]) -> Path:
    """Questions in MMBench's layout about the pictures."""
    lines = ["index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit\timage"]
    for number, picture in enumerate(pictures):
        image = base64.b64encode(picture.read_bytes()).decode()
        lines.append(f"{number}\tWhat?\t\tone\ttwo\t\t\tA\tx\ty\tdev\t{image}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_overlap_with_a_benchmark_is_looked_for_in_every_source(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = folders
    asked = benchmark(tmp_path / "bench.tsv", sorted(other.iterdir()))
    sources = f"[{{path: {one}}}, {{path: {other}}}]"
    bench = f"ssl4rl.benchmarks=[{{name: mmbench, path: {asked}}}]"
    with pytest.raises(
        preflight.PreflightError, match=r"\d training images are also images of benchmark.*\n  b: 0\d+.png"
    ):
        check(sources, bench)
    check(f"[{{path: {one}}}]", bench)
    check(sources, bench, "ssl4rl.transductive=true")


# ------------------------------------------------------------------------------------------------- builds

BUILT: dict[str, Any] = {"side": 56}


def made(folders: tuple[Path, Path], tmp_path: Path, **how: Any) -> tuple[dict[str, Any], Mixture, Path]:
    one, other = folders
    again = copies(one, tmp_path / "again", "re-encoded") if not (tmp_path / "again").exists() else tmp_path / "again"
    entries = [{"path": str(one)}, {"path": str(other), "weight": 2}, {"path": str(again), "train_size": 0.5}]
    given = section(entries, ["rotation", "flip"], epochs=1)
    manifest = load_manifest(Settings.from_config(given))
    assert isinstance(manifest, Mixture)
    out = tmp_path / f"built-{len(how)}-{how.get('store')}"
    build(make_plan(given, manifest, how.get("store", "bytes"), Codec("png"), 16), manifest, out, workers=1)
    return given, manifest, out


@pytest.mark.parametrize("store", ["bytes", "reference"])
def test_a_build_of_several_sources_holds_the_online_rows(
    folders: tuple[Path, Path], tmp_path: Path, store: str
) -> None:
    given, manifest, out = made(folders, tmp_path, store=store)
    assert all((out / name).is_file() for name in manifest_names(3)) and not (out / "manifest.parquet").exists()
    for split in ("train", "val"):
        online = OnlineRows(SampleStream(Settings.from_config(given), manifest, split))
        read = StoredRows(out, split)
        assert len(read) == len(online) > 0
        for index in range(len(read)):
            one, other = online[index], read[index]
            assert one.info["source"] == json.loads(one.ground_truth)["source"] in ("a", "b", "again")
            for name in ("kind", "data_source", "prompt", "ground_truth", "info"):
                assert getattr(one, name) == getattr(other, name)
            assert [image.tobytes() for image in one.images] == [image.tobytes() for image in other.images]
    assert [source.label for source in StoredRows(out, "train").settings.sources] == ["a", "b", "again"]


def test_a_plan_depends_on_weights_and_names_and_not_on_places(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = folders
    moved = copies(one, tmp_path / "moved", "bytes")
    for path in moved.iterdir():
        path.rename(moved / path.name.removeprefix("copy-"))

    def plan(*entries: dict[str, Any]) -> str:
        given = section(list(entries), ["rotation"])
        return make_plan(given, load_manifest(Settings.from_config(given))).id  # type: ignore[arg-type]

    first = {"path": str(one), "name": "x"}
    second = {"path": str(other), "name": "y"}
    same = plan(first, second)
    assert plan({**first, "path": str(moved)}, second) == same
    assert len({same, plan(first, {**second, "weight": 2}), plan(first, {**second, "name": "z"})}) == 3


def test_a_build_refuses_a_graph_and_an_unused_source(folders: tuple[Path, Path]) -> None:
    one, _ = folders
    given = section([{"path": str(one)}, GRAPH], ["rotation", "link_prediction"])
    with pytest.raises(PlanError, match="a graph is not built"):
        make_plan(given, load_manifest(Settings.from_config(given)))  # type: ignore[arg-type]


def test_the_command_builds_several_sources(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = folders
    sources = f"[{{path: {one}}}, {{path: {other}, weight: 2}}]"
    command = ["build", "--sources", sources, "-t", "rotation", "--set", "options.side=56", "--out", str(tmp_path / "out"),
               "--set", "source.val_fraction=0.3", "--json", "--workers", "1"]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [source["name"] for source in report["sources"]] == ["a", "b"]
    assert report["splits"]["train"]["rows"] == len(StoredRows(tmp_path / "out", "train")) > 0
    both = CliRunner().invoke(app, [*command, str(one)])
    assert both.exit_code == 2 and "leave out WHERE" in " ".join(both.output.split())
    none = CliRunner().invoke(app, ["build", "-t", "rotation", "--out", str(tmp_path / "other")])
    assert none.exit_code == 2 and "--sources" in none.output


# ------------------------------------------------------------------------------------------------- the dataset


def test_workers_and_a_resumed_loader_give_the_same_rows_of_all_kinds(folders: tuple[Path, Path]) -> None:
    """With verl's own data loader and collate function: rows with pictures, with frames and with text alone."""
    one, other = folders
    entries = [{"path": str(one)}, {"path": str(other), "weight": 2}, {"source": "sample_videos", "name": "v"}, GRAPH]
    rows = dataset(section(entries, ["rotation", "arrow_of_time", "link_prediction"], epochs=1, videos_as="images"))

    def loader(workers: int) -> StatefulDataLoader:
        return StatefulDataLoader(rows, batch_size=8, num_workers=workers, drop_last=True, collate_fn=collate_fn)

    def truths(batches: Any) -> list[list[str]]:
        return [[row["ground_truth"] for row in batch["reward_model"]] for batch in batches]

    alone = truths(itertools.islice(loader(0), 4))
    assert alone == truths(itertools.islice(loader(2), 4))
    first = loader(0)
    started = truths(itertools.islice(first, 2))
    resumed = loader(0)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    assert started + truths(itertools.islice(resumed, 2)) == alone
    kinds = {}
    for batch in itertools.islice(loader(0), 4):
        for info, prompt in zip(batch["extra_info"], batch["raw_prompt"], strict=True):
            content = prompt[0]["content"]
            kinds[info["source"]] = "text" if isinstance(content, str) else {part["type"] for part in content}
    assert kinds["novel"] == "text" and "image" in kinds["v"] and "image" in kinds["b"]


# ------------------------------------------------------------------------------------------------- metrics


def test_a_step_has_metrics_of_each_source() -> None:
    arms = [CurriculumArm("t:one", "t/one", "t", 0, 0.25, 1.0), CurriculumArm("u:one", "u/one", "u", 0, 0.5, 1.0)]
    right = Evidence(groups=2, answers=4, correct=1.5, effective=1, spread=0.5, diversity=1.0)
    found = source_figures(arms, {"a": {0: right, 1: right.times(2)}, "b": {0: right}, "c": {}})
    assert found["ssl4rl/source/a/share"] == 6 / 8 and found["ssl4rl/source/b/share"] == 2 / 8
    assert found["ssl4rl/source/c/share"] == 0 and "ssl4rl/source/c/accuracy" not in found
    assert found["ssl4rl/source/a/accuracy"] == 4.5 / 6 and found["ssl4rl/source/a/effective"] == 3 / 6
    assert found["ssl4rl/source/b/corrected"] == pytest.approx((0.75 - 0.25) / 0.75)
    assert source_figures(arms, {}) == {}


def test_a_report_finds_the_sources_of_a_run_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Relative paths are those of the folder where the run was started, and an unset path stays unset."""
    given = section([{"path": "a"}, {"path": str(folders[1])}], ["rotation"])
    given["source"]["path"] = "???"
    (tmp_path / "config.yaml").write_text(json.dumps({"ssl4rl": given}))
    (tmp_path / "hydra.yaml").write_text(json.dumps({"hydra": {"runtime": {"cwd": str(folders[0].parent)}}}))
    found = RunConfig(tmp_path / "config.yaml", tmp_path).settings
    assert [source.path for source in found.sources] == [str(folder) for folder in folders]
    assert len(load_manifest(found).items("train")) > 0


def test_a_report_divides_answers_by_source() -> None:
    def answer(number: int, source: str | None, acc: float) -> Any:
        truth = {"task": "rotation", "level": "pair_90", "options": {}, "truth": 90, "sample": f"val:{number}"}
        named = truth | ({"source": source} if source else {})
        return parse_response({"gts": json.dumps(named), "acc": acc, "score": acc}, step=0)

    rows = [answer(0, "a", 1.0), answer(1, "a", 0.0), answer(2, "b", 1.0), answer(3, None, 0.0)]
    assert [row.source for row in rows] == ["a", "a", "b", ""]
    (all_of_it,) = task_outcomes(rows).values()
    assert len(all_of_it) == 4
    of = {arm.source: sorted(found.values()) for arm, found in task_outcomes(rows, by_source=True).items()}
    assert of == {"a": [0.0, 1.0], "b": [1.0]}
