"""What shortens the flat part: the demo's tasks by policy gradient in a plain loop, without verl, for many settings.

Run `python tests/bench/exploration.py --out FILE.json`. Runs that FILE holds already are not repeated.

    --seeds N          seeds 0 to N-1              --steps N    steps of a run
    --only NAME;...    some settings only          --jobs N     runs at a time
    --docs             train nothing; write the table of docs/cpu.md from FILE

Samples, rewards, tokenizer, model and warm-up are the demo's, and whole responses are sampled, so curves resemble those of
verl's runs. A run is cheaper, since nothing is sent between processes, and rollouts of a prompt share the rows of what they
have in common. Accuracy is that of sampled answers to held-out prompts, as in verl's validation.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import statistics
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from trainings import ROOT, replace_between, table
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging
from verl.utils import hf_processor

from ssl4rl_plugin.data.indexing import load_manifest
from ssl4rl_plugin.data.rows import row_of
from ssl4rl_plugin.data.samples import SampleStream, StreamSample
from ssl4rl_plugin.demo import run as demo
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import Settings
from ssl4rl_plugin.training.verl.prompts import messages, processor_inputs

LONGEST = 16
"""Tokens after which a response is cut off."""
EVERY, HELD_OUT, ANSWERS = 10, 64, 4
"""Steps between two validations, their prompts of each task, and the answers to each prompt."""


@dataclass(frozen=True)
class Setting:
    """A run's settings; the defaults are those of the recipe cpu_demo."""

    prompts: int = 32
    rollouts: int = 8
    lr: float = 7e-4
    ramp: int = 10  # steps in which the learning rate rises
    cosine: bool = False  # it then falls to a tenth
    beta2: float = 0.95  # of Adam
    entropy: float = 0.02
    entropy_falls: bool = False  # linearly to 0
    by_std: bool = True  # GRPO divides advantages by the spread within a group
    updates: int = 2  # of a batch
    clip_high: float = 0.2
    filtered: bool = False  # groups without spread do not count in the mean
    warm_up: int = 60  # steps
    model: dict[str, float] = field(default_factory=dict)  # fields of `demo.model.Shape`


SETTINGS = {
    "`cpu_demo`": Setting(),
    "Adam's beta2 0.999": Setting(beta2=0.999),
    "1 update a batch": Setting(updates=1),
    "4 updates a batch": Setting(updates=4),
    "4 updates a batch, learning rate 4e-4": Setting(updates=4, lr=4e-4),
    "4 updates a batch, clip_ratio_high 0.28": Setting(updates=4, clip_high=0.28),
    "learning rate 5e-4": Setting(lr=5e-4),
    "learning rate 1e-3": Setting(lr=1e-3),
    "learning rate 1e-3, falling": Setting(lr=1e-3, cosine=True),
    "no entropy bonus": Setting(entropy=0.0),
    "entropy bonus falls to 0": Setting(entropy_falls=True),
    "16 prompts x 16": Setting(prompts=16, rollouts=16),
    "advantage without std": Setting(by_std=False),
    "groups without spread left out": Setting(filtered=True),
    "warm-up of 100 steps": Setting(warm_up=100),
    "attention gain 3": Setting(model={"attention_gain": 3.0}),
    "output layer 0.1": Setting(model={"head": 0.1}),
}


class Prompt(NamedTuple):
    """A prompt as the model sees it."""

    made: StreamSample
    ids: list[int]
    pixels: torch.Tensor
    grid: torch.Tensor


class Row(NamedTuple):
    """One of the different responses to a prompt of a batch."""

    prompt: int
    response: tuple[int, ...]
    count: int
    """How many rollouts have it."""
    advantage: float


class World:
    """The demo's samples of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._fixed = [f"ssl4rl.seed={seed}", f"ssl4rl.val_samples={HELD_OUT}"]
        self.settings = Settings.from_config(self._config("unused").ssl4rl)
        manifest = load_manifest(self.settings, progress=False)
        self._streams = {split: SampleStream(self.settings, manifest, split) for split in ("train", "val")}
        self.prompt = functools.cache(self._prompt)
        self.processor: Any = None

    def _config(self, model: Any, *overrides: str) -> Any:
        return demo.compose("cpu_demo", [f"actor_rollout_ref.model.path={model}", *self._fixed, *overrides])

    def start(self, setting: Setting, folder: Path) -> Any:
        """The model after the demo's warm-up."""
        shape = [f"+ssl4rl.warm_up.model.{name}={value}" for name, value in setting.model.items()]
        path = folder / "model"
        demo.prepare_model(self._config(path, f"ssl4rl.warm_up.steps={setting.warm_up}", *shape), path, self.seed)
        # Every model of a seed has the same tokenizer.
        self.processor = self.processor or hf_processor(str(path))
        return AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()

    def _prompt(self, split: str, index: int) -> Prompt:
        made = self._streams[split][index]
        chat = messages(row_of(made), self.settings, as_video=False)
        text = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        inputs = processor_inputs(self.processor, [text], [chat], return_tensors="pt")
        return Prompt(made, inputs["input_ids"][0].tolist(), inputs["pixel_values"], inputs["image_grid_thw"])

    def held_out(self) -> list[Prompt]:
        return [self.prompt("val", index) for index in range(len(self._streams["val"]))]

    def score(self, prompt: Prompt, response: tuple[int, ...]) -> dict[str, Any]:
        text = self.processor.tokenizer.decode(response, skip_special_tokens=True)
        return compute_score(
            prompt.made.data_source, text, prompt.made.truth_json, answer_format=self.settings.answer_format.name
        )


