"""The file with every response: one JSON object a line, written as they come, in order in the end.

A file that ends in the middle of a line (the evaluation was killed) is read up to there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.files import write_file

FILE = "predictions.jsonl"

Line = dict[str, Any]
"""The keys are those of `record`."""


def read(path: Path) -> list[Line]:
    """Every whole line; none where there is no file."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    return list(_whole(text.split(b"\n")))


def _whole(lines: Iterable[bytes]) -> Iterator[Line]:
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:  # torn, or the empty end
            continue
        if isinstance(value, dict) and isinstance(value.get("row"), int) and isinstance(value.get("draw"), int):
            yield value


def complete(lines: Iterable[Line], draws: int) -> list[Line]:
    """The lines of the questions that have all their draws, in order, none twice."""
    found: dict[int, dict[int, Line]] = {}
    for line in lines:
        found.setdefault(line["row"], {})[line["draw"]] = line
    return [of[draw] for _, of in sorted(found.items()) if len(of) == draws for draw in sorted(of)]


def write(path: Path, lines: Iterable[Line]) -> None:
    """Replace the file at once. Raises SourceError if it cannot be written."""
    write_file(path, lambda file: file.writelines(encoded(line) for line in lines))


def encoded(line: Line) -> bytes:
    """A line as it stands in the file."""
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
