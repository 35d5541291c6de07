"""Run an unmodified VLMEvalKit with a model that answers in this package's formats.

    python -m ssl4rl_plugin.analysis.export.vlmevalkit [VLMEvalKit/run.py] --config config.json --judge exact_matching

VLMEvalKit's config names the model's class, which must be an attribute of `vlmeval.vlm`. So this module adds a class there,
`SSL4RLChat`, and starts VLMEvalKit's own run.py in the same process. The class asks for the answer format at the end of
every prompt, and gives VLMEvalKit the text between the answer's tags, as the letter of an option. VLMEvalKit's matcher
`can_infer` reads a letter without a judge model, but not `<answer>B</answer>`.

This module imports only the answer formats and graders, so it also runs in a separate environment of VLMEvalKit
(`pip install --no-deps ssl4rl-plugin`).
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.grading import Angle, Choice, Counts, LabelSet, Ordering, Permutation, question_grader
from ssl4rl_plugin.grading.formats import AnswerFormat, answer_format, visible_text

CLASS = "SSL4RLChat"
"""The name under which VLMEvalKit's config finds the class."""
NO_OPTION = "Z"
"""The letter that VLMEvalKit uses for an answer that is none of the options."""

THEIR_REQUEST = "Please select the correct answer from the options above."
"""What VLMEvalKit adds to a multiple-choice question."""
GRADERS: dict[str, Any] = {kind.__name__: kind for kind in (Angle, Choice, Counts, LabelSet, Ordering, Permutation)}
"""Graders of tasks that are multiple-choice questions, by name."""

_OPTION = re.compile(r"\s*\(?([A-Z])[.):]\s*(\S.*?)\s*")


def options_in(prompt: str) -> tuple[str, ...]:
    """The options of a prompt, each on its own line as `A. text` or `(A) text`; empty if there are none.

    The last list counts.
    """
    found: list[str] = []
    for line in prompt.splitlines():
        match = _OPTION.fullmatch(line)
        if match is None:
            continue
        if match[1] == "A":
            found = [match[2]]
        elif found and ord(match[1]) == ord("A") + len(found):
            found.append(match[2])
    return tuple(found) if len(found) > 1 else ()


def unwrap(
    response: str,
    options: Sequence[str],
    form: AnswerFormat,
    grader: Grader[Any] | None = None,
    thinking: bool = False,
) -> str:
    """The answer of a response as one letter that VLMEvalKit's matcher reads.

    Args:
        response: the model's response.
        options: texts of the options A, B, C, ... of the prompt; none for a free question.
        form: the answer format of the prompt.
        grader: that of the pretext task, whose values are the options; the verdict is then that of the reward.
        thinking: the model's chat template opens the thought.

    Returns:
        The letter of the option that the answer states, by its letter or as the grader reads it. `NO_OPTION` for any other
        text: the matcher would take a letter out of it. Without options, the answer as written.
    """
    found = form.find(response, thinking)
    if len(options) < 2:
        return found.texts[-1].strip() if found.texts else visible_text(response, thinking) or ""
    letters = {_letter(text, options, grader) for text in found.texts}
    return (letters.pop() if len(letters) == 1 else None) or NO_OPTION


def _letter(text: str, options: Sequence[str], grader: Grader[Any] | None) -> str | None:
    if grader is not None and (value := grader.parse(text)) is not None:
        values = list(islice(grader.values(), len(options)))
        return chr(ord("A") + values.index(value)) if value in values else None
    return question_grader(tuple(options)).parse(text)


def grader_to_json(grader: Grader[Any]) -> dict[str, Any] | None:
    """A grader of this package as JSON values, for VLMEvalKit's config; None for another package's."""
    if GRADERS.get(type(grader).__name__) is not type(grader):
        return None
    fields = {field.name: getattr(grader, field.name) for field in dataclasses.fields(grader)}  # type: ignore[arg-type]
    return {"grader": type(grader).__name__, **{name: _jsonable(value) for name, value in fields.items()}}


