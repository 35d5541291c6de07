"""For graph tasks with texts as options: list the options, cut texts, and check for texts that occur in others."""

from __future__ import annotations

from collections.abc import Sequence

from ssl4rl_plugin.core import GraphNode
from ssl4rl_plugin.grading import letters
from ssl4rl_plugin.graphs.words import cut


def listed(options: Sequence[str]) -> str:
    """The options with their letters, one on each line."""
    return "\n".join(f"{name}: {option}" for name, option in zip(letters(len(options)), options, strict=True))


def texts_of(place: GraphNode, nodes: Sequence[int], tokens: int) -> list[str]:
    """The nodes' texts, each cut to `tokens` tokens."""
    return [cut(place.graph, node, tokens) for node in nodes]


def told_elsewhere(hidden: str, shown: Sequence[str]) -> bool:
    """Whether the whole hidden text occurs in one of the shown texts."""
    wanted = f" {hidden.removesuffix(' ...').casefold()} "
    return any(wanted in f" {text.casefold()} " for text in shown)
