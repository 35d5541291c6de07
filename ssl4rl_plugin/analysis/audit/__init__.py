"""`ssl4rl audit`: can a task be answered without looking at what its pictures show?

For every arm (task and level) blind guessers are fitted on samples of one half of the pictures and tested on the other
half: the best constant answers, the distribution of the answers, and trees that see sizes, prompt length, traces of
compression, border lines, sharpness and colours (`features`, `baselines`).

Two looks keep several hundred guessers from raising false alarms. The first is cheap: it marks each guesser with a
p-value of at most `SUSPECT` as a suspect. The second draws fresh samples and tests only the suspects, with Holm's
correction over all suspects of the run (S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
Journal of Statistics 6, 1979) at `ALPHA`. So an audit of any number of honest tasks fails by chance with probability at
most `ALPHA`, and the number of guessers does not hide a true finding.

The same guessers are also fitted on pictures without content (`control`). There only traces of the processing can give
the answer away. A finding has one of three verdicts:

- **leak**: the guesser beats chance on pictures without content.
- **declared**: the task declares the guesser's group in `Task.cues`, as a question about sharpness must.
- **content**: the guesser beats chance on the source's pictures only, e.g. by a bright sky. Reported, but no fault.

Findings from sizes, prompts, constant answers and the order of answers are always leaks. If a task refuses all pictures
without content, there is no comparison, and a finding counts as a leak.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssl4rl_plugin.analysis.audit.baselines import GuesserResult, Key, guess, with_options
from ssl4rl_plugin.analysis.audit.draw import CONTROL_ITEMS, Batch, ControlPool, ItemPool, TaskError, draw, halves
from ssl4rl_plugin.analysis.audit.features import GROUPS
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.processes import as_completed
from ssl4rl_plugin.data.arms import Arm

SUSPECT = 0.01
"""p-value of the first look up to which a guesser gets a second look."""
PLAIN = 1e-8
"""p-value of the first look up to which the second look needs only half as many samples."""
ALPHA = 0.01
"""Maximum probability of any false finding in a run of honest tasks."""
FEWEST = 40
"""Minimum number of samples in each half; an arm with fewer is not audited."""

LEAK, DECLARED, CONTENT, CHANCE = "leak", "declared", "content", "chance"
SOURCE, CONTROL = "source", "control"
_NAMES = {"constant": "constant answer", "order": "distribution of answers"}


@dataclass(frozen=True)
class JudgedGuesser:
    """One blind guesser of an arm: its accuracy and the verdict."""

    source: GuesserResult | None
    """On the source's pictures; for a suspect, the second look, on samples that did not select it."""
    control: GuesserResult | None
    """On pictures without content."""
    verdict: str
    """`leak`, `declared`, `content` or `chance`."""
    reason: str
    """Reason for the verdict; empty for `chance`."""
    suspected: bool
    """Whether it had a second look."""

    @property
    def name(self) -> str:
        """Readable name of the guesser."""
        kind, group, _ = self.row.key
        if kind in _NAMES:
            return _NAMES[kind]
        group = "all groups" if group == "all" else group
        how = {"alone": "each picture alone", "compared": "pictures compared", "options": "options compared"}[kind]
        return f"{group}, {how}"

    @property
    def row(self) -> GuesserResult:
        """The result on the source's pictures, or on the control's if there is none."""
        found = self.source or self.control
        assert found is not None
        return found


@dataclass
class ArmAudit:
    """The audit of one arm."""

    key: str
    summary: str
    cues: dict[str, str]
    where: str
    """Name of the source."""
    chance: float
    rows: list[JudgedGuesser] = field(default_factory=list)
    samples: int = 0
    draws: int = 0
    repeats: int = 0
    """Samples equal to an earlier one in pictures, question and truth."""
    refused: Counter[str] = field(default_factory=Counter)
    control_samples: int = 0
    control_refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    error: str = ""
    """How the task broke its contract, which is a failure; empty if it did not."""
    skipped: str = ""
    """Why it was not audited; empty if it was."""

    def having(self, verdict: str) -> list[JudgedGuesser]:
        """The guessers with a verdict."""
        return [row for row in self.rows if row.verdict == verdict]

    @property
    def failed(self) -> bool:
        """Whether there is a leak or an error."""
        return bool(self.error or self.having(LEAK))

    @property
    def best(self) -> JudgedGuesser | None:
        """The guesser furthest above chance on the source's pictures, among those with the arm's verdict."""
        rows = [row for row in self.rows if row.source and row.verdict == self.verdict and row.source.kind != "order"]
        return min(rows, key=lambda row: row.source.p if row.source else 1.0, default=None)

    @property
    def verdict(self) -> str:
        """The worst verdict of its guessers; `error` or `skipped` if there are none."""
        if self.error or self.skipped:
            return "error" if self.error else "skipped"
        return next((v for v in (LEAK, DECLARED, CONTENT) if self.having(v)), CHANCE)