def hidden(model: Any, rows: list[tuple[Prompt, tuple[int, ...]]]) -> torch.Tensor:
    """Last hidden states of prompts with the beginnings of their responses, rows x tokens x width."""
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([*prompt.ids, *response]) for prompt, response in rows], batch_first=True
    )
    lengths = torch.tensor([len(prompt.ids) + len(response) for prompt, response in rows])
    return model.model(
        input_ids=ids,
        attention_mask=(torch.arange(ids.shape[1]) < lengths[:, None]).long(),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        pixel_values=torch.cat([prompt.pixels for prompt, _ in rows]),
        image_grid_thw=torch.cat([prompt.grid for prompt, _ in rows]),
    ).last_hidden_state


@torch.no_grad()
def rollouts(model: Any, prompts: list[Prompt], n: int) -> list[Counter[tuple[int, ...]]]:
    """n sampled responses to each prompt, as counts of the different ones."""
    begun, done = {(place, ()): n for place in range(len(prompts))}, [Counter() for _ in prompts]
    for _ in range(LONGEST):
        rows = [(prompts[place], response) for place, response in begun]
        ends = torch.tensor([len(prompt.ids) + len(response) - 1 for prompt, response in rows])
        logits = model.lm_head(hidden(model, rows)[torch.arange(len(rows)), ends])
        logits[:, [model.config.image_token_id, model.config.video_token_id]] = -math.inf  # as vLLM
        further = Counter()
        for ((place, response), count), probabilities in zip(begun.items(), logits.softmax(-1), strict=True):
            for token in torch.multinomial(probabilities, count, replacement=True).tolist():
                longer = (*response, token)
                ended = token == model.generation_config.eos_token_id or len(longer) == LONGEST
                (done[place] if ended else further)[longer if ended else (place, longer)] += 1
        if not (begun := further):
            break
    return done


def accuracy(world: World, model: Any) -> dict[str, float]:
    """Task -> share of right answers to its held-out prompts."""
    found: dict[str, list[float]] = {}
    prompts = world.held_out()
    for prompt, made in zip(prompts, rollouts(model, prompts, ANSWERS), strict=True):
        right = sum(count * world.score(prompt, response)["acc"] for response, count in made.items()) / ANSWERS
        found.setdefault(prompt.made.arm.task.name, []).append(right)
    return {task: statistics.fmean(values) for task, values in found.items()}


def advantages(world: World, setting: Setting, prompts: list[Prompt], model: Any) -> list[Row]:
    """The rollouts of a step, with GRPO's advantages."""
    rows = []
    for place, (prompt, made) in enumerate(zip(prompts, rollouts(model, prompts, setting.rollouts), strict=True)):
        scores = {response: world.score(prompt, response)["score"] for response in made}
        each = torch.tensor([scores[response] for response in made.elements()])
        spread = each.std().item()
        if setting.filtered and spread == 0:
            continue
        unit = spread + 1e-6 if setting.by_std else 1.0
        for response, count in made.items():
            rows.append(Row(place, response, count, (scores[response] - each.mean().item()) / unit))
    return rows


