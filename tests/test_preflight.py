"""What cannot work is said on the driver, before Ray starts: one message, exit code 2."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import verl  # noqa: F401  -- loads the plugin
from hydra import compose, initialize_config_module
from pictures import photo
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from ssl4rl_plugin.cli import app
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.training import preflight

SMALL = (
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
    "trainer.n_gpus_per_node=1",
    "ssl4rl.options.side=56",
    "ssl4rl.source.val_fraction=0.3",
)
"""Sizes for forty small pictures."""


def config(*overrides: str):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=["+plugin=ssl4rl", *overrides])


def usual(folder: Path, *overrides: str):
    return config("recipe=images", f"ssl4rl.source.path={folder}", *SMALL, *overrides)


def graph_run(*overrides: str):
    return config("recipe=graph_cpu_demo", "actor_rollout_ref.model.path=some/model", *overrides)


def passes(run) -> None:
    """The check, without that of the machine, which test_machine.py has: here is no GPU for these recipes."""
    preflight.check(run, start=False)


def test_a_good_run_passes(photo_folder: Path) -> None:
    passes(usual(photo_folder))


def test_a_curriculum_that_would_be_without_effect_is_said(
    photo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["ssl4rl.tasks=[rotation:pair_90]", "trainer.checkpoint_callback_class=null"]
    passes(usual(photo_folder, "ssl4rl.curriculum={policy: goldilocks, balance: true}", *one))
    said = capsys.readouterr().err
    assert "one arm only" in said and "`balance` changes nothing" in said and "checkpoints will not hold" in said


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ssl4rl.tasks=[rotatoin]"], r"rotatoin.*rotation"),
        (["ssl4rl.tasks=['jigsaw:9x9']"], r"9x9.*2x2"),
        (["data.train_batch_size=4096"], r"fewer than one batch of 4096.*epochs"),
        (["trainer.total_epochs=3"], r"trainer.total_epochs.*ssl4rl.epochs"),
        (["data.shuffle=true"], r"data.shuffle"),
        (["data.val_max_samples=5"], r"data.val_max_samples.*ssl4rl.val_samples"),
        (["+reward.custom_reward_function.reward_kwargs.format_wieght=0.2"], r"format_wieght.*format_weight"),
        (["reward.custom_reward_function.reward_kwargs.answer_format=boxed"], r"boxed.*think_answer"),
        (
            ["ssl4rl.tasks=[jigsaw]", "ssl4rl.options.side=224", "+ssl4rl.options.rows=5", "+ssl4rl.options.cols=5"],
            r"25 images.*limit_mm_per_prompt.image=25",
        ),
        (["+ssl4rl.options.grid=0", "ssl4rl.tasks=[position]"], r"grid must be in 2..5"),
        (["ssl4rl.options.side=224.5"], r"side must be of type int"),
        (["actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=7"], r"8 prompts x 5 rollouts.*divides 40"),
        (["ssl4rl/algorithm=dapo", "data.max_response_length=100"], r"overlong_buffer_cfg.len is 256.*1 to .* 100"),
        (["ssl4rl.source.path=/no/such/folder"], r"/no/such/folder"),
        (["ssl4rl.source.name=foldr"], r"foldr.*folder"),
        (["actor_rollout_ref.model.path=/no/such/model"], r"no folder /no/such/model"),
        (["ssl4rl.curriculum=goldylocks"], r"goldylocks.*goldilocks"),
        (["ssl4rl.curriculum={policy: goldilocks, floors: {jigsav: 0.1}}"], r"no task 'jigsav'"),
        (["ssl4rl.curriculum=goldilocks", "trainer.v1.sampler.custom_sampler.path=null"], r"sampler of this package"),
    ],
)
def test_each_mistake_is_named_with_its_remedy(photo_folder: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        passes(usual(photo_folder, *overrides))


def test_a_missing_path_is_asked_for() -> None:
    with pytest.raises(preflight.PreflightError, match=r"ssl4rl.source.path is not set.*folder"):
        passes(config("recipe=images"))


def test_an_empty_folder_and_one_without_a_good_image(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        passes(usual(tmp_path))
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match="zero_bytes"):
        passes(usual(tmp_path))


def test_one_group_is_not_enough_for_a_task_that_compares_photos(tmp_path: Path, photos: list[Image.Image]) -> None:
    for number in range(8):
        photos[0].save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match=r"group|no images"):
        passes(usual(tmp_path, "ssl4rl.tasks=[contrastive]"))


def test_a_folder_that_is_no_model_and_a_processor_that_verl_does_not_know(photo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config.json"):
        passes(usual(photo_folder, f"actor_rollout_ref.model.path={tmp_path}"))

    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    save_file({"weight": np.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor"}'
    )
    with pytest.raises(ValueError, match=r"no processor.*Qwen2.5-VL"):
        passes(usual(photo_folder, f"actor_rollout_ref.model.path={tmp_path}"))


@pytest.mark.parametrize("task", ["rotation", "jigsaw", "position", "contrastive"])
def test_the_papers_recipes_take_a_tsv_or_a_folder(
    task: str, photo_folder: Path, photos: list[Image.Image], tmp_path: Path
) -> None:
    """MMBench's layout: the TSV has a base64 `image` column, and every row says the same split."""
    lines = ["index\tquestion\tA\tB\tanswer\tcategory\timage\tsplit"]
    for number, image in enumerate(photos):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        lines.append(f"{number}\twhat?\tx\ty\tA\tc\t{base64.b64encode(buffer.getvalue()).decode()}\tdev")
    tsv = tmp_path / "mmbench_dev_en.tsv"
    tsv.write_text("\n".join(lines) + "\n")
    common = (f"recipe=mmbench_{task}", *SMALL)
    passes(config(*common, f"ssl4rl.source.path={tsv}"))
    passes(config(*common, f"ssl4rl.source.path={photo_folder}", "ssl4rl/source=folder", "ssl4rl/benchmark=none"))


