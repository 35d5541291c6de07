"""How much memory a run will take, on each GPU, in each node's main memory and on disk, estimated from its config alone.

Parameters are counted exactly: the model is built from its config on PyTorch's meta device, which takes no memory. The
rest follows formulas from the literature, at the largest sizes that the config allows (every prompt and response at its
limit), and the assumptions `RESERVE`, `COPIES` and `vllm_memory.OVERHEAD`. Fragmentation and kernels' workspaces are not
counted.

Bytes per GPU, with P parameters of which T are trained, N GPUs, b bytes for each number (`fsdp_config.model_dtype`):

- weights P·b/N, gradients T·b/N, AdamW's two moments 2·T·b/N: everything is sharded (ZeRO, arXiv 1910.02054, section 3;
  PyTorch FSDP, arXiv 2304.11277), the weights also over the layers that are trained with LoRA;
- two layers gathered whole in bfloat16 (FSDP fetches the next one while one computes);
- activations with gradient checkpoints: the input of every layer, 2·t·h for t tokens and hidden size h, and what one
  layer keeps when it is computed again, t·(24·h + 8·f) with a gated MLP of inner size f (as arXiv 2205.05198 counts,
  section 4, without the attention scores, which flash attention does not keep; a test holds it against what PyTorch keeps);
- logits: t·V for vocabulary size V in bfloat16, and as much again for their gradient or their scaled copy; with fused
  kernels, three float32 copies for the `FUSED_ROWS` tokens that are worked on, and the gradient of the output layer;
- vLLM: the share of the GPU that `gpu_memory_utilization` claims. `vllm_memory` divides it: weights (2·P/TP), profile run,
  and the KV cache, at 2·2·layers·KV heads·head size bytes a token (arXiv 2309.06180, section 3).

Bytes in each node's main memory: offloaded tensors, and the pictures of a step or of a validation. verl holds each row's
pictures as they are (3 bytes a pixel) and as float32 pixel values, twice for the two frames of a patch (24 bytes a pixel).

Bytes of a checkpoint: weights and moments as they are trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.training.model_size import ModelSize
from ssl4rl_plugin.training.vllm_memory import EngineMemory, engine_memory

GIB = 2**30
RESERVE = 2.0
"""GiB of each GPU that CUDA's context and NCCL's buffers take. An assumption."""
FUSED_ROWS = 512
"""Tokens whose logits exist at once with fused kernels (verl/utils/experimental/torch_functional.py)."""
PIXEL_BYTES = 3 + 2 * 3 * 4
"""Bytes of a row in main memory for each pixel of its pictures."""
COPIES = 2
"""Copies of a row's pictures in a node's main memory: in the TransferQueue, and where they are used. An assumption."""


@dataclass(frozen=True)
class Phase:
    """One part of a training step, and the memory on each GPU meanwhile."""

    name: str
    parts: Mapping[str, float]
    """GiB by purpose."""

    @property
    def total(self) -> float:
        """GiB in total, with the reserve."""
        return sum(self.parts.values()) + RESERVE


@dataclass(frozen=True)
class Estimate:
    """The memory of a run."""

    model: ModelSize
    trained: int
    """Parameters that are trained."""
    gpus: int
    phases: tuple[Phase, ...]
    kv_cache: float | None
    """GiB of each vLLM engine's KV cache on one GPU; None if the GPU's size is not known."""
    kv_sequences: float | None
    """Sequences of `engine.context` tokens that fit into an engine's KV cache together."""
    engine: EngineMemory
    offloaded: float
    """GiB of each node's main memory for offloaded tensors."""
    training_rows: float
    """GiB of main memory for the pictures of a training step, on the node that runs the trainer."""
    validation_rows: float | None
    """The same for a validation; None if all of its rows are one batch (`data.val_batch_size: null`)."""
    checkpoint: float
    """GiB of a checkpoint."""

    @property
    def host(self) -> float:
        """GiB of main memory on the node that runs the trainer."""
        return self.offloaded + max(self.training_rows, self.validation_rows or 0.0)

    @property
    def peak(self) -> Phase:
        """The phase with the most memory."""
        return max(self.phases, key=lambda phase: phase.total)


HALF = ("bf16", "fp16", "bfloat16", "float16")
"""Values of `fsdp_config.model_dtype` with two bytes a number; its default has four."""


def checkpoint_bytes(config: Any, model: ModelSize) -> int:
    """Bytes of one checkpoint of the actor.

    verl saves the weights and AdamW's two moments in the engine's type (fp32 by default), and with `hf_model` the weights
    once more.
    """
    actor, settings = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    number = 2 if str(actor.fsdp_config.model_dtype) in HALF else 4
    adapters = model.adapters(settings.lora_rank, settings.exclude_modules) if settings.lora_rank else 0
    trained = adapters or model.parameters
    contents = set(actor.checkpoint.save_contents)
    parts = {"model": model.parameters + adapters, "optimizer": 2 * trained, "hf_model": model.parameters}
    return number * sum(count for name, count in parts.items() if name in contents)


