"""Answer formats: what the prompt asks for, and how an answer is found in a response.

The format is a setting of the run, not part of the data: the same samples train a model that thinks aloud and one
that answers at once. Finding the answer never raises and takes linear time on any string.

    think_answer   <think> reasoning </think> <answer> B </answer>
    answer_only    <answer> B </answer>
    boxed          reasoning, then \\boxed{B} at the end

In every format the LAST well-formed answer block outside of a think block counts.

Where the chat template of a thinking model opens the thought (`<think>` ends the generation prompt), a response begins
inside it. Then the opening tag is not asked for, and a response without `</think>` is an unfinished thought without an
answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ssl4rl_plugin.core.errors import UserError

MAX_BLOCKS = 32
"""A response with more tags than this of one kind has no answer; keeps hostile input cheap."""


@dataclass(frozen=True)
class ParsedResponse:
    """What was found in a response."""

    texts: tuple[str, ...]
    """The contents of all well-formed answer blocks outside of thinking, in order; empty if there is none."""
    exact: bool
    """The whole response has exactly the structure that the prompt asked for."""
    reasoning: str = ""
    """What stands in the think blocks, and before the last answer block; empty without an answer."""


@dataclass(frozen=True)
class AnswerFormat:
    """One way to ask for an answer."""

    name: str
    instructions: tuple[str, ...]
    """Wordings of the sentence that ends every prompt, all with the same meaning.

    A sample always gets the same one. Several, because a model should learn the format and not a phrase, and because
    verl 0.9.1 fails on a batch of multimodal rows that all have the same number of tokens.
    """
    template: str
    """A response in the right form, with {answer} where the answer goes."""
    is_exact: Callable[[str], bool]
    """Whether a response, without outer white space, has the structure and nothing else."""
    is_exact_after_thought: Callable[[str], bool]
    """The same for what follows `</think>`, where the chat template opened the thought."""
    boxed: bool = False

    def render(self, answer: str, thinking: bool = False) -> str:
        """A response in exactly this form that gives `answer`."""
        response = self.template.replace("{answer}", answer)
        if thinking:
            return "I compare what is shown with what is asked.</think>\n" + response.rpartition("</think>")[2].strip()
        return response

    def find(self, response: str, thinking: bool = False) -> ParsedResponse:
        """All answer blocks of a response, and whether its structure is exact.

        Args:
            response: what the model wrote.
            thinking: the chat template opened the thought.
        """
        if thinking:
            thought, closed, response = response.partition("</think>")
            if not closed:
                return ParsedResponse((), exact=False)
            found = self._find(response, self.is_exact_after_thought)
            once = "<think>" not in thought and "think>" not in response
            return replace(found, exact=found.exact and once, reasoning=f"{thought}\n{found.reasoning}")
        return self._find(response, self.is_exact)

    def _find(self, response: str, is_exact: Callable[[str], bool]) -> ParsedResponse:
        parted = outside_think(response)
        if parted is None:
            return ParsedResponse((), exact=False)
        visible, thought = parted
        blocks = _boxed_blocks(visible) if self.boxed else _answer_blocks(visible)
        if not blocks:
            return ParsedResponse((), exact=False)
        # One block only: a second one makes the structure inexact even where both agree.
        exact = len(blocks) == 1 and is_exact(response.strip())
        return ParsedResponse(tuple(text for _, text in blocks), exact, f"{thought}\n{visible[: blocks[-1][0]]}")


TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def _thought_and_answer(text: str) -> bool:
    """One think block, white space, one answer block. Counting keeps it linear on any string."""
    if any(text.count(tag) != 1 for tag in TAGS):
        return False
    end, start = text.index("</think>") + len("</think>"), text.index("<answer>")
    return text.startswith("<think>") and text.endswith("</answer>") and end <= start and not text[end:start].strip()


def _answer_alone(text: str) -> bool:
    """One answer block and nothing else."""
    return (
        [text.count(tag) for tag in TAGS] == [0, 0, 1, 1] and text.startswith("<answer>") and text.endswith("</answer>")
    )


def _box_at_the_end(text: str) -> bool:
    """One box, with nothing behind it but a dollar sign and a full stop."""
    start = text.rfind("\\boxed{")
    return start >= 0 and text.count("\\boxed{") == 1 and _BOX_END.fullmatch(text[start:][: 2 * MAX_BOX]) is not None


MAX_BOX = 4096
"""Characters of a box at most; answers are short, and a hostile string must not cost time."""
_BOX_END = re.compile(r"\\boxed\{(?:[^{}]|\{[^{}]*\})*\}\$?\.?\$?")

FORMATS: dict[str, AnswerFormat] = {
    fmt.name: fmt
    for fmt in (
        AnswerFormat(
            "think_answer",
            (
                "Reason step by step between <think> and </think>, then write only the final answer between <answer> and "
                "</answer>.",
                "First think it through inside <think> and </think>. Then give just the final answer inside <answer> and "
                "</answer>.",
                "Put your reasoning between <think> and </think>, and after it nothing but the final answer between "
                "<answer> and </answer>.",
                "Think before you answer: reasoning goes inside <think> and </think>, the final answer alone inside "
                "<answer> and </answer>.",
            ),
            "<think>I compare what is shown with what is asked.</think>\n<answer>{answer}</answer>",
            _thought_and_answer,
            _answer_alone,
        ),
        AnswerFormat(
            "answer_only",
            (
                "Write nothing but the answer, between <answer> and </answer>.",
                "Give only the answer, inside <answer> and </answer>.",
                "Reply with the answer alone: it goes between <answer> and </answer>, with no other text.",
                "No reasoning, no other words: just the answer, inside <answer> and </answer>.",
            ),
            "<answer>{answer}</answer>",
            _answer_alone,
            _answer_alone,
        ),
        AnswerFormat(
            "boxed",
            (
                "Reason step by step, then end with the final answer in \\boxed{}.",
                "Think it through, and finish with the final answer inside \\boxed{}.",
                "Explain your reasoning first. The last thing you write is the final answer, in \\boxed{}.",
                "Work it out in words, then put nothing but the final answer in \\boxed{} at the end.",
            ),
            "I compare what is shown with what is asked. \\boxed{{answer}}",
            _box_at_the_end,
            _box_at_the_end,
            boxed=True,
        ),
    )
}


def answer_format(name: str) -> AnswerFormat:
    """The format of that name; UserError naming the known ones otherwise."""
    if name not in FORMATS:
        raise UserError(f"unknown answer format {name!r}; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def visible_text(response: str, thinking: bool = False) -> str | None:
    """A response without its thought; None for an unfinished thought or too many think tags."""
    if thinking:
        _, closed, response = response.partition("</think>")
        if not closed:
            return None
    parted = outside_think(response)
    return None if parted is None else parted[0]


def outside_think(response: str) -> tuple[str, str] | None:
    """A response without its think blocks, and what stands in them; None if it has too many think tags.

    Text before a `</think>` that was never opened counts as thinking (some chat templates open it in the prompt), and
    so does everything after a `<think>` that is never closed.
    """
    if response.count("<think>") > MAX_BLOCKS or response.count("</think>") > MAX_BLOCKS:
        return None
    visible: list[str] = []
    thought: list[str] = []
    position = 0
    while True:
        opened, closed = response.find("<think>", position), response.find("</think>", position)
        if closed >= 0 and (opened < 0 or closed < opened):
            thought += [*visible, response[position:closed]]
            visible, position = [], closed + len("</think>")
        elif opened >= 0:
            visible.append(response[position:opened])
            begin = opened + len("<think>")
            if closed < 0:
                thought.append(response[begin:])
                break
            thought.append(response[begin:closed])
            position = closed + len("</think>")
        else:
            visible.append(response[position:])
            break
    return "\n".join(visible), "\n".join(thought)


def _answer_blocks(text: str) -> list[tuple[int, str]]:
    """Where each `<answer>...</answer>` with no answer tag inside begins, and its contents."""
    if text.count("</answer>") > MAX_BLOCKS:
        return []
    found = []
    start = 0
    while (end := text.find("</answer>", start)) >= 0:
        opening = text.rfind("<answer>", start, end)
        if opening >= 0:
            found.append((opening, text[opening + len("<answer>") : end]))
        start = end + len("</answer>")
    return found


def _boxed_blocks(text: str) -> list[tuple[int, str]]:
    r"""Where each `\boxed{...}` begins, braces inside balanced, and its contents."""
    if text.count("\\boxed{") > MAX_BLOCKS:
        return []
    found = []
    start = 0
    while (opening := text.find("\\boxed{", start)) >= 0:
        begin = position = opening + len("\\boxed{")
        depth = 1
        for brace in re.finditer(r"[{}]", text[position : position + MAX_BOX]):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                found.append((opening, text[begin : position + brace.start()]))
                break
        start = begin
    return found
