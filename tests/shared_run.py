"""Settings of the run that the end-to-end tests share, and what they read from runs."""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
import time
from pathlib import Path

import psutil
from pictures import photo

from ssl4rl_plugin.analysis.runlog import RunLog
from ssl4rl_plugin.tasks import get_task, registry

STEPS = 5
TASKS = ("altered_patch", "rotation", "position", "contrastive", "jigsaw:2x1")
"""Answers of every form, with one picture and with several."""
SMALL = (
    "ssl4rl.val_samples=8",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=32",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=32",
    "trainer.save_freq=2",
    "trainer.test_freq=2",
    "actor_rollout_ref.actor.optim.lr=2e-3",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=0",  # weights that do not reach the rollout show at once
    "actor_rollout_ref.rollout.n=4",
    "ssl4rl.epochs=1",
    f"ssl4rl.tasks=[{', '.join(map(json.dumps, TASKS))}]",
)
"""Settings of the shared run and of those that are compared with it."""
GREEDY = (
    "actor_rollout_ref.rollout.val_kwargs.do_sample=false",
    "actor_rollout_ref.rollout.val_kwargs.temperature=0",
)
QUESTIONS = 48
ASKED = {
    "turn": ("orientation", "How many degrees is the picture turned clockwise?", ("0", "90", "180", "270")),
    "pair": ("comparison", "Do they show the same thing or different things?", ("same", "different")),
    "place": ("orientation", "Which quadrant is it?", ("top-left", "top-right", "bottom-left", "bottom-right")),
    "patch": ("comparison", "Which part is gray?", ("one", "two", "three", "four")),
}
"""Category -> l2-category, question, options. Most options are answers that the tiny model has been warmed up to give."""
K3 = "rollout_corr/k3_kl"
"""Distance between what rollout and actor think of the sampled tokens: near 0 while the weights reach the rollout."""
MARKS = ("raylet", "gcs_server", "ray::", "VLLM", "ssl4rl::", "main_ppo")
"""In the command lines of what a training starts."""


def mmbench(path: Path) -> Path:
    """Questions in MMBench's layout, two about each picture."""
    rng = random.Random(0)
    lines = ["index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit\timage"]
    for number in range(QUESTIONS):
        category = list(ASKED)[number % len(ASKED)]
        parent, text, options = ASKED[category]
        shown = [*rng.sample(options, len(options)), *[""] * (4 - len(options))]
        jpeg = io.BytesIO()
        photo(100 + number // 2, 56 + 28 * (number // 2 % 3), 56).save(jpeg, "JPEG", quality=90)
        image = base64.b64encode(jpeg.getvalue()).decode()
        answer = "ABCD"[rng.randrange(len(options))]
        fields = [str(number), f"{text} Case {number}.", "", *shown, answer, category, parent, "dev", image]
        lines.append("\t".join(fields))
    path.write_text("\n".join(lines) + "\n")
    return path


def left_running(patience: float = 30) -> list[str]:
    """Command lines of Ray, vLLM and verl below this process that do not end within `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        left = []
        for process in psutil.Process().children(recursive=True):
            try:
                line = " ".join(process.cmdline())  # empty for one that has ended
            except psutil.NoSuchProcess:
                continue
            if any(mark in line[:200] for mark in MARKS):
                left.append(line[:100])
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(1)


def start_like(other: Path, out: Path) -> Path:
    """A new run folder with the same model, so that it is not built and warmed up again."""
    out.mkdir()
    shutil.copytree(other / "model", out / "model")
    return out


def metric(out: Path, name: str) -> dict[int, float]:
    steps, values = RunLog(out).curve(name)
    return dict(zip(steps, values, strict=True))


def rollouts(out: Path, step: int) -> list[dict]:
    """verl's dump of a step's rollouts."""
    return [json.loads(line) for line in (out / "rollouts" / f"{step}.jsonl").read_text().splitlines()]


def samples_by_step(out: Path) -> dict[int, list[str]]:
    """Which samples each step trained on, from verl's own rollout dumps."""
    steps = sorted(int(path.stem) for path in (out / "rollouts").glob("*.jsonl"))
    return {step: sorted({json.loads(row["gts"])["sample"] for row in rollouts(out, step)}) for step in steps}


def own_tasks(kind: str) -> list[str]:
    """Our own tasks of a kind: this machine may have others."""
    return [
        name
        for name in registry.names()
        if get_task(name).kind == kind and type(get_task(name)).__module__.startswith("ssl4rl_plugin.")
    ]


def check_trained(out: Path, tasks: list[str], steps: int) -> None:
    """Every task was validated, every prompt has its rollouts, and every response was scored."""
    log = RunLog(out)
    rows = [row for step in log.validations for row in log.validation(step)]
    assert {row.arm.task for row in rows if row.arm} == set(tasks)
    assert all(not row.error for row in rows)
    for step in range(1, steps + 1):
        dumped = rollouts(out, step)
        assert len(dumped) == 32 and all(0 <= row["score"] <= 1 for row in dumped)
