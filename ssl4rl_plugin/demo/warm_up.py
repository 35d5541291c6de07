"""The warm-up before reinforcement learning: it teaches the form of an answer, and nothing about which one is right.

A model with random weights never writes `<answer>B</answer>` by chance, so no rollout would get a reward. The warm-up is
some supervised steps on the run's own prompts and pictures. Their answers are drawn uniformly from the possible ones
WITHOUT looking at the truth, so accuracy stays at chance; the run's first validation shows it.

A recipe can add a second part (`ssl4rl.warm_up.taught`): supervised steps on the truth of some tasks. Reinforcement
learning then starts from a model with some skill, as with a pretrained one. With `ssl4rl.source.taught_fraction`, both parts
see other photographs than reinforcement learning does.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from ssl4rl_plugin.core.seeding import rng_for
from ssl4rl_plugin.data.arms import Arm
from ssl4rl_plugin.data.rows import OnlineRows, row_of
from ssl4rl_plugin.data.samples import SampleStream, StreamSample
from ssl4rl_plugin.training.verl.dataset import shows_video
from ssl4rl_plugin.training.verl.prompts import messages, processor_inputs

BATCH = 32
LEARNING_RATE = 1e-3
REHEARSAL = 4
"""Of this many samples of teaching, one is of any arm, and the others are of arms that lack the skill: an arm that is not
shown any more is forgotten."""
RAMP = 30
"""Steps over which the learning rate of teaching rises."""
LOOK_BACK = 128
"""Samples of an arm over which teaching averages its accuracy."""
ANSWERS = 1000
"""Most different answers of a level."""
KEPT = 512
"""Samples cached in memory: a short stream repeats, and clips take long to make."""


@dataclass(frozen=True)
class WarmUpResult:
    steps: int
    loss: float
    """Mean cross-entropy (nats per token) over the last 10 steps."""
    floor: float
    """The same for a model that writes uniformly random answers perfectly, if answers differ in one token."""


def random_response(made: StreamSample, stream: SampleStream, rng: random.Random, answers: int = ANSWERS) -> str:
    """A response in the run's format, with an answer drawn uniformly and independently of the truth.

    Only the first `answers` possible answers of a level are drawn.
    """
    grader = made.arm.task.grader(made.arm.level)
    options = list(itertools.islice(grader.values(), answers))
    return stream.settings.answer_format.render(grader.render(rng.choice(options)))


@dataclass(frozen=True)
class TeachingResult:
    steps: int
    accuracies: dict[str, float]
    """Of each arm: mean probability of the right response to its last `LOOK_BACK` samples, each before the step on it. This
    is the expected accuracy of sampled answers."""


def warm_up(
    model: Any,
    processor: Any,
    stream: SampleStream,
    steps: int,
    seed: int,
    progress: Callable[[], object] | None = None,
    size: int = BATCH,
    answers: int = ANSWERS,
) -> WarmUpResult:
    """Train `model` in place for `steps` steps on random answers.

    Args:
        model: a Qwen2.5-VL, or a text model.
        processor: its processor, or its tokenizer.
        stream: the training samples (prompts and pictures; their truths are not read).
        steps: optimisation steps.
        seed: seed of the random answers.
        progress: called without arguments after every step.
        size: samples of a step.
        answers: most different answers of a level; a few are learnt sooner.
    """
    rng = rng_for(seed, "warm-up")
    kept = functools.lru_cache(maxsize=KEPT)(stream.__getitem__)
    losses = []
    training = _training(
        model,
        processor,
        stream,
        lambda number: kept(number % len(stream)),
        lambda made: random_response(made, stream, rng, answers),
        seed,
        size,
    )
    for done in itertools.islice(training, steps):
        losses.append(done.loss)
        if progress is not None:
            progress()
    tail = losses[-10:]
    return WarmUpResult(steps, sum(tail) / len(tail), _floor(done.batch, done.responses, processor))


def teach(
    model: Any,
    processor: Any,
    stream: SampleStream,
    skill: float,
    seed: int,
    limit: int,
    progress: Callable[[], object] | None = None,
    size: int = BATCH,
    rate: float = LEARNING_RATE,
) -> TeachingResult:
    """Train `model` in place on the truth of a stream's samples, each arm until it has a certain skill.

    Args:
        model: as for `warm_up`.
        processor: as for `warm_up`.
        stream: the samples. Each arm gets the same share of a batch. Weights are ignored.
        skill: accuracy, corrected for chance, from which on an arm is only rehearsed: 0 at chance, 1 if all is right.
        seed: seed of the training.
        limit: most steps. After these, some arms may have less skill.
        progress: called without arguments after every step.
        size: samples of a step.
        rate: learning rate, after a rise over `RAMP` steps.
    """
    arms = {arm.key: arm for arm in stream.settings.arms}
    recent = {key: deque[float](maxlen=LOOK_BACK) for key in arms}
    unlearnt = list(arms)

    def drawn(number: int) -> StreamSample:
        round_, place = divmod(number, REHEARSAL)
        keys, turn = (list(arms), round_) if place == 0 else (unlearnt, number - round_ - 1)
        return stream.of_arm(number % len(stream), arms[keys[turn % len(keys)]])

    render = stream.settings.answer_format.render
    training = _training(model, processor, stream, drawn, lambda made: render(made.gold), seed, size, rate, RAMP)
    steps = 0
    for done in itertools.islice(training, limit):
        steps += 1
        if progress is not None:
            progress()
        for made, probability in zip(done.batch, done.probabilities, strict=True):
            recent[made.arm.key].append(probability)
        unlearnt = [key for key in arms if not _has_skill(arms[key], recent[key], skill)]
        if not unlearnt:
            break
    return TeachingResult(steps, {key: _mean(recent[key]) for key in arms})


def _has_skill(arm: Arm, probabilities: Collection[float], skill: float) -> bool:
    """Whether an arm has been taught enough, by the probabilities of its last right responses."""
    chance = arm.task.chance(arm.level)
    return len(probabilities) == LOOK_BACK and _mean(probabilities) >= chance + skill * (1 - chance)


def _mean(values: Collection[float]) -> float:
    return sum(values) / max(1, len(values))


@dataclass(frozen=True)
class _Step:
    loss: float
    """Mean cross-entropy, in nats per token of the responses."""
    probabilities: list[float]
    """Probability of each response."""
    batch: list[StreamSample]
    responses: list[str]


def _training(
    model: Any,
    processor: Any,
    stream: SampleStream,
    sample: Callable[[int], StreamSample],
    response: Callable[[StreamSample], str],
    seed: int,
    size: int = BATCH,
    rate: float = LEARNING_RATE,
    ramp: int = 1,
) -> Iterator[_Step]:
    """Endless optimisation steps on `size` samples each, which `sample` makes by number, and on their `response`.

    The learning rate rises to `rate` over the first `ramp` steps.
    """
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    end = getattr(processor, "tokenizer", processor).eos_token
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    as_video = shows_video(OnlineRows(stream).held_out(), stream.settings, processor)
    for step in itertools.count():
        model.train()
        batch = [sample(step * size + k) for k in range(size)]
        responses = [response(made) + end for made in batch]
        nats, tokens = _cross_entropy(model, processor, batch, responses, stream, as_video)
        loss = nats.sum() / tokens
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / ramp)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        model.eval()
        yield _Step(loss.item(), (-nats).exp().tolist(), batch, responses)


def _cross_entropy(
    model: Any, processor: Any, batch: list[StreamSample], responses: list[str], stream: SampleStream, as_video: bool
) -> tuple[Any, int]:
    """Cross-entropy of each response given its prompt and pictures (a tensor, in nats), and their number of tokens."""
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
    nats = torch.nn.functional.cross_entropy(
        model(**inputs).logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none"
    )
    return nats.sum(1), sum(map(len, answers))


def _floor(batch: list[StreamSample], responses: list[str], processor: Any) -> float:
    """Entropy of a uniform answer per response token, in nats."""
    import math

    tokenizer = getattr(processor, "tokenizer", processor)
    tokens = sum(len(ids) for ids in tokenizer(responses)["input_ids"])
    return sum(-math.log(made.arm.task.chance(made.arm.level)) for made in batch) / tokens
