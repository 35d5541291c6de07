"""What `make gpu-check` does before and after its runs: settings, verdicts, redaction and page. No run is started here."""

from __future__ import annotations

import copy
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import gpu_check
import pytest
from gpu_check import Card, Model, PeakMemory
from gpu_page import page
from gpu_redact import COMMON, names_here, redact
from gpu_verdicts import CHECKS, K3, METRICS, ONLINE, PLAIN, WITHOUT_FLASH, ratio, verdicts

from ssl4rl_plugin.cli.recipe_check import check_verl
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training import preflight

SMALL_CARD = Card("NVIDIA A10G", "580.65.06", 23028, "8.6", "0")
LARGE_CARD = Card("NVIDIA H100 80GB HBM3", "580.65.06", 81559, "9.0", "1")
STEPS = 8


def run(step: float = 10.0, **changes: Any) -> dict[str, Any]:
    """The record of a good run on a GPU."""
    metrics = {name: [1.0] * STEPS for name in METRICS}
    metrics |= {K3: [1e-4] * STEPS, "curriculum/cost_s": [0.01] * STEPS}
    metrics["actor/perf/max_memory_allocated_gb"] = [30.0] * STEPS
    metrics["actor/perf/cpu_memory_used_gb"] = [27.5] * STEPS
    times = [60.0, *(step * (1 + 0.001 * number) for number in range(STEPS - 1))]
    return {
        "finished": True, "error": "", "seconds": 200.0, "overrides": [], "log": [], "metrics": metrics,
        "memory": {"card_idle": 0.5, "card_peak": 60.5, "host_idle": 10.0}, "step_s": times, "validated": 4,
        "estimate": {"peak": 62.0, "peak_phase": "update", "trainer": 33.0, "host": 20.0, "phases": {}},
        "samples": [[f"{step}"] for step in range(STEPS)],
        "weights": {"visual": {"tensors": 10, "changed": 9}, "text": {"tensors": 20, "changed": 20}},
        **changes,
    }  # fmt: skip


