"""Pretext tasks as multiple-choice sets that VLMEvalKit reads: one TSV for each (task, level).

Its layout is that of VLMEvalKit's custom sets (`LMUData/NAME.tsv`): an integer `index`, the pictures as base64 in `image`
with file names in `image_path`, `question`, options in columns A, B, C, ..., and the right letter in `answer`.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.files import write_file
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.samples import SampleStream, StreamSample
from ssl4rl_plugin.grading import letters
from ssl4rl_plugin.training.questions import MAX_OPTIONS

READ_AS_EMPTY = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
     "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
"""What pandas takes for an empty cell: as an option it would be gone."""


def unfit(arm: Arm) -> str | None:
    """Why a task is no multiple-choice set at this level, as a snake_case reason; None if it is one.

    It is where one of at most 26 labels or numbers is right and all others are wrong. Orders, sets, boxes and paths are
    graded in part, and free words cannot be listed.
    """
    if arm.task.kind == "video":
        return "video"
    grader = arm.task.grader(arm.level)
    if not grader.is_choice:
        return "not_a_choice"
    return "too_many_options" if len(list(islice(grader.values(), MAX_OPTIONS + 1))) > MAX_OPTIONS else None


def set_name(arm: Arm) -> str:
    """The set's name for VLMEvalKit, which tells some benchmarks by parts of their names."""
    options = "".join(f"_{key}{value}" for key, value in sorted(arm.options.items()))
    return "SSL4RL_" + re.sub(r"[^A-Za-z0-9_]+", "-", f"{arm.task.name}_{arm.level_name}{options}")


def write_set(stream: SampleStream, count: int, folder: Path, advance: Callable[[], None]) -> Path:
    """Write the first `count` samples of a stream with one arm as a set.

    Args:
        stream: the samples; those of its validation split are what a run with the same seed validates on.
        count: rows.
        folder: where `NAME.tsv` is put, at once when it is complete.
        advance: called after each row.

    Raises:
        UserError: the task is no multiple-choice set (see `unfit`).
        SampleError, SourceError: samples cannot be made, or the file cannot be written.
    """
    (arm,) = stream.settings.arms
    if (reason := unfit(arm)) is not None:
        raise UserError(f"{arm.key} is no multiple-choice set: {reason}")
    path = folder / f"{set_name(arm)}.tsv"

    def rows(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer: csv.DictWriter[str] | None = None
        for index in range(count):
            row = row_of(stream[index], index)
            if writer is None:
                writer = csv.DictWriter(text, list(row), delimiter="\t", lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
            advance()
        text.detach()

    write_file(path, rows)
    return path


def row_of(made: StreamSample, index: int) -> dict[str, Any]:
    """One line of a set."""
    arm = made.arm
    grader = arm.task.grader(arm.level)
    values = list(grader.values())
    marks = letters(len(values))
    right = [mark for mark, value in zip(marks, values, strict=True) if grader.equal(value, made.sample.truth)]
    if len(right) != 1:
        raise UserError(f"{arm.key}, sample {made.key}: {len(right)} of its options are right, not one")
    row: dict[str, Any] = {"index": index}
    if made.sample.images:
        row |= _pictures(made, index)
    row["question"] = without_marks(made.sample.question)
    row["hint"] = ""
    row |= {mark: _shown(grader.render(value)) for mark, value in zip(marks, values, strict=True)}
    row |= {"answer": right[0], "category": arm.level_name, "l2-category": arm.task.name, "split": made.split}
    return row


def without_marks(question: str) -> str:
    """A question whose pictures all come first: marks at its start are dropped, later ones become `picture 3`."""
    parts = question.split("<image>")
    text = parts[0]
    for number, part in enumerate(parts[1:], 1):
        text += (f"picture {number}" if text.strip() else "") + part
    return text.strip()


def _pictures(made: StreamSample, index: int) -> dict[str, str]:
    """The pictures' columns; several in a row are written as Python shows a list."""
    encoded, names = [], []
    for number, image in enumerate(made.sample.images):
        encoded.append(_base64(image))
        names.append(f"{index}_{number}.png")
    if len(encoded) == 1:
        return {"image": encoded[0], "image_path": names[0]}
    return {"image": repr(encoded), "image_path": repr(names)}


def _base64(image: Image.Image) -> str:
    """A picture as PNG: no pixel changes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _shown(option: str) -> str:
    """An option's text, which pandas must not read as an empty cell; a full stop is no part of an answer."""
    return f"{option}." if option in READ_AS_EMPTY else option
