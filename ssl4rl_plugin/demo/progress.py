"""What the demo shows while it works: times of each part, and reward and accuracy against chance.

On a terminal each part has one line, which changes. Elsewhere, as in a pipe or in CI, plain lines come at intervals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

EVERY = 20.0
"""Seconds between two plain lines of one part."""
PACED_FROM = 2
"""Steps after the first one from which the pace of a part is taken from its own steps."""
SHOWN = 3
"""Most tasks whose accuracies are shown one by one; of more, their mean is shown."""
PARTS = {
    "model": "model and warm-up",
    "start": "start (Ray, vLLM, first validation)",
    "training": "training",
    "validation": "validation",
    "end": "end of the trainer",
    "report": "report",
}
"""Parts of a demo, in order, with their names. Validations alternate with training; the first one belongs to the start."""


@dataclass(frozen=True)
class Pace:
    """How long parts of a demo take on two quiet cores, in seconds. Only what is announced depends on it."""

    model: float = 6.0
    """Building the model and its tokenizer."""
    supervised_step: float = 0.2
    start: float = 22.0
    step: float = 0.6
    """What each training step takes besides its rollouts."""
    rollout: float = 0.0055
    """One rollout of a training step: generating, scoring, and learning from it."""
    answer: float = 0.0135
    """One response of a validation."""
    end: float = 6.0
    report: float = 3.0

    def expected(self, config: Any, supervised: int, done: int) -> dict[str, float]:
        """Seconds of each part for a composed config.

        Args:
            config: the composed config.
            supervised: supervised steps before reinforcement learning; 0 if the model is there.
            done: the step that the run resumes from.
        """
        steps = int(config.trainer.total_training_steps) - done
        if steps <= 0:
            return {"report": self.report}
        every = int(config.trainer.test_freq)
        validations = len(
            {k for k in range(done + 1, done + steps + 1) if every > 0 and k % every == 0} | {done + steps}
        )
        answers = int(config.ssl4rl.val_samples) * len(config.ssl4rl.tasks) * self.answer
        rollouts = int(config.data.train_batch_size) * int(config.actor_rollout_ref.rollout.n)
        return {
            "model": self.model + supervised * self.supervised_step if supervised else 0.0,
            "start": self.start + answers,
            "training": steps * (self.step + rollouts * self.rollout),
            "validation": validations * answers,
            "end": self.end,
            "report": self.report,
        }


def clock(seconds: float) -> str:
    """`1:05`, `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def gauge(value: float, chance: float | None, width: int = 12) -> str:
    """A share in [0, 1] as a bar with a mark at chance: `[###|###.....]`."""
    filled = round(max(0.0, min(1.0, value)) * width)
    cells = ["#"] * filled + ["."] * (width - filled)
    if chance is not None:
        cells.insert(round(max(0.0, min(1.0, chance)) * width), "|")
    return f"[{''.join(cells)}]"


def accuracies(data: Mapping[str, Any], chances: Mapping[str, float], form: str) -> str:
    """Accuracies of tasks in verl's metrics of a step, with chance marked: `rotation 0.31 [###|#........]`.

    Args:
        data: the metrics.
        chances: task -> chance.
        form: name of the metric, with `{task}` in it.
    """
    values = {task: data[form.format(task=task)] for task in chances if form.format(task=task) in data}
    values = {task: value for task, value in values.items() if isinstance(value, float) and 0 <= value <= 1}
    if not values:
        return ""
    if len(values) > SHOWN:
        chance = sum(chances[task] for task in values) / len(values)
        mean = sum(values.values()) / len(values)
        return f"mean of {len(values)} tasks {mean:.2f} {gauge(mean, chance)}"
    return " · ".join(f"{task} {value:.2f} {gauge(value, chances[task])}" for task, value in values.items())


TRAINED = "curriculum/{task}/accuracy"
"""Accuracy of a task's rollouts in a training step."""


def validated(data: Mapping[str, Any], chances: Mapping[str, float]) -> str:
    """The accuracies of a validation in a step's metrics; empty if there was none."""
    samples = {name.rpartition("@")[2] for name in data if name.startswith("val-core/ssl4rl/") and "/acc/mean@" in name}
    return " · ".join(
        filter(None, (accuracies(data, chances, f"val-core/ssl4rl/{{task}}/acc/mean@{n}") for n in sorted(samples)))
    )


@dataclass
class Timeline:
    """Measures the parts of a demo, and says how much of it is left.

    Args:
        console: where to show it.
        expected: seconds of each part, in order; a part that is missing takes none.
        chances: task -> chance, for the marks in bars.
        now: the clock.
    """

    console: Console
    expected: Mapping[str, float] = field(default_factory=dict)
    chances: Mapping[str, float] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)
    """Measured seconds of each finished part."""

    def __post_init__(self) -> None:
        self.started = self.now()

    def announce(self) -> None:
        """One line that says what comes and how long it takes."""
        parts = ", ".join(f"{PARTS[part]} {clock(took)}" for part, took in self.expected.items() if took)
        self.say(f"about {clock(sum(self.expected.values()))} on two quiet cores: {parts}")

    def say(self, text: str) -> None:
        """Print one line, not wrapped, above the changing line of the current part."""
        self.console.print(escape(text), soft_wrap=True, highlight=False)

    @contextmanager
    def part(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Part]:
        """Measure and show one part, of `total` steps if it has steps."""
        shown = Part(self, name, total, done)
        try:
            with shown.live:
                yield shown
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - shown.began

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count some seconds of one part as another's."""
        seconds = min(seconds, self.seconds.get(source, 0.0))
        self.seconds[source] = self.seconds.get(source, 0.0) - seconds
        self.seconds[target] = self.seconds.get(target, 0.0) + seconds

    def left(self, part: Part) -> float:
        """Estimated seconds until the end of the demo."""
        later = list(PARTS)[list(PARTS).index(part.name) + 1 :]
        if part.name == "training" and part.paced:
            later.remove("validation")  # the pace of the steps so far includes it
        return part.left + sum(self.expected.get(name, 0.0) for name in later)

    def times(self, part: Part) -> str:
        """`2:05 elapsed, about 1:10 left`, of the whole demo. Without an estimate, only what has elapsed."""
        elapsed = f"{clock(self.now() - self.started)} elapsed"
        return f"{elapsed}, about {clock(self.left(part))} left" if self.expected or part.paced else elapsed