def case(online: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    runs = {ONLINE: online or run(), PLAIN: run(), WITHOUT_FLASH: run(12.0)} | others
    return {
        "name": "real", "model": "Qwen/Qwen2.5-VL-3B-Instruct", "hardware": "gpu_1x80gb", "steps": STEPS, "lora": False,
        "dtype": "bfloat16", "attention": "flash_attention_2", "runs": runs,
    }  # fmt: skip


def found(of: dict[str, Any]) -> dict[str, str]:
    return {verdict.name: verdict.status for verdict in verdicts(of)}


def changed(**metrics: list[float]) -> dict[str, Any]:
    """A good run with other values of some metrics."""
    one = run()
    one["metrics"] = one["metrics"] | metrics
    return one


def test_good_runs_pass_every_check() -> None:
    assert found(case()) == dict.fromkeys(CHECKS, "passed")


@pytest.mark.parametrize(
    ("check", "status", "bad"),
    [
        ("metrics", "failed", changed(**{"actor/grad_norm": [1.0] * (STEPS - 1)})),
        ("metrics", "failed", run(validated=0)),
        ("k3_kl", "failed", changed(**{K3: [1e-4] * (STEPS - 1) + [2e-2]})),
        ("k3_kl", "failed", changed(**{K3: [1e-4] * (STEPS - 1) + [-2e-2]})),
        ("k3_kl", "failed", changed(**{K3: []})),
        ("weights", "failed", run(weights={"visual": {"tensors": 10, "changed": 0}, "text": {"tensors": 2, "changed": 2}})),
        ("weights", "failed", run(weights=None)),
        ("same samples", "failed", run(samples=[["other"]] * STEPS)),
        ("same samples", "failed", run(samples=[])),
        ("throughput", "failed", run(11.0)),
        ("throughput", "unclear", run(11.0, step_s=[60.0, 11.0, 11.1, 11.2])),
        ("throughput", "unclear", run(step_s=[60.0])),
        ("throughput", "passed", run(9.0)),
        ("sampler", "failed", changed(**{"curriculum/cost_s": [0.5] * STEPS})),
        ("sampler", "failed", changed(**{"curriculum/cost_s": []})),
        ("memory", "failed", run(memory={"card_idle": 0.5, "card_peak": 75.0, "host_idle": None})),
        ("memory", "failed", changed(**{"actor/perf/max_memory_allocated_gb": [40.0] * STEPS})),
        ("memory", "not run", run(memory={"card_idle": None, "card_peak": None, "host_idle": None})),
    ],
)  # fmt: skip
def test_each_check_finds_its_defect(check: str, status: str, bad: dict[str, Any]) -> None:
    assert found(case(bad))[check] == status


def test_a_run_that_did_not_finish_fails_and_the_rest_is_not_run() -> None:
    bad = run(
        finished=False, error="verl ended with exit code 1; the end of x.log:\nTraceback\nImportError: flash_attn"
    )
    statuses = found(case(bad))
    assert statuses.pop("finished") == "failed" and set(statuses.values()) == {"not run"}
    statuses = found(case(**{PLAIN: bad}))
    assert (statuses["finished"], statuses["throughput"], statuses["same samples"]) == ("failed", "not run", "not run")
    assert found(case(**{WITHOUT_FLASH: bad}))["flash-attn"] == "failed"


def test_lora_changes_adapters_of_the_text_model_only() -> None:
    text = {"tensors": 20, "changed": 20}
    lora = {**case(run(weights={"visual": {"tensors": 0, "changed": 0}, "text": text})), "lora": True}
    assert found(lora)["weights"] == "passed"
    lora["runs"][ONLINE]["weights"]["visual"] = {"tensors": 2, "changed": 2}
    assert found(lora)["weights"] == "failed"


def test_the_ratio_leaves_the_first_step_out() -> None:
    compared = ratio([100.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0])
    assert compared is not None and (compared.ratio, compared.low, compared.high) == (2.0, 2.0, 2.0)
    wide = ratio([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert wide is not None and wide.low < 1 == wide.ratio < wide.high


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("saved to /home/ada/runs/x/model.pt now", "saved to …/model.pt now"),
        ("/home/ada/my folder/file.txt", "…/my folder/file.txt"),
        ("path=/data/ada/weights", "path=…/weights"),
        ("folder ~/weights/qwen", "folder …/qwen"),
        ("/data/ada", "…/<name>"),
        ('File "/opt/env/lib/python3.11/site-packages/verl/x.py", line 3', 'File "…/site-packages/verl/x.py", line 3'),
        ("user ada on node-17", "user <name> on <name>"),
        ("adapters of adam", "adapters of adam"),
        ("HF_TOKEN=hf_abcdefghijklmnopqrstuv", "HF_TOKEN=<secret>"),
        ("WANDB_API_KEY: 0123456789abcdef0123456789abcdef01234567", "WANDB_API_KEY: <secret>"),
        ("password='correcthorse'", "password='<secret>'"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer <secret>"),
        ("see https://ada:secret@intern.example/simple", "see <url>"),
        ("mail ada@example.org", "mail <mail>"),
        ("ray at 10.1.2.3:6379", "ray at <ip>:6379"),
        ("data.custom_cls.path=pkg://ssl4rl_plugin.training.verl.dataset", None),
        ("critic/score/mean and num_tokens=128, tokens: 1234567890", None),
        ("Qwen/Qwen2.5-VL-3B-Instruct, driver 580.65.06, torch 2.11.0", None),
    ],
)  # fmt: skip
def test_private_parts_are_removed_and_the_rest_is_kept(text: str, kept: str | None) -> None:
    expected = text if kept is None else kept
    assert redact({text: [text, 1.5, None, True]}, ("ada", "node-17"), "/home/ada") == {
        expected: [expected, 1.5, None, True]
    }


def test_this_users_folders_and_names_are_removed() -> None:
    text = f"{Path.home()}/secret project/x {os.getcwd()}/y " + " ".join(names_here())
    redacted = redact(text)
    assert str(Path.home()) not in redacted and os.getcwd() not in redacted
    assert not any(
        re.search(rf"\b{re.escape(name)}\b", redacted) for name in names_here() if len(name) > 2 and name not in COMMON
    )


def full_record(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1, "made": "2026-08-22 12:00 UTC", "device": "cuda", "steps": STEPS,
        "machine": {
            "gpu": vars(LARGE_CARD), "python": "3.12.3", "system": "Linux", "cuda of torch": "13.0", "cores": 16,
            "memory_gib": 128.0, "shared_memory_gib": 64.0, "versions": {"verl": "0.9.1"},
        },
        "doctor": [{"name": "GPU", "status": "ok", "detail": "1 x H100", "remedy": ""}],
        "cases": [{**case(), "verdicts": [verdict.to_json() for verdict in verdicts(case())]}],
        **changes,
    }  # fmt: skip


def test_the_page_is_made_from_the_record_alone() -> None:
    record = full_record()
    before = copy.deepcopy(record)
    html = page(json.loads(json.dumps(record)))
    assert html == page(record) and record == before
    for verdict in record["cases"][0]["verdicts"]:
        assert verdict["name"] in html
    for shown in (
        "nothing failed",
        "H100",
        "580.65.06",
        "0.9.1",
        "flash_attention_2",
        "whole card",
        "60.0",
        "main memory",
        "17.5",
    ):
        assert shown in html
    assert not re.search(r"""(src|href)\s*=|<script|@import|url\(""", html)


def test_the_page_of_a_failed_run_shows_the_log_as_text() -> None:
    bad = case(
        run(finished=False, error="stopped", log=["Traceback", "<script>alert(1)</script>"], metrics={}, step_s=[])
    )
    record = full_record(cases=[{**bad, "verdicts": [verdict.to_json() for verdict in verdicts(bad)]}])
    html = page(record)
    assert ": failed</h1>" in html and "Traceback" in html and "<script" not in html


@pytest.mark.slow
@pytest.mark.parametrize("card", [None, SMALL_CARD, LARGE_CARD], ids=["cpu", "24 GB", "80 GB"])
@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("name", ["tiny", "real"])
def test_the_settings_pass_verls_validation(card: Card | None, flash: bool, name: str, tmp_path: Path) -> None:
    if card is None and (flash or name == "real"):
        pytest.skip("on the CPU: the tiny model, without flash-attn")
    device = "cpu" if card is None else "cuda"
    model = Model("tiny", str(tmp_path), gpu_check.TINY_TASKS, gpu_check.TINY_SECTION, gpu_check.tiny_overrides(device))
    if name == "real":
        model = Model(
            "real", "Qwen/Qwen2.5-VL-3B-Instruct", gpu_check.REAL_TASKS, {}, ("data.max_response_length=512",)
        )
    given = gpu_check.overrides(model, device, card, 4, flash)
    for way in (given, [*given, *gpu_check.plain_parquet(tmp_path)]):
        config = demo.compose(gpu_check.RECIPE, way)
        assert check_verl(config).status == "ok"
        preflight.check_batches(config)
        preflight.check_data_keys(config)
    assert (config.actor_rollout_ref.model.lora_rank > 0) == gpu_check.adapters(model, card)
    assert gpu_check.adapters(model, card) == (name == "real" and card is SMALL_CARD)
    if card is not None:
        attention = config.actor_rollout_ref.model.override_config.attn_implementation
        assert (attention, config.actor_rollout_ref.model.use_remove_padding) == (
            ("flash_attention_2", True) if flash else ("sdpa", False)
        )
        assert config.trainer.n_gpus_per_node == 1 and config.ssl4rl.gpu_memory == pytest.approx(
            card.memory / 1024, abs=0.1
        )


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that answers as nvidia-smi does, since no machine of these tests has one. Returns its call log."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {calls}\n'
        'case "$*" in\n'
        '  *compute_cap*) echo "NVIDIA H100 80GB HBM3, 580.65.06, 81559, 9.0" ;;\n'
        "  *-lms*) echo 1024; echo 61440; echo 2048; exec sleep 60 ;;\n"
        "  *) echo 512 ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    return calls


def test_the_card_and_its_peak_memory_come_from_nvidia_smi(nvidia_smi: Path, tmp_path: Path) -> None:
    card = gpu_check.find_card()
    assert card == LARGE_CARD
    with PeakMemory(card, tmp_path / "memory.csv") as used:
        for _ in range(100):
            if (tmp_path / "memory.csv").read_text().count("\n") == 3:
                break
            time.sleep(0.05)
    assert (used.idle, used.peak) == (0.5, 60.0)
    assert all("-i 1" in call for call in nvidia_smi.read_text().splitlines())
    with gpu_check.visible(card):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1" and os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,0"


def test_without_a_card_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_check.find_card() is None
    with PeakMemory(None, tmp_path / "memory.csv") as used:
        pass
    assert (used.idle, used.peak) == (None, None)


def test_changed_weights_are_counted_by_part(tmp_path: Path) -> None:
    import torch

    from ssl4rl_plugin.demo.model import build_model, train_tokenizer

    tokenizer = train_tokenizer(["user assistant"])
    model = build_model(tokenizer, 0)
    model.save_pretrained(tmp_path / "model")
    saved = tmp_path / "checkpoints" / "global_step_4" / "actor" / "huggingface"
    assert gpu_check.changed_weights(str(tmp_path / "model"), tmp_path / "checkpoints") is None
    model.save_pretrained(saved)
    same = gpu_check.changed_weights(str(tmp_path / "model"), tmp_path / "checkpoints")
    assert same is not None and all(part["tensors"] > 0 and part["changed"] == 0 for part in same.values())
    assert sum(part["tensors"] for part in same.values()) == len(model.state_dict())
    with torch.no_grad():
        model.model.visual.patch_embed.proj.weight += 1e-6
        model.lm_head.weight += 1e-6
        model.model.language_model.norm.weight += 1e-6
    model.save_pretrained(saved)
    after = gpu_check.changed_weights(str(tmp_path / "model"), tmp_path / "checkpoints")
    assert after is not None and (after["visual"]["changed"], after["text"]["changed"]) == (1, 2)


def test_changed_adapters_are_counted(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from ssl4rl_plugin.demo.model import build_model, train_tokenizer

    lora = LoraConfig(r=2, target_modules="all-linear", exclude_modules=".*visual.*", task_type="CAUSAL_LM")
    model = get_peft_model(build_model(train_tokenizer(["user assistant"]), 0), lora)
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "lora_B" in name).fill_(1e-6)
    shard = tmp_path / "global_step_4" / "actor" / "model_world_size_1_rank_0.pt"
    shard.parent.mkdir(parents=True)
    torch.save(model.state_dict(), shard)
    counted = gpu_check.changed_weights("unused", tmp_path)
    assert counted is not None and counted["visual"] == {"tensors": 0, "changed": 0}
    assert counted["text"]["changed"] == 1 < counted["text"]["tensors"]
