"""`ssl4rl doctor --recipe`: check whether a recipe can run, and whether it fits its GPUs."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from ssl4rl_plugin.analysis.terminal import show, show_json, table
from ssl4rl_plugin.cli.checks import Check, print_checks
from ssl4rl_plugin.core.errors import UserError

if TYPE_CHECKING:
    from ssl4rl_plugin.training.memory import Estimate, Phase

TIGHT = 0.9
"""Share of a GPU's memory above which an estimate is reported as tight."""


def show_recipe(recipe: str, overrides: list[str], as_json: bool) -> int:
    """Check a recipe, print the findings, and return the exit code: 1 if it cannot run or does not fit, else 0.

    Args:
        recipe: as in `recipe=NAME`.
        overrides: as on verl's command line.
        as_json: print JSON instead of text.

    Raises:
        UserError: there is no such recipe, or an override does not fit the config.
    """
    with Console(stderr=True).status("composing and checking the recipe"):
        config = compose_recipe(recipe, overrides)
        try:
            checks = [check_verl(config), *check_run(config)]
            estimate, memory = check_memory(config)
        except OmegaConfBaseException as error:  # an interpolation in an override that cannot be resolved
            raise UserError(f"recipe {recipe}: {error}") from error
    checks += memory
    if as_json:
        found = {"checks": [asdict(check) for check in checks], "memory": estimate and _as_json(estimate)}
        show_json({"recipe": recipe, "overrides": overrides, **found})
    else:
        print_checks(checks)
        if estimate:
            _show_estimate(estimate, config.ssl4rl.gpu_memory)
    return int(any(check.status == "fail" for check in checks))


def compose_recipe(recipe: str, overrides: list[str]) -> Any:
    """The config as main_ppo composes it. Raises UserError for an unknown recipe or a wrong override."""
    from hydra.errors import HydraException

    from ssl4rl_plugin.demo.run import compose

    try:
        return compose(recipe, overrides)
    except (HydraException, ValueError) as error:  # ValueError: a scalar for a config group, ssl4rl=5
        raise UserError(str(error)) from error  # for an unknown name, Hydra's message lists the known ones


