"""Reports of runs whose files hold what no run should: numbers beyond all bounds, bombs in YAML, nested brackets."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ssl4rl_plugin.analysis.report import report_html, write_report
from ssl4rl_plugin.analysis.report.curves import drawn_metrics
from ssl4rl_plugin.analysis.runlog import RunError, RunLog
from ssl4rl_plugin.cli import app
from ssl4rl_plugin.core.plain_yaml import DEEPEST, MOST_VALUES, YamlError, check_yaml

METRICS = [
    *drawn_metrics(), "timing_s/gen", "timing_s/testing", "val-core/ssl4rl/rotation/acc/mean@1",
    "val-aux/ssl4rl/rotation/format/mean@1", "val-aux/ssl4rl/rotation/consistent/mean@1",
    "val-aux/ssl4rl/rotation/inconsistent/mean@1", "val-core/bench/mmbench/colour/acc/mean@1",
    "val-aux/bench/mmbench/colour/questions/mean@1", "curriculum/rotation/pair_90/share",
    "curriculum/rotation/pair_90/corrected", "curriculum/rotation/pair_90/accuracy",
    "curriculum/rotation/pair_90/effective", "curriculum/rotation/pair_90/probability",
]  # fmt: skip
ODD = ["1e308", "-1e308", "Infinity", "NaN", "1" + "0" * 400, "1e-320", "1e29", "-3", "true", '"0.5"', "[1]", "null"]
"""Values as they stand in a file of JSON lines."""


def write_metrics(run: Path, values: dict[tuple[int, str], str], steps: int = 12) -> Path:
    """A run of which every metric is 0.5, but for the values given by step and name."""
    run.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(steps):
        data = ", ".join(f"{json.dumps(name)}: {values.get((step, name), '0.5')}" for name in METRICS)
        lines.append(f'{{"step": {step}, "data": {{{data}}}}}\n')
    (run / "metrics.jsonl").write_text("".join(lines))
    return run


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Number of charts of a run without impossible numbers."""
    return report_html(RunLog(write_metrics(tmp_path_factory.mktemp("runs") / "clean", {}))).count("<svg")


@pytest.mark.parametrize("value", ["1e308", "1" + "0" * 400, "NaN", "1e29", '"0.5"'])
def test_one_impossible_number_leaves_the_rest_of_the_report(tmp_path: Path, charts: int, value: str) -> None:
    start = time.process_time()
    html = report_html(RunLog(write_metrics(tmp_path / "run", {(7, name): value for name in METRICS})))
    assert time.process_time() - start < 20, "seconds of processor time; 59 before"
    assert html.count("<svg") >= charts > 10
    assert "at step 7" in html, "what is left out is said"
    assert "nan" not in html.split("<body")[-1].lower().replace("nan, infinite", "")


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0, 11), st.sampled_from(METRICS)), st.sampled_from(ODD), max_size=60))
def test_any_numbers_make_a_report(
    tmp_path_factory: pytest.TempPathFactory, values: dict[tuple[int, str], str]
) -> None:
    first = write_metrics(tmp_path_factory.mktemp("runs") / "one", values)
    other = write_metrics(first.with_name("other"), dict.fromkeys(values, "1e308"))
    assert "<svg" in report_html(RunLog(first), RunLog(other))


