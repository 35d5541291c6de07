"""Hydra callback of the recipes without a GPU: starts the server that Ray's workers are forks of (`cpu.fork_server`)."""

from __future__ import annotations

import os
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

RUNTIME_ENV = "ray_kwargs.ray_init.runtime_env"


class StartForkServer(Callback):
    """Starts the server on the driver, before the checks of the run, which take some seconds as its imports do."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra calls this on the driver, with the composed config."""
        from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

        from ssl4rl_plugin.cpu import fork_server
        from ssl4rl_plugin.training.start_checks import starts_ray_here

        runtime_env = OmegaConf.select(config, RUNTIME_ENV) or {}
        # On another machine there is no server. A command of the user's own stays.
        if not starts_ray_here(config) or runtime_env.get("py_executable"):
            return
        variables = {
            **os.environ,
            **get_ppo_ray_runtime_env(config)["env_vars"],
            "TRANSFER_QUEUE_ENABLE": "1",
            **runtime_env.get("env_vars", {}),
        }
        command = fork_server.start({name: str(value) for name, value in variables.items()})
        # The first worker waits until everything is imported, which Ray's 60 s may not allow on a busy machine.
        os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")
        OmegaConf.update(config, f"{RUNTIME_ENV}.py_executable", str(command), force_add=True)
