"""The entry point that verl imports at the end of `import verl`, in the driver and in every Ray worker.

It registers three things and nothing else:

- a Hydra search path, so that `+plugin=ssl4rl recipe=NAME` finds the recipes on an unmodified verl;
- the OmegaConf resolvers that the recipes use;
- the platform "cpu", only where torch is built without accelerator support, or where VERL_PLATFORM=cpu asks for it.

Effect on plain verl: none on its configuration, since the search path only adds names that verl does not use, and none on
machines with an accelerator. With a CPU-only torch, verl would warn and fall back to "nvidia", which cannot run there; the
plugin makes it use "cpu". VERL_PLATFORM=nvidia restores verl's choice. A CPU-only machine whose torch is built for CUDA (for
example the head node of a GPU cluster) keeps verl's choice.

verl logs a plugin's failure at DEBUG level only, so this module catches failures and warns.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ssl4rl_plugin.core.first_word import say


def register() -> None:
    """Register the recipes and, where needed, the CPU platform. Safe to call more than once."""
    _attempt("register the CPU platform", _register_cpu_platform)
    # In every process: verl resolves the config in a Ray worker that does not import Hydra.
    _attempt("register the resolvers of its recipes", _register_resolvers)
    # Importing Hydra takes longer than everything else here, and many workers never need it: wait until it is imported.
    if "hydra" in sys.modules:
        _attempt("register its recipes with Hydra", _register_recipes)
    elif not any(isinstance(finder, _AfterHydra) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterHydra())


def _register_cpu_platform() -> None:
    # The module registers itself. A program may import it before verl: it then imports verl, and verl this plugin, while
    # the module is only half imported. So import no name from it.
    import ssl4rl_plugin.cpu.platform  # noqa: F401


def _register_resolvers() -> None:
    from ssl4rl_plugin.training import resolvers

    resolvers.register()


def _register_recipes() -> None:
    from hydra.core.plugins import Plugins

    from ssl4rl_plugin.training.verl.search_path import RecipeSearchPath

    Plugins.instance().register(RecipeSearchPath)


def _attempt(what: str, action: Callable[[], None]) -> None:
    """Run `action`. Warn if it fails; never raise."""
    try:
        action()
    except Exception as error:
        warnings.warn(
            f"ssl4rl-plugin could not {what} ({type(error).__name__}: {error}), so `+plugin=ssl4rl` will not work as "
            "documented; verl itself is not affected. Check the installation with `ssl4rl doctor`, or turn the plugin "
            "off with VERL_USE_EXTERNAL_PLUGINS=none.",
            RuntimeWarning,
            stacklevel=2,
        )


class _AfterHydra(MetaPathFinder):
    """Registers the recipes after the first `import hydra`, then removes itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "hydra":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        """Let `loader` register the recipes after it has executed its module."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _attempt("register its recipes with Hydra", _register_recipes)

        _attempt("watch for Hydra", lambda: setattr(loader, "exec_module", exec_module))


say()
register()
