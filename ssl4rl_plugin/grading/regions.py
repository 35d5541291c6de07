"""Answers that are a place: an interval of frames, a box in a picture.

Their truths are not uniform over all possible answers, so each grader states how its truth is drawn, and what the best
constant answer gets follows from that by enumeration (`Interval`) or by integration over a fixed sample (`Box`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading.text import normalise

SCALE = 1000
"""Coordinates in answers are whole thousandths of the picture's width and height, from the top-left corner."""

_NUMBER = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,6})?(?![\w.])")
_FRAME = r"(?:frames?[ ]?#?[ ]?)?([0-9]{1,3})(?:\.0{1,6})?"
_INTERVAL = re.compile(
    rf"(?:from[ ]|between[ ])?{_FRAME}(?:[ ]?(?:->|-|~|,|;|\.\.\.?|\bto\b|\bthrough\b|\band\b)[ ]?|[ ]+){_FRAME}"
    r"(?:[ ]frames?)?",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"<\|(?:box|quad)_(?:start|end)\|>|</?(?:box|bbox)>")
_KEY = re.compile(r"[\"']?(?:bbox|bbox_2d|box|box_2d|bounding[ _]box|coordinates)[\"']?[ ]*[:=]", re.IGNORECASE)
_LABEL = re.compile(r",?[ ]*[\"']label[\"'][ ]*:[ ]*[\"'][^\"']{0,80}[\"'][ ]*,?")
_EDGES = (
    ("x1", "xmin", "x_min", "left"), ("y1", "ymin", "y_min", "top"), ("x2", "xmax", "x_max", "right"),
    ("y2", "ymax", "y_max", "bottom"),
)  # fmt: skip
_EDGE = re.compile(r"[\"']?([A-Za-z]{1,6}_?[a-z]{0,3}[12]?)[\"']?[ ]*[:=][ ]*(-?[0-9.]{1,12})(?:[ ]*(?:px|pixels))?")


def _box_numbers(text: str) -> list[float] | None:
    """The four edges x1, y1, x2, y2 that a normalised text states; None if it states no single box."""
    text = _LABEL.sub("", _TOKENS.sub(" ", text)).strip().rstrip(",")
    text = _KEY.sub(" ", text, count=1)
    named = _EDGE.findall(text)
    if named:
        rest = re.sub(r"[\s,;{}()\[\]]", "", _EDGE.sub("", text))
        places = [next((n for n, names in enumerate(_EDGES) if name.casefold() in names), -1) for name, _ in named]
        if rest or sorted(places) != [0, 1, 2, 3]:
            return None
        found = [value for _, (_, value) in sorted(zip(places, named, strict=True))]
        return [float(value) for value in found] if all(_NUMBER.fullmatch(value) for value in found) else None
    found = _NUMBER.findall(text)
    rest = _NUMBER.sub("", text)
    if len(found) != 4 or not re.fullmatch(r"(?:[\s,;()\[\]{}]|\bto\b)*", rest):
        return None
    return [float(number) for number in found]


