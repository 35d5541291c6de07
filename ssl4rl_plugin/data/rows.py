"""Rows: what a trainer gets, whether a sample was made on the spot, read from a file, or is a benchmark's question.

The dataset knows this form only. Where rows come from is behind `Rows`: a sequence that also shows a few typical rows,
for checks before training, and says what its content depends on, for checkpoints.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from PIL import Image

from ssl4rl_plugin.core import Clip, pieces
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.samples import SampleStream, StreamSample, extra_info

PROBES = 4
"""Rows of each kind that are looked at before a run starts."""


@dataclass(frozen=True)
class Row:
    """One prompt with its truth, ready for a trainer."""

    kind: str
    """What it is a row of, for messages: `rotation:pair_90`, or a benchmark's name."""
    data_source: str
    """The name under which verl groups its metrics: `ssl4rl/<task>` or `bench/<benchmark>/<category>`."""
    prompt: str
    """The user's turn, answer format included, with `<image>` and `<video>` marks."""
    images: tuple[Image.Image, ...]
    """RGB, at the size they are shown."""
    videos: tuple[Clip, ...]
    ground_truth: str
    """JSON for the reward function (`ssl4rl_plugin.training.rewards`)."""
    info: dict[str, Any]
    """What no prompt shows; the keys of `ssl4rl_plugin.data.samples.extra_info`."""

    def pieces(self) -> list[str | Image.Image | Clip]:
        """The prompt as text, pictures and clips in order. Raises ValueError if the marks do not fit."""
        return pieces(self.prompt, self.images, self.videos)


class Rows(Protocol):
    """Rows by number; picklable."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row:
        """Row `index`, always the same. Raises IndexError outside."""
        ...

    def probes(self) -> Iterator[Row]:
        """A few rows of every kind."""
        ...

    def state(self) -> dict[str, Any]:
        """What the rows depend on, as JSON values: equal states, equal rows."""
        ...


def row_of(made: StreamSample) -> Row:
    """A finished sample as a row."""
    return Row(
        kind=made.arm.key,
        data_source=made.arm.data_source,
        prompt=made.prompt,
        images=made.sample.images,
        videos=made.sample.videos,
        ground_truth=made.truth_json,
        info=extra_info(made),
    )


class OnlineRows:
    """Rows made on the spot from a stream of samples."""

    def __init__(self, stream: SampleStream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: int) -> Row:
        return row_of(self.stream[index])

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What the rows are drawn from."""
        return self.stream.settings.arms

    def of_arm(self, index: int, arm: int, use: int) -> Row:
        """Row `index`, from arm number `arm`; images come in the same order whatever the arm, so `use` does not matter."""
        return row_of(self.stream.of_arm(index, self.arms[arm]))

    def probes(self) -> Iterator[Row]:
        """Some of every arm in the validation stream, and as they come in the training stream."""
        # The val stream holds its arms one after the other; the train stream mixes them.
        settings = self.stream.settings
        stride = settings.val_samples if self.stream.split == "val" else PROBES
        numbers = [arm * stride + k for arm in range(len(settings.arms)) for k in range(min(PROBES, stride))]
        return (self[number] for number in numbers if number < len(self))

    def held_out(self) -> OnlineRows:
        """The rows of the validation split; these where it is empty."""
        if self.stream.split == "val" or not self.stream.manifest.items("val"):
            return self
        return OnlineRows(SampleStream(self.stream.settings, self.stream.manifest, "val"))

    def state(self) -> dict[str, Any]:
        settings = self.stream.settings
        arms = [f"{arm.key} x {arm.weight}" for arm in settings.arms]
        state = {"seed": settings.seed, "tasks": arms, "images": self.stream.manifest.digest}
        return state if settings.source.train_size is None else {**state, "train_size": settings.source.train_size}


class JoinedRows:
    """Several rows one after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = [part for part in parts if len(part)]
        self._ends = list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        return self.parts[number][index - (self._ends[number - 1] if number else 0)]

    def probes(self) -> Iterator[Row]:
        return (row for part in self.parts for row in part.probes())

    def state(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for part in self.parts:
            merged |= part.state()
        return merged
