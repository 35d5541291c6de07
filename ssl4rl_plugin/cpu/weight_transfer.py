"""A socket for the actor's weights that two trainings on one machine do not share.

verl names the socket after Ray's job id. The first job of every Ray cluster has the same id, so two trainings that each
start Ray would use one socket, and a rollout could load the weights of the other training.
"""

from __future__ import annotations

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout import ServerAdapter


def transfer_id() -> str:
    """Ray's job id and the port of its cluster. No two trainings on a machine have both in common."""
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{context.gcs_address.rsplit(':', 1)[-1]}"


class CpuServerAdapter(ServerAdapter):
    """verl's sender of weights, on the training's own socket. `CpuServer` in `rollout` gives the receiver the same name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.zmq_handle: str = self.zmq_handle.replace(ray.get_runtime_context().get_job_id(), transfer_id())
