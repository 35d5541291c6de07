"""Everything about the machine and the sizes of a run that would stop it after Ray has started, found before.

`findings` compares a config with a `Machine`. It reports all problems together. GPUs, memory and files of this machine
count only if the run starts Ray here; a run on a cluster may be started from a machine without a GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.training import machine as machines
from ssl4rl_plugin.training import model_files
from ssl4rl_plugin.training.attention import attention_findings
from ssl4rl_plugin.training.machine import GIB, Finding, Machine
from ssl4rl_plugin.training.memory import checkpoint_bytes
from ssl4rl_plugin.training.model_size import UnknownModel, model_size
from ssl4rl_plugin.training.verl.import_checks import import_findings

LOGGERS = {
    "console": ("", ""), "file": ("", ""), "wandb": ("wandb", "wandb"), "tracking": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"), "swanlab": ("swanlab", "swanlab"), "tensorboard": ("tensorboard", "tensorboard"),
    "clearml": ("clearml", "clearml"), "trackio": ("trackio", "trackio"), "rl_insight": ("rl_insight", "rl-insight"),
    "vemlp_wandb": ("volcengine_ml_platform", "volcengine-ml-platform"),
}  # fmt: skip
"""The loggers of verl.utils.tracking: the module that each imports, and the distribution that has it."""
MARGIN = 1.05
"""Room on the disk for a checkpoint, as a multiple of its weights and moments: tokenizer, data state, file system."""


class StartError(UserError):
    """A run that this machine cannot start; the message lists every problem with its remedy."""


def check_start(config: Any) -> None:
    """Raise StartError with all problems that stop the run; print the others to stderr. Looks at this machine."""
    report(findings(config, machines.look() if starts_ray_here(config) else None))


def report(found: Iterable[Finding]) -> None:
    """Print the findings that are not fatal. Raise StartError with the others."""
    found = list(found)
    for finding in found:
        if not finding.fatal:
            print(f"ssl4rl: {finding}", file=sys.stderr)
    fatal = [str(finding) for finding in found if finding.fatal]
    if len(fatal) == 1:
        raise StartError(fatal[0])
    if fatal:
        raise StartError("\n  ".join([f"{len(fatal)} things stop this run:", *fatal]))


def findings(config: Any, machine: Machine | None) -> list[Finding]:
    """All that would stop the run, or might. Asks the hub if the model is not on this machine.

    Args:
        config: verl's config, composed, with the `ssl4rl` section.
        machine: the machine that runs it; None for other machines than this one, whose files then do not count either.
    """
    here = machine is not None
    model_path = _model_path(config)
    model = model_files.inspect(model_path, download=here) if model_path else model_files.Model(None, None)
    found = machine_findings(config, machine) if machine is not None else []
    found += [*model.findings, *model_files.processor_findings(model_path or "", model)]
    if config.trainer.device == "cuda":
        found += attention_findings(config, here)
    found += [*parallel_findings(config, model.heads), *batch_findings(config), *logger_findings(config, here)]
    found += import_findings(config, here)
    return found + (disk_findings(config) if here else [])


def machine_findings(config: Any, machine: Machine) -> list[Finding]:
    """What this machine lacks for the run."""
    device = "cpu" if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu" else str(config.trainer.device)
    if device == "cuda":
        found = machines.gpu_findings(machine, gpus_of(config), fitting_gpus(config, machine.gpus))
    else:
        found = machines.cpu_findings(machine) if device == "cpu" else []
    on_gpu = device == "cuda" and not any(finding.name == "GPU" for finding in found)
    # Without a GPU, there is no use in telling which packages would be right beside one.
    found += machines.package_findings(machine, on_gpu and not machine.other_accelerator)
    return found + machines.shared_memory_findings(machine.shared_memory)


def starts_ray_here(config: Any) -> bool:
    """True if `ray.init` will start Ray on this machine, False if it will connect to a cluster.

    As Ray decides: the address in ray_kwargs.ray_init, RAY_ADDRESS, or the cluster that `ray start` has started here.
    """
    if config.trainer.nnodes > 1:
        return False  # one machine cannot be two nodes: there must be a cluster
    address = config.ray_kwargs.ray_init.get("address") or os.environ.get("RAY_ADDRESS")
    return address == "local" or not (address or ray_address_file().is_file())


def ray_address_file() -> Path:
    """The file in which `ray start` leaves the address of its cluster."""
    parent = os.environ.get("RAY_TMPDIR") or (os.environ.get("TMPDIR") if sys.platform.startswith("linux") else None)
    return Path(parent or "/tmp") / "ray" / "ray_current_cluster"


def gpus_of(config: Any) -> int:
    """GPUs that verl asks Ray for."""
    count = int(config.trainer.n_gpus_per_node * config.trainer.nnodes)
    rollout, judge = config.actor_rollout_ref.rollout, config.reward.reward_model
    if config.trainer.use_v1 and config.trainer.v1.trainer_mode == "separate_async":
        count += int(rollout.nnodes * rollout.n_gpus_per_node)
    if judge.enable and judge.enable_resource_pool:
        count += int(judge.nnodes * judge.n_gpus_per_node)
    return count


def fitting_gpus(config: Any, most: int) -> int:
    """The largest number of GPUs up to `most` among which the rollouts and the vLLM engines divide; at least 1."""
    rollout = config.actor_rollout_ref.rollout
    batches = (config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size)
    rows = [int(rollout.n * count) for count in batches]
    engine = int(rollout.tensor_model_parallel_size)
    fits = (count for count in range(most, 0, -1) if count % engine == 0 and not any(row % count for row in rows))
    return next(fits, 1)


def parallel_findings(config: Any, heads: int | None) -> list[Finding]:
    """Whether the GPUs divide into vLLM engines, and the attention heads among an engine's GPUs."""
    rollout = config.actor_rollout_ref.rollout
    gpus, tensor = int(config.trainer.n_gpus_per_node * config.trainer.nnodes), int(rollout.tensor_model_parallel_size)
    engine = tensor * int(rollout.data_parallel_size) * int(rollout.pipeline_model_parallel_size)
    key = "actor_rollout_ref.rollout.tensor_model_parallel_size"
    fits = [size for size in range(1, gpus + 1) if gpus % size == 0 and (heads is None or heads % size == 0)]
    remedy = f"set {key} to one of {', '.join(map(str, fits))}"
    found = []
    if gpus % engine:
        found.append(Finding("GPUs", f"{gpus} GPU(s) do not divide into vLLM engines of {engine}", remedy))
    if heads and heads % tensor:
        message = f"{heads} attention heads do not divide among {tensor} GPU(s) of a vLLM engine"
        found.append(Finding("GPUs", message, remedy))
    return found


