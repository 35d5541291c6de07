"""Make docs/gpu_settings.md: the GPU recipes against verl's own examples, and on which machines which recipe fits.

python docs/make_gpu_settings.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ssl4rl_plugin.cli.catalogue import recipe_entries
from ssl4rl_plugin.demo.run import RECIPES as CPU_RECIPES
from ssl4rl_plugin.demo.run import compose
from ssl4rl_plugin.training.memory import Estimate, estimate
from ssl4rl_plugin.training.model_size import ModelSize, model_size
from ssl4rl_plugin.training.prompt_limits import prompt_limits

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER / "verl_examples.yaml"
PAGE = FOLDER / "gpu_settings.md"
MODEL = "actor_rollout_ref.model.path"
MACHINES = ("gpu_8x80gb", "gpu_1x80gb", "gpu_1x24gb")

HEAD = """# Settings of the GPU recipes

<!-- Made by `python docs/make_gpu_settings.py` (`make gallery`). -->

## Beside verl's own examples

The recipes take over the settings of verl's examples for the same models ({commit}, {date}), on 8 GPUs of 80 GB with
flash-attn. A test composes both.

Equal: {same}.

Other, and why:

| verl's script | Setting | verl | Ours | Reason |
|---|---|---|---|---|
"""

FITS = """
## What fits where

Estimates of `ssl4rl doctor --recipe NAME ssl4rl/hardware=MACHINE` for prompts and responses at their limits, with and
without flash-attn. GPU: peak of a training step, and sequences that vLLM's KV cache holds at once. Main memory: offloaded
state, and the pictures of a step or a validation. **Bold** does not fit. Nothing was measured on a GPU ([GPUs](gpu.md)).

Recipes with equal numbers share a row.

"""


def compared(content: dict[str, Any]) -> Iterator[tuple[str, str, Any, Any, str]]:
    """(script, key, verl's value, ours, reason) for each setting of each example. The reason is empty where both agree."""
    from omegaconf import OmegaConf

    for example in content["examples"]:
        config = compose(example["recipe"][0], example["recipe"][1:])
        for key, theirs in example["settings"].items():
            ours = OmegaConf.select(config, key)
            yield example["script"], key, theirs, ours, "" if ours == theirs else content["reasons"].get(key, "")


def examples_table() -> str:
    content = yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))
    rows = list(compared(content))
    other = {key for _, key, theirs, ours, _ in rows if ours != theirs}
    same = dict.fromkeys(f"`{key}={theirs}`" for _, key, theirs, _, _ in rows if key not in other and key != MODEL)
    lines = [HEAD.format(commit=content["commit"][:9], date=content["date"], same=", ".join(same))]
    for script, key, theirs, ours, reason in rows:
        if ours != theirs:
            lines.append(f"| {script.removeprefix('examples/')} | `{key}` | {theirs} | {ours} | {reason} |\n")
    return "".join(lines)


def fits(name: str, machine: str, sizes: dict[str, ModelSize]) -> str:
    """The cell of a recipe on a machine."""
    cells = []
    for attention in ("flash_attention_2", "sdpa"):
        config = compose(name, [f"ssl4rl/hardware={machine}", f"ssl4rl.attention={attention}"])
        path = config.actor_rollout_ref.model.path
        found = estimate(config, sizes.setdefault(path, model_size(path)))
        cells.append(_cell(found, config.ssl4rl.gpu_memory, config.ssl4rl.host_memory))
    return cells[0] if cells[0] == cells[1] else f"{cells[0]}<br>sdpa: {cells[1]}"


def _cell(found: Estimate, gpu: float, host: float) -> str:
    assert found.kv_sequences is not None
    peak, sequences, memory = f"{found.peak.total:.0f} of {gpu}", int(found.kv_sequences), f"{found.host:.0f} of {host}"
    return ", ".join(
        f"**{text}**" if wrong else text
        for text, wrong in (
            (f"GPU {peak}", found.peak.total > gpu),
            (f"{sequences} sequences", sequences < 1),
            (f"main {memory}", found.host > host),
        )
    )


def _needs(config: Any) -> tuple[Any, ...]:
    """All of a recipe that the estimate depends on and the machine does not set."""
    parts = config.actor_rollout_ref
    return (
        parts.model.path, parts.model.lora_rank, config.data.max_prompt_length, parts.rollout.n,
        parts.actor.use_kl_loss, config.algorithm.use_kl_in_reward, str(prompt_limits(parts.rollout)),
    )  # fmt: skip


def fits_table() -> str:
    sizes: dict[str, ModelSize] = {}
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name in sorted(entry["name"] for entry in recipe_entries()):
        if name not in CPU_RECIPES:
            alike.setdefault(_needs(compose(name, [])), []).append(name)
    rows: dict[tuple[str, ...], list[str]] = {}
    for names in alike.values():
        rows.setdefault(tuple(fits(names[0], machine, sizes) for machine in MACHINES), []).extend(names)
    lines = [FITS, f"| Recipes | {' | '.join(MACHINES)} |\n|---|{'---|' * len(MACHINES)}\n"]
    for cells, names in rows.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {' | '.join(cells)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(examples_table() + fits_table(), encoding="utf-8")
