"""What shortens the flat part: the demo's tasks by policy gradient in a plain loop, without verl, for many settings.

Run `python tests/bench/exploration.py --seeds 3 --out FILE.json`. Runs that FILE holds already are not repeated.

    --only NAME;...    some settings only          --steps N    steps of a run
    --prompts N        training prompts, used again and again (verl's runs make new ones)
    --docs             train nothing; write the table of docs/cpu.md from FILE

Samples, rewards, tokenizer and model are the demo's. After the demo's warm-up only the X of a response `<answer>X</answer>`
is open. So one forward pass of a prompt and `<answer>` gives the probabilities of all its rollouts, and the warm-up here
teaches X only. Accuracy is the probability of the right answer, averaged over held-out prompts.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import random
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from trainings import ROOT, replace_between, table
from verl.utils import hf_processor

from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import row_of
from ssl4rl_plugin.data.samples import SampleStream, StreamSample
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.demo.model import DEMO, build_model, save, train_tokenizer
from ssl4rl_plugin.demo.phrases import common_phrases
from ssl4rl_plugin.demo.warm_up import BATCH, LEARNING_RATE
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import Settings
from ssl4rl_plugin.training.verl.prompts import messages, processor_inputs

TOKENS = 4
"""Tokens of a response; verl's mean over tokens gives each a quarter of the weight."""
EVERY, HELD_OUT = 10, 64
"""Steps between two validations, and their prompts of each task."""


@dataclass(frozen=True)
class Setting:
    """A run's settings; the defaults are those of the recipe cpu_demo."""

    prompts: int = 32
    rollouts: int = 8
    lr: float = 7e-4
    ramp: int = 10  # steps in which the learning rate rises
    entropy: float = 0.02
    entropy_falls: bool = False  # linearly to 0
    by_std: bool = True  # GRPO divides advantages by the spread within a group
    updates: int = 1  # of a batch
    clip_high: float = 0.2
    filtered: bool = False  # groups without spread do not count in the mean
    warm_up: int = 100  # steps
    head: float = 0.02  # standard deviation of the output layer's initial weights


SETTINGS = {
    "`cpu_demo`": Setting(),
    "16 prompts x 16": Setting(prompts=16, rollouts=16),
    "8 prompts x 32": Setting(prompts=8, rollouts=32),
    "no entropy bonus": Setting(entropy=0.0),
    "entropy bonus 0.005": Setting(entropy=0.005),
    "entropy bonus falls to 0": Setting(entropy_falls=True),
    "warm-up of 40 steps": Setting(warm_up=40),
    "learning rate 1.4e-3": Setting(lr=1.4e-3),
    "no ramp of the learning rate": Setting(ramp=1),
    "advantage without std": Setting(by_std=False),
    "groups without spread left out": Setting(filtered=True),
    "4 updates a batch": Setting(updates=4),
    "4 updates a batch, clip_ratio_high 0.28": Setting(updates=4, clip_high=0.28),
    "output layer 0.1": Setting(head=0.1),
    "output layer 0.1, 16 prompts": Setting(head=0.1, prompts=16),
    "output layer 0.1, no entropy bonus": Setting(head=0.1, entropy=0.0),
}


class Prompt(NamedTuple):
    """A prompt up to `<answer>`, with what each next token earns."""

    task: str
    ids: torch.Tensor
    pixels: torch.Tensor
    grid: torch.Tensor
    rewards: torch.Tensor  # by token of the vocabulary
    answers: list[int]  # the tokens of all possible ones
    right: int


