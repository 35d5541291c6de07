"""Graph rows as a trainer gets them, the questions about held-out nodes and edges, and the audit of prompts without
pictures with planted leaks."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import BASE_SECTION
from graphs import raw_graph
from omegaconf import OmegaConf

from ssl4rl_plugin.analysis.audit import AuditSubject, audit
from ssl4rl_plugin.analysis.audit.draw import GraphPool
from ssl4rl_plugin.core import GraphNode, Item, Rejection, Sample
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.build_plan import PlanError
from ssl4rl_plugin.data.graphs import GraphManifest
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleError, SampleStream
from ssl4rl_plugin.data.source import load_source
from ssl4rl_plugin.data_builders.build.planning import make_plan
from ssl4rl_plugin.grading.formats import answer_format
from ssl4rl_plugin.tasks.graph.link_prediction import LinkPrediction, LinkPredictionLevel
from ssl4rl_plugin.tasks.graph.masked_attribute import MaskedAttribute, MaskedAttributeLevel
from ssl4rl_plugin.training.graph_questions import GraphQuestionRows
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import Settings
from ssl4rl_plugin.training.verl.dataset import SSLDataset

SOURCE = {"name": "communities", "path": None, "options": {"nodes": 200, "questions": 24}, "manifest": None}


def section(**changes: Any) -> dict[str, Any]:
    source = {**BASE_SECTION["source"], **SOURCE}
    return {**BASE_SECTION, "tasks": ["link_prediction", "node_degree"], "source": source, **changes}


class Tokenizer:
    """Counts words; enough for the check of prompt lengths."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text.split())))}

    def apply_chat_template(self, chat: list[dict[str, Any]], **_: Any) -> str:
        assert all(isinstance(message["content"], str) for message in chat), "a text model's template takes no list"
        return " ".join(message["content"] for message in chat)


def dataset(split: str, **changes: Any) -> SSLDataset:
    config = OmegaConf.create({"ssl4rl": section(**changes), "max_prompt_length": 2000})
    return SSLDataset(f"ssl4rl:{split}", Tokenizer(), config)


# ------------------------------------------------------------------------------------------------ rows


def test_a_text_model_gets_strings_and_no_pictures() -> None:
    train, val = dataset("train"), dataset("val")
    row = train[0]
    assert (
        isinstance(row["raw_prompt"][-1]["content"], str) and "nodes, numbered 1 to" in row["raw_prompt"][-1]["content"]
    )
    sources = {val[number]["data_source"] for number in range(len(val))}
    assert sources == {
        "ssl4rl/link_prediction", "ssl4rl/node_degree", "bench/communities/node_classification",
        "bench/communities/link_prediction",
    }  # fmt: skip
    for number in range(len(val)):
        row = val[number]
        gold = answer_format("think_answer").render(row["extra_info"]["gold"])
        result = compute_score(row["data_source"], gold, row["reward_model"]["ground_truth"])
        assert (result["score"], result["acc"], result["error"]) == (1.0, 1.0, "")


def test_a_run_resumes_with_the_same_graph_only() -> None:
    one, other = dataset("train"), dataset("train", source={**section()["source"], "options": {"nodes": 210}})
    one.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="images"):
        one.load_state_dict(other.state_dict())


def test_kinds_do_not_mix_with_graphs(photo_folder: Path) -> None:
    settings = Settings.from_config(section(tasks=["rotation"]))
    with pytest.raises(SampleError, match=r"kind 'image'.*kind 'graph'"):
        SampleStream(settings, load_manifest(settings), "train")
    source = {**BASE_SECTION["source"], "path": str(photo_folder)}
    pictures = Settings.from_config(section(tasks=["node_degree"], source=source))
    with pytest.raises(SampleError, match=r"kind 'graph'.*kind 'image'"):
        SampleStream(pictures, load_manifest(pictures), "train")


def test_a_graph_is_not_built_beforehand() -> None:
    settings = Settings.from_config(section())
    with pytest.raises(PlanError, match="not built beforehand"):
        make_plan(section(), load_manifest(settings))  # type: ignore[arg-type]


