"""Teaching before reinforcement, on the real tiny text model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import BASE_SECTION

from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.samples import SampleStream
from ssl4rl_plugin.demo import warm_up as module
from ssl4rl_plugin.demo.model import build_model, train_tokenizer
from ssl4rl_plugin.demo.warm_up import random_response, teach, warm_up
from ssl4rl_plugin.training.settings import Settings, parse_arms

SOURCE = {"name": "communities", "path": None, "options": {"nodes": 200, "questions": 8}, "manifest": None}


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any, SampleStream]:
    """A model with random weights, its tokenizer, and questions of two possible answers."""
    task = {"task": "connected_components", "options": {"nodes": 4, "most": 2, "notation": "edges"}}
    source = {**BASE_SECTION["source"], **SOURCE}
    settings = Settings.from_config({**BASE_SECTION, "tasks": [task], "source": source, "answer_format": "answer_only"})
    stream = SampleStream(settings, load_manifest(settings), "train")
    tokenizer = train_tokenizer(["user assistant system", *(stream[index].prompt for index in range(64))])
    return build_model(tokenizer, 0, vision=False), tokenizer, stream


def probability_of(responses: str, model: Any, tokenizer: Any, stream: SampleStream) -> float:
    """Mean probability that the model gives to the right or to random responses, on samples that it was not trained on."""
    rng = random.Random(0)
    batch = [stream[len(stream) - 1 - k] for k in range(64)]
    render = stream.settings.answer_format.render
    texts = [render(one.gold) if responses == "right" else random_response(one, stream, rng) for one in batch]
    total = 0.0
    with torch.no_grad():
        for one, text in zip(batch, texts, strict=True):
            chat = [{"role": "user", "content": one.prompt}]
            prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            start = len(tokenizer(prompt)["input_ids"])
            ids = torch.tensor(tokenizer(prompt + text + tokenizer.eos_token)["input_ids"])
            logs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            total += logs[:-1].gather(1, ids[1:, None])[start - 1 :].sum().exp().item()
    return total / len(batch)


@pytest.mark.slow
def test_the_format_first_and_then_the_truth(made: tuple[Any, Any, SampleStream]) -> None:
    model, tokenizer, stream = made
    warm_up(model, tokenizer, stream, 40, seed=0)
    before = probability_of("right", model, tokenizer, stream)
    assert 0.3 < before < 0.6, "the format is learnt, and nothing about the truth"
    result = teach(model, tokenizer, stream, skill=0.4, seed=0, limit=500)
    (accuracy,) = result.accuracies.values()
    assert accuracy >= 0.7 and result.steps <= 500, "chance is 0.5"
    assert probability_of("right", model, tokenizer, stream) > before + 0.1
    assert probability_of("random", model, tokenizer, stream) < 0.6


def test_teaching_ends_at_its_limit(made: tuple[Any, Any, SampleStream]) -> None:
    result = teach(*made, skill=0.999, seed=0, limit=5)
    assert result.steps == 5 and set(result.accuracies) == {arm.key for arm in made[2].settings.arms}


def test_an_arm_with_the_skill_is_only_rehearsed(
    made: tuple[Any, Any, SampleStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer, stream = made
    tasks = [{"task": "connected_components", "options": {"nodes": n, "most": 2, "notation": "edges"}} for n in (4, 5)]
    settings = replace(stream.settings, arms=parse_arms(tasks))
    both = SampleStream(settings, stream.manifest, "train")
    learnt, other = (arm.key for arm in settings.arms)
    taught: list[str] = []

    def training(_model: Any, _processor: Any, _stream: Any, sample: Any, *_: Any) -> Iterator[Any]:
        for step in range(8):
            batch = [sample(step * 32 + k) for k in range(32)]
            taught.extend(one.arm.key for one in batch)
            yield SimpleNamespace(batch=batch, probabilities=[0.9 if one.arm.key == learnt else 0.1 for one in batch])

    monkeypatch.setattr(module, "_training", training)
    monkeypatch.setattr(module, "LOOK_BACK", 16)
    result = teach(model, tokenizer, both, skill=0.5, seed=0, limit=8)
    assert taught[:32].count(learnt) == taught[:32].count(other) == 16
    rehearsed = taught[32:].count(learnt) / len(taught[32:])
    assert rehearsed == pytest.approx(1 / (2 * module.REHEARSAL), abs=0.01) and result.steps == 8
    assert taught[32:].count(other) == len(taught[32:]) * (1 - rehearsed)
