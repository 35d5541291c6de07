"""What the length of a prompt depends on: its texts, and the sizes of its pictures and clips.

A form is small and has no pixels, so that worker processes can make thousands of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image

from ssl4rl_plugin.core import Clip, pieces
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.rows import Row

SHOWN_FPS = 2.0
"""Frames per second in the metadata of every clip. The true rate would give away which clip is played faster. For
Qwen2.5-VL, verl 0.9.1 computes positions as if the rate were 2 (two frames are one temporal patch and one second), so with
another rate the trainer's positions would differ from vLLM's."""


class PictureSize(NamedTuple):
    """The size of a picture, in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class ClipSize:
    """The sizes of a clip's frames."""

    frames: tuple[PictureSize, ...]


@dataclass(frozen=True)
class PromptForm:
    """A prompt without its pixels."""

    kind: str
    """The row's kind, such as `rotation:pair_90` or a benchmark."""
    data_source: str
    """The row's data source, such as `bench/mmbench/physics`."""
    question: str
    """The question's id in its benchmark; empty for a pretext task."""
    pieces: tuple[str | PictureSize | ClipSize, ...]
    """The user's turn: texts, pictures and clips in order."""


def form_of(row: Row) -> PromptForm:
    """The form of a row. Raises UserError if its marks and its pictures do not match."""
    truth = json.loads(row.ground_truth)
    sizes = [PictureSize(*image.size) for image in row.images]
    clips = [ClipSize(tuple(PictureSize(*frame.size) for frame in clip.frames)) for clip in row.videos]
    return PromptForm(
        row.kind, row.data_source, str(truth.get("question", "")), split(row.kind, row.prompt, sizes, clips)
    )


def split(
    kind: str, prompt: str, pictures: Sequence[PictureSize], clips: Sequence[ClipSize] = ()
) -> tuple[str | PictureSize | ClipSize, ...]:
    """A prompt split at its `<image>` and `<video>` marks. Raises UserError if their numbers do not match."""
    try:
        found: Any = pieces(prompt, pictures, clips)  # type: ignore[arg-type]  # it takes anything in the marks' places
    except ValueError as error:
        raise UserError(f"task {kind}: {error}") from error
    return tuple(found)


def chat_of(parts: Iterable[Any], system_prompt: str | None, as_video: bool) -> list[dict[str, Any]]:
    """The chat messages of a prompt.

    Args:
        parts: texts, pictures (or their sizes) and clips (or theirs) in order.
        system_prompt: the system message; None for none.
        as_video: a clip is one video part, in verl's form for frames in memory, and not one picture for each frame.
    """
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str) and content and content[-1]["type"] == "text":
            content[-1]["text"] += part
        elif isinstance(part, str):
            content.append({"type": "text", "text": part})
        elif not isinstance(part, Clip | ClipSize):
            content.append({"type": "image", "image": part})
        elif as_video:
            content.append({"type": "video", "video": list(part.frames), "fps": SHOWN_FPS})
        else:
            content += [{"type": "image", "image": frame} for frame in part.frames]
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    if all(part["type"] == "text" for part in content):  # a text model's chat template takes no list
        return [*system, {"role": "user", "content": "".join(part["text"] for part in content)}]
    return [*system, {"role": "user", "content": content}]


def blank(size: PictureSize) -> Image.Image:
    """A gray picture of this size, for what depends on the size alone."""
    return Image.new("RGB", size, "gray")
