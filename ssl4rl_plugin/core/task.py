"""The one idea of the package: an Item goes into a Task, a Sample comes out, and a Score judges the answer.

    Item    one raw, unlabelled thing from a source (an image, a video, a graph)
    Task    generate(item, level, rng) -> Sample or Rejection;  score(answer, truth, level) -> Score
    Sample  what the model sees (question, images) and what it does not (truth, params)
    Score   what an answer is worth

The first half of this file is data, frozen; the second half, `Task`, is behaviour. A new task subclasses `Task`, names
its levels, and writes `generate` and `grader`; prompts, answer formats, parsing, seeding, audits and metrics then work
for it as they do for the built-in ones.
"""

from __future__ import annotations

import dataclasses
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from PIL import Image

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.grader import Grader, Score, grade
from ssl4rl_plugin.core.items import Clip, Item


@dataclass(frozen=True)
class Sample:
    """One question with its pictures and its ground truth."""

    question: str
    """What is asked, with one `<image>` for each picture and one `<video>` for each clip, in order; without the answer
    format."""
    images: tuple[Image.Image, ...]
    """The pictures, RGB."""
    truth: Any
    """The ground truth: any JSON value that the task's grader understands."""
    params: dict[str, Any] = field(default_factory=dict)
    """The corruption's parameters as drawn (JSON values), for logs, audits and galleries."""
    videos: tuple[Clip, ...] = ()
    """The clips; a model that takes no video sees each as a row of pictures."""
    options: tuple[Image.Image | Clip | str, ...] = ()
    """Where the answer is one of several pictures (or cells of a picture, or clips, or texts): these, in the order of the
    grader's `values()`. The audit compares them; the model sees only what is in `images` and `videos`."""

    def pieces(self) -> list[str | Image.Image | Clip]:
        """The question as the model meets it; see `pieces`."""
        return pieces(self.question, self.images, self.videos)


def pieces(text: str, images: Sequence[Image.Image], videos: Sequence[Clip] = ()) -> list[str | Image.Image | Clip]:
    """A text with `<image>` and `<video>` marks as text, pictures and clips in order; no text is empty.

    Raises ValueError if the marks are not as many as the pictures and clips.
    """
    left: dict[str, Iterator[Image.Image | Clip]] = {"<image>": iter(images), "<video>": iter(videos)}
    parts = re.split("(<image>|<video>)", text)
    for mark, there in (("<image>", len(images)), ("<video>", len(videos))):
        if parts.count(mark) != there:
            raise ValueError(f"the question has {parts.count(mark)} {mark} marks for {there} of them")
    return [next(left[part]) if part in left else part for part in parts if part]


@dataclass(frozen=True)
class Rejection:
    """An item that a task cannot use at this level, this time."""

    reason: str
    """Short snake_case name, counted: `blank`, `symmetric`, `too_small`, ..."""
    detail: str = ""
    """What was measured, for a person."""


@dataclass(frozen=True)
class AnyLevel:
    """A level of any task: options with defaults, each of its default's type."""

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            value, wanted = getattr(self, option.name), type(option.default)
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise ValueError(f"{option.name} must be of type {wanted.__name__}, got {value!r}")


@dataclass(frozen=True)
class Level(AnyLevel):
    """What every level of every task on pictures has; a task's own level adds fields."""

    side: int = 448
    """Pixels along the longest side of the largest picture shown. 448 px are 256 visual tokens for Qwen2.5-VL."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 28:
            raise ValueError(f"side must be at least 28 pixels, got {self.side}")


LevelT = TypeVar("LevelT", bound=AnyLevel)


class Task(ABC, Generic[LevelT]):
    """A pretext task: makes questions with a known answer out of unlabelled items.

    Subclasses set the class attributes, and implement `generate` and `grader`. Instances carry no state, so one is
    shared by all threads.
    """

    name: ClassVar[str]
    """Registry name, snake_case."""
    summary: ClassVar[str]
    """One line: what the model must find out."""
    reference: ClassVar[str]
    """The paper that the task comes from."""
    levels: ClassVar[Mapping[str, Any]]
    """Level name -> level, ordered from easy to hard; all values of the task's own level dataclass."""
    default_level: ClassVar[str]
    """The level meant by the bare task name."""
    kind: ClassVar[str] = "image"
    """What `generate` needs an item to be, one of `KINDS`: reads `item.image`, `item.rgbd`, `item.clip` or `item.graph`."""
    others_needed: ClassVar[int] = 0
    """How many items of other groups `generate` finds in `item.others`."""
    cues: ClassVar[Mapping[str, str]] = {}
    """Low-level statistics that a blind guesser may use because the question is about them: the audit's feature group
    (`ssl4rl_plugin.analysis.audit.features.GROUPS`) -> why, in a sentence. Any other that beats chance is a leak."""

    @abstractmethod
    def generate(self, item: Item, level: LevelT, rng: random.Random) -> Sample | Rejection:
        """Make one sample of `item`, or say why this item does not serve.

        A pure function of its arguments: every random choice comes from `rng`, and nothing global is read or written.
        """

    @abstractmethod
    def grader(self, level: LevelT) -> Grader[Any]:
        """How answers at this level are read and graded (see `ssl4rl_plugin.grading`)."""

    def level(self, name: str | None = None, **changes: Any) -> LevelT:
        """The named level (default: `default_level`), with some of its fields changed.

        Raises UserError that names the task, the unknown level or field, and what there is.
        """
        chosen = self.levels.get(name or self.default_level)
        if chosen is None:
            raise UserError(f"task {self.name!r} has no level {name!r}; its levels are: {', '.join(self.levels)}")
        fields = [f.name for f in dataclasses.fields(chosen)]
        unknown = sorted(set(changes) - set(fields))
        if unknown:
            raise UserError(
                f"task {self.name!r} has no option {', '.join(map(repr, unknown))}; its options are: {', '.join(fields)}"
            )
        try:
            return dataclasses.replace(chosen, **changes)
        except (TypeError, ValueError) as error:
            raise UserError(f"task {self.name!r}, options {changes}: {error}") from error

    def score(self, answer: str, truth: Any, level: LevelT, partial_credit: float = 0.5) -> Score:
        """Grade the text of one answer (without the tags around it) against the truth; see `grade`."""
        return grade(self.grader(level), answer, truth, partial_credit)

    def gold(self, truth: Any, level: LevelT) -> str:
        """The truth as a model would write it inside the answer tags; scores exactly 1.0."""
        return self.grader(level).render(truth)

    def chance(self, level: LevelT) -> float:
        """Accuracy of the best blind guesser, in (0, 1]."""
        return self.grader(level).chance_accuracy
