"""`ssl4rl attention`: where models look while they answer, as an overlay and as numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ssl4rl_plugin.analysis.attention.traces import METHODS, AttentionError, AttentionTrace, ImageBox, load, trace
from ssl4rl_plugin.analysis.evaluation.model import resolve
from ssl4rl_plugin.analysis.report.page import percent, readable, short_names
from ssl4rl_plugin.analysis.terminal import show, show_json, table
from ssl4rl_plugin.core.files import cache_dir
from ssl4rl_plugin.data.images import ImageError, open_rgb


def run_attention(
    models: list[str],
    image: Path,
    question: str,
    *,
    answer: str | None,
    layer: str,
    head: str,
    method: str,
    box: str | None,
    whole_response: bool,
    max_tokens: int,
    out: Path,
    as_json: bool,
) -> Path:
    """AttentionTrace one model, or two for comparison, and write the overlay; returns its path.

    Raises AttentionError, ModelError and WriteError; the message says what to do.
    """
    if method not in METHODS:
        raise AttentionError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if out.suffix.lower() != ".png":
        raise AttentionError(f"--out {out}: the name must end in .png")
    layer_number, head_number = _number("--layer", layer, "all"), _number("--head", head, "mean")
    try:
        picture = open_rgb(image)
    except ImageError as error:
        raise AttentionError(f"{image} cannot be read as a picture: {error}") from error
    region = ImageBox.parse(box) if box else None
    if region:
        region.check_inside(picture.size)  # before a model is loaded
    shown, figures = [], []
    for name, title in zip(models, short_names(models), strict=True):
        # A checkpoint of verl is merged once, and kept in the cache.
        found_at = resolve(name, cache_dir(), lambda said: Console(stderr=True).print(escape(said), highlight=False))
        with _waiting(f"loading {name}"):
            model, processor = load(found_at.path, found_at.adapter)
        with _waiting(f"{name} answers"):
            found = trace(
                model, processor, picture, question, answer=answer, method=method,
                whole_response=whole_response, max_tokens=max_tokens,
            )  # fmt: skip
        del model, processor  # the next one may need the memory
        heat = found.heat(layer_number, head_number)
        shown.append((title, found, heat))
        figures.append(_figures(name, found, heat, region))

    from ssl4rl_plugin.analysis.attention.overlay import draw

    draw(shown, region, out)
    if as_json:
        show_json({
            "image": {"path": str(image), "width": picture.width, "height": picture.height}, "question": question,
            "method": method, "layer": layer, "head": head, "box": box, "models": figures, "overlay": str(out.resolve()),
        })  # fmt: skip
    else:
        made = table("model", "answer", "tokens", "attention on the picture", *(["in the box"] if region else []))
        for entry in figures:
            inside = entry.get("box")
            made.add_row(
                escape(entry["model"]), escape(readable(entry["answer"], 80)), str(len(entry["tokens"])),
                percent(entry["on_picture"]),
                *([f"{percent(inside['attention'])} of it, on {percent(inside['area'])} of the area"] if inside else []),
            )  # fmt: skip
        show(made)
    return out


def _figures(name: str, found: AttentionTrace, heat: Any, region: ImageBox | None) -> dict[str, Any]:
    """The JSON value of a model: attention for the chosen layers and heads, and for every single layer."""

    def share(of: Any) -> dict[str, Any]:
        inside = {"box": vars(found.box_share(region, of))} if region else {}
        return {"on_picture": float(of.sum()), **inside}

    return {
        "model": name,
        "answer": found.answer,
        "tokens": list(found.tokens),
        "grid": list(found.grid),
        "heads": found.weights.shape[1],
        **share(heat),
        "layers": [{"layer": number, **share(found.heat(number))} for number in range(len(found.weights))],
        "heat": heat.tolist(),
    }


def _number(option: str, text: str, word: str) -> int | None:
    """A number, or None for the word that means all. Raises AttentionError."""
    if text == word:
        return None
    try:
        return int(text)
    except ValueError:
        raise AttentionError(f"{option} {text}: write a number (0 is the first, -1 the last), or {word}") from None


@contextlib.contextmanager
def _waiting(text: str) -> Iterator[None]:
    with Console(stderr=True).status(escape(text)):
        yield