def _jsonable(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value


def grader_from_json(values: Mapping[str, Any]) -> Grader[Any]:
    """The inverse of `grader_to_json`. Raises UserError."""
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name != "grader"}
    try:
        return GRADERS[values["grader"]](**fields)
    except (KeyError, TypeError) as error:
        raise UserError(f"the config names no grader of this version of ssl4rl-plugin: {dict(values)}") from error


def model_class(base: type) -> type:
    """A model class of VLMEvalKit that asks for an answer format and unwraps the answers.

    Args:
        base: a class with VLMEvalKit's interface: `generate(message, dataset)`, where a message is a list of
            `{"type": "image" | "text", "value": ...}`.
    """

    class Unwrapping(base):
        def __init__(
            self,
            *args: Any,
            answer_format_name: str,
            thinking: bool = False,
            graders: Mapping[str, Mapping[str, Any]] | None = None,
            **kwargs: Any,
        ) -> None:
            super().__init__(*args, **kwargs)
            self.answer_format = answer_format(answer_format_name)
            self.thinking = thinking
            self.graders = {name: grader_from_json(values) for name, values in (graders or {}).items()}

        def use_custom_prompt(self, dataset: str) -> bool:
            return False  # the model's own prompts ask for a bare letter

        def generate(self, message: Any, dataset: str | None = None) -> str:
            parts = [{"type": "text", "value": message}] if isinstance(message, str) else [dict(p) for p in message]
            prompt = "\n".join(part["value"] for part in parts if part["type"] == "text")
            # VLMEvalKit's own request comes last and would stand against ours.
            for part in parts:
                if part["type"] == "text":
                    part["value"] = part["value"].replace(THEIR_REQUEST, "").rstrip()
            parts.append({"type": "text", "value": self.answer_format.instructions[0]})
            response = str(super().generate(parts, dataset))
            grader = self.graders.get(dataset or "")
            return unwrap(response, options_in(prompt), self.answer_format, grader, self.thinking)

    Unwrapping.__name__ = Unwrapping.__qualname__ = f"Unwrapping{base.__name__}"
    return Unwrapping


def build(base: str, answer_format: str, **options: Any) -> Any:
    """`SSL4RLChat` of VLMEvalKit's config: makes an instance of `model_class(vlmeval.vlm.<base>)`.

    Args:
        base: name of a class in `vlmeval.vlm` or `vlmeval.api`, e.g. `Qwen2VLChat`.
        answer_format: a name from `ssl4rl_plugin.grading.formats.FORMATS`.
        options: arguments of that class, `model_path` among them.

    Raises:
        UserError: VLMEvalKit has no such class, or there is no such format.
    """
    for module in ("vlmeval.vlm", "vlmeval.api"):
        kind = getattr(importlib.import_module(module), base, None)
        if isinstance(kind, type):
            return model_class(kind)(answer_format_name=answer_format, **options)
    raise UserError(f"this VLMEvalKit has no class {base!r} in vlmeval.vlm or vlmeval.api")


def main(arguments: Sequence[str]) -> int:
    """Add the class to `vlmeval.vlm` and start run.py with the arguments, of which the first may be its path.

    Returns 2 if VLMEvalKit is not found.
    """
    script = Path(arguments[0]) if arguments and arguments[0].endswith(".py") else None
    if script is not None:
        if not script.is_file():
            print(f"ssl4rl: there is no {script}: give the run.py of a copy of VLMEvalKit", file=sys.stderr)
            return 2
        sys.path.insert(0, str(script.resolve().parent))  # as `python run.py` does
        arguments = arguments[1:]
    try:
        models = importlib.import_module("vlmeval.vlm")
    except ModuleNotFoundError as error:
        print(
            f"ssl4rl: VLMEvalKit cannot be imported ({error}): install it in this environment, or give the path of its "
            "run.py as the first argument",
            file=sys.stderr,
        )
        return 2
    setattr(models, CLASS, build)
    sys.argv = [str(script or "vlmeval.run"), *arguments]
    if script is not None:
        runpy.run_path(str(script), run_name="__main__")
    else:  # VLMEvalKit is installed as a package
        runpy.run_module("vlmeval.run", run_name="__main__")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
