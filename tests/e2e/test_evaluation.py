"""`ssl4rl evaluate` on a checkpoint of a real run: the run's own validation again, after a kill, and plain transformers.

The run is the one that all tests share (conftest.py); there are four starts of vLLM after it.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
from shared_run import ASKED, QUESTIONS
from traps import set_traps, sprung

from ssl4rl_plugin.analysis.evaluation import predictions
from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.analysis.statistics import wilson

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500), pytest.mark.xdist_group("shared run")]

STEPS = 2
"""The checkpoint that is evaluated: the run validated and saved at this step."""
ROWS = QUESTIONS + 5 * 8


@pytest.fixture(scope="module")
def run(undisturbed: Path) -> Path:
    return undisturbed


def command(*arguments: object) -> list[str]:
    return [str(Path(sys.executable).with_name("ssl4rl")), "evaluate", *map(str, arguments)]


def finish(*arguments: object, folder: Path | None = None) -> str:
    """Evaluate to the end; returns what was said."""
    done = subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def evaluated(run: Path) -> Path:
    """The run's checkpoint against its start; the first attempt is killed among the answers."""
    out = run / "evaluation"
    arguments = (run / "checkpoints" / f"global_step_{STEPS}", "--run", run, "--base", run / "model", "--out", out)
    victim = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    file = out / predictions.FILE
    while not (file.exists() and file.read_bytes().count(b"\n") > 4):
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    family = psutil.Process(victim.pid).children(recursive=True)
    assert family, "there is no engine"
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not psutil.wait_procs(family, timeout=30)[1], "engines outlive the command"
    # However late the kill came, some answers are missing now, and the last one is torn.
    lines = file.read_bytes().splitlines(keepends=True)[:20]
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    # In a folder of traps: neither the merger nor the engine runs any of them.
    marks = run.parent / "evaluation-marks"
    traps = set_traps(run.parent / "evaluation-traps", marks)
    said = finish(*arguments, folder=traps)
    assert sprung(marks) == []
    assert f"{len(lines) - 1} of {ROWS} questions were answered before" in said
    return out


@pytest.mark.parametrize(("folder", "step"), [(".", STEPS), ("base", 0)])
def test_answers_and_accuracies_are_those_of_the_runs_validation(
    run: Path, evaluated: Path, folder: str, step: int
) -> None:
    lines = predictions.read(evaluated / folder / predictions.FILE)
    assert [line["row"] for line in lines] == list(range(ROWS))
    log = RunLog(run)
    theirs = [json.loads(line) for line in log.validations[step].read_text().splitlines()]
    answers = {json.loads(line["gts"])["sample"]: line["output"] for line in theirs}
    assert {line["id"]: line["response"] for line in lines} == answers
    by_source = defaultdict(list)
    for line in lines:
        by_source[line["data_source"]].append(line["acc"])
    assert set(by_source) >= {f"bench/mmbench/{category}" for category in ASKED}
    for source, accs in by_source.items():
        assert log.metrics[step][f"val-core/{source}/acc/mean@1"] == sum(accs) / len(accs), source


def test_the_answers_say_something(run: Path, evaluated: Path) -> None:
    """Equal answers would prove little if the model always wrote the same, or were always wrong."""
    lines = predictions.read(evaluated / predictions.FILE)
    assert len({line["response"] for line in lines}) > 3
    assert 0 < sum(line["acc"] for line in lines if line["kind"] == "mmbench") < QUESTIONS
    assert [line["response"] for line in lines] != [
        line["response"] for line in predictions.read(evaluated / "base" / predictions.FILE)
    ]


def test_the_results_have_counts_and_intervals_of_each_category(run: Path, evaluated: Path) -> None:
    results = json.loads((evaluated / "results.json").read_text())
    metrics = RunLog(run).metrics[STEPS]
    groups = {(group["scope"], group["name"]): group for group in results["groups"] if group["kind"] == "mmbench"}
    assert len(groups) == 1 + 2 + 4
    for category in ASKED:
        group = groups["category", category]
        assert group["accuracy"] == metrics[f"val-core/bench/mmbench/{category}/acc/mean@1"]
        assert group["questions"] == metrics[f"val-aux/bench/mmbench/{category}/questions/mean@1"] == 12
        rate = wilson(group["accuracy"] * 12, 12)
        assert group["interval"] == pytest.approx([rate.low, rate.high])
    overall = groups["overall", ""]
    assert overall["questions"] == QUESTIONS and overall["pictures"] == QUESTIONS // 2
    difference = overall["difference"]
    assert difference["accuracy"] == pytest.approx(overall["accuracy"] - overall["base"]["accuracy"])
    assert difference["gained"] - difference["lost"] == pytest.approx(difference["accuracy"] * QUESTIONS)


def test_a_merged_checkpoint_answers_as_in_plain_transformers(run: Path, tmp_path: Path) -> None:
    """Without its exact copy the checkpoint goes through verl's merger; two engines share the questions."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    actor, copy = run / "checkpoints" / f"global_step_{STEPS}" / "actor", tmp_path / "global_step_2" / "actor"
    shutil.copytree(actor, copy, ignore=shutil.ignore_patterns("*.safetensors", "optim_*"))
    out = tmp_path / "out"
    said = finish(copy.parent, "--run", run, "--out", out, "--engines", "2")
    assert "verl's model merger" in said
    assert (out / "engine-1.log").stat().st_size, "the second engine did nothing"
    (merged,) = (path for path in (out / "merged").iterdir() if path.is_dir())
    model = AutoModelForImageTextToText.from_pretrained(merged, dtype=torch.float32).eval()
    assert all(torch.equal(value, value.bfloat16().float()) for value in model.state_dict().values())
    processor = AutoProcessor.from_pretrained(merged)
    lines = predictions.read(out / predictions.FILE)
    pictures = RowsOfRun(run)
    for line in lines:
        chat = [{"role": "user", "content": pictures.content(line)}]
        text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[text], images=pictures.images(line), return_tensors="pt")
        with torch.no_grad():
            written = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        answer = processor.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer == line["response"], line["id"]
    assert len(lines) == ROWS


class RowsOfRun:
    """The pictures that the lines name, made again, and the chat that their prompts say."""

    def __init__(self, run: Path) -> None:
        from ssl4rl_plugin.analysis.evaluation.evaluation_set import EvaluationRequest, set_of_run

        self.rows = set_of_run(run, EvaluationRequest()).rows

    def images(self, line: dict) -> list:
        return list(self.rows[line["row"]].images)

    def content(self, line: dict) -> list[dict]:
        parts = line["prompt"].split("<image>")
        content: list[dict] = [{"type": "text", "text": parts[0]}] if parts[0] else []
        for text in parts[1:]:
            content += [{"type": "image"}, {"type": "text", "text": text}] if text else [{"type": "image"}]
        return content
