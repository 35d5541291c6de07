"""Base of sources over tables: pictures in some columns, a benchmark's questions in the others."""

from __future__ import annotations

import ast
import base64
import binascii
import json
import logging
import re
import string
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ssl4rl_plugin.data.images import ImageError
from ssl4rl_plugin.data.source import Question, Source, SourceError

logger = logging.getLogger(__name__)

IMAGE_NAME = re.compile(
    r"(?:image|img|picture|photo|media|bytes|file)s?(?:_?(?:path|paths|file|files|name|names|bytes|\d+))?",
    re.IGNORECASE,
)
"""Names of columns with pictures or their paths, for types that do not show it."""

LONGEST_NAME = 255
"""Characters of a file name on common file systems. A longer text without a dot is a picture in base64."""

MAX_LITERAL = 100_000
"""Longest list of options written as text, in characters."""

_MARK = re.compile(r"(?<![^\s,])(\(?)([A-Z])([).:])(?=\s)")
_OPTIONS = re.compile(r"(?:\A|(?<=\n)|(?<=[?.!] ))(?:options|choices|the choices are listed below):\Z", re.IGNORECASE)
_INSTRUCTION = re.compile(r"\b(?:Please answer|Answer with|Please select the correct)\b[^\n]*\Z")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


@dataclass(frozen=True)
class TableRow:
    """One row of a table."""

    refs: tuple[str, ...]
    """Its pictures, in order. `records` lists these refs too."""
    values: Mapping[str, Any]
    """Its other columns, by name."""
    split: str | None = None
    """The split that the table's file or folder states. A column may state another."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a question. The first name that the table has counts; case is ignored.

    Options may also be in columns A, B, C, ... or choice_a, choice_b, ..., or at the end of the question's text.
    """

    id: tuple[str, ...] = ("index", "question_id", "idx", "id")
    """Id of the question; without one, the row's number."""
    text: tuple[str, ...] = ("question", "text")
    """The question."""
    hint: tuple[str, ...] = ("hint",)
    """Text before the question."""
    options: tuple[str, ...] = ("options", "choices", "multi-choice options", "answer choices")
    """All options: a list, or a list written as text."""
    answer: tuple[str, ...] = ("answer", "label", "ground truth")
    """`B`, `(B)`, the option's text, or its number from 0; free text for a question without options."""
    category: tuple[str, ...] = ("category",)
    """The finest category."""
    l2_category: tuple[str, ...] = ("l2-category", "l2_category")
    """A coarser category."""
    split: tuple[str, ...] = ("split",)
    """The benchmark's own name for the split."""
    withheld: tuple[str, ...] = ()
    """Placeholders, in lower case, for an answer that the benchmark withholds."""


class TableSource(Source):
    """A source with rows. Rows with a question become its `questions`."""

    columns: ClassVar[Columns] = Columns()
    """The columns of questions, options and answers."""

    @abstractmethod
    def rows(self) -> Iterator[TableRow]:
        """All rows, in order. Decodes no picture."""

    def questions(self) -> Iterator[Question]:
        return questions_of(self.rows(), self.columns, f"source {self.name!r}: {self.path}")


class _Unusable(ValueError):
    """A row is not a question; the text is the reason, a snake_case name."""


def questions_of(rows: Iterable[TableRow], columns: Columns, where: str, expected: bool = False) -> Iterator[Question]:
    """The questions of a table. Other rows are left out, and counted by reason in a warning at the end.

    Args:
        rows: the table.
        columns: names of its columns.
        where: names the table in messages.
        expected: raise SourceError if the table has no column for the question; otherwise it has no questions.
    """
    left_out: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows):
        values = {name.lower(): value for name, value in row.values.items()}
        if number == 0 and not any(name in values for name in columns.text):
            if expected:
                names = ", ".join(row.values) or "(none)"
                raise SourceError(f"{where} has no column {' or '.join(columns.text)}; its columns are: {names[:300]}")
            return
        try:
            question = _question(row, values, columns, number, seen)
        except _Unusable as error:
            left_out[str(error)] += 1
        else:
            yield question
    if left_out:
        counts = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common())
        logger.warning("%s: %d rows are not questions: %s", where, left_out.total(), counts)


def _question(row: TableRow, values: Mapping[str, Any], columns: Columns, number: int, seen: Counter[str]) -> Question:
    def said(names: Sequence[str]) -> Any:
        return next((values[name] for name in names if name in values), None)

    text = _text(said(columns.text))
    if not row.refs:
        raise _Unusable("no_image")
    if text is None:
        raise _Unusable("no_question")
    text = _without_instruction(text)
    answer = said(columns.answer)
    if (_text(answer) or "").lower() in columns.withheld:
        answer = None
    options = _columns_of_options(values) or _listed(said(columns.options))
    if not options:
        before, found = lettered(text)
        letter = _LETTER.fullmatch(_text(answer) or "A")
        if letter and before and string.ascii_uppercase.find(letter[1].upper()) < len(found):
            text, options = before, found
    text = _without_instruction(text)
    identity = _text(said(columns.id)) or f"row{number}"
    seen[identity] += 1
    return Question(
        # Parts of a benchmark may restart the count of their questions.
        id=identity if seen[identity] == 1 else f"{identity}#{seen[identity]}",
        refs=row.refs,
        text=text,
        options=options,
        answer=_answer(answer, options),
        hint=_text(said(columns.hint)),
        category=_text(said(columns.category)),
        l2_category=_text(said(columns.l2_category)),
        split=_text(said(columns.split)) or row.split,
    )


