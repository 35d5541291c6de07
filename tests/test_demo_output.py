"""What the demo shows: times, bars with chance, curves, a sentence, and summary.json; never a control code in a pipe."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.analysis.terminal import BARS, shortened, sparkline
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.demo import watch
from ssl4rl_plugin.demo.progress import PARTS, Pace, Timeline, accuracies, clock, gauge, validated
from ssl4rl_plugin.demo.summary import pictures, sentence, summary, write_summary

CHANCES = {"rotation": 0.25, "jigsaw": 0.5}


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def timeline(terminal: bool = False, **changes: Any) -> tuple[Timeline, io.StringIO, Clock]:
    out, now = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=terminal, width=300)
    expected = {"model": 30.0, "start": 60.0, "training": 100.0, "validation": 20.0, "end": 10.0, "report": 5.0}
    return Timeline(console, expected, CHANCES, now=now, **changes), out, now


# Bars and curves.


@given(st.floats(0, 1), st.floats(0, 1) | st.none(), st.integers(1, 40))
def test_a_bar_has_its_width_and_one_mark(value: float, chance: float | None, width: int) -> None:
    bar = gauge(value, chance, width)
    assert re.fullmatch(r"\[[#.|]*\]", bar) and len(bar) == width + 2 + (chance is not None)
    assert bar.count("|") == (chance is not None) and bar.replace("|", "").strip("[]") == "#" * bar.count(
        "#"
    ) + "." * bar.count(".")


def test_a_bar_above_chance_passes_the_mark() -> None:
    assert (
        gauge(0.75, 0.25, 8) == "[##|####..]"
        and gauge(0.25, 0.25, 8) == "[##|......]"
        and gauge(0.0, 0.5, 4) == "[..|..]"
    )


@given(st.lists(st.floats(0, 1), max_size=200), st.integers(1, 60))
def test_a_curve_rises_where_its_values_do(values: list[float], most: int) -> None:
    shown = sparkline(values)
    assert len(shown) == len(values) and set(shown) <= set(BARS)
    heights = [BARS.index(bar) for bar in shown]
    assert all(
        (a <= b) == (x <= y) or a == b for x, y, a, b in zip(values, values[1:], heights, heights[1:], strict=False)
    )
    short = shortened(values, most)
    assert len(short) == min(len(values), most)
    assert not values or min(values) - 1e-9 <= min(short) <= max(short) <= max(values) + 1e-9


def test_the_ends_of_a_curve() -> None:
    assert sparkline([0.0, 1.0, float("nan"), 2.0, -1.0]) == "▁█ █▁"
    assert shortened([0.0, 1.0, 0.5, 0.5], 2) == [0.5, 0.5]


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (65.4, "1:05"), (3725, "1:02:05"), (59.7, "1:00")])
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_many_tasks_are_shown_as_their_mean() -> None:
    chances = {f"t{k}": 0.25 for k in range(4)}
    data = {f"a/t{k}": k / 4 for k in range(4)}
    assert accuracies(data, chances, "a/{task}").startswith("mean of 4 tasks 0.38 [")
    assert accuracies({}, chances, "a/{task}") == accuracies({"a/t0": "no", "a/t1": 7.0}, chances, "a/{task}") == ""


def test_a_validation_is_found_in_verls_metrics() -> None:
    data = {"val-core/ssl4rl/jigsaw/acc/mean@1": 0.5, "val-aux/ssl4rl/jigsaw/format/mean@1": 0.9, "x": 1}
    assert validated(data, CHANCES) == f"jigsaw 0.50 {gauge(0.5, 0.5)}" and validated({"x": 1.0}, CHANCES) == ""


# Times.


def test_remaining_time_comes_from_what_was_expected_and_then_from_the_steps() -> None:
    line, _, now = timeline()
    with line.part("model", total=10) as part:
        assert line.left(part) == 30 + 60 + 100 + 20 + 10 + 5
        now.at = 10
        assert line.left(part) == 20 + 195
        for done in range(1, 6):
            now.at = 10.0 + 10 * done
            part.step(done)
        assert line.left(part) == pytest.approx(50 + 195)  # what came before the first step does not count
        now.at += 4
        assert line.left(part) == pytest.approx(46 + 195)
    with line.part("training", total=4) as part:
        assert line.left(part) == 100 + 20 + 15
        for done in range(1, 4):
            now.at += 8
            part.step(done)
        assert line.left(part) == pytest.approx(8 + 15)  # the steps so far hold their validations
    assert line.seconds == {"model": 64.0, "training": 24.0}
    line.move("training", "validation", 9.0)
    assert line.seconds == {"model": 64.0, "training": 15.0, "validation": 9.0}


def test_a_demo_that_is_late_never_has_less_than_nothing_left() -> None:
    line, _, now = timeline()
    with line.part("report") as part:
        now.at = 1e4
        assert line.left(part) == 0.0 and "about 0:00 left" in line.times(part)


def test_the_first_line_names_the_parts_and_adds_up() -> None:
    line, out, _ = timeline()
    line.announce()
    text = out.getvalue()
    assert text.startswith("about 3:45 ") and text.count("\n") == 1 and all(name in text for name in PARTS.values())


def test_expected_parts_of_the_recipes() -> None:
    from ssl4rl_plugin.demo.run import RECIPES, chances_of, compose

    for recipe in RECIPES:
        config = compose(recipe, ["actor_rollout_ref.model.path=x"])
        whole = Pace().expected(config, 100, 0)
        assert list(whole) == list(PARTS) and all(took > 0 for took in whole.values())
        resumed = Pace().expected(config, 0, int(config.trainer.total_training_steps) - 1)
        assert resumed["model"] == 0 and resumed["training"] < whole["training"]
        assert set(Pace().expected(config, 0, int(config.trainer.total_training_steps))) == {"report"}
        assert all(0 < chance < 1 for chance in chances_of(config).values())


def test_a_pipe_gets_whole_lines_at_intervals_and_no_control_codes() -> None:
    line, out, now = timeline()
    with line.part("training", total=100) as part:
        for done in range(1, 101):
            now.at += 3
            part.step(done, f"reward 0.10 {gauge(0.1, 0.25)}")
    text = out.getvalue()
    assert "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert 100 * 3 / 25 <= len(lines) <= 100 * 3 / 18
    assert all(re.match(r"training \d+/100 · \d+:\d\d elapsed, about \d+:\d\d left", one) for one in lines)


def test_a_terminal_gets_one_line_that_changes() -> None:
    line, out, now = timeline(terminal=True)
    with line.part("training", total=3) as part:
        now.at += 3
        part.step(3, "reward 0.10 [##|..]")
    assert "3/3" in out.getvalue() and "[##|..]" in out.getvalue() and "elapsed" in out.getvalue()


VERL = """
import json, sys, time
with open(sys.argv[1], "w") as file:
    for step in range(4):
        data = {"critic/score/mean": 0.1 * step, "curriculum/rotation/accuracy": 0.25, "timing_s/step": 0.05}
        if step in (0, 3):
            data |= {"val-core/ssl4rl/rotation/acc/mean@1": 0.5, "timing_s/testing": 0.01}
        file.write(json.dumps({"step": step, "data": data}) + "\\n")
        file.flush()
        time.sleep(0.05)
    file.write('{"step": 4, "da')
