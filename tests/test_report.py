"""`ssl4rl report` and the run log behind it, on made-up run folders in verl's own file formats."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from test_build import MIX, built, tsv
from typer.testing import CliRunner

from ssl4rl_plugin.analysis.report import MOST_RUNS, report_html, write_report
from ssl4rl_plugin.analysis.report.curriculum import arms_of
from ssl4rl_plugin.analysis.report.curves import step_times
from ssl4rl_plugin.analysis.report.page import picture, prompt_parts, readable, short_names
from ssl4rl_plugin.analysis.report.plots import moving_average
from ssl4rl_plugin.analysis.runlog import LoggedArm, RunError, RunLog, difference
from ssl4rl_plugin.analysis.statistics import wilson
from ssl4rl_plugin.cli import app
from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleStream, extra_info
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.run_rows import benchmark_rows
from ssl4rl_plugin.training.settings import Settings
from ssl4rl_plugin.training.stored_rows import StoredRows

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)> \u202egnp.exe \x00 {{ 7 * 7 }} &amp; \ud800"


def make_images(folder: Path, count: int = 12, side: int = 96) -> Path:
    """Colourful noise with structure at several scales; no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = random.Random(f"image {number}")
        small = Image.frombytes("RGB", (6, 6), bytes(rng.randrange(256) for _ in range(108)))
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:03}.png")
    return folder


def ssl4rl_section(images: Path, tasks: list[str], val_samples: int = 6) -> dict:
    return {
        "tasks": tasks,
        "options": {"side": 56},
        "seed": 3,
        "epochs": 2,
        "val_samples": val_samples,
        "source": {
            "name": "folder",
            "path": str(images),
            "options": {},
            "manifest": None,
            "val_fraction": 0.4,
            "max_pixels": 1048576,
        },
        "answer_format": "answer_only",
        "format_weight": 0.1,
        "partial_credit": 0.5,
        "system_prompt": None,
        "transductive": False,
    }


def write_lines(path: Path, rows: list[dict], tail: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail, encoding="utf-8")


def write_run(run: Path, section: dict, skills: dict[int, float], steps: int, n: int = 4) -> None:
    """A run as verl writes it, of a model that answers right with probability `skills[step]`, else at random."""
    settings = Settings.from_config(section)
    manifest = load_manifest(settings)
    rng = random.Random(0)
    config = {
        "ssl4rl": section,
        "data": {"ssl4rl": "${ssl4rl}", "train_batch_size": 16, "max_response_length": 16},
        "actor_rollout_ref": {"model": {"path": "/models/tiny"}, "rollout": {"n": n}, "actor": {"optim": {"lr": 5e-4}}},
        "algorithm": {"adv_estimator": "grpo"},
        "trainer": {"total_training_steps": steps, "wandb_api_key": "0123456789abcdef"},
    }
    file = run / "hydra" / ".hydra" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(config), encoding="utf-8")

    def answer(made, skill: float) -> tuple[str, dict]:
        grader = made.arm.task.grader(made.arm.level)
        given = made.gold if rng.random() < skill else grader.render(rng.choice(list(grader.values())))
        text = settings.answer_format.render(given) if rng.random() < 0.7 + skill / 4 else f"It is {given}, I think"
        figures = compute_score(
            made.arm.data_source, text, made.truth_json, extra_info(made), answer_format=section["answer_format"]
        )
        return text, figures

    def row(made, step: int, skill: float, uid: str, validation: bool) -> dict:
        text, figures = answer(made, skill)
        base = {"input": f"user\n{made.sample.question}\nassistant\n", "output": text, "gts": made.truth_json}
        score = figures.pop("score")
        extras = {"reward": score, **figures} if validation else {}
        return {**base, "score": score, "step": step, **extras, "uid": uid}

    val = SampleStream(settings, manifest, "val")
    for step, skill in skills.items():
        rows = [row(val[i], step, skill, f"v{i}_0_0", True) for i in range(len(val))]
        rng.shuffle(rows)  # verl sorts by a random uid
        write_lines(run / "validation" / f"{step}.jsonl", rows)
    train = SampleStream(settings, manifest, "train")
    last = max(skills.values())
    rows = [row(train[i], steps, last / 2, f"t{i}_{k}_0", False) for i in range(2) for k in range(n)]
    write_lines(run / "rollouts" / f"{steps}.jsonl", rows)
    metrics = [{"step": 0, "data": {"val-core/ssl4rl/altered_patch/acc/mean@1": 0.2}}]
    for step in range(1, steps + 1):
        metrics.append({"step": step, "data": step_metrics(step, steps, rng)})
    write_lines(run / "metrics.jsonl", metrics)


