"""`ssl4rl score`: how the reward reads a text, step by step, and what it pays."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape

from ssl4rl_plugin.analysis.terminal import show, show_json, table
from ssl4rl_plugin.core import Grader
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.grading.lenient import lenient_value
from ssl4rl_plugin.grading.text import MAX_ANSWER_CHARS, normalise
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import parse_arms


def run_score(task: str, truth: str, text: str, form: str, thinking: bool, as_json: bool) -> int:
    """Print how a text is read; returns the exit code: 0 if it is a right answer, else 1.

    Args:
        task: `task` or `task:level`.
        truth: the right answer, as JSON or as a model would write it.
        text: a whole response, or the answer alone.
        form: answer format.
        thinking: the chat template opens the thought.
        as_json: print JSON.

    Raises:
        UserError: no such task, level or format, or the truth is no possible answer.
    """
    (arm,) = parse_arms([task])
    reading = read(arm, _truth(arm, truth), text, form, thinking)
    if as_json:
        show_json(reading)
    else:
        rows = table("step", "result")
        for name in list(reading)[:-1]:
            rows.add_row(name, escape(str(reading[name])))
        show(rows)
        Console(stderr=True).print(escape(reading["verdict"]))
    return 0 if reading["correct"] else 1


def read(arm: Arm, truth: Any, text: str, form: str, thinking: bool) -> dict[str, Any]:
    """How a text is read, from the response to the score."""
    grader, chosen = arm.task.grader(arm.level), answer_format(form)
    found = chosen.find(text, thinking)
    bare = not found.texts and "<" not in text and "\\boxed" not in text
    response = chosen.render(text, thinking) if bare else text
    found = chosen.find(response, thinking)
    answer = found.texts[-1] if found.texts else None
    value = None if answer is None else grader.parse(answer)
    row = encode_truth(arm.task.name, arm.level_name, arm.options, truth, "score:0")
    scored = compute_score(arm.data_source, response, row, {"thinking": thinking}, answer_format=form)
    return {
        "truth": grader.render(truth),
        "answer": answer,
        "normalised": None if answer is None else normalise(answer),
        "value": value,
        "similarity": scored["similarity"],
        "lenient value": lenient_value(grader, response, thinking),
        "score": scored["score"],
        "correct": scored["acc"] == 1.0,
        "verdict": _verdict(grader, found.texts, scored, bare, form),
    }


def _verdict(grader: Grader[Any], answers: tuple[str, ...], scored: dict[str, Any], bare: bool, form: str) -> str:
    """Why the text earns what it earns, in a sentence."""
    alone = f"The text has no answer block of the format {form}; it was read as the answer alone. " if bare else ""
    if not answers:
        return f"No answer: the response has no finished answer block of the format {form} outside of its thought."
    if len({repr(grader.parse(text)) for text in answers}) > 1:
        return f"No answer: {len(answers)} answer blocks disagree, which is a hedge."
    if len(answers[-1]) > MAX_ANSWER_CHARS:
        return f"No answer: the text has {len(answers[-1])} characters; more than {MAX_ANSWER_CHARS} are not read."
    if not scored["valid"]:
        return f"{alone}No answer: the text is not one of the possible answers (a sentence, a hedge, or another form)."
    form_note = "" if scored["format"] else " The structure around it is not exactly the one that the prompt asks for."
    return f"{alone}{'Right' if scored['acc'] else 'Wrong'}.{form_note}"


def _truth(arm: Arm, text: str) -> Any:
    """The truth that a user means. Raises UserError if it is no possible answer."""
    grader = arm.task.grader(arm.level)
    try:
        truth = json.loads(text)
        if grader.parse(grader.render(truth)) is not None:
            return truth
    except Exception:  # not JSON, or JSON that is no truth: perhaps an answer in words
        pass
    value = grader.parse(text)
    if value is None:
        example = grader.render(grader.best_guess)
        raise UserError(f"--truth {text}: {arm.key} has no such answer; one of its answers is: {example}")
    return json.loads(json.dumps(value))