@dataclass(frozen=True)
class AuditSubject:
    """An arm to audit, with the items for it."""

    arm: Arm
    pool: ItemPool
    where: str
    """Name of the source."""


@dataclass(frozen=True)
class _LookJob:
    number: int
    arm: Arm
    pool: ItemPool
    which: str
    count: int
    seed: int
    train: Batch | None = None
    """The training half of the first look; None for a first look."""
    keys: frozenset[Key] = frozenset()


@dataclass
class _Look:
    number: int
    which: str
    rows: list[GuesserResult]
    train: Batch
    test: Batch
    seconds: float
    error: str = ""


def audit(
    subjects: Sequence[AuditSubject],
    count: int = 600,
    seed: int = 0,
    workers: int = 1,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[ArmAudit]:
    """Audit arms. The findings do not depend on the number of workers.

    Args:
        subjects: the arms.
        count: samples of each arm. Half of them fit guessers, half test them. A second look draws as many again.
        seed: seed of the samples and the halves.
        workers: number of processes; 1 means this one.
        advance: called with the numbers of finished and known jobs.

    Raises:
        UserError: scikit-learn is not installed, or `count` is too small.
        WorkerDiedError: a process was killed.
    """
    needs_sklearn()
    if count < 2 * FEWEST:
        raise UserError(f"an audit needs at least {2 * FEWEST} samples of each arm, got {count}")
    found = [
        ArmAudit(s.arm.key, s.arm.task.summary, dict(s.arm.task.cues), s.where, s.arm.task.chance(s.arm.level))
        for s in subjects
    ]
    pools: dict[str, list[ItemPool]] = {
        SOURCE: [s.pool for s in subjects],
        CONTROL: [ControlPool(s.arm.task.kind, CONTROL_ITEMS[s.arm.task.kind]) for s in subjects],
    }
    counts = {SOURCE: count, CONTROL: max(2 * FEWEST, count // 2)}
    jobs = [
        _LookJob(number, subject.arm, pools[which][number], which, counts[which], seed)
        for number, subject in enumerate(subjects)
        for which in (SOURCE, CONTROL)
    ]
    looks: dict[tuple[int, str], _Look] = {}
    for done, look in enumerate(as_completed(_first, jobs, workers), 1):
        looks[look.number, look.which] = look
        advance(done, len(jobs))
    again = _suspects(jobs, looks)
    second: dict[tuple[int, str], _Look] = {}
    for done, look in enumerate(as_completed(_second, again, min(workers, len(again))), len(jobs) + 1):
        second[look.number, look.which] = look
        advance(done, len(jobs) + len(again))
    beaten = _holm({(n, w, row.key): row.p for (n, w), look in second.items() for row in look.rows})
    for number, arm in enumerate(found):
        _conclude(arm, number, looks, second, beaten)
    return found


def needs_sklearn() -> None:
    """Raises UserError if scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the audit needs scikit-learn, which is not installed: pip install 'ssl4rl-plugin[eval]'"
        ) from error


def _first(job: _LookJob) -> _Look:
    """First look: draw both halves, fit on one, test on the other."""
    start = time.perf_counter()
    look = _Look(job.number, job.which, [], Batch(), Batch(), 0.0)
    grader = job.arm.task.grader(job.arm.level)
    half = job.count // 2
    try:
        train, test = halves(job.pool, job.seed)
        key = (job.seed, "audit", job.which)
        look.train = with_options(grader, draw(job.arm, job.pool, train, half, (*key, "train")))
        if len(look.train) >= FEWEST:
            look.test = with_options(grader, draw(job.arm, job.pool, test, half, (*key, "test")))
        if min(len(look.train), len(look.test)) >= FEWEST:
            look.rows = guess(job.arm.task, job.arm.level, look.train, look.test)
    except TaskError as error:
        look.error = str(error)
    look.test.described = []  # only the counts are needed from here on
    look.seconds = time.perf_counter() - start
    return look


def _second(job: _LookJob) -> _Look:
    """Second look: fit on the first look's training half, test the suspects on fresh samples of the other half."""
    start = time.perf_counter()
    assert job.train is not None
    look = _Look(job.number, job.which, [], job.train, Batch(), 0.0)
    grader = job.arm.task.grader(job.arm.level)
    try:
        _, test = halves(job.pool, job.seed)
        key = (job.seed, "audit", job.which, "again")
        look.test = with_options(grader, draw(job.arm, job.pool, test, job.count, key))
        if len(look.test) > 1:  # fewer samples than wanted still give a test, if a weaker one
            look.rows = guess(job.arm.task, job.arm.level, job.train, look.test, set(job.keys))
    except TaskError as error:
        look.error = str(error)
    look.train, look.test.described = Batch(), []
    look.seconds = time.perf_counter() - start
    return look


def _suspects(jobs: Iterable[_LookJob], looks: Mapping[tuple[int, str], _Look]) -> list[_LookJob]:
    """The second looks: at every suspect. A suspect on the source's pictures is looked at on the control too."""
    again = []
    for job in jobs:
        mine = {row.key for row in looks[job.number, job.which].rows}
        keys = {row.key for row in looks[job.number, job.which].rows if row.p <= SUSPECT}
        if job.which == CONTROL:
            keys |= {row.key for row in looks[job.number, SOURCE].rows if row.p <= SUSPECT and not _never_content(row)}
        if keys & mine:
            look = looks[job.number, job.which]
            # A plain finding on the source's pictures needs only half the samples.
            plain = all(row.p < PLAIN for row in look.rows if row.key in keys)
            count = job.count if not plain or job.which == CONTROL else max(2 * FEWEST, job.count // 2)
            again.append(dataclasses.replace(job, count=count, train=look.train, keys=frozenset(keys & mine)))
    return again


def _never_content(row: GuesserResult) -> bool:
    return row.group in ("layout", "-")


def _holm(ps: Mapping[Any, float]) -> set[Any]:
    """The tests that pass Holm's correction at `ALPHA`."""
    passed = set()
    for rank, (name, p) in enumerate(sorted(ps.items(), key=lambda entry: entry[1])):
        if p > ALPHA / (len(ps) - rank):
            break
        passed.add(name)
    return passed


def _conclude(
    arm: ArmAudit,
    number: int,
    looks: Mapping[tuple[int, str], _Look],
    second: Mapping[tuple[int, str], _Look],
    beaten: set[tuple[int, str, Key]],
) -> None:
    """Fill in the result of all looks at an arm."""
    mine = [look for which in (SOURCE, CONTROL) for look in (looks[number, which], second.get((number, which))) if look]
    photos, control = looks[number, SOURCE], looks[number, CONTROL]
    arm.seconds = sum(look.seconds for look in mine)
    arm.error = next((look.error for look in mine if look.error), "")
    batches = [photos.train, photos.test]
    arm.samples, arm.draws = sum(map(len, batches)), sum(batch.draws for batch in batches)
    arm.repeats = sum(batch.repeats for batch in batches)
    arm.refused = photos.train.refused + photos.test.refused
    arm.control_samples = len(control.train) + len(control.test)
    arm.control_refused = control.train.refused + control.test.refused
    if arm.error:
        return
    if not photos.rows:
        if arm.draws:
            reasons = ", ".join(f"{reason} {n}x" for reason, n in arm.refused.most_common(3))
            arm.skipped = f"only {arm.samples} samples from {arm.draws} draws ({reasons})"
        else:
            arm.skipped = "the source has too few groups of pictures to divide in halves"
        return
    rows = {which: {row.key: row for row in looks[number, which].rows} for which in (SOURCE, CONTROL)}
    fresh = {
        which: {row.key: row for row in (second[number, which].rows if (number, which) in second else [])}
        for which in (SOURCE, CONTROL)
    }
    for key in dict.fromkeys([*rows[SOURCE], *rows[CONTROL]]):
        on = {which: fresh[which].get(key, rows[which].get(key)) for which in (SOURCE, CONTROL)}
        verdict, reason = _verdict(
            arm.cues,
            key,
            (number, SOURCE, key) in beaten,
            (number, CONTROL, key) in beaten,
            key in fresh[CONTROL],
        )
        suspected = any(key in fresh[which] for which in (SOURCE, CONTROL))
        arm.rows.append(JudgedGuesser(on[SOURCE], on[CONTROL], verdict, reason, suspected))


def _verdict(cues: Mapping[str, str], key: Key, photos: bool, control: bool, compared: bool) -> tuple[str, str]:
    kind, group, _ = key
    if not (photos or control):
        return CHANCE, ""
    if kind == "constant":
        return LEAK, "a constant answer does better than the chance that the grader states"
    if kind == "order":
        return LEAK, "the distribution of the answers differs from the grader's"
    if group == "layout":
        return LEAK, "sizes, formats or the prompt tell the answer"
    if group in cues:
        return DECLARED, cues[group]
    if group == "halves":
        return CONTENT, "where things lie in the picture is content"
    if control:
        return LEAK, "found on pictures without content: a trace of the processing"
    if not compared:
        return LEAK, "the task refuses pictures without content, so this may be a trace of the processing"
    return CONTENT, "found on these pictures, and not on pictures without content"


__all__ = [
    "ALPHA",
    "CHANCE",
    "CONTENT",
    "DECLARED",
    "GROUPS",
    "LEAK",
    "SUSPECT",
    "ArmAudit",
    "AuditSubject",
    "JudgedGuesser",
    "audit",
]  # fmt: skip