def step_metrics(step: int, steps: int, rng: random.Random) -> dict[str, float]:
    done = 1 / (1 + math.exp(-10 * (step / steps - 0.5)))
    gen, update = 9 + rng.random() * 2, 4 + rng.random()
    data = {
        "critic/score/mean": 0.15 + 0.75 * done + rng.gauss(0, 0.03),
        "rollout_corr/k3_kl": 1e-5 + abs(rng.gauss(0, 4e-6)),
        "rollout_corr/kl": abs(rng.gauss(0, 2e-5)),
        "training/rollout_probs_diff_mean": 2e-5 + abs(rng.gauss(0, 4e-6)),
        "actor/kl_loss": 0.02 * done + abs(rng.gauss(0, 1e-3)),
        "actor/entropy": 1.4 - done + rng.gauss(0, 0.02),
        "actor/grad_norm": 0.3 + 0.5 * math.exp(-((step / steps - 0.5) ** 2) * 30) + rng.random() * 0.1,
        "response_length/mean": 6 + rng.random(),
        "response_length/max": 12 + int(rng.random() * 4),
        "response_length/min": 4,
        "timing_s/gen": gen,
        "timing_s/old_log_prob": 1.9,
        "timing_s/adv": 0.2,
        "timing_s/update_actor": update,
        "timing_s/update_weights": 0.4,
        "timing_s/agent_loop/generate_sequences/mean": 3.0,
    }
    data["timing_s/step"] = gen + update + 3.1
    return data


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return make_images(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    write_run(run, ssl4rl_section(images, ["altered_patch", "rotation"], 20), {0: 0.0, 6: 0.5, 12: 0.95}, steps=12)
    return run


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory) -> str:
    """The page of the finished run."""
    return write_report(finished, tmp_path_factory.mktemp("pages") / "new" / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def bare(tmp_path) -> Path:
    """A run with one step of metrics and nothing else."""
    write_lines(tmp_path / "run" / "metrics.jsonl", [{"step": 1, "data": {"critic/score/mean": 0.5}}])
    return tmp_path / "run"


def response(**changes) -> dict:
    gts = json.dumps({"task": "rotation", "level": "pair_90", "options": {}, "truth": 90, "sample": "val:0"})
    row = {"input": "q", "output": "<answer>90</answer>", "gts": gts, "score": 1.0, "step": 0, "uid": "a_0_0"}
    figures = dict.fromkeys(("reward", "acc", "format", "valid", "similarity"), 1.0)
    row |= figures | {"level": "pair_90", "sample": "val:0", "error": ""}
    return row | changes


def one_response_of(finished: Path, folder: Path) -> Path:
    """A run with the first line of the last validation, and an empty folder for its config."""
    run = folder / "run"
    (run / ".hydra").mkdir(parents=True)
    line = (finished / "validation" / "12.jsonl").read_text(encoding="utf-8").splitlines()[0]
    write_lines(run / "validation" / "12.jsonl", [json.loads(line)])
    return run


def visible(html: str) -> str:
    return re.sub(r"<style>.*?</style>|data:image/[^\"]+", "", html, flags=re.DOTALL)


# The run log.


def test_metrics_survive_torn_lines_nan_and_a_resumed_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step":1,"data":{"a":1.0,"b":null,"c":NaN,"d":"text"}}\n{"step":2,"data":{"a":2.0,"only":1}}\n{"step":3,"da'
    )
    write_lines(tmp_path / "metrics-2.jsonl", [{"step": 2, "data": {"a": 20.0}}])
    write_lines(tmp_path / "metrics-10.jsonl", [{"step": 2, "data": {"a": 21.0}}, {"step": 3, "data": {"a": 3}}, [1]])
    log = RunLog(tmp_path)
    assert [path.name for path in log.metric_files] == ["metrics.jsonl", "metrics-2.jsonl", "metrics-10.jsonl"]
    assert log.curve("a") == ([1, 2, 3], [1.0, 21.0, 3])
    assert log.metrics[1] == {"a": 1.0} and log.metrics[2]["only"] == 1
    assert log.curve("b") == log.curve("b", gaps=True) == log.curve("unknown") == ([], [])
    assert log.gaps == {"b": [1], "c": [1]}
    assert log.torn_lines == 2


@pytest.mark.parametrize("content", [None, {}])
def test_a_folder_without_a_run_says_what_a_run_is(tmp_path, content):
    folder = tmp_path if content is not None else tmp_path / "missing"
    with pytest.raises(RunError, match=re.escape(str(folder))):
        RunLog(folder)


