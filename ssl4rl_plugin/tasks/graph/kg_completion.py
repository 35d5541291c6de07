"""Knowledge-graph completion: what is missing in (head, relation, tail)?

Shown: facts around the known entity, with texts. Asked: which of 4 or 8 entities is the missing tail or head of a fact,
or which of 3 relations holds between two entities, by letter. Exact; a blind guesser gets 1/n of n options.

The fact is an asked edge: no prompt shows it or any other edge between the same two entities. The wrong entities occur in
facts of the same relation, at the same end, and no edge of any split links them to the known one; the wrong relations do
not hold between the two entities. The letter is uniform and drawn last. Refused: graphs with fewer than three named
relations (`few_relations`), entities without such an asked edge (`few_asked_edges`) or without other facts to show
(`isolated`), facts without enough wrong entities (`no_alternatives`), and options with equal texts (`same_text`) or
without a text (`no_text`).

Link prediction in knowledge graphs as in TransE (Bordes et al., NeurIPS 2013).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssl4rl_plugin.core import GraphNode, Item, Rejection, Sample, Task
from ssl4rl_plugin.core.graph import SCANNED
from ssl4rl_plugin.grading import Choice, letters
from ssl4rl_plugin.graphs.sampling import around, piece_of
from ssl4rl_plugin.graphs.words import NO_TEXT, GraphLevel, graph_text, notation, numbered, opening, plain
from ssl4rl_plugin.tasks.graph.options import listed, texts_of

ASKED = ("tail", "head", "relation")
TRIES = 48
"""Draws for each wrong option."""


@dataclass(frozen=True)
class KgCompletionLevel(GraphLevel):
    ask: str = "tail"
    """The missing part: `tail`, `head` or `relation`."""
    candidates: int = 4
    """Number of options; 3 for relations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ask not in ASKED or not 2 <= self.candidates <= 12 or not self.tokens:
            raise ValueError(f"expected ask in {ASKED}, candidates in 2..12 and tokens from 1, got {self}")


class KgCompletion(Task[KgCompletionLevel]):
    name = "kg_completion"
    summary = "what is missing in a fact: its head, its relation or its tail"
    reference = "TransE, NeurIPS 2013"
    kind = "graph"
    levels = {
        "tail_4": KgCompletionLevel(),
        "head_4": KgCompletionLevel(ask="head"),
        "relation_3": KgCompletionLevel(ask="relation", candidates=3),
        "tail_8": KgCompletionLevel(candidates=8, nodes=14),
    }
    default_level = "tail_4"

    def grader(self, level: KgCompletionLevel) -> Choice:
        return Choice(tuple(letters(level.candidates)))

    def generate(self, item: Item, level: KgCompletionLevel, rng: random.Random) -> Sample | Rejection:
        place = item.graph
        graph = place.graph
        if len(graph.relation_names) < max(1, level.candidates if level.ask == "relation" else 1):
            return Rejection("few_relations", f"{len(graph.relation_names)} relations")
        facts = [
            (end, kind)
            for end, kind in asked_facts(place, rng)
            if level.ask == "relation" or kind % 2 == ASKED.index(level.ask)
        ]
        if not facts:
            return Rejection("few_asked_edges")
        end, kind = rng.choice(facts)
        if level.ask == "relation":
            holding = {other // 2 for other in place.asked.kinds_between(place.node, end)}
            free = [number for number in range(len(graph.relation_names)) if number not in holding]
            if len(free) < level.candidates - 1:
                return Rejection("few_relations", f"{len(free)} relations do not hold")
            relations = [kind // 2, *rng.sample(free, level.candidates - 1)]
            options = [plain(graph.relation_names[number]) for number in relations]
            entities = [end]
        else:
            entities = [end, *entities_like(place, end, kind, level.candidates - 1, rng)]
            if len(entities) < level.candidates:
                return Rejection("no_alternatives", f"{len(entities) - 1} of {level.candidates - 1}")
            options = []
        nodes = around(place, [place.node], rng, hops=2, fanout=6, most=level.nodes, without=entities)
        if len(nodes) < 2:
            return Rejection("isolated")
        share = level.share(len(nodes) + len(entities))
        texts = texts_of(place, entities, share)
        if NO_TEXT in texts:
            return Rejection("no_text")
        options = options or texts
        if len({option.casefold() for option in options}) < len(options):
            return Rejection("same_text")
        names = numbered(len(nodes), rng)
        text = graph_text(
            piece_of(place, nodes).edges, names, notation(level, rng), rng, graph, texts_of(place, nodes, share)
        )
        known, relation = f"node {names[0]}", plain(graph.relation_names[kind // 2])
        order = rng.sample(range(level.candidates), level.candidates)
        if level.ask == "relation":
            one, other = (known, f"({texts[0]})") if kind % 2 == 0 else (f"({texts[0]})", known)
            fact = f"({one}, ?, {other})"
        else:
            fact = f"({known}, {relation}, ?)" if level.ask == "tail" else f"(?, {relation}, {known})"
        question = (
            f"{opening(graph, len(nodes))}\n{text}\nNot all facts are shown. What is missing in the fact {fact}?\n"
            f"{listed([options[k] for k in order])}\nAnswer with the letter."
        )
        truth = letters(level.candidates)[order.index(0)]
        params = {"node": place.node, "end": end, "relation": graph.relation_names[kind // 2]}
        return Sample(question, (), truth, params, options=tuple(options[k] for k in order))


def asked_facts(place: GraphNode, rng: random.Random) -> list[tuple[int, int]]:
    """Asked edges of the place's node, as (other end, kind), sorted; a random sample if there are many."""
    arcs = place.asked
    ends = sorted(place.neighbours(arcs, place.node, SCANNED, rng))
    return [(end, kind) for end in ends for kind in arcs.kinds_between(place.node, end)]


def entities_like(place: GraphNode, end: int, kind: int, count: int, rng: random.Random) -> list[int]:
    """Up to `count` entities at the same end of shown facts of the same relation, not linked to the place's node.

    All such facts are equally likely, so an entity is drawn in proportion to its facts, as the correct one is.
    """
    graph = place.graph
    order, starts = graph.shown.by_kind
    found: list[int] = []
    if kind + 1 < len(starts) and starts[kind] < starts[kind + 1]:
        for _ in range(TRIES * count):
            if len(found) == count:
                break
            other = int(graph.shown.indices[order[rng.randrange(int(starts[kind]), int(starts[kind + 1]))]])
            taken = other in (place.node, end, *found)
            if not taken and place.visible(other) and not graph.linked(place.node, other):
                found.append(other)
    return found
