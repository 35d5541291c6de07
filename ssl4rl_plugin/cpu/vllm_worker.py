"""The extension of vLLM's worker that receives the actor's weights on the CPU.

vLLM's linear layers for the CPU pack their weights into another layout after loading and drop the originals. verl's weight
update then finds no parameters to load into, and the job hangs. vLLM's `reload_weights` restores the parameters, loads,
and packs again. It treats each call as a complete checkpoint, and verl sends the weights in buckets, so this class
collects the buckets first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """Collects the actor's weights, bucket by bucket, and loads them at once. Loaded by `ssl4rl_plugin.cpu.rollout`."""

    _received: list[tuple[str, torch.Tensor]]

    def update_weights_from_ipc(
        self, peft_config: dict[str, Any] | None = None, base_sync_done: bool = False, use_shm: bool = False
    ) -> None:
        """Receive one full set of weights from the trainer and load it."""
        self._received = []
        super().update_weights_from_ipc(peft_config=peft_config, base_sync_done=base_sync_done, use_shm=use_shm)
        weights, self._received = self._received, []
        self.load_received_weights(weights)

    def _update_weights(
        self, weights: list[tuple[str, torch.Tensor]], peft_config: dict[str, Any] | None, base_sync_done: bool
    ) -> None:
        # verl calls this once per bucket and then reuses the bucket's memory, so the tensors are copied.
        self._received.extend((name, tensor.clone()) for name, tensor in weights)

    def _iter_all_models_with_config(self) -> Iterator[Any]:
        """No model. verl packs the weights of these after the last bucket, when they are packed already, and
        `reload_weights` packs the new ones. On a processor with AMX, vLLM's second packing fails."""
        return iter(())

    def load_received_weights(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        """Load a full set of weights, named as in the checkpoint. Override it to do something else with them."""
        if not weights:
            raise RuntimeError("The trainer sent no weights to the rollout; its model would stay as it was loaded.")
        self.model_runner.reload_weights(weights_iterator=iter(weights))