def check_verl(config: Any) -> Check:
    """verl's own validation of the config, the first step of main_ppo."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    except Exception as error:  # verl raises assertions, and Hydra's and OmegaConf's errors
        text = str(error).strip().splitlines()
        return Check("verl", "fail", text[0] if text else type(error).__name__, "change that key")
    return Check("verl", "ok", "passes verl's validation")


def check_run(config: Any) -> list[Check]:
    """The preflight checks of a run. Those that need the images run only if the config names the images."""
    from ssl4rl_plugin.training import preflight
    from ssl4rl_plugin.training.settings import Settings

    named = config.ssl4rl.data is not None or not OmegaConf.is_missing(config.ssl4rl.source, "path")
    try:
        if named:
            with contextlib.redirect_stderr(io.StringIO()) as said:
                preflight.check(config)
            notes = [
                line.removeprefix("ssl4rl: ") for line in said.getvalue().splitlines() if line.startswith("ssl4rl: ")
            ]
            return [Check("run", "ok", "; ".join(["passes the checks before a run", *notes]))]
        section: Any = OmegaConf.to_container(config.ssl4rl)
        settings = Settings.from_config({**section, "benchmarks": []})  # their paths may refer to that of the images
        preflight.check_data_keys(config)
        preflight.check_reward(config, settings.answer_format.name)
        preflight.check_batches(config)
        if not OmegaConf.is_missing(config.actor_rollout_ref.model, "path"):
            preflight.check_model(str(config.actor_rollout_ref.model.path))
    except UserError as error:
        return [Check("run", "fail", str(error), "docs/recipes.md explains the keys")]
    return [
        Check("run", "ok", "tasks, reward and batch sizes fit together"),
        Check("images", "warn", "not checked", "name them: ssl4rl.source.path=..."),
    ]


def check_memory(config: Any) -> tuple[Estimate | None, list[Check]]:
    """The estimate of the run's GPU memory, and its checks. The estimate is None if the model's size is unknown."""
    from ssl4rl_plugin.training.memory import UnknownModel, estimate, model_size

    model = config.actor_rollout_ref.model
    if OmegaConf.is_missing(model, "path"):
        return None, [Check("model", "warn", "not named", "name it: actor_rollout_ref.model.path=...")]
    try:
        size = model_size(str(model.path))
    except UnknownModel as error:
        return None, [Check("model", "warn", f"size unknown: {error}", "download it, and give its folder")]
    memory = config.ssl4rl.gpu_memory
    if memory is not None and not isinstance(memory, int | float):
        raise UserError(f"ssl4rl.gpu_memory must be a number of GiB, got {memory!r}")
    found = estimate(config, size)
    seen = f", {_billions(size.vision_parameters)} of them in the vision tower" if size.vision_parameters else ""
    trained = "" if found.trained == size.parameters else f"; {_billions(found.trained)} trained"
    checks = [Check("model", "ok", f"{size.name}, {_billions(size.parameters)} parameters{seen}{trained}")]
    if not memory:
        return found, checks
    peak = found.peak
    text = f"{peak.total:.0f} of {memory} GiB on each of {found.gpus} GPU(s), in the phase '{peak.name}'"
    if peak.total > memory:
        checks.append(Check("GPU memory", "fail", text, _remedy(peak)))
    elif peak.total > TIGHT * memory:
        checks.append(Check("GPU memory", "warn", f"{text}: tight for an estimate", _remedy(peak)))
    else:
        checks.append(Check("GPU memory", "ok", text))
    assert found.kv_sequences is not None
    text = f"{found.kv_cache:.0f} GiB: {found.kv_sequences:.0f} sequences of full length at once"
    if found.kv_sequences < 1:
        remedy = "raise actor_rollout_ref.rollout.gpu_memory_utilization, or rollout.tensor_model_parallel_size"
        checks.append(Check("KV cache", "fail", text, remedy))
    else:
        checks.append(Check("KV cache", "ok", text))
    return found, checks


def _remedy(peak: Phase) -> str:
    """How to reduce the largest part of a phase."""
    largest = max(peak.parts, key=lambda name: peak.parts[name])
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    return {
        "vLLM": f"lower {rollout}.gpu_memory_utilization, or set {actor}.fsdp_config.param_offload=true",
        "logits": f"lower {actor}.ppo_micro_batch_size_per_gpu and the log_prob_micro_batch_size_per_gpu of rollout and ref",
        "activations": f"lower {actor}.ppo_micro_batch_size_per_gpu, or data.max_response_length",
        "bucket": f"lower {rollout}.checkpoint_engine.update_weights_bucket_megabytes",
    }.get(largest, "ssl4rl/finetuning=lora, more GPUs, or a smaller model")


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e8 else f"{count / 1e6:.2f} million"


def _as_json(estimate: Estimate) -> dict[str, Any]:
    from ssl4rl_plugin.training.memory import RESERVE

    size = estimate.model
    return {
        "parameters": size.parameters,
        "vision_parameters": size.vision_parameters,
        "trained_parameters": estimate.trained,
        "gpus": estimate.gpus,
        "reserve_gib": RESERVE,
        "phases": [
            {"name": phase.name, "total_gib": round(phase.total, 3), "parts_gib": dict(phase.parts)}
            for phase in estimate.phases
        ],
        "kv_bytes_per_token": size.kv_bytes,
        "kv_cache_gib": estimate.kv_cache,
        "kv_cache_sequences": estimate.kv_sequences,
        "host_gib_per_node": round(estimate.host, 3),
    }


def _show_estimate(estimate: Estimate, memory: float | None) -> None:
    """The estimate as a table, a column for each phase."""
    from ssl4rl_plugin.training.memory import RESERVE

    listing = table("GiB on each GPU", *(phase.name for phase in estimate.phases))
    names = dict.fromkeys(name for phase in estimate.phases for name, value in phase.parts.items() if value)
    for name in names:
        cells = (phase.parts.get(name, 0.0) for phase in estimate.phases)
        listing.add_row(name, *(f"{value:.2f}" if value else "" for value in cells))
    listing.add_row("reserve", *[f"{RESERVE:.2f}"] * len(estimate.phases), end_section=True)
    of = f" of {memory}" if memory else ""
    listing.add_row("[bold]in all", *(f"[bold]{phase.total:.2f}{of}" for phase in estimate.phases))
    console = Console(soft_wrap=True, highlight=False)
    console.print()
    show(listing)
    console.print(
        f"\nEstimated for prompts and responses at their limits (docs/gpu.md has the formulas). KV cache: "
        f"{estimate.model.kv_bytes / 1024:.0f} KiB a token. Offloaded state takes {estimate.host:.0f} GiB on each node."
    )
