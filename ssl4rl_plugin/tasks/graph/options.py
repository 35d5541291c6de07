"""What tasks with texts to choose from share: how options are listed, and whether two texts give one another away."""

from __future__ import annotations

from collections.abc import Sequence

from ssl4rl_plugin.core import GraphNode
from ssl4rl_plugin.grading import letters
from ssl4rl_plugin.graphs.words import cut


def listed(options: Sequence[str]) -> str:
    """Options with their letters, one on each line."""
    return "\n".join(f"{name}: {option}" for name, option in zip(letters(len(options)), options, strict=True))


def texts_of(place: GraphNode, nodes: Sequence[int], tokens: int) -> list[str]:
    """The nodes' texts, each cut to so many tokens."""
    return [cut(place.graph, node, tokens) for node in nodes]


def told_elsewhere(hidden: str, shown: Sequence[str]) -> bool:
    """Whether a text that is to be hidden stands in one that is shown, as a whole."""
    wanted = f" {hidden.removesuffix(' ...').casefold()} "
    return any(wanted in f" {text.casefold()} " for text in shown)
