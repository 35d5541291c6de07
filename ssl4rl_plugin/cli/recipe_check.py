"""`ssl4rl doctor --recipe`: check whether a recipe can run, and whether it fits its GPUs."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from ssl4rl_plugin.analysis.terminal import show, show_json, table
from ssl4rl_plugin.cli.check import Check
from ssl4rl_plugin.cli.checks import print_checks
from ssl4rl_plugin.core.errors import UserError

if TYPE_CHECKING:
    from ssl4rl_plugin.training.memory import Estimate, Phase

SHORT_CONTEXT = 32768
"""Tokens. A longer context than this was hardly chosen on purpose."""
TIGHT = 0.9
"""Share of a GPU's memory above which an estimate is reported as tight."""


def show_recipe(recipe: str, overrides: list[str], as_json: bool, elsewhere: bool = False) -> int:
    """Check a recipe, print the findings, and return the exit code: 1 if it cannot run or does not fit, else 0.

    Args:
        recipe: as in `recipe=NAME`.
        overrides: as on verl's command line.
        as_json: print JSON instead of text.
        elsewhere: the run will start on another machine than this one.

    Raises:
        UserError: there is no such recipe, or an override does not fit the config.
    """
    with Console(stderr=True).status("composing and checking the recipe"):
        config = compose_recipe(recipe, overrides)
        try:
            checks = [check_verl(config), *check_start(config, elsewhere), *check_run(config)]
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
    from ssl4rl_plugin.training.override_hints import hints
    from ssl4rl_plugin.training.verl import override_names
    from ssl4rl_plugin.training.verl.search_path import known_configs

    try:
        return compose(recipe, overrides)
    except (HydraException, ValueError) as error:  # ValueError: a scalar for a config group, ssl4rl=5
        if not plugin_is_on():
            off = "verl did not load this plugin, so that +plugin=ssl4rl and the recipes are unknown"
            setting = os.environ.get("VERL_USE_EXTERNAL_PLUGINS")
            remedy = "`ssl4rl doctor` checks the installation"
            if setting is not None:
                remedy = f"VERL_USE_EXTERNAL_PLUGINS is {setting!r}; unset it"
            raise UserError(f"{off}: {remedy}") from error
        if wrong := override_names.hints([f"recipe={recipe}", *overrides], known_configs()):
            raise UserError("\n".join(wrong)) from error
        # For an unknown name, Hydra's message lists the known ones.
        raise UserError("\n".join([str(error), *hints(["+plugin=ssl4rl", *overrides])])) from error


def plugin_is_on() -> bool:
    """Whether Hydra knows the recipes, because verl has loaded this plugin."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    return any(plugin.__name__ == "RecipeSearchPath" for plugin in Plugins.instance().discover(SearchPathPlugin))


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


def check_start(config: Any, elsewhere: bool = False) -> list[Check]:
    """What would stop the run when it starts: of this machine, unless it starts `elsewhere`, and of the sizes."""
    from ssl4rl_plugin.training.machine import look
    from ssl4rl_plugin.training.start_checks import findings, starts_ray_here

    here = not elsewhere and starts_ray_here(config)
    found = findings(config, look() if here else None)
    where = "on this machine" if here else "(GPUs, disk and files of this machine do not count: it starts elsewhere)"
    problems = sum(finding.fatal for finding in found)
    if problems:
        remedy = "see below" + ("; if the run starts on another machine, add --elsewhere" if here else "")
        checks = [Check("start", "fail", f"{problems} thing(s) stop it {where}", remedy)]
    else:
        checks = [Check("start", "ok", f"nothing found that stops it {where}")]
    status = {True: "fail", False: "warn"}
    return checks + [Check(one.name, status[one.fatal], one.message, one.remedy) for one in found]


def check_run(config: Any) -> list[Check]:
    """The preflight checks of a run. Those that need the images run only if the config names the images."""
    from ssl4rl_plugin.training import preflight
    from ssl4rl_plugin.training.settings import Settings

    named = preflight.names_images(config.ssl4rl)
    said = io.StringIO()
    try:
        if named:
            with contextlib.redirect_stderr(said):
                preflight.check(config, start=False)
            return [Check("run", "ok", "; ".join(["passes the checks before a run", *_notes(said)]))]
        section: Any = OmegaConf.to_container(config.ssl4rl)
        settings = Settings.from_config({**section, "benchmarks": []})  # their paths may refer to that of the images
        preflight.check_data_keys(config)
        preflight.check_reward(config, settings.answer_format.name)
        preflight.check_batches(config)
        if not OmegaConf.is_missing(config.actor_rollout_ref.model, "path"):
            preflight.check_model(str(config.actor_rollout_ref.model.path))
    except UserError as error:
        seen = [Check("run", "ok", note) for note in _notes(said)]  # what the checks before the failed one said
        return [*seen, Check("run", "fail", str(error), "docs/recipes.md explains the keys")]
    return [
        Check("run", "ok", "tasks, reward and batch sizes fit together"),
        Check("images", "warn", "not checked", "name them: ssl4rl.source.path=..."),
    ]


def _notes(said: io.StringIO) -> list[str]:
    """The notes that preflight printed."""
    return [line.removeprefix("ssl4rl: ") for line in said.getvalue().splitlines() if line.startswith("ssl4rl: ")]


def check_memory(config: Any) -> tuple[Estimate | None, list[Check]]:
    """The estimate of the run's GPU memory, and its checks. The estimate is None if the model's size is unknown."""
    from ssl4rl_plugin.training.memory import estimate
    from ssl4rl_plugin.training.model_size import UnknownModel, model_size

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
        checks.append(Check("GPU memory", "fail", text, _remedy(peak, config)))
    elif peak.total > TIGHT * memory:
        checks.append(Check("GPU memory", "warn", f"{text}: tight for an estimate", _remedy(peak, config)))
    else:
        checks.append(Check("GPU memory", "ok", text))
    return found, [*checks, check_cache(found), *check_host(found, config)]


def check_cache(found: Estimate) -> Check:
    """vLLM's own rule: the KV cache holds one sequence of full length."""
    assert found.kv_cache is not None and found.kv_sequences is not None
    engine = found.engine
    text = (
        f"{found.kv_cache:.1f} GiB beside {engine.weights:.1f} for weights and {engine.profile:.1f} for vLLM's profile "
        f"run: {int(found.kv_sequences)} sequences of {engine.context} tokens at once"
    )
    if found.kv_sequences >= 1:
        return Check("KV cache", "ok", text)
    remedy = "raise actor_rollout_ref.rollout.gpu_memory_utilization, or rollout.tensor_model_parallel_size"
    if engine.context > SHORT_CONTEXT:
        length = "data.max_prompt_length + data.max_response_length"
        remedy = (
            f"set actor_rollout_ref.rollout.max_model_len to {length}: a sequence needs {engine.per_sequence:.1f} GiB"
        )
    return Check("KV cache", "fail", f"{text}; vLLM would not start", remedy)


