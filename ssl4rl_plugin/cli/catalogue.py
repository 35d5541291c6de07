"""`ssl4rl tasks`, `recipes` and `sources`: what is installed, ours and everybody else's."""

from __future__ import annotations

import dataclasses
import inspect
from importlib import resources
from typing import Any

import yaml
from rich.markup import escape

from ssl4rl_plugin.cli.tables import show, show_json, table


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
    from ssl4rl_plugin.data_builders.source import registry

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
    """Every recipe of the package, with its first comment line and what its defaults list names."""
    folder = resources.files("ssl4rl_plugin.recipes") / "recipe"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return [_recipe(file.name.removesuffix(".yaml"), file.read_text(encoding="utf-8")) for file in files]


def _recipe(name: str, text: str) -> dict[str, Any]:
    comments = [line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")]
    content = yaml.safe_load(text) or {}
    chosen: dict[str, str] = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, dict):
            for group, value in entry.items():
                # Keys look like /ssl4rl/model, or `override /ssl4rl/model` in a recipe on top of another one.
                chosen[str(group).rpartition("/")[2]] = str(value)
        elif str(entry).startswith("/recipe/"):
            chosen["extends"] = str(entry).removeprefix("/recipe/")
    tasks = (content.get("ssl4rl") or {}).get("tasks")
    return {
        "name": name,
        "summary": next((line for line in comments if line and not line.startswith("@package")), ""),
        "task": chosen.get("task") or ", ".join(map(str, tasks or [])),
        "source": chosen.get("source", ""),
        "model": chosen.get("model", ""),
        "hardware": chosen.get("hardware", ""),
        "extends": chosen.get("extends") or chosen.get("recipe", ""),
    }


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


def show_recipes(as_json: bool) -> None:
    """Print the recipes."""
    entries = recipe_entries()
    if as_json:
        return show_json(entries)
    listing = table("recipe", "task", "source", "model", "hardware", "what it is")
    for entry in entries:
        summary = entry["summary"] + (f" (on top of {entry['extends']})" if entry["extends"] else "")
        cells = [escape(entry[key]) for key in ("task", "source", "model", "hardware")]
        listing.add_row(f"[bold]{escape(entry['name'])}", *cells, escape(summary))
    return show(listing)


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