def test_accuracy_counts_questions_and_not_answers(tmp_path):
    other = json.loads(response()["gts"]) | {"sample": "val:1"}
    rows = [response(acc=1.0), response(acc=0.0), response(acc=0.0, gts=json.dumps(other)), response(acc=None)]
    write_lines(tmp_path / "validation" / "0.jsonl", rows, tail='{"input": "half')
    log = RunLog(tmp_path)
    ((arm, (point,)),) = log.arms.items()
    assert (point.step, point.kind, point.rate.n, point.rate.mean) == (0, LoggedArm("rotation", "pair_90"), 2, 0.25)
    assert arm == point.kind and log.torn_lines == 1
    assert log.task_figure("format") == {"rotation": ([0], [1.0])}


def test_headline_compares_first_and_last_validation(finished):
    first, second = RunLog(finished).headline()
    assert (first.kind.label, second.kind.label) == ("altered_patch:2x2_mask", "rotation:pair_90")
    assert first.chance == 0.25 and json.loads(first.kind.options) == {"side": 56}
    assert (first.before.step, first.after.step, first.after.rate.n) == (0, 12, 20)
    assert first.verdict == "above chance"
    assert first.change.change.mean == pytest.approx(first.after.rate.mean - first.before.rate.mean)
    assert first.change.gained - first.change.lost == round(20 * first.change.change.mean)
    assert first.change.p is not None and first.change.change.low > 0


def test_questions_know_the_group_of_their_item(finished):
    log = RunLog(finished)
    manifest = load_manifest(log.settings)
    group_of = {item.id: item.group for item in manifest.items("val")}
    found = {log.groups[f"{row.sample} {row.truth}"]: group_of[row.item] for row in log.validation(12)}
    assert found and all(group == own for group, own in found.items())
    assert log.headline()[0].after.rate.groups == len(
        {group_of[row.item] for row in log.validation(12) if row.arm.task == "altered_patch"}
    )


def test_groups_of_items_are_unknown_without_items_or_source(finished, tmp_path):
    rows = [json.loads(line) for line in (finished / "validation" / "12.jsonl").read_text().splitlines()]
    write_lines(tmp_path / "run" / "validation" / "12.jsonl", rows)
    assert RunLog(tmp_path / "run").groups == {}  # no config
    write_lines(tmp_path / "other" / "validation" / "12.jsonl", [{**row, "item": ""} for row in rows])
    assert all(row.last.rate.groups is None for row in RunLog(tmp_path / "other").headline())


def validation_of(answers: list[tuple[int, float]]) -> list[dict]:
    """Rotations with these truths, each with the number of correct answers out of one."""
    return [
        response(
            acc=acc,
            answer=str(truth if acc else (truth + 90) % 360),
            gts=json.dumps(json.loads(response()["gts"]) | {"truth": truth, "sample": f"val:{number}"}),
        )
        for number, (truth, acc) in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([(90 * (k % 4), float(k % 4 == 0)) for k in range(64)], "at chance"),
        ([(90 * (k % 4), float(k % 2 == 0)) for k in range(64)], "above chance"),
        ([(90 * (k % 4), 0.0) for k in range(64)], "below chance"),
    ],
)
def test_verdicts(tmp_path, answers, verdict):
    write_lines(tmp_path / "validation" / "5.jsonl", validation_of(answers))
    (row,) = RunLog(tmp_path).headline()
    assert row.verdict == verdict and f">{verdict}</span>" in report_html(RunLog(tmp_path))
    low, high, mean = row.last.rate.low, row.last.rate.high, row.last.rate.mean
    assert (verdict == "at chance") == (low <= 0.25 <= high) and 0 <= low <= mean <= high


def test_a_verdict_counts_the_other_tasks(tmp_path):
    """Of five tasks at chance, one looks unusual in every fifth run; with Holm's correction in every twentieth."""
    levels = ["pair_90", "single_90"]
    rows = []
    for number, level in enumerate(levels):
        # 24 of 64 right at one level, chance at the other.
        for k, row in enumerate(validation_of([(90 * (k % 4), float(k < 24)) for k in range(64)])):
            gts = json.loads(row["gts"]) | {"level": level, "sample": f"val:{number * 64 + k}"}
            acc = row["acc"] if number == 0 else float(k % 4 == 0)
            rows.append(row | {"gts": json.dumps(gts), "acc": acc})
    write_lines(tmp_path / "validation" / "5.jsonl", rows)
    first, second = RunLog(tmp_path).headline()
    assert first.p == pytest.approx(2 * first.last.rate.p_against(0.25)) and second.p == 1.0


