"""Single questions of a report: their pictures, the right answer, and the model's answers at some steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.analysis.report.page import EmbeddedPicture, pictures, prompt_parts, readable
from ssl4rl_plugin.analysis.runlog import Response, RunLog
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.rows import Row

GROUP_ROLLOUTS = 8
"""Maximum number of rollouts of a training group."""


@dataclass(frozen=True)
class ShownReply:
    """A response on a card."""

    who: str
    """Name of the run; empty on a page with one run."""
    step: int
    text: str
    score: float
    state: str
    """`right`, `wrong`, `invalid`; empty if the run did not record it."""
    error: str


@dataclass(frozen=True)
class QuestionCard:
    """One question with its pictures and the model's answers."""

    label: str
    sample: str
    prompt: list[str | int]
    pictures: list[EmbeddedPicture]
    no_pictures: str
    """Why there are no pictures; empty if there are some."""
    gold: str
    params: str
    replies: list[ShownReply]


@dataclass(frozen=True)
class CardSection:
    """Cards under a title."""

    title: str
    text: str
    cards: list[QuestionCard]


def held_out(log: RunLog, count: int) -> list[CardSection]:
    """Held-out questions with the answers before and after training, `count` in each section."""
    if not log.validations:
        return []
    steps = list(log.validations)
    last = _by_sample(log.validation(steps[-1]))
    first = _by_sample(log.validation(steps[0])) if len(steps) > 1 else {}
    unseen = dict(last)

    def section(title: str, text: str, wanted: Callable[[str], bool], best: bool = True) -> CardSection:
        rows = [row for key, row in unseen.items() if wanted(key)]
        rows.sort(key=lambda row: 0.0 if math.isnan(row.score) else row.score, reverse=best)
        cards = []
        for row in _varied(rows, count):
            del unseen[row.sample]
            cards.append(_card(log, row, [_reply(r) for r in (first.get(row.sample), row) if r]))
        return CardSection(title, text, cards)

    found = []
    if first:
        found += [
            section("Learnt", f"Wrong at step {steps[0]}, right at step {steps[-1]}.",
                    lambda key: key in first and not _right(first[key]) and _right(last[key])),
            section("Unlearnt", f"Right at step {steps[0]}, wrong at step {steps[-1]}.",
                    lambda key: key in first and _right(first[key]) and not _right(last[key]), best=False),
        ]  # fmt: skip
    found += [
        section("Best", f"Right at step {steps[-1]}, highest reward first.", lambda key: _right(last[key])),
        section("Worst", f"Wrong at step {steps[-1]}, lowest reward first.", lambda key: not _right(last[key]), False),
    ]
    return [entry for entry in found if entry.cards]


def apart(logs: Mapping[str, RunLog], count: int) -> list[QuestionCard]:
    """Questions that some runs answered correctly in their last validation, and others did not."""
    last = {name: _by_sample(log.validation(max(log.validations))) for name, log in logs.items() if log.validations}
    rows = []
    for sample in dict.fromkeys(sample for found in last.values() for sample in found):
        given = [found[sample] for found in last.values() if sample in found]
        # With other settings, the same number may be another question.
        if len({_right(row) for row in given}) > 1 and len({row.truth for row in given}) == 1:
            rows.append(given[0])
    return [
        _card(
            next(logs[name] for name, found in last.items() if row.sample in found), row,
            [_reply(found[row.sample], name) for name, found in last.items() if row.sample in found],
        )
        for row in _varied(rows, count)
    ]  # fmt: skip


def training_group(log: RunLog) -> QuestionCard | None:
    """The rollouts of one prompt in the last recorded step: the group with the largest spread of rewards."""
    if not log.rollouts:
        return None
    groups: dict[str, list[Response]] = {}
    for row in log.rollout(list(log.rollouts)[-1]):
        if row.arm and not math.isnan(row.score):
            groups.setdefault(row.group, []).append(row)
    if not groups:
        return None
    rows = max(groups.values(), key=lambda rows: statistics.pstdev(row.score for row in rows))
    rows = sorted(rows, key=lambda row: -row.score)
    if len(rows) > GROUP_ROLLOUTS:
        rows = rows[: GROUP_ROLLOUTS // 2] + rows[-GROUP_ROLLOUTS // 2 :]
    return _card(log, rows[0], [_reply(row) for row in rows])


def _right(row: Response) -> bool:
    return row.figures.get("acc") == 1.0


def _by_sample(rows: Iterable[Response]) -> dict[str, Response]:
    """The first response to every sample and every benchmark question."""
    found: dict[str, Response] = {}
    for row in rows:
        if row.sample and (row.arm or row.answered):
            found.setdefault(row.sample, row)
    return found


def _label(row: Response) -> str:
    if row.answered:
        return " / ".join(filter(None, (row.answered.benchmark, row.answered.category)))
    return row.arm.label if row.arm else ""


def _varied(rows: list[Response], count: int) -> list[Response]:
    """The first `count` rows, taken from the kinds of question in turn."""
    waiting: dict[Any, list[Response]] = {}
    for row in rows:
        waiting.setdefault(_label(row), []).append(row)
    chosen: list[Response] = []
    while waiting and len(chosen) < count:
        for kind in list(waiting):
            chosen.append(waiting[kind].pop(0))
            if not waiting[kind]:
                del waiting[kind]
    return chosen[:count]


def _card(log: RunLog, row: Response, replies: list[ShownReply]) -> QuestionCard:
    """A question with its replies; without pictures if they cannot be made again."""
    made: Row | None = None
    problem = ""
    try:
        made = log.asked(row)
    except (UserError, OSError) as error:
        problem = str(error)
    params = made.info["params"] if made and row.arm else "{}"
    return QuestionCard(
        label=readable(_label(row), 120),
        sample=readable(row.sample, 120),
        prompt=prompt_parts(made.prompt) if made else [readable(row.prompt)],
        pictures=pictures(made) if made else [],
        no_pictures=readable(problem, 300),
        gold=readable(row.gold or "unknown", 200),
        params="" if params == "{}" else readable(params, 300),
        replies=replies,
    )


def _reply(row: Response, who: str = "") -> ShownReply:
    acc, valid = row.figures.get("acc"), row.figures.get("valid")
    judged = "right" if acc == 1.0 else "invalid" if valid == 0.0 else "wrong"
    state = "" if acc is None else judged
    return ShownReply(who, row.step, readable(row.output), row.score, state, readable(row.error, 200))
