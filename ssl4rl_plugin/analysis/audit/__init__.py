"""`ssl4rl audit`: can a task be answered without looking at what its pictures show?

For every arm (task and level) blind guessers are fitted on samples of one half of the pictures and tested on the other
half: the best constant answers, the distribution of the answers, and trees that see sizes, prompt length, traces of
compression, border lines, sharpness and colours (`features`, `baselines`).

Two looks keep several hundred guessers from raising false alarms. The first is cheap: each guesser with a p-value of at
most `SUSPECT` is only suspected. The second draws fresh samples and tests the suspects alone, with Holm's correction
over all suspects of the run (S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
of Statistics 6, 1979) at `ALPHA`. So an audit of honest tasks of any number fails by chance with probability `ALPHA` at
most, and a true finding is not drowned by the number of guessers.

A finding is one of three things. The same guessers are fitted on pictures without any content (`control`): what they
can tell there, the processing has told, and that is a **leak**, unless the task declares the group in `Task.cues`, as a
question about sharpness must (**declared**). What they can tell on the source's pictures only is **content** of a low
level, such as a bright sky: reported, no fault. Sizes, prompts, constant answers and the order of answers are never
content. Where a task refuses pictures without content there is nothing to compare, and a finding counts as a leak.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from ssl4rl_plugin.analysis.audit.baselines import GuesserResult, Key, guess, with_options
from ssl4rl_plugin.analysis.audit.draw import CONTROL_ITEMS, Batch, ControlPool, Pool, TaskError, draw, halves
from ssl4rl_plugin.analysis.audit.features import GROUPS
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.arms import Arm

SUSPECT = 0.01
"""p-value of the first look up to which a guesser gets a second look."""
PLAIN = 1e-8
"""p-value of the first look up to which half as many samples will do for the second."""
ALPHA = 0.01
"""Probability of any false finding in a whole run of honest tasks, at most."""
FEWEST = 40
"""Samples of either half below which an arm is not audited."""

LEAK, DECLARED, CONTENT, CHANCE = "leak", "declared", "content", "chance"
PHOTOS, CONTROL = "source", "control"


_NAMES = {"constant": "constant answer", "order": "distribution of answers"}


@dataclass(frozen=True)
class JudgedGuesser:
    """One blind guesser of an arm: what it got, and what that means."""

    source: GuesserResult | None
    """On the source's pictures; of a suspect the second look, which the first has not selected."""
    control: GuesserResult | None
    """On pictures without content."""
    verdict: str
    """`leak`, `declared`, `content` or `chance`."""
    reason: str
    """Why, in a sentence; empty for `chance`."""
    suspected: bool
    """It had a second look."""

    @property
    def name(self) -> str:
        """The guesser in words."""
        kind, group, _ = self.row.key
        if kind in _NAMES:
            return _NAMES[kind]
        group = "all groups" if group == "all" else group
        how = {"alone": "each picture alone", "compared": "pictures compared", "options": "options compared"}[kind]
        return f"{group}, {how}"

    @property
    def row(self) -> GuesserResult:
        """Either row; they describe the same guesser."""
        found = self.source or self.control
        assert found is not None
        return found


@dataclass
class ArmAudit:
    """What was found about one arm."""

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
    """The task broke its contract: a failure."""
    skipped: str = ""
    """Why it was not audited, where it was not."""

    def having(self, verdict: str) -> list[JudgedGuesser]:
        """The guessers of that verdict."""
        return [row for row in self.rows if row.verdict == verdict]

    @property
    def failed(self) -> bool:
        """Whether anything that it must not have was found."""
        return bool(self.error or self.having(LEAK))

    @property
    def best(self) -> JudgedGuesser | None:
        """The guesser that is furthest above chance on the source's pictures, of those of the arm's verdict."""
        rows = [row for row in self.rows if row.source and row.verdict == self.verdict and row.source.kind != "order"]
        return min(rows, key=lambda row: row.source.p if row.source else 1.0, default=None)

    @property
    def verdict(self) -> str:
        """The worst of its guessers' verdicts; `error` or `skipped` where there are none."""
        if self.error or self.skipped:
            return "error" if self.error else "skipped"
        return next((v for v in (LEAK, DECLARED, CONTENT) if self.having(v)), CHANCE)


@dataclass(frozen=True)
class Subject:
    """An arm and where its items come from."""

    arm: Arm
    pool: Pool
    where: str


