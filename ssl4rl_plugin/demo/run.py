"""The demo from end to end: build the model, warm it up, train it with verl, show the results.

All files go into one folder. With the folder of an earlier run, the demo resumes from the last checkpoint: it repeats no
finished step, and sees the same samples as a run without interruption.

    model/            the model before training
    metrics-K.jsonl   verl's metrics, one file for each start
    train-K.log       verl's output
    rollouts/ validation/  every response with its score (verl's dumps)
    checkpoints/      verl's checkpoints
    hydra/            the composed config
    summary.json report.html
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.safe_path import RAY_HOOK, environment, run_module

console = Console()

RECIPES = ("cpu_demo", "cpu_learn", "cpu_one_task", "cpu_curriculum", "cpu_videos", "graph_cpu_demo", "graph_cpu_learn")
"""Recipes for the tiny model on a machine without a GPU."""
WARM_UP_STEPS = 100
START_LIMIT = 600
"""Seconds without a first metric after which a run counts as stuck: verl can wait forever for a failed worker."""
STEP_LIMIT = 300
"""Seconds without a new metric after which a run counts as stuck."""


class DemoError(UserError):
    """The demo could not finish; the message says why and where to look."""


def main(
    out: Path,
    recipe: str = "cpu_demo",
    steps: int | None = None,
    seed: int = 0,
    resume: bool = True,
    extra: tuple[str, ...] = (),
) -> int:
    """Run the demo in folder `out`.

    Args:
        out: the run's folder; created if it does not exist.
        recipe: one of `RECIPES`: `cpu_learn` trains until the model has visibly learnt, `cpu_curriculum` on levels of one
            task, `cpu_videos` on videos.
        steps: training steps; None for the recipe's.
        seed: seed of the model's weights and of the samples.
        resume: continue the run in `out`; otherwise a folder that is not empty is an error.
        extra: further Hydra overrides for verl.

    Returns:
        The exit code: 0 if the run finished.

    Raises:
        DemoError: with the reason.
    """
    if recipe not in RECIPES:
        raise DemoError(f"recipe {recipe!r} is not for the demo; choose one of: {', '.join(RECIPES)}")
    out = out.resolve()
    if out.exists() and any(out.iterdir()) and not resume:
        raise DemoError(f"{out} is not empty: choose another folder, or leave --no-resume away to go on with it")
    out.mkdir(parents=True, exist_ok=True)
    own = [f"ssl4rl.seed={seed}", *([f"trainer.total_training_steps={steps}"] if steps else []), *extra]
    config = compose(recipe, [f"actor_rollout_ref.model.path={out / 'model'}", *own])
    started = time.monotonic()
    prepare_model(config, out / "model", seed)
    train(recipe, out, own, int(config.trainer.total_training_steps))
    summarise(out, recipe, time.monotonic() - started)
    return 0


def compose(recipe: str, overrides: list[str]) -> Any:
    """verl's config for a recipe, composed as in main_ppo."""
    import verl  # noqa: F401  -- loads the plugin
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return hydra_compose("ppo_trainer", overrides=["+plugin=ssl4rl", f"recipe={recipe}", *overrides])


