"""Real training runs through unmodified verl on the CPU: main_ppo, FSDP2, vLLM, Ray.

Two runs share one model and one set of settings: one is left alone, and one is killed, with its weight sync frozen until
then, and resumed. Three starts of the trainer serve all tests here; test_evaluation.py reads the first run too.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pictures import photo
from shared_run import K3, SMALL, STEPS, TASKS, left_running, metric, rollouts, samples_by_step, start_like
from test_build import tsv

from ssl4rl_plugin.analysis.benchmark_results import answered, benchmark_results
from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training.stored_rows import StoredRows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("shared run")]

HERE = Path(__file__).parent


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
        assert len(rollouts(undisturbed, step)) == 32 and len(samples_by_step(undisturbed)[step]) == 8
    assert all(not row.error for step in log.validations for row in log.validation(step))


def test_weights_reach_the_rollout(undisturbed: Path) -> None:
    """Rollout and actor agree on the log-probabilities of what was sampled, at every step after updates began."""
    kl = metric(undisturbed, K3)
    assert set(kl) >= set(range(2, STEPS + 1))
    assert all(abs(kl[step]) < 1e-3 for step in range(2, STEPS + 1)), kl


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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of the shared run as files."""
    out = tmp_path_factory.mktemp("built") / "data"
    tasks = [part for task in TASKS for part in ("-t", task)]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ssl4rl")), "build", "sample_photos", *tasks, "--out", str(out),
         "--set", "options.side=56", "--set", "val_samples=8", "--set", "answer_format=answer_only",
         "--set", "source.max_pixels=65536", "--option", "crops=8"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@dataclass(frozen=True)
class Killed:
    """A run that was killed after step 3 and resumed."""

    out: Path
    reached_first: int
    """The last step with a checkpoint when it was killed."""
    frozen_kl: dict[int, float]
    """`K3` of the first start, whose rollout kept its first weights."""


@pytest.fixture(scope="module")
def killed(undisturbed: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """As the shared run, but on built rows, and with a benchmark in every order of its options; killed and resumed.

    Until the kill the rollout keeps its first weights, which changes nothing in what the run is given to learn.
    """
    folder = tmp_path_factory.mktemp("killed")
    out = start_like(undisturbed, folder / "run")
    questions = tsv(folder / "tsv.tsv", [photo(100 + k, 56, 56) for k in range(8)], 8)
    extra = (*SMALL, f"ssl4rl.data={built}", f"ssl4rl.benchmarks=[{{name: tsv, path: {questions}, circular: true}}]")
    program = ("import sys; from pathlib import Path; from ssl4rl_plugin.demo.run import main;"
               f"main(Path(sys.argv[1]), steps={STEPS}, extra=tuple(sys.argv[2:]))")  # fmt: skip
    frozen = "actor_rollout_ref.model.external_lib=frozen_sync"
    victim = subprocess.Popen(
        [sys.executable, "-c", program, str(out), *extra, frozen],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while 3 not in (kl := first_kl(out)):  # only step 2 is saved
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    kill_tree(victim)
    reached_first = demo.reached(out)
    assert demo.main(out, steps=STEPS, extra=extra) == 0
    return Killed(out, reached_first, kl)


def first_kl(out: Path) -> dict[int, float]:
    """`K3` by step, as far as the first start of a run has got."""
    try:
        lines = (out / "metrics-0.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row["data"][K3] for row in rows if K3 in row["data"]}


def test_with_frozen_sync_the_same_check_fails(killed: Killed) -> None:
    assert all(abs(killed.frozen_kl[step]) > 1e-3 for step in (2, 3)), killed.frozen_kl


def test_killed_and_resumed_it_sees_the_same_samples(undisturbed: Path, killed: Killed) -> None:
    assert killed.reached_first == 2 and demo.reached(killed.out) == STEPS
    assert samples_by_step(killed.out) == samples_by_step(undisturbed)
    assert len(list(killed.out.glob("metrics-*.jsonl"))) == 2, "the second start must not overwrite the first's metrics"


def test_after_the_resume_the_weights_reach_the_rollout(killed: Killed) -> None:
    kl = metric(killed.out, K3)
    assert all(abs(kl[step]) < 1e-3 for step in range(3, STEPS + 1)), kl


def test_it_trains_on_what_was_built(killed: Killed, built: Path) -> None:
    rows = StoredRows(built, "train")
    expected = {rows[index].ground_truth for index in range(8 * STEPS)}
    assert {row["gts"] for step in range(1, STEPS + 1) for row in rollouts(killed.out, step)} == expected
    log = RunLog(killed.out)
    assert log.names("val-core/ssl4rl/altered_patch") and log.names("val-core/ssl4rl/rotation")


def test_it_validates_on_a_benchmark_in_every_order(killed: Killed) -> None:
    """Each of the eight questions in three orders: verl's own log, and the figures that span rows from its dump."""
    log = RunLog(killed.out)
    names = log.names("val-core/bench/tsv/fine")
    assert names and all(0 <= value <= 1 for name in names for value in log.curve(name)[1])
    for group, count in (("tsv", 8), ("tsv_rotated", 16)):
        steps, counts = log.curve(f"val-aux/bench/{group}/fine/questions/mean@1")
        assert list(steps) == [0, 2, 4, STEPS] and set(counts) == {count}
        assert log.names(f"val-aux/bench/{group}/fine/consistent/") and log.names(f"val-core/bench/{group}/fine/acc/")
    lines = [json.loads(line) for line in (killed.out / "validation" / f"{STEPS}.jsonl").open()]
    results = benchmark_results(a for line in lines if (a := answered(line["gts"], line["acc"])))
    assert [(r.scope, r.name, r.plain.n) for r in results] == [
        ("overall", "", 8), ("l2_category", "coarse", 8), ("category", "fine", 8),
    ]  # fmt: skip
    assert all(r.circular is not None and r.circular.n == 8 and r.incomplete == 0 for r in results)
    assert results[0].plain.mean == log.curve("val-core/bench/tsv/fine/acc/mean@1")[1][-1]


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL a process and all that it started, as a power cut would."""
    import psutil

    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    psutil.wait_procs(family, timeout=20)
    process.wait()


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


def test_nothing_is_left_running(undisturbed: Path, killed: Killed) -> None:
    """Ray's and vLLM's processes of the runs above have ended."""
    assert not left_running()
