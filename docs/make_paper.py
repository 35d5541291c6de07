"""Make the tables of docs/paper.md anew: `python docs/make_paper.py`.

docs/paper_settings.yaml has the settings of the paper's scripts. The columns of ours come from the composed configs: a
recipe as it is, and with `ssl4rl/reproduce=paper`, on machines with flash-attn. A text of ours may have these placeholders:

    {ssl4rl.val_samples}    the value of a key of the config
    {level.side}            a field of the level of the recipe's first task
    {augmentation}          what the first task's level draws for a view, as probabilities and ranges
    {reward 1, 2, 3, 4}     what this answer to the first task earns, in exact form; `TRUTHS` has the right answers
"""

from __future__ import annotations

import functools
import random
import re
from pathlib import Path
from typing import Any

import yaml

from ssl4rl_plugin.core.errors import UserError
from ssl4rl_plugin.data.ground_truth import encode_truth
from ssl4rl_plugin.tasks.image.augment import draw_augmentation
from ssl4rl_plugin.training.rewards import compute_score
from ssl4rl_plugin.training.settings import parse_arms

PAGE = Path(__file__).parent / "paper.md"
SETTINGS = Path(__file__).parent / "paper_settings.yaml"
PAPER = "ssl4rl/reproduce=paper"
TRUTHS: dict[str, Any] = {"rotation": 90, "jigsaw": [3, 2, 1, 4]}
"""Right answers by task, for {reward ...}."""
DRAWS = 4000
"""Augmentations drawn, for probabilities to one digit."""
HEADER = ("Setting", "The paper's scripts", "Ours", "`reproduce=paper`", "Why ours differs", "Where in the scripts")


class TableError(UserError):
    """A row of paper_settings.yaml says less than its table needs."""


@functools.cache
def composed(recipe: str, *overrides: str) -> Any:
    """The config of a recipe on a machine with flash-attn: its own part over verl's defaults.

    verl's command line composes the same (tests/test_recipes.py), which takes several times as long.
    """
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    config = OmegaConf.merge(_verls())
    OmegaConf.set_struct(config, False)
    with initialize_config_module("ssl4rl_plugin.recipes", version_base=None):
        given = ["ssl4rl.attention=flash_attention_2", *overrides]
        config.merge_with(compose(f"recipe/{recipe}", overrides=given))
    return config


@functools.cache
def _verls() -> Any:
    """verl's default config."""
    import verl  # noqa: F401  -- loads the plugin
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer")


def value(config: Any, key: str) -> Any:
    """A value of the config, or of the level of its first task (`level.FIELD`). None if there is no such key."""
    from omegaconf import OmegaConf

    if key.startswith("level."):
        return getattr(_arm(config).level, key.removeprefix("level."))
    return OmegaConf.select(config, key)


def _arm(config: Any) -> Any:
    from omegaconf import OmegaConf

    section: Any = OmegaConf.to_container(config.ssl4rl.tasks)
    options = {key: option for key, option in config.ssl4rl.options.items() if option is not None}
    return parse_arms(section, options)[0]


def filled(text: str, config: Any) -> str:
    """The text with its placeholders filled in."""
    return re.sub(r"\{([^}]+)\}", lambda found: _place(found[1], config), text)


def _place(name: str, config: Any) -> str:
    if name == "augmentation":
        return augmentation(_arm(config).level.strong)
    if name.startswith("reward "):
        return shown(reward(config, name.removeprefix("reward ")))
    found = value(config, name)
    if found is None:
        raise TableError(f"{SETTINGS.name}: there is no {name}")
    return shown(found)


def reward(config: Any, answer: str) -> float:
    """What an answer in exact form to the first task earns."""
    from omegaconf import OmegaConf

    arm = _arm(config)
    truth = encode_truth(arm.task.name, arm.level_name, arm.options, TRUTHS[arm.task.name], "val:0")
    given: Any = OmegaConf.to_container(config.reward.custom_reward_function.reward_kwargs, resolve=True)
    response = f"<think>I compare them.</think><answer>{answer}</answer>"
    return float(compute_score(arm.data_source, response, truth, **given)["score"])


def augmentation(strong: bool) -> str:
    """Probabilities of the changes of a view, and the range of the factors of colours, to one digit."""
    rng = random.Random(0)
    drawn = [draw_augmentation(rng, strong) for _ in range(DRAWS)]
    shares = {key: round(sum(bool(one[key]) for one in drawn) / DRAWS, 1) for key in drawn[0]}
    low, high = (round(edge(one["brightness"] for one in drawn), 1) for edge in (min, max))
    return (
        f"colours {shares['recolour']:g} (brightness, contrast, saturation {low:g} to {high:g}), gray {shares['gray']:g}, "
        f"blur {shares['blur']:g}, mirrored {shares['mirror']:g}, solarised {shares['solarise']:g}"
    )


def shown(found: Any) -> str:
    """A value as in YAML, numbers in short."""
    if isinstance(found, bool) or found is None:
        return {True: "true", False: "false", None: "null"}[found]
    return f"{found:.4g}" if isinstance(found, float) else str(found)


def cells(row: dict[str, Any], table_recipe: str) -> tuple[str, ...]:
    """The row as cells of `HEADER`. Raises TableError if a value of ours differs from the reference's without a reason."""
    recipe = row.get("recipe", table_recipe)
    ours, paper = composed(recipe), composed(recipe, PAPER)
    why = filled(row.get("why", ""), ours)
    if "key" not in row:
        columns = [row["reference"], filled(row["ours"], ours), filled(row.get("paper", row["ours"]), paper)]
        differs = True
    else:
        values = [row["reference"], value(ours, row["key"]), value(paper, row["key"])]
        differs = any(one != row["reference"] for one in values)
        columns = [f"`{shown(one)}`" for one in values]
    if differs != bool(why):
        raise TableError(f"{SETTINGS.name}, {row['setting']!r}: " + ("say why" if differs else "nothing differs"))
    key = f"<br>`{row['key']}`" if "key" in row and not row["key"].startswith("level.") else ""
    return (row["setting"] + key, *columns, why, row["where"])


def table(entry: dict[str, Any]) -> str:
    """A table of paper_settings.yaml in Markdown."""
    rows = [HEADER, ("---",) * len(HEADER), *(cells(row, entry["recipe"]) for row in entry["rows"])]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def settings() -> dict[str, Any]:
    """The content of paper_settings.yaml."""
    found: dict[str, Any] = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    return found


def with_tables(text: str) -> str:
    """The page with new tables between their marks."""
    for entry in settings()["tables"]:
        start, end = f"<!-- {entry['name']} -->\n", f"\n<!-- end of {entry['name']} -->"
        before, _, rest = text.partition(start)
        _, mark, after = rest.partition(end)
        if not mark:
            raise SystemExit(f"{PAGE.name} lacks the lines {start.strip()} and {end.strip()}")
        text = f"{before}{start}{table(entry)}{mark}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
