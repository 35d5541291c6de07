"""Real training runs through unmodified verl on the CPU: main_ppo, FSDP2, vLLM, Ray. A minute or two each.

All runs share one model and one set of settings, so that what one of them shows holds for the others: the first is
left alone, the second is killed and resumed, the third has its weight sync frozen, the fourth trains a stranger's task.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pictures import clip

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.tasks import get_task, registry

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
BEGAN = time.time()
K3 = "rollout_corr/k3_kl"
STEPS = 5
SMALL = (
    "ssl4rl.val_samples=8",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=32",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=32",
    "trainer.save_freq=2",
    "trainer.test_freq=10",
    "actor_rollout_ref.actor.optim.lr=2e-3",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _shared_cache(cache: Path, monkeypatch: pytest.MonkeyPatch, _own_cache: None) -> None:
    monkeypatch.setenv("SSL4RL_CACHE", str(cache))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A finished run."""
    os.environ["SSL4RL_CACHE"] = str(cache)
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert demo.main(out, steps=STEPS, extra=SMALL) == 0
    return out


def start_like(other: Path, out: Path) -> Path:
    """A new run folder with the same model."""
    out.mkdir()
    shutil.copytree(other / "model", out / "model")
    return out


def metric(out: Path, name: str) -> dict[int, float]:
    steps, values = RunLog(out).curve(name)
    return dict(zip(steps, values, strict=True))


def samples_by_step(out: Path) -> dict[int, list[str]]:
    """Which samples each step trained on, from verl's own rollout dumps."""
    found = {}
    for path in (out / "rollouts").glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[int(path.stem)] = sorted({json.loads(row["gts"])["sample"] for row in rows})
    return found