class World:
    """The demo's samples of one seed, ready for the model."""

    def __init__(self, count: int, seed: int) -> None:
        fixed = ["actor_rollout_ref.model.path=unused", f"ssl4rl.seed={seed}", f"ssl4rl.val_samples={HELD_OUT}"]
        self.settings = Settings.from_config(demo.compose("cpu_demo", fixed).ssl4rl)
        manifest = load_manifest(self.settings, progress=False)
        stream, held_out = (SampleStream(self.settings, manifest, split) for split in ("train", "val"))
        samples = [stream[index] for index in range(count)]
        texts = [made.prompt for made in samples[:256]]
        roles = ("user", "assistant", "system") * len(texts)
        self.tokenizer = train_tokenizer([*roles, *texts], phrases=common_phrases(texts))
        with tempfile.TemporaryDirectory() as folder:
            save(build_model(self.tokenizer, seed), self.tokenizer, Path(folder))
            self.processor = hf_processor(folder)
        self.train = [self.prompt(made) for made in samples]
        self.held_out = [self.prompt(held_out[index]) for index in range(len(held_out))]
        self.chance = {arm.task.name: arm.task.chance(arm.level) for arm in self.settings.arms}
        self.start = functools.cache(self._start)

    def prompt(self, made: StreamSample) -> Prompt:
        chat = messages(row_of(made), self.settings, as_video=False)
        text = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) + "<answer>"
        inputs = processor_inputs(self.processor, [text], [chat], return_tensors="pt")
        grader, render = made.arm.task.grader(made.arm.level), self.settings.answer_format.render
        rewards, answers, right = torch.zeros(len(self.tokenizer)), list[int](), -1
        for answer in grader.values():
            response = render(grader.render(answer))
            answers.append(token := self.tokenizer(response)["input_ids"][1])
            score = compute_score(made.data_source, response, made.truth_json, answer_format="answer_only")
            rewards[token], right = score["score"], token if score["acc"] else right
        ids, pixels, grid = (inputs[name] for name in ("input_ids", "pixel_values", "image_grid_thw"))
        assert len(set(answers)) == len(answers), f"two answers of {made.arm.key} begin with the same token"
        return Prompt(made.arm.task.name, ids[0], pixels, grid, rewards, answers, right)

    def _start(self, seed: int, steps: int, head: float) -> Any:
        """A model after the warm-up: uniformly random answers, by supervised steps as in `demo.warm_up`."""
        model, rng = build_model(self.tokenizer, seed, shape=replace(DEMO, head=head)), random.Random(seed)
        optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        for step in range(steps):
            batch = [self.train[(step * BATCH + row) % len(self.train)] for row in range(BATCH)]
            answers = torch.tensor([rng.choice(prompt.answers) for prompt in batch])
            descend(model, optimiser, functional.nll_loss(log_probs(model, batch), answers) / TOKENS)
        return model


def descend(model: Any, optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def log_probs(model: Any, prompts: list[Prompt]) -> torch.Tensor:
    """Log-probabilities of the token behind each prompt, (prompts, vocabulary)."""
    lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
    ids = torch.nn.utils.rnn.pad_sequence([prompt.ids for prompt in prompts], batch_first=True)
    hidden = model.model(
        input_ids=ids,
        attention_mask=(torch.arange(ids.shape[1]) < lengths[:, None]).long(),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        pixel_values=torch.cat([prompt.pixels for prompt in prompts]),
        image_grid_thw=torch.cat([prompt.grid for prompt in prompts]),
    ).last_hidden_state
    return model.lm_head(hidden[torch.arange(len(prompts)), lengths - 1]).log_softmax(-1)


@torch.no_grad()
def accuracy(model: Any, prompts: list[Prompt]) -> dict[str, float]:
    """Task -> mean probability of the right answer."""
    found: dict[str, list[float]] = {}
    for prompt, logs in zip(prompts, log_probs(model, prompts), strict=True):
        found.setdefault(prompt.task, []).append(logs[prompt.right].exp().item())
    return {task: statistics.fmean(values) for task, values in found.items()}


def policy_loss(setting: Setting, entropy: float, logs: Any, old: Any, drawn: Any, rewards: Any) -> torch.Tensor:
    """GRPO's loss with an entropy bonus.

    `logs` and `old` have all tokens' log-probabilities now and at the rollout, `drawn` and `rewards` are by rollout.
    """
    advantage = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, keepdim=True)
    if setting.by_std:
        advantage = advantage / (spread + 1e-6)
    ratio = (logs.gather(1, drawn) - old.gather(1, drawn)).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1 + setting.clip_high) * advantage).mean(1)
    gain = gain - entropy * (logs.exp() * logs).sum(1)
    kept = spread[:, 0] > 0 if setting.filtered else torch.ones_like(gain, dtype=torch.bool)
    return -(gain * kept).sum() / kept.sum().clamp(min=1) / TOKENS