def prepare_model(config: Any, folder: Path, seed: int) -> None:
    """Build and warm up the model, unless the folder already holds it."""
    from omegaconf import OmegaConf

    from ssl4rl_plugin.data.indexing import load_manifest
    from ssl4rl_plugin.data.samples import SampleStream
    from ssl4rl_plugin.training.settings import Settings

    settings = Settings.from_config(config.ssl4rl)
    section: Any = OmegaConf.to_container(config.ssl4rl, resolve=True)
    start = section["warm_up"]
    made_for: dict[str, Any] = {
        "seed": seed,
        "tasks": [arm.key for arm in settings.arms],
        "answer_format": settings.answer_format.name,
    }
    if settings.source.taught_fraction:
        made_for["taught_fraction"] = settings.source.taught_fraction
    if start["model"]:
        made_for["model"] = start["model"]
    if start["taught"]:
        lessons = Settings.from_config({**section, "tasks": start["taught"]})
        made_for |= {"taught": [arm.key for arm in lessons.arms], "skill": start["skill"], "limit": start["limit"]}
    if (folder / "warm_up.json").is_file():
        found = json.loads((folder / "warm_up.json").read_text())["made_for"]
        if found != made_for:
            raise DemoError(f"{folder} was made for {found}, and this run is for {made_for}: choose another --out")
        console.print(f"[dim]model: {folder} is there already")
        return
    split = "taught" if settings.source.taught_fraction else "train"
    stream = SampleStream(settings, load_manifest(settings, progress=console.is_terminal), split)

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # of writing one small file
    from verl.utils import hf_processor

    from ssl4rl_plugin.demo.model import DEMO, DEMO_TEXT, build_model, save, train_tokenizer
    from ssl4rl_plugin.demo.phrases import common_phrases
    from ssl4rl_plugin.demo.warm_up import teach, warm_up

    texts = [stream[index].prompt for index in range(min(256, len(stream)))]
    # As often as the prompts, since each turn of a chat begins with one of them.
    roles = ("user", "assistant", "system") * len(texts)
    tokenizer = train_tokenizer([*roles, *texts], phrases=common_phrases(texts))
    graph = all(source.kind == "graph" for source in stream.sources)
    try:
        shape = replace(DEMO_TEXT if graph else DEMO, **start["model"])
    except TypeError as error:
        raise DemoError(f"ssl4rl.warm_up.model: {error}") from error
    model = build_model(tokenizer, seed, shape=shape)
    unfinished = folder.with_name("model.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    save(model, tokenizer, unfinished, shape)
    count = sum(weight.numel() for weight in model.parameters())
    console.print(
        f"model: {'Qwen2.5' if graph else 'Qwen2.5-VL'}, {count / 1e6:.2f} M random parameters, {len(tokenizer)} tokens"
    )
    processor = tokenizer if graph else hf_processor(str(unfinished))
    with _progress() as bar:
        task = bar.add_task("warm-up: answer format, random answers", total=WARM_UP_STEPS)
        result = warm_up(model, processor, stream, WARM_UP_STEPS, seed, lambda: bar.advance(task))
    console.print(
        f"warm-up: loss {result.loss:.3f} nats a token; writing random answers perfectly would be {result.floor:.3f}"
    )
    if start["taught"]:
        names = ", ".join(made_for["taught"])
        truths = SampleStream(lessons, stream.manifest, split)
        with console.status(f"teaching the truth of {names}"):
            lesson = teach(model, processor, truths, start["skill"], seed, start["limit"])
        accuracies = ", ".join(f"{key} {accuracy:.2f}" for key, accuracy in lesson.accuracies.items())
        console.print(f"taught: {lesson.steps} supervised steps on the truth, accuracies {accuracies}", soft_wrap=True)
    model.save_pretrained(unfinished)
    (unfinished / "warm_up.json").write_text(json.dumps({**vars(result), "made_for": made_for}))
    unfinished.rename(folder)


def command(recipe: str, out: Path, overrides: list[str]) -> list[str]:
    """The command of this run: what a user would type, and it imports nothing from the current folder."""
    return run_module(
        "verl.trainer.main_ppo", "+plugin=ssl4rl", f"recipe={recipe}",
        f"actor_rollout_ref.model.path={out / 'model'}",
        f"trainer.default_local_dir={out / 'checkpoints'}",
        f"trainer.rollout_data_dir={out / 'rollouts'}",
        f"trainer.validation_data_dir={out / 'validation'}",
        f"hydra.run.dir={out / 'hydra'}",
        f"++ray_kwargs.ray_init.runtime_env.worker_process_setup_hook={RAY_HOOK}",
        *overrides,
    )  # fmt: skip


def train(recipe: str, out: Path, overrides: list[str], total: int) -> None:
    """Run verl's trainer up to step `total`, with progress and time limits. Raises DemoError."""
    if reached(out) >= total:
        console.print(f"training: all {total} steps are done already")
        return
    log = run_trainer(recipe, out, overrides, total)
    if reached(out) < total:
        raise DemoError(f"verl ended well, but without a checkpoint of step {total}: see {log}")


def run_trainer(
    recipe: str, out: Path, overrides: list[str], total: int, seen: Callable[[int], object] | None = None
) -> Path:
    """Start verl's trainer once, follow it to its end, and return its log file. Raises DemoError.

    Args:
        recipe: as in `recipe=NAME`.
        out: the run's folder.
        overrides: further Hydra overrides.
        total: the last step, for the progress bar.
        seen: called with the number of a step when its metrics are there.
    """
    start = len(list(out.glob("metrics-*.jsonl")))
    metrics, log = out / f"metrics-{start}.jsonl", out / f"train-{start}.log"
    arguments = command(recipe, out, overrides)
    console.print(f"training: [dim]python -m {' '.join(arguments[3:6])} ...[/dim]  (output in {log})")
    # Ray puts sockets below its folder, and their paths may have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as ray_folder, log.open("w") as output:
        variables = environment(
            VERL_FILE_LOGGER_PATH=str(metrics), RAY_TMPDIR=ray_folder, HF_HUB_OFFLINE="1", HYDRA_FULL_ERROR="1"
        )
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, env=variables, start_new_session=True
        )
        segments = _shared_memory()
        try:
            _follow(process, metrics, total, reached(out), seen)
        finally:
            stop(process)
            _remove_unused(_shared_memory() - segments)
    if process.returncode != 0:
        tail = "".join(deque(log.open(errors="replace"), maxlen=25))
        raise DemoError(f"verl ended with exit code {process.returncode}; the end of {log}:\n{tail}")
    return log


