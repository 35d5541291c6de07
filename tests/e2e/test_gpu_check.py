"""The check that `make gpu-check` makes, on the CPU: two real runs of two steps, their record and its page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from gpu_check import check
from gpu_page import page
from gpu_verdicts import CHECKS, ONLINE, PLAIN

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800), pytest.mark.xdist_group("shared run")]


def test_the_check_runs_on_the_cpu_and_makes_its_page(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "model", tmp_path / "model")
    record = json.loads(json.dumps(check(tmp_path, "cpu", steps=2)))
    (case,) = record["cases"]
    found = {verdict["name"]: verdict["status"] for verdict in case["verdicts"]}
    # Two steps leave one after the first, and there is no GPU.
    assert found == dict.fromkeys(CHECKS, "passed") | {
        "throughput": "unclear", "memory": "not run", "flash-attn": "not run", "sampler": found["sampler"],
    }, case["verdicts"]  # fmt: skip
    # A share of a very short step, which says little here.
    assert found["sampler"] in ("passed", "failed")
    assert set(case["runs"]) == {ONLINE, PLAIN} and all(run["estimate"]["trainer"] > 0 for run in case["runs"].values())
    assert {check["name"] for check in record["doctor"]} >= {"verl", "vLLM"}
    assert str(tmp_path.parent) not in json.dumps(record)
    html = page(record)
    assert "nothing failed" in html or found["sampler"] == "failed"
    assert "It shows nothing about GPUs" in html and len(html) < 1_000_000
