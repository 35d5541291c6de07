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
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ssl4rl_plugin.core.safe_path import RAY_HOOK, environment, run_module
from ssl4rl_plugin.demo.progress import PARTS, Pace, Part, Timeline, clock
from ssl4rl_plugin.demo.watch import DemoError as DemoError
from ssl4rl_plugin.demo.watch import follow

console = Console()

RECIPES = ("cpu_demo", "cpu_learn", "cpu_one_task", "cpu_curriculum", "cpu_videos", "graph_cpu_demo", "graph_cpu_learn")
"""Recipes for the tiny model on a machine without a GPU."""


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
    timeline = Timeline(console)
    config = compose(recipe, [f"actor_rollout_ref.model.path={out / 'model'}", *own])
    timeline.seconds["model"] = timeline.now() - timeline.started
    made = (out / "model" / "warm_up.json").is_file()
    timeline.expected = Pace().expected(config, 0 if made else supervised_steps(config), reached(out))
    timeline.chances = chances_of(config)
    timeline.announce()
    prepare_model(config, out / "model", seed, timeline)
    train(recipe, out, own, int(config.trainer.total_training_steps), timeline)
    summarise(out, recipe, seed, timeline)
    return 0


def photographs(folder: Path) -> tuple[str, ...]:
    """Overrides of a recipe that take the photographs in `folder`."""
    from ssl4rl_plugin.training.override_hints import quoted

    return "ssl4rl.source.name=folder", f"ssl4rl.source.path={quoted(str(folder.resolve()))}"


def supervised_steps(config: Any) -> int:
    """Most supervised steps that the model gets before reinforcement learning."""
    start = config.ssl4rl.warm_up
    return int(start.steps) + (int(start.limit) if start.taught else 0)


def chances_of(config: Any) -> dict[str, float]:
    """Task -> its chance, the mean of its levels'."""
    from ssl4rl_plugin.training.settings import Settings

    by_task: dict[str, list[float]] = {}
    for arm in Settings.from_config(config.ssl4rl).arms:
        by_task.setdefault(arm.task.name, []).append(arm.task.chance(arm.level))
    return {task: sum(found) / len(found) for task, found in by_task.items()}


def compose(recipe: str, overrides: list[str]) -> Any:
    """verl's config for a recipe, composed as in main_ppo."""
    import verl  # noqa: F401  -- loads the plugin
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return hydra_compose("ppo_trainer", overrides=["+plugin=ssl4rl", f"recipe={recipe}", *overrides])


def prepare_model(config: Any, folder: Path, seed: int, timeline: Timeline | None = None) -> None:
    """Build and warm up the model, unless the folder already holds it.

    Args:
        config: the composed config.
        folder: the model's.
        seed: of its weights and answers.
        timeline: of the whole demo; None for a new one.
    """
    with (timeline or Timeline(console)).part("model", supervised_steps(config)) as part:
        _prepare_model(config, folder, seed, part)


def _prepare_model(config: Any, folder: Path, seed: int, part: Part) -> None:
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
    manifest = load_manifest(settings, progress=console.is_terminal)
    if settings.source.taught_fraction:
        # Of other photographs, or another division of them, training could show what this model was taught on.
        made_for |= {"taught_fraction": settings.source.taught_fraction, "images": manifest.digest}
    if start["model"]:
        made_for["model"] = start["model"]
    if start["taught"]:
        lessons = Settings.from_config({**section, "tasks": start["taught"]})
        made_for["taught"] = [arm.key for arm in lessons.arms]
        made_for |= {name: start[name] for name in ("skill", "limit", "batch", "rate")}
    if (folder / "warm_up.json").is_file():
        found = json.loads((folder / "warm_up.json").read_text())["made_for"]
        if found != made_for:
            raise DemoError(f"{folder} was made for {found}, and this run is for {made_for}: choose another --out")
        part.timeline.say(f"model: {folder} is there already")
        return
    split = "taught" if settings.source.taught_fraction else "train"
    stream = SampleStream(settings, manifest, split)

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
    part.timeline.say(
        f"model: {'Qwen2.5' if graph else 'Qwen2.5-VL'}, {count / 1e6:.2f} M random parameters, {len(tokenizer)} tokens"
    )
    processor = tokenizer if graph else hf_processor(str(unfinished))
    notes: dict[str, Any] = {"made_for": made_for}

    def counting(text: str) -> Callable[[], None]:
        return lambda: part.step(part.done + 1, text)

    if start["steps"]:
        result = warm_up(model, processor, stream, start["steps"], seed, counting("warm-up on random answers"))
        notes |= vars(result)
        part.timeline.say(
            f"warm-up: loss {result.loss:.3f} nats a token; writing random answers perfectly would be {result.floor:.3f}"
        )
    if start["taught"]:
        names = ", ".join(made_for["taught"])
        truths = SampleStream(lessons, stream.manifest, split)
        counted = counting(f"teaching the truth of {names}")
        lesson = teach(
            model, processor, truths, start["skill"], seed, start["limit"], counted, start["batch"], start["rate"]
        )
        notes["taught"] = vars(lesson)
        accuracies = ", ".join(f"{key} {accuracy:.2f}" for key, accuracy in lesson.accuracies.items())
        part.timeline.say(f"taught: {lesson.steps} supervised steps on the truth, accuracies {accuracies}")
    model.save_pretrained(unfinished)
    (unfinished / "warm_up.json").write_text(json.dumps(notes))
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


