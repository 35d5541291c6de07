"""The package as it is installed, its layout, moved modules, and what linters have to find; files of the repository."""

from __future__ import annotations

import ast
import importlib
import os
import runpy
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from verl.utils.import_utils import load_extern_object

import ssl4rl_plugin
from ssl4rl_plugin.training import rewards

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
LAY_OUT = runpy.run_path(str(ROOT / ".ci" / "lay_out.py"))["lay_out"]
BUILD = runpy.run_path(str(ROOT / ".ci" / "check_wheel.py"))["build"]


def run(folder: Path, *command: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, laid out as when it is installed, for tests that plant a fault."""
    LAY_OUT(tmp_path / "build" / "package")
    return tmp_path / "build" / "package" / "ssl4rl_plugin"


def plant(file: Path, line: str) -> None:
    file.write_text(f"{file.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")


# --------------------------------------------------------------------------------------------------- layout


def test_only_the_plugin_lies_loose_at_the_top() -> None:
    assert {path.name for path in (ROOT / "ssl4rl_plugin").glob("*.py")} == {"__init__.py", "plugin.py"}


def test_every_module_has_a_docstring() -> None:
    files = [path for folder in ("ssl4rl_plugin", "data_builders") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 150
    without = [str(path.relative_to(ROOT)) for path in files if not ast.get_docstring(ast.parse(path.read_bytes()))]
    assert not without


def test_every_folder_is_a_package() -> None:
    """import-linter does not look into a folder without __init__.py."""
    for folder in ("ssl4rl_plugin", "data_builders"):
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    with zipfile.ZipFile(BUILD(tmp_path)) as wheel:
        names = set(wheel.namelist())
    assert {name.partition("/")[0] for name in names} == {
        "ssl4rl_plugin", f"ssl4rl_plugin-{ssl4rl_plugin.__version__}.dist-info",
    }  # fmt: skip
    assert "ssl4rl_plugin/py.typed" in names
    LAY_OUT(tmp_path / "package")
    files = [path for path in (tmp_path / "package").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "package").as_posix() for path in files} <= names


# --------------------------------------------------------------------------------------------- moved modules


@pytest.mark.parametrize(("old", "new"), ssl4rl_plugin.MOVED.items())
def test_a_module_of_version_0_1_is_the_new_one(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = f"ssl4rl_plugin.{old}", f"ssl4rl_plugin.{new}"
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(FutureWarning, match=f"{old} has moved: write {new}"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(new)
    assert found.__name__ == new and found.__spec__ is not None and found.__spec__.name == new


def test_new_names_do_not_warn() -> None:
    code = "import ssl4rl_plugin.training.rewards, ssl4rl_plugin.core.registry, ssl4rl_plugin.data.manifest"
    done = run(ROOT, sys.executable, "-W", "error::FutureWarning:ssl4rl_plugin", "-c", code)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", ["pkg://ssl4rl_plugin.rewards", "pkg://ssl4rl_plugin.training.rewards"])
def test_verl_loads_the_reward_under_both_names(path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert load_extern_object(path, "compute_score") is rewards.compute_score


# -------------------------------------------------------------------------------- what the linters have to find


@pytest.mark.parametrize(
    ("file", "line", "imported"),
    [
        ("core/seeding.py", "import ssl4rl_plugin.tasks.image.views", "ssl4rl_plugin.tasks.image.views"),
        ("analysis/statistics.py", "import ssl4rl_plugin.data_builders.sources.tsv", "ssl4rl_plugin.data_builders.sources"),
        ("data_builders/sources/tsv.py", "import ssl4rl_plugin.data_builders.build", "ssl4rl_plugin.data_builders.build"),
    ],
)  # fmt: skip
def test_import_linter_finds_an_import_that_goes_up(package: Path, file: str, line: str, imported: str) -> None:
    plant(package / file, line)
    command = [PROGRAMS / "lint-imports", "--no-logo", "--no-cache", ROOT / "pyproject.toml"]
    done = run(package.parent, *command)
    module = f"ssl4rl_plugin.{file.removesuffix('.py').replace('/', '.')}"
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{module} -> {imported}" in done.stdout


@pytest.mark.slow
def test_mypy_finds_a_wrong_type_in_a_source(package: Path, tmp_path: Path) -> None:
    file = package / "data_builders" / "sources" / "tsv.py"
    # Wrong only to one who knows the types of another folder: they must not have become Any.
    plant(file, "from ssl4rl_plugin.core.seeding import rng_for\nPLANTED: str = rng_for(0)")
    done = run(tmp_path, PROGRAMS / "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path / "cache")
    (found,) = [line for line in done.stdout.splitlines() if "data_builders/sources/tsv.py" in line]
    assert done.returncode == 1 and "Incompatible types in assignment" in found, done.stdout


# ------------------------------------------------------------------------------------- files of the repository


OF_PRE_COMMIT_HOOKS = (
    "check-added-large-files",
    "check-merge-conflict",
    "check-toml",
    "check-yaml",
    "end-of-file-fixer",
    "trailing-whitespace-fixer",
)
"""Programs of the package pre-commit-hooks, which `make hooks` installs."""


def test_yaml_files_of_the_repository_parse() -> None:
    files = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]
    read: dict[str, Any] = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}
    assert all(isinstance(tree, dict) for tree in read.values()) and len(read) == 7
    steps = [step.get("run") for step in read["ci.yml"]["jobs"]["all"]["steps"]]
    assert ".ci/run" in steps and os.access(ROOT / ".ci" / "run", os.X_OK)
    for name in ("bug.yml", "feature.yml"):
        assert {"name", "description", "body"} <= set(read[name])
    hooks = [hook["entry"].split()[0] for repo in read[".pre-commit-config.yaml"]["repos"] for hook in repo["hooks"]]
    installed = {f".venv/bin/{path.name}" for path in PROGRAMS.iterdir()}
    by_make_hooks = {name for name in hooks if name.removeprefix(".venv/bin/") in OF_PRE_COMMIT_HOOKS}
    assert set(hooks) - by_make_hooks <= {"make", *installed}


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == ssl4rl_plugin.__version__
    assert ssl4rl_plugin.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
