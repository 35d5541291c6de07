"""Group rollouts: one vLLM request for the n rollouts of a prompt, instead of n requests.

verl's agent loop treats each of a prompt's n rollouts as a separate conversation: it prepares the pictures, builds the
prompt, calls vLLM, scores, and prepares the pictures twice more, all n times. For a tiny model on a CPU that work is
two thirds of a training step (docs/cpu.md has the profile). For a single-turn prompt it is enough to prepare the pictures
once and to send one request for n samples. verl has a setting for this:

    actor_rollout_ref.rollout.agent.agent_loop_manager_class = ssl4rl_plugin.cpu.group_rollout.GroupRolloutManager

Needs the server of `ssl4rl_plugin.cpu.rollout`. Single-turn prompts without tools and audio only.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import ray
import torch
import transfer_queue as tq
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, DictConfigWrap
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ, apply_greedy_sampling_params

logger = logging.getLogger(__name__)

# The class behind verl's Ray actor: Ray allows no subclass of the actor itself.
_Worker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class

NOT_STORED = ("raw_prompt", "tools_kwargs", "interaction_kwargs", "multi_modal_data")
"""Fields of a prompt that training does not read; the pictures in them are most of a rollout's bytes."""

_FEATURES: ContextVar[dict[str, torch.Tensor]] = ContextVar("features of the prompt whose rollouts are being stored")
"""Each prompt runs in its own asyncio task, so each has its own value."""


class GroupRolloutWorker(_Worker):
    """verl's agent loop worker for single-turn prompts, one group at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reward = get_custom_reward_fn(self.config)
        self._loop = SingleTurnAgentLoop(
            trainer_config=DictConfigWrap(config=self.config),
            server_manager=self.llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            hf_model_type=self.hf_model_type,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(self.config.data),
        )

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        """Make and store all rollouts of one prompt. As in verl, a failure marks the prompt and the run continues."""
        uid, validate = prompt["uid"], trajectory["validate"]
        partition = "val" if validate else "train"
        await tq.async_kv_put(key=uid, partition_id=partition, tag={"status": "running"})
        try:
            rollout = self.config.actor_rollout_ref.rollout
            n = prompt.pop("__rollout_n__", rollout.val_kwargs.n if validate else rollout.n)
            params = dict(sampling_params)
            greedy = not prompt.pop("__do_sample__", True)
            if greedy and not validate:
                apply_greedy_sampling_params(params)
            outputs = await self._generate(list(prompt["raw_prompt"]), params, n)
            fields = {key: value for key, value in prompt.items() if key not in NOT_STORED}
            prompt_ids = torch.tensor(outputs[0].prompt_ids, dtype=torch.int64)
            _FEATURES.set(super()._compute_multi_modal_inputs(outputs[0], prompt_ids))
            # All writes end before the status is set: a later write would remain after a failed group is cleared.
            ends = await asyncio.gather(
                *(
                    self._agent_loop_postprocess(output, validate, session_id=number, **fields)
                    for number, output in enumerate(outputs)
                ),
                return_exceptions=True,
            )
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
            status = "finished"
        except Exception:
            logger.exception("the rollouts of prompt %s failed", uid)
            status = "failure"
        await tq.async_kv_put(key=uid, partition_id=partition, tag={"status": status})

    async def _generate(self, messages: list[Any], params: dict[str, Any], n: int) -> list[AgentLoopOutput]:
        """Ask one server for n responses to one prompt."""
        media = await self._loop.process_multi_modal_info(messages)
        if "audios" in media:
            raise ValueError("group rollouts take pictures and videos only, no audio")
        images, videos = media.get("images"), media.get("videos")
        prompt_ids = list(await self._loop.ct_build_initial_tokens(messages, images=images, videos=videos))
        request = uuid4().hex
        server_id, server = await self.llm_client._acquire_server(request)
        try:
            group = await server.generate_group.remote(
                prompt_ids=prompt_ids,
                sampling_params=params,
                request_id=request,
                n=n,
                image_data=images,
                video_data=videos,
            )
        finally:
            self.llm_client._release_server(server_id, request)
        return [
            AgentLoopOutput(
                prompt_ids=prompt_ids,
                response_ids=one.token_ids,
                response_mask=[1] * len(one.token_ids),
                response_logprobs=one.log_probs,
                multi_modal_data=media,
                num_turns=2,
                metrics=AgentLoopMetrics(),
                extra_fields={
                    **one.extra_fields,
                    "min_global_steps": one.extra_fields.get("global_steps"),
                    "max_global_steps": one.extra_fields.get("global_steps"),
                    "turn_scores": [],
                    "tool_rewards": [],
                },
            )
            for one in group
        ]

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict[str, Any]) -> None:
        """Call the reward function here: it takes microseconds, and a call of verl's reward workers milliseconds."""
        output = outputs[-1]
        result = self._reward(
            data_source=kwargs["data_source"],
            solution_str=self.tokenizer.decode(output.response_ids, skip_special_tokens=True),
            ground_truth=kwargs["reward_model"]["ground_truth"],
            extra_info=kwargs.get("extra_info"),
        )
        if inspect.isawaitable(result):
            result = await result
        if not isinstance(result, dict):
            result = {"score": result, "acc": result}
        output.reward_score = float(result["score"])
        output.extra_fields["reward_extra_info"] = result

    def _compute_multi_modal_inputs(self, output: AgentLoopOutput, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """The pictures' features, computed once per group: all rollouts of a prompt show the same pictures."""
        return dict(_FEATURES.get())


class GroupRolloutManager(AgentLoopManagerTQ):
    """verl's agent loop manager with `GroupRolloutWorker`s."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupRolloutWorker)
