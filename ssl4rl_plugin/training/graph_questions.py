"""Evaluation on a graph's held-out nodes and edges, as rows: node classification and link prediction.

Pretext tasks never read labels. Prompts show the test split's context, without held-out edges: no prompt gives away the
answer about an edge.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.core import GraphNode, Item, Sample
from ssl4rl_plugin.core.seeding import digest, rng_for
from ssl4rl_plugin.data.graphs import GraphManifest
from ssl4rl_plugin.data.ground_truth import encode_question
from ssl4rl_plugin.data.rows import PROBES, Row
from ssl4rl_plugin.grading import letters
from ssl4rl_plugin.grading.formats import AnswerFormat
from ssl4rl_plugin.graphs.sampling import around, piece_of
from ssl4rl_plugin.graphs.words import GraphLevel, cut, graph_text, notation, numbered, opening, plain
from ssl4rl_plugin.tasks.graph.link_prediction import LinkPrediction, LinkPredictionLevel
from ssl4rl_plugin.training.questions import ASK_FOR_LETTER, MAX_OPTIONS, listed

YES_NO = ("yes", "no")
DRAWS = 8
"""Draws until the question about a node's held-out edge is not rejected."""


@dataclass(frozen=True)
class _Asked:
    """A question, made when its row is read."""

    sort: str
    node: int


class GraphQuestionRows:
    """Questions about the test split of a graph: the labels of its nodes, and its edges.

    Args:
        manifest: the graph.
        answer_format: the format that the prompts ask for.
        limit: largest number of questions of each sort, drawn by a hash of their nodes.
        label: name of the source among several of a run; empty for the graph's own name in rows and metrics.
    """

    def __init__(self, manifest: GraphManifest, answer_format: AnswerFormat, limit: int, label: str = "") -> None:
        self.manifest = manifest
        self.name = label or manifest.graph.name
        """Name of the questions as a benchmark."""
        self.answer_format = answer_format
        graph, name = manifest.graph, manifest.graph.name
        test = graph.nodes_of("test")
        order = sorted(test.tolist(), key=lambda node: digest("graph question", name, node))
        labelled = [] if graph.labels is None else [node for node in order if graph.labels[node] >= 0]
        self.asked = [_Asked("node_classification", node) for node in labelled[:limit]]
        # Edges are held out independently of the splits of their nodes, so nodes of all splits are asked about.
        asked = sorted(
            (int(node) for node in (graph.asked["test"].indptr[1:] != graph.asked["test"].indptr[:-1]).nonzero()[0]),
            key=lambda node: digest("graph question", name, node),
        )
        answerable = (node for node in asked if self._link(node) is not None)
        self.asked += [_Asked("link_prediction", node) for node in itertools.islice(answerable, limit)]
        self._counts = Counter(asked.sort for asked in self.asked)

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, index: int) -> Row:
        """Question `index`. Raises IndexError out of range."""
        if not 0 <= index < len(self):
            raise IndexError(f"question {index} of {len(self)}")
        asked, name = self.asked[index], self.name
        sample = f"{name}:{asked.sort}:{asked.node}"
        made = self._link(asked.node) if asked.sort == "link_prediction" else self._label(asked.node)
        assert made is not None
        question, options, answer = made
        instruction = rng_for("question", sample).choice(self.answer_format.instructions)
        return Row(
            kind=f"{name} {asked.sort}",
            data_source=f"bench/{name}/{asked.sort}",
            prompt=f"{question} {instruction}",
            images=(),
            videos=(),
            ground_truth=encode_question(
                name, options, answer, sample, question=f"{asked.sort}:{asked.node}", category=asked.sort,
                questions=self._counts[asked.sort],
            ),
            info={
                "index": index, "split": "questions", "sample": sample, "task": name, "level": asked.sort,
                "item": f"node {asked.node}", "gold": answer, "params": json.dumps({"options": options}), "refused": "[]",
            },
        )  # fmt: skip

    def _label(self, node: int) -> tuple[str, tuple[str, ...], str]:
        """The question for a node's label; with more classes than letters, the right one and others drawn at random."""
        graph = self.manifest.graph
        assert graph.labels is not None
        rng = rng_for("graph question", graph.name, "node_classification", node)
        place, level = GraphNode(graph, node, "test"), GraphLevel(nodes=10, tokens=48)
        right = int(graph.labels[node])
        numbers = list(range(len(graph.label_names)))
        if len(numbers) > MAX_OPTIONS:
            others = [number for number in numbers if number != right]
            numbers = sorted([right, *rng.sample(others, MAX_OPTIONS - 1)])
        options = tuple(plain(graph.label_names[number]) for number in numbers)
        nodes = around(place, [node], rng, hops=1, most=level.nodes)
        names = numbered(len(nodes), rng)
        texts = [cut(graph, other, level.share(len(nodes))) for other in nodes]
        text = graph_text(piece_of(place, nodes).edges, names, notation(level, rng), rng, graph, texts)
        question = (
            f"{opening(graph, len(nodes))}\n{text}\nTo which of these classes does node {names[0]} belong?\n"
            f"{listed(options)}\n{ASK_FOR_LETTER}"
        )
        return question, options, letters(len(options))[numbers.index(right)]

    def _link(self, node: int) -> tuple[str, tuple[str, ...], str] | None:
        """The pretext task's question about a held-out edge of a node; None if every draw is rejected."""
        graph = self.manifest.graph
        item = Item(f"node {node}", GraphNode(graph, node, "test"))
        for draw in range(DRAWS):
            rng = rng_for("graph question", graph.name, "link_prediction", node, draw)
            made = LinkPrediction().generate(item, LinkPredictionLevel(), rng)
            if isinstance(made, Sample):
                text = made.question.replace("Answer with one of: yes, no.", f"\n{listed(YES_NO)}\n{ASK_FOR_LETTER}")
                return text.replace("? \n", "?\n"), YES_NO, "AB"[YES_NO.index(made.truth)]
        return None

    def probes(self) -> Iterator[Row]:
        """A few rows of each sort."""
        step = max(1, len(self) // (2 * PROBES))
        return (self[index] for index in range(0, len(self), step))

    def state(self) -> dict[str, Any]:
        return {f"questions of {self.name}": f"{self.manifest.digest} {len(self)}"}
