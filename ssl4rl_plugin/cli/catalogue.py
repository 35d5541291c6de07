"""`ssl4rl tasks`, `recipes` and `sources`: list what this and other installed packages offer."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Iterator
from importlib import resources
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from ssl4rl_plugin.analysis.terminal import show, show_json, table
from ssl4rl_plugin.core.registry import RegistryError, foreign


def task_entries() -> list[dict[str, Any]]:
    """Every registered task. One that cannot be loaded has only `name` and a non-empty `error`."""
    from ssl4rl_plugin.tasks import get_task, registry

    found: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            task = get_task(name)
            with foreign(f"{type(task).__module__}.{type(task).__qualname__}"):
                levels = [
                    {"name": key, "chance": float(task.chance(level)), "fields": dataclasses.asdict(level)}
                    for key, level in task.levels.items()
                ]
                entry = {
                    "name": name,
                    "kind": task.kind,
                    "summary": task.summary,
                    "reference": task.reference,
                    "default_level": task.default_level,
                    "levels": levels,
                    "module": type(task).__module__,
                    "error": "",
                }
                _check_texts(entry)
        except RegistryError as error:  # the rest are still listed
            entry = {"name": name, "error": str(error)}
        found.append(entry)
    return found


def source_entries() -> list[dict[str, Any]]:
    """Every registered source. One that cannot be loaded has only `name` and a non-empty `error`."""
    from ssl4rl_plugin.data.source import registry

    found: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            kind = registry.get(name)
            with foreign(f"{kind.__module__}.{kind.__qualname__}"):
                options = {
                    key: None if parameter.default is parameter.empty else parameter.default
                    for key, parameter in inspect.signature(kind).parameters.items()
                    if key != "path"
                }
                texts = {key: getattr(kind, key) for key in ("kind", "summary", "schema", "licence", "where")}
                entry = {"name": name, **texts, "splits": list(kind.splits), "options": options, "error": ""}
                _check_texts(entry)
        except RegistryError as error:  # see task_entries
            entry = {"name": name, "error": str(error)}
        found.append(entry)
    return found


def _check_texts(entry: dict[str, Any]) -> None:
    """Raise TypeError for a text of a task or source that is none."""
    for key, value in entry.items():
        if key not in ("levels", "splits", "options") and not isinstance(value, str):
            raise TypeError(f"its {key} is {value!r}, not a text")


COMMAND = "python -m verl.trainer.main_ppo +plugin=ssl4rl"
"""Start of the command that trains with a recipe."""


@functools.cache
def recipe_entries() -> list[dict[str, Any]]:
    """Every recipe of the package: its data, model, machine and command, and which experiment it reproduces."""
    return [_recipe(name) for name in _repository().get_group_options("recipe")]


def _recipe(name: str) -> dict[str, Any]:
    from ssl4rl_plugin.training.verl.search_path import grid_recipes

    row = grid_recipes().get(name)
    config, groups = composed(name)
    section = config.ssl4rl
    open_keys = (f"{key}=PATH" for key in _open_keys(OmegaConf.to_container(config)))
    return {
        "name": name,
        "summary": row.summary if row else _summary(name),
        "tasks": OmegaConf.to_container(section.tasks),
        "task_group": groups.get("ssl4rl/task", ""),
        "source": section.source.name,
        "benchmarks": [entry.name for entry in section.benchmarks],
        "model": groups.get("ssl4rl/model", ""),
        "hardware": groups.get("ssl4rl/hardware", ""),
        "algorithm": groups.get("ssl4rl/algorithm", ""),
        "finetuning": groups.get("ssl4rl/finetuning", ""),
        "transductive": section.transductive,
        "reproduces": row.reproduces if row else "",
        "command": " ".join([COMMAND, f"recipe={name}", *open_keys]),
    }


def _summary(name: str) -> str:
    """The comment at the top of a recipe's file, below `# @package _global_`."""
    file = resources.files("ssl4rl_plugin.recipes") / "recipe" / f"{name}.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()[1:]
    comment = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line.removeprefix("# ") for line in comment)


def _open_keys(value: Any, key: str = "") -> Iterator[str]:
    """The keys that a recipe leaves to the command line (`???`), dotted."""
    if value == "???":
        yield key
    elif isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _open_keys(inner, f"{key}.{name}".lstrip("."))


