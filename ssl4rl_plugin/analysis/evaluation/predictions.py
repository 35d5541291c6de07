"""The file with every response: one JSON object per line, appended as responses arrive, sorted at the end.

Incomplete lines (the evaluation was killed) are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.files import write_file

FILE = "predictions.jsonl"

Prediction = dict[str, Any]
"""One response with its score; the keys are those of `worker.record`."""


def read(path: Path) -> list[Prediction]:
    """All predictions of a file; none if the file does not exist."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    return list(_whole(text.split(b"\n")))


def _whole(lines: Iterable[bytes]) -> Iterator[Prediction]:
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # incomplete, or the empty end
            continue
        if isinstance(value, dict) and isinstance(value.get("row"), int) and isinstance(value.get("draw"), int):
            yield value


def complete(lines: Iterable[Prediction], draws: int) -> list[Prediction]:
    """The predictions of the questions that have all their draws, sorted, without repeats."""
    found: dict[int, dict[int, Prediction]] = {}
    for line in lines:
        found.setdefault(line["row"], {})[line["draw"]] = line
    return [of[draw] for _, of in sorted(found.items()) if len(of) == draws for draw in sorted(of)]


def write(path: Path, lines: Iterable[Prediction]) -> None:
    """Replace the file atomically. Raises WriteError."""
    write_file(path, lambda file: file.writelines(encoded(line) for line in lines))


def encoded(line: Prediction) -> bytes:
    """A prediction as a line of the file."""
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