@dataclass(frozen=True)
class Interval(Grader[tuple[int, int]]):
    """First and last of a run of frames, e.g. `12-20`, frames numbered from 1 to `frames`; both ends belong to it.

    Graded by the intersection over union (temporal IoU, as in moment retrieval: Gao et al., TALL, arXiv 1705.02101). An
    IoU of at least `correct_from` counts as correct. The truth's length is uniform in `shortest`..`longest` frames and
    its start uniform given the length.
    """

    frames: int
    shortest: int
    longest: int
    correct_from: float = 0.9
    uniform: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (1 <= self.shortest <= self.longest < self.frames <= 999 and 0.5 < self.correct_from <= 1):
            raise ValueError(f"expected 1 <= shortest <= longest < frames and 0.5 < correct_from <= 1, got {self}")

    @property
    def chance_accuracy(self) -> float:
        return _best_interval(self.frames, self.shortest, self.longest, self.correct_from)[0]

    @property
    def chance_similarity(self) -> float:
        return _best_interval(self.frames, self.shortest, self.longest, self.correct_from)[1]

    @property
    def best_guess(self) -> tuple[int, int]:
        return _best_interval(self.frames, self.shortest, self.longest, self.correct_from)[2]

    def parse(self, text: str) -> tuple[int, int] | None:
        plain = normalise(text)
        match = _INTERVAL.fullmatch(plain) if plain else None
        if match is None:
            return None
        first, last = int(match[1]), int(match[2])
        return (first, last) if 1 <= first <= last <= self.frames else None

    def equal(self, value: tuple[int, int], truth: Any) -> bool:
        return self.similarity(value, truth) >= self.correct_from

    def similarity(self, value: tuple[int, int], truth: Any) -> float:
        inner = max(0, min(value[1], truth[1]) - max(value[0], truth[0]) + 1)
        return inner / (value[1] - value[0] + 1 + truth[1] - truth[0] + 1 - inner)

    def render(self, truth: Any) -> str:
        return f"{truth[0]}-{truth[1]}"

    def forms(self, value: Any) -> dict[str, str]:
        first, last = value
        return {
            "as the prompt asks": self.render(value), "to": f"{first} to {last}", "tilde": f"{first}~{last}",
            "frames": f"frames {first}-{last}", "list": f"[{first}, {last}]", "from": f"from frame {first} to frame {last}",
        }  # fmt: skip

    def values(self) -> Iterator[tuple[int, int]]:
        return ((a, b) for a in range(1, self.frames + 1) for b in range(a, self.frames + 1))

    def draw(self, rng: random.Random) -> tuple[int, int]:
        length = rng.randint(self.shortest, self.longest)
        first = rng.randint(1, self.frames - length + 1)
        return first, first + length - 1

    def parts(self, value: Any) -> dict[str, int]:
        return {"middle (quarter)": min(3, (value[0] + value[1] - 1) * 2 // self.frames)}


@lru_cache(maxsize=64)
def _best_interval(
    frames: int, shortest: int, longest: int, correct_from: float
) -> tuple[float, float, tuple[int, int]]:
    """Best accuracy and best mean IoU of any constant interval, and the interval of the latter; all enumerated."""
    truths = np.array(
        [(s, s + n - 1, 1 / (frames - n + 1)) for n in range(shortest, longest + 1) for s in range(1, frames - n + 2)]
    )
    weight = truths[:, 2] / truths[:, 2].sum()
    guesses = np.array([(a, b) for a in range(1, frames + 1) for b in range(a, frames + 1)])
    inner = np.minimum(guesses[:, 1, None], truths[:, 1]) - np.maximum(guesses[:, 0, None], truths[:, 0]) + 1
    inner = np.maximum(0, inner)
    lengths = guesses[:, 1, None] - guesses[:, 0, None] + 1 + truths[:, 1] - truths[:, 0] + 1
    iou = inner / (lengths - inner)
    mean = iou @ weight
    best = guesses[int(mean.argmax())]
    return float(((iou >= correct_from) @ weight).max()), float(mean.max()), (int(best[0]), int(best[1]))


@dataclass(frozen=True)
class Box(Grader[tuple[int, int, int, int]]):
    """A box `[x1, y1, x2, y2]` in thousandths of the picture's width and height, from the top-left corner.

    Graded by the intersection over union; one of at least `correct_from` counts as correct. The truth has the picture's
    own shape: its side, as a share of the picture's, is uniform in [smallest, largest], and its place uniform given
    the side.
    """

    smallest: float
    largest: float
    correct_from: float = 0.75
    uniform: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (0 < self.smallest <= self.largest < 1 and 0.5 <= self.correct_from < 1):
            raise ValueError(f"expected 0 < smallest <= largest < 1 and 0.5 <= correct_from < 1, got {self}")

    @property
    def chance_accuracy(self) -> float:
        return _best_box(self.smallest, self.largest, self.correct_from)[0]

    @property
    def chance_similarity(self) -> float:
        return _best_box(self.smallest, self.largest, self.correct_from)[1]

    @property
    def best_guess(self) -> tuple[int, int, int, int]:
        return _best_box(self.smallest, self.largest, self.correct_from)[2]

    def parse(self, text: str) -> tuple[int, int, int, int] | None:
        plain = normalise(text)
        numbers = _box_numbers(plain) if plain else None
        if numbers is None or not all(number <= SCALE for number in numbers):
            return None
        x1, y1, x2, y2 = (round(number) for number in numbers)
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None

    def equal(self, value: tuple[int, int, int, int], truth: Any) -> bool:
        return self.similarity(value, truth) >= self.correct_from

    def similarity(self, value: tuple[int, int, int, int], truth: Any) -> float:
        wide = max(0, min(value[2], truth[2]) - max(value[0], truth[0]))
        high = max(0, min(value[3], truth[3]) - max(value[1], truth[1]))
        areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (value, truth))
        return wide * high / (areas - wide * high)

    def render(self, truth: Any) -> str:
        return f"[{', '.join(map(str, truth))}]"

    def forms(self, value: Any) -> dict[str, str]:
        x1, y1, x2, y2 = value
        return {
            "as the prompt asks": self.render(value), "corners": f"({x1}, {y1}), ({x2}, {y2})",
            "blanks": f"{x1} {y1} {x2} {y2}", "JSON": f'{{"bbox_2d": {self.render(value)}, "label": "tile"}}',
            "JSON list": f'[{{"bbox_2d": {self.render(value)}}}]',
            "box tokens": f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>",
            "named edges": f"x1={x1}, y1={y1}, x2={x2}, y2={y2}",
            "edges in another order": f"top: {y1}, left: {x1}, bottom: {y2}, right: {x2}",
        }  # fmt: skip

    def values(self) -> Iterator[tuple[int, int, int, int]]:
        """Boxes on a coarse grid: a picture has too many to list."""
        step = SCALE // 10
        ends = [(a, b) for a in range(0, SCALE, step) for b in range(a + step, SCALE + 1, step)]
        return ((x1, y1, x2, y2) for y1, y2 in ends for x1, x2 in ends)

    def draw(self, rng: random.Random) -> tuple[int, int, int, int]:
        side = rng.uniform(self.smallest, self.largest)
        left, upper = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
        x1, y1, x2, y2 = (round(SCALE * edge) for edge in (left, upper, left + side, upper + side))
        return x1, y1, x2, y2

    def parts(self, value: Any) -> dict[str, int]:
        x, y = value[0] + value[2], value[1] + value[3]
        return {"left or right": int(x > SCALE), "upper or lower": int(y > SCALE)}


@lru_cache(maxsize=64)
def _best_box(smallest: float, largest: float, correct_from: float) -> tuple[float, float, tuple[int, int, int, int]]:
    """Best accuracy and best mean IoU of constant boxes on a grid of places and sizes, over 8,192 truths.

    By symmetry no more than one octant of places is tried, and boxes of the truths' shape only.
    """
    rng = random.Random(0)
    grader = Box(smallest, largest, correct_from)
    truths = np.array([grader.draw(rng) for _ in range(8192)], float)
    best_accuracy, best_mean, best_box = 0.0, 0.0, (0, 0, SCALE, SCALE)
    for side in np.linspace(smallest, min(1.0, 1.3 * largest), 12) * SCALE:
        for x in np.linspace(side / 2, SCALE / 2, 5):
            for y in np.linspace(side / 2, x, 3):
                guess = [x - side / 2, y - side / 2, x + side / 2, y + side / 2]
                wide = np.minimum(guess[2], truths[:, 2]) - np.maximum(guess[0], truths[:, 0])
                high = np.minimum(guess[3], truths[:, 3]) - np.maximum(guess[1], truths[:, 1])
                inner = np.maximum(0, wide) * np.maximum(0, high)
                areas = side**2 + (truths[:, 2] - truths[:, 0]) * (truths[:, 3] - truths[:, 1])
                iou = inner / (areas - inner)
                best_accuracy = max(best_accuracy, float((iou >= correct_from).mean()))
                if iou.mean() > best_mean:
                    best_mean = float(iou.mean())
                    best_box = tuple(round(edge) for edge in guess)
    return best_accuracy, best_mean, best_box
