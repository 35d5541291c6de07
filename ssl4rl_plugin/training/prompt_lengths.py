"""The length of prompts in tokens, and what to do about one that is too long.

verl loses a prompt with pictures over `data.max_prompt_length` in the rollout, and cuts a text prompt. Both are refused
before the run, with the settings that help.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

STEP = 128
"""Advised lengths are multiples of it, which leaves some room: only a sample of the prompts is measured."""
TASK_TOKENS, QUESTION_TOKENS = 1024, 2048
"""Default limits of a run without and with benchmarks. The first is the paper's; the longest prompt of its tasks has 650
tokens. A benchmark's question with pictures of `BENCHMARK_PIXELS` pixels takes up to 1,600, and its text the rest."""
NAMED = 5
"""Kinds of prompts that a message names."""


@dataclass(frozen=True)
class PixelLimits:
    """How a model's processor sizes pictures."""

    unit: int
    """Pixels along each side of a visual token."""
    least: int
    """Smaller pictures are enlarged to this many pixels."""
    most: int
    """Larger pictures are shrunk to this many pixels."""

    @classmethod
    def of(cls, processor: Any, options: Any = None) -> PixelLimits | None:
        """The limits of a Qwen processor; None for others.

        Args:
            processor: from `verl.utils.hf_processor`.
            options: `data.mm_processor_kwargs`. Its `min_pixels` and `max_pixels` count only together, as in transformers.
        """
        pictures: Any = getattr(processor, "image_processor", None)
        size, options = getattr(pictures, "size", None), options or {}
        if (
            not size
            or not size.get("shortest_edge")
            or not size.get("longest_edge")
            or not hasattr(pictures, "merge_size")
        ):
            return None
        least, most = options.get("min_pixels"), options.get("max_pixels")
        if least is None or most is None:
            least, most = size["shortest_edge"], size["longest_edge"]
        return cls(pictures.patch_size * pictures.merge_size, int(least), int(most))


@dataclass(frozen=True)
class PromptLength:
    """The tokens of a prompt by where they come from."""

    kind: str
    """Name of the row's kind, such as `rotation:pair_90` or a benchmark."""
    tokens: int
    """All tokens."""
    pictures: tuple[int, ...] = ()
    """Tokens of each picture, a clip's frames included if they are shown as pictures."""
    video: int = 0
    """Tokens of all clips that are shown as videos."""
    pixels: int = 0
    """Pixels of the largest picture or frame, before the model's processor sizes it."""
    side: int | None = None
    """`side` of the task's level; None for a benchmark, whose pictures `ssl4rl.benchmark_max_pixels` sizes."""

    @property
    def visual(self) -> int:
        """Tokens of pictures and clips."""
        return sum(self.pictures) + self.video

    @property
    def text(self) -> int:
        """Tokens of the text, template and marks around pictures included."""
        return self.tokens - self.visual

    def __str__(self) -> str:
        parts = []
        if self.pictures:
            least, most = min(self.pictures), max(self.pictures)
            each = f"{most}" if least == most else f"{least} to {most}"
            count = len(self.pictures)
            parts.append(f"{count} picture{'s' * (count > 1)} x {each} = {sum(self.pictures)}")
        if self.video:
            parts.append(f"clips {self.video}")
        return " + ".join([*parts, f"text {self.text}"])


def prompt_tokens(benchmarks: Sequence[Any] | None) -> int:
    """`data.max_prompt_length` of a run that validates on these benchmarks (`ssl4rl.benchmarks`)."""
    return QUESTION_TOKENS if benchmarks else TASK_TOKENS


def picture_runs(ids: Iterable[int], token: int) -> tuple[int, ...]:
    """Lengths of the runs of a placeholder token: the visual tokens of each picture, in order."""
    return tuple(len(list(run)) for found, run in groupby(ids) if found == token)


