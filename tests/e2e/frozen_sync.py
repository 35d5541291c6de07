"""A rollout that keeps its first weights: the defect that the weight-sync check must find.

Named in `actor_rollout_ref.model.external_lib` by a test in place of `ssl4rl_plugin.cpu.rollout`.
"""

from __future__ import annotations

import torch

from ssl4rl_plugin.cpu import rollout
from ssl4rl_plugin.cpu.vllm_worker import CpuWorkerExtension


class FrozenExtension(CpuWorkerExtension):
    """Receives the actor's weights and drops them, except for the first set."""

    def load_received_weights(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        if not getattr(self, "_loaded_once", False):
            self._loaded_once = True
            super().load_received_weights(weights)


rollout.register(worker_extension="frozen_sync.FrozenExtension")
