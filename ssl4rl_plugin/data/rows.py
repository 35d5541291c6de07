"""Rows: the form in which a trainer gets all samples, whether made online, read from a file, or asked by a benchmark.

The dataset sees only `Rows`: a sequence that also gives a few typical rows for preflight, and the state that its content
depends on for checkpoints.
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
from ssl4rl_plugin.data.mixture import Mixture
from ssl4rl_plugin.data.samples import SampleStream, StreamSample, extra_info

PROBES = 4
"""Rows of each kind that are checked before a run starts."""


@dataclass(frozen=True)
class Row:
    """One prompt with its truth, ready for a trainer."""

    kind: str
    """Name for messages: the arm, such as `rotation:pair_90`, or the benchmark."""
    data_source: str
    """The name under which verl groups its metrics: `ssl4rl/<task>`, with several sources `ssl4rl/<task>/<source>`, or
    `bench/<benchmark>/<category>`."""
    prompt: str
    """The user's turn, answer format included, with `<image>` and `<video>` marks."""
    images: tuple[Image.Image, ...]
    """RGB, at the size at which the model sees them."""
    videos: tuple[Clip, ...]
    ground_truth: str
    """JSON for the reward function (`ssl4rl_plugin.training.rewards`)."""
    info: dict[str, Any]
    """verl's `extra_info`, with the keys of `ssl4rl_plugin.data.samples.extra_info`. No prompt contains it."""

    def pieces(self) -> list[str | Image.Image | Clip]:
        """The prompt as text, images and clips in order. Raises ValueError if the numbers of marks do not match."""
        return pieces(self.prompt, self.images, self.videos)


class Rows(Protocol):
    """A sequence of rows; picklable."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row:
        """Row `index`, always the same. Raises IndexError if it is out of range."""
        ...

    def probes(self) -> Iterator[Row]:
        """A few rows of each kind."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that the rows depend on, as JSON values. Equal states mean equal rows."""
        ...


def row_of(made: StreamSample) -> Row:
    """The row of a finished sample."""
    return Row(
        kind=made.arm.key,
        data_source=made.data_source,
        prompt=made.prompt,
        images=made.sample.images,
        videos=made.sample.videos,
        ground_truth=made.truth_json,
        info=extra_info(made),
    )


class OnlineRows:
    """Rows made online from a stream of samples."""

    def __init__(self, stream: SampleStream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: int) -> Row:
        return row_of(self.stream[index])

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that the rows are drawn from."""
        return self.stream.settings.arms

    def of_arm(self, index: int, arm: int, use: int) -> Row:
        """Row `index`, from arm number `arm`. The order of the images is the same for all arms, so `use` has no effect."""
        return row_of(self.stream.of_arm(index, self.arms[arm]))

    def probes(self) -> Iterator[Row]:
        """A few rows of each arm from a validation stream; the first rows of a training stream, which mixes the arms."""
        settings = self.stream.settings
        stride = settings.val_samples if self.stream.split == "val" else PROBES
        numbers = [arm * stride + k for arm in range(len(settings.arms)) for k in range(min(PROBES, stride))]
        return (self[number] for number in numbers if number < len(self))

    def held_out(self) -> OnlineRows:
        """The rows of the validation split; the training rows if it is empty."""
        if self.stream.split == "val" or not self.stream.manifest.items("val"):
            return self
        return OnlineRows(SampleStream(self.stream.settings, self.stream.manifest, "val"))

    def state(self) -> dict[str, Any]:
        settings = self.stream.settings
        arms = [f"{arm.key} x {arm.weight}" for arm in settings.arms]
        state: dict[str, Any] = {"seed": settings.seed, "tasks": arms}
        if isinstance(self.stream.manifest, Mixture):
            state["sources"] = [
                f"{one.label} {part.manifest.digest} x {one.weight} of {one.train_size} at {one.max_pixels}"
                for part in self.stream.manifest.parts
                for one in (part.settings,)
            ]
        else:
            state["images"] = self.stream.manifest.digest
        # Only if they are not the default: checkpoints of earlier versions lack these keys.
        if settings.source.train_size is not None:
            state["train_size"] = settings.source.train_size
        if settings.source.taught_fraction:
            state["taught_fraction"] = settings.source.taught_fraction
        if settings.fixed_corruptions:
            state["fixed_corruptions"] = True
        return state


class JoinedRows:
    """Several `Rows`, concatenated."""

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