def longest_of_each_kind(lengths: Iterable[PromptLength]) -> list[PromptLength]:
    """The longest prompt of each kind, the longest kind first."""
    found: dict[str, PromptLength] = {}
    for length in lengths:
        if length.kind not in found or length.tokens > found[length.kind].tokens:
            found[length.kind] = length
    return sorted(found.values(), key=lambda length: -length.tokens)


def advised_length(tokens: int) -> int:
    """The `data.max_prompt_length` to advise for a longest measured prompt of `tokens` tokens."""
    return -(-tokens // STEP) * STEP


def too_long(
    lengths: Sequence[PromptLength], limit: int, pixels: PixelLimits | None, built: bool = False
) -> str | None:
    """A message for prompts over the limit, with the settings that would help; None if all fit.

    Args:
        lengths: measured prompts.
        limit: `data.max_prompt_length`.
        pixels: of the model's processor; None if they are not known, or for a text model.
        built: the rows are those of a build, so that only another build has smaller pictures.
    """
    over = [length for length in longest_of_each_kind(lengths) if length.tokens > limit]
    if not over:
        return None
    worst, others = over[0], over[1:]
    named = ", ".join(f"{length.kind} {length.tokens}" for length in others[:NAMED])
    more = f" (others over it: {named}{', ...' if len(others) > NAMED else ''})" if others else ""
    smaller = _smaller(over, lengths, limit, pixels)
    if built:  # the command takes the keys without `ssl4rl.`
        how = " ".join(f"--set {setting.removeprefix('ssl4rl.')}" for setting in smaller)
        instead = f", or build again with smaller pictures (`ssl4rl build ... {how}`)" if smaller else ""
    else:
        instead = f", or show smaller pictures with {' and '.join(smaller)}" if smaller else ""
    return (
        f"a prompt of {worst.kind} has {worst.tokens} tokens ({worst}), and data.max_prompt_length is {limit}{more}: set "
        f"data.max_prompt_length={advised_length(worst.tokens)}{instead}"
    )


def _smaller(
    over: Sequence[PromptLength], lengths: Sequence[PromptLength], limit: int, pixels: PixelLimits | None
) -> list[str]:
    """The settings with which all prompts fit because their pictures are smaller; empty if there are none."""
    budgets, sides = [], []
    for length in over:
        size = None if pixels is None else _fitting(length, limit, pixels)
        if size is None:
            return []
        if length.side is None:
            budgets.append(size * len(length.pictures))
        else:
            sides.append(math.floor(length.side * math.sqrt(size / length.pixels)))
    if sides and any(length.side is not None and length.side < min(sides) for length in lengths):
        return []  # one `side` for all tasks would enlarge the pictures of others
    found = [f"ssl4rl.options.side={min(sides)}"] if sides else []
    return [*found, f"ssl4rl.benchmark_max_pixels={min(budgets)}"] if budgets else found


def _fitting(length: PromptLength, limit: int, pixels: PixelLimits) -> int | None:
    """Pixels of the largest picture with which a prompt fits; None if no size that the processor leaves alone does.

    Only for pictures: a processor has other limits for videos.
    """
    room = limit - length.text
    if not length.pictures or length.video or room <= 0:
        return None
    # Sides are rounded to whole tokens: a tenth is left for it.
    found = int(0.9 * room / length.visual * length.pixels)
    return found if found >= pixels.least else None


def enlarged(lengths: Sequence[PromptLength], pixels: PixelLimits | None) -> str | None:
    """A note about pictures that the processor enlarges to its minimum; None if there are none."""
    if pixels is None:
        return None
    small = [one for one in longest_of_each_kind(lengths) if one.pictures and one.pixels < pixels.least]
    if not small:
        return None
    return (
        f"the model's processor enlarges pictures of less than {pixels.least} pixels to that size ("
        + ", ".join(f"{one.kind}: {one.pixels} pixels, {max(one.pictures)} tokens" for one in small[:5])
        + (", ...)" if len(small) > 5 else ")")
    )
