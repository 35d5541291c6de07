"""`make gpu-check`: a few steps of training on this machine's GPU, held against bounds.

Writes gpu-check.json and gpu-check.html into $SSL4RL_GPU_CHECK, the folder that `make gpu-check` names; without it all is
skipped. DEVICE=cpu runs the same on the CPU with the tiny model, to try the check.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from gpu_check import check, find_card
from gpu_page import page
from gpu_verdicts import CHECKS

OUT = os.environ.get("SSL4RL_GPU_CHECK", "")
DEVICE = os.environ.get("DEVICE") or "cuda"
MODEL = os.environ.get("MODEL") or None
STEPS = int(os.environ.get("STEPS") or 4)

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(3 * 3600), pytest.mark.xdist_group("gpu")]


def missing() -> str:
    """Why the check cannot run here; empty if it can."""
    import torch

    if not OUT:
        return "`make gpu-check` runs it"
    if DEVICE == "cpu":
        return ""
    if find_card() is None:
        return "nvidia-smi finds no GPU (DEVICE=cpu tries the check itself)"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU build: install the package with [gpu] in another environment"
    return ""


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    if reason := missing():
        pytest.skip(reason)
    out = Path(OUT)
    found = check(out, DEVICE, MODEL, STEPS)
    (out / "gpu-check.json").write_text(json.dumps(found, indent=1))
    (out / "gpu-check.html").write_text(page(found))
    return found


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("model", ["tiny", "real"])
def test_check(record: dict[str, Any], model: str, name: str) -> None:
    case = next((case for case in record["cases"] if case["name"] == model), None)
    if case is None:
        pytest.skip("MODEL= names no weights")
    verdict = next(verdict for verdict in case["verdicts"] if verdict["name"] == name)
    if verdict["status"] in ("unclear", "not run"):
        pytest.skip(f"{verdict['status']}: {verdict['detail']}")
    assert verdict["status"] == "passed", verdict["detail"]