def check_host(found: Estimate, config: Any) -> list[Check]:
    """Main memory of a node and the size of checkpoints."""
    checks = []
    memory = config.ssl4rl.host_memory
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int | float)):
        raise UserError(f"ssl4rl.host_memory must be a number of GiB, got {memory!r}")
    text = f"about {found.host:.0f}{f' of {memory}' if memory else ''} GiB, prompts full of pictures"
    key = "data.val_batch_size"
    if found.validation_rows is None:
        remedy = (
            f"set {key}={config.data.train_batch_size}: null validates all rows in one batch, with all their pictures"
        )
        checks.append(Check("main memory", "warn", f"{text}; the validation's share is not bounded", remedy))
    elif memory and found.host > memory:
        remedy = "lower data.train_batch_size, data.val_batch_size or ssl4rl.options.side, or set ssl4rl.host_memory"
        checks.append(Check("main memory", "fail", text, remedy))
    else:
        checks.append(Check("main memory", "ok", text))
    kept = config.trainer.max_actor_ckpt_to_keep
    if config.trainer.save_freq and config.trainer.save_freq > 0:
        text = f"{found.checkpoint:.0f} GiB each"
        if kept:
            checks.append(Check("checkpoints", "ok", f"{text}, the last {kept} are kept"))
        else:
            checks.append(Check("checkpoints", "warn", f"{text}, all are kept", "trainer.max_actor_ckpt_to_keep=2"))
    return checks


def _remedy(peak: Phase, config: Any) -> str:
    """How to reduce the largest part of a phase."""
    largest = max(peak.parts, key=lambda name: peak.parts[name])
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    by_tokens = config.actor_rollout_ref.actor.use_dynamic_bsz
    micro = f"{actor}.ppo_{'max_token_len' if by_tokens else 'micro_batch_size'}_per_gpu"
    if largest == "logits" and not config.actor_rollout_ref.model.use_fused_kernels:
        return f"set actor_rollout_ref.model.use_fused_kernels=true, or lower {micro}"
    return {
        "vLLM": f"lower {rollout}.gpu_memory_utilization, or set {actor}.fsdp_config.param_offload=true",
        "activations": f"lower {micro}, or data.max_response_length",
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
        "engine": asdict(estimate.engine),
        "host_gib": {
            "offloaded": estimate.offloaded,
            "training_rows": estimate.training_rows,
            "validation_rows": estimate.validation_rows,
        },
        "checkpoint_gib": estimate.checkpoint,
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
        f"{estimate.model.kv_bytes / 1024:.0f} KiB a token. Offloaded state takes {estimate.offloaded:.0f} GiB on each node."
    )
