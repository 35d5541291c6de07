"""MkDocs hook: lays the package out as when it is installed, so that the API pages find it without importing it."""

import runpy
from pathlib import Path
from typing import Any

lay_out = runpy.run_path(str(Path(__file__).resolve().parent.parent / ".ci" / "lay_out.py"))["lay_out"]


def on_startup(**kwargs: Any) -> None:
    """Before the API plugin looks for the folder, which it does once."""
    lay_out()


def on_pre_build(**kwargs: Any) -> None:
    """Again for every build of `mkdocs serve`."""
    lay_out()