def test_training_on_evaluated_nodes_has_to_be_said() -> None:
    from ssl4rl_plugin.training.preflight import PreflightError, check_online

    with pytest.raises(PreflightError, match=r"transductive=true.*inductive=true"):
        check_online(Settings.from_config(section()))
    assert len(check_online(Settings.from_config(section(transductive=True))))
    alone = {**section()["source"], "options": {"nodes": 200, "inductive": True}}
    assert len(check_online(Settings.from_config(section(source=alone))))


# ------------------------------------------------------------------------------------------------ questions


@pytest.fixture(scope="module")
def questions() -> GraphQuestionRows:
    manifest = GraphManifest(load_source("communities", nodes=600, groups=5), 0.1)  # type: ignore[arg-type]
    return GraphQuestionRows(manifest, answer_format("answer_only"), limit=40)


def test_questions_are_about_held_out_nodes_and_edges(questions: GraphQuestionRows) -> None:
    graph = questions.manifest.graph
    sorts = [row.info["level"] for row in map(questions.__getitem__, range(len(questions)))]
    assert sorts.count("node_classification") == sorts.count("link_prediction") == 40
    yes = 0
    for row in map(questions.__getitem__, range(len(questions))):
        truth = json.loads(row.ground_truth)
        node = int(row.info["item"].split()[1])
        if row.info["level"] == "node_classification":
            assert graph.roles[node] == 2 and graph.labels is not None
            assert truth["choices"]["ABCDE".index(truth["truth"])] == graph.label_names[graph.labels[node]]
            assert all(name in row.prompt for name in graph.label_names)
        else:
            assert truth["choices"] == ["yes", "no"] and graph.asked["test"].degree(node)
            yes += truth["truth"] == "A"
    assert 8 <= yes <= 32
    assert [questions[k] for k in range(5)] == [questions[k] for k in range(5)]
    with pytest.raises(IndexError):
        questions[len(questions)]


def test_a_graph_without_labels_is_asked_about_edges_only() -> None:
    manifest = GraphManifest(load_source("les_miserables"), 0.1)  # type: ignore[arg-type]
    rows = GraphQuestionRows(manifest, answer_format("answer_only"), limit=40)
    assert {rows[k].data_source for k in range(len(rows))} == {"bench/les_miserables/link_prediction"}


def test_more_labels_than_letters() -> None:
    """Twelve groups are as many as there are; the rows draw options only where labels outnumber letters."""
    manifest = GraphManifest(load_source("communities", groups=12, nodes=600), 0.1)  # type: ignore[arg-type]
    graph = manifest.graph
    many = dataclasses.replace(graph, label_names=tuple(f"label {k}" for k in range(40)))
    manifest.__dict__["graph"] = many
    rows = GraphQuestionRows(manifest, answer_format("answer_only"), limit=30)
    for row in map(rows.__getitem__, range(30)):
        truth = json.loads(row.ground_truth)
        node = int(row.info["item"].split()[1])
        assert len(set(truth["choices"])) == 26
        assert truth["choices"][ord(truth["truth"]) - ord("A")] == f"label {graph.labels[node]}"


# ------------------------------------------------------------------------------------------------ audit


class Pool(GraphPool):
    """A graph with unique words everywhere."""

    def __init__(self) -> None:
        from graphs import made_graph

        graph = made_graph(7)
        self.places = [GraphNode(graph, node, "train") for node in graph.nodes_of("train").tolist()]

    def groups(self) -> list[tuple[str, list[int]]]:
        return [(f"node {number}", [number]) for number in range(len(self.places))]

    def load(self, number: int) -> tuple[str, GraphNode]:
        return f"node {number}", self.places[number]


class InverseLeftIn(LinkPrediction):
    """Shows the edge that is asked about, the other way round."""

    name = "inverse_left_in"
    levels: ClassVar = {"pair": LinkPredictionLevel(notation="edges", nodes=10)}

    def generate(self, item: Item, level: LinkPredictionLevel, rng: random.Random) -> Sample | Rejection:
        made = super().generate(item, level, rng)
        if isinstance(made, Sample) and made.truth == "yes":
            a, b = re.findall(r"node (\d+)", made.question.split("\n")[-1])
            lines = made.question.split("\n")
            lines[-2] = re.sub(r"[^ ]*$", f"{b}-relation 0->{a}", lines[-2])  # in place of another, as long
            return dataclasses.replace(made, question="\n".join(lines))
        return made


