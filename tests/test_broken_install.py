"""`import torch` works whatever is missing or broken in this package: torch fails if it cannot load an entry point."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from ssl4rl_plugin.cpu import setup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
STATES = {
    "whole": None,
    "deleted": {},
    "not Python": {"__init__.py": "def (:\n"},
    "exits": {"__init__.py": "import sys\nsys.exit('no licence')\n"},
    "stops in a call": {
        "__init__.py": "", "core/__init__.py": "", "core/first_word.py": "def say(): raise SystemExit('late')\n",
    },
}  # fmt: skip
"""State of the package -> its files; the metadata stay, as after an interrupted pip or a deleted checkout."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's packages by links, with this package as its wheel would be and "vllm" as `setup` writes it."""
    folder = tmp_path_factory.mktemp("site")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("ssl4rl", "_ssl4rl", "__editable__", "vllm-", "__pycache__")):
            (folder / path.name).symlink_to(path)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = folder / "ssl4rl_plugin-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ssl4rl-plugin\nVersion: 0.0\n")
    groups = {
        group: [f"{name} = {value}" for name, value in of.items()] for group, of in project["entry-points"].items()
    }
    (info / "entry_points.txt").write_text("".join("\n".join([f"[{group}]", *of, ""]) for group, of in groups.items()))
    with zipfile.ZipFile(setup.write_wheel(folder, "0.27.0+cpu")) as wheel:
        wheel.extractall(folder)
    return folder


def put(site: Path, files: dict[str, str] | None) -> None:
    """The package in one of its `STATES`."""
    package = site / "ssl4rl_plugin"
    shutil.rmtree(package, ignore_errors=True)
    for name, text in (files or {}).items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    if files is None:
        shutil.copytree(ROOT / "ssl4rl_plugin", package, ignore=shutil.ignore_patterns("__pycache__"))


def run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.path.append({str(site)!r}); "  # -S: without the .pth files of this environment
    command = [sys.executable, "-I", "-S", "-c", start + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_torch_and_torchvision_import(site: Path, state: str) -> None:
    put(site, STATES[state])
    done = run(site, "import torch, torchvision; print(torch.ones(1).item(), torchvision.__version__)")
    assert done.returncode == 0 and done.stdout.startswith("1.0 "), done.stderr


@pytest.mark.slow
def test_without_the_module_for_torch_torchvision_would_fail_here_and_torch_not(site: Path) -> None:
    """What GPU users have, and the proof that the tests above test something."""
    put(site, None)
    (site / "vllm-0.27.0+cpu.dist-info").rename(site / "gone")
    try:
        assert run(site, "import torch").returncode == 0
        if "+cpu" in metadata.version("torch") and "+cpu" not in metadata.version("torchvision"):
            assert run(site, "import torchvision").returncode == 1
    finally:
        (site / "gone").rename(site / "vllm-0.27.0+cpu.dist-info")


def test_the_package_itself_gives_torch_nothing_to_load() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "torch.backends" not in project["entry-points"]
