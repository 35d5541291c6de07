"""MkDocs hook: lays the package out as it is when installed, so that the API pages find it without importing it.

The repository keeps `data_builders/` and `recipes/` at its top level, and setuptools maps them into the package's namespace.
"""

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = ROOT / "build" / "docs" / "ssl4rl_plugin"


def lay_out() -> None:
    """Copy the Python files; a few hundred kilobytes."""
    shutil.rmtree(LAYOUT, ignore_errors=True)
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ssl4rl_plugin", LAYOUT, ignore=skipped)
    shutil.copytree(ROOT / "data_builders", LAYOUT / "data_builders", ignore=skipped)


def on_startup(**kwargs: Any) -> None:
    """Before the API plugin looks for the folder, which it does once."""
    lay_out()


def on_pre_build(**kwargs: Any) -> None:
    """Again for every build of `mkdocs serve`."""
    lay_out()