@functools.cache
def _repository() -> Any:
    """Hydra's view of our recipes alone; it loads each config once. verl's configs are not needed to list recipes."""
    from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    from ssl4rl_plugin.training.verl.search_path import RecipeSearchPath

    search_path = ConfigSearchPathImpl()
    RecipeSearchPath().manipulate_search_path(search_path)
    return CachingConfigRepository(ConfigRepository(search_path))


def composed(name: str) -> tuple[DictConfig, dict[str, str]]:
    """A recipe's own part of the config, and the choice of each group, such as `{"ssl4rl/task": "rotation"}`.

    Hydra computes the defaults list. `hydra.compose` gives the same config, as the tests show, but takes four times as
    long for all recipes, since it loads every file again for each.
    """
    from hydra._internal.defaults_list import create_defaults_list

    found = create_defaults_list(
        repo=_repository(), config_name=f"recipe/{name}", overrides_list=[], prepend_hydra=False, skip_missing=False
    )
    # The package of every config is _global_, so their keys are merged as they are.
    config = OmegaConf.merge(*(_repository().load_config(default.config_path).config for default in found.defaults))
    assert isinstance(config, DictConfig)
    return config, dict(found.overrides.known_choices)


def show_tasks(as_json: bool) -> None:
    """Print the tasks."""
    entries = task_entries()
    if as_json:
        return show_json(entries)
    listing = table("task", "needs", "level", "chance", "what the model must find out", "reference")
    for entry in entries:
        if entry["error"]:
            listing.add_row(f"[red]{escape(entry['name'])}", "", "", "", f"[red]broken: {escape(entry['error'])}", "")
            continue
        for number, level in enumerate(entry["levels"]):
            default = " [dim](default)[/]" if level["name"] == entry["default_level"] else ""
            listing.add_row(
                f"[bold]{escape(entry['name'])}" if number == 0 else "",
                entry["kind"] if number == 0 else "",
                escape(level["name"]) + default,
                _chance(level["chance"]),
                escape(entry["summary"]) if number == 0 else "",
                f"[dim]{escape(entry['reference'])}" if number == 0 else "",
                end_section=number == len(entry["levels"]) - 1,
            )
    return show(listing)


def _chance(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


COLUMNS = ("recipe", "tasks", "trains on", "validates on", "model", "hardware", "transductive", "reproduces")


def _cells(entry: dict[str, Any]) -> list[str]:
    """A recipe as a row of `COLUMNS`."""
    group = entry["task_group"]
    tasks = [task if isinstance(task, str) else group or task["task"] for task in entry["tasks"]]
    among = group or ", ".join(dict.fromkeys(task.partition(":")[0] for task in tasks))
    return [
        entry["name"],
        ", ".join(tasks) if len(tasks) < 6 else f"{len(tasks)} ({among})",
        entry["source"],
        ", ".join(entry["benchmarks"]),
        entry["model"],
        entry["hardware"],
        "yes" if entry["transductive"] else "no",
        entry["reproduces"],
    ]


def show_recipes(as_json: bool) -> None:
    """Print the recipes."""
    entries = recipe_entries()
    if as_json:
        return show_json(entries)
    listing = table(*COLUMNS)
    for entry in entries:
        name, *cells = (escape(cell) for cell in _cells(entry))
        listing.add_row(f"[bold]{name}", *cells)
    show(listing)
    print(
        f"\nTrain with one: {COMMAND} recipe=NAME ssl4rl.source.path=PATH\nThe command of each recipe: ssl4rl recipes --json"
    )


def recipe_table() -> str:
    """The recipes as a Markdown table, for the documentation."""
    rows = [[f"`{name}`", *cells] for name, *cells in map(_cells, recipe_entries())]
    header = [column.capitalize() for column in COLUMNS]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def show_sources(as_json: bool) -> None:
    """Print the sources."""
    entries = source_entries()
    if as_json:
        return show_json(entries)
    listing = table("source", "items", "what it reads", "options", "licence")
    for entry in entries:
        if entry["error"]:
            listing.add_row(f"[red]{escape(entry['name'])}", "", f"[red]broken: {escape(entry['error'])}", "", "")
            continue
        options = ", ".join(f"{key}={value}" for key, value in entry["options"].items())
        cells = (escape(text) for text in (entry["kind"], entry["summary"], options, entry["licence"]))
        listing.add_row(f"[bold]{escape(entry['name'])}", *cells)
    return show(listing)