def train(world: World, setting: Setting, seed: int, steps: int) -> dict[int, dict[str, float]]:
    """Step -> held-out accuracy of each task, of one run."""
    model = copy.deepcopy(world.start(seed, setting.warm_up, setting.head))
    torch.manual_seed(seed)
    rng = random.Random(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=setting.lr, weight_decay=0.01)
    curve, order = {0: accuracy(model, world.held_out)}, list[Prompt]()
    for step in range(1, steps + 1):
        if len(order) < setting.prompts:
            order = rng.sample(world.train, len(world.train))
        batch, order = order[: setting.prompts], order[setting.prompts :]
        logs = log_probs(model, batch)
        old = logs.detach()
        drawn = torch.multinomial(old.exp(), setting.rollouts, replacement=True)
        rewards = torch.stack([prompt.rewards for prompt in batch]).gather(1, drawn)
        optimiser.param_groups[0]["lr"] = setting.lr * min(1, step / setting.ramp)
        entropy = setting.entropy * (1 - step / steps if setting.entropy_falls else 1)
        for rows in torch.arange(len(batch)).chunk(setting.updates):
            if setting.updates > 1:
                logs = log_probs(model, [batch[row] for row in rows])
            descend(model, optimiser, policy_loss(setting, entropy, logs, old[rows], drawn[rows], rewards[rows]))
        if step % EVERY == 0:
            curve[step] = accuracy(model, world.held_out)
    return curve


def reached(run: dict[str, Any], goals: dict[str, float]) -> str:
    """First validated step at which every task is above its goal; `-` if there is none."""
    steps = (step for step, found in run["curve"].items() if all(found[task] > goal for task, goal in goals.items()))
    return next(steps, "-")


def summary(made: dict[str, Any]) -> str:
    """The table of docs/cpu.md; a cell has one figure for each seed."""
    chance, rows = made["chance"], []
    for name, setting in SETTINGS.items():
        if not (runs := [run for run in made["runs"].values() if run["setting"] == name]):
            continue
        ends = [list(run["curve"].values())[-1] for run in runs]
        rows.append([
            name,
            f"{setting.prompts} x {setting.rollouts}",
            ", ".join(reached(run, {task: 1.5 * value for task, value in chance.items()}) for run in runs),
            ", ".join(reached(run, dict.fromkeys(chance, 0.8)) for run in runs),
            *(", ".join(f"{end[task]:.2f}" for end in ends) for task in chance),
        ])  # fmt: skip
    return table(["Setting", "Prompts x rollouts", "1.5 x chance", "0.8", *(f"`{task}`" for task in chance)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for name, value in (("--seeds", 3), ("--steps", 80), ("--prompts", 640)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--only")
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    made = json.loads(given.out.read_text()) if given.out.exists() else {"runs": {}}
    if given.docs:
        page = ROOT / "docs" / "cpu.md"
        page.write_text(replace_between(page.read_text(), {"exploration": summary(made)}))
        return
    torch.set_num_threads(1)
    world = World(given.prompts, seed=0)
    made |= {"chance": world.chance, "steps": given.steps, "prompts": given.prompts}
    for seed in range(given.seeds):
        for name in given.only.split(";") if given.only else SETTINGS:
            if (key := f"{name}, seed {seed}, {given.steps} steps") in made["runs"]:
                continue
            curve = train(world, SETTINGS[name], seed, given.steps)
            made["runs"][key] = {"setting": name, "seed": seed, "curve": curve}
            given.out.write_text(json.dumps(made, indent=1))
            print(key, curve[max(curve)], flush=True)
    print(summary(json.loads(given.out.read_text())))


if __name__ == "__main__":
    main()
