"""Group rollouts: one vLLM request for the n rollouts of a prompt, instead of n requests.

verl's agent loop treats each of a prompt's n rollouts as a separate conversation: it prepares the pictures, builds the
prompt, calls vLLM, scores, and prepares the pictures twice more, all n times. For a tiny model on a CPU that work is
two thirds of a training step (docs/cpu.md has the profile). For a single-turn prompt it is enough to prepare the pictures
once and to send one request for n samples. verl has a setting for this:

    actor_rollout_ref.rollout.agent.agent_loop_manager_class = ssl4rl_plugin.cpu.group_rollout.GroupRolloutManager

Needs the server of `ssl4rl_plugin.cpu.rollout`. Single-turn prompts without tools and audio only.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any
from uuid import uuid4

import ray
import torch
import transfer_queue as tq
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, DictConfigWrap
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ, apply_greedy_sampling_params
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

logger = logging.getLogger(__name__)

# The class behind verl's Ray actor: Ray allows no subclass of the actor itself.
_Worker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class

NOT_STORED = ("raw_prompt", "tools_kwargs", "interaction_kwargs", "multi_modal_data")
"""Fields of a prompt that training does not read; the pictures in them are most of a rollout's bytes."""


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
            outputs, features = await self._generate(list(prompt["raw_prompt"]), params, n)
            fields = {key: value for key, value in prompt.items() if key not in NOT_STORED}
            await self._store(outputs, features, validate, fields)
            status = "finished"
        except Exception:
            logger.exception("the rollouts of prompt %s failed", uid)
            status = "failure"
        await tq.async_kv_put(key=uid, partition_id=partition, tag={"status": status})

    async def _generate(
        self, messages: list[Any], params: dict[str, Any], n: int
    ) -> tuple[list[AgentLoopOutput], dict[str, torch.Tensor]]:
        """Ask one server for n responses to one prompt. Returns them, and the features of the prompt's pictures."""
        media = await self._loop.process_multi_modal_info(messages)
        if "audios" in media:
            raise ValueError("group rollouts take pictures and videos only, no audio")
        images, videos = media.get("images"), media.get("videos")
        features: dict[str, Any] = {}
        prompt_ids = list(
            await self._loop.ct_build_initial_tokens(messages, images=images, videos=videos, mm_inputs_out=features)
        )
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
        features.pop("attention_mask", None)
        if (grid := features.get("image_grid_thw")) is not None:  # as verl's `_compute_multi_modal_inputs`
            features["images_seqlens"] = torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0])
        outputs = [
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
        return outputs, features

    async def _store(
        self,
        outputs: list[AgentLoopOutput],
        features: dict[str, torch.Tensor],
        validate: bool,
        prompt: dict[str, Any],
    ) -> None:
        """Score and store the rollouts of a prompt, as verl's `_agent_loop_postprocess` does for each by itself.

        Storing takes some milliseconds in three processes, for one rollout or for several. Those of the same length are
        stored together: tensors of one shape need no assumption about which dimension is ragged. All rollouts show the same
        pictures, so they share the features, and those of one length the positions.
        """
        prompt_ids = torch.tensor(outputs[0].prompt_ids, dtype=torch.int64)
        same_length: dict[int, list[tuple[int, AgentLoopOutput]]] = {}
        for session, output in enumerate(outputs):
            await self._compute_score([output], prompt)
            same_length.setdefault(len(output.response_ids), []).append((session, output))
        for length, group in same_length.items():
            ids = [torch.cat([prompt_ids, torch.tensor(output.response_ids, dtype=torch.int64)]) for _, output in group]
            inputs = dict(features)  # verl takes out what only the positions need
            positions = self._compute_position_ids(ids[0][None], torch.ones_like(ids[0])[None], inputs).squeeze(0)
            rows = []
            for (session, output), input_ids in zip(group, ids, strict=True):
                row = {**output.as_dict(), **prompt, "session_id": session, "input_ids": input_ids}
                row.pop("multi_modal_data", None)
                row |= {"position_ids": positions, "multi_modal_inputs": inputs, "loss_mask": row["response_mask"]}
                rows.append(row)
            sizes = {"prompt_len": len(prompt_ids), "response_len": length, "seq_len": len(prompt_ids) + length}
            await tq.async_kv_batch_put(
                keys=[f"{prompt['uid']}_{session}_0" for session, _ in group],
                fields=list_of_dict_to_tensordict(rows),
                tags=[
                    {
                        "status": "success",
                        **sizes,
                        "global_steps": prompt["global_steps"],
                        "min_global_steps": row["extra_fields"]["min_global_steps"],
                        "max_global_steps": row["extra_fields"]["max_global_steps"],
                    }
                    for row in rows
                ],
                partition_id="val" if validate else "train",
            )

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


class GroupRolloutManager(AgentLoopManagerTQ):
    """verl's agent loop manager with `GroupRolloutWorker`s."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupRolloutWorker)