def test_one_answer_always_is_a_collapse_in_table_and_page(tmp_path):
    from ssl4rl_plugin.analysis.terminal import headline_table

    rows = [
        row | {"answer": "90", "acc": float(json.loads(row["gts"])["truth"] == 90)}
        for row in validation_of([(90 * (k % 4), 0.0) for k in range(64)])
    ]
    write_lines(tmp_path / "validation" / "5.jsonl", rows)
    log = RunLog(tmp_path)
    (row,) = log.headline()
    assert (row.last.top.text, row.last.top.share, row.last.top.most_right) == ("90", 1.0, 0.25)
    table = headline_table([row])
    shown = [cell for column in table.columns for cell in column.cells]
    assert "90: 100 %" in shown and any("collapsed onto one answer" in cell for cell in shown)
    text = visible(report_html(log))
    assert ">collapsed onto one answer</span>" in text and "mostly 90: 100.0 %" in text


def test_answers_that_cannot_be_read_are_no_collapse(tmp_path):
    rows = [row | {"answer": ""} for row in validation_of([(90 * (k % 4), 0.0) for k in range(64)])]
    write_lines(tmp_path / "validation" / "5.jsonl", rows)
    (row,) = RunLog(tmp_path).headline()
    assert row.verdict == "answers not readable" and ">answers not readable</span>" in report_html(RunLog(tmp_path))


def test_a_model_that_is_right_has_not_collapsed(tmp_path):
    """Where one truth is the most frequent by nature, so is one answer."""
    write_lines(tmp_path / "validation" / "5.jsonl", validation_of([(0, 1.0)] * 60 + [(90, 1.0)] * 4))
    (row,) = RunLog(tmp_path).headline()
    assert row.last.top.share > 0.9 and not row.last.top.collapsed and row.verdict == "above chance"


def test_the_curves_come_first(page):
    text = visible(page)
    assert text.index("Held-out accuracy: altered_patch") < text.index("Training steps") < text.index("<table>")


def test_without_dumps_the_accuracy_comes_from_the_metrics(tmp_path):
    data = {"val-core/ssl4rl/rotation/acc/mean@2": 0.5, "val-core/ssl4rl/rotation/acc/best@2/mean": 0.7}
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "data": data}])
    (row,) = RunLog(tmp_path).headline()
    assert row.before.rate.mean == 0.5 and row.before.rate.n == 0 and row.after is None
    assert row.chance is None and row.verdict == ""


def test_rows_of_another_kind_are_left_alone(tmp_path):
    truths = ("B", None, '{"task": 1}', "[" * 100_000)
    rows = [*(response(gts=truth) for truth in truths), {"score": None}]
    write_lines(tmp_path / "validation" / "0.jsonl", rows)
    log = RunLog(tmp_path)
    assert log.arms == {} and [row.arm for row in log.validation(0)] == [None] * 5
    assert "No validation was recorded" in report_html(log)


def test_a_sample_is_made_again_with_its_pictures(finished):
    log = RunLog(finished)
    for row in [*log.validation(12)[:3], *log.rollout(12)[:2]]:
        made = log.sample_of(row)
        assert (made.key, made.truth_json, made.gold) == (row.sample, row.truth, row.gold)
        assert made.sample.images[0].width == 56


def test_a_sample_that_comes_out_differently_is_refused(finished, tmp_path):
    text = (finished / "hydra" / ".hydra" / "config.yaml").read_text()
    run = one_response_of(finished, tmp_path)
    (run / ".hydra" / "config.yaml").write_text(text.replace("seed: 3", "seed: 5"))
    log = RunLog(run)
    with pytest.raises(RunError, match="comes out differently"):
        log.sample_of(log.validation(12)[0])
    assert "comes out differently" in report_html(log)


def test_a_relative_image_path_is_seen_from_where_the_run_was_started(finished, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = one_response_of(finished, tmp_path)
    text = (finished / "hydra" / ".hydra" / "config.yaml").read_text().replace(str(images), images.name)
    (run / ".hydra" / "config.yaml").write_text(text)
    (run / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"cwd": str(images.parent)}}}))
    log = RunLog(run)
    assert log.sample_of(log.validation(12)[0]).sample.images


def test_step_times_add_up_to_the_step(finished):
    log = RunLog(finished)
    steps, parts = step_times(log)
    assert steps == list(range(1, 13)) and list(parts)[::3] == ["generation", "actor update"]
    for index, total in enumerate(log.curve("timing_s/step")[1]):
        assert sum(values[index] for values in parts.values()) == pytest.approx(total)
    assert parts["other"][0] == pytest.approx(3.1 - 1.9 - 0.2 - 0.4)


