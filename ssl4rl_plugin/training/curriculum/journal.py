"""The journal of a curriculum: evidence and decision of each step. A resumed run rebuilds its state from it.

    curriculum.jsonl    in trainer.default_local_dir; every checkpoint has a copy up to its step

The first line holds the arms and settings. Every other line is one step: the evidence of its arms, the number of rows that
the trainer had taken, the row from which the next decision holds, and its reasons (for people). A resumed run passes the
evidence of all steps up to the checkpoint to the director again, so policies save no state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.files import write_text
from ssl4rl_plugin.training.curriculum.evidence import CurriculumArm, Evidence

NAME = "curriculum.jsonl"


class JournalError(UserError):
    """The journal does not fit the run that resumes from it; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """One step."""

    step: int
    """verl's global step."""
    shown: Mapping[int, Evidence]
    """Evidence by arm number."""
    taken: int
    """Rows of the training stream that the trainer had taken from its loader."""
    start: int
    """Row from which the decision after this step holds."""

    def to_json(self, arms: Sequence[CurriculumArm], probabilities: Sequence[float], reasons: Sequence[str]) -> str:
        """One line, with the decision and its reasons."""
        return json.dumps(
            {
                "step": self.step,
                "taken": self.taken,
                "start": self.start,
                "shown": {arms[number].key: asdict(evidence) for number, evidence in sorted(self.shown.items())},
                "arms": {
                    arm.key: {"probability": round(float(share), 4), "reason": reason}
                    for arm, share, reason in zip(arms, probabilities, reasons, strict=True)
                },
            }
        )


class Journal:
    """The journal of one run, open for appending.

    Args:
        path: the file; its folder is made.
        header: settings and arms of the run, as JSON values.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.header = dict(header)

    def start(self, lines: Sequence[str] = ()) -> None:
        """Write a new file with the header and the lines of earlier steps."""
        write_text(self.path, "".join(f"{line}\n" for line in [json.dumps(self.header), *lines]))

    def append(self, line: str) -> None:
        """Add a step."""
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    def copy(self, folder: Path) -> None:
        """Copy the file into a checkpoint."""
        write_text(folder / NAME, self.path.read_text(encoding="utf-8"))


def read(
    path: Path, header: Mapping[str, Any], arms: Sequence[CurriculumArm], last: int
) -> Iterator[tuple[Entry, str]]:
    """The steps of a journal up to `last`, each with its line.

    Raises:
        JournalError: it has other arms or settings, or ends before `last`.
    """
    lines = path.read_text().split("\n")
    try:
        found = json.loads(lines[0])
        changed = sorted(key for key in {**found, **header} if found.get(key) != header.get(key))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise JournalError(f"{path} is not the journal of a curriculum: {error}") from error
    if changed:
        listed = "; ".join(f"{key} was {found.get(key)} and is {header.get(key)}" for key in changed)
        raise JournalError(
            f"the run in {path.parent} had another curriculum ({listed}): restore it, or start again with "
            "trainer.resume_mode=disable"
        )
    numbers = {arm.key: number for number, arm in enumerate(arms)}
    step = 0
    for line in lines[1:]:
        try:
            values = json.loads(line)
            step = int(values["step"])
            if step > last:
                return
            shown = {numbers[key]: Evidence(**evidence) for key, evidence in values["shown"].items()}
            entry = Entry(step, shown, int(values["taken"]), int(values["start"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            break  # the end of the file, or a line cut off when the run was killed
        yield entry, line
    if step != last:
        raise JournalError(
            f"{path} ends at step {step}, and the checkpoint is of step {last}: it does not belong to this run"
        )
