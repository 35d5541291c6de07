"""Lay the package out as it is when installed: `python .ci/lay_out.py` copies its Python files to build/package.

The repository keeps `data_builders/` and `recipes/` at its top level, and setuptools maps them into the package's
namespace. mypy, import-linter and the API pages read files and not installations, so they look at the copy.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "build" / "package" / "ssl4rl_plugin"


def lay_out() -> None:
    """Make the copy anew; about two megabytes. Unchanged files keep their times, so caches stay valid."""
    shutil.rmtree(PACKAGE.parent, ignore_errors=True)
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ssl4rl_plugin", PACKAGE, ignore=skipped)
    for folder in ("data_builders", "recipes"):
        shutil.copytree(ROOT / folder, PACKAGE / folder, ignore=skipped)


if __name__ == "__main__":
    lay_out()
