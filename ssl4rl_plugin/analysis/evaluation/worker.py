"""One process with one vLLM engine: asks its share of the rows and scores the answers.

`engines` starts it. It reads a pickled `EngineJob` from stdin and writes one JSON object per line to stdout. Prompts,
tokens and responses are made as in verl's rollout, and scored by the same reward function. It ends when stdin closes, so
it never outlives its caller.
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

from ssl4rl_plugin.analysis.evaluation.predictions import Prediction
from ssl4rl_plugin.analysis.evaluation.protocol import EngineSettings, EvaluationProtocol
from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.rows import Row, Rows
from ssl4rl_plugin.training.chat_template import opens_thought
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.verl.prompts import media_of, messages

AHEAD = 256
"""Maximum number of questions in flight."""
WORKER_EXTENSION = "verl.workers.rollout.vllm_rollout.utils.vLLMColocateWorkerExtension"
"""verl's extension of vLLM's workers, as its rollout uses it."""


@dataclass(frozen=True)
class EngineJob:
    """The input of a worker."""

    rows: Rows
    protocol: EvaluationProtocol
    engine: EngineSettings
    model: str
    adapter: str | None
    as_video: bool
    """Whether clips are sent as videos (`dataset.shows_video`)."""
    numbers: tuple[int, ...]
    """Indices of the rows to ask."""


def main() -> None:
    """Run a worker. Messages: {ready}, then {row, lines} for each question, then {error} or {done}."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keep the output of libraries out of the answers
    job: EngineJob = pickle.load(sys.stdin.buffer)
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


async def _work(job: EngineJob, tell: Callable[[Mapping[str, Any]], None]) -> None:
    asker = await _Asker.start(job)
    tell({"ready": True})
    left = iter(job.numbers)

    async def some() -> None:
        for number in left:
            tell({"row": number, "lines": await asker.ask(number)})

    await asyncio.gather(*(some() for _ in range(min(AHEAD, len(job.numbers)))))
    asker.engine.shutdown()


class _Unaskable(ValueError):
    """A prompt that the model cannot take; the question counts as wrong."""


@dataclass
class _Asker:
    """A model in its engine, with its tokenizer, processor and prompt builder."""

    job: EngineJob
    tokenizer: Any
    processor: Any
    builder: Any
    engine: Any
    room: int
    """Maximum number of tokens of prompt and response together."""
    adapter: Any
    thinking: bool
    """The chat template opens the thought."""

    @classmethod
    async def start(cls, job: EngineJob) -> _Asker:
        """Load the model. Any exception of vLLM passes through."""
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
        await engine.reset_mm_cache()  # as verl does: vLLM profiles the engine with dummy pictures
        # Tokens that verl's rollout never samples: picture placeholders, and ids beyond the tokenizer's vocabulary.
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

    async def ask(self, number: int) -> list[Prediction]:
        """The predictions of a row, one for each answer. Raises SourceError if its pictures are gone."""
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
        """The model's answers, decoded as in verl."""
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
                raise _Unaskable(f"the prompt has {len(ids)} tokens, more than the limit of {limit}")
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
            final = [result async for result in stream][-1]  # FINAL_ONLY: there is exactly one
        except ValueError as error:  # vLLM refuses the prompt, e.g. for too many pictures
            raise _Unaskable(str(error)) from error
        return [
            self.tokenizer.decode(one.token_ids, skip_special_tokens=True)
            for one in sorted(final.outputs, key=lambda one: one.index)
        ]


_ONE_THREAD = ThreadPoolExecutor(1, "rows")
"""Loads rows: sources need not be thread-safe."""


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
    protocol: EvaluationProtocol,
    problem: str = "",
    thinking: bool = False,
) -> Prediction:
    """One response with its score, as a prediction.

    Args:
        row: the question.
        number: index of the row in the evaluation.
        draw: index of the answer among the answers to this question.
        response: the model's response; None if the question was skipped.
        protocol: how it was asked.
        problem: why it was skipped.
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
        # References. If a name contains a comma, they cannot be split.
        "images": refs if len(refs) == len(row.images) else [row.info["item"]],
        "response": response,
        "truth": row.info["gold"],
        "ground_truth": row.ground_truth,
        **{key: value for key, value in scored.items() if key != "sample"},
        "error": problem or scored["error"],
    }


if __name__ == "__main__":
    main()
