"""Copy the Python files to build/package, laid out as when the package is installed: `python .ci/lay_out.py`.

The repository keeps `data_builders/` and `recipes/` at its top level, and setuptools maps them into the package's
namespace. mypy, import-linter and the API pages read files and not installations, so they read this copy.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("data_builders", "recipes")
"""Top-level folders that are packages inside `ssl4rl_plugin` once installed."""


def lay_out(to: Path = ROOT / "build" / "package") -> None:
    """Bring the copy below `to` up to date; about two megabytes.

    Unchanged files keep their times, so caches stay valid. Nothing is missing while a linter reads the copy.
    """
    package = to / "ssl4rl_plugin"
    for name in ("ssl4rl_plugin", *MAPPED):
        target = package / name if name in MAPPED else package
        shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    for path in sorted(package.rglob("*"), reverse=True):  # the files of a folder before the folder
        inside = path.relative_to(package)
        origin = ROOT / inside if inside.parts[0] in MAPPED else ROOT / "ssl4rl_plugin" / inside
        if not origin.exists():
            path.rmdir() if path.is_dir() else path.unlink()


if __name__ == "__main__":
    lay_out()
