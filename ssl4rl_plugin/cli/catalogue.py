"""`ssl4rl tasks`, `recipes` and `sources`: what is installed, ours and everybody else's."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from importlib import resources
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from ssl4rl_plugin.analysis.terminal import show, show_json, table


def task_entries() -> list[dict[str, Any]]:
    """Every registered task; one that cannot be loaded has a non-empty `error` and nothing else but its name."""
    from ssl4rl_plugin.tasks import get_task, registry

    found: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            task = get_task(name)
            levels = [
                {"name": key, "chance": task.chance(level), "fields": dataclasses.asdict(level)}
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
        except Exception as error:  # whatever a stranger's task does, the others are still listed
            entry = {"name": name, "error": str(error) or type(error).__name__}
        found.append(entry)
    return found


def source_entries() -> list[dict[str, Any]]:
    """Every registered source; one that cannot be loaded has a non-empty `error` and nothing else but its name."""
    from ssl4rl_plugin.data.source import registry

    found: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            kind = registry.get(name)
            options = {
                key: None if parameter.default is parameter.empty else parameter.default
                for key, parameter in inspect.signature(kind).parameters.items()
                if key != "path"
            }
            texts = {key: getattr(kind, key) for key in ("kind", "summary", "schema", "licence", "where")}
            entry = {"name": name, **texts, "splits": list(kind.splits), "options": options, "error": ""}
        except Exception as error:  # see task_entries
            entry = {"name": name, "error": str(error) or type(error).__name__}
        found.append(entry)
    return found


def recipe_entries() -> list[dict[str, Any]]:
    """Every recipe of the package: what it trains on and validates on, with which model, and what it reproduces."""
    names = sorted(
        file.name.removesuffix(".yaml") for file in (RECIPES / "recipe").iterdir() if file.name.endswith(".yaml")
    )
    return [_recipe(name) for name in names]


def _recipe(name: str) -> dict[str, Any]:
    text, _ = _yaml(f"recipe/{name}")
    comments = [line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("# ")][1:]
    reproduces = next((line for line in comments if line.startswith("Reproduces: ")), "")
    config, groups = composed(name)
    section = config.ssl4rl
    return {
        "name": name,
        "summary": comments[0],
        "tasks": OmegaConf.to_container(section.tasks),
        "task_group": groups.get("ssl4rl/task", ""),
        "source": section.source.name,
        "benchmarks": [entry.name for entry in section.benchmarks],
        "model": groups.get("ssl4rl/model", ""),
        "hardware": groups.get("ssl4rl/hardware", ""),
        "algorithm": groups.get("ssl4rl/algorithm", ""),
        "finetuning": groups.get("ssl4rl/finetuning", ""),
        "transductive": section.transductive,
        "reproduces": reproduces.removeprefix("Reproduces: "),
    }


RECIPES = resources.files("ssl4rl_plugin.recipes")


@functools.cache
def _yaml(path: str) -> tuple[str, dict[str, Any]]:
    """The text and the content of a file of the recipes."""
    text = (RECIPES / f"{path}.yaml").read_text(encoding="utf-8")
    return text, yaml.safe_load(text) or {}


def composed(name: str) -> tuple[DictConfig, dict[str, str]]:
    """A recipe's own part of the config, and which file of each group it is made of.

    Follows the defaults lists as Hydra does, for a listing without an import of verl in a fraction of Hydra's time. The
    tests hold it against Hydra for every recipe.
    """
    overridden: dict[str, str] = {}
    chosen: dict[str, str] = {}
    parts: list[dict[str, Any]] = []

    def defaults(path: str) -> list[tuple[str, str]]:
        """The (group, file) pairs of a defaults list; the group is empty for a file named in full."""
        entries = _yaml(path)[1].get("defaults", ["_self_"])
        return [("", entry) if isinstance(entry, str) else next(iter(entry.items())) for entry in entries]

    def child(group: str, file: str) -> str:
        return f"{group}/{overridden.get(group, file)}".strip("/")

    def note_overrides(path: str) -> None:
        """What stands further out wins."""
        for group, file in defaults(path):
            if group.startswith("override /"):
                overridden.setdefault(group.removeprefix("override /"), file)
        for group, file in defaults(path):
            if file != "_self_" and not group.startswith("override /"):
                note_overrides(child(group.removeprefix("/"), file))

    def visit(path: str) -> None:
        for group, file in defaults(path):
            if file == "_self_":
                parts.append({key: value for key, value in _yaml(path)[1].items() if key != "defaults"})
            elif not group.startswith("override /"):
                inner = child(group.removeprefix("/"), file)
                if group:
                    chosen[group.removeprefix("/")] = inner.rpartition("/")[2]
                visit(inner)

    note_overrides(f"recipe/{name}")
    visit(f"recipe/{name}")
    config = OmegaConf.merge(*parts)
    assert isinstance(config, DictConfig)
    return config, chosen


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
    return show(listing)


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
