"""What vLLM reserves on a GPU before the first request, by the rules of vLLM 0.24 and verl 0.9.1.

An engine claims `gpu_memory_utilization` of the GPU. From that it takes its weights and the peak of a profile run, and
the KV cache gets what is left. It refuses to start if the cache does not hold one sequence of `max_model_len` tokens
(vllm/v1/core/kv_cache_utils.py). The profile run reads the largest picture or video that a prompt may hold
(vllm/multimodal/encoder_budget.py) and `max_num_batched_tokens` tokens.

Tests hold the numbers of tokens and bytes against vLLM's own code; the bytes of the profile run's activations are formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.training.model_size import ModelSize
from ssl4rl_plugin.training.prompt_limits import prompt_limits

GIB = 2**30
BLOCK = 16
"""Tokens in a block of the KV cache."""
OVERHEAD = 1.0
"""GiB of an engine's share for CUDA's context and CUDA graphs. An assumption."""
VIDEO_FRAMES = 14
"""Most frames of a video in the profile run (vllm/model_executor/models/qwen2_vl.py). Two frames are one step in time."""
SAMPLER_COPIES = 3
"""Float32 copies of the logits while tokens are sampled: logits, probabilities, log-probs."""


@dataclass(frozen=True)
class EngineMemory:
    """The memory of one vLLM engine on one GPU, in GiB."""

    context: int
    """Tokens of the longest sequence (`max_model_len`)."""
    batched: int
    """Tokens of the largest batch (`max_num_batched_tokens`)."""
    visual_tokens: int
    """Visual tokens of the profile run; 0 for a text model."""
    weights: float
    profile: float
    """Peak of the profile run without the weights."""
    per_sequence: float
    """KV cache of one sequence of `context` tokens."""

    def cache(self, claimed: float) -> float:
        """KV cache within `claimed` GiB of the GPU; negative if weights and profile run do not fit."""
        return claimed - self.weights - self.profile - OVERHEAD


def engine_memory(config: Any, model: ModelSize) -> EngineMemory:
    """The memory of the rollout's engines.

    Args:
        config: verl's config, composed.
        model: the size of the model.
    """
    rollout = config.actor_rollout_ref.rollout
    parallel = rollout.tensor_model_parallel_size
    # verl's defaults (vllm_async_server.py, _validate_configs): the model's longest context, and a batch that holds it.
    context = rollout.max_model_len or model.positions
    batched = rollout.max_num_batched_tokens
    if not rollout.enable_chunked_prefill:
        batched = max(batched, context)
    visual = profile_tokens(model, prompt_limits(rollout), context, batched)
    text = batched * (8 * model.hidden + 6 * model.inner / parallel)
    sampler = SAMPLER_COPIES * 4 * rollout.max_num_seqs * model.vocabulary
    blocks = -(-context // BLOCK)
    return EngineMemory(
        context=context,
        batched=batched,
        visual_tokens=visual,
        weights=2 * model.parameters / parallel / GIB,
        profile=(visual * model.patches_per_token * model.vision_bytes + max(text, sampler)) / GIB,
        per_sequence=blocks * BLOCK * model.kv_bytes / parallel / GIB,
    )


def profile_tokens(model: ModelSize, limits: dict[str, int], context: int, batched: int) -> int:
    """Visual tokens that vLLM's profile run encodes at once: as many of the largest item as its budget holds.

    Args:
        model: the size of the model.
        limits: as of `prompt_limits`.
        context: `max_model_len`.
        batched: `max_num_batched_tokens`.
    """
    items = []
    if model.image_tokens and limits.get("image", 1):
        items.append(model.image_tokens)
    if model.image_tokens and limits.get("video", 1):
        if model.video_tokens is None:  # Qwen2.5-VL: as many frames of the largest picture as the context holds
            steps = min(context // model.image_tokens, VIDEO_FRAMES // 2)
            items.append(model.image_tokens * max(1, steps))
        else:
            items.append(model.video_tokens)
    if not items:
        return 0
    largest = max(items)
    return max(1, batched // largest) * largest
