"""Which prompts of a run are measured before it starts, and their forms, made by several processes if there are many.

Measured are all questions and `SAMPLES` samples of each arm, or as many as the run draws.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import pickle
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ssl4rl_plugin.core.processes import Process, as_completed, cores
from ssl4rl_plugin.data.rows import PROBES, OnlineRows, Rows
from ssl4rl_plugin.training.prompt_forms import PromptForm, form_of
from ssl4rl_plugin.training.questions import QuestionRows, questions_digest
from ssl4rl_plugin.training.stored_rows import StoredRows

SAMPLES = 500
"""Samples of each arm that are measured. If 1 in 100 prompts of an arm is too long, 500 hold one of them with a probability
of 0.993."""
JOB = 64
"""Rows that a worker process makes at a time."""
ALONE_S = 1.5
"""Seconds after which worker processes take over: starting them costs about as much."""
WORKERS = 16
"""Most worker processes."""


class Wanted(NamedTuple):
    """A row to measure."""

    part: int
    """Number of the rows that it belongs to."""
    number: int
    """Number of the row in them."""
    arm: int | None = None
    """Number of the arm that the row is drawn from; None for the row's own."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that are measured, and cached, together: those of one arm or one benchmark."""

    rows: tuple[Wanted, ...]
    key: tuple[str, ...]
    """Everything that the rows depend on."""


def all_of(rows: Rows, part: int) -> Group:
    """All questions of a benchmark, a graph or a build."""
    key = [type(rows).__name__, repr(rows.state())]
    if isinstance(rows, QuestionRows):
        found = rows.manifest
        key += [
            found.source.name,
            found.digest,
            questions_digest(rows.questions),
            str(rows.max_pixels),
            str(rows.circular),
        ]
    if (wording := getattr(rows, "answer_format", None)) is not None:
        key += wording.instructions
    return Group(tuple(Wanted(part, number) for number in range(len(rows))), tuple(map(str, key)))


def samples_of(train: OnlineRows | StoredRows, held_out: OnlineRows | StoredRows, planned: int) -> list[Group]:
    """Samples of every arm: parts 0 (training) and 1 (validation).

    Args:
        train: the training rows.
        held_out: the validation rows; `train` itself if there are none.
        planned: training rows that the run draws.
    """
    if isinstance(train, StoredRows) or isinstance(held_out, StoredRows):
        parts = [train] if held_out is train else [train, held_out]
        return [_spread(rows, part) for part, rows in enumerate(parts) if isinstance(rows, StoredRows)]
    settings, arms = train.stream.settings, train.arms
    weights = sum(arm.weight for arm in arms)
    validated = settings.val_samples if held_out is not train else 0
    found = []
    for number, arm in enumerate(arms):
        # A curriculum may draw any arm at any time; so may a run with little weight on an arm, but seldom.
        steered = getattr(settings, "curriculum", None) is not None
        drawn = planned if steered else min(planned, math.ceil(planned * arm.weight / weights))
        trained = min(drawn, len(train), max(SAMPLES // 2, SAMPLES - validated))
        rows = [Wanted(0, k, number) for k in range(max(trained, min(PROBES, len(train))))]
        rows += [Wanted(1, number * validated + k, number) for k in range(min(validated, SAMPLES - trained))]
        state = {key: value for key, value in train.state().items() if key != "tasks"}
        key = (
            arm.key, repr(state), _source_text(arm.task), repr(settings.source), repr(getattr(settings, "sources", None)),
            str(settings.epochs), str(settings.val_samples), *settings.answer_format.instructions,
        )  # fmt: skip
        found.append(Group(tuple(rows), (*key, str(number if validated else 0), str(len(rows)))))
    return found


def _spread(rows: StoredRows, part: int) -> Group:
    """Rows spread over a split of a build: `SAMPLES` for each arm, on average."""
    count = min(len(rows), SAMPLES * max(1, len(rows.arms)))
    numbers = tuple(Wanted(part, k * len(rows) // count) for k in range(count))
    return Group(numbers, ("built", rows.split, repr(rows.state()), str(count)))


def _source_text(task: Any) -> str:
    """The source of a task's module, so that a changed task is measured again."""
    try:
        return Path(inspect.getfile(type(task))).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return ""


class FormMaker:
    """Makes the forms of rows; picklable, for worker processes.

    Args:
        parts: the rows, by number of the part.
    """

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = parts
        self._opened: list[Any] = []

    def __call__(self, job: Sequence[Wanted]) -> list[tuple[Wanted, PromptForm]]:
        """The forms of a job's rows. Raises the errors of the rows."""
        with self._sharing_items():
            return [(wanted, self._form(wanted)) for wanted in job]

    def _form(self, wanted: Wanted) -> PromptForm:
        rows = self.parts[wanted.part]
        if isinstance(rows, QuestionRows):
            return rows.form(wanted.number)
        if wanted.arm is not None and isinstance(rows, OnlineRows):
            return form_of(rows.of_arm(wanted.number, wanted.arm, 0))
        return form_of(rows[wanted.number])

    @contextmanager
    def _sharing_items(self) -> Iterator[None]:
        """While it lasts, an item that was just decoded is not decoded again for the next arm."""
        sources = [source for rows in self.parts if isinstance(rows, OnlineRows) for source in rows.stream.sources]
        if len(self._opened) < len(sources):
            self._opened = [functools.lru_cache(maxsize=4)(source.opened) for source in sources]
        for source, opened in zip(sources, self._opened, strict=True):
            vars(source)["opened"] = opened
        try:
            yield
        finally:
            for source in sources:
                del vars(source)["opened"]

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts, "_opened": []}


def forms(
    parts: Sequence[Rows], wanted: Sequence[Wanted], done: Callable[[int], object] = lambda count: None
) -> Generator[tuple[Wanted, PromptForm]]:
    """The forms of rows, in no particular order.

    Args:
        parts: the rows, by number of the part.
        wanted: which of them.
        done: is told the number of rows behind each job.
    """
    # By number: the arms' samples of one item follow each other.
    order = sorted(
        wanted, key=lambda one: (one.part, one.number if one.arm is None else _item(parts, one), one.arm or 0)
    )
    jobs = [order[k : k + JOB] for k in range(0, len(order), JOB)]
    make, began = FormMaker(parts), time.perf_counter()
    for place, job in enumerate(jobs):
        spent = time.perf_counter() - began
        workers = min(cores(), WORKERS, len(jobs) - place)
        if workers > 1 and spent > ALONE_S and spent / place * (len(jobs) - place) > 2 * ALONE_S and _loadable(make):
            for made in as_completed(make, jobs[place:], workers):
                yield from made
                done(len(made))
            return
        yield from make(job)
        done(len(job))


def _loadable(make: FormMaker) -> bool:
    """Whether worker processes can load the rows; not if a script or a test defines a task."""
    try:
        Process(make).end()
    except (RuntimeError, pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _item(parts: Sequence[Rows], wanted: Wanted) -> int:
    """A number that the arms' samples of one item share: validation counts each arm's samples anew."""
    rows = parts[wanted.part]
    if isinstance(rows, OnlineRows) and rows.stream.split == "val":
        return wanted.number % rows.stream.settings.val_samples
    return wanted.number
