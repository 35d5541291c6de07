"""Masked attribute: which text belongs to the node whose text is hidden?

Shown: a node's neighbourhood with texts, except its own. Asked: which of n texts is the hidden one, by letter, where n is
4 to 8; at the level `word` only one word is hidden, and the answer is a free text. Exact; a blind guesser gets 1/n, and
at `word` about 1 in 20 for ordinary texts.

The wrong options are texts of nodes outside the neighbourhood with a similar number of neighbours and a similar text
length; the letter is uniform and drawn last. The hidden text occurs nowhere else in the prompt. Refused: nodes without
neighbours to show (`isolated`), without a text (`no_text`), with a text that other nodes also have (`common_text`) or
that is shown elsewhere (`text_elsewhere`), without enough similar nodes (`no_alternatives`), and at `word` without a word
that occurs nowhere else (`no_word`).

Masked attributes are SSL4RL's first graph task (arXiv 2510.16416); after BERT (Devlin et al., arXiv 1810.04805) and
attribute masking (Hu et al., arXiv 1905.12265).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.core import Grader, Item, Rejection, Sample, Task
from ssl4rl_plugin.grading import Choice, OpenWord, letters
from ssl4rl_plugin.graphs.sampling import around, piece_of
from ssl4rl_plugin.graphs.words import NO_TEXT, GraphLevel, graph_text, notation, numbered, opening
from ssl4rl_plugin.tasks.graph.options import listed, texts_of, told_elsewhere

HIDDEN = "[hidden]"
SHORTEST = 4
"""Least number of letters of a hidden word: shorter words are mostly function words."""


@dataclass(frozen=True)
class MaskedAttributeLevel(GraphLevel):
    hops: int = 1
    """Radius of the neighbourhood, in edges."""
    candidates: int = 4
    """Number of texts to choose from; 0 hides one word and asks for a free answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (1 <= self.hops <= 3 and (self.candidates == 0 or 2 <= self.candidates <= 12) and self.tokens):
            raise ValueError(f"expected hops in 1..3, candidates 0 or in 2..12, and tokens from 1, got {self}")


class MaskedAttribute(Task[MaskedAttributeLevel]):
    name = "masked_attribute"
    summary = "which text belongs to the node whose text is hidden"
    reference = "SSL4RL, arXiv 2510.16416; attribute masking, arXiv 1905.12265"
    kind = "graph"
    levels = {
        "4_texts": MaskedAttributeLevel(nodes=8),
        "4_texts_2_hops": MaskedAttributeLevel(nodes=14, hops=2),
        "8_texts_2_hops": MaskedAttributeLevel(nodes=14, hops=2, candidates=8),
        "word": MaskedAttributeLevel(nodes=14, hops=2, candidates=0),
    }
    default_level = "4_texts"

    def grader(self, level: MaskedAttributeLevel) -> Grader[Any]:
        return Choice(tuple(letters(level.candidates))) if level.candidates else OpenWord()

    def generate(self, item: Item, level: MaskedAttributeLevel, rng: random.Random) -> Sample | Rejection:
        place = item.graph
        graph, node = place.graph, place.node
        if graph.repeated[node]:
            return Rejection("common_text")
        if not graph.texts.start(node, 4096).strip():
            return Rejection("no_text")
        nodes = around(place, [node], rng, hops=level.hops, most=level.nodes)
        if len(nodes) < 2:
            return Rejection("isolated")
        others = place.alike(node, level.candidates - 1, rng, nodes) if level.candidates else []
        if len(others) < level.candidates - 1:
            return Rejection("no_alternatives", f"{len(others)} other nodes are like it")
        share = level.share(len(nodes) + len(others))
        own, *shown = texts_of(place, nodes, share)
        names = numbered(len(nodes), rng)
        how = notation(level, rng)
        edges = piece_of(place, nodes).edges
        params = {"node": node, "asked": names[0]}
        if not level.candidates:
            words = lone_words(own, shown)
            if not words:
                return Rejection("no_word")
            word = rng.choice(words)
            hidden = re.sub(rf"\b{re.escape(word)}\b", HIDDEN, own)
            question = (
                f"{opening(graph, len(nodes))}\n{graph_text(edges, names, how, rng, graph, [hidden, *shown])}\nOne word in "
                f"the text of node {names[0]} is hidden. Which? Answer with that word."
            )
            return Sample(question, (), word.casefold(), params)
        options = [own, *texts_of(place, others, share)]
        if NO_TEXT in options:
            return Rejection("no_text")
        if len({option.casefold() for option in options}) < len(options) or told_elsewhere(own, shown):
            return Rejection("text_elsewhere")
        order = rng.sample(range(level.candidates), level.candidates)
        question = (
            f"{opening(graph, len(nodes))}\n{graph_text(edges, names, how, rng, graph, [HIDDEN, *shown])}\nWhich text is "
            f"that of node {names[0]}?\n{listed([options[k] for k in order])}\nAnswer with the letter."
        )
        truth = letters(level.candidates)[order.index(0)]
        return Sample(question, (), truth, params, options=tuple(options[k] for k in order))


def lone_words(own: str, shown: list[str]) -> list[str]:
    """Words that occur once in a text and in none of the shown texts, in order."""
    found = [word.casefold() for word in re.findall(rf"\b[^\W\d_]{{{SHORTEST},}}\b", own)]
    elsewhere = {word.casefold() for text in shown for word in re.findall(r"\w+", text)}
    every = [word.casefold() for word in re.findall(r"\w+", own)]
    kept = {word for word in found if every.count(word) == 1 and word not in elsewhere}
    return [word for word in re.findall(r"\w+", own) if word.casefold() in kept]