# The page.


def test_the_page_shows_all_of_a_finished_run(page):
    text = visible(page)
    for title in ("altered_patch", "pair_90", "above chance", "Learnt", "Training reward", "Where the time goes",
                  "Rollout against trainer", "One training group", "Exact form", "/models/tiny"):  # fmt: skip
        assert title in text, title
    assert page.count("<svg") >= 9 and "data:image/png;base64," in page
    assert "Notes on this run" not in text and "No picture" not in text
    assert len(page) < 3_000_000


def test_the_page_loads_nothing_and_hides_secrets(page):
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<link|@import|(src|href)=\"(?!data:|#)|url\((?!#)", page)
    assert "0123456789abcdef" not in page and "wandb_api_key: (hidden)" in page


def test_figures_follow_the_page_into_dark_mode(page):
    svgs = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert all("var(--" in svg for svg in svgs)
    assert not any(re.search("#0a0[bc]0|<metadata|#000000", svg) for svg in svgs)
    ids = [name for svg in svgs for name in set(re.findall(r'<clipPath id="([^"]+)"', svg))]
    assert len(ids) == len(set(ids))


def test_what_a_model_wrote_stays_text(tmp_path):
    rows = [response(output=HOSTILE, error=HOSTILE, input=HOSTILE, acc=0.0)]
    write_lines(tmp_path / "validation" / "0.jsonl", rows)
    name = tmp_path / "hydra" / ".hydra" / "config.yaml"
    name.parent.mkdir(parents=True)
    name.write_text("a: </pre><script>alert(1)</script>")
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html and "onerror=alert(1)>" not in html and "&lt;script&gt;" in html
    assert "{{ 7 * 7 }}" in html and "\u202e" not in html and "\x00" not in html
    assert "‹U+202E›" in html and "‹U+D800›" in html


def test_names_in_the_metrics_stay_text(tmp_path):
    odd = "<script>alert(1)<\u202e\ud800 $x$ {{ 7 * 7 }}"
    names = [
        f"val-core/bench/{odd}/{odd}/acc/mean@1",
        f"val-core/ssl4rl/{odd}/acc/mean@1",
        f"curriculum/{odd}/{odd}/share",
    ]
    rows = [{"step": step, "data": dict.fromkeys(names, 0.5) | {f"{odd}": None}} for step in (0, 1)]
    for run in ("a", "<b>"):
        write_lines(tmp_path / run / "metrics.jsonl", rows)
    for logs in ([RunLog(tmp_path / "<b>")], [RunLog(tmp_path / run) for run in ("a", "<b>")]):
        html = report_html(*logs)
        assert "<script" not in html and "<b></b>" not in html and "<b><b>" not in html
        assert "\u202e" not in html and "{{ 7 * 7 }}" in html and html.encode()


def test_the_page_says_what_is_missing(bare):
    text = visible(report_html(RunLog(bare)))
    for words in ("no validation dumps", "no config", "No validation was recorded", "trainer.validation_data_dir"):
        assert words in text, words


def test_the_page_says_how_far_a_run_got(finished, tmp_path):
    run = tmp_path / "killed"
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    run.mkdir()
    (run / "metrics.jsonl").write_text("\n".join(lines[:6]) + "\n" + lines[6][:40])
    (run / ".hydra").mkdir()
    (run / ".hydra" / "config.yaml").write_text((finished / "hydra" / ".hydra" / "config.yaml").read_text())
    write_lines(run / "validation" / "3.jsonl", [response(step=3)])
    text = visible(report_html(RunLog(run)))
    for words in ("stopped at step 5 of 12", "only one validation", "1 line(s) could not", "before the first update"):
        assert words in text, words


def test_a_task_that_is_not_installed_is_named(tmp_path):
    gts = json.loads(response()["gts"]) | {"task": "gone"}
    write_lines(tmp_path / "validation" / "0.jsonl", [response(gts=json.dumps(gts))])
    assert "gone:pair_90 is not installed here" in report_html(RunLog(tmp_path))


def test_the_command_writes_the_page_and_refuses_other_folders(bare, tmp_path):
    result = CliRunner().invoke(app, ["report", str(bare)])
    assert result.exit_code == 0 and (bare / "report.html").is_file()
    assert result.stdout.strip() == str(bare / "report.html")
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2 and "holds no metrics" in result.stderr and "Traceback" not in result.stderr


