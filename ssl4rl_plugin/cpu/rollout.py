"""FSDP2 training and vLLM rollout on the CPU. Name this module in `actor_rollout_ref.model.external_lib`.

verl imports that module in the task runner and in every worker, before it looks up an engine or a rollout, so this is
where both are registered (importing them in the plugin's entry point would slow every `import verl` down):

- the FSDP engine, which verl registers for "cuda" and "npu" only, with a reference model that needs no pinned memory;
- the rollout "vllm", whose server loads a worker extension that can update the weights of vLLM's CPU layers.

To replace the extension (a test that freezes the weights, say), name a module of your own in `external_lib` that ends
with `register(worker_extension="my_module.MyExtension")`.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from ssl4rl_plugin.cpu.setup import check_vllm

OTHER_OUTPUTS = {
    "use_remove_padding": True, "use_fused_kernels": False, "calculate_sum_pi_squared": False,
    "distillation_use_topk": False, "distillation_only": False,
}  # fmt: skip
"""verl's settings of a micro-batch that ask for more than log-probs and entropies of padded rows, with their defaults."""
WORKER_EXTENSION = "ssl4rl_plugin.cpu.vllm_worker.CpuWorkerExtension"


def register(worker_extension: str = WORKER_EXTENSION) -> None:
    """Register engine and rollout for the CPU; a later call replaces an earlier one.

    Args:
        worker_extension: dotted name of the class that vLLM's workers inherit from, a subclass of
            `ssl4rl_plugin.cpu.vllm_worker.CpuWorkerExtension`. It has to be importable in vLLM's own processes.
    """
    check_vllm()
    _register_rollout(worker_extension)
    _register_engines()


def _register_rollout(worker_extension: str) -> None:
    from verl.workers.rollout import base
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    def load() -> type:
        import ray
        from verl.workers.rollout.vllm_rollout.vllm_async_server import (
            SamplingParams,
            TokenOutput,
            TokensPrompt,
            qwen2_5_vl_dedup_image_tokens,
            vLLMHttpServer,
            vLLMReplica,
        )
        from vllm.sampling_params import RequestOutputKind

        from ssl4rl_plugin.cpu.weight_transfer import transfer_id

        # Local classes travel to Ray's workers by value, and worker_extension with them.
        class CpuServer(vLLMHttpServer):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                os.environ["VERL_RAY_JOB_ID"] = transfer_id()  # vLLM's worker reads it to name the weights' socket

            def _get_worker_extension_cls(self) -> str:
                return worker_extension

            async def generate_group(
                self,
                prompt_ids: list[int],
                sampling_params: dict[str, Any],
                request_id: str,
                n: int,
                image_data: list[Any] | None = None,
                video_data: list[Any] | None = None,
            ) -> list[Any]:
                """n responses to one prompt from one vLLM request, as verl's `TokenOutput`s (see `group_rollout`)."""
                params = dict(sampling_params)
                wants_logprobs = params.pop("logprobs", False)
                room = self.config.max_model_len - len(prompt_ids)
                if room < 1:
                    raise ValueError(
                        f"the prompt has {len(prompt_ids)} tokens, and rollout.max_model_len is {self.config.max_model_len}"
                    )
                sampling = SamplingParams(
                    n=n,
                    max_tokens=min(self.config.response_length, room),
                    logprobs=0 if wants_logprobs else None,
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                    **params,
                )
                # vLLM expands each picture's placeholder itself.
                ids = qwen2_5_vl_dedup_image_tokens(list(prompt_ids), self.model_config.processor)
                media = {"image": image_data, "video": video_data}
                prompt = TokensPrompt(
                    prompt_token_ids=ids, multi_modal_data={kind: data for kind, data in media.items() if data}
                )
                stream = self.engine.generate(prompt=prompt, sampling_params=sampling, request_id=request_id)
                final = [result async for result in stream][-1]  # FINAL_ONLY: there is just the one
                return [
                    TokenOutput(
                        token_ids=list(one.token_ids),
                        log_probs=[at[token].logprob for token, at in zip(one.token_ids, one.logprobs, strict=True)]
                        if wants_logprobs
                        else None,
                        stop_reason="completed",
                        extra_fields={"global_steps": self.global_steps},
                    )
                    for one in final.outputs
                ]

        class CpuReplica(vLLMReplica):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                _check_no_adapter(self.model_config)
                self.server_class = ray.remote(CpuServer)

        return CpuReplica

    # The name stays "vllm": verl derives the weight transfer and the actors' names from it.
    RolloutReplicaRegistry.register("vllm", load)
    base._ROLLOUT_REGISTRY["vllm", "async"] = "ssl4rl_plugin.cpu.weight_transfer.CpuServerAdapter"


def _check_no_adapter(model_config: Any) -> None:
    lora = getattr(model_config, "lora", None) or {}
    if (getattr(model_config, "lora_rank", 0) or 0) > 0 and not lora.get("merge", False):
        raise ValueError(
            "The CPU rollout cannot load LoRA adapters. Set actor_rollout_ref.model.lora_rank=0, "
            "or actor_rollout_ref.model.lora.merge=True."
        )


@cache  # verl refuses a second registration of the same engine
def _register_engines() -> None:
    from verl.utils.tensordict_utils import get_non_tensor_data
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

    from ssl4rl_plugin.cpu.shared_pictures import share_pictures
    from ssl4rl_plugin.cpu.token_probabilities import log_probs_and_entropies

    class CpuEngine(FSDPEngineWithLMHead):
        def _build_fsdp_module(self, module: Any) -> Any:
            # verl keeps a reference model, which only goes forward, in pinned memory. That needs an accelerator.
            config = self.engine_config
            share_pictures(module)
            forward_only, config.forward_only = config.forward_only, False
            try:
                return super()._build_fsdp_module(module)
            finally:
                config.forward_only = forward_only

        def forward_step(self, micro_batch: Any, loss_function: Any, forward_only: bool) -> Any:
            micro_batch.auto_device_()  # says that all is on the CPU, so that verl's `to` copies nothing
            return super().forward_step(micro_batch, loss_function, forward_only)

        def prepare_model_outputs(
            self, output: Any, output_args: dict[str, Any], micro_batch: Any, logits_processor_func: Any
        ) -> dict[str, Any]:
            if any(get_non_tensor_data(micro_batch, key, default) for key, default in OTHER_OUTPUTS.items()):
                return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
            logits = output.logits / output_args["temperature"][:, None, None]
            labels = output_args["input_ids_rmpad_rolled"]
            log_probs, entropies = log_probs_and_entropies(logits, micro_batch["input_ids"], labels)
            asked = get_non_tensor_data(micro_batch, "calculate_entropy", False)
            return {"log_probs": log_probs, **({"entropy": entropies} if asked else {})}

    # Not "fsdp": FSDP1 synchronises module states on an accelerator. verl names the strategy in its error.
    EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")(CpuEngine)
    EngineRegistry.register(model_type="value_model", backend="fsdp2", device="cpu")(FSDPEngineWithValueHead)


register()
