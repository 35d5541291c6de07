"""Answers that are right or wrong, or near on a circle: one of a few labels, a word or number, an angle."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading.text import folded, letters, normalise, without_nouns

LONGEST_PHRASE = 200
"""Longer labels (whole sentences as options of a question) are not looked for in a reasoning."""

_NAMING = re.compile(
    r"\b(?:option|answer|choice|letter|label|picture|image|tile|cell|patch|crop|candidate|box|region|point|node|is|be)"
    r"[\s:=]{1,3}$",
    re.IGNORECASE,
)
_SAYING = re.compile(r"\s(?:is|was|has|shows|matches|fits|and|or|then|because|since|must|seems|looks|comes)\b")

_PLACE = {
    "top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom", "left": "left", "lefthand": "left",
    "right": "right", "righthand": "right", "center": "center", "centre": "center", "middle": "center", "central": "center",
}  # fmt: skip
"""Words for places. `middle-left`, `left center` and `centre left` name the same place."""

_MARKED = re.compile(r"[(\[]?([A-Za-z])(?:[)\].:]{1,2}|[ ]-|,)[ ]*(.*)", re.DOTALL)
"""A letter with a list mark, and what follows it: `B. Dog`, `(B) Dog`, `B: Dog`, `B - Dog`."""

_YES_NO = re.compile(r"(yes|no)[ ]?[,:;.-][ ]?(.+)", re.IGNORECASE | re.DOTALL)


def as_place(text: str) -> tuple[str, ...] | None:
    """The words of a place in one order and spelling, e.g. of `left upper` (`left`, `top`); None for anything else."""
    words = text.replace(",", " ").split()
    found = sorted({_PLACE.get(word, "") for word in words})
    if not found or not found[0] or len(words) > 3:
        return None
    return tuple(found)


@dataclass(frozen=True)
class Choice(Grader[str]):
    """Exactly one of a few labels; no partial credit.

    Case, hyphens, underscores and repeated spaces do not matter. An article and a noun may stand around a label (see
    `grading.text.NOUNS`). Where the labels are places, synonyms and both word orders are read.

    Args:
        labels: the possible answers, as they are written in prompts, e.g. `("top-left", "top-right")`.
        aliases: other spellings of a label, e.g. `{"reversed": "backward"}`.
        texts: what each label stands for, for the options of a question. A label may be followed by its own text
            (`B. Dog`); a text alone counts as its label if no other option reads alike.
    """

    labels: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    texts: tuple[str, ...] = ()

    @cached_property
    def _lookup(self) -> dict[str, str]:
        table = {folded(label): label for label in self.labels}
        if len(table) != len(self.labels) or len(table) < 2:
            raise ValueError(f"labels must be at least two and distinct, got {self.labels}")
        return (
            {folded(text): label for text, label in self.own_texts.items()}
            | table
            | {folded(alias): label for alias, label in self.aliases.items() if folded(alias) not in table}
        )

    @cached_property
    def own_texts(self) -> dict[str, str]:
        """Texts that belong to one label alone."""
        read = [_option_text(text) for text in self.texts]
        return {text: label for text, label in zip(read, self.labels, strict=False) if text and read.count(text) == 1}

    @cached_property
    def _places(self) -> dict[tuple[str, ...], str]:
        """Places by their words, where all labels are places and all differ."""
        found = {as_place(folded(label)): label for label in self.labels}
        return {} if None in found or len(found) < len(self.labels) else {p: label for p, label in found.items() if p}

    @property
    def chance_accuracy(self) -> float:
        return 1.0 / len(self.labels)

    @property
    def chance_similarity(self) -> float:
        return self.chance_accuracy

    def parse(self, text: str) -> str | None:
        plain = normalise(text)
        if not plain:
            return None
        if self.texts:
            return self._option(plain)
        found = self._label(plain)
        if found is None and (match := _YES_NO.fullmatch(plain)):  # `yes, the same`: both must say so
            said, label = self._label(match[1]), self._label(match[2])
            return label if said == label else None
        return found

    def _label(self, plain: str) -> str | None:
        """The label that a normalised text names."""
        table = self._lookup
        whole, marked = folded(plain), folded(plain.rstrip("):"))  # a list mark: `B)` or `B:`
        for candidate in (whole, without_nouns(whole, table), marked, without_nouns(marked, table)):
            if (found := table.get(candidate)) is not None:
                return found
            if self._places and (place := as_place(candidate)) in self._places:
                return self._places[place]
        return None

    def _option(self, plain: str) -> str | None:
        """The option that a text names: by its letter, by its letter and its own text, or by its text alone."""
        table = {folded(label): label for label in self.labels}
        if (found := table.get(folded(plain).strip("(). :"))) is not None:
            return found
        if (alone := self.own_texts.get(_option_text(plain))) is not None:
            return alone
        if (found := table.get(without_nouns(folded(plain), table).strip("(). :"))) is not None:
            return found
        match = _MARKED.fullmatch(re.sub(r"\A(?:option|choice|answer|letter)[ ]+", "", plain, flags=re.IGNORECASE))
        label = table.get(match[1].casefold()) if match else None
        if match is None or label is None:
            return None
        return label if _option_text(match[2]) == _option_text(self.texts[self.labels.index(label)]) else None

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

    def forms(self, value: Any) -> dict[str, str]:
        label = str(value)
        found = {"as the prompt asks": label, "other case": label.swapcase()}
        if self.texts:
            text = self.texts[self.labels.index(label)]
            marked = {"B. text": f"{label}. {text}", "B) text": f"{label}) {text}", "(B) text": f"({label}) {text}"}
            found |= {"noun": f"Option {label}", "list mark": f"{label})"} | (marked if _option_text(text) else {})
            return found | ({"text alone": text} if self.own_texts.get(_option_text(text)) == label else {})
        if self._places:
            words = label.split("-")
            found |= {"words in the other order": "-".join(words[::-1]), "noun": f"the {label} corner"}
            return found | {
                "synonym": " ".join({"top": "upper", "bottom": "lower", "center": "middle"}.get(w, w) for w in words)
            }
        if len(label) == 1:
            return found | {"noun": f"Option {label}", "list mark": f"{label})", "brackets": f"({label})"}
        return found | {"article and noun": f"the {label} picture"}

    @property
    def is_choice(self) -> bool:
        return True

    def values(self) -> Iterator[str]:
        return iter(self.labels)


@functools.lru_cache(maxsize=256)
def _patterns(grader: Choice) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    """What finds single capital letters, and what finds the other labels and aliases in any case."""
    spellings = [*grader.labels, *grader.aliases, *grader.own_texts]
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
        plain = normalise(text)
        return (folded(plain) or None) if plain else None

    def spans(self, text: str) -> Iterator[str]:
        return iter(())  # free words cannot be told from any others

    def equal(self, value: str, truth: Any) -> bool:
        plain = normalise(str(truth))
        return plain is not None and value == folded(plain)

    def similarity(self, value: str, truth: Any) -> float:
        return 1.0 if self.equal(value, truth) else 0.0

    def render(self, truth: Any) -> str:
        return str(truth)

    def values(self) -> Iterator[str]:
        return iter(())


def _option_text(text: str) -> str:
    """An option's text for comparison."""
    return folded(normalise(text) or "")