def test_text_and_pictures_of_a_page():
    assert readable("a" * 10, 4) == "aaaa … (10 characters in all)"
    assert readable("tab\t line\r\n next") == "tab\t line\n next"
    assert prompt_parts("<image><image>\nWhich?") == [1, 2, "Which?"]
    assert prompt_parts("Look: <image> and say") == ["Look:", 1, "and say"]
    small, large = picture(Image.new("RGB", (56, 28))), picture(Image.new("RGB", (4000, 1000)))
    assert small.coarse and small.width == 168 and small.uri.startswith("data:image/png")
    assert not large.coarse and large.width == 300 and large.uri.startswith("data:image/jpeg")


# Several runs, benchmarks, curricula.


def test_changes_on_the_same_questions_by_hand():
    first = {"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0, "e": 0.0, "only first": 1.0}
    second = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.0, "e": 1.0, "only second": 0.0}
    found = difference(first, second)
    assert (found.gained, found.lost, found.change.groups) == (3, 1, 5)
    assert found.change.mean == pytest.approx(2 / 5)
    assert found.p == pytest.approx(2 * (1 + 4) / 2**4)  # two-sided: 0 or 1 of 4, or as many on the other side
    assert difference({"a": 0.5}, {"a": 1.0}).p is None and difference({"a": 1.0}, {"b": 1.0}) is None


def test_the_output_of_verls_console_logger_is_read(finished, tmp_path):
    from verl.utils.logger.aggregate_logger import concat_dict_to_str

    log = RunLog(finished)
    odd = {"val-core/bench/a/b - c: d/acc/mean@1": np.float64(0.25), "e": 1e-7, "x": float("nan"), "text": "no"}
    lines = [concat_dict_to_str(data | (odd if step == 1 else {}), step=step) for step, data in log.metrics.items()]
    text = "starting\n\x1b[36m(TaskRunner pid=7)\x1b[0m " + "\nTraining Progress:  1%\n(TaskRunner pid=7) ".join(lines)
    (tmp_path / "run").mkdir()
    for name in ("run/train.log", "out.txt"):
        (tmp_path / name).write_text(text + "\n(TaskRunner pid=7) step:13 - critic/sco")
        read = RunLog(tmp_path / name.removesuffix("/train.log"))
        assert read.curve("critic/score/mean") == log.curve("critic/score/mean")
        assert read.metrics[1]["e"] == 1e-7 and read.gaps == {"x": [1]}
        assert read.metrics[0] == log.metrics[0] and "text" not in read.metrics[1]
    html = write_report(tmp_path / "out.txt").read_text()
    assert (tmp_path / "out.html").is_file() and "Training reward" in html
    (tmp_path / "other.txt").write_text("no run at all")
    with pytest.raises(RunError, match="holds no metrics of verl"):
        RunLog(tmp_path / "other.txt")


def test_metrics_that_are_no_numbers_are_gaps_and_said(tmp_path):
    rows = [
        {"step": k, "data": {"critic/score/mean": None if k in (3, 4) else 0.5, "timing_s/step": 1}}
        for k in range(1, 8)
    ]
    write_lines(tmp_path / "metrics.jsonl", rows)
    log = RunLog(tmp_path)
    steps, values = log.curve("critic/score/mean", gaps=True)
    assert steps == list(range(1, 8)) and [math.isnan(value) for value in values] == [k in (3, 4) for k in steps]
    assert all(math.isnan(a) == math.isnan(b) for a, b in zip(values, moving_average(values), strict=True))
    html = report_html(log)
    assert (
        "No usable number (NaN, infinite, or far too large) at step 3, 4, a gap in the curves: critic/score/mean."
        in html
    )
    (svg,) = (svg for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL) if 'aria-label="Training reward"' in svg)
    (path,) = re.findall(r'<path d="(M[^"]*)"[^>]*stroke: var\(--series-1\)', svg)
    assert path.count("M") == 2, "the curve is broken where there is no number"


@pytest.fixture(scope="module")
def second(finished, images, tmp_path_factory) -> Path:
    """A run like the finished one that has not learnt, with another learning rate."""
    run = tmp_path_factory.mktemp("other") / "second"
    write_run(run, ssl4rl_section(images, ["altered_patch", "rotation"], 20), {0: 0.0, 6: 0.0, 12: 0.1}, steps=12)
    file = run / "hydra" / ".hydra" / "config.yaml"
    file.write_text(file.read_text().replace("lr: 0.0005", "lr: 0.001").replace("0123456789abcdef", "fedcba9876543210"))
    return run