class LabelInText(MaskedAttribute):
    """The right option carries a word that stands in the context, as a label would."""

    name = "label_in_text"

    def generate(self, item: Item, level: MaskedAttributeLevel, rng: random.Random) -> Sample | Rejection:
        made = super().generate(item, level, rng)
        if isinstance(made, Rejection):
            return made
        label = rng.choice(("physics", "botany"))
        right = "ABCD".index(made.truth)
        options = [f"{text} {label if k == right else 'history'}" for k, text in enumerate(made.options)]
        question = made.question
        for old, new in zip(made.options, options, strict=True):
            question = question.replace(f": {old}\n", f": {new}\n")
        first, _, rest = question.partition("\n")
        return dataclasses.replace(made, question=f"{first} One is about {label}.\n{rest}", options=tuple(options))


class UnmatchedDegrees(LinkPrediction):
    """Strangers that have no neighbours to show."""

    name = "unmatched_degrees"
    levels: ClassVar = {"rank_4": LinkPredictionLevel(nodes=16, candidates=4, notation="edges", tokens=0)}
    default_level = "rank_4"

    def generate(self, item: Item, level: LinkPredictionLevel, rng: random.Random) -> Sample | Rejection:
        made = super().generate(item, level, rng)
        if isinstance(made, Rejection):
            return made
        right = made.options["ABCD".index(made.truth)]
        wrong = {str(option).split()[1].rstrip(":") for option in made.options if option != right}
        edges = re.search(r"Edges: (.*)", made.question)
        assert edges
        kept = [
            edge for edge in edges[1].split(", ") if not wrong & set(re.split(r"\D+", edge.replace("relation ", "r")))
        ]
        return dataclasses.replace(made, question=made.question.replace(edges[1], ", ".join(kept) or "none"))


class LongerIfRight(MaskedAttribute):
    """The right option is told at greater length."""

    name = "longer_if_right"

    def generate(self, item: Item, level: MaskedAttributeLevel, rng: random.Random) -> Sample | Rejection:
        made = super().generate(item, level, rng)
        if isinstance(made, Rejection):
            return made
        options = list(made.options)
        right = "ABCD".index(made.truth)
        old, options[right] = options[right], f"{options[right]} and so on and so forth and so much more besides"
        return dataclasses.replace(
            made, question=made.question.replace(f": {old}\n", f": {options[right]}\n"), options=tuple(options)
        )


@pytest.mark.parametrize(
    ("task", "group"),
    [(InverseLeftIn, "mentions"), (LabelInText, "overlap"), (UnmatchedDegrees, "mentions"), (LongerIfRight, "length")],
)
def test_planted_leaks_are_found(task: Any, group: str) -> None:
    made = task()
    level = made.default_level
    (found,) = audit([AuditSubject(Arm(made, level, {}, 1.0), Pool(), "made")], count=300)
    assert not found.error and found.failed, [row.name for row in found.rows]
    assert any(row.row.group == group for row in found.having("leak"))


def test_the_same_tasks_without_the_leaks_pass() -> None:
    arms = [
        Arm(LinkPrediction(), "pair", {"notation": "edges", "nodes": 10}, 1.0),
        Arm(LinkPrediction(), "rank_4", {"notation": "edges", "tokens": 0}, 1.0),
        Arm(MaskedAttribute(), "4_texts", {}, 1.0),
    ]
    found = audit([AuditSubject(arm, Pool(), "made") for arm in arms], count=300)
    assert not any(arm.failed or arm.skipped for arm in found), [
        (arm.key, row.name, row.reason) for arm in found for row in arm.having("leak")
    ]


def test_the_raw_graph_of_the_tests_is_what_it_says() -> None:
    raw = raw_graph(0)
    assert len(raw.texts) == 240 and len(raw.sources) > 700