def policy_loss(
    model: Any, prompts: list[Prompt], rows: list[Row], old: torch.Tensor | None, setting: Setting, entropy: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """verl's clipped loss with an entropy bonus, a mean over tokens, and the log-probs of the tokens.

    `old` has their log-probs at the rollout; None if nothing has been learnt since.
    """
    places = [
        (number, len(prompts[row.prompt].ids) + k - 1, token, row.count, row.advantage)
        for number, row in enumerate(rows)
        for k, token in enumerate(row.response)
    ]
    numbers, positions, tokens, counts, gains = map(torch.tensor, zip(*places, strict=True))
    states = hidden(model, [(prompts[row.prompt], row.response) for row in rows])
    logs = model.lm_head(states[numbers, positions]).log_softmax(-1)
    chosen = logs.gather(1, tokens[:, None])[:, 0]
    ratio = (chosen - (chosen.detach() if old is None else old)).exp()
    gain = torch.minimum(ratio * gains, ratio.clamp(0.8, 1 + setting.clip_high) * gains)
    gain = gain - entropy * (logs.exp() * logs).sum(1)
    return -(gain * counts).sum() / counts.sum(), chosen.detach()


def train(world: World, setting: Setting, steps: int) -> dict[int, dict[str, float]]:
    """Step -> held-out accuracy of each task, of one run."""
    with tempfile.TemporaryDirectory() as folder:
        model = world.start(setting, Path(folder))
    torch.manual_seed(world.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=setting.lr, betas=(0.9, setting.beta2), weight_decay=0.01)
    curve = {0: accuracy(world, model)}
    for step in range(1, steps + 1):
        first = (step - 1) * setting.prompts
        prompts = [world.prompt("train", index) for index in range(first, first + setting.prompts)]
        rows = advantages(world, setting, prompts, model)
        passed = max(0.0, (step - setting.ramp) / max(1, steps - setting.ramp))
        fall = 0.1 + 0.45 * (1 + math.cos(math.pi * passed)) if setting.cosine else 1.0
        optimiser.param_groups[0]["lr"] = setting.lr * min(1, step / setting.ramp) * fall
        entropy = setting.entropy * (1 - step / steps if setting.entropy_falls else 1)
        share = setting.prompts // setting.updates
        parts = [part for k in range(setting.updates) if (part := [row for row in rows if row.prompt // share == k])]
        with torch.no_grad():
            olds = [policy_loss(model, prompts, part, None, setting, 0.0)[1] for part in parts[1:]]
        for part, old in zip(parts, [None, *olds], strict=False):  # no part if every group was left out
            optimiser.zero_grad()
            policy_loss(model, prompts, part, old, setting, entropy)[0].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        if step % EVERY == 0:
            curve[step] = accuracy(world, model)
    return curve


world_of = functools.cache(World)


def run(name: str, seed: int, steps: int) -> dict[str, Any]:
    """One run, in a process of its own."""
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    demo.console.quiet = True
    world = world_of(seed)
    curve = train(world, SETTINGS[name], steps)
    chance = {arm.task.name: arm.task.chance(arm.level) for arm in world.settings.arms}
    return {"setting": name, "seed": seed, "curve": curve, "chance": chance}


def reached(made: dict[str, Any], factor: float | None) -> str:
    """First validated step at which every task is above `factor` x chance, or above 0.8; `-` if there is none."""
    goals = {task: factor * chance if factor else 0.8 for task, chance in made["chance"].items()}
    steps = (step for step, found in made["curve"].items() if all(found[task] > goal for task, goal in goals.items()))
    return str(next(steps, "-"))


def summary(made: dict[str, Any]) -> str:
    """The table of docs/cpu.md; a cell has one figure for each seed."""
    rows, tasks = [], list(next(iter(made.values()))["chance"])
    for name, setting in SETTINGS.items():
        if not (runs := sorted((one for one in made.values() if one["setting"] == name), key=lambda one: one["seed"])):
            continue
        ends = [list(one["curve"].values())[-1] for one in runs]
        rows.append([
            name,
            f"{setting.prompts} x {setting.rollouts}",
            ", ".join(reached(one, 1.5) for one in runs),
            ", ".join(reached(one, None) for one in runs),
            *(", ".join(f"{end[task]:.2f}" for end in ends) for task in tasks),
        ])  # fmt: skip
    return table(["Setting", "Prompts x rollouts", "1.5 x chance", "0.8", *(f"`{task}`" for task in tasks)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for name, value in (("--seeds", 3), ("--steps", 110), ("--jobs", 2)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--only")
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    made = json.loads(given.out.read_text()) if given.out.exists() else {}
    if given.docs:
        page = ROOT / "docs" / "cpu.md"
        page.write_text(replace_between(page.read_text(), {"exploration": summary(made)}))
        return
    names = given.only.split(";") if given.only else list(SETTINGS)
    todo = {
        f"{name}, seed {seed}, {given.steps} steps": (name, seed, given.steps)
        for name in names
        for seed in range(given.seeds)
    }
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(run, *arguments): key for key, arguments in todo.items() if key not in made}
        for finished in as_completed(running):
            key = running[finished]
            made[key] = finished.result()
            given.out.write_text(json.dumps(made, indent=1))
            curve = made[key]["curve"]
            print(key, curve[max(curve)], flush=True)
    print(summary(json.loads(given.out.read_text())))


if __name__ == "__main__":
    main()
