"""The Hydra plugins that find `+plugin=ssl4rl recipe=NAME`. `ssl4rl_plugin.plugin` registers `RecipeSearchPath`.

Most configs are files of `recipes/`. Two kinds are not: the recipes of the table `recipes/paper_grid.yaml`, and the
options `ssl4rl/source=NAME` and `ssl4rl/benchmark=NAME`, which exist for every registered source. `RecipeTable` serves
these. They are not in Hydra's ConfigStore, since Hydra takes a node of the store as the schema of every file with the same
name: it refuses a user's own recipe that has the name of one of ours.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import entry_points
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from ssl4rl_plugin.training import resolvers
from ssl4rl_plugin.training.override_hints import print_hints
from ssl4rl_plugin.training.verl import override_names

RECIPES = "pkg://ssl4rl_plugin.recipes"
"""Search path of the files."""

TABLE = "ssl4rl://paper_grid"
"""Search path of `RecipeTable`."""

SOURCES = "ssl4rl.sources"
"""Entry-point group of the sources. Their names are read here; their modules are not imported."""


class RecipeSearchPath(SearchPathPlugin):
    """Appends the recipes to Hydra's search path, behind verl's own configuration.

    Files win over the table, ours and those of `--config-dir`. Hydra puts that folder before the first provider named
    "schema", so the table has this name.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        try:
            resolvers.register()
            Plugins.instance().register(RecipeTable)  # first: Hydra refuses a path whose scheme it does not know
            search_path.append("ssl4rl", RECIPES)
            search_path.append("schema", TABLE)
            override_names.check_command_line(known_configs())
        except Exception as error:  # raised from here, it would end plain verl's commands too
            _warn("add its recipes to Hydra's search path", error, "`+plugin=ssl4rl` will not be found")
        # Hydra builds the path before it reads the overrides: the hints stand above its own message.
        with contextlib.suppress(Exception):
            print_hints(sys.orig_argv)


class RecipeTable(ConfigSource):
    """Configs that are not files: a Hydra config source with the scheme `ssl4rl`."""

    @staticmethod
    def scheme() -> str:
        return "ssl4rl"

    def available(self) -> bool:
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        try:
            config = OmegaConf.create(_configs()[_key(config_path)])
        except KeyError:
            raise ConfigLoadError(f"Config not found : {config_path}") from None
        return ConfigResult(
            provider=self.provider, path=self.full_path(), config=config, header={"package": "_global_"}
        )

    def is_config(self, config_path: str) -> bool:
        return _key(config_path) in _configs()

    def is_group(self, config_path: str) -> bool:
        return bool(self.list(config_path, None))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        folder = _key(config_path)
        prefix = f"{folder}/" if folder else ""
        below = [name.removeprefix(prefix).partition("/") for name in _configs() if name.startswith(prefix)]
        kinds = {name: ObjectType.GROUP if deeper else ObjectType.CONFIG for name, deeper, _ in below}
        return sorted(name for name, kind in kinds.items() if results_filter in (None, kind))


@dataclass(frozen=True)
class GridRecipe:
    """A recipe of the table."""

    name: str
    summary: str
    reproduces: str
    """The paper's experiment, such as `SSL4RL: MMBench`; empty if the paper has none like it."""
    config: dict[str, Any]
    """The recipe as in a file, with its `defaults`; its package is `_global_`."""


@functools.cache
def grid_recipes() -> dict[str, GridRecipe]:
    """The recipes of `recipes/paper_grid.yaml` by name.

    Raises:
        ValueError: two entries make the same name.
    """
    table = _paper_grid()
    found: dict[str, GridRecipe] = {}
    for entry in table["recipes"]:
        for row in _rows(entry, table["titles"]):
            name = row["name"]
            if name in found:
                raise ValueError(f"recipes/paper_grid.yaml makes the recipe {name!r} twice")
            defaults = [*row["defaults"], "_self_"]
            config = {"defaults": defaults, "trainer": {"experiment_name": name}, **row.get("config", {})}
            found[name] = GridRecipe(name, row["summary"], row.get("reproduces", ""), config)
    return found


def _rows(entry: dict[str, Any], titles: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The entry once for each combination of the values under `for`, with its placeholders replaced."""
    axes = entry.get("for", {})
    for values in itertools.product(*axes.values()):
        text = json.dumps({key: value for key, value in entry.items() if key != "for"})
        for axis, value in zip(axes, values, strict=True):
            text = text.replace(f"<{axis}>", value)
            if f"<{axis.capitalize()}>" in text:
                text = text.replace(f"<{axis.capitalize()}>", titles[value])
        row: dict[str, Any] = json.loads(text)
        yield row


@functools.cache
def _paper_grid() -> dict[str, Any]:
    text = (resources.files("ssl4rl_plugin.recipes") / "paper_grid.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


@functools.cache
def _configs() -> dict[str, dict[str, Any]]:
    """The configs of `RecipeTable` by path, such as `recipe/mmbench_rotation`. Empty, with a warning, after a failure."""
    try:
        found = {f"recipe/{name}": recipe.config for name, recipe in grid_recipes().items()}
        benchmarks = _paper_grid()["benchmarks"]
        for name in entry_points(group=SOURCES).names:
            section: dict[str, Any] = {"source": {"name": name}}
            if name in benchmarks:
                section["transductive"] = True
            found[f"ssl4rl/source/{name}"] = {"ssl4rl": section}
            found[f"ssl4rl/benchmark/{name}"] = {"ssl4rl": {"benchmarks": [{"name": name, "path": "???"}]}}
    except Exception as error:  # Hydra asks for every config of plain verl too
        _warn("read recipes/paper_grid.yaml", error, "only the recipes that are files will be found")
        return {}
    return found


@functools.cache
def known_configs() -> frozenset[str]:
    """Paths of all configs of the plugin, files and table, such as `recipe/images` and `ssl4rl/task/rotation`."""
    root = resources.files("ssl4rl_plugin.recipes")
    found, pending = set(_configs()), [("", root)]
    while pending:
        prefix, folder = pending.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", entry))
            elif entry.name.endswith(".yaml"):
                found.add(prefix + entry.name.removesuffix(".yaml"))
    return frozenset(found)


def _key(config_path: str) -> str:
    return config_path.strip("/").removesuffix(".yaml")


def _warn(what: str, error: Exception, effect: str) -> None:
    warnings.warn(
        f"ssl4rl-plugin could not {what} ({type(error).__name__}: {error}), so {effect}. Check the installation with "
        "`ssl4rl doctor`.",
        RuntimeWarning,
        stacklevel=3,
    )
