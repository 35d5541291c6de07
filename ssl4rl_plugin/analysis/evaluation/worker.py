"""One process with one vLLM engine: asks its share of the rows and scores the answers.

Started by `engines`, with a pickled `Job` on stdin and a JSON object a line on stdout. Prompts are made, tokenised and
generated from as verl's rollout does it, and scored by the same reward function. It ends when stdin closes, whatever
became of the process that started it.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ssl4rl_plugin.analysis.evaluation.predictions import Line
from ssl4rl_plugin.analysis.evaluation.protocol import EngineSettings, Protocol
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.rows import Row, Rows
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.verl.dataset import media_of, messages, opens_thought

AHEAD = 256
"""Questions that are with the engine, or being made, at a time."""
WORKER_EXTENSION = "verl.workers.rollout.vllm_rollout.utils.vLLMColocateWorkerExtension"


@dataclass(frozen=True)
class Job:
    """What a worker is started with."""

    rows: Rows
    protocol: Protocol
    engine: EngineSettings
    model: str
    adapter: str | None
    as_video: bool
    """How clips are shown (`dataset.shows_video`)."""
    numbers: tuple[int, ...]
    """Rows to ask."""


def main() -> None:
    """The life of a worker. Messages: {ready}, {row, lines} for each question, {error} or {done} in the end."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    job: Job = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_caller, daemon=True).start()

    def tell(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        asyncio.run(_work(job, tell))
        tell({"done": True})
    except Exception as error:
        ours = isinstance(error, UserError)
        tell({"error": str(error) if ours else f"{type(error).__name__}: {error}"})
        raise
    finally:
        answers.close()


def _end_with_caller() -> None:
    sys.stdin.buffer.read()
    os._exit(1)  # vLLM's processes end with this one


async def _work(job: Job, tell: Callable[[Mapping[str, Any]], None]) -> None:
    asker = await _Asker.start(job)
    tell({"ready": True})
    left = iter(job.numbers)

    async def some() -> None:
        for number in left:
            tell({"row": number, "lines": await asker.ask(number)})

    await asyncio.gather(*(some() for _ in range(min(AHEAD, len(job.numbers)))))
    asker.engine.shutdown()


class _Unaskable(ValueError):
    """A prompt that cannot be put to the model; the question counts as wrong."""


@dataclass
class _Asker:
    """A model in its engine, with what makes prompts for it."""

    job: Job
    tokenizer: Any
    processor: Any
    builder: Any
    engine: Any
    room: int
    """Tokens of prompt and response together at most."""
    adapter: Any
    thinking: bool
    """The chat template opens the thought."""

    @classmethod
    async def start(cls, job: Job) -> _Asker:
        """Load the model. Raises whatever vLLM raises."""
        from transformers import AutoConfig
        from verl.utils import hf_processor, hf_tokenizer
        from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
        from verl.workers.rollout.utils import get_max_position_embeddings, get_vision_placeholder_token_ids
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        protocol = job.protocol
        tokenizer, processor = hf_tokenizer(job.model), hf_processor(job.model)
        config = AutoConfig.from_pretrained(job.model)
        options = dict(job.engine.options)
        wanted = options.pop("max_model_len", None) or protocol.max_prompt_tokens + protocol.max_response_tokens
        room = min(wanted, get_max_position_embeddings(config))
        adapter, adapter_options = _adapter(job.adapter)
        arguments = AsyncEngineArgs(
            model=job.model,
            dtype=job.engine.dtype,
            tensor_parallel_size=job.engine.tensor_parallel,
            max_model_len=room,
            limit_mm_per_prompt={"image": job.engine.limit_images},
            worker_extension_cls=WORKER_EXTENSION,
            disable_log_stats=True,
            **adapter_options,
            **options,
        )
        engine = AsyncLLM.from_engine_args(arguments)
        await engine.reset_mm_cache()  # as verl does: vLLM profiled the engine with made-up pictures
        # Tokens that verl's rollout never samples: placeholders of pictures, and those that the tokenizer has not.
        banned = get_vision_placeholder_token_ids(processor)
        await engine.collective_rpc(
            method="monkey_patch_model", kwargs={"vocab_size": len(tokenizer), "banned_token_ids": banned}
        )
        builder = create_continuous_token_builder(
            tokenizer,
            hf_model_type=config.model_type,
            chat_template_kwargs=dict(protocol.chat_template),
            mm_processor_kwargs={},
            processor=processor,
        )
        thinking = opens_thought(processor or tokenizer, protocol.chat_template)
        return cls(job, tokenizer, processor, builder, engine, room, adapter, thinking)

    async def ask(self, number: int) -> list[Line]:
        """The lines of a row: one for each answer. Raises SourceError if its pictures are gone."""
        loop = asyncio.get_running_loop()
        row = await loop.run_in_executor(_ONE_THREAD, self.job.rows.__getitem__, number)
        problem = ""
        try:
            texts: list[str | None] = [*await self._generate(row)]
        except _Unaskable as error:
            texts, problem = [None] * self.job.protocol.sampling.n, str(error)
        return [
            record(row, number, draw, text, self.job.protocol, problem, self.thinking)
            for draw, text in enumerate(texts)
        ]

    async def _generate(self, row: Row) -> list[str]:
        """The model's answers, decoded as verl does it."""
        from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        sampling = self.job.protocol.sampling
        chat = messages(row, self.job.protocol.settings, self.job.as_video)
        images, videos = media_of(chat)
        ids = await asyncio.to_thread(self.builder.build_initial_tokens, chat, images=images, videos=videos)
        limit = min(self.job.protocol.max_prompt_tokens, self.room - 1)
        if len(ids) > limit:
            if images or videos:
                raise _Unaskable(f"the prompt has {len(ids)} tokens, and at most {limit} are allowed")
            ids = ids[-limit:]
        params = SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=rng_for("evaluate", sampling.seed, row.info["sample"], row.kind).getrandbits(32)
            if sampling.temperature
            else None,
            max_tokens=min(self.job.protocol.max_response_tokens, self.room - len(ids)),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        media = {kind: data for kind, data in (("image", images), ("video", videos)) if data}
        prompt = TokensPrompt(
            # vLLM expands each picture's placeholder itself.
            prompt_token_ids=qwen2_5_vl_dedup_image_tokens(list(ids), self.processor),
            multi_modal_data=media,
        )
        try:
            stream = self.engine.generate(
                prompt=prompt, sampling_params=params, request_id=uuid4().hex, lora_request=self.adapter
            )
            final = [result async for result in stream][-1]  # FINAL_ONLY: there is just the one
        except ValueError as error:  # vLLM takes no such prompt: too many pictures, say
            raise _Unaskable(str(error)) from error
        return [
            self.tokenizer.decode(one.token_ids, skip_special_tokens=True)
            for one in sorted(final.outputs, key=lambda one: one.index)
        ]


_ONE_THREAD = ThreadPoolExecutor(1, "rows")
"""Sources of pictures need not be safe for threads."""


def _adapter(folder: str | None) -> tuple[Any, dict[str, Any]]:
    """vLLM's request for a LoRA adapter, and the engine's options for it."""
    if folder is None:
        return None, {}
    from verl.workers.rollout.vllm_rollout.utils import get_vllm_max_lora_rank
    from vllm.lora.request import LoRARequest

    rank = json.loads((Path(folder) / "adapter_config.json").read_text())["r"]
    return LoRARequest("adapter", 1, folder), {"enable_lora": True, "max_lora_rank": get_vllm_max_lora_rank(rank)}


def record(
    row: Row,
    number: int,
    draw: int,
    response: str | None,
    protocol: Protocol,
    problem: str = "",
    thinking: bool = False,
) -> Line:
    """One response with its score, as a line of the predictions.

    Args:
        row: what was asked.
        number: its place in the evaluation.
        draw: which of the answers to it, from 0.
        response: what the model wrote; None if it was not asked.
        protocol: how it was asked.
        problem: why it was not asked.
        thinking: the model's chat template opens the thought.
    """
    truth = json.loads(row.ground_truth)
    refs = row.info["item"].split(",")
    info = {**row.info, "thinking": thinking}
    scored = compute_score(row.data_source, response or "", row.ground_truth, info, **protocol.reward)
    return {
        "row": number,
        "draw": draw,
        "id": row.info["sample"],
        "kind": row.kind,
        "data_source": row.data_source,
        "category": truth.get("category"),
        "l2_category": truth.get("l2_category"),
        "prompt": row.prompt,
        # References; where a name has a comma itself, they are not taken apart.
        "images": refs if len(refs) == len(row.images) else [row.info["item"]],
        "response": response,
        "truth": row.info["gold"],
        "ground_truth": row.ground_truth,
        **{key: value for key, value in scored.items() if key != "sample"},
        "error": problem or scored["error"],
    }


if __name__ == "__main__":
    main()
