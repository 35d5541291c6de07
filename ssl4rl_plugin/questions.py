"""Questions of a benchmark as rows: what a run validates on beside its own pretext tasks.

Labels are used here and nowhere else. Questions that cannot be asked (a picture that does not decode, no answer given)
are left out and counted by reason.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from PIL import Image

from ssl4rl_plugin.answers import AnswerFormat
from ssl4rl_plugin.data_builders.manifest import Manifest
from ssl4rl_plugin.data_builders.source import Question, SourceError
from ssl4rl_plugin.images import ImageError, open_rgb
from ssl4rl_plugin.rewards import encode_question, question_grader
from ssl4rl_plugin.rows import PROBES, Row
from ssl4rl_plugin.seeding import digest, rng_for

SHOWABLE = ("blank", "too_small", "aspect", "duplicate_of_validation")
"""Reasons for which a picture is no good for pretext tasks, and a question about it can be asked all the same."""

MAX_OPTIONS = 26
"""One for each letter."""


class QuestionRows:
    """The questions of an indexed benchmark, in the benchmark's order; none of a source of mere pictures.

    Args:
        manifest: the benchmark, indexed.
        answer_format: how answers are asked for.
        max_pixels: larger pictures are shrunk to this many pixels.
        limit: so many questions, drawn by a hash of their ids; None for all.
    """

    def __init__(
        self, manifest: Manifest, answer_format: AnswerFormat, max_pixels: int, limit: int | None = None
    ) -> None:
        self.manifest = manifest
        self.answer_format = answer_format
        self.max_pixels = max_pixels
        self.left_out: Counter[str] = Counter()
        """Questions that cannot be asked, by reason."""
        self.questions = self._chosen(limit)

    def _chosen(self, limit: int | None) -> list[Question]:
        name = self.manifest.source.name
        questions = self.manifest.source.questions()
        if (first := next(questions, None)) is None:
            return []  # before a column is looked at: there may be a million pictures
        table = self.manifest.table
        reasons = dict(zip(table["ref"].to_pylist(), table["reason"].to_pylist(), strict=True))
        found = []
        for question in chain([first], questions):
            unshown = [reason for ref in question.refs if (reason := reasons.get(ref, "no_image")) is not None]
            bad = next((reason for reason in unshown if reason not in SHOWABLE), None) or _unanswerable(question)
            if bad is None:
                found.append(question)
            else:
                self.left_out[bad] += 1
        if limit is not None and limit < len(found):
            kept = {q.id for q in sorted(found, key=lambda q: digest("questions", name, q.id))[:limit]}
            found = [question for question in found if question.id in kept]
        return found

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Row:
        """Question `index`. Raises IndexError outside, SourceError if a picture cannot be read any more."""
        if not 0 <= index < len(self):
            raise IndexError(f"question {index} of {len(self)}")
        question, name = self.questions[index], self.manifest.source.name
        instruction = rng_for("question", name, question.id).choice(self.answer_format.instructions)
        sample = f"{name}:{question.id}"
        assert question.answer is not None
        shown = {
            key: getattr(question, key) for key in ("answer", "category", "hint", "l2_category", "options", "text")
        }
        return Row(
            kind=name,
            data_source=f"bench/{name}/{(question.category or 'all').replace('/', ' ')}",
            prompt=f"{asked(question)} {instruction}",
            images=tuple(self._picture(question, ref) for ref in question.refs),
            videos=(),
            ground_truth=encode_question(name, question.options, question.answer, sample),
            info={
                "index": index, "split": "questions", "sample": sample, "task": name, "level": "",
                "item": ",".join(question.refs), "gold": question.answer, "params": json.dumps(shown, sort_keys=True),
                "refused": "[]",
            },
        )  # fmt: skip

    def _picture(self, question: Question, ref: str) -> Image.Image:
        try:
            return open_rgb(self.manifest.source.read(ref), max_pixels=self.max_pixels)
        except ImageError as error:
            raise SourceError(
                f"question {question.id} of {self.manifest.source.name}: {ref} was good when it was indexed, and now is not "
                f"({error}); put it back, or index it again"
            ) from error

    def probes(self) -> Iterator[Row]:
        """A few, spread over the benchmark."""
        step = max(1, len(self) // PROBES)
        return (self[index] for index in range(0, len(self), step)[:PROBES])

    def state(self) -> dict[str, Any]:
        return {f"questions of {self.manifest.source.name}": questions_digest(self.questions)}


def _unanswerable(question: Question) -> str | None:
    """Why no answer could be graded; None if one can."""
    if question.answer is None:
        return "no_answer"
    if not question.options:
        return None
    if not 2 <= len(question.options) <= MAX_OPTIONS:
        return "number_of_options"
    return None if question.answer in question_grader(question.options).values() else "answer_not_an_option"


def asked(question: Question) -> str:
    """The user's turn without the answer format: pictures, hint, question, options, how to name one."""
    text = question.text
    if text.count("<image>") != len(question.refs):
        text = "<image>" * len(question.refs) + "\n" + text.replace("<image>", "")
    # Marks that the benchmark's own words happen to hold are no pictures.
    hint, options = (_unmarked(part) for part in (question.hint or "", "\n".join(_listed(question.options))))
    parts = [text.replace("<video>", ""), options]
    if hint:
        parts.insert(1, f"Hint: {hint}")
    if question.options:
        parts.append("Answer with the letter of the right option.")
    else:
        parts.append("Answer with a single word, number or short phrase.")
    return "\n".join(part for part in parts if part)


def _listed(options: Sequence[str]) -> list[str]:
    return [f"{chr(ord('A') + number)}. {option}" for number, option in enumerate(options)]


def _unmarked(text: str) -> str:
    return text.replace("<image>", "").replace("<video>", "")


def questions_digest(questions: Sequence[Question]) -> str:
    """SHA-256 of everything the questions say, in hex."""
    found = hashlib.sha256()
    for question in questions:
        found.update(repr(question).encode("utf-8", "backslashreplace"))
    return found.hexdigest()
