"""From data to one HTML file that needs nothing else: templates, pictures as data URIs, and text made harmless.

Whatever a model wrote is hostile until shown otherwise. Jinja escapes it, control and direction characters are made
visible (they could reorder the text around them), and the pages forbid scripts and the network to themselves.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from PIL import Image

MAX_TEXT = 1500
"""Characters of a response that are shown."""

# C0 and C1 controls but for tab and line feed, direction marks and overrides, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Picture:
    """One picture, ready for an `img` element."""

    uri: str
    width: int
    """CSS pixels."""
    coarse: bool
    """Few pixels, shown enlarged: keep them sharp."""


def picture(image: Image.Image, side: int = 300) -> Picture:
    """A picture (RGB) as a data URI, shrunk to at most `side` pixels; small ones are enlarged by the page.

    Shown at 300 pixels, a few dozen of them fit into a megabyte or two.
    """
    scale = min(1.0, side / max(image.size))
    if scale < 1.0:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    coarse = max(image.size) <= 128
    buffer = io.BytesIO()
    if coarse:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=86)
    kind = "png" if coarse else "jpeg"
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, round(image.width * (min(side, 168) / max(image.size) if coarse else 1)), coarse)


def shown_side(count: int) -> int:
    """Pixels along the longer side of each of `count` pictures that are shown together."""
    return 300 if count <= 1 else 220 if count == 2 else 110 if count <= 4 else 92


def readable(text: str, limit: int | None = MAX_TEXT) -> str:
    """Text that is safe to show: unsafe characters as `‹U+202E›`, and no more than `limit` characters of it."""
    shown = text if limit is None else text[:limit]
    shown = _UNSAFE.sub(lambda match: f"‹U+{ord(match[0]):04X}›", shown.replace("\r\n", "\n"))
    return shown if limit is None or len(text) <= limit else f"{shown} … ({len(text):,} characters in all)"


def prompt_parts(question: str) -> list[str | int]:
    """A question cut at its `<image>` marks: texts, and the 1-based numbers of the pictures between them."""
    parts: list[str | int] = []
    for number, text in enumerate(question.split("<image>")):
        parts += [number] if number else []
        parts += [readable(text.strip())] if text.strip() else []
    return parts


def percent(value: float) -> str:
    """0.4567 as `45.7 %`; small values keep a digit that says something, `0.0003 %`."""
    if 0 < value < 0.001:
        return f"{100 * value:.4f} %" if value >= 5e-7 else "under 0.0001 %"
    return f"{100 * value:.1f} %"


def render(template: str, **context: Any) -> str:
    """Fill a template of this package; a name that the context lacks is an error, not an empty string."""
    return _environment().get_template(template).render(**context)


def write(html: str, out: Path) -> Path:
    """Write a page, its folder too if need be. Raises OSError."""
    out = out.expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html, encoding="utf-8", errors="replace")
    return out


@functools.cache
def _environment() -> Environment:
    folder = resources.files("ssl4rl_plugin.report") / "templates"
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