def test_a_run_ends_with_table_page_and_checkpoint(undisturbed: Path) -> None:
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert set(summary["tasks"]) >= {"altered_patch:2x2_mask", "rotation:pair_90", "jigsaw:2x1"}
    for name, task in summary["tasks"].items():
        assert task["before"]["n"] == task["after"]["n"] == 8, name
    page = (undisturbed / "report.html").read_text()
    assert "data:image/" in page and "altered_patch" in page and len(page) < 5_000_000
    assert demo.reached(undisturbed) == STEPS
    # No prompt was lost: every step has its 8 prompts with 4 rollouts each, and no reward failed.
    log = RunLog(undisturbed)
    for step in range(1, STEPS + 1):
        rows = [json.loads(line) for line in (undisturbed / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        assert len(rows) == 32 and len(samples_by_step(undisturbed)[step]) == 8
    assert all(not row.error for step in log.validations for row in log.validation(step))


def test_weights_reach_the_rollout(undisturbed: Path) -> None:
    """Rollout and actor agree on the log-probabilities of what was sampled, at every step after updates began."""
    kl = metric(undisturbed, K3)
    assert set(kl) >= set(range(2, STEPS + 1))
    assert all(abs(kl[step]) < 1e-3 for step in range(2, STEPS + 1)), kl


def test_with_frozen_sync_the_same_check_fails(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = start_like(undisturbed, tmp_path / "frozen")
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    frozen = (*SMALL, "actor_rollout_ref.model.external_lib=frozen_sync", "trainer.val_before_train=false")
    demo.train("cpu_demo", out, [f"trainer.total_training_steps={STEPS}", "ssl4rl.seed=0", *frozen], STEPS)
    kl = metric(out, K3)
    assert max(abs(kl[step]) for step in range(2, STEPS + 1)) > 1e-3, kl


def test_vision_and_text_weights_changed(undisturbed: Path) -> None:
    from transformers import AutoModelForImageTextToText

    # Loaded and not read from the file, whose names for the tensors are older than those in the module.
    before = AutoModelForImageTextToText.from_pretrained(undisturbed / "model").state_dict()
    shard = next((undisturbed / "checkpoints" / f"global_step_{STEPS}").rglob("model_world_size_1_rank_0.pt"))
    after = {name: local(tensor) for name, tensor in torch.load(shard, weights_only=False).items()}
    assert set(after) == set(before)
    changed = {name for name in after if not torch.equal(after[name].float(), before[name].float())}
    assert any(name.startswith("model.visual.") for name in changed)
    assert any(name.startswith("model.language_model.") for name in changed)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The values of a tensor that FSDP2 may have sharded over one rank."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def test_killed_and_resumed_it_sees_the_same_samples(undisturbed: Path, tmp_path: Path) -> None:
    out = start_like(undisturbed, tmp_path / "killed")
    command = [sys.executable, "-c", "import sys; from pathlib import Path; from ssl4rl_plugin.demo.run import main;"
               f"main(Path(sys.argv[1]), steps={STEPS}, extra=tuple(sys.argv[2:]))", str(out), *SMALL]  # fmt: skip
    victim = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not (out / "rollouts" / "3.jsonl").exists():  # step 3 is under way or done; only step 2 is saved
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    kill_tree(victim)
    assert demo.reached(out) == 2
    assert demo.main(out, steps=STEPS, extra=SMALL) == 0
    assert demo.reached(out) == STEPS
    assert samples_by_step(out) == samples_by_step(undisturbed)
    assert len(list(out.glob("metrics-*.jsonl"))) == 2, "the second start must not overwrite the first one's metrics"


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL a process and all that it started, as a power cut would."""
    import psutil

    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    psutil.wait_procs(family, timeout=20)
    process.wait()


def test_a_strangers_task_trains_with_no_change_here(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = HERE.parent.parent / "docs" / "examples" / "mirror_task"
    source = tmp_path / "source"
    shutil.copytree(package, source)  # a build writes into the folder
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    out = tmp_path / "mirror"
    program = ("import sys; from pathlib import Path; from ssl4rl_plugin.demo.run import main;"
               "sys.exit(main(Path(sys.argv[1]), steps=2, extra=tuple(sys.argv[2:])))")  # fmt: skip
    # A program of its own: this one has read its entry points already.
    subprocess.run([sys.executable, "-c", program, str(out), *SMALL, "ssl4rl.tasks=[mirror]"], check=True, timeout=700)
    summary = json.loads((out / "summary.json").read_text())
    (name,) = summary["tasks"]
    assert name.startswith("mirror:") and summary["tasks"][name]["after"]["n"] == 8
    scores = [json.loads(line)["score"] for line in (out / "rollouts" / "1.jsonl").read_text().splitlines()]
    assert len(scores) == 32 and any(score > 0 for score in scores)


def test_video_tasks_train(tmp_path: Path) -> None:
    """All seven, as videos through verl's multimodal path."""
    out = tmp_path / "videos"
    few = ("ssl4rl.val_samples=2", "ssl4rl.videos_as=video", "trainer.test_freq=10", *SMALL[1:5])
    assert demo.main(out, recipe="cpu_videos", extra=few) == 0
    assert demo.reached(out) == 2
    check_trained(out, get_task_names("video"), steps=2)
    # Not smaller, because transformers and vLLM differ on the positions behind long clips (dataset.positions_agree).
    assert all(abs(metric(out, K3)[step]) < 1e-2 for step in (1, 2))


def test_all_tasks_train_with_clips_as_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task on images and on videos in one run over folders of frames; trainer and vLLM agree on what they saw."""
    for number in range(40):
        folder = tmp_path / "videos" / f"clip{number:02}"
        folder.mkdir(parents=True)
        for k, frame in enumerate(clip(number, 64, 224, 168).frames):
            frame.save(folder / f"{k:03}.jpg", quality=90)
    out = tmp_path / "run"
    names = [*get_task_names("image"), *get_task_names("video")]
    few = (
        f"ssl4rl.tasks=[{','.join(names)}]",
        "ssl4rl.source.name=video",
        f"ssl4rl.source.path={tmp_path / 'videos'}",
        "ssl4rl.source.val_fraction=0.4",
        "ssl4rl.options.side=112",
        "ssl4rl.videos_as=images",
        "data.max_prompt_length=2048",
        "actor_rollout_ref.rollout.max_model_len=2100",
        "ssl4rl.val_samples=2",
        "trainer.test_freq=10",
        *SMALL[1:5],
    )
    monkeypatch.setattr(demo, "WARM_UP_STEPS", 20)  # nothing has to be learnt here
    assert demo.main(out, recipe="cpu_videos", extra=few) == 0
    check_trained(out, names, steps=2)
    kl = metric(out, K3)
    assert all(abs(kl[step]) < 1e-3 for step in (1, 2)), kl


def get_task_names(kind: str) -> list[str]:
    """Our own tasks of a kind: this machine may have others."""
    return [
        name
        for name in registry.names()
        if get_task(name).kind == kind and type(get_task(name)).__module__.startswith("ssl4rl_plugin.")
    ]


def check_trained(out: Path, tasks: list[str], steps: int) -> None:
    """Every task was validated, every prompt has its rollouts, and every response was scored."""
    log = RunLog(out)
    rows = [row for step in log.validations for row in log.validation(step)]
    assert {row.arm.task for row in rows if row.arm} == set(tasks)
    assert all(not row.error for row in rows)
    for step in range(1, steps + 1):
        dumped = [json.loads(line) for line in (out / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        assert len(dumped) == 32 and all(0 <= row["score"] <= 1 for row in dumped)


def test_verls_files_are_as_installed(undisturbed: Path) -> None:
    """After all that, every file of verl still has the hash in its RECORD."""
    distribution = importlib.metadata.distribution("verl")
    checked = 0
    for name, digest, _ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        if digest:
            algorithm, _, expected = digest.partition("=")
            content = Path(str(distribution.locate_file(name))).read_bytes()
            found = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).rstrip(b"=").decode()
            assert found == expected, f"{name} was changed"
            checked += 1
    assert checked > 300


def test_nothing_is_left_running(undisturbed: Path) -> None:
    """Ray's and vLLM's processes of the runs above have ended: none that appeared since this file began is left."""
    import psutil

    deadline = time.monotonic() + 30
    while True:
        left = [
            " ".join(process.info["cmdline"])[:100]
            for process in psutil.process_iter(["cmdline", "create_time"])
            if process.info["create_time"] > BEGAN
            and any(
                mark in " ".join(process.info["cmdline"] or [])[:200]
                for mark in ("raylet", "ray::", "VLLM", "main_ppo")
            )
        ]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert not left