def test_several_runs_on_one_page(finished, second, tmp_path):
    result = CliRunner().invoke(app, ["report", str(finished), str(second), "--out", str(tmp_path / "both.html")])
    assert result.exit_code == 0, result.output
    html = (tmp_path / "both.html").read_text(encoding="utf-8")
    text = visible(html)
    svgs = {name: svg for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)
            for name in re.findall(r'aria-label="([^"]*)"', svg)}  # fmt: skip
    for title in ("Training reward", "Entropy", "Response length: mean", "Held-out accuracy: rotation:pair_90"):
        assert ">finished<" in svgs[title] and ">second<" in svgs[title], title
    (row,) = re.findall(r"<tr><td><code>actor_rollout_ref.actor.optim.lr.*?</tr>", text)
    assert re.findall(r"<code>([^<]*)</code>", row)[1:] == ["0.0005", "0.001"]
    assert "fedcba" not in text and "0123456789abcdef" not in text and text.count("(hidden)") >= 4
    assert "data.train_batch_size</code>" not in text, "what is the same is no difference"
    assert "Against the first run" in text and "Answered differently" in text
    ids = [name for svg in svgs.values() for name in set(re.findall(r'<clipPath id="([^"]+)"', svg))]
    assert len(ids) == len(set(ids)) and len(html) < 5_000_000
    last = [RunLog(run).outcomes[12] for run in (finished, second)]
    found = [difference(last[0][arm], last[1][arm]) for arm in last[0]]
    for one in found:
        assert f"{one.gained} gained, {one.lost} lost" in text and one.change.groups == 20


def test_which_runs_fit_on_a_page(bare, tmp_path):
    with pytest.raises(RunError, match="named twice"):
        write_report([bare, bare])
    many = []
    for number in range(MOST_RUNS + 1):
        write_lines(tmp_path / str(number) / "metrics.jsonl", [{"step": 1, "data": {"actor/entropy": 0.5}}])
        many.append(RunLog(tmp_path / str(number)))
    with pytest.raises(RunError, match="do not fit"):
        report_html(*many)
    assert "8 runs" in report_html(*many[:MOST_RUNS])
    assert short_names(["a/x", "b/x", "c"]) == ["a/x", "b/x", "c"] and short_names(["a/m.jsonl"]) == ["m"]


@pytest.fixture(scope="module")
def with_benchmark(images, tmp_path_factory) -> Path:
    """A run that validates on six questions of an MMBench file, each in all orders of its options."""
    folder = tmp_path_factory.mktemp("benchmark")
    pictures = [Image.open(path) for path in sorted(images.iterdir())[:6]]
    section = ssl4rl_section(images, ["rotation"]) | {
        "benchmarks": [{"name": "mmbench", "path": str(tsv(folder / "mmbench.tsv", pictures, 6)), "circular": True}]
    }
    run = folder / "run"
    write_run(run, section, {0: 0.0, 4: 0.5}, steps=4)
    (rows,) = benchmark_rows(Settings.from_config(section))
    for step, right in ((0, ()), (4, ("0", "1", "2"))):
        lines = [json.loads(line) for line in (run / "validation" / f"{step}.jsonl").read_text().splitlines()]
        for number in range(len(rows)):
            row, asked = rows[number], rows.asked[number]
            # Question 2 is right in the file's own order alone.
            knows = asked.question.id in right and not (asked.question.id == "2" and asked.rotation)
            text = f"<answer>{row.info['gold'] if knows else 'no idea'}</answer>"
            figures = compute_score(row.data_source, text, row.ground_truth, answer_format="answer_only")
            lines.append({"input": row.prompt, "output": text, "gts": row.ground_truth, "step": step, **figures,
                          "uid": f"b{number}_0_0"})  # fmt: skip
        write_lines(run / "validation" / f"{step}.jsonl", lines)
    return run


def test_benchmarks_by_category_from_the_dumps(with_benchmark):
    log = RunLog(with_benchmark)
    rows = {row.kind.label: row for row in log.benchmark_headline()}
    whole, circular = rows["mmbench"], rows["mmbench (circular)"]
    assert (whole.before.rate.mean, whole.after.rate.mean, whole.after.rate.n) == (0.0, 0.5, 6)
    assert (whole.change.gained, whole.change.lost, whole.change.p) == (3, 0, pytest.approx(0.25))
    assert circular.after.rate.mean == pytest.approx(2 / 6)
    by_category = {row.kind.name: row.after.rate.n for row in rows.values() if row.kind.scope == "category"}
    assert sum(by_category.values()) == 6
    html = report_html(log)
    text = visible(html)
    for words in ("Benchmarks", "mmbench", "all questions", "circular", "3 gained, 0 lost", "Benchmark: mmbench"):
        assert words in text, words
    assert re.search(r"<h3>mmbench / [^<]*</h3>.{0,400}<img src", html, re.DOTALL), "a question with its picture"
    assert "Pictures are missing" not in text
    assert log.headline()[0].kind.task == "rotation"