def train(recipe: str, out: Path, overrides: list[str], total: int, timeline: Timeline) -> None:
    """Run verl's trainer up to step `total`, with progress and time limits. Raises DemoError."""
    if reached(out) >= total:
        console.print(f"training: all {total} steps are done already")
        return
    log = run_trainer(recipe, out, overrides, total, timeline=timeline)
    if reached(out) < total:
        raise DemoError(f"verl ended well, but without a checkpoint of step {total}: see {log}")


def run_trainer(
    recipe: str,
    out: Path,
    overrides: list[str],
    total: int,
    seen: Callable[[int], object] | None = None,
    timeline: Timeline | None = None,
) -> Path:
    """Start verl's trainer once, follow it to its end, and return its log file. Raises DemoError.

    Args:
        recipe: as in `recipe=NAME`.
        out: the run's folder.
        overrides: further Hydra overrides.
        total: the last step, for the progress bar.
        seen: called with the number of a step when its metrics are there.
        timeline: of the whole demo; None for a new one.
    """
    start = len(list(out.glob("metrics-*.jsonl")))
    metrics, log = out / f"metrics-{start}.jsonl", out / f"train-{start}.log"
    arguments = command(recipe, out, overrides)
    console.print(f"training: [dim]python -m {' '.join(arguments[3:6])} ...[/dim]  (output in {log})", soft_wrap=True)
    # Ray puts sockets below its folder, and their paths may have at most 107 characters.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as ray_folder,
        log.open("w") as output,
    ):
        variables = {
            # By default Ray's workers have a niceness of 15, and any other program on the machine stops them for long.
            "RAY_worker_niceness": "0",
            **environment(
                VERL_FILE_LOGGER_PATH=str(metrics), RAY_TMPDIR=ray_folder, HF_HUB_OFFLINE="1", HYDRA_FULL_ERROR="1"
            ),
        }
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, env=variables, start_new_session=True
        )
        segments = _shared_memory()
        try:
            with _sigterm_exits():
                follow(process, metrics, total, reached(out), timeline or Timeline(console), seen)
        finally:
            stop(process)
            _remove_unused(_shared_memory() - segments)
    if process.returncode != 0:
        tail = "".join(deque(log.open(errors="replace"), maxlen=25))
        raise DemoError(f"verl ended with exit code {process.returncode}; the end of {log}:\n{tail}")
    return log


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """SIGTERM raises SystemExit. By default it ends Python at once, and a dozen processes of the run would go on."""
    if threading.current_thread() is not threading.main_thread():  # no other thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def reached(out: Path) -> int:
    """The step of the last checkpoint; 0 if there is none."""
    try:
        return int((out / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    except (OSError, ValueError):
        return 0


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


def summarise(out: Path, recipe: str, seed: int, timeline: Timeline) -> None:
    """Print the result, write summary.json and report.html."""
    from ssl4rl_plugin.analysis.report import write_report
    from ssl4rl_plugin.analysis.runlog import RunLog
    from ssl4rl_plugin.demo.summary import show_result, summary, write_summary

    log = RunLog(out)
    with timeline.part("report"):
        page = write_report(out)
        rows = log.headline()
    show_result(log, rows, recipe, console)
    seconds = timeline.now() - timeline.started
    write_summary(out / "summary.json", summary(log, rows, recipe, seed, seconds, timeline.seconds))
    took = ", ".join(f"{PARTS[part]} {clock(spent)}" for part, spent in timeline.seconds.items())
    timeline.say(f"in all {clock(seconds)}: {took}")
    timeline.say(f"report: {page}")
