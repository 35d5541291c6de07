"""The warm-up before reinforcement: it teaches how an answer is written, and nothing about which one is right.

A model with random weights never writes `<answer>B</answer>` by chance, so that no rollout would ever be rewarded.
Some supervised steps on the run's own prompts and pictures mend that. The answers in them are drawn uniformly from the
possible ones WITHOUT looking at the truth, so that accuracy stays at chance; the run's first validation shows it.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.dataset import messages, processor_inputs, shows_video
from ssl4rl_plugin.rows import OnlineRows, row_of
from ssl4rl_plugin.samples import Made, SampleStream
from ssl4rl_plugin.seeding import rng_for

BATCH = 32
LEARNING_RATE = 1e-3
KEPT = 512
"""Samples kept in memory: a short stream comes round several times, and clips take long to make."""


@dataclass(frozen=True)
class WarmUpResult:
    steps: int
    loss: float
    """Mean cross-entropy (nats per token) over the last 10 steps."""
    floor: float
    """The same for a perfect writer of uniformly random answers, where each possible answer differs in one token."""


def random_response(made: Made, stream: SampleStream, rng: random.Random) -> str:
    """A response in the run's format with an answer drawn uniformly, blind to the truth."""
    grader = made.arm.task.grader(made.arm.level)
    options = [value for value, _ in zip(grader.values(), range(1000), strict=False)]
    return stream.settings.answer_format.render(grader.render(rng.choice(options)))


def warm_up(
    model: Any, processor: Any, stream: SampleStream, steps: int, seed: int, progress: Any = None
) -> WarmUpResult:
    """Train `model` in place for `steps` steps of `BATCH` samples.

    Args:
        model: a Qwen2.5-VL, or a model of text alone.
        processor: its processor, or its tokenizer.
        stream: the training samples (prompts and pictures; their truths are not read).
        steps: optimisation steps.
        seed: of the random answers.
        progress: called without arguments after every step.
    """
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread, and a busy core makes both wait
    end = getattr(processor, "tokenizer", processor).eos_token
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    rng = rng_for(seed, "warm-up")
    losses: list[float] = []
    as_video = shows_video(OnlineRows(stream).held_out(), stream.settings, processor)
    sample = functools.lru_cache(maxsize=KEPT)(stream.__getitem__)
    model.train()
    for step in range(steps):
        batch = [sample((step * BATCH + k) % len(stream)) for k in range(BATCH)]
        responses = [random_response(made, stream, rng) + end for made in batch]
        loss = _loss(model, processor, batch, responses, stream, as_video)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        if progress is not None:
            progress()
    model.eval()
    tail = losses[-10:]
    return WarmUpResult(steps, sum(tail) / len(tail), _floor(batch, responses, processor))


def _loss(
    model: Any, processor: Any, batch: list[Made], responses: list[str], stream: SampleStream, as_video: bool
) -> Any:
    """Mean cross-entropy of the responses' tokens given prompts and pictures."""
    import torch

    chats = [messages(row_of(made), stream.settings, as_video) for made in batch]
    prompts = [processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    tokenizer = getattr(processor, "tokenizer", None)
    inputs = (
        processor_inputs(processor, texts, chats, padding=True, padding_side="right")
        if tokenizer is not None
        else processor(texts, padding=True, padding_side="right", return_tensors="pt")
    )
    labels = inputs["input_ids"].clone()
    labels[inputs["attention_mask"] == 0] = -100
    lengths = inputs["attention_mask"].sum(1).tolist()
    answers = (tokenizer or processor)(responses)["input_ids"]
    for row, (length, answer) in enumerate(zip(lengths, answers, strict=True)):
        labels[row, : length - len(answer)] = -100
    return torch.nn.functional.cross_entropy(
        model(**inputs).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )


def _floor(batch: list[Made], responses: list[str], processor: Any) -> float:
    """Entropy of a uniform answer per response token, in nats."""
    import math

    tokenizer = getattr(processor, "tokenizer", processor)
    tokens = sum(len(ids) for ids in tokenizer(responses)["input_ids"])
    return sum(-math.log(made.arm.task.chance(made.arm.level)) for made in batch) / tokens