def test_benchmarks_from_the_metrics_alone(tmp_path):
    def at(step: int, *counted: tuple[str, float, int]) -> dict:
        data = {f"val-core/bench/mmbench/{name}/acc/mean@1": acc for name, acc, _ in counted}
        return {
            "step": step,
            "data": data | {f"val-aux/bench/mmbench/{name}/questions/mean@1": n for name, _, n in counted},
        }

    write_lines(
        tmp_path / "metrics.jsonl", [at(0, ("a b", 0.25, 4), ("c", 0.5, 6)), at(5, ("a b", 0.5, 4), ("c", 1.0, 6))]
    )
    rows = {row.kind.label: row for row in RunLog(tmp_path).benchmark_headline()}
    assert list(rows) == ["mmbench", "mmbench / a b", "mmbench / c"]
    assert [(row.before.rate.mean, row.after.rate.mean, row.after.rate.n) for row in rows.values()] == [
        (0.4, 0.8, 10), (0.25, 0.5, 4), (0.5, 1.0, 6)]  # fmt: skip
    assert rows["mmbench"].after.rate == wilson(8, 10) and rows["mmbench"].change is None
    assert "+40.0" in report_html(RunLog(tmp_path))


def test_a_curriculum_is_drawn_with_its_reasons(tmp_path):
    def at(step: int, **shares: float) -> dict:
        data = {"curriculum/cost_s": 0.01}
        for level in ("1x2", "2x2", "3x3"):
            name, share = f"curriculum/jigsaw/{level}", shares.get(f"_{level}", 0.0)
            data |= {f"{name}/share": share, f"{name}/probability": 1 / 3}
            data |= {f"{name}/{key}": step / 10 if share else None for key in ("accuracy", "corrected", "effective")}
        return {"step": step, "data": data | {"curriculum/jigsaw/share": 1.0}}

    # Logged from hard to easy; the task says what is easy.
    rows = [at(1, _2x2=1.0), at(2, _2x2=0.5, _3x3=0.5), at(3, _3x3=1.0)]
    rows = [{**row, "data": dict(reversed(row["data"].items()))} for row in rows]
    write_lines(tmp_path / "metrics.jsonl", rows)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("data: {train_batch_size: 16}")
    arms = {'jigsaw:3x3{"side": 56}': {"probability": 0.9, "reason": "half right <b>"}, "jigsaw:2x2": {"reason": ""}}
    write_lines(
        tmp_path / "checkpoints" / "curriculum.jsonl", [{"arms": ["a"]}, {"step": 3, "arms": arms}], tail='{"st'
    )
    log = RunLog(tmp_path)
    easy, hard, unknown = arms_of(log)
    assert [arm.level for arm in (easy, hard, unknown)] == ["2x2", "3x3", "1x2"]
    assert (easy.drawn, hard.drawn, unknown.drawn) == ([1, 2], [2, 3], [])
    assert (easy.prompts, hard.prompts, unknown.prompts) == (24, 24, 0)
    assert hard.corrected == {2: 0.2, 3: 0.3} and unknown.accuracy == {}
    text = visible(report_html(log))
    for words in (
        "What was drawn",
        "Training accuracy above chance: jigsaw",
        "half right &lt;b&gt;",
        "never",
        "30.0 %",
    ):
        assert words in text, words
    assert "No usable number" not in text, "a level that was not drawn has no accuracy"


def test_rows_of_built_data_are_read_again_with_their_pictures(images, tmp_path):
    section = ssl4rl_section(images, []) | MIX
    built(section, tmp_path / "data")
    write_run(tmp_path / "run", section, {0: 0.2}, steps=2)
    file = tmp_path / "run" / "hydra" / ".hydra" / "config.yaml"
    file.write_text(yaml.safe_dump({"ssl4rl": section | {"data": str(tmp_path / "data")}}))
    log = RunLog(tmp_path / "run")
    rows = StoredRows(tmp_path / "data", "val")
    assert len(log.validation(0)) == len(rows) == 9
    for row in log.validation(0):
        made = log.asked(row)
        assert made.ground_truth == row.truth and made.images
    text = visible(report_html(log))
    assert "Pictures are missing" not in text and "No picture" not in text