"""


def test_a_trainer_is_followed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL", 0.01)
    out, seen = io.StringIO(), []
    line = Timeline(Console(file=out, width=300), {}, CHANCES)
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(VERL), str(tmp_path / "m.jsonl")])
    watch.follow(process, tmp_path / "m.jsonl", 3, 0, line, seen.append)
    assert process.returncode == 0 and seen == [0, 1, 2, 3]
    assert list(line.seconds) == ["start", "training", "validation", "end"]
    assert line.seconds["validation"] == pytest.approx(0.01)
    assert f"step 3, held-out accuracy: rotation 0.50 {gauge(0.5, 0.25)}" in out.getvalue()


def test_a_trainer_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL", 0.01)
    monkeypatch.setattr(watch, "START_LIMIT", 0.1)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(watch.DemoError, match="no progress"):
            watch.follow(process, tmp_path / "m.jsonl", 3, 0, Timeline(Console(file=io.StringIO())), None)
    finally:
        process.kill()
        process.wait()


# The result.


def write_run(folder: Path, right: dict[str, dict[int, float]], answers: dict[str, str] | None = None) -> RunLog:
    """A run with 64 held-out rotations and jigsaws, of which the model has a share right at each step.

    `answers`: task -> the answer that it always gives at the last step, instead.
    """
    levels = {"rotation": ("pair_90", [0, 90, 180, 270]), "jigsaw": ("2x1", [[1, 2], [2, 1]])}
    (folder / "validation").mkdir(parents=True)
    steps = sorted({step for shares in right.values() for step in shares})
    for step in steps:
        rows = []
        for task, shares in right.items():
            level, truths = levels[task]
            for number in range(64):
                truth = truths[number % len(truths)]
                wrong = truths[(number + 1 + number // len(truths) % (len(truths) - 1)) % len(truths)]
                given = truth if (number * 37 % 64) < 64 * shares[step] else wrong
                shown = str(tuple(given)) if isinstance(given, list) else str(given)
                acc = float(given == truth)
                if answers and task in answers and step == steps[-1]:
                    shown = answers[task]
                    acc = float(shown == (str(tuple(truth)) if isinstance(truth, list) else str(truth)))
                gts = encode_truth(task, level, {}, truth, f"val:{number}")
                rows.append(
                    {"input": "q", "output": "", "gts": gts, "score": acc, "acc": acc, "step": step, "answer": shown}
                )
        (folder / "validation" / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = [
        {
            "step": step,
            "data": {"critic/score/mean": 0.3, "curriculum/rotation/pair_90/accuracy": 0.3, "rollout_corr/k3_kl": 1e-6},
        }
        for step in range(1, 9)
    ]
    (folder / "metrics-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    return RunLog(folder)


def test_what_was_learnt_is_said_and_kept(tmp_path: Path) -> None:
    log = write_run(tmp_path, {"rotation": {0: 0.25, 4: 0.5, 8: 0.9}, "jigsaw": {0: 0.5, 4: 0.5, 8: 0.55}})
    rows = log.headline()
    said = sentence(log, rows, "cpu_demo")
    assert (
        said.startswith("Learnt, on held-out photographs: rotation:pair_90 from 0.25 to 0.9") and "jigsaw" not in said
    )
    assert "cannot show" in said and said.count(". ") == 0
    first, second, third = pictures(log, rows)
    assert first.startswith("jigsaw:2x1        held-out ") and "chance 0.50 = " in first
    assert second.startswith("rotation:pair_90  held-out ▃▅▇") and third.endswith("training ▃▃▃▃▃▃▃▃")
    assert all(line.isascii() for line in pictures(log, rows, unicode=False))
    found = summary(log, rows, "cpu_demo", 0, 12.3, {"model": 1.23})
    write_summary(tmp_path / "summary.json", found)
    kept = json.loads((tmp_path / "summary.json").read_text())
    task = kept["tasks"]["rotation:pair_90"]
    assert task["validation"]["steps"] == [0, 4, 8] and task["chance"] == 0.25 and task["verdict"] == "above chance"
    assert task["after"]["n"] == 64 and task["after"]["most_frequent"]["share"] < 0.5 and task["change"]["low"] > 0
    assert task["training"]["accuracy"] == [0.3] * 8 and kept["parts"] == {"model": 1.2} and kept["steps"] == 8


def test_a_collapse_is_called_one(tmp_path: Path) -> None:
    shares = {"rotation": {0: 0.25, 8: 0.25}, "jigsaw": {0: 0.5, 8: 0.5}}
    log = write_run(tmp_path, shares, {"jigsaw": "(2, 1)", "rotation": "90"})
    rows = log.headline()
    assert [row.verdict for row in rows] == ["collapsed onto one answer"] * 2
    assert rows[0].after and rows[0].after.top and (rows[0].after.top.text, rows[0].after.top.share) == ("2, 1", 1.0)
    assert rows[0].after.rate.mean == 0.5 and rows[1].after and rows[1].after.rate.mean == 0.25
    said = sentence(log, rows, "cpu_demo")
    assert "No task has risen" in said and "collapsed onto one answer: jigsaw:2x1, rotation:pair_90" in said


def test_recipes_that_do_not_learn_say_so(tmp_path: Path) -> None:
    log = write_run(tmp_path, {"rotation": {0: 0.25, 8: 0.25}})
    assert "prove the path" in sentence(log, log.headline(), "cpu_videos")
    assert "prove the path" not in sentence(log, log.headline(), "cpu_demo")


def test_sigterm_ends_what_the_run_started(tmp_path: Path) -> None:
    """As Ctrl-C does. The trainer here is a stand-in with a child of its own, since only processes matter."""
    trainer = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    script = (
        "import sys; from pathlib import Path; from ssl4rl_plugin.demo import run\n"
        f"run.command = lambda *_: [sys.executable, '-c', {trainer!r}]\n"
        f"run.run_trainer('cpu_demo', Path({str(tmp_path)!r}), [], 1)\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(family := psutil.Process(demo.pid).children(recursive=True)) < 2:
        assert time.monotonic() < deadline and demo.poll() is None
        time.sleep(0.05)
    demo.terminate()
    assert demo.wait(60) == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
