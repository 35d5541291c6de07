"""The core types: a Task turns an Item into a Sample, and scores the answers to it.

    Item    one raw, unlabelled thing from a source (an image, a video, a graph)
    Task    generate(item, level, rng) -> Sample or Rejection;  score(answer, truth, level) -> Score
    Sample  what the model sees (question, images) and what it does not (truth, params)
    Score   how good an answer is

The first half of this file is frozen data; the second half, `Task`, is behaviour. A new task subclasses `Task`, names
its levels, and implements `generate` and `grader`. Prompts, answer formats, parsing, seeding, audits and metrics then
work as for the built-in tasks.
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
from ssl4rl_plugin.core.grader import Credit, Grader, Score, grade
from ssl4rl_plugin.core.items import Clip, Item


@dataclass(frozen=True)
class Sample:
    """One question with its images and its ground truth."""

    question: str
    """The question, without the answer format. It has one `<image>` mark for each image and one `<video>` mark for each
    clip, in order."""
    images: tuple[Image.Image, ...]
    """The images, RGB."""
    truth: Any
    """The ground truth: a JSON value that the task's grader accepts."""
    params: dict[str, Any] = field(default_factory=dict)
    """The corruption's parameters as drawn (JSON values), for logs, audits and galleries."""
    videos: tuple[Clip, ...] = ()
    """The clips. A model without video input sees the frames of each as images."""
    options: tuple[Image.Image | Clip | str, ...] = ()
    """The options, if the answer is one of several images (or cells of an image, or clips, or texts), in the order of the
    grader's `values()`. Only the audit reads them: the model sees `images` and `videos`."""

    def pieces(self) -> list[str | Image.Image | Clip]:
        """The question as text, images and clips in order; see `pieces`."""
        return pieces(self.question, self.images, self.videos)


def pieces(text: str, images: Sequence[Image.Image], videos: Sequence[Clip] = ()) -> list[str | Image.Image | Clip]:
    """Split a text at its `<image>` and `<video>` marks into non-empty texts, images and clips, in order.

    Raises ValueError if the number of marks differs from the number of images or clips.
    """
    left: dict[str, Iterator[Image.Image | Clip]] = {"<image>": iter(images), "<video>": iter(videos)}
    parts = re.split("(<image>|<video>)", text)
    for mark, there in (("<image>", len(images)), ("<video>", len(videos))):
        if parts.count(mark) != there:
            raise ValueError(f"the question has {parts.count(mark)} {mark} marks for {there} of them")
    return [next(left[part]) if part in left else part for part in parts if part]


@dataclass(frozen=True)
class Rejection:
    """Returned by `Task.generate` if it cannot make a sample of the item at this level with this draw."""

    reason: str
    """Short snake_case name, by which rejections are counted: `blank`, `symmetric`, `too_small`, ..."""
    detail: str = ""
    """What was measured, for messages."""


@dataclass(frozen=True)
class AnyLevel:
    """Base of all levels: options with defaults. Each value has the type of its default; a float may be given as int."""

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            value, wanted = getattr(self, option.name), type(option.default)
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise ValueError(f"{option.name} must be of type {wanted.__name__}, got {value!r}")


@dataclass(frozen=True)
class Level(AnyLevel):
    """Base of the levels of all tasks on images, depth and video. A task's own level adds fields."""

    side: int = 448
    """Pixels along the longest side of the largest image shown. Qwen2.5-VL spends 256 visual tokens on 448 x 448 pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 28:
            raise ValueError(f"side must be at least 28 pixels, got {self.side}")


LevelT = TypeVar("LevelT", bound=AnyLevel)


class Task(ABC, Generic[LevelT]):
    """A pretext task: makes questions with a known answer out of unlabelled items.

    Subclasses set the class attributes and implement `generate` and `grader`. Instances have no state, so threads can
    share one.
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
    """The level used if only the task's name is given."""
    kind: ClassVar[str] = "image"
    """Kind of item that `generate` needs: one of `KINDS`."""
    others_needed: ClassVar[int] = 0
    """Number of items of other groups that `generate` needs in `item.others`."""
    cues: ClassVar[Mapping[str, str]] = {}
    """Low-level statistics that belong to the question, so that a blind guesser may use them: feature group of the audit
    (`ssl4rl_plugin.analysis.audit.features.GROUPS`) -> the reason, in a sentence. Any other group that beats chance is a
    leak."""

    @abstractmethod
    def generate(self, item: Item, level: LevelT, rng: random.Random) -> Sample | Rejection:
        """Make one sample of `item`, or reject the item with a reason.

        A pure function of its arguments: all random choices come from `rng`, and it reads and writes no global state.
        """

    @abstractmethod
    def grader(self, level: LevelT) -> Grader[Any]:
        """The grader that parses and scores the answers at this level; see `ssl4rl_plugin.grading`."""

    def level(self, name: str | None = None, **changes: Any) -> LevelT:
        """The named level (default: `default_level`) with `changes` to its fields.

        Raises UserError for an unknown level, an unknown field or a bad value. The message lists what exists.
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

    def score(
        self,
        answer: str,
        truth: Any,
        level: LevelT,
        partial_credit: float = 0.5,
        credit_by: Credit = "similarity",
    ) -> Score:
        """Grade the text of one answer, without its tags, against the truth; see `grade`."""
        return grade(self.grader(level), answer, truth, partial_credit, credit_by)

    def gold(self, truth: Any, level: LevelT) -> str:
        """The truth as a model would write it inside the answer tags. It scores exactly 1.0."""
        return self.grader(level).render(truth)

    def chance(self, level: LevelT) -> float:
        """Accuracy of the best blind guesser, in (0, 1]."""
        return self.grader(level).chance_accuracy
