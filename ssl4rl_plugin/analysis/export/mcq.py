"""Pretext tasks as multiple-choice sets that VLMEvalKit reads: one TSV for each (task, level).

Its layout is that of VLMEvalKit's custom sets (`LMUData/NAME.tsv`): an integer `index`, the pictures as base64 in `image`
with file names in `image_path`, `question`, options in columns A, B, C, ..., and the right letter in `answer`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.files import write_file
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.samples import SampleStream, StreamSample
from ssl4rl_plugin.grading import letters

_INSTRUCTION = re.compile(
    r"\s*Answer with (?:one of|an? number|one number|the (?:letter|number|name)|its letter)[^()?!\n]*\Z"
)
"""The last sentences of a question, if they only say how to answer. One that explains its labels in brackets stays."""

READ_AS_EMPTY = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
     "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
"""What pandas takes for an empty cell: as an option it would be gone."""


MAX_OPTIONS = 25
"""All letters but Z, which stands for an answer that is none of the options."""
WORD = "exactly"
"""Stands before the text of every option of a set where one text is part of another (0 and 90): VLMEvalKit looks for the
options' texts in the answer."""


def unfit(arm: Arm) -> str | None:
    """Why a task is no multiple-choice set at this level, as a snake_case reason; None if it is one.

    It is where one of at most 25 labels or numbers is right and all others are wrong. Orders, sets, boxes and paths are
    graded in part, and free words cannot be listed.
    """
    if arm.task.kind == "video":
        return "video"
    grader = arm.task.grader(arm.level)
    if not grader.is_choice:
        return "not_a_choice"
    return "too_many_options" if len(list(islice(grader.values(), MAX_OPTIONS + 1))) > MAX_OPTIONS else None


def set_name(arm: Arm, content: str) -> str:
    """The set's name for VLMEvalKit, which tells some benchmarks by parts of their names.

    VLMEvalKit keeps the answers to a set by its name, so the name changes with the set's content.

    Args:
        arm: task and level.
        content: SHA-256 of the set's rows, in hex.
    """
    options = "".join(f"_{key}{value}" for key, value in sorted(arm.options.items()))
    return "SSL4RL_" + re.sub(r"[^A-Za-z0-9_]+", "-", f"{arm.task.name}_{arm.level_name}{options}_{content[:8]}")


def write_set(stream: SampleStream, count: int, folder: Path, advance: Callable[[], None]) -> Path:
    """Write the first `count` samples of a stream with one arm as a set.

    Args:
        stream: the samples; those of its validation split are what a run with the same seed validates on.
        count: rows.
        folder: where `NAME.tsv` is put, at once when it is complete; its stem is the set's name.
        advance: called after each row.

    Raises:
        UserError: the task is no multiple-choice set (see `unfit`).
        SampleError, SourceError: samples cannot be made, or the file cannot be written.
    """
    (arm,) = stream.settings.arms
    if (reason := unfit(arm)) is not None:
        raise UserError(f"{arm.key} is no multiple-choice set: {reason}")
    content = hashlib.sha256()
    unnamed = folder / f".{arm.task.name}_{arm.level_name}.tsv"

    def rows(file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer: csv.DictWriter[str] | None = None
        for index in range(count):
            row = row_of(stream[index], index)
            content.update(json.dumps(row, sort_keys=True).encode())
            if writer is None:
                writer = csv.DictWriter(text, list(row), delimiter="\t", lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
            advance()
        text.detach()

    write_file(unnamed, rows)
    return unnamed.replace(folder / f"{set_name(arm, content.hexdigest())}.tsv")


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
    row["question"] = without_instruction(without_marks(made.sample.question))
    row["hint"] = ""
    texts = told_apart([_shown(grader.render(value)) for value in values])
    row |= dict(zip(marks, texts, strict=True))
    row |= {"answer": right[0], "category": arm.level_name, "l2-category": arm.task.name, "split": made.split}
    return row


def without_marks(question: str) -> str:
    """A question whose pictures all come first: marks at its start are dropped, later ones become `picture 3`."""
    parts = question.split("<image>")
    text = parts[0]
    for number, part in enumerate(parts[1:], 1):
        text += (f"picture {number}" if text.strip() else "") + part
    return text.strip()


def without_instruction(question: str) -> str:
    """A question without its last sentences that say how to answer: VLMEvalKit lists the options and asks for one."""
    return _INSTRUCTION.sub("", question).strip()


def told_apart(options: Sequence[str]) -> list[str]:
    """The options' texts, none of them part of another one."""
    lower = [option.casefold() for option in options]
    if any(one in other for one, other in itertools.permutations(lower, 2)):
        return [f"{WORD} {option.rstrip('.')}." for option in options]
    return list(options)


def _pictures(made: StreamSample, index: int) -> dict[str, str]:
    """The pictures' columns; several in a row are written as Python shows a list."""
    encoded, names = [], []
    for number, image in enumerate(made.sample.images):
        encoded.append(_base64(image))
        # VLMEvalKit never writes a picture again whose file is there.
        names.append(f"{index}_{number}_{hashlib.sha256(image.tobytes()).hexdigest()[:12]}.png")
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