@dataclass(frozen=True)
class _Job:
    number: int
    arm: Arm
    pool: Pool
    which: str
    count: int
    seed: int
    train: Batch | None = None
    """Of the first look; None in the first look."""
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
    subjects: Sequence[Subject],
    count: int = 600,
    seed: int = 0,
    workers: int = 1,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[ArmAudit]:
    """Audit arms. The same arguments give the same findings, whatever the workers.

    Args:
        subjects: the arms.
        count: samples of each arm, half of them to fit guessers and half to test them; as many again for a second look.
        seed: of the samples and the halves.
        workers: processes; 1 stays in this one.
        advance: called with the number of finished and of known jobs.

    Raises:
        ValueError: scikit-learn is not installed, or `count` is too small to say anything.
    """
    needs_sklearn()
    if count < 2 * FEWEST:
        raise UserError(f"an audit needs at least {2 * FEWEST} samples of each arm, got {count}")
    found = [
        ArmAudit(s.arm.key, s.arm.task.summary, dict(s.arm.task.cues), s.where, s.arm.task.chance(s.arm.level))
        for s in subjects
    ]
    pools: dict[str, list[Pool]] = {
        PHOTOS: [s.pool for s in subjects],
        CONTROL: [ControlPool(s.arm.task.kind, CONTROL_ITEMS[s.arm.task.kind]) for s in subjects],
    }
    counts = {PHOTOS: count, CONTROL: max(2 * FEWEST, count // 2)}
    jobs = [
        _Job(number, subject.arm, pools[which][number], which, counts[which], seed)
        for number, subject in enumerate(subjects)
        for which in (PHOTOS, CONTROL)
    ]
    looks: dict[tuple[int, str], _Look] = {}
    with _Workers(workers) as run:
        for done, look in enumerate(run(_first, jobs), 1):
            looks[look.number, look.which] = look
            advance(done, len(jobs))
        again = _suspects(jobs, looks)
        second: dict[tuple[int, str], _Look] = {}
        for done, look in enumerate(run(_second, again), len(jobs) + 1):
            second[look.number, look.which] = look
            advance(done, len(jobs) + len(again))
    beaten = _holm({(n, w, row.key): row.p for (n, w), look in second.items() for row in look.rows})
    for number, arm in enumerate(found):
        _conclude(arm, number, looks, second, beaten)
    return found


def needs_sklearn() -> None:
    """Raises ValueError that says what to install."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the audit needs scikit-learn, which is not installed: pip install 'ssl4rl-plugin[eval]'"
        ) from error


def _first(job: _Job) -> _Look:
    """Draw both halves, fit on one, test on the other."""
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


def _second(job: _Job) -> _Look:
    """Fit again on the first look's training half, and test the suspects on fresh samples of the other half."""
    start = time.perf_counter()
    assert job.train is not None
    look = _Look(job.number, job.which, [], job.train, Batch(), 0.0)
    grader = job.arm.task.grader(job.arm.level)
    try:
        _, test = halves(job.pool, job.seed)
        key = (job.seed, "audit", job.which, "again")
        look.test = with_options(grader, draw(job.arm, job.pool, test, job.count, key))
        if len(look.test) > 1:  # fewer than are wanted weaken the test; without any a suspect would go free
            look.rows = guess(job.arm.task, job.arm.level, job.train, look.test, set(job.keys))
    except TaskError as error:
        look.error = str(error)
    look.train, look.test.described = Batch(), []
    look.seconds = time.perf_counter() - start
    return look


def _suspects(jobs: Iterable[_Job], looks: Mapping[tuple[int, str], _Look]) -> list[_Job]:
    """The second looks: at every suspect, and at what is suspected on the source's pictures on the control too."""
    again = []
    for job in jobs:
        mine = {row.key for row in looks[job.number, job.which].rows}
        keys = {row.key for row in looks[job.number, job.which].rows if row.p <= SUSPECT}
        if job.which == CONTROL:
            keys |= {row.key for row in looks[job.number, PHOTOS].rows if row.p <= SUSPECT and not _never_content(row)}
        if keys & mine:
            look = looks[job.number, job.which]
            # What is plain already needs no large second look, nor does the control, where no content hides a trace.
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
    """Fill in what the looks at an arm have shown."""
    mine = [look for which in (PHOTOS, CONTROL) for look in (looks[number, which], second.get((number, which))) if look]
    photos, control = looks[number, PHOTOS], looks[number, CONTROL]
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
    rows = {which: {row.key: row for row in looks[number, which].rows} for which in (PHOTOS, CONTROL)}
    fresh = {
        which: {row.key: row for row in (second[number, which].rows if (number, which) in second else [])}
        for which in (PHOTOS, CONTROL)
    }
    for key in dict.fromkeys([*rows[PHOTOS], *rows[CONTROL]]):
        on = {which: fresh[which].get(key, rows[which].get(key)) for which in (PHOTOS, CONTROL)}
        verdict, reason = _verdict(
            arm.cues,
            key,
            (number, PHOTOS, key) in beaten,
            (number, CONTROL, key) in beaten,
            key in fresh[CONTROL],
        )
        suspected = any(key in fresh[which] for which in (PHOTOS, CONTROL))
        arm.rows.append(JudgedGuesser(on[PHOTOS], on[CONTROL], verdict, reason, suspected))


def _verdict(cues: Mapping[str, str], key: Key, photos: bool, control: bool, compared: bool) -> tuple[str, str]:
    kind, group, _ = key
    if not (photos or control):
        return CHANCE, ""
    if kind == "constant":
        return LEAK, "one constant answer does better than the grader says is possible"
    if kind == "order":
        return LEAK, "the answers are not distributed as the grader says"
    if group == "layout":
        return LEAK, "sizes, formats or the prompt tell the answer"
    if group in cues:
        return DECLARED, cues[group]
    if group == "halves":
        return CONTENT, "what lies in which half of the picture is what the picture shows"
    if control:
        return LEAK, "found on pictures without content: a trace of the processing"
    if not compared:
        return LEAK, "the task refuses pictures without content, so this cannot be told from a trace of the processing"
    return CONTENT, "found on these pictures, and not on pictures without content"


class _Workers:
    """Runs jobs in this process or in several, and gives their results as they are done."""

    def __init__(self, count: int) -> None:
        # spawn: a forked child inherits locks that threads of this process may hold.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, mp_context=context) if count > 1 else None

    def __enter__(self) -> Callable[[Callable[[_Job], _Look], Sequence[_Job]], Iterator[_Look]]:
        return self._run

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _run(self, work: Callable[[_Job], _Look], jobs: Sequence[_Job]) -> Iterator[_Look]:
        if self._pool is None:
            yield from map(work, jobs)
            return
        for future in as_completed([self._pool.submit(work, job) for job in jobs]):
            yield future.result()


__all__ = [
    "ALPHA", "CHANCE", "CONTENT", "DECLARED", "GROUPS", "LEAK", "SUSPECT", "ArmAudit", "Judged", "Subject", "audit",
]  # fmt: skip
