"""Whether everything can be imported that a run imports by name after Ray has started: minutes later, in a worker.

Modules of this package and of the rollout backends are only looked for: importing them takes longer than all other checks.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.training.machine import Finding

NAME = "import"
BACKENDS = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt_llm"}
"""The package of each rollout backend."""
PROFILERS = {"nsys": "", "npu": "torch_npu", "torch": "torch", "torch_memory": "torch", "precision_debugger": "msprobe"}
"""The package of each `global_profiler.tool`; `nsys` is a program."""
FILES = (
    "actor_rollout_ref.rollout.agent.agent_loop_config_path",
    "actor_rollout_ref.rollout.multi_turn.tool_config_path",
    "actor_rollout_ref.rollout.multi_turn.interaction_config_path",
)
"""Keys that name a file which the rollout reads."""
OBJECTS = ("reward.custom_reward_function", "data.custom_cls", "trainer.v1.sampler.custom_sampler")
"""Keys with a `path` (pkg://MODULE or a file) and a `name`, which verl loads with `load_extern_object`."""
CLASSES = ("trainer.checkpoint_callback_class", "actor_rollout_ref.rollout.agent.agent_loop_manager_class")
"""Keys that name a class as MODULE.CLASS."""
OURS = "ssl4rl_plugin."


def import_findings(config: Any, here: bool = True) -> list[Finding]:
    """What the run names and cannot import.

    Args:
        config: verl's config, composed.
        here: this machine runs it. Otherwise another one may have other packages, and no finding is fatal.
    """
    return [Finding(NAME, message, remedy, here) for message, remedy in _problems(config)]


def _problems(config: Any) -> Iterator[tuple[str, str]]:
    from omegaconf import OmegaConf

    def get(key: str) -> Any:
        return OmegaConf.select(config, key, throw_on_missing=False)

    for key in OBJECTS:
        path, name = get(f"{key}.path"), get(f"{key}.name")
        if path:
            yield from _failing(
                f"{key} ({path}, {name})", f"correct {key}.path and {key}.name", partial(_load, path, name)
            )
    for key in CLASSES:
        if name := get(key):
            module, _, attribute = str(name).rpartition(".")
            yield from _failing(f"{key}={name}", f"correct {key}", partial(_load, f"pkg://{module}", attribute))
    yield from _failing("reward.reward_manager", "correct reward.reward_manager", partial(_reward_manager, config))
    given = get("actor_rollout_ref.model.external_lib")
    for module in [given] if isinstance(given, str) else given or []:
        key = "actor_rollout_ref.model.external_lib"
        yield from _failing(f"{key}={module}", f"correct {key}, or install its package", partial(_module, module))
    yield from _backends(get)
    for key in FILES:
        if (path := get(key)) and not Path(str(path)).expanduser().is_file():
            yield f"{key} names {path}, which is no file", f"correct {key}"


def _backends(get: Callable[[str], Any]) -> Iterator[tuple[str, str]]:
    """Rollout, transfer of weights, and profiler."""
    rollout, engine = get("actor_rollout_ref.rollout.name"), "actor_rollout_ref.rollout.checkpoint_engine"
    package = BACKENDS.get(str(rollout))
    if package is not None and _missing(package):
        yield f"the rollout {rollout} needs the package {package}, which is not installed", f"pip install {package}"
    if package is None:
        yield from _failing(
            f"actor_rollout_ref.rollout.name={rollout}",
            f"choose from {', '.join(BACKENDS)}, or register it in actor_rollout_ref.model.external_lib",
            partial(_registered_rollout, str(rollout), bool(get("actor_rollout_ref.model.external_lib"))),
        )
    if custom := get(f"{engine}.custom_backend_module"):
        yield from _failing(
            f"{engine}.custom_backend_module={custom}", f"correct {engine}", partial(_module, str(custom))
        )
    elif (backend := get(f"{engine}.backend")) not in (None, "naive"):
        yield from _failing(
            f"{engine}.backend={backend}", f"install what it needs, or set {engine}.backend=naive",
            partial(_checkpoint_engine, str(backend)),
        )  # fmt: skip
    tool, steps = get("global_profiler.tool"), get("global_profiler.steps")
    if tool and steps:
        remedy = "install it, or set global_profiler.tool=null"
        if tool not in PROFILERS:
            yield f"global_profiler.tool is {tool!r}, which verl does not know", f"choose from {', '.join(PROFILERS)}"
        elif tool == "nsys" and shutil.which("nsys") is None:
            yield "global_profiler.tool=nsys needs the program nsys, which is not on the PATH", remedy
        elif PROFILERS[tool] and _missing(PROFILERS[tool]):
            yield f"global_profiler.tool={tool} needs the package {PROFILERS[tool]}, which is not installed", remedy


def _failing(what: str, remedy: str, load: Callable[[], object]) -> Iterator[tuple[str, str]]:
    """A problem if `load` raises anything: it runs code of the user's."""
    try:
        load()
    except UserError as error:
        yield f"{what}: {error}", remedy
    except (Exception, SystemExit) as error:
        cause: BaseException = error.__cause__ or error  # verl wraps what a file raises
        yield (
            f"{what} cannot be loaded ({type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''})",
            remedy,
        )


def _load(path: str, name: str | None) -> None:
    from verl.utils.import_utils import load_extern_object

    if path.startswith(f"pkg://{OURS}"):
        _module(path.removeprefix("pkg://"))
    elif not callable(load_extern_object(module_path=path, object_name=str(name))):
        raise UserError(f"{name} is neither a class nor a function")


def _module(name: str) -> None:
    """Import a module; of this package, only look for it."""
    if not name.startswith(OURS):
        importlib.import_module(name)
    elif importlib.util.find_spec(name.replace("/", ".")) is None:
        raise ModuleNotFoundError(f"No module named {name!r}")


def _missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def _reward_manager(config: Any) -> None:
    from verl.trainer.ppo.reward import resolve_reward_manager_cls

    resolve_reward_manager_cls(config)


def _registered_rollout(name: str, registered_later: bool) -> None:
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    if name not in RolloutReplicaRegistry._registry and not registered_later:
        raise UserError(f"verl knows {', '.join(sorted(RolloutReplicaRegistry._registry))}")


def _checkpoint_engine(backend: str) -> None:
    from verl.checkpoint_engine import CheckpointEngineRegistry

    CheckpointEngineRegistry.get(backend)
