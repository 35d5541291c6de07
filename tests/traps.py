"""A folder of data as a stranger could have made it: whatever Python finds there leaves a mark when it runs."""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

_TRAP = "import os\nos.close(os.open({mark!r}, os.O_CREAT | os.O_WRONLY))\nraise ImportError('a trap: ' + __name__)\n"


def set_traps(folder: Path, marks: Path) -> Path:
    """Put traps into a folder: a module for each of the standard library and of everything installed, and more."""
    marks.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)

    def trap(path: str) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(_TRAP.format(mark=str(marks / path.replace("/", "."))))

    installed = {name for name in packages_distributions() if name.isidentifier()}
    for name in {*sys.stdlib_module_names, *installed, "sitecustomize", "usercustomize", "conftest"}:
        trap(f"{name}.py")
    for name in ("numpy", "torch", "ssl4rl_plugin", "recipes", "tests", "data_builders"):
        trap(f"{name}/__init__.py")
    trap("hydra_plugins/evil.py")  # a namespace package: Hydra imports all modules in it
    mark = str(marks / "pth")
    (folder / "evil.pth").write_text(f"import os; os.close(os.open({mark!r}, os.O_CREAT | os.O_WRONLY))\n")
    (folder / ".env").write_text(f"PYTHONPATH={folder}\nPYTHONSTARTUP={folder / 'os.py'}\n")
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '-p conftest'\n")
    (folder / "recipes" / "recipe").mkdir()
    (folder / "recipes" / "recipe" / "cpu_demo.yaml").write_text("# @package _global_\n_target_: os.abort\n")
    return folder


def sprung(marks: Path) -> list[str]:
    """The traps that ran."""
    return sorted(path.name for path in marks.iterdir())