def batch_findings(config: Any) -> list[Finding]:
    """Whether the rollouts of a batch and of a mini-batch divide among the GPUs."""
    actor, rollout, trainer = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.trainer
    if actor.use_dynamic_bsz:
        return []
    gpus = int(trainer.n_gpus_per_node * trainer.nnodes)
    ranks = gpus // int(actor.get("ulysses_sequence_parallel_size") or 1)
    batch, mini = int(config.data.train_batch_size), int(actor.ppo_mini_batch_size)
    whole = [("data.train_batch_size", batch, gpus), ("actor_rollout_ref.actor.ppo_mini_batch_size", mini, ranks)]
    found = []
    for key, prompts, share in whole:
        rows = prompts * int(rollout.n)
        if share and rows % share:
            near = max(share, prompts // share * share)
            found.append(
                Finding(
                    "batch",
                    f"{key}={prompts} x {rollout.n} rollouts = {rows} rows do not divide among {share} GPU(s)",
                    f"use {fitting_gpus(config, gpus)} GPU(s) (trainer.n_gpus_per_node), or set {key}={near}",
                )
            )
    return found


def logger_findings(config: Any, here: bool = True) -> list[Finding]:
    """Loggers that verl does not know, that are not installed, or that would ask for a login."""
    given = config.trainer.get("logger") or []
    names = [given] if isinstance(given, str) else list(given)
    found = []
    for name in names:
        if name not in LOGGERS:
            message = f"trainer.logger names {name!r}, which verl does not know"
            found.append(Finding("logger", message, f"choose from {', '.join(sorted(LOGGERS))}"))
            continue
        module, distribution = LOGGERS[name]
        if module and importlib.util.find_spec(module) is None:
            kept = ",".join(other for other in names if other != name) or "console"
            remedy = f"pip install {distribution}, or set trainer.logger=[{kept}]"
            # On a cluster, the trainer may run on a node with other packages than this one.
            found.append(
                Finding("logger", f"{name} needs the package {distribution}, which is not installed", remedy, here)
            )
        elif module and (problem := _import_problem("torch.utils.tensorboard" if name == "tensorboard" else module)):
            found.append(Finding("logger", f"{name} cannot be imported ({problem})", f"reinstall {distribution}", here))
        elif (lacking := _login_lacking(name)) is not None:
            found.append(Finding("logger", *lacking, fatal=False))
    return found


def _import_problem(module: str) -> str | None:
    """What a logger's module raises; None if it can be imported."""
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _login_lacking(name: str) -> tuple[str, str] | None:
    """What a tracking service would ask for or fail without, and the remedy; None if there is nothing."""
    if name in ("wandb", "tracking") and not _wandb_login():
        return "wandb finds no login on this machine", "wandb login, or WANDB_API_KEY=..., or WANDB_MODE=offline"
    keys = [key for key in LOGINS.get(name, ()) if not os.environ.get(key)]
    if name == "swanlab" and os.environ.get("SWANLAB_MODE", "cloud") != "cloud":
        return None
    if keys and not any(Path(file).expanduser().exists() for file in LOGIN_FILES.get(name, ())):
        offline = ", or SWANLAB_MODE=local" if name == "swanlab" else ""
        return f"{name} finds no login on this machine", f"set {', '.join(keys)}{offline}"
    return None


LOGINS = {
    "swanlab": ("SWANLAB_API_KEY",), "clearml": ("CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY"),
    "vemlp_wandb": ("VOLC_ACCESS_KEY_ID", "VOLC_SECRET_ACCESS_KEY", "MLP_TRACKING_REGION"),
}  # fmt: skip
"""Variables with the login of each tracking service."""
LOGIN_FILES = {"swanlab": ("~/.swanlab/.netrc",), "clearml": ("~/clearml.conf",)}
"""Files that may have it instead."""


def _wandb_login() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE", "") in ("offline", "disabled", "dryrun"):
        return True
    files = (Path(os.environ.get("NETRC", "~/.netrc")).expanduser(), Path("~/_netrc").expanduser())
    return any(file.is_file() and "wandb" in file.read_text(errors="replace") for file in files)


def disk_findings(config: Any, steps: int | None = None) -> list[Finding]:
    """Whether the checkpoints of the run fit on the disk of trainer.default_local_dir.

    Args:
        config: verl's config.
        steps: training steps; None takes trainer.total_training_steps, or counts on two checkpoints at least.
    """
    path = _model_path(config)
    if not path or config.trainer.save_freq <= 0:
        return []
    try:
        size = int(MARGIN * checkpoint_bytes(config, model_size(path)))
    except UnknownModel:
        return []
    folder = Path(str(config.trainer.default_local_dir)).expanduser().absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    count = checkpoints_held(config, steps, written=len([*folder.glob("global_step_*")]))
    free = shutil.disk_usage(existing).free
    if count * size <= free:
        return []
    keep = config.trainer.get("max_actor_ckpt_to_keep")
    fewer = "trainer.max_actor_ckpt_to_keep=1" if free >= 2 * size and keep != 1 else "free some space"
    return [
        Finding(
            "disk",
            f"{count} checkpoint(s) of {size / GIB:.3g} GiB need {count * size / GIB:.0f} GiB, and {existing} has "
            f"{free / GIB:.3g} GiB free",
            f"{fewer}, or set trainer.default_local_dir to a larger disk, or raise trainer.save_freq",
        )
    ]


def checkpoints_held(config: Any, steps: int | None, written: int = 0) -> int:
    """The most checkpoints that are on the disk at once, without the `written` ones that are there already.

    With max_actor_ckpt_to_keep=1, verl deletes the old one after the new one is written, otherwise before.
    """
    trainer = config.trainer
    planned = trainer.get("total_training_steps") or steps
    saves = max(1, -(-int(planned) // int(trainer.save_freq)) - written) if planned else None
    keep = trainer.get("max_actor_ckpt_to_keep")
    most = None if not keep or keep < 0 else 2 if keep == 1 else int(keep)
    known = [count for count in (saves, most) if count is not None]
    return min(known, default=2)


def _model_path(config: Any) -> str | None:
    from omegaconf import OmegaConf

    model = config.actor_rollout_ref.model
    return None if OmegaConf.is_missing(model, "path") else str(model.path)