class Part:
    """A part of the demo that is under way; made by `Timeline.part`."""

    def __init__(self, timeline: Timeline, name: str, total: int | None, done: int) -> None:
        self.timeline, self.name, self.total, self.done = timeline, name, total, done
        self.began = self.stepped = timeline.now()
        self.text = ""
        self._first: tuple[int, float] | None = None
        """The first step that was done, and when. What came before, such as building a model, is no part of the pace."""
        self._said = -EVERY
        self.live = _Lines(self)
        self._task: TaskID = self.live.add_task(PARTS[name], total=total, completed=done, count=self._count)
        self.tick()

    @property
    def _count(self) -> str:
        return f"{self.done}/{self.total}" if self.total else ""

    @property
    def paced(self) -> bool:
        """Whether its own steps tell its pace."""
        return self._first is not None and self.done - self._first[0] >= PACED_FROM

    @property
    def left(self) -> float:
        """Estimated seconds of this part: from the pace of its own steps, or before the first from what was expected."""
        if self.total is None or self._first is None or not self.paced:
            return max(0.0, self.timeline.expected.get(self.name, 0.0) - (self.timeline.now() - self.began))
        pace = (self.stepped - self._first[1]) / (self.done - self._first[0])
        return max(0.0, pace * (self.total - self.done) - (self.timeline.now() - self.stepped))

    def step(self, done: int, text: str = "") -> None:
        """Show that `done` steps are done, and a text about the last one."""
        self.done, self.text, self.stepped = done, text, self.timeline.now()
        self._first = self._first or (done, self.stepped)
        self.live.update(self._task, completed=done, count=self._count)
        self.tick()

    def tick(self) -> None:
        """Print a plain line if there is no terminal and the last one is old. Call this now and then."""
        now = self.timeline.now() - self.began
        if not self.timeline.console.is_terminal and now - self._said >= EVERY:
            self._said = now
            count = f" {self._count}" if self._count else ""
            text = f" · {self.text}" if self.text else ""
            self.timeline.say(f"{PARTS[self.name]}{count} · {self.timeline.times(self)}{text}")


class _Lines(Progress):
    """A bar with the times of the demo, up to date whenever it is drawn, and below it the text about the last step."""

    def __init__(self, part: Part) -> None:
        self._part = part
        console = part.timeline.console
        super().__init__(
            TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[count]}"), _Times(part),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self._part.text:
            yield Text(self._part.text, overflow="ellipsis", no_wrap=True)


class _Times(ProgressColumn):
    def __init__(self, part: Part) -> None:
        self._part = part
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(self._part.timeline.times(self._part))
