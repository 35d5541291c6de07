"""`ssl4rl evaluate` without its engine: what is asked, the file of predictions, the figures, and every bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pictures import photo
from test_build import tsv
from typer.testing import CliRunner

from ssl4rl_plugin.analysis.evaluation import predictions
from ssl4rl_plugin.analysis.evaluation.engines import EngineError, answers
from ssl4rl_plugin.analysis.evaluation.evaluation_set import (
    EvaluationRequest,
    picture_groups,
    requested_set,
    set_of_run,
)
from ssl4rl_plugin.analysis.evaluation.model import ModelError, resolve
from ssl4rl_plugin.analysis.evaluation.protocol import SamplingSettings
from ssl4rl_plugin.analysis.evaluation.results import MEANS, ResultsError, as_value, groups_of
from ssl4rl_plugin.analysis.evaluation.run import EvaluationError, base_lines, evaluate
from ssl4rl_plugin.analysis.evaluation.worker import EngineJob, record
from ssl4rl_plugin.cli import app
from ssl4rl_plugin.cli.evaluate import results_table
from ssl4rl_plugin.data.ground_truth import encode_question
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.run_rows import benchmark_rows, own_rows
from ssl4rl_plugin.training.settings import Settings, SettingsError


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve questions in MMBench's layout."""
    return tsv(tmp_path_factory.mktemp("mmbench") / "mmbench.tsv", [photo(k, 96, 80) for k in range(12)])


