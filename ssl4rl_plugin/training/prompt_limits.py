"""The most pictures and videos that the rollout accepts in one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIMIT_KEY = "actor_rollout_ref.rollout.engine_kwargs.vllm.limit_mm_per_prompt"


def prompt_limits(rollout: Mapping[str, Any]) -> dict[str, int]:
    """The limits by modality (`image`, `video`). A modality that is missing has no limit.

    `rollout.limit_images` replaces `limit_mm_per_prompt`, videos included
    (verl/workers/rollout/vllm_rollout/vllm_async_server.py, launch_server).

    Args:
        rollout: `actor_rollout_ref.rollout` of verl's config.
    """
    if rollout.get("limit_images"):
        return {"image": int(rollout["limit_images"])}
    engine = (rollout.get("engine_kwargs") or {}).get("vllm") or {}
    limits = engine.get("limit_mm_per_prompt") or {}
    return {modality: int(limits[modality]) for modality in ("image", "video") if limits.get(modality) is not None}
