"""Benchmarks as validation sets: rotations of a question, and what single answers add up to, by hand and at random."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_build import tsv

from ssl4rl_plugin.analysis.benchmark_results import (
    AnsweredQuestion,
    BenchmarkResult,
    answered,
    benchmark_results,
    circular_accuracy,
)
from ssl4rl_plugin.analysis.statistics import wilson
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.data.source import Question, load_source
from ssl4rl_plugin.data_builders.index.indexer import build_manifest
from ssl4rl_plugin.grading.formats import FORMATS
from ssl4rl_plugin.training.questions import QuestionRows, rotated
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import SettingsError, parse_benchmarks

QUESTION = Question("7", ("a.png",), "What is it?", ("cat", "dog", "cow"), "B")


def test_rotations_by_hand() -> None:
    assert [(q.options, q.answer) for q in (rotated(QUESTION, by) for by in range(4))] == [
        (("cat", "dog", "cow"), "B"),
        (("dog", "cow", "cat"), "A"),
        (("cow", "cat", "dog"), "C"),
        (("cat", "dog", "cow"), "B"),  # once around
    ]
    free = Question("8", ("a.png",), "How many?", (), "3")
    assert rotated(free, 2) == free
    for by in range(3):  # the right text stays right
        shown = rotated(QUESTION, by)
        assert shown.options["ABC".index(shown.answer or "")] == "dog"
    with pytest.raises(ValueError):
        rotated(Question("9", (), "?", ("a", "b"), "Z"), 1)


def answer(
    question: str, rotation: int, rotations: int, acc: float, category: str = "c", l2: str | None = "l"
) -> AnsweredQuestion:
    return AnsweredQuestion("b", question, rotation, rotations, category, l2, acc)


def test_a_small_table_by_hand() -> None:
    table = [
        answer("1", 0, 2, 1), answer("1", 1, 2, 1),  # right in both orders
        answer("2", 0, 2, 1), answer("2", 1, 2, 0),  # right by luck
        answer("3", 0, 3, 0, "d"), answer("3", 1, 3, 1, "d"), answer("3", 2, 3, 1, "d"),
        answer("4", 0, 1, 1, "d"),  # a free question: one order
        answer("5", 0, 2, 1, "e", None),  # its other order is not answered yet
    ]  # fmt: skip
    found = benchmark_results(table)
    assert [(r.scope, r.name) for r in found] == [
        ("overall", ""), ("l2_category", "l"), ("category", "c"), ("category", "d"), ("category", "e"),
    ]  # fmt: skip
    overall, l2, c, d, e = found
    assert overall == BenchmarkResult("b", "overall", "", wilson(4, 5), wilson(2, 4), 1)
    assert l2 == BenchmarkResult("b", "l2_category", "l", wilson(3, 4), wilson(2, 4), 0)
    assert c == BenchmarkResult("b", "category", "c", wilson(2, 2), wilson(1, 2), 0)
    assert d == BenchmarkResult("b", "category", "d", wilson(1, 2), wilson(1, 2), 0)
    assert e.circular is not None and e.circular.n == 0 and e.incomplete == 1 and e.plain == wilson(1, 1)


def test_without_rotations_there_is_no_circular_accuracy() -> None:
    (overall, *_) = benchmark_results([answer("1", 0, 1, 1), answer("2", 0, 1, 0)])
    assert overall.circular is None and overall.plain == wilson(1, 2) and overall.incomplete == 0
    assert benchmark_results([]) == []


def test_several_responses_to_one_order() -> None:
    given = [answer("1", 0, 2, a) for a in (1, 1, 0)] + [answer("1", 1, 2, a) for a in (1, 0, 0)]
    assert circular_accuracy(given) == pytest.approx(1 / 3)  # only the first responses are right in both
    (overall, *_) = benchmark_results(given)
    assert overall.plain.mean == pytest.approx(2 / 3) and overall.plain.n == 1


def test_random_tables_against_a_plain_count() -> None:
    """A second way to count: a dict of sets of wrong questions, whatever the order of the answers."""
    rng = random.Random(0)
    for _ in range(50):
        questions = [
            (str(k), rng.randint(1, 5), rng.choice("xyz"), rng.choice("pq")) for k in range(rng.randint(1, 40))
        ]
        share = rng.random()
        table = [
            answer(name, turn, turns, float(rng.random() < share), category, l2)
            for name, turns, category, l2 in questions
            for turn in range(turns)
        ]
        rng.shuffle(table)
        wrong = {a.question for a in table if not a.acc}
        wrong_plain = {a.question for a in table if not a.acc and a.rotation == 0}
        for result in benchmark_results(table):
            members = {
                name for name, _, category, l2 in questions
                if result.scope == "overall" or result.name == (category if result.scope == "category" else l2)
            }  # fmt: skip
            assert result.plain == wilson(len(members - wrong_plain), len(members))
            if any(turns > 1 for name, turns, *_ in questions if name in members):
                assert result.circular == wilson(len(members - wrong), len(members))
                assert result.circular.mean <= result.plain.mean
            else:
                assert result.circular is None


def test_what_is_no_benchmark_answer_is_passed_over() -> None:
    assert answered(encode_truth("rotation", "pair_90", {}, 90, "val:0"), 1.0) is None
    for text in ("", "{", "[]", "null", '{"benchmark": "b"}', "[" * 5000):
        assert answered(text, 1.0) is None


@pytest.fixture(scope="module")
def circular(photos: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> QuestionRows:
    folder = tmp_path_factory.mktemp("bench")
    manifest = build_manifest(load_source("tsv", tsv(folder / "b.tsv", photos, 6)), folder / "m.parquet")
    return QuestionRows(manifest, FORMATS["answer_only"], 65536, limit=4, circular=True)


def test_rows_of_circular_evaluation(circular: QuestionRows) -> None:
    """Every question three times, the same but for the options' order; answers go through the one reward function."""
    plain = QuestionRows(circular.manifest, FORMATS["answer_only"], 65536, limit=4)
    assert len(circular) == 3 * len(plain) == 12 and plain.questions == circular.questions
    assert plain.state() != circular.state()
    for number in range(4):
        first, turns = plain[number], [circular[3 * number + turn] for turn in range(3)]
        assert turns[0].prompt == first.prompt and turns[0].data_source == first.data_source == "bench/tsv/fine"
        assert {row.data_source for row in turns[1:]} == {"bench/tsv_rotated/fine"}
        assert [row.info["sample"] for row in turns] == [f"{first.info['sample']}#{turn}" for turn in range(3)]
        assert len({row.prompt for row in turns}) == 3
        assert len({"".join(sorted(row.prompt)) for row in turns}) == 1
        for row in turns:
            shown = json.loads(row.info["params"])
            assert (
                shown["options"]["ABC".index(row.info["gold"])] == ("red", "green", "blue")[int(shown["text"][8]) % 3]
            )

    # A model that always says A is right once in every round, and never in all of it.
    def results(say: Any) -> list[BenchmarkResult]:
        scored = []
        for row in (circular[index] for index in range(len(circular))):
            result = compute_score(row.data_source, FORMATS["answer_only"].render(say(row)), row.ground_truth,
                                   answer_format="answer_only")  # fmt: skip
            assert result["questions"] == (4 if row.data_source == "bench/tsv/fine" else 8)
            scored.append(answered(row.ground_truth, result["acc"]))
        assert None not in scored
        return benchmark_results([a for a in scored if a is not None])

    assert [(r.scope, r.name) for r in results(lambda row: "A")] == [
        ("overall", ""), ("l2_category", "coarse"), ("category", "fine"),
    ]  # fmt: skip
    always_a = results(lambda row: "A")[0]
    assert always_a.circular is not None and always_a.circular.mean == 0.0 and always_a.plain.n == 4
    knows = results(lambda row: row.info["gold"])[0]
    assert knows.circular == knows.plain == wilson(4, 4)


