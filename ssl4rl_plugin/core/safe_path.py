"""Python processes that import nothing from the folder in which they are started.

`python -c` and `python -m` put the current folder first on `sys.path`. In a folder of data that a stranger made, a
`pickle.py` there would run. `-P` and PYTHONSAFEPATH prevent that, but only from Python 3.11 on, so the code below also
removes the folder itself, before the first import.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

RAY_HOOK = "ssl4rl_plugin.core.safe_path.refuse_current_folder"
"""For `worker_process_setup_hook` of Ray's runtime environment: Ray puts the driver's folder first on its workers' path."""
START_FOLDER = "SSL4RL_START_FOLDER"
"""Environment variable with the driver's folder, for workers on other machines."""

_LEAVE = "import sys; sys.path[:] = [place for place in sys.path if place]; "  # `sys` is built in: no file shadows it
_MODULE = _LEAVE + "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"


def run_code(code: str, *arguments: str) -> list[str]:
    """The command `python -c code arguments...`, without the current folder on its path."""
    return [sys.executable, "-c", _LEAVE + code, *arguments]


def run_module(module: str, *arguments: str) -> list[str]:
    """The command `python -m module arguments...`, without the current folder on its path."""
    return [sys.executable, "-c", _MODULE, module, *arguments]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with further variables, for commands whose own child processes must be safe too."""
    return {**os.environ, "PYTHONSAFEPATH": "1", **variables}


def ray_environment() -> dict[str, Any]:
    """A runtime environment for `ray.init`, in which workers import nothing from the current folder."""
    return {"worker_process_setup_hook": RAY_HOOK, "env_vars": {"PYTHONSAFEPATH": "1", START_FOLDER: os.getcwd()}}


def refuse_current_folder() -> None:
    """Keep the folder in which this process, or its driver, was started off its path, also if something puts it there
    later. Safe to call twice."""
    if not any(isinstance(finder, _Refusing) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Refusing({"", os.getcwd(), os.environ.get(START_FOLDER, "")}))


class _Refusing(MetaPathFinder):
    """Finds nothing. Removes folders from the path before others search it."""

    def __init__(self, folders: set[str]) -> None:
        # What the user put on PYTHONPATH or installed in place (`pip install --editable .`) is meant.
        named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        self._refused = folders - {os.path.abspath(place) for place in named if place} - _installed_in_place()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not self._refused.isdisjoint(sys.path):
            sys.path[:] = [place for place in sys.path if place not in self._refused]
        return None


def _installed_in_place() -> set[str]:
    """The folders that the installation's own .pth files name."""
    found: set[str] = set()
    for folder in [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]:
        for file in Path(folder).glob("*.pth"):
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                continue
            found.update(os.path.join(folder, line.strip()) for line in lines if line.strip() and line[0] != "#")
    return {os.path.abspath(place) for place in found}
