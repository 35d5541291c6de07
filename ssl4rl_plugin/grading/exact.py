"""Answers that are right or wrong, or near on a circle: one of a few labels, a word or number, an angle."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading.text import MAX_ANSWER_CHARS, letters, strip_form

LONGEST_PHRASE = 200
"""Longer labels (whole sentences as options of a question) are not looked for in a reasoning."""

_NAMING = re.compile(
    r"\b(?:option|answer|choice|letter|label|picture|image|tile|cell|patch|crop|candidate|box|region|point|node|is|be)"
    r"[\s:=]{1,3}$",
    re.IGNORECASE,
)
_SAYING = re.compile(r"\s(?:is|was|has|shows|matches|fits|and|or|then|because|since|must|seems|looks|comes)\b")


def normal(text: str) -> str:
    """Case, hyphens, underscores and repeated spaces never matter."""
    return " ".join(text.casefold().replace("-", " ").replace("_", " ").split())


@dataclass(frozen=True)
class Choice(Grader[str]):
    """Exactly one of a few labels; no partial credit.

    Args:
        labels: the possible answers, as they are written in prompts, e.g. `("top-left", "top-right")`.
        aliases: other spellings of a label, e.g. `{"upper left": "top-left"}`. Case, hyphens, underscores and repeated
            spaces never matter.
    """

    labels: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)

    @cached_property
    def _lookup(self) -> dict[str, str]:
        table = {normal(label): label for label in self.labels}
        if len(table) != len(self.labels) or len(table) < 2:
            raise ValueError(f"labels must be at least two and distinct, got {self.labels}")
        return table | {normal(alias): label for alias, label in self.aliases.items()}

    @property
    def chance_accuracy(self) -> float:
        return 1.0 / len(self.labels)

    @property
    def chance_similarity(self) -> float:
        return self.chance_accuracy

    def parse(self, text: str) -> str | None:
        if len(text) > MAX_ANSWER_CHARS:
            return None
        text = strip_form(text)
        found = self._lookup.get(normal(text))
        if found is None and text.endswith((")", ":")):  # a list marker: "B)" or "B:"
            found = self._lookup.get(normal(text[:-1]))
        return found

    def spans(self, text: str) -> Iterator[str]:
        """The last label in the text. A label counts as a word of its own, one capital letter as a capital only, and `A`
        and `I` not as words of a sentence."""
        capitals, words = _patterns(self)
        # From the end: what stands last decides, and of two that overlap the longer one.
        best: tuple[int, int, str] | None = None
        for match in words.finditer(text) if words else ():
            best = (match.end(), len(match[0]), match[0])
        for match in capitals.finditer(text) if capitals else ():
            if (best is None or match.end() > best[0]) and _is_label(match[0], text, match.start()):
                best = (match.end(), 1, match[0])
        if best is not None:
            yield best[2]

    def similarity(self, value: str, truth: Any) -> float:
        return 1.0 if value == truth else 0.0

    def render(self, truth: Any) -> str:
        return str(truth)

    @property
    def is_choice(self) -> bool:
        return True

    def values(self) -> Iterator[str]:
        return iter(self.labels)


@functools.lru_cache(maxsize=256)
def _patterns(grader: Choice) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    """What finds single capital letters, and what finds the other labels and aliases in any case."""
    spellings = [*grader.labels, *grader.aliases]
    capitals = [label for label in spellings if len(label) == 1 and label.isupper()]
    words = sorted({s for s in spellings if s not in capitals and len(s) <= LONGEST_PHRASE}, key=lambda s: (-len(s), s))
    # As the grader: hyphens, underscores and spaces are alike.
    alike = [r"[\s_-]{1,3}".join(re.escape(part) for part in re.split(r"[\s_-]+", s) if part) for s in words]
    found = "|".join(part for part in alike if part)
    return (
        re.compile(rf"(?<![\w'’])(?:{'|'.join(map(re.escape, capitals))})(?![\w'’])") if capitals else None,
        re.compile(rf"(?<![\w.-])(?:{found})(?!\w)", re.IGNORECASE) if found else None,
    )


def _is_label(letter: str, text: str, start: int) -> bool:
    """Whether a lone `A` or `I` is a label and no word of a sentence; any other letter always is."""
    after = text[start + 1 : start + 12]
    if letter not in "AI" or re.match(r"\s{1,3}[a-z]", after) is None:
        return True
    return _SAYING.match(after) is not None or _NAMING.search(text[max(0, start - 16) : start]) is not None


@dataclass(frozen=True)
class Words(Grader[str]):
    """A few words or a number that must be written as the truth is, but for case, spaces, hyphens and outer form.

    For benchmark questions without options; what a blind guesser would say there is unknown, so chance is put at 0.
    """

    uniform: ClassVar[bool] = False

    @property
    def chance_accuracy(self) -> float:
        return 0.0

    @property
    def chance_similarity(self) -> float:
        return 0.0

    def parse(self, text: str) -> str | None:
        return normal(strip_form(text)) or None if len(text) <= MAX_ANSWER_CHARS else None

    def spans(self, text: str) -> Iterator[str]:
        return iter(())  # free words cannot be told from any others

    def equal(self, value: str, truth: Any) -> bool:
        return value == normal(strip_form(str(truth)))

    def similarity(self, value: str, truth: Any) -> float:
        return 1.0 if self.equal(value, truth) else 0.0

    def render(self, truth: Any) -> str:
        return str(truth)

    def values(self) -> Iterator[str]:
        return iter(())


def question_grader(choices: tuple[str, ...]) -> Choice | Words:
    """The grader of a benchmark's question with such option texts: their letters, or words where there are none.

    An option's text counts as its letter, unless two options read alike.
    """
    if not choices:
        return Words()
    labels = letters(len(choices))
    texts = [normal(choice) for choice in choices]
    aliases = {
        text: label for text, label in zip(texts, labels, strict=True)
        if text and texts.count(text) == 1 and text.upper() not in labels
    }  # fmt: skip
    return Choice(tuple(labels), aliases)


@dataclass(frozen=True)
class Angle(Grader[int]):
    """An angle in whole degrees, a multiple of `step`, graded by circular distance: s = 1 - d / 180.

    `-90` and `450` mean the same turns as `270` and `90`.
    """

    step: int

    def __post_init__(self) -> None:
        if self.step <= 0 or 360 % self.step or 180 % self.step:
            raise ValueError(f"step must divide 180 degrees, got {self.step}")

    @property
    def chance_accuracy(self) -> float:
        return self.step / 360

    @property
    def chance_similarity(self) -> float:
        return 0.5  # the mean circular distance to a uniform multiple of the step is 90 degrees

    def parse(self, text: str) -> int | None:
        if len(text) > MAX_ANSWER_CHARS:
            return None
        match = _ANGLE.fullmatch(strip_form(text))
        if match is None:
            return None
        degrees = int(match[1]) % 360
        return degrees if degrees % self.step == 0 else None

    def similarity(self, value: int, truth: Any) -> float:
        apart = abs(value - int(truth)) % 360
        return 1.0 - min(apart, 360 - apart) / 180

    def render(self, truth: Any) -> str:
        return str(truth)

    @property
    def is_choice(self) -> bool:
        return True

    def values(self) -> Iterator[int]:
        return iter(range(0, 360, self.step))


_ANGLE = re.compile(r"([+-]?[0-9]{1,4})(?:\.0{1,6})?\s{0,3}(?:°|º|deg\.?|degrees?)?", re.IGNORECASE)