def test_verls_own_aggregation_takes_the_rewards_keys(circular: QuestionRows) -> None:
    """Rows of a benchmark and of a pretext task in one validation, through verl's function: no key breaks it, and the
    number of questions is among its metrics."""
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    rows = [(circular[index].data_source, circular[index].ground_truth, "<answer>A</answer>") for index in range(12)]
    rows += [
        ("ssl4rl/rotation", encode_truth("rotation", "pair_90", {}, 90, f"val:{k}"), "<answer>90</answer>")
        for k in range(2)
    ]
    scored = [compute_score(source, text, truth, answer_format="answer_only") for source, truth, text in rows]
    infos = {key: [result[key] for result in scored] for key in scored[0]}
    found = process_validation_metrics([source for source, *_ in rows], [str(k) for k in range(14)], infos)
    counts = Counter(source for source, *_ in rows)
    for source in ("bench/tsv/fine", "bench/tsv_rotated/fine"):
        assert found[source]["questions"]["mean@1"] == counts[source]
        right = sum(r["acc"] for r, (s, *_) in zip(scored, rows, strict=True) if s == source)
        assert found[source]["acc"]["mean@1"] == pytest.approx(right / counts[source])
    assert "questions" not in found["ssl4rl/rotation"] and found["ssl4rl/rotation"]["acc"]["mean@1"] == 1.0
    assert {"consistent", "inconsistent", "degenerate", "repetition", "format"} <= found["ssl4rl/rotation"].keys()


def test_mmbench_files_with_their_own_rotations(tmp_path: Path, photos: list[Image.Image]) -> None:
    """MMBench's files list each question once more for every rotation, a million further on; it is asked as it is once."""
    path = tsv(tmp_path / "mmbench.tsv", photos, 3)
    header, *lines = path.read_text().splitlines()
    turned = [
        "\t".join([str(1_000_000 * n + int(line.split("\t")[0])), *line.split("\t")[1:]])
        for line in lines
        for n in (1, 2)
    ]
    path.write_text("\n".join([header, *lines, *turned]) + "\n")
    assert [question.id for question in load_source("mmbench", path).questions()] == ["0", "1", "2"]


def test_circular_is_a_setting() -> None:
    (one,) = parse_benchmarks([{"name": "mmbench", "path": "x", "circular": True}])
    assert one.circular
    with pytest.raises(SettingsError, match=r"ssl4rl\.benchmarks\.0\.circular must be a valid boolean, got 'yes'"):
        parse_benchmarks([{"name": "mmbench", "path": "x", "circular": "yes"}])