def estimate(config: Any, model: ModelSize) -> Estimate:
    """The memory of a run on each GPU, phase by phase.

    Args:
        config: verl's config, composed, with the plugin's `ssl4rl` section.
        model: the size of `config.actor_rollout_ref.model.path`.
    """
    actor, rollout, ref = (config.actor_rollout_ref[name] for name in ("actor", "rollout", "ref"))
    engine = actor.fsdp_config
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    shards = gpus if engine.fsdp_size in (-1, None) else min(gpus, engine.fsdp_size)
    number = 2 if engine.model_dtype in HALF else 4
    lora = config.actor_rollout_ref.model.lora_rank
    trained = model.adapters(lora, config.actor_rollout_ref.model.exclude_modules) if lora else model.parameters
    held = model.parameters + (trained if lora else 0)

    weights = held * number / shards / GIB
    moments = 2 * trained * number / shards / GIB
    gathered = 2 * 2 * model.layer_parameters / GIB if shards > 1 else 0.0
    with_ref = (actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not lora
    # FSDP1 always keeps the reference model in main memory (verl/workers/engine/fsdp).
    ref_on_host = actor.strategy == "fsdp" or ref.fsdp_config.param_offload
    reference = 4 * model.parameters / shards / GIB if with_ref else 0.0
    memory = config.ssl4rl.gpu_memory
    engine_use = engine_memory(config, model)
    served = engine_use.weights
    claimed = rollout.gpu_memory_utilization * memory if memory else served
    resting = {
        "weights": 0.0 if engine.param_offload else weights,
        "optimizer": 0.0 if engine.optimizer_offload else moments,
        "reference": 0.0 if ref_on_host else reference,
    }
    asleep = {} if rollout.free_cache_engine else {"vLLM": claimed}

    length = config.data.max_prompt_length + config.data.max_response_length

    def tokens(micro: int | None, dynamic: bool, budget: int) -> int:
        return budget if dynamic or not micro else micro * length

    def logits(count: int) -> float:
        if config.actor_rollout_ref.model.use_fused_kernels:
            return model.vocabulary * (3 * 4 * min(count, FUSED_ROWS) + 4 * model.hidden) / GIB
        return 2 * 2 * count * model.vocabulary / GIB

    update = tokens(actor.ppo_micro_batch_size_per_gpu, actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu)
    scoring = tokens(
        rollout.log_prob_micro_batch_size_per_gpu,
        rollout.log_prob_use_dynamic_bsz,
        rollout.log_prob_max_token_len_per_gpu,
    )
    patches = model.patches_per_token * update * config.data.max_prompt_length / length
    kept = 2 * (model.layers * update * model.hidden + model.vision_layers * patches * model.vision_hidden) / GIB
    layer = update * model.layer_bytes / GIB
    if not config.actor_rollout_ref.model.enable_gradient_checkpointing:
        kept = model.layers * layer  # without the vision tower's, which are small in comparison
    phases = (
        Phase("rollout", {**resting, "vLLM": claimed}),
        Phase(
            "weights to vLLM",
            {
                **resting,
                "weights": weights,
                "vLLM": served if rollout.free_cache_engine else claimed,
                "bucket": rollout.checkpoint_engine.update_weights_bucket_megabytes / 1024,
            },
        ),
        Phase(
            "log-probs",
            {**resting, **asleep, "weights": weights, "layers gathered": gathered, "logits": logits(scoring)},
        ),
        Phase(
            "update",
            {
                **resting,
                **asleep,
                "weights": weights,
                "optimizer": moments,
                "gradients": trained * number / shards / GIB,
                "layers gathered": gathered,
                "activations": kept + layer,
                "logits": logits(update),
            },
        ),
    )
    cache = max(0.0, engine_use.cache(claimed)) if memory else None
    pictures = COPIES * config.data.max_prompt_length * model.token_pixels * PIXEL_BYTES / GIB
    validated = config.data.val_batch_size
    offloaded = (weights - resting["weights"]) + (moments - resting["optimizer"]) + (reference - resting["reference"])
    return Estimate(
        model=model,
        trained=trained,
        gpus=gpus,
        phases=phases,
        kv_cache=cache,
        kv_sequences=None if cache is None else cache / engine_use.per_sequence,
        engine=engine_use,
        offloaded=offloaded * config.trainer.n_gpus_per_node,
        training_rows=config.data.train_batch_size * rollout.n * pictures,
        validation_rows=None if validated is None else validated * rollout.val_kwargs.n * pictures,
        checkpoint=checkpoint_bytes(config, model) / GIB,
    )
