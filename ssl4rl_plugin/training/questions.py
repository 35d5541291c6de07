"""Questions of a benchmark as rows: a run validates on them beside its own pretext tasks.

Only this module and `graph_questions` read labels. Questions that cannot be asked (a picture that does not decode, no
answer) are left out and counted by reason.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

from PIL import Image

from ssl4rl_plugin.core.seeding import digest, rng_for
from ssl4rl_plugin.data.ground_truth import encode_question
from ssl4rl_plugin.data.images import ImageError, fitted_size, open_rgb
from ssl4rl_plugin.data.manifest import Manifest
from ssl4rl_plugin.data.rows import PROBES, Row
from ssl4rl_plugin.data.source import Question, SourceError
from ssl4rl_plugin.grading import letters, question_grader
from ssl4rl_plugin.grading.formats import AnswerFormat
from ssl4rl_plugin.training.prompt_forms import PictureSize, PromptForm, split

SHOWABLE = ("blank", "too_small", "aspect", "duplicate_of_validation")
"""Reasons to reject a picture for pretext tasks that do not matter for a question about it."""

MAX_OPTIONS = 26
"""One for each letter."""
PIXELS_PER_TOKEN = 28 * 28
"""Of Qwen2.5-VL, for estimates."""
CHARACTERS_PER_TOKEN = 4
"""Of English text, for estimates."""
ASK_FOR_LETTER = "Answer with the letter of the right option."


@dataclass(frozen=True)
class QuestionVariant:
    """A question in one order of its options."""

    question: Question
    """With the options in this order, and the answer's letter in it."""
    rotation: int = 0
    """Places by which the benchmark's own order is rotated."""
    rotations: int = 1
    """Number of orders in which the question is asked."""


def rotated(question: Question, by: int) -> Question:
    """A question with its options rotated `by` places: option `by` comes first, and the right letter moves along.

    A question without options stays unchanged. Raises ValueError if the answer is none of the options' letters.
    """
    count = len(question.options)
    if not count:
        return question
    marks = letters(count)
    by %= count
    options = question.options[by:] + question.options[:by]
    return replace(question, options=options, answer=marks[(marks.index(question.answer or "") - by) % count])


