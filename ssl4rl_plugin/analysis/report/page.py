"""Make one self-contained HTML file: templates, pictures as data URIs, and safe text.

Text from a model is untrusted. Jinja escapes it. Control and direction characters, which could reorder the text around them,
are shown as code points. The pages forbid scripts and network access.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from jinja2 import Environment, FunctionLoader, StrictUndefined
from PIL import Image

from ssl4rl_plugin.core import Clip
from ssl4rl_plugin.core.files import WriteError, write_file

MAX_TEXT = 1500
"""Maximum number of characters of a response on a page."""

FRAME_MS = 250
"""Milliseconds for which a page shows each frame of a clip."""

# C0 and C1 controls except tab and line feed, direction marks and overrides, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class EmbeddedPicture:
    """One picture, ready for an `img` element."""

    uri: str
    """Data URI."""
    width: int
    """Width in CSS pixels."""
    coarse: bool
    """Whether it is small and shown enlarged; its pixels stay sharp."""


class Showable(Protocol):
    """A sample or a row."""

    def pieces(self) -> list[str | Image.Image | Clip]:
        """Texts, pictures and clips in the order of the prompt."""
        ...


def card(shown: Showable, prompt: str, gold: str, params: str, item: str) -> dict[str, Any]:
    """A sample for the templates' macro `card`: pictures, prompt, right answer, parameters as JSON, and item."""
    return {
        "pictures": pictures(shown),
        "prompt": prompt_parts(prompt),
        "gold": readable(gold, 200),
        "params": readable(params, 300),
        "item": readable(item, 120),
    }


def pictures(sample: Showable) -> list[EmbeddedPicture]:
    """The pictures and clips of a sample in the order of the prompt, sized to fit side by side."""
    shown = [piece for piece in sample.pieces() if not isinstance(piece, str)]
    return [picture(piece, shown_side(len(shown))) for piece in shown]


def picture(shown: Image.Image | Clip, side: int = 300) -> EmbeddedPicture:
    """A picture (RGB) or a clip (as an animation) as a data URI, with at most `side` pixels a side.

    The page enlarges small ones. At 300 pixels, a few dozen take one or two megabytes.
    """
    frames = [shown] if isinstance(shown, Image.Image) else list(shown.frames)
    image = frames[0]
    scale = min(1.0, side / max(image.size))
    if scale < 1.0:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        frames = [frame.resize(size, Image.Resampling.LANCZOS) for frame in frames]
        image = frames[0]
    coarse = max(image.size) <= 128 and len(frames) == 1
    buffer = io.BytesIO()
    if coarse:
        image.save(buffer, "PNG", optimize=True)
    elif len(frames) == 1:
        image.save(buffer, "JPEG", quality=86)
    else:
        image.save(
            buffer, "WEBP", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, quality=60, method=2
        )
    kind = "png" if coarse else "jpeg" if len(frames) == 1 else "webp"
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return EmbeddedPicture(uri, round(image.width * (min(side, 168) / max(image.size) if coarse else 1)), coarse)


def shown_side(count: int) -> int:
    """Longer side in pixels of each of `count` pictures shown together."""
    return 300 if count <= 1 else 220 if count == 2 else 110 if count <= 4 else 92


def readable(text: str, limit: int | None = MAX_TEXT) -> str:
    """Text that is safe to show: unsafe characters as `‹U+202E›`, cut to `limit` characters."""
    shown = text if limit is None else text[:limit]
    shown = _UNSAFE.sub(lambda match: f"‹U+{ord(match[0]):04X}›", shown.replace("\r\n", "\n"))
    return shown if limit is None or len(text) <= limit else f"{shown} … ({len(text):,} characters in all)"


def prompt_parts(question: str) -> list[str | int]:
    """A question split at its `<image>` and `<video>` marks: texts, and the 1-based numbers of the pictures."""
    parts: list[str | int] = []
    for number, text in enumerate(re.split("<image>|<video>", question)):
        parts += [number] if number else []
        parts += [readable(text.strip())] if text.strip() else []
    return parts


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """The last parts of paths, as many as needed to tell them apart."""
    parts = [Path(path).parts for path in paths]
    longest = max(map(len, parts))
    for count in range(1, longest + 1):
        names = ["/".join(part[-count:]).removesuffix(".jsonl").removesuffix(".log") for part in parts]
        if len(set(names)) == len(set(map(str, paths))):
            return names
    return [str(path) for path in paths]


def percent(value: float) -> str:
    """0.4567 as `45.7 %`. Small values get more digits: `0.0003 %`."""
    if 0 < value < 0.001:
        return f"{100 * value:.4f} %" if value >= 5e-7 else "under 0.0001 %"
    return f"{100 * value:.1f} %"


def render(template: str, **context: Any) -> str:
    """Fill a template of this package. A name missing from the context is an error."""
    return _environment().get_template(template).render(**context)


def write(html: str, out: Path) -> Path:
    """Write a page; its folder is made. Raises WriteError."""
    return write_output(out, lambda file: file.write(html.encode("utf-8", errors="replace")))


def write_output(out: Path, fill: Callable[[BinaryIO], object]) -> Path:
    """Write the file that a user named with `--out`; its folder is made. Raises WriteError."""
    out = out.expanduser()
    if out.exists() and not out.is_file():  # a folder, or a device, which must not be replaced
        raise WriteError(f"{out} is not a file: name a file to write")
    write_file(out, fill)
    return out


@functools.cache
def _environment() -> Environment:
    folder = resources.files("ssl4rl_plugin.analysis.report") / "templates"
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
    )
    environment.filters["percent"] = percent
    environment.filters["readable"] = readable
    return environment
