"""Names of ImageNet's classes, and the classes of its unsorted validation pictures, from the lists that come with them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ssl4rl_plugin.data.source import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = ("LOC_synset_mapping.txt", "synset_words.txt")
"""Files with a line `n01440764 tench, Tinca tinca` for each class: Kaggle's, and the one used with Caffe."""
SOLUTION = "LOC_val_solution.csv"
"""Kaggle's file with the class of each validation picture: `ILSVRC2012_val_00048981,n03995372 85 1 499 272`."""

_LINE = re.compile(r"(n\d{8})\s+(\S.*?)\s*")


def names_near(folders: Iterable[Path]) -> dict[str, str]:
    """Class (`n01440764`) -> name, from the first list found in the folders. Raises SourceError if there is none."""
    places = list(folders)
    for file in (folder / name for folder in places for name in NAMES):
        if not file.is_file():
            continue
        found = [_LINE.fullmatch(line) for line in _text(file).splitlines()]
        names = {match[1]: match[2] for match in found if match}
        if len(set(names.values())) < 2:
            raise SourceError(f"{file} has no lines like `n01440764 tench, Tinca tinca`")
        return names
    raise SourceError(
        f"source 'imagenet': questions need the names of the classes: put {NAMES[0]} (Kaggle) or {NAMES[1]} into {places[0]}"
    )


def solution_near(folders: Iterable[Path]) -> dict[str, str]:
    """Name of a validation picture without its ending -> class; empty if there is no list. Raises SourceError."""
    for file in (folder / SOLUTION for folder in folders):
        if file.is_file():
            rows = list(csv.reader(_text(file).splitlines()))
            return {row[0]: row[1].split()[0] for row in rows if len(row) == 2 and row[1].startswith("n")}
    return {}


def names_in(schema: pa.Schema, column: str) -> dict[int, str]:
    """Number of a class -> name, from the header of the Hugging Face Hub's files; empty if the header has none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    if isinstance(names, Mapping):  # older files: {"0": "tench", ...}
        names = [name for _, name in sorted(names.items(), key=lambda entry: int(entry[0]))]
    return {number: str(name) for number, name in enumerate(names)}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from error