def reached(out: Path) -> int:
    """The step of the last checkpoint; 0 if there is none."""
    try:
        return int((out / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    except (OSError, ValueError):
        return 0


def _follow(
    process: subprocess.Popen[bytes], metrics: Path, total: int, done: int, seen: Callable[[int], object] | None = None
) -> None:
    """Show verl's progress until it ends. Raises DemoError if it gets stuck."""
    last_change, size = time.monotonic(), 0
    with _progress() as bar:
        task = bar.add_task("starting Ray, vLLM and the trainer", total=total, completed=done)
        while process.poll() is None:
            time.sleep(0.5)
            now = metrics.stat().st_size if metrics.exists() else 0
            if now != size:
                last_change, size = time.monotonic(), now
                rows = _complete_rows(metrics)
                if rows:
                    step, data = rows[-1]["step"], rows[-1]["data"]
                    reward = data.get("critic/score/mean")
                    text = f"reward {reward:.3f}" if isinstance(reward, float) else "validation"
                    bar.update(task, completed=step, description=text)
                    if seen is not None:
                        seen(step)
            elif time.monotonic() - last_change > (STEP_LIMIT if size else START_LIMIT):
                raise DemoError(
                    f"no progress for {time.monotonic() - last_change:.0f} s: stopped. See the log beside {metrics}, "
                    "and `ssl4rl doctor`"
                )


def _complete_rows(metrics: Path) -> list[dict[str, Any]]:
    lines = metrics.read_bytes().split(b"\n")[:-1]  # what follows the last newline is still being written
    return [json.loads(line) for line in lines if line.strip()]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a run and all processes that it started, Ray's daemons included, and no others."""
    import psutil

    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # lets Ray shut down by itself
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def _shared_memory() -> set[Path]:
    """The shared memory segments that Python programs on this machine hold."""
    return set(Path("/dev/shm").glob("psm_*"))


def _remove_unused(segments: set[Path]) -> None:
    """Remove segments that no process uses: the weight transfer leaves two behind in every run."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            used = maps.read_text()
            segments = {segment for segment in segments if str(segment) not in used}
    for segment in segments:
        with contextlib.suppress(OSError):
            segment.unlink()


def summarise(out: Path, recipe: str, seconds: float) -> None:
    """Print the table, write summary.json and report.html."""
    from ssl4rl_plugin.analysis.report import write_report
    from ssl4rl_plugin.analysis.runlog import RunLog
    from ssl4rl_plugin.analysis.terminal import headline_table, show

    lines = RunLog(out).headline()
    show(headline_table(lines))
    if recipe.endswith(("demo", "videos")):
        console.print(
            "So few steps prove the path (samples, rollouts, rewards, updates, weight sync, checkpoint), not learning: "
            "`make learn` runs until the model has learnt."
        )
    page = write_report(out)
    summary = {
        "recipe": recipe,
        "seconds": round(seconds),
        "tasks": {
            line.kind.label: {
                "chance": line.chance,
                **{
                    name: {"accuracy": p.rate.mean, "low": p.rate.low, "high": p.rate.high, "n": p.rate.n}
                    for name, p in (("before", line.before), ("after", line.after))
                    if p
                },
            }
            for line in lines
        },
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    console.print(f"report: {page}  ({seconds / 60:.1f} min)", soft_wrap=True)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