def question_grader(choices: tuple[str, ...]) -> Choice | Words:
    """The grader of a benchmark's question with such option texts: their letters, or words where there are none."""
    if not choices:
        return Words()
    return Choice(tuple(letters(len(choices))), texts=choices)


@dataclass(frozen=True)
class Angle(Grader[int]):
    """An angle in whole degrees, a multiple of `step`, graded by circular distance: s = 1 - d / 180.

    `-90` and `450` mean the same turns as `270` and `90`. The answer may name its direction; one against `clockwise` is
    turned into the other: `90 degrees clockwise` reads as 270 where the prompt asks for counter-clockwise turns.
    """

    step: int
    clockwise: bool = False
    """The prompt asks for clockwise turns; otherwise for counter-clockwise ones."""

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
        plain = normalise(text)
        match = _ANGLE.fullmatch(plain) if plain else None
        if match is None:
            return None
        degrees = int(match["degrees"])
        direction = match["before"] or match["behind"]
        if match["before"] and match["behind"]:
            return None  # both a word in front and one behind: at best said twice
        if direction and direction.casefold().startswith(("cl", "cw")) != self.clockwise:
            degrees = -degrees
        return degrees % 360 if degrees % self.step == 0 else None

    def spans(self, text: str) -> Iterator[str]:
        """Numbers with their unit and direction."""
        return reversed([match[0] for match in _IN_TEXT.finditer(text)])

    def similarity(self, value: int, truth: Any) -> float:
        apart = abs(value - int(truth)) % 360
        return 1.0 - min(apart, 360 - apart) / 180

    def render(self, truth: Any) -> str:
        return str(truth)

    def forms(self, value: Any) -> dict[str, str]:
        asked, other = ("clockwise", "counter-clockwise") if self.clockwise else ("counter-clockwise", "clockwise")
        return {
            "as the prompt asks": f"{value}", "unit": f"{value} degrees", "sign": f"{value}°", "decimals": f"{value}.0",
            "LaTeX": rf"{value}^\circ", "direction": f"{value} degrees {asked}", "short direction": f"{value}° CCW"
            if not self.clockwise else f"{value}° CW", "other direction": f"{-value % 360} degrees {other}",
            "negative": f"{value - 360}", "CJK unit": f"{value}度",
        }  # fmt: skip

    @property
    def is_choice(self) -> bool:
        return True

    def values(self) -> Iterator[int]:
        return iter(range(0, 360, self.step))


_DIRECTION = r"(?:counter[- ]?clock[- ]?wise|anti[- ]?clock[- ]?wise|ccw|clock[- ]?wise|cw)"
_ANGLE = re.compile(
    rf"(?:(?P<before>{_DIRECTION})[ ,:]{{1,3}}(?:by[ ])?)?(?P<degrees>[+-]?[0-9]{{1,4}})(?:\.0{{1,6}})?"
    rf"\s{{0,3}}(?:°|deg\.?|degrees?|度)?(?:[ ]?[(,]?[ ]?(?P<behind>{_DIRECTION})\)?)?(?:[ ]rotation)?",
    re.IGNORECASE,
)
_IN_TEXT = re.compile(rf"(?<![\w.])(?:{_ANGLE.pattern})(?![\w.]\w)", re.IGNORECASE)
