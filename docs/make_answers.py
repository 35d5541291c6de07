"""Make docs/answers.md, the table of accepted and refused answers, from the graders: `python docs/make_answers.py`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.grading import question_grader
from ssl4rl_plugin.grading.text import REFUSED, WRAPPINGS
from ssl4rl_plugin.tasks import get_task, registry

PAGE = Path(__file__).parent / "answers.md"
OPTIONS = ("a dog", "a cat", "two birds")

HEAD = """# Accepted answers

This page is made from the graders by `make gallery`. Each form in it was read by the grader of the task when the page was
made. `ssl4rl score TASK --truth ANSWER "text"` shows how any other text is read.

The reward reads one value or none. It forgives form: `90°`, `Top Left`, `**B**`. It does not forgive content: a sentence
around the answer, a second value and a hedge are no answer, since the prompt asks for the answer alone. The
[lenient reading](rewards.md#the-lenient-reading) finds answers in sentences, for tables only.

## Around any answer

| what | written as | reads as |
| --- | --- | --- |
"""


def code(text: str) -> str:
    """Text as inline code in a table cell."""
    shown = text.replace("\n", "⏎").replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def around() -> str:
    """Rows of what may stand around an answer."""
    grader = get_task("rotation").grader(get_task("rotation").level())
    rows = []
    for name, template in WRAPPINGS.items():
        text = template.replace("{{", "{").replace("}}", "}").replace("{}", "90")
        assert grader.parse(text) == 90, text
        rows.append(f"| {name} | {code(text)} | 90 |")
    return "\n".join(rows)


def section(title: str, grader: Grader[Any]) -> str:
    """Accepted and refused forms of one grader, with a value that it draws."""
    rng = random.Random(0)
    one = grader.parse(grader.render(grader.draw(rng)))
    other = one
    while other == one:
        other = grader.parse(grader.render(grader.draw(rng)))
    lines = [f"### {title}", "", "| accepted | written as |", "| --- | --- |"]
    for name, text in grader.forms(one).items():
        assert grader.parse(text) == one, text
        lines.append(f"| {name} | {code(text)} |")
    lines += ["", "| refused | written as |", "| --- | --- |"]
    for name, template in REFUSED.items():
        text = template.replace("{other}", grader.render(other)).replace("{}", grader.render(one))
        assert grader.parse(text) is None, text
        lines.append(f"| {name} | {code(text) if text else '(empty)'} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = [HEAD + around(), "## Task by task", "The default level of each task, with an answer drawn at random."]
    for name in registry.names():
        task = get_task(name)
        parts.append(section(f"{name}:{task.default_level}", task.grader(task.level())))
    parts += ["## Questions of benchmarks", "A letter, a letter with its own text, or a text that no other option has."]
    parts.append(section(f"options: {', '.join(OPTIONS)}", question_grader(OPTIONS)))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