def refused(*arguments: object) -> str:
    """The message of an evaluation that must end with exit code 2 and no traceback."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit) and "Traceback" not in result.output
    return " ".join(result.stderr.split())


# ------------------------------------------------------------------------------------------------------- what is asked


def test_tasks_are_asked_with_the_rows_that_a_run_validates_on(section: dict) -> None:
    section = {**section, "tasks": ["rotation", "jigsaw:2x2"], "seed": 3, "val_samples": 5}
    evaluation_set = requested_set(
        EvaluationRequest(tasks=section["tasks"]), lambda tasks: [{**section, "tasks": list(tasks)}]
    )
    expected = own_rows(Settings.from_config(section), "val")
    assert len(evaluation_set.rows) == len(expected) == 10
    for mine, theirs in zip((evaluation_set.rows[k] for k in range(10)), (expected[k] for k in range(10)), strict=True):
        assert (mine.prompt, mine.ground_truth) == (theirs.prompt, theirs.ground_truth)
        assert [image.tobytes() for image in mine.images] == [image.tobytes() for image in theirs.images]
    assert evaluation_set.chances == {"rotation:pair_90": 0.25, "jigsaw:2x2": pytest.approx(1 / 24)}


def test_tasks_of_several_sources_and_benchmarks_are_asked_together(section: dict, questions: Path) -> None:
    request = EvaluationRequest(
        benchmarks=[("mmbench", str(questions))], tasks=["rotation", "flip"], samples=2, limit=3
    )
    sections = [{**section, "tasks": ["rotation"]}, {**section, "tasks": ["flip"], "options": {"side": 112}}]
    evaluation_set = requested_set(request, lambda tasks: sections)
    kinds = [evaluation_set.rows[k].kind for k in range(len(evaluation_set.rows))]
    assert kinds == ["rotation:pair_90"] * 2 + ['flip:pair{"side": 112}'] * 2 + ["mmbench"] * 3
    assert len(evaluation_set.identity()["rows"]) == 3  # one state for each, so that none hides another's


def test_a_run_is_repeated_as_its_config_says(section: dict, questions: Path, tmp_path: Path) -> None:
    from ssl4rl_plugin.demo.run import compose

    config = compose("cpu_demo", [
        "actor_rollout_ref.model.path=x", "ssl4rl.val_samples=4",
        f"ssl4rl.benchmarks=[{{name: mmbench, path: {questions.name}}}]",
        "actor_rollout_ref.rollout.val_kwargs.temperature=0.5", "actor_rollout_ref.rollout.val_kwargs.n=2",
        "ssl4rl.partial_credit=0.25", "ssl4rl.system_prompt=Be brief.",
    ])  # fmt: skip
    from omegaconf import OmegaConf

    (tmp_path / "hydra" / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, tmp_path / "hydra" / ".hydra" / "config.yaml")
    hydra = {"hydra": {"runtime": {"cwd": str(questions.parent)}}}  # where the run was started, and not we
    OmegaConf.save(OmegaConf.create(hydra), tmp_path / "hydra" / ".hydra" / "hydra.yaml")
    (tmp_path / "metrics-0.jsonl").write_text("")
    evaluation_set = set_of_run(tmp_path, EvaluationRequest())
    assert len(evaluation_set.rows) == 2 * 4 + 12
    protocol = evaluation_set.protocol
    assert (protocol.max_prompt_tokens, protocol.max_response_tokens) == (384, 16)
    paid = {"format_weight": 0.1, "partial_credit": 0.25, "partial_credit_by": "similarity"}
    assert protocol.reward == {"answer_format": "answer_only", **paid}
    assert (
        protocol.sampling == SamplingSettings(temperature=0.5, n=2) and protocol.settings.system_prompt == "Be brief."
    )
    assert evaluation_set.engine.dtype == "float32" and evaluation_set.engine.options["max_model_len"] == 512
    assert evaluation_set.engine.options["distributed_executor_backend"] == "uni"
    # What the user says goes before; a named benchmark takes the place of all that the run validates on.
    other = set_of_run(
        tmp_path, EvaluationRequest(benchmarks=[("mmbench", str(questions))], limit=2, n=1, temperature=0.0)
    )
    assert len(other.rows) == 2 and other.protocol.sampling == SamplingSettings()
    circular = set_of_run(tmp_path, EvaluationRequest(benchmarks=[("mmbench", str(questions))], circular=True))
    assert len(circular.rows) == 36 and circular.identity() != other.identity()


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"n": 2}, {"top_k": -2}])
def test_impossible_sampling_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):
        SamplingSettings(**wrong)


# ----------------------------------------------------------------------------------------------------------- the lines


def test_a_line_has_the_score_that_training_would_give(section: dict, questions: Path) -> None:
    section = {**section, "benchmarks": [{"name": "mmbench", "path": str(questions)}]}
    evaluation_set = requested_set(EvaluationRequest(benchmarks=[("mmbench", str(questions))]), lambda tasks: [section])
    (rows,) = benchmark_rows(Settings.from_config(section))
    row = rows[1]
    for response in ("<think>It is green.</think><answer> B </answer>", "<answer>C</answer>", "no idea"):
        line = record(evaluation_set.rows[1], 1, 0, response, evaluation_set.protocol)
        scored = compute_score(row.data_source, response, row.ground_truth, row.info, **evaluation_set.protocol.reward)
        assert {key: line[key] for key in scored if key != "sample"} == {
            k: v for k, v in scored.items() if k != "sample"
        }
    assert (line["id"], line["category"], line["l2_category"]) == ("mmbench:1", "fine", "coarse")
    assert line["images"] == row.info["item"].split(",") and line["truth"] == "B" and line["answer"] == ""
    assert record(row, 1, 0, "<answer> B </answer>", evaluation_set.protocol)["answer"] == "B"
    assert "image/" not in json.dumps(line) and len(json.dumps(line)) < 2000, "pictures are named, not held"
    lost = record(row, 1, 0, None, evaluation_set.protocol, "the prompt has 9999 tokens")
    assert (lost["acc"], lost["response"], lost["error"]) == (0.0, None, "the prompt has 9999 tokens")


def test_torn_and_incomplete_predictions_are_asked_again(tmp_path: Path) -> None:
    file = tmp_path / predictions.FILE
    assert predictions.read(file) == []
    whole = [{"row": row, "draw": draw, "text": "é\ud800"} for row, draw in ((2, 0), (0, 0), (0, 1), (2, 1), (1, 1))]
    predictions.write(file, whole)
    assert predictions.read(file) == whole
    file.write_bytes(
        file.read_bytes() + predictions.encoded({"row": 3, "draw": 0})[:-9] + b'\n[1]\nnull\n{}\n{"row": 1'
    )
    assert predictions.read(file) == whole
    assert [(line["row"], line["draw"]) for line in predictions.complete(whole, 2)] == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert predictions.complete([*whole, whole[0]], 2) == predictions.complete(whole, 2), "none counts twice"


# --------------------------------------------------------------------------------------------------------- the figures


def line(number: int, acc: float, kind: str = "bench", draw: int = 0, rotation: int = 0, of: int = 1) -> dict:
    """A prediction: question 0 and 1 show one picture, 2 and 3 the next; categories in turn."""
    category, parent = ("colour", "shape")[number % 2], "seen"
    sample = f"{kind}:{number}#{rotation}"
    truth = encode_question(
        kind, ("x", "y"), "A", sample, question=str(number), category=category, l2_category=parent, rotation=rotation,
        rotations=of, questions=8,
    )  # fmt: skip
    return {
        "row": number * of + rotation, "draw": draw, "id": sample, "kind": kind, "category": category, "l2_category": parent,
        "prompt": f"{number}?", "images": [f"{number // 2}.jpg"], "ground_truth": truth, "acc": acc, "error": "",
        **dict.fromkeys(MEANS, acc),
    }  # fmt: skip


def test_figures_by_hand() -> None:
    """8 questions; the base gets 2 right. The model gains 4, loses 1 and has 5."""
    new, old = (1, 1, 1, 1, 1, 0, 0, 0), (0, 0, 0, 0, 1, 1, 0, 0)
    groups = groups_of(
        [line(k, acc) for k, acc in enumerate(new)], [line(k, acc) for k, acc in enumerate(old)], {"bench": 0.5}
    )
    assert [(group.scope, group.name, group.accuracy.n) for group in groups] == [
        ("overall", "", 8), ("l2_category", "seen", 8), ("category", "colour", 4), ("category", "shape", 4)
    ]  # fmt: skip
    assert [group.accuracy.mean for group in groups] == [5 / 8, 5 / 8, 3 / 4, 2 / 4]
    overall = groups[0]
    assert overall.circular is None and overall.by_picture.groups == 4 and overall.chance == 0.5
    assert overall.against is not None
    assert (overall.against.base.mean, overall.against.change.mean) == (2 / 8, 3 / 8)
    assert (overall.against.gained, overall.against.lost) == (4, 1)
    assert overall.against.p == pytest.approx(2 * (1 + 5) / 2**5)  # at most 1 of 5 heads, both sides
    assert overall.against.change.low < 3 / 8 < overall.against.change.high
    value = as_value(overall)
    assert value["difference"]["gained"] == 4 and json.loads(json.dumps(value)) == value
    assert results_table(groups).row_count == 4


def test_copies_of_a_picture_are_one_picture(section: dict, tmp_path: Path) -> None:
    """Copies in a benchmark's file have references of their own; the manifest knows that they are copies."""
    twice = tsv(tmp_path / "twice.tsv", [photo(k // 2, 96, 80) for k in range(12)])
    evaluation_set = requested_set(EvaluationRequest(benchmarks=[("mmbench", str(twice))]), lambda tasks: [section])
    lines = [record(evaluation_set.rows[k], k, 0, "<answer>A</answer>", evaluation_set.protocol) for k in range(12)]
    refs = {ref for line in lines for ref in line["images"]}
    assert len(refs) == 12
    assert groups_of(lines)[0].by_picture.groups == 12
    assert groups_of(lines, alike=picture_groups(evaluation_set, refs))[0].by_picture.groups == 6


def test_circular_evaluation_wants_every_order() -> None:
    orders = {0: (1, 1), 1: (1, 0), 2: (0, 1), 3: (1, 1)}
    lines = [line(k, acc, rotation=r, of=2) for k, accs in orders.items() for r, acc in enumerate(accs)]
    overall = groups_of(lines, lines)[0]
    assert (overall.accuracy.mean, overall.accuracy.n) == (3 / 4, 4), "in the benchmark's own order"
    assert overall.circular is not None and (overall.circular.mean, overall.circular.n) == (2 / 4, 4)
    assert overall.by_picture.mean == 2 / 4
    assert overall.against is not None and overall.against.base.mean == 2 / 4 and overall.against.p == 1.0


def test_several_answers_to_a_question_count_as_one() -> None:
    lines = [
        line(k, acc, draw=draw) for k, accs in enumerate(((1, 0), (1, 1), (0, 0))) for draw, acc in enumerate(accs)
    ]
    overall = groups_of(lines, lines, draws=2)[0]
    assert (overall.accuracy.mean, overall.accuracy.n) == (0.5, 3)
    assert overall.against is not None and overall.against.p is None


def test_another_base_is_no_base() -> None:
    mine = [line(0, 1), line(1, 1)]
    with pytest.raises(ResultsError, match="1 questions, and this one 2"):
        groups_of(mine, mine[:1])
    with pytest.raises(ResultsError, match="another prompt"):
        groups_of(mine, [mine[0], {**mine[1], "prompt": "other"}])


# ------------------------------------------------------------------------------------------------------------ bad input


def test_a_benchmark_that_cannot_be_asked_is_said(tmp_path: Path, questions: Path, photo_folder: Path) -> None:
    assert "nothing to ask" in refused("model")
    assert "NAME=PATH" in refused("model", "--bench", "mmbench")
    assert "mmbench" in refused("model", "--bench", f"mmbenhc={questions}")  # and what was meant
    assert "does not exist" in refused("model", "--bench", "mmbench=/no/such.tsv")
    assert "no questions" in refused("model", "--bench", f"folder={photo_folder}")
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text("index\timage\ttext\n1\tabc\twhat?\n")
    said = refused("model", "--bench", f"mmbench={wrong}")
    assert str(wrong) in said, said
    header, *lines = questions.read_text().splitlines()
    columns = header.split("\t")
    broken = [line.split("\t") for line in lines]
    for fields in broken:
        fields[columns.index("image")] = "bm8gcGljdHVyZQ=="
    missing = tmp_path / "missing.tsv"
    missing.write_text("\n".join([header, *("\t".join(fields) for fields in broken)]) + "\n")
    said = refused("model", "--bench", f"mmbench={missing}")
    assert "not_an_image" in said or "no usable" in said or "unreadable" in said, said


def test_other_mistakes_are_said(tmp_path: Path, questions: Path) -> None:
    bench = ("--bench", f"mmbench={questions}")
    assert "answer format" in refused("model", *bench, "--answer-format", "shout")
    assert "unknown task" in refused("model", "--task", "rotaton")
    assert "no key" in refused("model", *bench, "--set", "optoins.side=3")
    assert "temperature above 0" in refused("model", *bench, "--n", "3")
    assert "leave out --path" in refused("model", "--run", tmp_path, "--path", tmp_path)
    assert "holds no metrics" in refused("model", "--run", tmp_path)
    assert "there is no model folder" in refused(tmp_path / "none", *bench, "--out", tmp_path / "out")


@pytest.mark.slow
def test_a_folder_that_is_no_model_is_said_with_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"actor.*fsdp_config"):
        resolve(str(tmp_path), tmp_path, print)
    for step in (2, 10):
        (tmp_path / "checkpoints" / f"global_step_{step}").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"say .*global_step_10"):
        resolve(str(tmp_path), tmp_path, print)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no weights"):
        resolve(str(tmp_path), tmp_path, print)
    actor = tmp_path / "checkpoints" / "global_step_2" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "fsdp_config.json").write_text('{"world_size": 1}')
    with pytest.raises(ModelError, match="merger failed"):
        resolve(str(actor.parent), tmp_path / "work", print)
    (actor / "huggingface" / "model.safetensors").write_bytes(b"")
    said: list[str] = []
    found = resolve(str(actor.parent), tmp_path / "work", said.append)
    assert found.path == str(actor / "huggingface") and "copy" in said[0]
    assert resolve("Qwen/Qwen2.5-VL-3B-Instruct", tmp_path, print).path == "Qwen/Qwen2.5-VL-3B-Instruct"


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that sees nothing."""
    from ssl4rl_plugin.demo.model import build_model, save, train_tokenizer

    folder = tmp_path_factory.mktemp("models") / "text"
    tokenizer = train_tokenizer(["user assistant system what is it"])
    model = build_model(tokenizer, 0, vision=False)
    save(model, tokenizer, folder)
    model.save_pretrained(folder)
    return folder


def test_a_model_without_a_processor_is_not_asked_about_pictures(
    text_model: Path, questions: Path, tmp_path: Path
) -> None:
    said = refused(text_model, "--bench", f"mmbench={questions}", "--out", tmp_path / "out")
    assert "no processor" in said and "mmbench" in said


def test_a_folder_goes_on_with_its_own_evaluation_only(
    text_model: Path, section: dict, questions: Path, tmp_path: Path
) -> None:
    """Without an engine: everything was answered before."""
    evaluation_set = requested_set(EvaluationRequest(benchmarks=[("mmbench", str(questions))]), lambda tasks: [section])
    out, told = tmp_path / "out", []
    out.mkdir()
    lines = [record(evaluation_set.rows[k], k, 0, "<answer>A</answer>", evaluation_set.protocol) for k in range(12)]
    predictions.write(out / predictions.FILE, lines)
    with pytest.raises(EvaluationError, match="choose another --out"):
        evaluate(str(text_model), evaluation_set, out, told.append, lambda *_: None)
    (out / predictions.FILE).unlink()
    with pytest.raises(ModelError, match="no processor"):  # now it knows what it is
        evaluate(str(text_model), evaluation_set, out, told.append, lambda *_: None)
    predictions.write(out / predictions.FILE, reversed(lines))
    assert evaluate(str(text_model), evaluation_set, out, told.append, lambda *_: None) == lines
    fewer = requested_set(EvaluationRequest(benchmarks=[("mmbench", str(questions))], limit=5), lambda tasks: [section])
    with pytest.raises(EvaluationError, match="other rows and number of rows"):
        evaluate(str(text_model), fewer, out, told.append, lambda *_: None)
    other = tmp_path / "other"
    shutil.copytree(text_model, other)
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    with pytest.raises(EvaluationError, match="other model"):
        evaluate(str(other), evaluation_set, out, told.append, lambda *_: None)
    # As a base it is compared with, whatever the model was, if the same was asked.
    assert base_lines(str(out), evaluation_set, tmp_path, told.append, lambda *_: None) == lines
    with pytest.raises(ResultsError, match="other rows"):
        base_lines(str(out), fewer, tmp_path, told.append, lambda *_: None)
    predictions.write(out / predictions.FILE, lines[:-1])
    with pytest.raises(ResultsError, match="not finished"):
        base_lines(str(out), evaluation_set, tmp_path, told.append, lambda *_: None)


def test_benchmarks_alone_need_no_settings_of_tasks(section: dict) -> None:
    with pytest.raises(SettingsError, match="nothing to ask"):
        requested_set(EvaluationRequest(), lambda tasks: [section])


@pytest.mark.slow
def test_an_engine_that_cannot_start_says_why(section: dict, questions: Path, tmp_path: Path) -> None:
    """The real process, with a model that is not there any more."""
    evaluation_set = requested_set(EvaluationRequest(benchmarks=[("mmbench", str(questions))]), lambda tasks: [section])
    job = EngineJob(
        evaluation_set.rows, evaluation_set.protocol, evaluation_set.engine, str(tmp_path / "gone"), None, False, (0, 1)
    )
    with pytest.raises(EngineError, match=r"(?s)engine 0 ended: .*gone.*engine-0\.log"):
        list(answers(job, tmp_path, [{}]))