class QuestionRows:
    """The questions of an indexed benchmark, in the benchmark's order; empty if the source has no questions.

    Args:
        manifest: the benchmark, indexed.
        answer_format: the format that the prompts ask for.
        max_pixels: the pictures of a question have at most this many pixels together; larger ones are shrunk.
        limit: number of questions, drawn by a hash of their ids; None for all.
        circular: ask each question once for every rotation of its options, as MMBench's CircularEval does (Liu et al.,
            arXiv 2307.06281): rows `id#0`, `id#1`, ... in a row. `id#0` has the benchmark's own order.
    """

    def __init__(
        self,
        manifest: Manifest,
        answer_format: AnswerFormat,
        max_pixels: int,
        limit: int | None = None,
        circular: bool = False,
    ) -> None:
        self.manifest = manifest
        self.answer_format = answer_format
        self.max_pixels = max_pixels
        self.circular = circular
        self.left_out_of: Counter[tuple[str, str]] = Counter()
        """Questions that cannot be asked, by category and reason."""
        self.questions = self._chosen(limit)
        self.asked = [row for question in self.questions for row in self._orders(question)]
        """The question of each row."""
        self._counts = Counter(self._data_source(row) for row in self.asked)

    def _orders(self, question: Question) -> list[QuestionVariant]:
        count = max(1, len(question.options)) if self.circular else 1
        return [QuestionVariant(rotated(question, by), by, count) for by in range(count)]

    @property
    def left_out(self) -> Counter[str]:
        """Questions that cannot be asked, by reason."""
        found: Counter[str] = Counter()
        for (_, reason), count in self.left_out_of.items():
            found[reason] += count
        return found

    def _data_source(self, asked: QuestionVariant) -> str:
        """Rotations form groups of their own, so that a category's accuracy in verl is the same with and without them."""
        name = self.manifest.source.name + ("_rotated" if asked.rotation else "")
        return f"bench/{name}/{_category(asked.question)}"

    def _chosen(self, limit: int | None) -> list[Question]:
        name = self.manifest.source.name
        questions = self.manifest.source.questions()
        if (first := next(questions, None)) is None:
            return []  # before the table is read: there may be a million pictures
        table = self.manifest.table
        reasons = dict(zip(table["ref"].to_pylist(), table["reason"].to_pylist(), strict=True))
        found = []
        for question in chain([first], questions):
            unshown = [reason for ref in question.refs if (reason := reasons.get(ref, "no_image")) is not None]
            bad = next((reason for reason in unshown if reason not in SHOWABLE), None) or _unanswerable(question)
            if bad is None:
                found.append(question)
            else:
                self.left_out_of[_category(question), bad] += 1
        if limit is not None and limit < len(found):
            kept = {q.id for q in sorted(found, key=lambda q: digest("questions", name, q.id))[:limit]}
            found = [question for question in found if question.id in kept]
        return found

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, index: int) -> Row:
        """Row `index`. Raises IndexError out of range, SourceError if a picture can no longer be read."""
        if not 0 <= index < len(self):
            raise IndexError(f"question {index} of {len(self)}")
        asked, name = self.asked[index], self.manifest.source.name
        question = asked.question
        sample = f"{name}:{question.id}" + (f"#{asked.rotation}" if self.circular else "")
        assert question.answer is not None
        shown = {
            key: getattr(question, key) for key in ("answer", "category", "hint", "l2_category", "options", "text")
        }
        return Row(
            kind=name,
            data_source=self._data_source(asked),
            prompt=self._prompt(question),
            images=tuple(self._picture(question, ref) for ref in question.refs),
            videos=(),
            ground_truth=encode_question(
                name, question.options, question.answer, sample, question=question.id, category=question.category,
                l2_category=question.l2_category, rotation=asked.rotation, rotations=asked.rotations,
                questions=self._counts[self._data_source(asked)],
            ),
            info={
                "index": index, "split": "questions", "sample": sample, "task": name, "level": "",
                "item": ",".join(question.refs), "gold": question.answer, "params": json.dumps(shown, sort_keys=True),
                "refused": "[]",
            },
        )  # fmt: skip

    def _prompt(self, question: Question) -> str:
        # Seeded by the question, not by the row: rotations differ only in the options' order.
        rng = rng_for("question", self.manifest.source.name, question.id)
        return f"{prompt_of(question)} {rng.choice(self.answer_format.instructions)}"

    def form(self, index: int) -> PromptForm:
        """The form of row `index`. Takes the sizes of its pictures from the manifest. Raises the errors of `[]`."""
        asked = self.asked[index]
        question = asked.question
        sizes = [self._size(question, ref) for ref in question.refs]
        kind = self.manifest.source.name
        return PromptForm(kind, self._data_source(asked), question.id, split(kind, self._prompt(question), sizes))

    def _size(self, question: Question, ref: str) -> PictureSize:
        """The size at which a picture is shown."""
        known = self._indexed_sizes.get(ref)
        if known is None:
            return PictureSize(*self._picture(question, ref).size)
        return PictureSize(*fitted_size(*known, self.max_pixels // len(question.refs)))

    @cached_property
    def _indexed_sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height of each picture by ref, without those of which only a part was indexed."""
        columns = (self.manifest.table[name].to_pylist() for name in ("ref", "width", "height", "box"))
        return {
            ref: (width, height)
            for ref, width, height, box in zip(*columns, strict=True)
            if width and height and box is None
        }

    def _picture(self, question: Question, ref: str) -> Image.Image:
        try:
            return open_rgb(self.manifest.source.read(ref), max_pixels=self.max_pixels // len(question.refs))
        except ImageError as error:
            raise SourceError(
                f"question {question.id} of {self.manifest.source.name}: {ref} could be read when it was indexed, and now "
                f"cannot ({error}); put it back, or index it again"
            ) from error

    def probes(self) -> Iterator[Row]:
        """A few rows, spread over the benchmark, and those whose prompts are probably the longest."""
        step = max(1, len(self) // PROBES)
        chosen = dict.fromkeys((*range(0, len(self), step)[:PROBES], *self._longest()))
        return (self[index] for index in chosen)

    def _longest(self) -> list[int]:
        """Rows with the largest pictures, the longest texts, and most of both by an estimate in tokens."""
        area = {ref: width * height for ref, (width, height) in self._indexed_sizes.items()}
        visual, text = [], []
        for asked in self.asked:
            question = asked.question
            most = self.max_pixels // max(1, len(question.refs))
            visual.append(sum(min(area.get(ref, 0), most) for ref in question.refs) / PIXELS_PER_TOKEN)
            text.append(len(prompt_of(question)) / CHARACTERS_PER_TOKEN)
        both = [one + other for one, other in zip(visual, text, strict=True)]
        return [
            number
            for measure in (both, visual, text)
            for number in sorted(range(len(measure)), key=measure.__getitem__, reverse=True)[:PROBES]
        ]

    def state(self) -> dict[str, Any]:
        orders = " in every order" if self.circular else ""
        return {f"questions of {self.manifest.source.name}": questions_digest(self.questions) + orders}


def _category(question: Question) -> str:
    """The last part of a question's data source."""
    return (question.category or "all").replace("/", " ")


def _unanswerable(question: Question) -> str | None:
    """The reason why no answer could be graded; None if answers can."""
    if question.answer is None:
        return "no_answer"
    if not question.options:
        return None
    if not 2 <= len(question.options) <= MAX_OPTIONS:
        return "number_of_options"
    return None if question.answer in question_grader(question.options).values() else "answer_not_an_option"


def prompt_of(question: Question) -> str:
    """The user's turn without the answer format: pictures, hint, question, options, how to answer."""
    text = question.text
    if text.count("<image>") != len(question.refs):
        text = "<image>" * len(question.refs) + "\n" + text.replace("<image>", "")
    # Marks inside the benchmark's own texts stand for no picture.
    hint, options = (_unmarked(part) for part in (question.hint or "", listed(question.options)))
    parts = [text.replace("<video>", ""), options]
    if hint:
        parts.insert(1, f"Hint: {hint}")
    if question.options:
        parts.append(ASK_FOR_LETTER)
    else:
        parts.append("Answer with a single word, number or short phrase.")
    return "\n".join(part for part in parts if part)


def listed(options: Sequence[str]) -> str:
    """The options, one per line, each behind its letter; empty without options."""
    marks = letters(len(options)) if options else ()
    return "\n".join(f"{mark}. {option}" for mark, option in zip(marks, options, strict=True))


def _unmarked(text: str) -> str:
    return text.replace("<image>", "").replace("<video>", "")


def questions_digest(questions: Sequence[Question]) -> str:
    """SHA-256 over all fields of the questions, in hex."""
    found = hashlib.sha256()
    for question in questions:
        found.update(repr(question).encode("utf-8", "backslashreplace"))
    return found.hexdigest()