def _without_instruction(text: str) -> str:
    """A question without its closing instruction on how to answer: the prompt of a run has its own. An instruction that
    holds the options stays."""
    found = _INSTRUCTION.search(text)
    return text if found is None or lettered(found[0])[1] else text[: found.start()].rstrip() or text


def _text(value: Any) -> str | None:
    """A cell as text; None for an empty cell, also as pandas writes it (`nan`)."""
    text = "" if value is None else str(value).strip()
    return None if text.lower() in ("", "nan") else text


def _columns_of_options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Options in the columns A, B, C, ... or choice_a, choice_b, ... Raises _Unusable if one between them is missing."""
    for prefix in ("", "choice_"):
        if found := _without_gap([_text(values.get(prefix + letter)) for letter in string.ascii_lowercase]):
            return found
    return ()


def _without_gap(options: Sequence[str | None]) -> tuple[str, ...]:
    """Options up to the last one given. Raises _Unusable if one before it is missing: the letters would shift."""
    filled = [number for number, option in enumerate(options) if option]
    if filled and filled[-1] >= len(filled):
        raise _Unusable("gap_in_options")
    return tuple(option for option in options if option)


def _listed(value: Any) -> tuple[str, ...]:
    """Options from a list, a mapping by letters, or either written as text; without the letters before them."""
    if isinstance(value, str):
        value = literal(value) or lettered(value)[1]
    if isinstance(value, Mapping):
        value = [option for _, option in sorted(value.items(), key=lambda entry: str(entry[0]))]
    if not isinstance(value, list | tuple):
        return ()
    options = _without_gap([_text(option) for option in value])
    marks = [_MARK.match(option) for option in options]
    if all(mark and mark[2] == letter for mark, letter in zip(marks, string.ascii_uppercase, strict=False)):
        options = tuple(option[mark.end() :].strip() for option, mark in zip(options, marks, strict=True) if mark)
    return options


def literal(text: str) -> Any:
    """The list or mapping written in a text as JSON or as a Python literal; None for other texts. Runs no code."""
    if not text.lstrip().startswith(("[", "{")) or len(text) > MAX_LITERAL:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def lettered(text: str) -> tuple[str, tuple[str, ...]]:
    """Split a text that ends with options, marked (A) (B), A. B., A) B) or A: B:, into the text before them and the options.
    With fewer than two options: the whole text and none.

    >>> lettered("Of what is it made?\\n(A) rubber\\n(B) cotton")
    ('Of what is it made?', ('rubber', 'cotton'))
    """
    marks = list(_MARK.finditer(text))
    for first in [mark for mark in marks if mark[2] == "A"][:-9:-1]:
        found = [first]
        for mark in marks:
            if (
                mark.start() > found[-1].start()
                and (mark[1], mark[3]) == (first[1], first[3])
                and mark[2] == string.ascii_uppercase[len(found) % 26]
            ):
                found.append(mark)
        if len(found) > 1:
            ends = [mark.start() for mark in found[1:]] + [len(text)]
            options = [text[mark.end() : end].strip(" \n\t,;") for mark, end in zip(found, ends, strict=True)]
            if not all(options):
                break
            return _OPTIONS.sub("", text[: first.start()].rstrip()).strip(), tuple(options)
    return text, ()


def _answer(value: Any, options: Sequence[str]) -> str | None:
    """The letter of the correct option, or the text of a free answer; None for no answer."""
    text = _text(value)
    if text is None or not options:
        return text
    letters = string.ascii_uppercase[: len(options)]
    if isinstance(value, int | float) and not isinstance(value, bool):  # a number is always a position
        if value != int(value) or not 0 <= value < len(letters):
            raise _Unusable("answer_not_an_option")
        return letters[int(value)]
    letter = _LETTER.fullmatch(text)
    if letter and letter[1].upper() in letters:
        return letter[1].upper()
    alike = [letters[i] for i, option in enumerate(options[:26]) if option.casefold() == text.casefold()]
    if len(alike) == 1:
        return alike[0]
    if text.isdecimal() and int(text) < len(letters):
        return letters[int(text)]
    raise _Unusable("answer_not_an_option")


def from_base64(text: bytes, shown: str) -> bytes:
    """Decode base64 text. Raises ImageError (`broken_base64`)."""
    if text.startswith(b"data:"):
        text = text.partition(b",")[2]
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ImageError("broken_base64", f"{error}, {shown}") from error