def test_numbers_of_responses_and_steps_are_checked_too(tmp_path: Path) -> None:
    run = write_metrics(tmp_path / "run", {})
    with (run / "metrics.jsonl").open("a") as file:
        file.write("".join(f'{{"step": {step}, "data": {{"x": 1}}}}\n' for step in (2**70, -5, "1e400", "true")))
        file.write("[" * 20_000 + "\n" + '{"step": 1' + "0" * 5000 + ', "data": {}}\n')
    truth = json.dumps({"task": "rotation", "level": "pair_90", "truth": 90, "sample": "val:1", "options": {}})
    for folder in ("validation", "rollouts"):
        (run / folder).mkdir()
        lines = [
            f'{{"gts": {json.dumps(truth)}, "input": "a", "output": "b", "uid": "u_{number}_0", "score": {value}, '
            f'"acc": {value}, "format": {value}, "step": 1}}\n'
            for number, value in enumerate(ODD)
        ]  # fmt: skip
        (run / folder / "1.jsonl").write_text("".join(lines) + "{" * 20_000 + "\n")
    log = RunLog(run)
    html = report_html(log)
    assert max(log.metrics) == 11 and "<svg" in html and "could not be read" in html
    assert all(math.isnan(row.score) or abs(row.score) <= 1e30 for row in log.rollout(1))
    assert log.torn_lines >= 3


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
NESTED = {
    "aliases": BOMB,
    "aliases in keys": "a: &a {b: 1}\n" + "".join(f"c{n}: &c{n} {{<<: *a, d: [{'*a, ' * 300}]}}\n" for n in range(100)),
    "brackets": "a: " + "[" * 20_000 + "]" * 20_000,
    "open brackets": "[" * 20_000,
    "maps": "{a: " * 20_000,
    "dashes": "- " * 20_000,
    "keys": "? " * 20_000,
    "itself": "a: &a [1, *a]",
    "indents": "".join(" " * n + "a:\n" for n in range(900)),
}


@pytest.mark.parametrize("name", NESTED)
def test_yaml_is_refused_before_it_is_expanded(tmp_path: Path, name: str) -> None:
    start = time.process_time()
    with pytest.raises(YamlError, match=r"config\.yaml") as error:
        check_yaml(NESTED[name], "config.yaml")
    assert "\n" not in str(error.value) and len(str(error.value)) < 250
    run = write_metrics(tmp_path / "run", {}, steps=2)
    (run / "hydra" / ".hydra").mkdir(parents=True)
    (run / "hydra" / ".hydra" / "config.yaml").write_text(NESTED[name])
    (run / "hydra" / ".hydra" / "hydra.yaml").write_text(NESTED[name])
    html = write_report(run).read_text()
    assert "The config is left out: " in html and "config.yaml" in html
    with pytest.raises(RunError, match=r"config\.yaml"):
        _ = RunLog(run).settings
    assert time.process_time() - start < 20, "seconds of processor time; more than 200 before"


def test_a_file_that_is_too_large_for_a_config_is_not_read(tmp_path: Path) -> None:
    run = write_metrics(tmp_path / "run", {}, steps=2)
    (run / ".hydra").mkdir()
    (run / ".hydra" / "config.yaml").write_text("a: b\n" * 200_000)
    assert "bytes, more than a config can have" in RunLog(run).config.problem and RunLog(run).config.text == ""


@pytest.mark.parametrize("text", ["a: *b", "a: [", "a: b: c", "\x00", "a: 'x", "!!python/object:os.system {}"])
def test_a_config_that_is_no_yaml_is_one_note(tmp_path: Path, text: str) -> None:
    run = write_metrics(tmp_path / "run", {}, steps=2)
    (run / ".hydra").mkdir()
    (run / ".hydra" / "config.yaml").write_text(text)
    log = RunLog(run)
    assert log.setting("a") is None and log.config.values == {}
    assert "\n" not in log.config.problem and "config.yaml" in log.config.problem


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab*&: ", max_size=4), inner, max_size=4),
        max_leaves=20,
    )
)
def test_every_honest_text_passes(value: object) -> None:
    check_yaml(yaml.safe_dump([value, value, {"again": value}]), "x")  # with aliases where it likes


def test_the_bounds_are_where_they_are_said_to_be() -> None:
    check_yaml("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1), "x")
    check_yaml("a: &a [1, 2]\nb: [" + "*a, " * (MOST_VALUES // 4) + "]", "x")
    with pytest.raises(YamlError, match=f"more than {MOST_VALUES:,} values"):
        check_yaml("a: &a [1, 2]\nb: [" + "*a, " * (MOST_VALUES // 2) + "]", "x")


def test_a_bomb_on_the_command_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["index", "folder", "--path", str(tmp_path), "--option", "crops=" + "[" * 20_000])
    assert done.exit_code == 2 and "--option crops" in done.output and len(done.output) < 500
