"""What all graders share: the reading of an answer's text, and the letters of options."""

from __future__ import annotations

from collections.abc import Sequence

MAX_ANSWER_CHARS = 1000
"""Longer answer texts are invalid unread: no task needs them, and a hostile one must not cost time."""

_BRACKETS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`", "$": "$", "*": "*"}


def strip_form(text: str) -> str:
    r"""Remove what is form and not content: outer white space, matched outer brackets, quotes or emphasis, a final stop,
    and the LaTeX of `90^\circ` and `\text{center}`."""
    text = text[: MAX_ANSWER_CHARS + 1].strip()
    text = text.replace(r"^{\circ}", "°").replace(r"^\circ", "°")
    if text.endswith("}") and text.startswith((r"\text{", r"\mathrm{")):
        text = text[text.index("{") + 1 : -1].strip()
    for _ in range(8):  # a bounded number of layers keeps hostile input linear
        if len(text) >= 2 and _BRACKETS.get(text[0]) == text[-1]:
            text = text[1:-1].strip()
        elif text.endswith((".", ",", ";")):
            text = text[:-1].rstrip()
        else:
            break
    return text


def letters(count: int) -> Sequence[str]:
    """The first `count` capital letters, the labels of options and cells; at most 26."""
    if not 2 <= count <= 26:
        raise ValueError(f"between 2 and 26 letters, got {count}")
    return [chr(ord("A") + i) for i in range(count)]
