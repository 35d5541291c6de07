"""The Hydra plugin that lets `+plugin=ssl4rl recipe=NAME` find the recipes. Registered by `ssl4rl_plugin.plugin`."""

from __future__ import annotations

import warnings

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

RECIPES = "pkg://ssl4rl_plugin.recipes"


class RecipeSearchPath(SearchPathPlugin):
    """Appends the recipes to Hydra's search path, behind verl's own configuration."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        try:
            search_path.append("ssl4rl", RECIPES)
        except Exception as error:  # raised from here, it would end plain verl's commands too
            warnings.warn(
                f"ssl4rl-plugin could not add its recipes to Hydra's search path ({type(error).__name__}: {error}), so "
                "`+plugin=ssl4rl` will not be found. Check the installation with `ssl4rl doctor`.",
                RuntimeWarning,
                stacklevel=2,
            )