@pytest.mark.slow
def test_main_ppo_stops_with_exit_code_2_before_ray(photo_folder: Path) -> None:
    """The real command: Hydra would turn an ordinary exception of a callback into a warning and go on."""
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "+plugin=ssl4rl", "recipe=images",
               f"ssl4rl.source.path={photo_folder}", "ssl4rl.tasks=[rotatoin]"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=photo_folder.parent)
    assert done.returncode == 2
    assert "ssl4rl: cannot start" in done.stderr and "rotation" in done.stderr
    assert "ray init kwargs" not in done.stdout and "Traceback" not in done.stderr


def test_a_bug_keeps_its_traceback_and_a_users_mistake_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NumPy raises a ValueError too, so the type decides, and not whether it is a ValueError."""

    def bug(config: object) -> None:
        np.zeros(3).reshape(2, 2)

    def mistake(config: object) -> None:
        raise preflight.PreflightError("set the path")

    for planted, code in ((bug, 1), (mistake, 2)):
        monkeypatch.setattr(preflight, "check_data_keys", planted)
        with pytest.raises(SystemExit) as ended:
            preflight.Preflight().on_job_start(graph_run())
        assert ended.value.code == code
        stderr = capsys.readouterr().err
        if code == 2:
            assert stderr == "\nssl4rl: cannot start: set the path\n"
        else:
            assert "Traceback" in stderr and "cannot reshape array" in stderr and "ssl4rl: cannot start" in stderr


def benchmark(path: Path, pictures: list[Image.Image]) -> str:
    """A benchmark with one question about each picture, as an entry of ssl4rl.benchmarks."""
    lines = ["index\tquestion\tA\tB\tanswer\tcategory\timage"]
    for number, image in enumerate(pictures):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        lines.append(f"{number}\twhat?\tx\ty\tA\tfine\t{base64.b64encode(buffer.getvalue()).decode()}")
    path.write_text("\n".join(lines) + "\n")
    return f"ssl4rl.benchmarks=[{{name: tsv, path: {path}}}]"


def test_training_images_may_not_be_those_of_a_benchmark_unless_the_run_says_so(
    photo_folder: Path, photos: list[Image.Image], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Equal pictures, encoded and scaled anew: bytes alone would not tell."""
    copies = [image.resize((image.width // 2, image.height // 2)) for image in photos[:20]]
    shared = benchmark(tmp_path / "shared.tsv", copies)
    with pytest.raises(preflight.PreflightError, match=r"training images are also images of benchmark 'tsv'") as error:
        passes(usual(photo_folder, shared))
    listed = str(error.value).splitlines()
    assert 5 <= sum(" shows the same as " in line for line in listed) <= 10 and "transductive=true" in listed[-1]
    passes(usual(photo_folder, shared, "ssl4rl.transductive=true"))
    assert "(transductive)" in capsys.readouterr().err
    others = benchmark(tmp_path / "others.tsv", [photo(1000 + number) for number in range(8)])
    passes(usual(photo_folder, others))


def test_a_run_on_a_graph_may_validate_on_a_benchmark_of_pictures(tmp_path: Path, photos: list[Image.Image]) -> None:
    passes(graph_run(benchmark(tmp_path / "b.tsv", photos[:4])))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: tsv}", "needs a path"),
        ("{path: x}", "ssl4rl.benchmarks.0.name is missing"),
        ("{name: tsv, path: x, split: y}", "no key ssl4rl.benchmarks.0.split"),
        ("{name: nonsense, path: x}", "unknown source 'nonsense'"),
        ("{name: sample_photos}", "a source of pictures without labels"),
    ],
)
def test_a_benchmark_that_is_none_is_refused(photo_folder: Path, entry: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        passes(usual(photo_folder, f"ssl4rl.benchmarks=[{entry}]"))


def test_a_run_on_built_data_is_checked(photo_folder: Path, photos: list[Image.Image], tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = ["build", str(photo_folder), "-t", "rotation", "--out", str(data), "--set", "options.side=56",
               "--set", "source.val_fraction=0.3", "--set", "val_samples=8", "--workers", "1"]  # fmt: skip
    assert CliRunner().invoke(app, command).exit_code == 0
    run = config("recipe=images", f"ssl4rl.data={data}", *SMALL)
    passes(run)
    passes(config("recipe=images", f"ssl4rl.data={data}", *SMALL, "trainer.total_epochs=3", "data.shuffle=true"))
    for overrides, message in (
        (["ssl4rl.answer_format=boxed"], r"ask for the answer format 'think_answer'"),
        (["data.train_batch_size=64"], r"fewer than one batch of 64"),
        ([benchmark(tmp_path / "b.tsv", photos)], r"training images are also images of benchmark"),
    ):
        with pytest.raises(preflight.PreflightError, match=message):
            passes(config("recipe=images", f"ssl4rl.data={data}", *SMALL, *overrides))
    with pytest.raises(ValueError, match=r"holds no build"):
        passes(config("recipe=images", f"ssl4rl.data={tmp_path}", *SMALL))
